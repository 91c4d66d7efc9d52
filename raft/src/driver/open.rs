//! From a path to a running log directory: recovery, what must be durable before the first write, the two threads.

use super::journal_thread::{catch_up, run_journal};
use super::metrics;
use super::segment_thread::run_segments;
use super::space::{self, Room};
use super::syncs::SYNCS_MAX;
use super::{
    Closed, EndThreads, IdentitySeed, Inner, JournalInbox, LogDir, LogDirConfig, OpenError, Opened, SegmentInbox, Slot,
    lock,
};
use catchwater_base::{Clock, crash_point, log};
use catchwater_record::{NodeId, TopicId};
use catchwater_runtime::thread::{self, Condvar, Mutex};
use catchwater_runtime::time::SystemClock;
use catchwater_storage::disk::{Disk, DiskExt, DiskFault, DiskOp, JournalWrites};
use catchwater_storage::format::slot::BootState;
use catchwater_storage::journal::{Journal, JournalConfig, JournalEvent};
use catchwater_storage::recover::{
    Layout, NewIdentity, RecoverError, Recovered, Survivor, check_filesystem, quarantine, recover, settle,
    settle_relaxed, write_boot_state,
};
use catchwater_storage::relaxed::RelaxedEvent;
use catchwater_storage::segment::{SegmentConfig, SegmentEvent, Segments};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::time::Duration;

/// So many groups that want to be durable at one time are made so by two syncs of the filesystem, fewer by a sync of each of
/// their files: that waits for nobody else's bytes, and is faster up to about here.
const SWEEP_GROUPS_MIN: usize = 256;

impl LogDir {
    /// Takes the directory (or makes it), recovers it, starts its threads. Blocking: call it before the runtime serves.
    pub fn open(disk: Arc<dyn Disk>, config: LogDirConfig, seed: IdentitySeed) -> Result<(LogDir, Opened), OpenError> {
        let layout = Layout::new(config.path.display().to_string());
        let new = NewIdentity { cluster_id: seed.cluster_id, dir_id: seed.dir_id, node: config.node_id.0 };
        if !config.allow_unsafe_filesystem {
            check_filesystem(&*disk, &layout).map_err(open_error)?;
        }
        let clock = SystemClock::default();
        let begun = clock.now().mono;
        let found = recover(&*disk, &layout, new).map_err(open_error)?;
        tell(&found, clock.now().mono.since(begun));
        let expected = expected(&config, &layout, &found);
        match expected.and_then(|()| Self::start(disk.clone(), config, layout.clone(), found)) {
            Ok(opened) => Ok(opened),
            Err(error) => {
                let _ = disk.run(DiskOp::Unlock { path: layout.root.as_str().into() });
                Err(error)
            }
        }
    }

