//! What a publication consists of, finer than its list of tables: an entry (`pg_publication_rel`, of a schema
//! `pg_publication_namespace`) that is taken out and put back has another oid, and one that gets a row filter or loses
//! it too. So a look at two moments tells whether a table was away in between, when the list is the same at both: the
//! server judges each change by the publication of its own place in the WAL, so changes of that time never come.

use super::open::publication_differs;
use super::{SourceConfig, source_error};
use crate::session::Session;
use catchwater_base::log;
use catchwater_capture::source::SourceError;
use std::collections::{BTreeMap, BTreeSet};

/// First server with schemas in publications.
const SCHEMAS_MIN: i32 = 150_000;

/// The entries that bring each table, by relation. A publication of all tables has none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Entries {
    /// Transaction that wrote the row of the publication itself: its options, its owner, its name.
    pub written_by: u32,
    pub(super) of: BTreeMap<u32, BTreeSet<u32>>,
}

impl Entries {
    /// Those of `relations` in the publication `oid`. A partition comes by its ancestors, too.
    pub(super) async fn of(
        config: &SourceConfig,
        sql: &Session,
        version: i32,
        oid: u32,
        relations: &[u32],
    ) -> Result<Entries, SourceError> {
        let schemas = match version {
            ..SCHEMAS_MIN => "",
            _ => {
                " UNION ALL SELECT t.relid, n.oid FROM t JOIN pg_class c ON c.oid = t.via \
                   JOIN pg_publication_namespace n ON n.pnnspid = c.relnamespace AND n.pnpubid = $1"
            }
        };
        let text = format!(
            "WITH t AS (SELECT r AS relid, r AS via FROM unnest($2::oid[]) r \
               UNION SELECT r, a.relid::oid FROM unnest($2::oid[]) r, pg_partition_ancestors(r::regclass) a) \
             SELECT t.relid, e.oid FROM t JOIN pg_publication_rel e ON e.prrelid = t.via AND e.prpubid = $1{schemas}"
        );
        let fail = |e: tokio_postgres::Error| source_error(config, e.into());
        let rows = sql.client.query(&text, &[&oid, &relations]).await.map_err(fail)?;
        let mut of: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for row in rows {
            of.entry(row.get(0)).or_default().insert(row.get(1));
        }
        let written = "SELECT xmin::text::int8 FROM pg_publication WHERE oid = $1::oid";
        let written = sql.client.query_opt(written, &[&oid]).await.map_err(fail)?;
        Ok(Entries { written_by: written.map_or(0, |r| r.get::<_, i64>(0) as u32), of })
    }

    /// The first relation of `now` that was there `before` by entries of which none is left.
    pub(super) fn was_away(before: &Entries, now: &Entries) -> Option<u32> {
        let put_back = |(relation, entries): (&u32, &BTreeSet<u32>)| {
            before.of.get(relation).filter(|old| old.is_disjoint(entries)).map(|_| *relation)
        };
        now.of.iter().find_map(put_back)
    }

    /// Takes over what `now` has; a relation that is not there at the moment is remembered as it was.
    pub(super) fn learn(&mut self, now: Entries) {
        self.written_by = now.written_by;
        self.of.extend(now.of);
    }

    /// `written_by u32 | n × (relation u32, entry u32)`, ascending, big endian (docs/formats/checkpoint.md, identity tag 15).
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.written_by.to_be_bytes().to_vec();
        for (relation, entry) in self.of.iter().flat_map(|(r, of)| of.iter().map(move |e| (r, e))) {
            out.extend_from_slice(&relation.to_be_bytes());
            out.extend_from_slice(&entry.to_be_bytes());
        }
        out
    }

    /// What [`Entries::encode`] made; bytes of another shape know of nothing.
    pub(super) fn decode(bytes: &[u8]) -> Option<Entries> {
        let (written_by, rest) = bytes.split_first_chunk::<4>()?;
        let (pairs, []) = rest.as_chunks::<8>() else { return None };
        let mut out = Entries { written_by: u32::from_be_bytes(*written_by), of: BTreeMap::new() };
        for [a, b, c, d, e, f, g, h] in pairs {
            out.of
                .entry(u32::from_be_bytes([*a, *b, *c, *d]))
                .or_default()
                .insert(u32::from_be_bytes([*e, *f, *g, *h]));
        }
        Some(out)
    }
}

/// A table that is in the publication now was not in it for a while.
pub(super) fn was_away(config: &SourceConfig, table: &str) -> SourceError {
    let what = format!(
        "table {table} was taken out of it and put back, or its row filter or columns were changed: changes made meanwhile are \
         not in the stream"
    );
    publication_differs(config, &what, "the source must be read again".into())
}

/// Its options may have been narrower in between; nothing says which they were, and a change of its owner looks the same.
pub(super) fn warn_written(config: &SourceConfig) {
    log!(
        Warn,
        "source.publication",
        "publication {} was altered (its options, owner or name); if it published fewer kinds of changes for a while, those are \
         missing, and the source must be read again",
        config.publication()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(of: &[(u32, &[u32])]) -> Entries {
        Entries { written_by: 7, of: of.iter().map(|(r, e)| (*r, e.iter().copied().collect())).collect() }
    }

    #[test]
    fn a_table_was_away_if_none_of_its_entries_is_left() {
        let before = entries(&[(1, &[10]), (2, &[20, 21]), (3, &[30])]);
        let away = |now: &[(u32, &[u32])]| Entries::was_away(&before, &entries(now));
        assert_eq!(away(&[(1, &[10]), (2, &[20, 21]), (3, &[30])]), None);
        assert_eq!(away(&[(1, &[10]), (2, &[22, 21])]), None, "one stayed; a table that is gone is another check's");
        assert_eq!(away(&[(1, &[10]), (4, &[40])]), None, "a new table");
        assert_eq!(away(&[(1, &[10]), (2, &[22])]), Some(2));
        assert_eq!(away(&[(1, &[11])]), Some(1));
    }

    #[test]
    fn what_is_stored_is_read_back() {
        for of in [entries(&[]), entries(&[(1, &[10]), (u32::MAX, &[20, 21])])] {
            assert_eq!(Entries::decode(&of.encode()), Some(of.clone()));
            assert_eq!(Entries::decode(&of.encode()[..3]), None);
        }
        assert_eq!(Entries::decode(&[0; 13]), None);
    }

    #[test]
    fn a_table_that_is_not_there_is_remembered() {
        let mut known = entries(&[(1, &[10]), (3, &[30])]);
        known.learn(entries(&[(1, &[10, 11]), (2, &[20])]));
        assert_eq!(known, entries(&[(1, &[10, 11]), (2, &[20]), (3, &[30])]));
    }
}
