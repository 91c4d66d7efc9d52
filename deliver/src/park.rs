//! Pure. Rows that the target refuses: found one by one, set aside with every later row of their key, and counted.
//!
//! Nothing overtakes: once a key is parked at a version, each row of it from that version on goes to the dead letters, in
//! order, and the row in the target stays as it was before. Parked keys are kept in the compacted topic
//! `__catchwater_parked` (page `docs/formats/parked.md`). Order of effects: dead letter appended, parked key appended,
//! then the sink's position commits. So after a crash rows below the version still go to the sink, later ones never.

use crate::ident;
use crate::sink::{Apply, What};
use catchwater_base::hash::xxh3_128;
use catchwater_change::Version;
use catchwater_record::{ErrorCode, PipelineName, SinkName, SourceName};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Compacted topic of parked keys, one partition.
pub const PARKED_TOPIC: &str = "__catchwater_parked";
/// Most keys one sink may have parked.
pub const KEYS_MAX: usize = 100_000;
/// Refused rows never stop the sink, but for [`KEYS_MAX`].
pub const NO_LIMIT: u32 = u32::MAX;
const FORMAT: u8 = 1;

/// What happens to a row that the target refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnRowError {
    /// The sink stands still with the error.
    #[default]
    Stop,
    /// The row, and every later one of its key, goes to the dead letters. More than `most` refused rows among the last
    /// `of` stop the sink: then it is not the rows. [`NO_LIMIT`]: however many.
    ParkKey { most: u32, of: u32 },
}

/// A row's key in a table of the source.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KeyOf {
    /// `schema.table` of the source.
    pub table: String,
    /// xxh3-128 of [`ident::of`] its key cells.
    pub key: u128,
}

/// Since when a key is parked, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Since {
    pub version: Version,
    pub code: ErrorCode,
}

/// Keys of one change: none for tables without a key, two when the key changed.
pub fn keys_of(applies: &[Apply]) -> Vec<KeyOf> {
    let mut out: Vec<KeyOf> = Vec::new();
    for apply in applies {
        let row = match &apply.what {
            What::Upsert(r) | What::Update(r) | What::Delete(r) | What::InsertNew(r) | What::Retire(r) => r,
            What::Truncate | What::Clear | What::RetireAll(_) | What::Insert(_) | What::DeleteOne(_) => continue,
        };
        if let Some(key) = ident::of(row, crate::batch::key_columns(&apply.table)) {
            let key = KeyOf { table: apply.table.source.qualified(), key: xxh3_128(&key) };
            if !out.contains(&key) {
                out.push(key);
            }
        }
    }
    out
}

/// The parked keys of one sink and source.
#[derive(Debug, Default)]
pub struct Parked {
    keys: BTreeMap<KeyOf, Since>,
}

impl Parked {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
    pub fn len(&self) -> usize {
        self.keys.len()
    }
    /// The reason if a row of one of these keys may not be applied at `version`.
    pub fn holds(&self, keys: &[KeyOf], version: Version) -> Option<Since> {
        keys.iter().filter_map(|k| self.keys.get(k)).find(|s| s.version <= version).copied()
    }
    pub fn since(&self, key: &KeyOf) -> Option<Version> {
        self.keys.get(key).map(|s| s.version)
    }
    /// False if it was parked already (the earlier version stays).
    pub fn park(&mut self, key: KeyOf, since: Since) -> bool {
        match self.keys.get(&key) {
            Some(before) if before.version <= since.version => false,
            _ => {
                self.keys.insert(key, since);
                true
            }
        }
    }
    pub fn unpark(&mut self, key: &KeyOf) {
        self.keys.remove(key);
    }
    pub fn iter(&self) -> impl Iterator<Item = (&KeyOf, &Since)> {
        self.keys.iter()
    }
    /// One record of [`PARKED_TOPIC`], in the topic's order.
    pub fn read(&mut self, by: &ParkedBy, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Unreadable> {
        let Some(key) = by.decode_key(key.ok_or(Unreadable)?)? else { return Ok(()) };
        match value {
            None => self.unpark(&key),
            Some(value) => drop(self.park(key, Since::decode(value).ok_or(Unreadable)?)),
        }
        Ok(())
    }
}

/// Whose parked keys a record speaks of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParkedBy {
    pub pipeline: PipelineName,
    pub sink: SinkName,
    pub source: SourceName,
}

impl ParkedBy {
    /// Key of a record: `format u8 | pipeline, sink, source, table: n u16 and bytes | key u128`, big-endian.
    pub fn encode_key(&self, key: &KeyOf) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for text in [self.pipeline.as_str(), self.sink.as_str(), self.source.as_str(), key.table.as_str()] {
            let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
            out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        out.extend_from_slice(&key.key.to_be_bytes());
        out
    }

