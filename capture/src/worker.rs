//! The one loop of a capture: fence, read what the log knows, open the source, snapshot, stream; appends pipelined, cuts
//! behind acknowledged rounds, checkpoints behind cuts, confirmations behind committed checkpoints.
//!
//! Walk: row-change 4/17
//!
//! One attempt = one epoch's hold on one connection to the source. An error that time may cure ends the attempt; the next
//! one begins as after a crash (fence, checkpoint, replay), so there is one way to resume and it is used all the time. The
//! source is never slowed by sinks or clients, only by the log itself: when more than `credit_bytes` wait for answers, or
//! more than `replay_bytes_max` lie above the last checkpoint and another can be made, it is not read.
//!
//! A capture that reads its tables and no change (`SnapshotMode::InitialOnly`) is complete once they are durable: what the
//! source keeps for it is removed, and the worker rests.
//!
//! `session` holds the log's side (lanes, meta appends, timers), `start` reads what the log knows, `fill` the snapshot.

mod adhoc;
mod beat;
mod events;
mod fill;
mod late;
mod session;
mod start;
mod stream;
mod tell;
mod unchanged;

use crate::creation::Creation;
use crate::emit::Limits as EmitLimits;
use crate::error::{End, Trouble, code};
use crate::notification;
use crate::properties::Heartbeat;
use crate::reading::SnapshotMode;
use crate::shape::Pattern;
use crate::signal::{SignalError, Signals};
use crate::source::Source;
use crate::status::{State, StatusHandle};
use catchwater_base::backoff::Backoff;
use catchwater_base::{Clock, Rng, log};
use catchwater_change::encode::debezium_json::Options;
use catchwater_client::{ControlClient, LogClient};
use catchwater_record::{Caller, CaptureEpoch, CaptureId, Incarnation, PipelineName, RevisionNo, SourceName};
use catchwater_runtime::shutdown::Stopped;
use catchwater_runtime::time;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long a source may take to let go of what it keeps for a capture that is complete; then it is asked again.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(30);

/// Makes a fresh source for each attempt; no I/O in it.
pub type MakeSource = Box<dyn FnMut() -> Box<dyn Source> + Send>;

/// What a worker works with.
pub struct Deps {
    pub log: Arc<dyn LogClient>,
    pub control: Arc<dyn ControlClient>,
    pub clock: Arc<dyn Clock>,
    pub make_source: MakeSource,
    /// Seeds the back-off.
    pub seed: u64,
}

/// What a worker is to do.
#[derive(Clone, Debug)]
pub struct Config {
    pub source: SourceName,
    pub capture: CaptureId,
    pub incarnation: Incarnation,
    /// The task's epoch.
    pub epoch: CaptureEpoch,
    pub who: Caller,
    /// `postgresql`, `sqlite`: `source.connector` of every record.
    pub connector: &'static str,
    /// First part of the topic names, and `source.name`.
    pub prefix: String,
    pub pipeline: PipelineName,
    pub revision: RevisionNo,
    /// The source's block as canonical JSON, secrets as references: kept in CONFIG records.
    pub canonical: String,
    /// Partitions of a new topic.
    pub partitions: u32,
    /// When the tables are read, and whether changes follow.
    pub snapshot: SnapshotMode,
    /// Tables that snapshots of `Always` behind the first one read; `None` = all.
    pub snapshot_tables: Option<Pattern>,
    /// How records look. What decides which records exist is fixed while the log holds half a transaction (R8).
    pub options: Options,
    /// Name of the topic, without its prefix, that tells where transactions begin and end; `None` = no such topic.
    pub transaction_topic: Option<String>,
    /// Records that say that the source is alive.
    pub heartbeat: Option<Heartbeat>,
    /// Where what a person asks of the running source comes from.
    pub signals: Signals,
    /// Where it is told how snapshots go.
    pub notifications: notification::Channels,
    /// How its topics are made.
    pub creation: Arc<Creation>,
    pub limits: Limits,
}

/// Bounds, each with its unit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub emit: EmitLimits,
    /// Bytes in batches that wait for an answer; above it the source is not read.
    pub credit_bytes: usize,
    /// Bytes appended above the last committed checkpoint; bounds the replay after a crash, but for a transaction that is
    /// larger: it is read to its end.
    pub replay_bytes_max: u64,
    /// Bytes the source may give out in one go.
    pub read_bytes: usize,
    /// A transaction larger than this goes out before its end is known.
    pub txn_bytes: usize,
    pub cut_every_ms: u64,
    /// A cut that says only that the source's position has moved: what waits for a position waits that long.
    pub moved_every_ms: u64,
    /// A cut without news, and the longest time between checkpoints while anything moves.
    pub idle_every_ms: u64,
    pub checkpoint_every_ms: u64,
    pub checkpoint_bytes: u64,
    pub retry_base_ms: u64,
    pub retry_cap_ms: u64,
    /// Times one chunk is read again because its view was too old.
    pub chunk_retries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            emit: EmitLimits::default(),
            credit_bytes: 64 * 1024 * 1024,
            replay_bytes_max: 256 * 1024 * 1024,
            read_bytes: 1024 * 1024,
            txn_bytes: 8 * 1024 * 1024,
            cut_every_ms: 10,
            moved_every_ms: 200,
            idle_every_ms: 1000,
            checkpoint_every_ms: 1000,
            checkpoint_bytes: 64 * 1024 * 1024,
            retry_base_ms: 100,
            retry_cap_ms: 30_000,
            chunk_retries: 20,
        }
    }
}