    fn start(
        disk: Arc<dyn Disk>,
        config: LogDirConfig,
        layout: Layout,
        mut found: Recovered,
    ) -> Result<(LogDir, Opened), OpenError> {
        let clock = SystemClock::default();
        crash_point!("relaxed.before_settle");
        settle_relaxed(&*disk, &layout, &mut found.groups)?;
        crash_point!("relaxed.after_settle");
        // The clean flag goes before the first write: from here on a death is a death.
        crash_point!("boot.before_clear");
        let running = BootState {
            boot_id: found.identity.boot_id,
            mount_id: found.identity.mount_id,
            last_lsn: found.journal.last_lsn,
            checkpoint_lsn: found.checkpoint_lsn,
            clean: false,
        };
        let mut boot = write_boot_state(&*disk, &layout, found.boot, running)?;
        if found.survivor == Survivor::Fresh {
            // Both sides are there from the beginning: a later start on a full disk makes no file.
            boot = write_boot_state(&*disk, &layout, boot, running)?;
        }
        crash_point!("boot.after_clear");
        let room = Room::new(&config);
        space::begin(&*disk, &layout, &room)?;
        quarantine(&*disk, &layout, &found.groups)?;
        settle(&*disk, &layout, &found.leftovers, &found.journal.free)?;
        // A write that the process before did not see return counts from now on: it must last.
        if let Some(newest) = found.journal.live.last() {
            disk.fdatasync(&newest.path)?;
        }

        // Asked before anything is trusted to it: a filesystem that refuses direct writes says so here, not in the middle.
        match disk.probe(&layout.journal()) {
            // A start on a full disk: the first write tells.
            Err(e) if e.kind == DiskFault::NoSpace => {}
            Err(e) => return Err(e.into()),
            Ok(JournalWrites::Direct) => {
                log!(Info, "journal.writes", "the journal writes past the page cache");
            }
            Ok(JournalWrites::Buffered) => log!(
                Warn,
                "journal.writes",
                "the filesystem of {} refuses O_DIRECT: the journal writes through the page cache and syncs, which is slower",
                layout.root
            ),
        }
        let journal_config = JournalConfig {
            dir: layout.journal(),
            dir_id: found.meta.dir_id,
            file_bytes: config.journal_file_bytes.max(64 << 10) / 4096 * 4096,
            files: config.journal_files.max(2) as usize,
            files_max: config.journal_files_max.max(config.journal_files).max(2) as usize,
            buffer_bytes: usize::try_from((config.journal_file_bytes / 4).min(4 << 20)).unwrap_or(4 << 20),
        };
        let mut segment_config = SegmentConfig::new(layout.groups());
        segment_config.segment_bytes = config.segment_bytes;
        segment_config.segment_ms = config.segment_ms;
        segment_config.parallel = SYNCS_MAX;
        segment_config.sweep_groups_min = SWEEP_GROUPS_MIN;
        let (files, found_lsn) = (journal_config.files, found.journal.last_lsn);
        let file_bytes = journal_config.file_bytes;
        let mut journal = Journal::open(journal_config, found.journal);
        let mut segments = Segments::new(segment_config);

        let mut groups = Vec::with_capacity(found.groups.len());
        let mut replicas = BTreeMap::new();
        let mut inbox = SegmentInbox::default();
        let (mut loose, mut shut) = (Vec::new(), BTreeMap::new());
        for (group, files) in found.groups {
            replicas.insert(group.gid, Slot::Waiting(Vec::new()));
            if files.quarantine.is_none() {
                loose.extend(files.loose.map(|l| RelaxedEvent::Found(group.gid, l, group.last_index())));
                inbox.events.push(SegmentEvent::Open(Box::new(files)));
            } else {
                shut.insert(group.gid, group.spec.clone());
            }
            groups.push(group);
        }
        let inner = Arc::new(Inner {
            disk,
            layout,
            clock,
            unplaced_bytes_max: config.unplaced_bytes_max,
            batch_bytes_max: config.batch_bytes_max.min(super::BATCH_BYTES_MAX),
            large_bytes: file_bytes / 4,
            journal: Mutex::new(JournalInbox { events: vec![JournalEvent::Wake], ..JournalInbox::default() }),
            journal_wake: Condvar::new(),
            segments: Mutex::new(inbox),
            segments_wake: Condvar::new(),
            syncs: Mutex::default(),
            syncs_wake: Condvar::new(),
            replicas: Mutex::new(replicas),
            stopped: Mutex::new(None),
            on_stop: Mutex::new(None),
            abandoned: AtomicBool::new(false),
            journal_used_percent: AtomicU8::new(0),
            waiting_bytes: AtomicU64::new(0),
            unplaced_bytes: AtomicU64::new(0),
            segments_due: AtomicBool::new(false),
            reopening: Mutex::default(),
            opened: Mutex::default(),
            shut: Mutex::new(shut),
            switches: Mutex::new(BTreeMap::new()),
            closed: Mutex::new(Closed::default()),
            closed_wake: Condvar::new(),
            boot: Mutex::new(boot),
            dir_identity: found.identity,
            checkpoint_lsn: AtomicU64::new(found.checkpoint_lsn),
            noted_lsn: AtomicU64::new(found_lsn),
            close_ms_max: config.close_ms_max,
            room,
            relaxed: Mutex::default(),
            threads: Mutex::new(Vec::new()),
        });
        let dir = LogDir { inner: inner.clone(), _end: Arc::new(EndThreads(Arc::downgrade(&inner))) };
        loose.into_iter().for_each(|event| inner.relaxed(event));
        for (gid, lost) in &found.report.relaxed {
            metrics::RELAXED_LOST_RECORDS.add(lost.records);
            log!(
                Warn,
                "relaxed.lost",
                "CW0205 partition {gid} is relaxed and was being written when the power went: it ends at offset {}, {} records \
                 that were there are gone, at most one flush window of acknowledged ones is lost",
                lost.end,
                lost.records
            );
        }
        catch_up(&inner, &mut journal, &mut segments, files);
        if let Some(stopped) = inner.stopped_error() {
            return Err(OpenError::Disk(stopped.source));
        }
        let shared = inner.clone();
        let journal_thread = thread::spawn("cw-journal", move || {
            shared.or_stop("write the journal of", || run_journal(&shared, journal));
        })?;
        lock(&inner.threads).push(journal_thread);
        let shared = inner.clone();
        let segment_thread = thread::spawn("cw-segment", move || {
            shared.or_stop("write the segments of", || run_segments(&shared, &mut segments));
        })?;
        lock(&inner.threads).push(segment_thread);
        let opened = Opened {
            cluster_id: found.meta.cluster_id,
            node_id: NodeId(found.meta.node),
            dir_id: found.meta.dir_id,
            fresh: found.survivor == Survivor::Fresh,
            survivor: found.survivor,
            report: found.report,
            groups,
        };
        Ok((dir, opened))
    }
}

