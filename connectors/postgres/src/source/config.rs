//! What a source is told: whom it reads, which tables, by which slot and publication, within which bounds.

use super::LargeLimits;
use super::former::{Former, means};
use super::slot;
use super::taken::Taken;
use crate::config::{ConnectConfig, TableRef};
use catchwater_capture::TableLists;
use catchwater_capture::reading::{Guardrail, Reading};
use catchwater_change::encode::debezium_json::Xmin;
use catchwater_record::{CaptureEpoch, SourceName};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Default of `row.max.bytes`: what one record of the log takes. Two such rows (an update under `REPLICA IDENTITY FULL`), or
/// one whose text needs escapes, may be above that, which the log says itself.
pub const ROW_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Memory for transactions that are streamed while they are open; beyond it they go to disk.
const LARGE_MEMORY_MAX: usize = 64 * 1024 * 1024;
/// Disk for them.
const LARGE_DISK_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// How often the publication is looked at while the source runs.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// What a source needs to know.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    pub source: SourceName,
    /// Epoch of the lease: names our connections, so that an older worker of ours can be told from a stranger.
    pub epoch: CaptureEpoch,
    pub connect: ConnectConfig,
    pub tables: Vec<TableRef>,
    /// More of them, and exceptions.
    pub lists: TableLists,
    /// `None` = `catchwater_<source>`.
    pub slot: Option<String>,
    pub publication: Option<String>,
    pub row_bytes_max: usize,
    /// The server sends large transactions while they are open, rather than keep them on its disk until they end.
    pub streaming: bool,
    /// Where those are held, and how much of them.
    pub large: LargeLimits,
    /// The stream is in the binary format, if all columns of the tables are of types whose bytes we know.
    pub binary: bool,
    /// A column came that is not: text from then on. Shared by all instances of the source.
    pub text_only: Arc<AtomicBool>,
    /// The slot is copied to standbys (PostgreSQL 17).
    pub failover: bool,
    /// SQL that is run while the source streams, and the milliseconds between two runs.
    pub heartbeat: Option<(u64, String)>,
    /// `xmin.fetch.interval.ms`, and who is told.
    pub xmin_every_ms: Option<u64>,
    pub xmin: Xmin,
    /// Partitions, the first snapshot's rows, and who confirms.
    pub reading: Reading,
    /// A Debezium connector's slot and publication are taken over here; they are used as they are.
    pub taken: Option<Taken>,
    /// What older texts of this source meant.
    pub former: Former,
    /// Tables whose UPDATE and DELETE fail in the application are captured, too.
    pub without_identity: bool,
    /// A pattern takes partitions beside their root: the snapshot has their rows twice, the stream under the root alone.
    pub leaves: bool,
    /// How often the publication is looked at while the source runs.
    pub compare_every: Duration,
}

impl SourceConfig {
    pub fn new(source: SourceName, epoch: CaptureEpoch, connect: ConnectConfig, tables: Vec<TableRef>) -> Self {
        let dir = std::env::temp_dir();
        SourceConfig {
            source,
            epoch,
            connect,
            tables,
            lists: TableLists::default(),
            slot: None,
            publication: None,
            row_bytes_max: ROW_BYTES_MAX,
            streaming: false,
            large: LargeLimits { memory_max: LARGE_MEMORY_MAX, disk_max: LARGE_DISK_MAX, dir },
            binary: false,
            text_only: Arc::default(),
            failover: false,
            heartbeat: None,
            xmin_every_ms: None,
            xmin: Xmin::default(),
            reading: Reading::default(),
            taken: None,
            former: Former::default(),
            without_identity: false,
            leaves: false,
            compare_every: COMPARE_EVERY,
        }
    }
    /// The file means this table.
    pub fn captures(&self, schema: &str, name: &str) -> bool {
        means(&self.tables, &self.lists, schema, name)
    }
    /// Partitioned tables are tables, not only their partitions.
    pub(crate) fn takes_roots(&self) -> bool {
        !self.reading.leaves || self.leaves
    }
    /// What the file asks for and `found` (schema, name) has not.
    pub(super) fn missing<'a>(&self, found: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Vec<String> {
        let is_there = |t: &&TableRef| found.clone().any(|(s, n)| s == t.schema && (t.is_pattern() || n == t.name));
        let mut out: Vec<String> = self.tables.iter().filter(|t| !is_there(t)).map(|t| t.to_string()).collect();
        if self.lists.adds() && self.tables.is_empty() && found.clone().next().is_none() {
            out.push("that the lists mean".to_owned());
        }
        out
    }
    /// What is to be said of more tables than `guardrail.collections.max`.
    pub(super) fn above_guardrail(&self, tables: usize) -> Option<(Guardrail, String)> {
        let guardrail = self.reading.guardrail.filter(|g| tables > g.tables_max as usize)?;
        let what =
            format!("{tables} tables would be captured, above guardrail.collections.max = {}", guardrail.tables_max);
        Some((guardrail, what))
    }
    pub fn slot(&self) -> String {
        self.slot.clone().unwrap_or_else(|| crate::config::object_name(self.source.as_str()))
    }
    pub fn publication(&self) -> String {
        self.publication.clone().unwrap_or_else(|| crate::config::object_name(self.source.as_str()))
    }
    /// `application_name` of our connections; PostgreSQL cuts it at 63 bytes, so the epoch stands before the name there.
    pub fn application(&self) -> String {
        slot::application(self.source.as_str(), self.epoch)
    }
    /// Longest replication message: old and new row of one update, each at the limit, and their heads.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.row_bytes_max.saturating_mul(2).saturating_add(1024 * 1024)
    }
}
