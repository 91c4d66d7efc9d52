//! What a sink would make of changes, without log, source and database: the same code as the worker's, into a target in
//! memory. For tests that a pipeline file holds.

use crate::batch::{Batch, BatchLimits};
use crate::error::{Failure, code};
use crate::evolve;
use crate::mode::{At, Mode};
use crate::plan::{self, Claimed};
use crate::sink::{Claim, Mark, Sink, SinkClass, SinkError, TargetName, TargetPlan};
use crate::testing::{MemorySink, MemoryTarget, Table};
use crate::worker::Config;
use catchwater_base::{Mono, Wall};
use catchwater_change::{Native, RowChange, TableSchema, Version};
use catchwater_record::{CommitSeq, Incarnation};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Changes of a trial are that far apart at the source: one a second from 2026-01-01 on.
const FIRST: i64 = 1_767_225_600_000_000;
const STEP: i64 = 1_000_000;

/// One sink. Each change is a transaction; all of them become one group.
pub struct Trial {
    config: Config,
    target: MemoryTarget,
    sink: MemorySink,
    /// By the table's qualified name.
    plans: BTreeMap<String, Arc<TargetPlan>>,
    claimed: Claimed,
    batch: Batch,
    seq: u64,
}

impl Trial {
    /// # Errors
    /// None that a target in memory has; the signature is the sink's.
    pub async fn new(config: Config) -> Result<Trial, Failure> {
        let target = MemoryTarget::new();
        let mut sink = target.sink();
        let claim = Claim {
            pipeline: config.pipeline.clone(),
            sink: config.sink.clone(),
            source: config.source.clone(),
            cluster: config.cluster,
            fence: 1,
            incarnation: config.incarnation,
        };
        sink.open(claim).await?;
        let limits = BatchLimits { rows: usize::MAX, bytes: usize::MAX, linger_ms: 0 };
        let (plans, claimed) = (BTreeMap::new(), Claimed::default());
        Ok(Trial { config, target, sink, plans, claimed, batch: Batch::new(limits), seq: 0 })
    }

    /// Makes the target of a table. `None` = the sink does not take it.
    ///
    /// # Errors
    /// What would stop the sink: a mode or a choice of columns that the table cannot have, a shared target.
    pub async fn table(&mut self, table: &Arc<TableSchema>) -> Result<Option<TargetName>, Failure> {
        if !self.config.tables.takes(table) {
            return Ok(None);
        }
        let name = self.config.target(table);
        if self.plans.contains_key(&table.qualified()) {
            return Ok(Some(name));
        }
        self.claimed.claim(&name, table)?;
        let keyed = self.config.mode != Mode::Append;
        let shaped = self.config.columns(&table.qualified()).shape(table, keyed, |_| false)?;
        let shape = self.config.mode.shape(&shaped.schema)?;
        for step in evolve::steps(&shape, &name, None, evolve::OnSchemaChange::Additive, &shaped.types)? {
            self.sink.apply_ddl(&step).await?;
        }
        let found = self.sink.describe(std::slice::from_ref(&name)).await?;
        if let Some(Some(target)) = found.first() {
            self.plans.insert(table.qualified(), Arc::new(plan::plan(&shape, target)?));
        }
        Ok(Some(name))
    }

    /// One change, in its turn. False = the sink leaves it out.
    ///
    /// # Errors
    /// As [`Trial::table`]; and a change without the row that it needs.
    pub async fn change(&mut self, change: RowChange) -> Result<bool, Failure> {
        self.table(&change.table).await?;
        let Some(plan) = self.plans.get(&change.table.qualified()).cloned() else { return Ok(false) };
        self.seq += 1;
        let seq = CommitSeq(self.seq);
        let version = Version { incarnation: Incarnation(1), commit_seq: seq, ordinal: 0 };
        let applies = self.config.applies(change, &plan, At { version, commit_time: self.time() })?;
        let taken = !applies.is_empty();
        self.batch.push(Mono::ZERO, seq, 0, applies);
        self.batch.end_txn(seq);
        Ok(taken)
    }

    fn time(&self) -> Wall {
        Wall::from_micros(FIRST + STEP * i64::try_from(self.seq).unwrap_or(0))
    }

    /// Writes everything; then [`Trial::rows`] shows it.
    ///
    /// # Errors
    /// What the target refuses, as a row to be changed that is not there.
    pub async fn finish(&mut self) -> Result<(), Failure> {
        let group = self.batch.take(false).group;
        let mut lane = self.sink.lane().await?;
        let refused = |e: SinkError| match e.class {
            // A target in memory has no constraints: what it refuses is this.
            SinkClass::Row => Failure::new(
                code::NO_ROW,
                "a change needs a row that is not in the target",
                "give the row before it is changed, or all columns of the change",
            ),
            _ => e.into(),
        };
        lane.write(&group).await.map_err(refused)?;
        let mark = Mark {
            incarnation: Incarnation(1),
            seq: CommitSeq(self.seq),
            offsets: Vec::new(),
            native: Native::default(),
            commit_time: self.time(),
        };
        lane.commit(&mark).await.map(|_| ()).map_err(refused)
    }

    /// A table of the target as it is now.
    pub fn rows(&self, name: &TargetName) -> Table {
        self.target.table(name)
    }
}