/// The figures of a recovery.
fn tell(found: &Recovered, took: Duration) {
    metrics::RECOVERY_US.set(i64::try_from(took.as_micros()).unwrap_or(i64::MAX));
    metrics::RECOVERY_BYTES.set(i64::try_from(found.report.journal_bytes).unwrap_or(i64::MAX));
    metrics::DAMAGE_REPAIRED.add(found.leftovers.rebuilt.len() as u64);
    for (verdict, count) in &metrics::RECOVERY_VERDICTS {
        let given = found.report.verdicts.values().filter(|given| *given == verdict).count();
        let all = found.groups.len() - found.report.verdicts.len();
        count.add(if *verdict == "ok" { all } else { given } as u64);
    }
}

/// Another cluster's or node's directory is refused before anything is written into it.
fn expected(config: &LogDirConfig, layout: &Layout, found: &Recovered) -> Result<(), OpenError> {
    let foreign = |found: String, wanted: String| OpenError::Foreign { path: layout.root.clone(), found, wanted };
    if let Some(wanted) = config.expect_cluster.filter(|wanted| *wanted != found.meta.cluster_id) {
        let cluster = |id| format!("cluster {}", TopicId(id));
        return Err(foreign(cluster(found.meta.cluster_id), cluster(wanted)));
    }
    if let Some(wanted) = config.expect_node.filter(|wanted| wanted.0 != found.meta.node) {
        return Err(foreign(format!("node {}", found.meta.node), format!("node {wanted}")));
    }
    Ok(())
}

fn open_error(error: RecoverError) -> OpenError {
    match error {
        RecoverError::Locked(path) => OpenError::Locked(path),
        RecoverError::Format { path, why } => OpenError::Format { path, why: why.to_owned() },
        RecoverError::Newer { path, found, known } => OpenError::Newer { path, found, known },
        RecoverError::Filesystem { path, kind } => OpenError::Filesystem { path, kind },
        RecoverError::Missing(path) => OpenError::Format { path, why: "it is not there".to_owned() },
        RecoverError::Disk(source) if source.kind == DiskFault::Denied => {
            OpenError::NotWritable { path: source.path.to_string(), source }
        }
        RecoverError::Disk(source) => OpenError::Disk(source),
    }
}
