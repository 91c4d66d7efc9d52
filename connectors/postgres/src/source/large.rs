//! Large transactions that the server streams before they end (pgoutput version 2): held back until their commit (S1), in
//! memory up to a bound over all of them, beyond it in one unnamed file each.
//!
//! - Held: each message without its transaction id, with the id of the subtransaction it belongs to and its place in the
//!   WAL. A subtransaction that is rolled back is remembered by its id, and its messages are passed over at the commit.
//! - Memory: at most `memory_max` in tails, as much again in the one write that is in flight, one block while replayed.
//!   An index entry per block stays: 24 bytes per MiB.
//! - Files have no name from the moment they are made, so nothing is left after a crash; they are not synced, since the
//!   server sends everything again. A checksum per block: a disk that lies is an error, never a wrong row.
//! - Cancel-safe: [`Large::settle`] and [`Replay::peek`] keep their blocking work in `self` (S6).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use catchwater_base::hash::xxh3_64;
use catchwater_runtime::Fut;
use catchwater_runtime::spawn::blocking;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Head of a held message: length of its body, subtransaction, place in the WAL.
const HEAD_BYTES: usize = 4 + 4 + 8;

/// Bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes held in memory over all open transactions.
    pub memory_max: usize,
    /// Bytes of all files together.
    pub disk_max: u64,
    /// Folder of the files, made when it is needed.
    pub dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum LargeError {
    #[error("the open transactions of the source do not fit into spill.max.bytes = {0}")]
    Full(u64),
    #[error("cannot keep an open transaction in {dir}: {why}")]
    Io { dir: String, why: String },
    #[error("a block of an open transaction came back from {dir} with other bytes")]
    Damaged { dir: String },
    #[error("{0}")]
    Stream(&'static str),
}

/// All transactions that were begun in the stream and have not ended.
pub struct Large {
    limits: Limits,
    open: BTreeMap<u32, Streamed>,
    /// Between the marks of a block.
    current: Option<u32>,
    held: usize,
    /// Bytes in files of transactions that are open or replayed.
    spilled: Arc<AtomicU64>,
    writing: Option<Fut<'static, io::Result<()>>>,
}

struct Streamed {
    tail: BytesMut,
    blocks: Vec<Block>,
    file: Option<Arc<File>>,
    end: u64,
    aborted: BTreeSet<u32>,
    spilled: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
struct Block {
    at: u64,
    len: usize,
    hash: u64,
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.spilled.fetch_sub(self.end, Ordering::Relaxed);
    }
}

impl Large {
    pub fn new(limits: Limits) -> Self {
        Large { limits, open: BTreeMap::new(), current: None, held: 0, spilled: Arc::default(), writing: None }
    }

    /// A block of one transaction's messages begins.
    pub fn start(&mut self, xid: u32) -> Result<(), LargeError> {
        if self.current.is_some() {
            return Err(LargeError::Stream("a block of an open transaction begins inside another"));
        }
        let spilled = &self.spilled;
        self.open.entry(xid).or_insert_with(|| Streamed {
            tail: BytesMut::new(),
            blocks: Vec::new(),
            file: None,
            end: 0,
            aborted: BTreeSet::new(),
            spilled: spilled.clone(),
        });
        self.current = Some(xid);
        Ok(())
    }

    pub fn stop(&mut self) -> Result<(), LargeError> {
        let current = self.current.take();
        current.map(|_| ()).ok_or(LargeError::Stream("a block of an open transaction ends that did not begin"))
    }

    /// Messages that stand in a block are held.
    pub fn is_inside(&self) -> bool {
        self.current.is_some()
    }

    /// Bytes in files.
    #[cfg(test)]
    fn spilled(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }

    /// Holds a message of the block: `body` has the id of its (sub)transaction after the tag.
    pub fn hold(&mut self, start: u64, body: &Bytes) -> Result<(), LargeError> {
        let xid = self.current.ok_or(LargeError::Stream("a message outside of a block"))?;
        let streamed = self.open.get_mut(&xid).ok_or(LargeError::Stream("a message of no transaction"))?;
        let Some((tag, sub)) = body.get(1..5).and_then(|s| Some((*body.first()?, <[u8; 4]>::try_from(s).ok()?))) else {
            return Err(LargeError::Stream("a message of an open transaction ends early"));
        };
        let before = streamed.tail.len();
        streamed.tail.reserve(HEAD_BYTES + body.len());
        streamed.tail.put_u32(body.len() as u32 - 4);
        streamed.tail.put_slice(&sub);
        streamed.tail.put_u64(start);
        streamed.tail.put_u8(tag);
        streamed.tail.put_slice(&body[5..]);
        self.held += streamed.tail.len() - before;
        Ok(())
    }

    /// A subtransaction was rolled back, or all of it (`sub` = `xid`).
    pub fn abort(&mut self, xid: u32, sub: u32) {
        if xid == sub {
            if let Some(gone) = self.open.remove(&xid) {
                self.held -= gone.tail.len();
            }
        } else if let Some(streamed) = self.open.get_mut(&xid) {
            streamed.aborted.insert(sub);
        }
    }

    /// The transaction is committed: what it did, in order.
    pub fn commit(&mut self, xid: u32) -> Result<Replay, LargeError> {
        let mut streamed = self.open.remove(&xid).ok_or(LargeError::Stream("a commit of no open transaction"))?;
        self.held -= streamed.tail.len();
        let tail = streamed.tail.split().freeze();
        let dir = self.limits.dir.display().to_string();
        Ok(Replay { streamed, dir, next: 0, tail, block: Bytes::new(), pending: self.writing.take(), loading: None })
    }

    /// Puts tails into files until memory is below its bound. Call it before more is held.
    pub async fn settle(&mut self) -> Result<(), LargeError> {
        while self.held > self.limits.memory_max {
            if let Some(writing) = &mut self.writing {
                let done = writing.await;
                self.writing = None;
                done.map_err(|e| self.io(&e))?;
            }
            self.write()?;
        }
        Ok(())
    }

    /// Begins to write the longest tail.
    fn write(&mut self) -> Result<(), LargeError> {
        let Some(streamed) = self.open.values_mut().max_by_key(|s| s.tail.len()) else { return Ok(()) };
        let len = streamed.tail.len();
        let all = self.spilled.load(Ordering::Relaxed).saturating_add(len as u64);
        if all > self.limits.disk_max {
            return Err(LargeError::Full(self.limits.disk_max));
        }
        let file = match &streamed.file {
            Some(file) => file.clone(),
            None => {
                let made = unnamed(&self.limits.dir);
                let file = Arc::new(made.map_err(|e| io_error(&self.limits.dir, &e))?);
                streamed.file = Some(file.clone());
                file
            }
        };
        let bytes = std::mem::take(&mut streamed.tail).freeze();
        let at = streamed.end;
        streamed.blocks.push(Block { at, len, hash: xxh3_64(&bytes) });
        streamed.end += len as u64;
        self.spilled.fetch_add(len as u64, Ordering::Relaxed);
        self.held -= len;
        self.writing = Some(Box::pin(async move {
            let done = blocking(move || file.write_all_at(&bytes, at)).await;
            done.unwrap_or_else(|why| Err(io::Error::other(why)))
        }));
        Ok(())
    }

    fn io(&self, e: &io::Error) -> LargeError {
        io_error(&self.limits.dir, e)
    }
}

fn io_error(dir: &Path, e: &io::Error) -> LargeError {
    LargeError::Io { dir: dir.display().to_string(), why: e.to_string() }
}

/// A file that nobody else can open and that is gone with its last handle.
fn unnamed(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(dir)?;
    loop {
        let name = format!("open-transaction-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(name);
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            // Of an earlier process with our number that was killed between the two calls.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => std::fs::remove_file(&path)?,
            Err(e) => return Err(e),
        }
    }
}

/// A message that was held.
pub struct Held {
    pub start: u64,
    /// As it would stand outside of a block.
    pub body: Bytes,
    rest: Bytes,
}

/// A committed transaction on its way out.
pub struct Replay {
    streamed: Streamed,
    dir: String,
    next: usize,
    /// What was never written: the last block.
    tail: Bytes,
    block: Bytes,
    /// A write that may be one of ours.
    pending: Option<Fut<'static, io::Result<()>>>,
    loading: Option<Fut<'static, io::Result<Bytes>>>,
}

impl Replay {
    /// The next message; it stays until [`Replay::take`].
    pub async fn peek(&mut self) -> Result<Option<Held>, LargeError> {
        if let Some(pending) = &mut self.pending {
            let done = pending.await;
            self.pending = None;
            done.map_err(|e| self.io(&e))?;
        }
        loop {
            if self.block.is_empty() {
                let Some(of) = self.streamed.blocks.get(self.next).copied() else {
                    if self.tail.is_empty() {
                        return Ok(None);
                    }
                    self.block = std::mem::take(&mut self.tail);
                    continue;
                };
                let bytes = self.load(of).await?;
                if xxh3_64(&bytes) != of.hash {
                    return Err(LargeError::Damaged { dir: self.dir.clone() });
                }
                self.next += 1;
                self.block = bytes;
            }
            let mut rest = self.block.clone();
            if rest.len() < HEAD_BYTES {
                return Err(LargeError::Damaged { dir: self.dir.clone() });
            }
            let (len, sub, start) = (rest.get_u32() as usize, rest.get_u32(), rest.get_u64());
            if rest.len() < len {
                return Err(LargeError::Damaged { dir: self.dir.clone() });
            }
            let body = rest.split_to(len);
            if self.streamed.aborted.contains(&sub) {
                self.block = rest;
                continue;
            }
            return Ok(Some(Held { start, body, rest }));
        }
    }

    pub fn take(&mut self, held: Held) {
        self.block = held.rest;
    }

    async fn load(&mut self, of: Block) -> Result<Bytes, LargeError> {
        let file = self.streamed.file.clone();
        let loading = self.loading.get_or_insert_with(|| {
            Box::pin(async move {
                let read = move || {
                    let file = file.ok_or_else(|| io::Error::other("a block without a file"))?;
                    let mut bytes = vec![0; of.len];
                    file.read_exact_at(&mut bytes, of.at)?;
                    Ok(Bytes::from(bytes))
                };
                blocking(read).await.unwrap_or_else(|why| Err(io::Error::other(why)))
            })
        });
        let done = loading.await;
        self.loading = None;
        done.map_err(|e| self.io(&e))
    }

    fn io(&self, e: &io::Error) -> LargeError {
        LargeError::Io { dir: self.dir.clone(), why: e.to_string() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn limits(memory_max: usize, disk_max: u64) -> Limits {
        let dir = std::env::temp_dir().join(format!("catchwater-large-{}-{memory_max}", std::process::id()));
        Limits { memory_max, disk_max, dir }
    }

    fn row(sub: u32, n: u64) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(b'I');
        out.put_u32(sub);
        out.put_slice(format!("row {n}").as_bytes());
        out.freeze()
    }

    async fn all(mut replay: Replay) -> Vec<(u64, String)> {
        let mut out = Vec::new();
        while let Some(held) = replay.peek().await.unwrap() {
            out.push((held.start, String::from_utf8_lossy(&held.body).into_owned()));
            replay.take(held);
        }
        out
    }

    /// Two transactions interleaved, the second with a savepoint rolled back; bounds that put everything, some of it, and
    /// nothing into files give the same messages.
    #[tokio::test]
    async fn what_is_given_out_does_not_depend_on_the_bound() {
        for memory_max in [0, 100, 1 << 20] {
            let limits = limits(memory_max, 1 << 30);
            let dir = limits.dir.clone();
            let mut large = Large::new(limits);
            for block in 0..20u64 {
                for (xid, sub) in [(7, 7), (9, if block % 2 == 0 { 9 } else { 10 })] {
                    large.start(xid).unwrap();
                    for n in 0..10 {
                        large.hold(block * 10 + n, &row(sub, n)).unwrap();
                        large.settle().await.unwrap();
                    }
                    large.stop().unwrap();
                }
            }
            large.abort(9, 10);
            assert_eq!(large.spilled() > 0, memory_max < 1000);
            let want = |keep: fn(u64) -> bool| -> Vec<(u64, String)> {
                (0..200).filter(|n| keep(n / 10)).map(|n| (n, format!("Irow {}", n % 10))).collect()
            };
            let nine = large.commit(9).unwrap();
            assert_eq!(all(nine).await, want(|b| b % 2 == 0));
            let seven = large.commit(7).unwrap();
            assert_eq!(all(seven).await, want(|_| true));
            assert_eq!((large.spilled(), large.held), (0, 0), "nothing is held any more");
            if memory_max < 1000 {
                assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "files have no name");
                std::fs::remove_dir(&dir).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn the_disk_is_bounded_and_an_abort_gives_back() {
        let limits = limits(10, 60);
        let dir = limits.dir.clone();
        let mut large = Large::new(limits);
        large.start(1).unwrap();
        large.hold(1, &row(1, 1)).unwrap();
        large.settle().await.unwrap();
        large.hold(2, &row(1, 2)).unwrap();
        large.settle().await.unwrap();
        large.hold(3, &row(1, 3)).unwrap();
        assert!(matches!(large.settle().await, Err(LargeError::Full(60))));
        large.stop().unwrap();
        large.abort(1, 1);
        assert_eq!((large.spilled(), large.held), (0, 0));
        std::fs::remove_dir(&dir).unwrap();
    }

    #[tokio::test]
    async fn a_block_that_changed_on_disk_is_an_error() {
        let limits = limits(1, 1 << 20);
        let dir = limits.dir.clone();
        let mut large = Large::new(limits);
        large.start(1).unwrap();
        large.hold(1, &row(1, 1)).unwrap();
        large.settle().await.unwrap();
        let mut replay = large.commit(1).unwrap();
        if let Some(pending) = replay.pending.take() {
            pending.await.unwrap();
        }
        replay.streamed.file.as_ref().unwrap().write_all_at(b"x", 20).unwrap();
        assert!(matches!(replay.peek().await, Err(LargeError::Damaged { .. })));
        std::fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn blocks_do_not_nest() {
        let mut large = Large::new(limits(2, 2));
        assert!(large.stop().is_err());
        large.start(1).unwrap();
        assert!(large.start(2).is_err());
        assert!(large.hold(0, &Bytes::from_static(b"I\0\0")).is_err());
        assert!(large.commit(5).is_err());
    }
}
