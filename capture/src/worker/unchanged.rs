//! Columns that the source did not send because they did not change (unchanged TOAST), filled from the log's own newest
//! record of the key (capture.md 13, first step).
//!
//! Exact because this capture is the topic's only writer, the newest record of a key is complete (filled before it was
//! appended), and a key stays in its partition. Nothing is kept until the first such column of a table comes; then its
//! topic is read once into key → offset, and kept up with each acknowledged batch. Rows on their way to the log stand in
//! `flying`, rows lately seen in a cache. A batch whose offset is not known (an append repeated after an unknown outcome)
//! makes the table forget all it knows: the next such column reads again.
//!
//! Not filled, and so INCOMPLETE with the placeholder: a key that is not in the log (its snapshot chunk is still to come,
//! retention took it), a record that is incomplete itself, tables without a key, and above `KEYS_MAX` keys.

use super::start::{Begun, log_trouble, read_all};
use crate::emit::{Landed, Unit};
use crate::error::{Trouble, code};
use crate::route;
use catchwater_base::hash::{Map, xxh3_128};
use catchwater_change::decode::debezium_json::{self, Decoded};
use catchwater_change::encode::debezium_json::{Piece, key_changed};
use catchwater_change::{Cell, Op, Row, RowChange, TableSchema, Version};
use catchwater_client::{Fetch, FetchPart, Isolation};
use catchwater_record::batch::{BatchView, iterate};
use catchwater_record::{Offset, TopicPartition, compress};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keys remembered over all tables: 24 bytes each, and half as much of room.
const KEYS_MAX: usize = 4_000_000;
/// Bytes of rows kept so that they need not be fetched.
const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A batch of ours never decompresses to more.
const SECTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is known of the tables that such columns came of.
#[derive(Default)]
pub(super) struct Unchanged {
    tables: BTreeMap<u32, Known>,
    table_of: BTreeMap<TopicPartition, u32>,
    keys: usize,
    /// Too many keys: not tried again in this attempt.
    given_up: bool,
}

#[derive(Default)]
struct Known {
    parts: BTreeMap<TopicPartition, Part>,
}

#[derive(Default)]
struct Part {
    /// Where the newest record with a row of a key is.
    offsets: Map<u128, Offset>,
    /// Rows made and not acknowledged, oldest first by key; none = deleted.
    flying: Map<u128, (Version, Option<Arc<Seen>>)>,
    cache: Map<u128, Arc<Seen>>,
    cache_bytes: usize,
}

struct Seen {
    table: Arc<TableSchema>,
    row: Row,
}

impl Unchanged {
    /// What the log has of the table's keys is known: a key that is not is not in the log.
    pub fn knows(&self, table_no: u32) -> bool {
        self.tables.contains_key(&table_no) && !self.given_up
    }
}

/// Columns of the new row that were not sent.
fn is_partial(change: &RowChange) -> bool {
    change.op == Op::Update && change.after.as_ref().is_some_and(|r| !r.is_whole())
}

/// Fills what it can; true if anything was filled.
pub(super) async fn fill(
    begun: &mut Begun<'_>,
    unit: &Unit,
    ordinal: u64,
    change: &mut RowChange,
    partitions: u32,
) -> Result<bool, Trouble> {
    if !is_partial(change) || change.table.key.is_empty() || !begun.session.config.options.fill_unchanged {
        return Ok(false);
    }
    // What is known of keys is known by partition, one table each; behind some transforms records are no rows.
    if begun.shares_topic(&change.table) || !begun.session.emitter.has_own_keys(&change.table) {
        return Ok(false);
    }
    let encode =
        |e: catchwater_change::encode::debezium_json::EncodeError| Trouble::fail(code::ENCODE, e.to_string(), "");
    let piece = if key_changed(change) { Piece::OldKey } else { Piece::Whole };
    let key = begun.session.emitter.key_of(change, piece).map_err(encode)?;
    let at =
        |key: Option<&[u8]>| TopicPartition { topic: change.table.topic, partition: route::partition(key, partitions) };
    let from = at(key.as_deref());
    // What is in the log already is not made again.
    let version = Version { incarnation: begun.session.config.incarnation, commit_seq: unit.seq, ordinal };
    if begun.session.emitter.holds(from, version) {
        return Ok(false);
    }
    if !know(begun, change.table.table_no, change.table.topic, partitions).await? {
        return Ok(false);
    }
    absorb(begun);
    let Some(key) = key else { return Ok(false) };
    let Some(seen) = find(begun, change.table.table_no, from, &key, version).await? else { return Ok(false) };
    let (mut filled, table) = (false, change.table.clone());
    for (cell, column) in change.after.iter_mut().flat_map(|r| &mut r.cells).zip(&table.columns) {
        if *cell != Cell::Unavailable {
            continue;
        }
        // The column's number survives a rename; another type is another column's value.
        let old = seen.table.columns.iter().position(|c| c.id == column.id && c.kind == column.kind);
        if let Some(value @ (Cell::Value(_) | Cell::Null)) = old.and_then(|i| seen.row.cells.get(i)) {
            *cell = value.clone();
            filled = true;
        }
    }
    Ok(filled)
}