    /// The key, if the record is of this sink and source. `Unreadable`: nobody can tell, and so it may be.
    pub fn decode_key(&self, bytes: &[u8]) -> Result<Option<KeyOf>, Unreadable> {
        let (by, key) = decode_key(bytes).ok_or(Unreadable)?;
        Ok((by == *self).then_some(key))
    }
}

/// A record of [`PARKED_TOPIC`] is of another format, or not whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable;

fn decode_key(bytes: &[u8]) -> Option<(ParkedBy, KeyOf)> {
    let (FORMAT, mut rest) = bytes.split_first().map(|(f, r)| (*f, r))? else { return None };
    let mut texts = [""; 4];
    for text in &mut texts {
        let (n, tail) = rest.split_first_chunk::<2>()?;
        let n = usize::from(u16::from_be_bytes(*n));
        *text = std::str::from_utf8(tail.get(..n)?).ok()?;
        rest = tail.get(n..)?;
    }
    let [pipeline, sink, source, table] = texts;
    let by = ParkedBy { pipeline: pipeline.into(), sink: sink.into(), source: source.into() };
    Some((by, KeyOf { table: table.to_owned(), key: u128::from_be_bytes(rest.try_into().ok()?) }))
}

/// Keys of a dead letter as its header `cw.keys` holds them: `32 hex digits:length in bytes:schema.table`, one after the
/// other; empty for tables without a key.
pub fn encode_keys(keys: &[KeyOf]) -> String {
    keys.iter().map(|k| format!("{:032x}:{}:{}", k.key, k.table.len(), k.table)).collect()
}

/// `None` = not what [`encode_keys`] writes.
pub fn decode_keys(mut text: &str) -> Option<Vec<KeyOf>> {
    let mut out = Vec::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once(':')?;
        let key = u128::from_str_radix(key, 16).ok().filter(|_| key.len() == 32)?;
        let (n, rest) = rest.split_once(':')?;
        let n: usize = n.parse().ok()?;
        out.push(KeyOf { table: rest.get(..n)?.to_owned(), key });
        text = rest.get(n..)?;
    }
    Some(out)
}

impl Since {
    /// `format u8 | version 16 B | code u16`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.version.to_bytes());
        out.extend_from_slice(&self.code.0.to_be_bytes());
        out
    }
    pub fn decode(bytes: &[u8]) -> Option<Since> {
        let (FORMAT, rest) = bytes.split_first().map(|(f, r)| (*f, r))? else { return None };
        let (version, code) = rest.split_first_chunk::<16>()?;
        let code = ErrorCode(u16::from_be_bytes(code.try_into().ok()?));
        Some(Since { version: Version::from_bytes(*version), code })
    }
}

/// Stops a sink that refuses too much.
#[derive(Debug)]
pub struct Breaker {
    most: u32,
    of: u32,
    seen: u64,
    hits: VecDeque<u64>,
}

impl Breaker {
    pub fn new(most: u32, of: u32) -> Self {
        Breaker { most, of, seen: 0, hits: VecDeque::new() }
    }
    /// Rows were taken.
    pub fn rows(&mut self, count: u64) {
        self.seen += count;
    }
    /// A row was refused. True = more than `most` among the last `of` rows.
    pub fn hit(&mut self) -> bool {
        if self.most == NO_LIMIT {
            return false;
        }
        self.hits.push_back(self.seen);
        while self.hits.front().is_some_and(|at| at + u64::from(self.of) < self.seen) {
            self.hits.pop_front();
        }
        self.hits.len() > self.most as usize
    }
}

/// Finds the refused among `units` by halving, in order: k refused ones cost about k·log2 n writes.
#[derive(Debug)]
pub struct Bisect {
    todo: Vec<Range<usize>>,
}

impl Bisect {
    pub fn new(units: usize) -> Self {
        Bisect { todo: Vec::from_iter((units > 0).then_some(0..units)) }
    }
    /// What to write next; every unit before it is settled.
    pub fn take(&mut self) -> Option<Range<usize>> {
        self.todo.pop()
    }
    /// The write of `range` was refused and left nothing. `Some` = the refused unit.
    pub fn refused(&mut self, range: Range<usize>) -> Option<usize> {
        if range.len() <= 1 {
            return Some(range.start);
        }
        let middle = range.start + range.len() / 2;
        self.todo.push(middle..range.end);
        self.todo.push(range.start..middle);
        None
    }
}

