//! Pure. What many records of a source have in common, made once and copied: the names of columns, the `source` block of
//! a transaction (but for each row's `lsn`), the time of processing; and the buffers that records are made in.
//!
//! A row of ten columns (about 100 bytes on the wire) becomes about 640 bytes of record, 500 of which are these.

use super::{EncodeError, Encoder};
use crate::event::{RowChange, SnapshotMark, SourceInfo};
use crate::json;
use crate::schema::TableSchema;
use crate::stamp::Stamp;
use bytes::{Bytes, BytesMut};
use catchwater_base::Wall;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Tables whose parts are kept; above it all are dropped and made again as rows come.
const TABLES_MAX: usize = 1024;
/// A buffer above it is given back.
const BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// Of one [`Encoder`]: what it makes depends on its options.
#[derive(Default)]
pub struct Parts {
    /// By the schema's address, which lives as long as its entry.
    tables: BTreeMap<usize, OfTable>,
    times: Times3,
    pub(super) value: Vec<u8>,
    /// The record made last has a value.
    pub(super) has_value: bool,
    key: Vec<u8>,
    pub(super) headers: Vec<(Bytes, Option<Bytes>)>,
    pub(super) stamps: BytesMut,
}

/// A finished record, in the buffers of [`Parts`].
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    /// `None` = tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(Bytes, Option<Bytes>)],
}

impl Record<'_> {
    /// Rough size on the wire, bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Bytes::len) + 4).sum();
        32 + self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }
}

/// Parts of one table's records.
pub(super) struct OfTable {
    table: Arc<TableSchema>,
    /// `"name":` of each column.
    names: Vec<u8>,
    ends: Vec<usize>,
    source: SourceText,
}

/// A `source` block, and what in it is the row's own.
#[derive(Default)]
struct SourceText {
    of: Option<SourceKey>,
    text: Vec<u8>,
    /// Where the row's `lsn` stands.
    lsn_at: Vec<Range<usize>>,
}

#[derive(Clone, PartialEq, Eq)]
struct SourceKey {
    time: Wall,
    mark: SnapshotMark,
    txid: Option<u32>,
    last_commit_lsn: Option<u64>,
    xmin: Option<u64>,
}

/// The three times of processing, as text.
#[derive(Default)]
struct Times3 {
    of: Option<Wall>,
    text: Vec<u8>,
}

impl Parts {
    /// The key of [`Encoder::key`], in a buffer of ours; `None` = keyless.
    pub(super) fn key_buffer(&mut self) -> Vec<u8> {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key
    }
    pub(super) fn keep_key(&mut self, key: Vec<u8>) {
        self.key = key;
    }
    /// The key that was made last.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
    /// The record that was made last. `has_key` is what [`Encoder::key_into`] said.
    pub fn record(&self, has_key: bool) -> Record<'_> {
        let (key, value) = (has_key.then_some(&self.key[..]), self.has_value.then_some(&self.value[..]));
        Record { key, value, headers: &self.headers }
    }
    pub(super) fn shrink(&mut self) {
        if self.value.capacity() > BUFFER_BYTES_MAX {
            self.value = Vec::new();
        }
    }

    pub(super) fn of(&mut self, table: &Arc<TableSchema>) -> &mut OfTable {
        let at = Arc::as_ptr(table) as usize;
        if self.tables.len() >= TABLES_MAX && !self.tables.contains_key(&at) {
            self.tables.clear();
        }
        self.tables.entry(at).or_insert_with(|| OfTable::new(table.clone()))
    }

    pub(super) fn put_times(&mut self, out: &mut Vec<u8>, processed: Wall) {
        if self.times.of != Some(processed) {
            self.times.text.clear();
            put_three_times(&mut self.times.text, processed);
            self.times.of = Some(processed);
        }
        out.extend_from_slice(&self.times.text);
    }
}

impl OfTable {
    fn new(table: Arc<TableSchema>) -> Self {
        let (mut names, mut ends) = (Vec::new(), Vec::with_capacity(table.columns.len()));
        for column in &table.columns {
            json::put_string(&mut names, &column.name);
            names.push(b':');
            ends.push(names.len());
        }
        OfTable { table, names, ends, source: SourceText::default() }
    }

    pub(super) fn table(&self) -> &TableSchema {
        &self.table
    }

    /// `"name":` of the column at that place.
    pub(super) fn name(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).and_then(|i| self.ends.get(i)).copied().unwrap_or(0);
        let to = self.ends.get(at).copied().unwrap_or(from);
        &self.names[from..to]
    }

    pub(super) fn put_source(&mut self, encoder: &Encoder, out: &mut Vec<u8>, change: &RowChange, stamp: &Stamp) {
        let SourceInfo::Postgres { lsn: Some(lsn), txid, last_commit_lsn } = change.info else {
            return encoder.put_source(out, change, stamp, &mut Vec::new());
        };
        let xmin = encoder.options.xmin.of(change.snapshot);
        let key = SourceKey { time: stamp.commit_time, mark: change.snapshot, txid, last_commit_lsn, xmin };
        let SourceText { of, text, lsn_at } = &mut self.source;
        if of.as_ref() != Some(&key) {
            text.clear();
            lsn_at.clear();
            encoder.put_source(text, change, stamp, lsn_at);
            *of = Some(key);
        }
        let digits = json::Digits::of(lsn);
        let mut from = 0;
        for at in lsn_at.iter() {
            out.extend_from_slice(&text[from..at.start]);
            out.extend_from_slice(digits.as_bytes());
            from = at.end;
        }
        out.extend_from_slice(&text[from..]);
    }
}

impl Encoder {
    /// Makes the key of a piece ([`Encoder::key`]) where [`Parts::key`] shows it; false = it has none.
    pub fn key_into(&self, parts: &mut Parts, change: &RowChange, piece: super::Piece) -> Result<bool, EncodeError> {
        let mut key = parts.key_buffer();
        let made = self.put_whole_key(&mut key, change, piece);
        parts.keep_key(key);
        made
    }
}

pub(super) fn put_three_times(out: &mut Vec<u8>, at: Wall) {
    let times = Times::of(at);
    times.put_millis(out);
    out.extend_from_slice(b",\"ts_us\":");
    times.put_micros(out);
    out.extend_from_slice(b",\"ts_ns\":");
    times.put_nanos(out);
}

/// A time in three units: its digits are made once if it is one of our age.
pub(super) struct Times {
    at: Wall,
    micros: Option<json::Digits>,
}

impl Times {
    pub(super) fn of(at: Wall) -> Self {
        let micros = u64::try_from(at.as_micros()).ok().filter(|us| (1_000..=i64::MAX as u64 / 1_000).contains(us));
        Times { at, micros: micros.map(json::Digits::of) }
    }
    pub(super) fn put_millis(&self, out: &mut Vec<u8>) {
        match &self.micros {
            Some(d) => out.extend_from_slice(&d.as_bytes()[..d.as_bytes().len() - 3]),
            None => json::put_i64(out, self.at.as_millis()),
        }
    }
    pub(super) fn put_micros(&self, out: &mut Vec<u8>) {
        match &self.micros {
            Some(d) => out.extend_from_slice(d.as_bytes()),
            None => json::put_i64(out, self.at.as_micros()),
        }
    }
    pub(super) fn put_nanos(&self, out: &mut Vec<u8>) {
        match &self.micros {
            Some(d) => {
                out.extend_from_slice(d.as_bytes());
                out.extend_from_slice(b"000");
            }
            None => json::put_i64(out, self.at.as_micros().saturating_mul(1000)),
        }
    }
}