/// After the records of a change were made: what they say of their keys.
pub(super) fn remember(begun: &mut Begun<'_>, unit: &Unit, ordinal: u64, change: &RowChange, partitions: u32) {
    if begun.unchanged.tables.is_empty() {
        return;
    }
    absorb(begun);
    let incarnation = begun.session.config.incarnation;
    let Some(known) = begun.unchanged.tables.get_mut(&change.table.table_no) else { return };
    if change.op == Op::Truncate {
        let gone: usize = known.parts.values().map(|p| p.offsets.len()).sum();
        known.parts.values_mut().for_each(|p| *p = Part::default());
        begun.unchanged.keys -= gone;
        return;
    }
    let pieces = begun.session.emitter.pieces(change);
    for (i, piece) in pieces.iter().enumerate() {
        let Ok(Some(key)) = begun.session.emitter.key_of(change, *piece) else { continue };
        let at = TopicPartition { topic: change.table.topic, partition: route::partition(Some(&key), partitions) };
        let version = Version { incarnation, commit_seq: unit.seq, ordinal: ordinal + i as u64 };
        if begun.session.emitter.holds(at, version) {
            continue;
        }
        let row = match piece {
            Piece::Whole | Piece::NewKey => change.after.clone(),
            Piece::OldKey | Piece::Tombstone => None,
        };
        let seen = row.map(|row| Arc::new(Seen { table: change.table.clone(), row }));
        if let Some(part) = known.parts.get_mut(&at) {
            part.uncache(xxh3_128(&key));
            part.flying.insert(xxh3_128(&key), (version, seen));
        }
    }
}

impl Part {
    fn uncache(&mut self, key: u128) {
        if let Some(seen) = self.cache.remove(&key) {
            self.cache_bytes -= seen.row.bytes();
        }
    }

    fn cache(&mut self, key: u128, seen: Arc<Seen>) {
        self.uncache(key);
        let bytes = seen.row.bytes();
        if self.cache_bytes + bytes > CACHE_BYTES_MAX {
            self.cache.clear();
            self.cache_bytes = 0;
        }
        self.cache_bytes += bytes;
        self.cache.insert(key, seen);
    }
}

/// Takes in what was acknowledged since.
fn absorb(begun: &mut Begun<'_>) {
    for landed in begun.session.emitter.take_landed() {
        let Some(table_no) = begun.unchanged.table_of.get(&landed.at).copied() else { continue };
        if take_in(&mut begun.unchanged, table_no, &landed).is_none() {
            forget(begun, table_no);
        }
    }
}

/// `None` = the batch's place in the log is not known.
fn take_in(unchanged: &mut Unchanged, table_no: u32, landed: &Landed) -> Option<()> {
    let part = unchanged.tables.get_mut(&table_no)?.parts.get_mut(&landed.at)?;
    let base = landed.base?;
    let view = BatchView::new(&landed.batch).ok()?;
    let section = compress::section(&view, SECTION_BYTES_MAX).ok()?;
    for record in iterate::records(&section, view.records_count().max(0) as u32) {
        let record = record.ok()?;
        let (Some(key), Some(Ok(stamp))) = (record.key, debezium_json::stamp(record.headers())) else { continue };
        let hash = xxh3_128(key);
        unchanged.keys -= usize::from(part.offsets.remove(&hash).is_some());
        if has_row(stamp.op) {
            part.offsets.insert(hash, base.plus(record.offset_delta.max(0) as u64));
            unchanged.keys += 1;
        }
        // A later row of the key may be on its way.
        if part.flying.get(&hash).is_some_and(|(version, _)| *version <= stamp.version)
            && let Some((_, Some(seen))) = part.flying.remove(&hash)
        {
            part.cache(hash, seen);
        }
    }
    Some(())
}

fn has_row(op: u8) -> bool {
    matches!(op, b'c' | b'u' | b'r')
}

fn forget(begun: &mut Begun<'_>, table_no: u32) {
    let Some(known) = begun.unchanged.tables.remove(&table_no) else { return };
    for (at, part) in known.parts {
        begun.unchanged.keys -= part.offsets.len();
        begun.unchanged.table_of.remove(&at);
        begun.session.emitter.watch(at, false);
    }
}

