//! What the catalogue says of tables and types: read in four queries for any number of tables, types cached by oid.
//!
//! [`CatalogTable::relation`] builds the very bytes pgoutput would send as `R` for the table, so a schema made from the
//! catalogue and one made from the stream have one fingerprint as long as the shape is the same.

use crate::config::{STATE_SCHEMA, TableRef};
use crate::fault::Fault;
use crate::source::SourceConfig;
use crate::source::decode::{Relation, RelationColumn};
use crate::types::decode;
use crate::types::schema::{self, PgType, PgTypes};
use bytes::{BufMut, Bytes, BytesMut};
use catchwater_change::schema::UNKNOWN_ID;
use catchwater_change::{Column, KeyFrom, TableSchema, exact};
use catchwater_record::TopicId;
use std::collections::BTreeMap;
use tokio_postgres::Client;

#[derive(Clone, PartialEq, Debug)]
pub struct CatalogTable {
    pub oid: u32,
    pub database: String,
    pub schema: String,
    pub name: String,
    /// `r` table, `p` partitioned, `v` view, `m` materialized view, `f` foreign.
    pub kind: u8,
    /// `p` permanent, `u` unlogged, `t` temporary.
    pub persistence: u8,
    /// `d n f i`.
    pub identity: u8,
    /// Estimate of the planner; negative = never analysed.
    pub tuples: f64,
    pub comment: String,
    pub may_select: bool,
    /// Row-level security applies to the user: statements may pass rows over without a word.
    pub rows_hidden: bool,
    pub owned: bool,
    /// Part of a partitioned table.
    pub partition: bool,
    pub columns: Vec<CatalogColumn>,
    pub indexes: Vec<CatalogIndex>,
    /// attnums of the key that Debezium takes where there is no primary one: of the first unique index by name, a clustered
    /// one before all, also if it is partial or invalid, with the columns it only includes. Empty: none, or not asked for.
    pub unique_there: Vec<i16>,
    /// The publication carries stored generated columns (PostgreSQL 18); false until it was looked at.
    pub generated_sent: bool,
    /// Stored generated columns that are not sent stand in the schema: snapshots have them, the stream has not.
    pub generated_read: bool,
    /// Columns that were dropped: their numbers, and the transactions that did it.
    pub dropped: Vec<(i16, u32)>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct CatalogColumn {
    pub number: i16,
    pub name: String,
    pub type_oid: u32,
    pub modifier: i32,
    pub type_text: String,
    pub not_null: bool,
    /// By its domain; unlike the column's own, it may be got round (`(SELECT x FROM t WHERE false)`).
    pub domain_not_null: bool,
    pub generated: bool,
    /// Generated, and kept in the row.
    pub stored: bool,
    pub identity: bool,
    pub default: String,
    /// What rows older than the column have in it.
    pub missing: Option<String>,
    pub comment: String,
    /// The transaction that made it, or changed it last.
    pub written_by: u32,
}

/// A valid unique index without expressions and predicate.
#[derive(Clone, PartialEq, Debug)]
pub struct CatalogIndex {
    pub name: String,
    pub primary: bool,
    pub identity: bool,
    /// attnums, in key order.
    pub columns: Vec<i16>,
}

/// Which tables.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    Names(&'a [TableRef]),
    /// What a source's file means: names, schemas, lists.
    Captured(&'a SourceConfig),
    Oids(&'a [u32]),
}

/// Reads the tables, by schema and name ascending; those that do not exist are left out. Fills `types`.
pub async fn load<'a>(client: &Client, wanted: Wanted<'a>, types: &mut PgTypes) -> Result<Vec<CatalogTable>, Fault> {
    let named = |refs: &'a [TableRef]| {
        let (schemas, names) = refs.iter().map(|r| (r.schema.as_str(), r.name.as_str())).unzip();
        (vec![], schemas, names)
    };
    let (oids, schemas, names): (Vec<u32>, Vec<&str>, Vec<&str>) = match wanted {
        Wanted::Oids(oids) => (oids.to_vec(), vec![], vec![]),
        Wanted::Names(refs) => named(refs),
        Wanted::Captured(config) => named(&config.tables),
    };
    let every = matches!(wanted, Wanted::Captured(config) if config.lists.adds());
    // Patterns mean whole tables; or partitions, too, or instead.
    let (leaves, roots) = match wanted {
        Wanted::Captured(config) => (config.leaves || config.reading.leaves, config.takes_roots()),
        _ => (false, true),
    };
    let mut rows = client
        .query(
            "SELECT c.oid, current_database()::text, n.nspname::text, c.relname::text, c.relkind::text, \
               c.relpersistence::text, c.relreplident::text, c.reltuples::float8, \
               coalesce(obj_description(c.oid, 'pg_class'), ''), has_table_privilege(c.oid, 'SELECT'), \
               pg_has_role(c.relowner, 'USAGE'), c.relispartition, row_security_active(c.oid) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = ANY($1::oid[]) OR EXISTS (SELECT 1 FROM unnest($2::text[], $3::text[]) w(s, t) \
               WHERE w.s = n.nspname AND ((w.t = c.relname AND c.relkind IN ('r','p','v','m','f')) \
                 OR (w.t = '*' AND (c.relkind = 'r' OR c.relkind = 'p' AND $7) AND c.relpersistence = 'p' \
                   AND ($6 OR NOT c.relispartition)))) \
               OR ($4 AND (c.relkind = 'r' OR c.relkind = 'p' AND $7) AND c.relpersistence = 'p' \
                 AND ($6 OR NOT c.relispartition) \
                 AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> $5) \
             ORDER BY n.nspname, c.relname",
            &[&oids, &schemas, &names, &every, &STATE_SCHEMA, &leaves, &roots],
        )
        .await?;
    if let Wanted::Captured(config) = wanted {
        rows.retain(|r| config.captures(&r.get::<_, String>(2), &r.get::<_, String>(3)));
    }
    let letter = |text: String| text.bytes().next().unwrap_or(0);
    let mut tables: Vec<CatalogTable> = rows
        .iter()
        .map(|r| CatalogTable {
            oid: r.get(0),
            database: r.get(1),
            schema: r.get(2),
            name: r.get(3),
            kind: letter(r.get(4)),
            persistence: letter(r.get(5)),
            identity: letter(r.get(6)),
            tuples: r.get(7),
            comment: r.get(8),
            may_select: r.get(9),
            owned: r.get(10),
            partition: r.get(11),
            rows_hidden: r.get(12),
            columns: Vec::new(),
            dropped: Vec::new(),
            indexes: Vec::new(),
            unique_there: Vec::new(),
            generated_sent: false,
            generated_read: matches!(wanted, Wanted::Captured(config) if config.without_identity),
        })
        .collect();
    if tables.is_empty() {
        return Ok(tables);
    }
    let oids: Vec<u32> = tables.iter().map(|t| t.oid).collect();
    let place: BTreeMap<u32, usize> = oids.iter().enumerate().map(|(i, oid)| (*oid, i)).collect();
    for r in client
        .query(
            "SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod, \
               format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated::text, \
               a.attidentity::text <> '', coalesce(pg_get_expr(d.adbin, d.adrelid), ''), \
               coalesce(col_description(a.attrelid, a.attnum), ''), \
               CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] \
                 WHEN c.relkind = 'p' THEN (SELECT min(m.v) FROM (SELECT DISTINCT (l.attmissingval::text::text[])[1] AS v \
                   FROM pg_partition_tree(a.attrelid) p JOIN pg_attribute l ON l.attrelid = p.relid AND l.attname = a.attname \
                   WHERE p.isleaf AND l.atthasmissing AND l.atttypid = a.atttypid) m HAVING count(*) = 1) END, \
               coalesce((SELECT t.typtype = 'd' AND t.typnotnull FROM pg_type t WHERE t.oid = a.atttypid), false), \
               a.xmin::text::int8, a.attisdropped \
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
               LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
             WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0 ORDER BY 1, 2",
            &[&oids],
        )
        .await?
    {
        let written_by = r.get::<_, i64>(13) as u32;
        if r.get::<_, bool>(14) {
            if let Some(i) = place.get(&r.get::<_, u32>(0)) {
                tables[*i].dropped.push((r.get(1), written_by));
            }
            continue;
        }
        let how: String = r.get(7);
        let generated = !how.is_empty();
        let column = CatalogColumn {
            number: r.get(1),
            name: r.get(2),
            type_oid: r.get(3),
            modifier: r.get(4),
            type_text: r.get(5),
            not_null: r.get(6),
            generated,
            stored: how == "s",
            identity: r.get(8),
            default: r.get(9),
            comment: r.get(10),
            missing: r.get(11),
            domain_not_null: r.get(12),
            written_by,
        };
        if let Some(i) = place.get(&r.get::<_, u32>(0)) {
            tables[*i].columns.push(column);
        }
    }
    for r in client
        .query(
            "SELECT i.indrelid, ic.relname::text, i.indisprimary, i.indisreplident, \
               ARRAY(SELECT (i.indkey::int2[])[k] FROM generate_series(0, i.indnkeyatts - 1) k ORDER BY k) \
             FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid \
             WHERE i.indrelid = ANY($1::oid[]) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL \
               AND i.indexprs IS NULL ORDER BY ic.relname",
            &[&oids],
        )
        .await?
    {
        let index = CatalogIndex { name: r.get(1), primary: r.get(2), identity: r.get(3), columns: r.get(4) };
        if let Some(i) = place.get(&r.get::<_, u32>(0)) {
            tables[*i].indexes.push(index);
        }
    }
    if tables.iter().any(|t| t.generated_read) {
        for r in client
            .query(
                "SELECT DISTINCT ON (i.indrelid) i.indrelid, i.indkey::int2[] \
                 FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid \
                 WHERE i.indrelid = ANY($1::oid[]) AND i.indisunique AND i.indexprs IS NULL \
                 ORDER BY i.indrelid, NOT i.indisclustered, ic.relname",
                &[&oids],
            )
            .await?
        {
            if let Some(i) = place.get(&r.get::<_, u32>(0)) {
                tables[*i].unique_there = r.get(1);
            }
        }
    }
    let used: Vec<u32> = tables.iter().flat_map(|t| t.columns.iter().map(|c| c.type_oid)).collect();
    load_types(client, used, types).await?;
    Ok(tables)
}

