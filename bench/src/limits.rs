//! What the disk can do, taken in the same minute as what is compared with it: the probes of the bars.
//!
//! Probes write into a file that was written through before, because the first write of a block costs its allocation.

use anyhow::{Result, ensure};
use catchwater_storage::disk::AlignedBuf;
use rustix::fs::{Advice, Mode, OFlags};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `O_DSYNC`; `rustix` maps its own constant to O_SYNC.
const O_DSYNC: OFlags = OFlags::from_bits_retain(0o10000);
/// Length of the probes' file; writes go round in it.
const RING_BYTES: u64 = 64 << 20;
/// Length to which a file grows before the next one is begun.
const GROWN_BYTES: u64 = 1 << 30;

/// A folder that goes when it is dropped: below `CW_DIR`, or the temporary one.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Result<Folder> {
        let root = std::env::var_os("CW_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = root.join(format!("catchwater-bench.{}.{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How a probe writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// O_DIRECT | O_DSYNC, as the journal.
    Direct,
    /// Into the page cache and `fdatasync`, as most logs.
    Fdatasync,
    /// Into the page cache, over pages that are in memory: little more than a copy.
    Buffered,
    /// Into the page cache at the end of a file that grows, as a log does: pages and blocks are new.
    Growing,
}

/// Writes of one size for a time.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub mb_per_s: f64,
    pub median_us: f64,
    pub longest_us: f64,
}

pub struct Ring {
    path: PathBuf,
    fd: OwnedFd,
    mode: How,
    at: u64,
}

impl Ring {
    pub fn new(folder: &Path, mode: How) -> Result<Ring> {
        let path = folder.join(format!("ring-{mode:?}"));
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644))?;
        let zeros = vec![0u8; 1 << 20];
        let before = if mode == How::Growing { 0 } else { RING_BYTES };
        for n in 0..before >> 20 {
            ensure!(rustix::io::pwrite(&fd, &zeros, n << 20)? == zeros.len(), "short write");
        }
        rustix::fs::fsync(&fd)?;
        let fd = match mode {
            How::Direct => rustix::fs::open(&path, flags | OFlags::DIRECT | O_DSYNC, Mode::from_raw_mode(0o644))?,
            How::Fdatasync | How::Buffered | How::Growing => fd,
        };
        Ok(Ring { path, fd, mode, at: 0 })
    }

    /// Writes of `bytes` (a multiple of 4096) until the time is over.
    pub fn run(&mut self, bytes: usize, limit: Duration) -> Result<Written> {
        let mut buf = AlignedBuf::with_capacity(bytes);
        buf.put(&vec![0x5a; bytes]);
        if self.mode == How::Growing {
            self.anew()?;
        }
        let length = if self.mode == How::Growing { GROWN_BYTES } else { RING_BYTES };
        let (mut from, mut took) = (Instant::now(), Vec::new());
        while from.elapsed() < limit {
            if self.at + bytes as u64 > length {
                self.at = 0;
                if self.mode == How::Growing {
                    // Giving pages back is not what is measured.
                    let pause = Instant::now();
                    self.anew()?;
                    from += pause.elapsed();
                }
            }
            let one = Instant::now();
            ensure!(rustix::io::pwrite(&self.fd, buf.bytes(), self.at)? == bytes, "short write");
            if self.mode == How::Fdatasync {
                rustix::fs::fdatasync(&self.fd)?;
            }
            took.push(one.elapsed().as_secs_f64() * 1e6);
            self.at += bytes as u64;
        }
        let seconds = from.elapsed().as_secs_f64();
        let longest_us = took.iter().copied().fold(0.0, f64::max);
        let mb_per_s = (took.len() * bytes) as f64 / 1e6 / seconds;
        Ok(Written { mb_per_s, median_us: crate::median(took), longest_us })
    }
}

impl Ring {
    /// An empty file in the place of the present one.
    fn anew(&mut self) -> Result<()> {
        std::fs::remove_file(&self.path)?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        self.fd = rustix::fs::open(&self.path, flags, Mode::from_raw_mode(0o644))?;
        self.at = 0;
        Ok(())
    }
}

/// Reads files from their beginning, out of the page cache if `cold`; bytes and seconds.
pub fn scan(files: &[PathBuf], cold: bool) -> Result<(u64, f64)> {
    if cold {
        drop_cache(files)?;
    }
    let (from, mut bytes) = (Instant::now(), 0u64);
    let mut buf = vec![0u8; 1 << 20];
    for file in files {
        let fd = rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        loop {
            let n = rustix::io::read(&fd, &mut buf)?;
            if n == 0 {
                break;
            }
            bytes += n as u64;
        }
    }
    Ok((bytes, from.elapsed().as_secs_f64()))
}

/// Asks the kernel to forget these files' pages.
pub fn drop_cache(files: &[PathBuf]) -> Result<()> {
    for file in files {
        let fd = rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::fsync(&fd)?;
        rustix::fs::fadvise(&fd, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// The probes alone.
pub fn limits() -> Result<Value> {
    let folder = Folder::new("limits")?;
    let limit = Duration::from_millis(crate::setting("CW_PROBE_MS", 500));
    let mut out = json!({ "bench": "limits", "folder": folder.0.parent().map(|p| p.display().to_string()) });
    for (mode, sizes) in [
        (How::Direct, &[4 << 10, 16 << 10, 64 << 10, 1 << 20][..]),
        (How::Fdatasync, &[4 << 10, 64 << 10, 1 << 20]),
        (How::Buffered, &[64 << 10]),
        (How::Growing, &[64 << 10]),
    ] {
        let mut ring = Ring::new(&folder.0, mode)?;
        for bytes in sizes {
            let mut rounds = Vec::new();
            for _ in 0..crate::setting("CW_ROUNDS", 5) {
                rounds.push(ring.run(*bytes, limit)?);
            }
            out[format!("{}_{}k", format!("{mode:?}").to_lowercase(), bytes >> 10)] = json!({
                "mb_per_s": crate::median(rounds.iter().map(|r| r.mb_per_s).collect()),
                "median_us": crate::median(rounds.iter().map(|r| r.median_us).collect()),
            });
        }
    }
    let files = [folder.0.join("ring-Direct"), folder.0.join("ring-Buffered")];
    for (name, cold) in [("scan_cold_mb_per_s", true), ("scan_cached_mb_per_s", false)] {
        let (bytes, seconds) = scan(&files, cold)?;
        out[name] = json!(bytes as f64 / 1e6 / seconds);
    }
    Ok(out)
}
