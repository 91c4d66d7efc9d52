//! Partitions of captured tables whose rows come under their root. Of some of what happens to them the server's stream has no
//! word: one is truncated, dropped, detached, or attached with rows in it (PostgreSQL, `pgoutput_truncate`: of a partition that comes
//! under its root a TRUNCATE is left out). So their list is looked at with the publication, and at a start against the one
//! of the start before; what was found is said once, with what repairs it (CW0536).
//!
//! Where all partitions of a table have other files, the table itself was truncated, or each of them was. The stream says which: it has a
//! TRUNCATE of the table, by the time that it has come to where the WAL ended at that look.
//!
//! Not seen: a partition that came and went between two looks, and, while nothing streamed, one that was truncated where it is its
//! table's only one.

use super::{SourceConfig, source_error};
use crate::codes::source as code;
use crate::config::quote_ident;
use crate::fault::Fault;
use crate::session::Session;
use bytes::Bytes;
use catchwater_base::log;
use catchwater_capture::source::{Identity, SourceError, identity_tag};
use std::collections::{BTreeMap, BTreeSet};

/// More are not noted for the next start.
const NOTED_MAX: usize = 40_000;
/// Rows of a partition that are looked at to tell what became of it.
const ROWS_MAX: u32 = 10_000;

/// Of each partitioned table, by relation: its partitions and the file of each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Leaves {
    of: BTreeMap<u32, BTreeMap<u32, u32>>,
    /// Tables of which the stream had a TRUNCATE since the last look.
    truncated: BTreeSet<u32>,
    /// Tables all of whose partitions have other files: where the WAL ended then, and the partitions.
    doubts: BTreeMap<u32, (u64, Vec<u32>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Came,
    Gone,
    /// Another file: truncated, or rewritten.
    Renewed,
    /// So have all partitions of the table.
    AllRenewed,
}

impl Leaves {
    /// Those of the partitioned tables among `relations`.
    pub async fn look(config: &SourceConfig, sql: &Session, relations: &[u32]) -> Result<Leaves, SourceError> {
        let mut out = Leaves::default();
        if config.reading.leaves {
            return Ok(out);
        }
        let text = "SELECT p.oid, c.oid, coalesce(pg_relation_filenode(c.oid), 0::oid) \
             FROM pg_class p CROSS JOIN LATERAL pg_partition_tree(p.oid) t JOIN pg_class c ON c.oid = t.relid \
             WHERE p.oid = ANY($1::oid[]) AND p.relkind = 'p' AND t.isleaf AND c.relkind = 'r'";
        let rows = sql.client.query(text, &[&relations]).await;
        for row in rows.map_err(|e| source_error(config, Fault::from(e)))? {
            out.of.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
        }
        Ok(out)
    }

    /// What became of the partitions of tables that both know, as (table, partition, what).
    fn changes(&self, now: &Leaves) -> Vec<(u32, u32, What)> {
        let mut out = Vec::new();
        for (root, before) in &self.of {
            let none = BTreeMap::new();
            let now = now.of.get(root).unwrap_or(&none);
            let gone = before.keys().filter(|leaf| !now.contains_key(leaf)).map(|leaf| (*root, *leaf, What::Gone));
            let came = now.keys().filter(|leaf| !before.contains_key(leaf)).map(|leaf| (*root, *leaf, What::Came));
            let other = |(leaf, file): &(&u32, &u32)| now.get(leaf).is_some_and(|n| n != *file);
            let renewed: Vec<u32> = before.iter().filter(other).map(|(leaf, _)| *leaf).collect();
            out.extend(gone.chain(came));
            let left = before.keys().filter(|leaf| now.contains_key(leaf)).count();
            let what = if renewed.len() < left { What::Renewed } else { What::AllRenewed };
            out.extend(renewed.into_iter().map(|leaf| (*root, leaf, what)));
        }
        out
    }

    /// The stream has a TRUNCATE of these tables.
    pub fn truncated(&mut self, oids: &[u32]) {
        self.truncated.extend(oids.iter().filter(|oid| self.of.contains_key(oid)));
    }