/// Types with all they lean on. User-defined ones are read anew each time: labels may have been added.
pub async fn load_types(client: &Client, mut wanted: Vec<u32>, types: &mut PgTypes) -> Result<(), Fault> {
    wanted.retain(|oid| *oid >= schema::oid::FIRST_NORMAL || !types.contains_key(oid));
    // A domain over an array over a domain: bounded by the depth `kind` follows.
    for _ in 0..16 {
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        for r in client
            .query(
                "SELECT t.oid, t.typname::text, t.typtype::text, t.typcategory::text, t.typelem, t.typdelim::text, \
                   t.typbasetype, t.typtypmod, \
                   ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder), \
                   format_type(t.oid, NULL), t.typsend <> 0, \
                   ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid \
                     AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) \
                 FROM pg_type t WHERE t.oid = ANY($1::oid[])",
                &[&wanted],
            )
            .await?
        {
            let letter = |at: usize| r.get::<_, String>(at).bytes().next().unwrap_or(0);
            let t = PgType {
                oid: r.get(0),
                name: r.get(1),
                kind: letter(2),
                category: letter(3),
                element: r.get(4),
                delimiter: letter(5),
                base: r.get(6),
                base_modifier: r.get(7),
                labels: r.get(8),
                text: r.get(9),
                sends: r.get(10),
                attributes: r.get(11),
            };
            types.insert(t.oid, t);
        }
        // An oid that does not exist (any more) would be asked for again for ever.
        let asked = std::mem::take(&mut wanted);
        wanted = schema::missing(types);
        wanted.retain(|oid| !asked.contains(oid));
    }
    Ok(())
}