/// Applies of one change stand together: they share a version.
pub fn units(applies: &[Apply]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for (i, apply) in applies.iter().enumerate() {
        match out.last_mut() {
            Some(last) if applies[last.start].version == apply.version => last.end = i + 1,
            _ => out.push(i..i + 1),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use catchwater_record::{CommitSeq, Incarnation};

    fn version(seq: u64) -> Version {
        Version { incarnation: Incarnation(1), commit_seq: CommitSeq(seq), ordinal: 2 }
    }
    fn by() -> ParkedBy {
        ParkedBy { pipeline: "shop".into(), sink: "copy".into(), source: "db".into() }
    }

    #[test]
    fn the_refused_are_found_in_order_and_cheaply() {
        for bad in [vec![], vec![0], vec![99], vec![3, 4, 77]] {
            let (mut b, mut found, mut written, mut writes) = (Bisect::new(100), vec![], vec![], 0);
            while let Some(range) = b.take() {
                writes += 1;
                if range.clone().any(|i| bad.contains(&i)) {
                    found.extend(b.refused(range));
                } else {
                    written.extend(range);
                }
            }
            assert_eq!(found, bad);
            assert_eq!(written, (0..100).filter(|i| !bad.contains(i)).collect::<Vec<_>>(), "in order, each once");
            assert!(writes <= 1 + bad.len() * 14, "{writes} writes for {} bad", bad.len());
        }
        assert!(Bisect::new(0).take().is_none());
    }

    #[test]
    fn a_parked_key_holds_from_its_version_on() {
        let mut parked = Parked::default();
        let key = KeyOf { table: "public.t".into(), key: 7 };
        let since = |seq| Since { version: version(seq), code: ErrorCode(614) };
        assert!(parked.park(key.clone(), since(5)));
        assert!(!parked.park(key.clone(), since(6)), "the earlier one stays");
        let held = |p: &Parked, seq| p.holds(std::slice::from_ref(&key), version(seq)).is_some();
        assert_eq!([4, 5, 6].map(|s| held(&parked, s)), [false, true, true]);
        assert!(parked.holds(&[KeyOf { table: "public.u".into(), key: 7 }], version(9)).is_none());
        parked.unpark(&key);
        assert!(!held(&parked, 6) && parked.is_empty());
    }

    #[test]
    fn golden_bytes_and_every_prefix_refused() {
        let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let key = KeyOf { table: "public.t".into(), key: 0x0102 };
        let bytes = by().encode_key(&key);
        let want = "01 0004 73686f70 0004 636f7079 0002 6462 0008 7075626c69632e74 00000000000000000000000000000102";
        assert_eq!(hex(&bytes), want.replace(' ', ""));
        assert_eq!(by().decode_key(&bytes), Ok(Some(key)));
        assert_eq!(ParkedBy { sink: "other".into(), ..by() }.decode_key(&bytes), Ok(None));
        let since = Since { version: version(0x0506), code: ErrorCode(614) };
        let value = since.encode();
        assert_eq!(hex(&value), "01 0001 0000000000000506 000000000002 0266".replace(' ', ""));
        assert_eq!(Since::decode(&value), Some(since));
        for n in 0..bytes.len() {
            assert_eq!(by().decode_key(&bytes[..n]), Err(Unreadable), "prefix {n}");
        }
        for n in 0..value.len() {
            assert_eq!(Since::decode(&value[..n]), None, "prefix {n}");
        }
    }

    #[test]
    fn keys_of_a_letter_as_text() {
        let keys = [KeyOf { table: "public.t:1".into(), key: 7 }, KeyOf { table: "ö.é".into(), key: u128::MAX }];
        let text = encode_keys(&keys);
        assert_eq!(&text[..47], "00000000000000000000000000000007:10:public.t:1f");
        assert_eq!(decode_keys(&text).as_deref(), Some(&keys[..]));
        assert_eq!(decode_keys(""), Some(vec![]));
        for n in (1..text.len()).filter(|n| text.is_char_boundary(*n) && *n != 46) {
            assert_eq!(decode_keys(&text[..n]), None, "prefix {n}");
        }
    }

    #[test]
    fn the_breaker_looks_at_the_last_rows_only() {
        let mut b = Breaker::new(2, 100);
        assert_eq!([b.hit(), b.hit()], [false, false]);
        b.rows(101);
        assert_eq!([b.hit(), b.hit(), b.hit()], [false, false, true]);
        let mut never = Breaker::new(NO_LIMIT, NO_LIMIT);
        assert!((0..1000).all(|_| !never.hit()) && never.hits.is_empty());
    }
}