    /// The doubts that the stream settles where it stands at `at`: of those that it had no TRUNCATE for, the partitions.
    fn settled(&mut self, at: u64) -> Vec<(u32, u32)> {
        let truncated = &self.truncated;
        self.doubts.retain(|root, _| !truncated.contains(root));
        let told: Vec<u32> = self.doubts.iter().filter(|(_, (end, _))| at >= *end).map(|(root, _)| *root).collect();
        let leaves = |root: u32| {
            self.doubts.remove(&root).into_iter().flat_map(move |(_, l)| l.into_iter().map(move |l| (root, l)))
        };
        told.into_iter().flat_map(leaves).collect()
    }

    /// Takes over what there is `now`, and says what nobody else does. `at` = how far the stream has come; `None` = it has not begun, so
    /// what it had before the last end is not known.
    pub async fn learn(
        &mut self,
        config: &SourceConfig,
        sql: &Session,
        now: Leaves,
        at: Option<u64>,
    ) -> Result<(), SourceError> {
        let mut all: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (root, leaf, what) in self.changes(&now) {
            match what {
                What::AllRenewed if self.truncated.contains(&root) || at.is_none() => {}
                What::AllRenewed => all.entry(root).or_default().push(leaf),
                _ => tell(config, sql, root, leaf, what).await?,
            }
        }
        for (root, leaf) in self.settled(at.unwrap_or(0)) {
            tell(config, sql, root, leaf, What::AllRenewed).await?;
        }
        if !all.is_empty() {
            let text = "SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8";
            let end = sql.client.query_one(text, &[]).await.map_err(|e| source_error(config, Fault::from(e)))?;
            let end: i64 = end.get(0);
            self.doubts.extend(all.into_iter().map(|(root, leaves)| (root, (end.cast_unsigned(), leaves))));
        }
        self.truncated.clear();
        self.of = now.of;
        Ok(())
    }

    /// n × (table u32, partition u32, file u32), ascending, big endian (docs/formats/checkpoint.md, identity tag 16).
    fn encode(&self) -> Vec<u8> {
        let all = self.of.iter().flat_map(|(root, of)| of.iter().map(move |(leaf, file)| [*root, *leaf, *file]));
        all.take(NOTED_MAX).flatten().flat_map(u32::to_be_bytes).collect()
    }

    /// For the next start; no partition, no note.
    pub fn note(&self, identity: &mut Identity) {
        if !self.of.is_empty() {
            identity.tags.insert(identity_tag::PARTITIONS, Bytes::from(self.encode()));
        }
    }

    /// What [`Leaves::encode`] made; bytes of another shape know of nothing.
    pub fn decode(bytes: &[u8]) -> Leaves {
        let mut out = Leaves::default();
        let (all, rest) = bytes.as_chunks::<12>();
        for [a, b, c, d, e, f, g, h, i, j, k, l] in all.iter().filter(|_| rest.is_empty() && all.len() < NOTED_MAX) {
            let of = out.of.entry(u32::from_be_bytes([*a, *b, *c, *d])).or_default();
            of.insert(u32::from_be_bytes([*e, *f, *g, *h]), u32::from_be_bytes([*i, *j, *k, *l]));
        }
        out
    }
}