/// Reads the table's topic, if that was not done. False = it is too large to be remembered.
async fn know(
    begun: &mut Begun<'_>,
    table_no: u32,
    topic: catchwater_record::TopicId,
    partitions: u32,
) -> Result<bool, Trouble> {
    absorb(begun);
    if begun.unchanged.tables.contains_key(&table_no) {
        return Ok(true);
    }
    if begun.unchanged.given_up {
        return Ok(false);
    }
    // Everything made so far is in the log then, and its end is the partition's.
    let places: Vec<TopicPartition> = (0..partitions).map(|p| TopicPartition::new(topic, p)).collect();
    begun.session.drive_until(|s| places.iter().all(|at| s.emitter.is_quiet(*at))).await?;
    let mut known = Known::default();
    let mut truncated = Version::default();
    for at in places {
        let end = begun.session.emitter.end(at);
        let mut part = Part::default();
        let room = KEYS_MAX.saturating_sub(begun.unchanged.keys);
        let mut offset = Offset::ZERO;
        read_all(begun.session.log(), at, Offset::ZERO, end, |here, record| {
            offset = here;
            let Some(Ok(stamp)) = debezium_json::stamp(record.headers()) else { return };
            if stamp.op == b't' {
                truncated = truncated.max(stamp.version);
                part.offsets.clear();
            }
            let Some(key) = record.key else { return };
            if has_row(stamp.op) && stamp.version >= truncated && part.offsets.len() < room {
                part.offsets.insert(xxh3_128(key), offset);
            } else {
                part.offsets.remove(&xxh3_128(key));
            }
        })
        .await?;
        begun.unchanged.keys += part.offsets.len();
        begun.unchanged.given_up |= part.offsets.len() >= room;
        begun.unchanged.table_of.insert(at, table_no);
        begun.session.emitter.watch(at, true);
        known.parts.insert(at, part);
    }
    begun.unchanged.tables.insert(table_no, known);
    if begun.unchanged.given_up {
        forget(begun, table_no);
        return Ok(false);
    }
    Ok(true)
}

/// The newest row of a key below `version`.
async fn find(
    begun: &mut Begun<'_>,
    table_no: u32,
    at: TopicPartition,
    key: &[u8],
    version: Version,
) -> Result<Option<Arc<Seen>>, Trouble> {
    let hash = xxh3_128(key);
    let Some(part) = begun.unchanged.tables.get(&table_no).and_then(|k| k.parts.get(&at)) else { return Ok(None) };
    if let Some((_, seen)) = part.flying.get(&hash) {
        return Ok(seen.clone());
    }
    if let Some(seen) = part.cache.get(&hash) {
        return Ok(Some(seen.clone()));
    }
    let Some(offset) = part.offsets.get(&hash).copied() else { return Ok(None) };
    let want = Fetch {
        // The first batch comes even above the limit.
        parts: vec![FetchPart { at, offset, max_bytes: 1 }],
        isolation: Isolation::Uncommitted,
        min_bytes: 1,
        max_wait_ms: 1000,
        credit_bytes: 1,
    };
    let fetched = begun.session.log().fetch(want).await.map_err(log_trouble)?;
    let Some(Ok(bytes)) = fetched.into_iter().next().map(|p| p.batches) else { return Ok(None) };
    let stored = |what: String| Trouble::fail(code::STORED, what, "");
    let Ok((view, _)) = BatchView::split(&bytes) else { return Ok(None) };
    let section = compress::section(&view, SECTION_BYTES_MAX).map_err(|e| stored(e.to_string()))?;
    let mut found = None;
    for record in iterate::records(&section, view.records_count().max(0) as u32) {
        let record = record.map_err(|e| stored(e.to_string()))?;
        // Two keys of one hash: compared, never believed.
        if view.offset().plus(record.offset_delta.max(0) as u64) != offset || record.key != Some(key) {
            continue;
        }
        let Some(Ok(stamp)) = debezium_json::stamp(record.headers()) else { break };
        let Some(table) = begun.tables.numbered(stamp.schema_no).filter(|_| stamp.version < version) else { break };
        match debezium_json::decode(record.value, record.headers(), &table).map_err(|e| stored(e.to_string()))? {
            Decoded::Event(event) => found = event.change.after.map(|row| Arc::new(Seen { table, row })),
            Decoded::Tombstone(_) => {}
        }
        break;
    }
    if let (Some(seen), Some(part)) =
        (&found, begun.unchanged.tables.get_mut(&table_no).and_then(|k| k.parts.get_mut(&at)))
    {
        part.cache(hash, seen.clone());
    }
    Ok(found)
}