/// The server's text of types the catalogue's tables do not show any more.
pub async fn type_texts(client: &Client, of: &[(u32, i32)]) -> Result<Vec<String>, Fault> {
    let (oids, modifiers): (Vec<u32>, Vec<i32>) = of.iter().copied().unzip();
    let rows = client
        .query(
            "SELECT coalesce(format_type(w.o, w.m), 'unknown') \
             FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY w(o, m, n) ORDER BY w.n",
            &[&oids, &modifiers],
        )
        .await?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

impl CatalogTable {
    /// Columns that the stream carries: generated ones are not sent, but for stored ones if the publication asks (18).
    pub fn captured(&self) -> impl Iterator<Item = &CatalogColumn> {
        self.columns.iter().filter(|c| !c.generated || (c.stored && self.generated_sent))
    }

    pub fn key(&self) -> (KeyFrom, &[i16]) {
        let find = |f: fn(&CatalogIndex) -> bool| self.indexes.iter().find(|i| f(i));
        // Under an index identity old rows carry that index's columns and nothing else: it has to be the key.
        if self.identity == b'i'
            && let Some(i) = find(|i| i.identity)
        {
            return (KeyFrom::IdentityIndex, &i.columns);
        }
        match find(|i| i.primary) {
            Some(i) => (KeyFrom::PrimaryKey, &i.columns),
            // As Debezium; old rows are whole, so its columns are in each. NULLs would not be unique.
            None if self.identity == b'f' => match self.indexes.iter().find(|i| self.is_never_null(i)) {
                Some(i) => (KeyFrom::IdentityIndex, &i.columns),
                None => (KeyFrom::None, &[]),
            },
            None => (KeyFrom::None, &[]),
        }
    }

    fn is_never_null(&self, index: &CatalogIndex) -> bool {
        !index.columns.is_empty() && index.columns.iter().all(|n| self.named(*n).is_some_and(|c| c.not_null))
    }

    /// True if UPDATE and DELETE on the table fail in the application once it is published.
    pub fn lacks_identity(&self) -> bool {
        match self.identity {
            b'f' => false,
            b'i' => !self.indexes.iter().any(|i| i.identity),
            b'd' => !self.indexes.iter().any(|i| i.primary),
            _ => true,
        }
    }

    /// The `R` message pgoutput sends for this table as it is now.
    pub fn relation(&self) -> Relation {
        let identity_columns: &[i16] = match self.identity {
            b'i' => self.indexes.iter().find(|i| i.identity),
            b'd' => self.indexes.iter().find(|i| i.primary),
            _ => None,
        }
        .map_or(&[], |i| &i.columns);
        let columns: Vec<RelationColumn> = self
            .captured()
            .map(|c| RelationColumn {
                is_key: self.identity == b'f' || identity_columns.contains(&c.number),
                name: c.name.clone(),
                type_oid: c.type_oid,
                modifier: c.modifier,
            })
            .collect();
        let mut body = BytesMut::new();
        body.put_u32(self.oid);
        body.put_slice(self.schema.as_bytes());
        body.put_u8(0);
        body.put_slice(self.name.as_bytes());
        body.put_u8(0);
        body.put_u8(self.identity);
        body.put_u16(columns.len() as u16);
        for c in &columns {
            body.put_u8(u8::from(c.is_key));
            body.put_slice(c.name.as_bytes());
            body.put_u8(0);
            body.put_u32(c.type_oid);
            body.put_i32(c.modifier);
        }
        Relation {
            oid: self.oid,
            namespace: self.schema.clone(),
            name: self.name.clone(),
            identity: self.identity,
            columns,
            body: body.freeze(),
        }
    }

    /// The schema of the table as it is now.
    pub fn table_schema(&self, types: &PgTypes) -> TableSchema {
        merge(&self.relation(), Some(self), types, &[], None)
    }

    /// Numbers of the relation's columns, for they come in the order of these, when transaction `at` wrote: the catalogue may be
    /// newer, and a column that was dropped and made again under its name looks like the one before. `None` = nothing was
    /// dropped or renamed since, or it does not add up: names say it all then.
    fn numbers_at(&self, r: &Relation, at: Option<u32>) -> Option<Vec<i16>> {
        if self.dropped.is_empty() {
            return self.renamed_since(r, at?);
        }
        let is_later = |by: u32| at.is_some_and(|at| by.wrapping_sub(at).cast_signed() > 0);
        let is_own = |by: u32| at == Some(by);
        // Whether generated ones are sent, the relation itself says.
        let is_sent = |c: &&CatalogColumn| !c.generated || (c.stored && r.columns.iter().any(|k| k.name == c.name));
        let live: Vec<&CatalogColumn> = self.columns.iter().filter(is_sent).collect();
        // Of one that nobody made or altered in it or since, the name is known.
        let is_named = |(c, n): (&RelationColumn, &i16)| {
            live.iter().all(|k| is_later(k.written_by) || is_own(k.written_by) || k.name != c.name || k.number == *n)
        };
        // Numbers ascend as columns are made: of those that were not dropped before, the first are those that were there. What this
        // transaction dropped itself was there before that, and not behind it.
        let numbers = |with_own: bool| {
            let still = |by: u32| is_later(by) || with_own && is_own(by);
            let dropped = self.dropped.iter().filter(|(_, by)| still(*by)).map(|(number, _)| *number);
            let mut numbers: Vec<i16> = live.iter().map(|c| c.number).chain(dropped).collect();
            numbers.sort_unstable();
            numbers.truncate(r.columns.len());
            (numbers.len() == r.columns.len() && r.columns.iter().zip(&numbers).all(is_named)).then_some(numbers)
        };
        let has_own = self.dropped.iter().any(|(_, by)| is_own(*by));
        numbers(false).or_else(|| numbers(true).filter(|_| has_own))
    }

    /// Numbers of the relation's columns where some of them have other names today, perhaps each other's: as nothing was dropped,
    /// places are numbers, and who was renamed was written by `at` (or a savepoint of it) or later.
    fn renamed_since(&self, r: &Relation, at: u32) -> Option<Vec<i16>> {
        let is_young = |by: u32| by.wrapping_sub(at).cast_signed() >= 0;
        let is_sent = |c: &&CatalogColumn| !c.generated || (c.stored && r.columns.iter().any(|k| k.name == c.name));
        let pairs = || r.columns.iter().zip(self.columns.iter().filter(is_sent));
        let is_told = pairs().count() == r.columns.len()
            && pairs().any(|(then, now)| then.name != now.name)
            && (!self.is_in_order(r) || pairs().all(|(then, now)| then.name == now.name || is_young(now.written_by)));
        is_told.then(|| pairs().map(|(_, now)| now.number).collect())
    }

    /// False = names mislead: a relation's columns come in the order of their numbers.
    pub fn is_in_order(&self, r: &Relation) -> bool {
        let numbers: Vec<i16> = r.columns.iter().filter_map(|c| find(Some(self), c)).map(|c| c.number).collect();
        numbers.is_sorted()
    }

    /// The newest transaction that dropped a column, if it is `at` or younger and the relation looks as the table does today all the
    /// same: a column was made again under its name, and whether rows of `at` are of the one or the other nobody can say. (What
    /// `at` did in a savepoint has a younger number, too.)
    pub fn made_again_since(&self, r: &Relation, at: u32) -> Option<u32> {
        let is_young = |by: u32| by.wrapping_sub(at).cast_signed() >= 0;
        let is_sent = |c: &&CatalogColumn| !c.generated || (c.stored && r.columns.iter().any(|k| k.name == c.name));
        let sent: Vec<&CatalogColumn> = self.columns.iter().filter(is_sent).collect();
        let is_todays = sent.len() == r.columns.len() && unknown_columns(r, Some(self)).is_empty();
        let is_made = is_todays && sent.iter().any(|c| is_young(c.written_by)) || !self.is_in_order(r);
        let young = self.dropped.iter().map(|(_, by)| *by).filter(|by| is_made && is_young(*by));
        young.max_by_key(|by| by.wrapping_sub(at))
    }

    /// As [`CatalogTable::made_again_since`], of a relation that looks otherwise than the table does today: one of its columns was made by
    /// `at` or a younger one, and `at` or a younger one dropped one. What `at` wrote before that has another column's values in it.
    pub fn is_made_beside(&self, r: &Relation, at: u32) -> Option<u32> {
        let is_young = |by: u32| by.wrapping_sub(at).cast_signed() >= 0;
        let is_made = r.columns.iter().filter_map(|c| find(Some(self), c)).any(|c| is_young(c.written_by));
        let young = self.dropped.iter().map(|(_, by)| *by).filter(|by| is_made && is_young(*by));
        young.max_by_key(|by| by.wrapping_sub(at))
    }

    /// All columns, generated ones included: what a sink looks at.
    pub fn all_columns(&self, types: &PgTypes) -> Vec<Column> {
        self.columns.iter().map(|c| column(c, types)).collect()
    }

    /// A column that is the relation's, whatever it is called today. Where columns were dropped, names go before.
    fn by_number(&self, then: &RelationColumn, number: i16) -> Option<&CatalogColumn> {
        self.named(number).filter(|c| self.dropped.is_empty() && c.is_of_type(then))
    }

    fn named(&self, number: i16) -> Option<&CatalogColumn> {
        self.columns.iter().find(|c| c.number == number)
    }

    /// Names of the columns of each unique key but the primary one.
    pub fn other_keys(&self) -> Vec<Vec<String>> {
        let names = |i: &CatalogIndex| i.columns.iter().filter_map(|n| Some(self.named(*n)?.name.clone())).collect();
        self.indexes.iter().filter(|i| !i.primary).map(names).collect()
    }

    /// Names of the primary key's columns.
    pub fn primary_key(&self) -> Vec<String> {
        let primary = self.indexes.iter().find(|i| i.primary);
        primary.map_or(&[][..], |i| &i.columns).iter().filter_map(|n| Some(self.named(*n)?.name.clone())).collect()
    }
}

impl CatalogColumn {
    fn is_of_type(&self, then: &RelationColumn) -> bool {
        self.type_oid == then.type_oid && self.modifier == then.modifier
    }
}

fn column(c: &CatalogColumn, types: &PgTypes) -> Column {
    let kind = schema::kind(types, c.type_oid, c.modifier);
    let missing = c.missing.as_ref().and_then(|text| decode(&kind, Bytes::copy_from_slice(text.as_bytes())).ok());
    let base = schema::stands_on(types, c.type_oid);
    Column {
        id: c.number.max(0) as u32,
        name: c.name.clone(),
        domain: base.as_ref().map_or_else(String::new, |_| c.type_text.clone()),
        native_type: base.unwrap_or_else(|| c.type_text.clone()),
        native_id: c.type_oid,
        modifier: c.modifier,
        missing: missing.map(|value| exact::text_of(&kind, &value)),
        kind,
        nullable: Some(!(c.not_null || c.domain_not_null)),
        generated: c.generated,
        identity: c.identity,
        default: if c.generated { String::new() } else { c.default.clone() },
        comment: c.comment.clone(),
    }
}

/// What the wire says of a table, completed by the catalogue where both agree. `texts` = types of the columns that the
/// catalogue does not show (see [`unknown_columns`]), in order. `at` = the transaction whose rows it describes; `None` = today's.
pub fn merge(
    r: &Relation,
    catalog: Option<&CatalogTable>,
    types: &PgTypes,
    texts: &[String],
    at: Option<u32>,
) -> TableSchema {
    let numbers = catalog.and_then(|t| t.numbers_at(r, at));
    let mut texts = texts.iter();
    let mut columns: Vec<Column> = r
        .columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let named = find(catalog, c);
            let text = if named.is_none() { texts.next().cloned().unwrap_or_default() } else { String::new() };
            let numbered = catalog.and_then(|t| t.by_number(c, *numbers.as_ref()?.get(i)?));
            match numbered.or(named) {
                // What is sent is a value as any other, also if the server made it.
                Some(known) => Column { name: c.name.clone(), generated: false, ..column(known, types) },
                None => {
                    let base = schema::stands_on(types, c.type_oid);
                    Column {
                        id: UNKNOWN_ID | (i as u32 + 1),
                        name: c.name.clone(),
                        domain: if base.is_some() { text.clone() } else { String::new() },
                        native_type: base.unwrap_or(text),
                        native_id: c.type_oid,
                        modifier: c.modifier,
                        kind: schema::kind(types, c.type_oid, c.modifier),
                        nullable: None,
                        generated: false,
                        identity: false,
                        default: String::new(),
                        missing: None,
                        comment: String::new(),
                    }
                }
            }
        })
        .collect();
    for ((column, then), number) in columns.iter_mut().zip(&r.columns).zip(numbers.iter().flatten()) {
        let id = u32::from(number.unsigned_abs());
        if column.id & UNKNOWN_ID != 0 {
            // It has another name today, and gives old rows what it gave them.
            let today = catalog.and_then(|t| t.named(*number)).filter(|c| c.is_of_type(then));
            column.missing = today.and_then(|c| self::column(c, types).missing);
        } else if column.id != id {
            // Another column of that name: what it gives to old rows is not this one's.
            column.missing = None;
        }
        column.id = id;
    }
    let read = catalog.filter(|t| t.generated_read);
    for made in read.into_iter().flat_map(|t| &t.columns).filter(|c| c.stored) {
        let at = columns.iter().position(|c| c.id > made.number.max(0) as u32).unwrap_or(columns.len());
        if columns.iter().all(|c| c.name != made.name) {
            // Its expression stands for a default, as in Debezium's schemas.
            columns.insert(at, Column { default: made.default.clone(), ..column(made, types) });
        }
    }
    let place = |name: &str| columns.iter().position(|c| c.name == name).map(|i| i as u16);
    let is_whole = catalog.is_some_and(|t| t.dropped.is_empty());
    let numbers_to_places = |t: &CatalogTable, numbers: &[i16]| -> Option<Vec<u16>> {
        let at = |n: &i16| columns.iter().position(|c| c.id == u32::from(n.unsigned_abs())).map(|i| i as u16);
        numbers.iter().map(|n| at(n).or_else(|| place(&t.named(*n)?.name))).collect()
    };
    let flagged: Vec<u16> = r.columns.iter().filter(|c| c.is_key).filter_map(|c| place(&c.name)).collect();
    let from_catalog = catalog.and_then(|t| {
        let (from, numbers) = t.key();
        Some((from, numbers_to_places(t, numbers)?))
    });
    let (key_from, key) = match (r.identity, from_catalog) {
        // The wire knows which columns; only the catalogue knows their order.
        (b'd' | b'i', Some((from, key))) if same_set(&key, &flagged) => (from, key),
        (b'd', _) if !flagged.is_empty() => (KeyFrom::PrimaryKey, flagged),
        (b'i', _) if !flagged.is_empty() => (KeyFrom::IdentityIndex, flagged),
        (b'f' | b'n', Some((from, key))) if !key.is_empty() => (from, key),
        _ => (KeyFrom::None, Vec::new()),
    };
    let mut unique: Vec<(String, Vec<u16>)> = catalog
        .map(|t| {
            let others = t.indexes.iter().filter(|i| !i.primary);
            others.filter_map(|i| Some((i.name.clone(), numbers_to_places(t, &i.columns)?))).collect()
        })
        .unwrap_or_default();
    // Under an index identity the primary key is one of the others: the first, and without a name. So is what Debezium takes
    // for the key where there is none.
    let other = catalog.and_then(|t| match t.indexes.iter().find(|i| i.primary) {
        Some(primary) => numbers_to_places(t, &primary.columns).filter(|_| key_from == KeyFrom::IdentityIndex),
        None => numbers_to_places(t, &t.unique_there),
    });
    if let Some(other) = other.filter(|o| !o.is_empty() && *o != key) {
        unique.insert(0, (String::new(), other));
    }
    TableSchema {
        schema_no: 0,
        table_no: 0,
        native_id: u64::from(r.oid),
        database: catalog.map(|t| t.database.clone()).unwrap_or_default(),
        schema: if r.namespace.is_empty() { "pg_catalog".to_owned() } else { r.namespace.clone() },
        name: r.name.clone(),
        comment: catalog.map(|t| t.comment.clone()).unwrap_or_default(),
        identity: r.identity,
        key_from,
        columns,
        key,
        unique,
        fingerprint: numbered(fingerprint(&r.body, read.is_some()), numbers.as_deref().filter(|_| !is_whole)),
        topic: TopicId::NONE,
    }
}

