//! One table of one signal on its way: what it has read, what it waits for, and how a chunk comes to stand in the log.

use super::*;

/// A chunk whose view is too old, or whose reader failed, is tried again after this; doubled for readers, up to the second.
pub(super) const AGAIN_MS: u64 = 200;
pub(super) const AGAIN_MS_MAX: u64 = 30_000;

/// One table of one signal.
pub(super) struct Job {
    pub(super) snapshot: u32,
    pub(super) table_no: u32,
    pub(super) name: String,
    pub(super) filter: String,
    pub(super) rows_per_second: u64,
    pub(super) blocking: bool,
    /// The transaction that asked for it; 0 = none did.
    pub(super) seq: CommitSeq,
    pub(super) paused: bool,
    pub(super) cursor: Vec<String>,
    pub(super) rows: u64,
    pub(super) estimate: u64,
    pub(super) unit: u32,
    pub(super) chunks: u64,
    /// When this worker began with it, and how many rows it had then.
    pub(super) since: Option<(Mono, u64)>,
    pub(super) reader: Option<Reader>,
    /// The reader owes an answer.
    pub(super) busy: bool,
    pub(super) told: Option<Told>,
    pub(super) ready: Option<(Vec<RowChange>, StretchEnd)>,
    pub(super) not_before: Mono,
    pub(super) failures: u32,
    /// How often the stream had described the table when its reader looked at it.
    pub(super) described: u64,
    /// Keys that a chunk brought before the crash.
    pub(super) known: Map<u128, ()>,
    /// Keys to be read once more (see `moved`), and how many of them the reader was asked for.
    pub(super) again: Vec<Vec<Value>>,
    pub(super) asked: usize,
    /// The signal's.
    pub(super) id: Option<String>,
    /// Its greatest key when this worker began with it, if that is told.
    pub(super) maximum: Vec<String>,
    /// A blocking one's beginning was told.
    pub(super) told_of: bool,
    /// Why it is not read to its end.
    pub(super) failed: Option<Ended>,
}

/// What became of a stretch.
pub(super) enum Placed {
    On,
    /// There was nothing behind the one before.
    End,
    /// Its view is too old.
    Again,
}

impl Job {
    pub(super) fn new(snapshot: u32, table_no: u32, name: String, filter: String) -> Job {
        Job {
            snapshot,
            table_no,
            name,
            filter,
            rows_per_second: 0,
            blocking: false,
            seq: CommitSeq(0),
            paused: false,
            cursor: Vec::new(),
            rows: 0,
            estimate: 0,
            unit: 0,
            chunks: 0,
            since: None,
            reader: None,
            busy: false,
            told: None,
            ready: None,
            not_before: Mono::ZERO,
            failures: 0,
            described: 0,
            known: Map::default(),
            again: Vec::new(),
            asked: 0,
            id: None,
            maximum: Vec::new(),
            told_of: false,
            failed: None,
        }
    }

    pub(super) fn restored(snapshot: u32, table_no: u32, record: &ChunkRecord) -> Job {
        let mut job = Job::new(snapshot, table_no, String::new(), record.filter.clone());
        let asked = record.upper.first().map_or(&b""[..], |t| t.as_bytes());
        if let Ok(node) = json::parse(asked) {
            job.rows_per_second = node.get("rows-per-second").and_then(Node::as_u64).unwrap_or(0);
            job.blocking = node.get("blocking").is_some_and(|b| matches!(b, Node::Bool(true)));
            job.id = node.get("id").and_then(Node::as_str).map(str::to_owned);
        }
        job.seq = record.commit_seq;
        job.paused = record.flags & chunk_flag::PAUSED != 0;
        job.cursor.clone_from(&record.lower);
        job.rows = record.rows;
        job
    }