async fn tell(config: &SourceConfig, sql: &Session, root: u32, leaf: u32, what: What) -> Result<(), SourceError> {
    let fail = |e: tokio_postgres::Error| source_error(config, Fault::from(e));
    let text = "SELECT n.nspname::text, c.relname::text, \
           EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1::oid";
    let named = async |oid: u32| -> Result<Option<(String, String, bool)>, SourceError> {
        let row = sql.client.query_opt(text, &[&oid]).await.map_err(fail)?;
        Ok(row.map(|r| (r.get(0), r.get(1), r.get(2))))
    };
    let Some((schema, name, has_key)) = named(root).await? else { return Ok(()) };
    let table = format!("{schema}.{name}");
    let part = named(leaf).await?;
    let shown = part.as_ref().map_or_else(|| format!("relation {leaf}"), |(s, n, _)| format!("{s}.{n}"));
    let quoted = part.as_ref().map(|(s, n, _)| format!("{}.{}", quote_ident(s), quote_ident(n)));
    // Transactions compare by age: those of rows, and the one that attached the partition or gave it its file.
    let any = async |condition: &str| -> Result<bool, SourceError> {
        let Some(from) = &quoted else { return Ok(false) };
        let text = format!(
            "SELECT EXISTS (SELECT 1 FROM (SELECT xmin AS x FROM ONLY {from} LIMIT {ROWS_MAX}) r WHERE {condition})"
        );
        Ok(sql.client.query_one(&text, &[]).await.map_err(fail)?.get(0))
    };
    let reset = || format!("catchwater pipeline reset PIPELINE --source {} --allow-destructive", config.source);
    let (what, cure) = match what {
        What::Came => {
            let attached =
                format!("age(r.x) >= (SELECT max(age(i.xmin)) FROM pg_inherits i WHERE i.inhrelid = {leaf})");
            if !any(&attached).await? {
                return Ok(()); // made as one, or attached without rows
            }
            let cure = match has_key {
                true => format!("catchwater pipeline snapshot PIPELINE --table {table} --where 'tableoid = {leaf}'"),
                false => format!("{} (a table without a key is read as a whole)", reset()),
            };
            ("was attached with rows in it: they are not in the stream", cure)
        }
        What::Gone => {
            let what = match part {
                Some(_) => "was detached: its rows stay at the targets",
                None => "was dropped: its rows stay at the targets",
            };
            (what, format!("delete them there, or read the source again: {}", reset()))
        }
        What::Renewed | What::AllRenewed => {
            // What an ALTER TABLE rewrites is of its own transaction.
            let than = if what == What::AllRenewed { ">=" } else { ">" };
            let kept = format!("age(r.x) {than} (SELECT age(c.xmin) FROM pg_class c WHERE c.oid = {leaf})");
            if any(&kept).await? {
                return Ok(()); // VACUUM FULL, CLUSTER
            }
            let cure = format!("delete there what it had, or read the source again: {}", reset());
            ("was truncated by itself: the rows that it had stay at the targets", cure)
        }
    };
    let number = code::PARTITION;
    log!(
        Warn,
        "source.partition",
        "source {}: CW{number:04} partition {shown} of {table} {what}; the server's stream does not say so; {cure}",
        config.source
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(of: &[(u32, &[(u32, u32)])]) -> Leaves {
        Leaves { of: of.iter().map(|(root, of)| (*root, of.iter().copied().collect())).collect(), ..Leaves::default() }
    }

    #[test]
    fn what_became_of_partitions() {
        let before = leaves(&[(1, &[(10, 100), (11, 110)]), (2, &[(20, 200)])]);
        let changes = |now: &[(u32, &[(u32, u32)])]| before.changes(&leaves(now));
        assert_eq!(changes(&[(1, &[(10, 100), (11, 110)]), (2, &[(20, 200)])]), []);
        assert_eq!(changes(&[(1, &[(10, 101), (11, 110)]), (2, &[(20, 200)])]), [(1, 10, What::Renewed)]);
        // The tables themselves were truncated, or each partition was.
        let all = [(1, 10, What::AllRenewed), (1, 11, What::AllRenewed), (2, 20, What::AllRenewed)];
        assert_eq!(changes(&[(1, &[(10, 101), (11, 111)]), (2, &[(20, 201)])]), all);
        let swapped = changes(&[(1, &[(10, 100), (12, 120)]), (2, &[(20, 200)]), (3, &[(30, 300)])]);
        assert_eq!(swapped, [(1, 11, What::Gone), (1, 12, What::Came)], "a table that is new has no past");
        assert_eq!(Leaves::default().changes(&before), [], "nothing was noted");
    }

    #[test]
    fn the_stream_says_whether_the_table_was_truncated() {
        let mut leaves = leaves(&[(1, &[(10, 100)]), (2, &[(20, 200)]), (3, &[(30, 300)])]);
        leaves.doubts = BTreeMap::from([(1, (50, vec![10])), (2, (50, vec![20])), (3, (90, vec![30]))]);
        leaves.truncated(&[2, 7]);
        assert_eq!(leaves.truncated, BTreeSet::from([2]), "7 has no partitions");
        assert_eq!(leaves.settled(49), []);
        assert_eq!(leaves.settled(50), [(1, 10)]);
        assert_eq!(leaves.settled(100), [(3, 30)]);
        assert_eq!(leaves.settled(u64::MAX), []);
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let of = leaves(&[(1, &[(10, 100), (11, 110)]), (u32::MAX, &[(20, u32::MAX)])]);
        assert_eq!(Leaves::decode(&of.encode()), of);
        assert_eq!(Leaves::decode(&of.encode()[1..]), Leaves::default());
    }
}