/// Of what the wire says of a table, and whether its schema has more columns than that.
pub fn fingerprint(body: &[u8], generated_read: bool) -> [u8; 16] {
    let hash = catchwater_base::hash::xxh3_128(body);
    (if generated_read { !hash } else { hash }).to_be_bytes()
}

/// What the wire says does not tell a column from one that is made again under its name: its number does. As long as
/// nothing was dropped that mattered, numbers are places.
fn numbered(body: [u8; 16], numbers: Option<&[i16]>) -> [u8; 16] {
    match numbers {
        Some(numbers) if numbers.iter().zip(1..).any(|(number, place)| *number != place) => {
            let more: Vec<u8> = body.iter().copied().chain(numbers.iter().flat_map(|n| n.to_be_bytes())).collect();
            catchwater_base::hash::xxh3_128(&more).to_be_bytes()
        }
        _ => body,
    }
}

fn find<'a>(catalog: Option<&'a CatalogTable>, c: &RelationColumn) -> Option<&'a CatalogColumn> {
    catalog?.columns.iter().find(|k| k.name == c.name && k.type_oid == c.type_oid && k.modifier == c.modifier)
}

/// Types of the relation's columns that the catalogue does not show any more.
pub fn unknown_columns(r: &Relation, catalog: Option<&CatalogTable>) -> Vec<(u32, i32)> {
    r.columns.iter().filter(|c| find(catalog, c).is_none()).map(|c| (c.type_oid, c.modifier)).collect()
}

fn same_set(a: &[u16], b: &[u16]) -> bool {
    a.len() == b.len() && a.iter().all(|x| b.contains(x))
}