/// One capture under one epoch.
pub struct Worker {
    deps: Deps,
    config: Config,
    status: StatusHandle,
    rng: Rng,
    /// Nothing of this worker has asked for the snapshot of its beginning (`SnapshotMode::Always`).
    at_start: bool,
}

impl Worker {
    pub fn new(deps: Deps, config: Config) -> (Worker, StatusHandle) {
        let status = StatusHandle::default();
        let rng = Rng::new(deps.seed);
        (Worker { deps, config, status: status.clone(), rng, at_start: true }, status)
    }

    /// Runs until it is told to stop, is fenced, or needs a person. After `stop` everything that was read is appended,
    /// cut, checkpointed and confirmed before this returns. Dropping the future is a crash: safe at every point.
    pub async fn run(mut self, mut stop: Stopped) -> End {
        let mut backoff = Backoff::new(self.config.limits.retry_base_ms, self.config.limits.retry_cap_ms);
        loop {
            let rows_before = self.status.get().rows;
            // Boxed: what holds a worker would be as large as its loop else.
            let trouble = match Box::pin(self.attempt(stop.clone())).await {
                Ok(()) => Trouble::Stop,
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Stop => {
                    self.status.update(|s| s.state = State::Stopped);
                    return End::Stopped;
                }
                Trouble::Complete => {
                    self.status.update(|s| {
                        (s.state, s.last_error, s.slot) = (State::Complete, None, None);
                        (s.lag_bytes, s.behind_since) = (None, None);
                    });
                    log!(
                        Info,
                        "source.complete",
                        "source {}: its snapshot is whole, and no change follows",
                        self.config.source
                    );
                    rest(self.status.clone(), &mut stop).await;
                    self.status.update(|s| s.state = State::Stopped);
                    return End::Stopped;
                }
                Trouble::End(end) => {
                    self.status.update(|s| match &end {
                        End::Failed { code, what, .. } => {
                            s.state = State::NeedsPerson;
                            s.last_error = Some((*code, what.clone()));
                        }
                        _ => s.state = State::Stopped,
                    });
                    return end;
                }
                Trouble::Retry { code, what } => {
                    if self.status.get().rows > rows_before {
                        backoff.reset();
                    }
                    self.status.update(|s| {
                        s.state = State::Retrying;
                        s.restarts += 1;
                        s.last_error = Some((code, what));
                    });
                    let pause = Duration::from_millis(backoff.next_ms(&mut self.rng));
                    if time::timeout(pause, stop.wait()).await.is_ok() {
                        self.status.update(|s| s.state = State::Stopped);
                        return End::Stopped;
                    }
                }
            }
        }
    }

    async fn attempt(&mut self, stop: Stopped) -> Result<(), Trouble> {
        let log = self.deps.log.clone();
        let mut source = (self.deps.make_source)();
        let begun = start::begin(self, &*log, stop, &mut *source).await;
        let outcome = match begun {
            Ok(mut begun) => {
                let worked = stream::work(&mut begun, &mut *source).await;
                self.at_start &= begun.reads_again;
                // What is in flight keeps its place in the log; the next attempt must not race with it.
                let settled = begun.session.settle().await;
                worked.and(settled)
            }
            Err(trouble) => Err(trouble),
        };
        source.close().await;
        match outcome {
            Err(Trouble::Complete) => self.give_back().await,
            other => other,
        }
    }

    /// Nothing will be read any more: what the source keeps for us goes, and is looked for at each start that finds the
    /// capture complete, should it not have come to that.
    async fn give_back(&mut self) -> Result<(), Trouble> {
        let Some((identity, opened)) = self.status.get().identity else { return Err(Trouble::Complete) };
        let mut source = (self.deps.make_source)();
        let gone = time::timeout(GIVE_BACK_LIMIT, source.detach(&identity, opened)).await;
        source.close().await;
        match gone {
            Ok(done) => done?,
            Err(_) => return Err(Trouble::retry(code::LOG, "the source does not answer")),
        }
        Err(Trouble::Complete)
    }
}

/// Nothing is left to be done. Until it is told to stop.
async fn rest(status: StatusHandle, stop: &mut Stopped) {
    loop {
        for asked in status.take_asked() {
            let why = "the source is complete: snapshot.mode is initial_only, and its snapshot is whole";
            let _ = asked.answer.send(Err(SignalError::Wrong(why.into())));
        }
        let (mut stopped, mut asked) = (pin!(stop.wait()), pin!(status.asked()));
        let is_over = poll_fn(|cx| match (stopped.as_mut().poll(cx), asked.as_mut().poll(cx)) {
            (Poll::Ready(()), _) => Poll::Ready(true),
            (_, Poll::Ready(())) => Poll::Ready(false),
            _ => Poll::Pending,
        });
        if is_over.await {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