    /// After a crash: which keys chunks above the cursor brought. Their units' numbers stay taken.
    pub(super) async fn learn(&mut self, begun: &mut Begun<'_>) -> Result<(), Trouble> {
        let mut given_up = Vec::new();
        let mut taken = BTreeSet::new();
        for ((snapshot, table, unit), chunk) in &begun.history.chunks {
            if (*snapshot, *table) != (self.snapshot, self.table_no) || *unit == WHOLE_TABLE {
                continue;
            }
            self.unit = self.unit.max(unit + 1);
            // Given up by a worker that was killed before the cursor had passed what this unit brought.
            if matches!(chunk.phase, ChunkPhase::Open | ChunkPhase::GivenUp) {
                taken.insert(chunk.commit_seq);
            }
            if chunk.phase == ChunkPhase::Open {
                let key = StoredKey::Chunk { snapshot: *snapshot, table: *table, unit: *unit };
                given_up.push((key, Stored::Chunk(ChunkRecord { phase: ChunkPhase::GivenUp, ..chunk.clone() })));
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        let Some(numbered) = begun.numbered.values().find(|n| n.table.table_no == self.table_no) else { return Ok(()) };
        let capture = begun.session.config.capture;
        for partition in 0..numbered.partitions {
            let at = TopicPartition::new(numbered.table.topic, partition);
            let Some(end) = begun.tails.get(&at).map(|t| t.end) else { continue };
            // Above the checkpoint, unless a later worker has made one above a unit that was given up.
            let checkpoint = begun.history.checkpoint.as_ref();
            let checkpoint = checkpoint.filter(|c| taken.first().is_some_and(|seq| *seq > c.commit_seq));
            let ends = checkpoint.iter().flat_map(|c| &c.ends);
            let from = ends.clone().find(|(a, _)| *a == at).map_or(Offset::ZERO, |(_, end)| *end);
            let known = &mut self.known;
            read_all(begun.session.log(), at, from, end, |_, record| {
                let Some(Ok(stamp)) = debezium_json::stamp(record.headers()) else { return };
                if stamp.source == capture && taken.contains(&stamp.version.commit_seq) {
                    known.extend(record.key.map(|key| (xxh3_128(key), ())));
                }
            })
            .await?;
        }
        begun.session.store(given_up);
        Ok(())
    }

    pub(super) fn key(&self) -> StoredKey {
        StoredKey::Chunk { snapshot: self.snapshot, table: self.table_no, unit: WHOLE_TABLE }
    }

    pub(super) fn stored(&self, begun: &Begun<'_>, phase: ChunkPhase) -> Stored {
        let mut asked = format!("{{\"rows-per-second\":{},\"blocking\":{}", self.rows_per_second, self.blocking);
        if let Some(id) = &self.id {
            let mut text = Vec::new();
            json::put_string(&mut text, id);
            asked += &format!(",\"id\":{}", String::from_utf8_lossy(&text));
        }
        asked.push('}');
        Stored::Chunk(ChunkRecord {
            method: 1,
            flags: chunk_flag::AD_HOC | if self.paused { chunk_flag::PAUSED } else { 0 },
            rows: self.rows,
            lower: self.cursor.clone(),
            upper: self.stored_moved(begun, asked),
            filter: self.filter.clone(),
            ..whole_table(&begun.session.config, phase, 0, self.seq)
        })
    }

    /// A table that came late, to be read from its beginning.
    pub(super) fn is_late(&self) -> bool {
        self.id.as_deref() == Some(super::late::ID)
    }

    /// For good; what waits to be told of its progress would come behind it.
    pub(super) fn give_up(&self, begun: &mut Begun<'_>) {
        let key = self.key();
        begun.session.finished.retain(|(_, k, _)| *k != key);
        begun.session.store([(key, self.stored(begun, ChunkPhase::GivenUp))]);
    }

    /// Time alone keeps it from being read.
    pub(super) fn waits(&self) -> bool {
        !self.paused && !self.busy && self.ready.is_none() && self.told.is_none()
    }

    pub(super) fn described_by(&self, begun: &Begun<'_>) -> u64 {
        begun.described.get(&self.table_no).copied().unwrap_or(0)
    }

    pub(super) fn let_go(&mut self) {
        self.reader = None;
        self.busy = false;
        self.told = None;
        self.ready = None;
        self.asked = 0;
    }

    pub(super) fn stretch(&self, begun: &Begun<'_>) -> Option<Stretch> {
        let table = newest(begun, self.table_no)?;
        let rows_max = begun.session.config.signals.chunk_rows;
        let (after, filter) = (self.cursor.clone(), self.filter.clone());
        let to_maximum = !self.blocking && begun.session.config.notifications.is_any();
        Some(Stretch { table, after, filter, rows_max, keys: Vec::new(), hold: false, to_maximum })
    }

    pub(super) fn ask_next(&mut self, begun: &Begun<'_>) {
        let now = begun.session.now().mono;
        if self.paused || self.busy || self.ready.is_some() || now < self.not_before {
            return;
        }
        if let (Some(reader), Some(mut of)) = (&self.reader, self.stretch(begun)) {
            of.keys.clone_from(&self.again);
            self.asked = of.keys.len();
            reader.ask(Ask::Stretch(Box::new(of)));
            self.busy = true;
        }
    }

    /// True if it is at its end, or given up.
    pub(super) async fn go_on(
        &mut self,
        begun: &mut Begun<'_>,
        stream: &mut Stream,
        about: &About,
    ) -> Result<bool, Trouble> {
        let now = begun.session.now().mono;
        match self.told.take() {
            Some(Told::Expected(expected)) => {
                self.estimate = expected.rows;
                self.maximum = expected.maximum;
                self.failures = 0;
                self.since.get_or_insert((now, self.rows));
            }
            Some(Told::Stretch(rows, end)) => self.ready = Some((rows, end)),
            Some(Told::Failed(e)) if e.is_retry() => {
                self.let_go();
                let pause = (AGAIN_MS << self.failures.min(8)).min(AGAIN_MS_MAX);
                self.failures += 1;
                self.not_before = now.plus_millis(pause);
                return Ok(false);
            }
            Some(Told::Failed(e)) => {
                self.let_go();
                refuse(begun, &format!("the ad hoc snapshot of {} is given up: {} {}", self.name, e.code, e.what));
                self.failed = Some(Ended::SqlException);
                self.give_up(begun);
                return Ok(true);
            }
            Some(Told::Planned(_) | Told::Read(_) | Told::Bulk(..) | Told::LookedAt) | None => {}
        }
        if self.ready.as_ref().is_some_and(|(_, end)| may_place(&end.view, &stream.at))
            && let Some((rows, end)) = self.ready.take()
        {
            let marking = Marking { each: SnapshotMark::Incremental, first: None, last: None };
            if let Placed::End = self.place(begun, stream, rows, end, about, marking).await? {
                return Ok(true);
            }
        }
        // The first stretch waits for the answer to `Stretches`.
        if self.since.is_some() {
            self.ask_next(begun);
        }
        Ok(false)
    }

    pub(super) async fn place(
        &mut self,
        begun: &mut Begun<'_>,
        stream: &mut Stream,
        mut rows: Vec<RowChange>,
        end: StretchEnd,
        about: &About,
        marking: Marking,
    ) -> Result<Placed, Trouble> {
        let last = last_given(begun);
        let by_key = self.asked > 0;
        if end.upto.is_empty() && !by_key {
            if !self.again.is_empty() {
                return Ok(Placed::On); // those first; then whether there is something behind is asked again
            }
            if self.is_late() {
                self.seq = last; // from there on the log has all of it
            }
            begun.session.finished.push((last, self.key(), self.stored(begun, ChunkPhase::Finished)));
            return Ok(Placed::End);
        }
        if self.described != self.described_by(begun) {
            // The stream told of another shape since: these rows may be older than that, or were read by names of before.
            self.let_go();
            self.not_before = begun.session.now().mono.plus_millis(AGAIN_MS);
            return Ok(Placed::Again);
        }
        let given: Vec<Arc<TableSchema>> = rows.first().map(|r| r.table.clone()).into_iter().collect();
        // Their shape has the number that it has at this place of the stream.
        begun.ensure_tables(&given).await?;
        crash_point!("capture.before_window");
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            let key = begun.session.emitter.key(row);
            keys.push(key.map_err(|e| Trouble::fail(code::ENCODE, e.to_string(), ""))?);
        }
        let Verdict::Rows(keep) = begun.touched.decide(self.table_no, &keys, &end.view) else {
            // The same stretch, in a later view.
            self.not_before = begun.session.now().mono.plus_millis(AGAIN_MS);
            return Ok(Placed::Again);
        };
        crash_point!("capture.after_window");
        let read = rows.len() as u64;
        if !by_key {
            self.tell_chunk(begun, about, read, &end.upto);
        }
        let mut kept = keep.iter().zip(&keys).map(|(keep, key)| {
            *keep
                && key
                    .as_ref()
                    .is_none_or(|k| by_key || self.known.is_empty() || !self.known.contains_key(&xxh3_128(k)))
        });
        rows.retain(|_| kept.next().unwrap_or(true));
        drop(kept);
        for row in &mut rows {
            (row.op, row.before, row.snapshot) = (Op::Read, None, marking.each);
        }
        if let (Some(row), Some(mark)) = (rows.first_mut(), marking.first) {
            row.snapshot = mark;
        }
        if let (Some(row), Some(mark)) = (rows.last_mut(), marking.last) {
            row.snapshot = mark;
        }
        let lower = self.cursor.clone();
        if by_key {
            self.again.drain(..self.asked);
            self.asked = 0;
        } else {
            self.cursor.clone_from(&end.upto);
            self.rows += read;
            self.chunks += 1;
        }
        let mut at = last;
        if !rows.is_empty() {
            at = self.write(begun, stream, rows, lower, &end).await?;
        }
        begun.session.finished.push((at, self.key(), self.stored(begun, ChunkPhase::Open)));
        begun.session.status.update(|s| s.ad_hoc_chunks += u64::from(!by_key));
        if let Some(ms) = (read * 1000).checked_div(self.rows_per_second) {
            self.not_before = self.not_before.max(begun.session.now().mono).plus_millis(ms);
        }
        Ok(Placed::On)
    }

    /// Commits the CHUNK record, then appends the rows as one unit.
    pub(super) async fn write(
        &mut self,
        begun: &mut Begun<'_>,
        stream: &mut Stream,
        rows: Vec<RowChange>,
        lower: Vec<String>,
        end: &StretchEnd,
    ) -> Result<CommitSeq, Trouble> {
        let native = stream.at.clone();
        let seq = begun.resume.assign_chunk();
        let key = StoredKey::Chunk { snapshot: self.snapshot, table: self.table_no, unit: self.unit };
        let record = ChunkRecord {
            method: 1,
            flags: chunk_flag::AD_HOC,
            rows: rows.len() as u64,
            lower,
            upper: end.upto.clone(),
            view: encode_view(&end.view),
            ..whole_table(&begun.session.config, ChunkPhase::Open, 0, seq)
        };
        begun.session.store([(key, Stored::Chunk(record.clone()))]);
        begun.session.flush_stored().await?;
        crash_point!("capture.before_chunk");
        let commit_time = begun.session.now().wall;
        let txn = TxnId(Bytes::from(format!("chunk {}/{}/{}", self.snapshot, self.table_no, self.unit)));
        self.unit += 1;
        let unit = Unit { seq, native: Some(native.clone()), txn, commit_time, flags: flag::SNAPSHOT };
        stream.put_rows(begun, &unit, rows, 0, true, None, None).await?;
        crash_point!("capture.after_chunk");
        begun.session.track.completed(Mark { seq, native, commit_time });
        let finished = ChunkRecord { phase: ChunkPhase::Finished, ..record };
        begun.session.finished.push((seq, key, Stored::Chunk(finished)));
        Ok(seq)
    }

    pub(super) fn shown(&self, now: Mono, held: bool) -> Shown {
        let state = match (self.paused, held || self.reader.is_some()) {
            (true, _) => "paused",
            (_, true) => "running",
            _ => "waiting",
        };
        let eta_ms = self.since.filter(|_| !self.paused).and_then(|(at, had)| {
            let (ms, done) = (now.since(at).as_millis() as u64, self.rows.saturating_sub(had));
            self.estimate.saturating_sub(self.rows).checked_mul(ms)?.checked_div(done)
        });
        Shown {
            table: self.name.clone(),
            state,
            rows: self.rows,
            chunks: self.chunks,
            rows_estimate: self.estimate,
            eta_ms,
        }
    }
}
