//! What the log knows of a source when an attempt begins: its records in `__catchwater_captures` (R9), the stamps above the
//! checkpoint (R3), the keys of a table.

use super::*;

/// Bytes a fetch may bring.
const FETCH_BYTES: u32 = 4 * 1024 * 1024;
/// A batch of ours never decompresses to more.
const SECTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a source's partition of `__catchwater_captures` says.
#[derive(Default)]
pub(in crate::worker) struct History {
    pub checkpoint: Option<Checkpoint>,
    pub configs: BTreeMap<u32, StoredConfig>,
    pub chunks: BTreeMap<(u32, u32, u32), ChunkRecord>,
    pub tables: Vec<TableRecord>,
    pub identity: Option<IdentityRecord>,
    /// Up to where the signal topic was taken.
    pub signals: Vec<(TopicPartition, Offset)>,
}

pub(in crate::worker) async fn read_history(
    log: &dyn LogClient,
    config: &Config,
    at: TopicPartition,
    end: Offset,
) -> Result<History, Trouble> {
    let mut history = History::default();
    let mut damaged = None;
    read_all(log, at, Offset::ZERO, end, |_, record| {
        let (Some(key), Some(value)) = (record.key, record.value) else { return };
        let (source, key) = match StoredKey::decode(key) {
            Ok(found) => found,
            Err(e) => {
                damaged.get_or_insert(e);
                return;
            }
        };
        if source != config.capture {
            return;
        }
        let stored = match Stored::decode(key, value) {
            Ok(stored) => stored,
            Err(e) => {
                damaged.get_or_insert(e);
                return;
            }
        };
        match (key, stored) {
            (_, Stored::Checkpoint(c)) if c.incarnation == config.incarnation => history.checkpoint = Some(c),
            (StoredKey::Config { version }, Stored::Config(c)) => drop(history.configs.insert(version, c)),
            (StoredKey::Chunk { snapshot, table, unit }, Stored::Chunk(c)) if c.incarnation == config.incarnation => {
                history.chunks.insert((snapshot, table, unit), c);
            }
            (_, Stored::Table(t)) => history.tables.push(t),
            (_, Stored::Signals(s)) if s.incarnation == config.incarnation => history.signals = s.next,
            (_, Stored::Identity(i)) if i.incarnation == config.incarnation => history.identity = Some(i),
            _ => {}
        }
    })
    .await?;
    match damaged {
        Some(e) => Err(Trouble::fail(code::STORED, format!("a record of {CAPTURES_TOPIC} cannot be read: {e}"), "")),
        None => Ok(history),
    }
}

/// R9: no checkpoint, but rows: the newest cut says as much.
pub(in crate::worker) async fn checkpoint_of_cut(
    log: &dyn LogClient,
    config: &Config,
    at: TopicPartition,
    end: Offset,
) -> Result<Checkpoint, Trouble> {
    let mut newest: Option<Cut> = None;
    read_all(log, at, Offset::ZERO, end, |_, record| {
        if record.key.and_then(Cut::source) != Some(config.capture) {
            return;
        }
        let Some(Ok(cut)) = record.value.map(Cut::decode) else { return };
        if cut.incarnation == config.incarnation {
            newest = Some(cut);
        }
    })
    .await?;
    let cut = newest.ok_or_else(|| {
        Trouble::fail(
            code::NO_CHECKPOINT,
            format!("the log holds rows of source {} but neither a checkpoint nor a cut", config.source),
            "compare by hand; the source must be read again",
        )
    })?;
    Ok(Checkpoint {
        incarnation: config.incarnation,
        commit_seq: cut.commit_seq,
        native: bytes::Bytes::copy_from_slice(cut.native.as_bytes()),
        config_version: 0,
        emit_version: EMIT_VERSION,
        commit_time: cut.commit_time,
        // A cut's ends may lie behind later units: the stamps are read from the beginning.
        ends: Vec::new(),
    })
}

/// R3: the replay map, from the stamps above the checkpoint.
pub(in crate::worker) async fn read_above(
    log: &dyn LogClient,
    config: &Config,
    checkpoint: &Checkpoint,
    rows: &[&Tail],
    history: &History,
) -> Result<Found, Trouble> {
    let mut found = Found::default();
    // The record of a whole table names the number at which it was complete, which need not be a unit's.
    let units = history.chunks.iter().filter(|((.., unit), c)| *unit != WHOLE_TABLE && c.commit_seq.0 > 0);
    for (_, chunk) in units {
        found.chunks.insert(chunk.commit_seq);
    }
    let ends: BTreeMap<TopicPartition, Offset> = checkpoint.ends.iter().copied().collect();
    for tail in rows {
        let above = Version::of(&tail.last).is_some_and(|(v, _)| v.commit_seq > checkpoint.commit_seq);
        if !above {
            continue;
        }
        let from = ends.get(&tail.at).copied().unwrap_or(Offset::ZERO);
        read_all(log, tail.at, from, tail.end, |_, record| {
            let Some(Ok(stamp)) = debezium_json::stamp(record.headers()) else { return };
            if stamp.source != config.capture
                || stamp.version.incarnation != config.incarnation
                || stamp.version.commit_seq <= checkpoint.commit_seq
            {
                return;
            }
            if stamp.flags & flag::SNAPSHOT != 0 {
                found.chunks.insert(stamp.version.commit_seq);
            } else {
                learn_unit(&mut found, &stamp);
            }
        })
        .await?;
    }
    Ok(found)
}

fn learn_unit(found: &mut Found, stamp: &Stamp) {
    let native = Some(stamp.native.clone()).filter(|n| !n.is_empty());
    let id = stamp
        .txn
        .clone()
        .unwrap_or_else(|| catchwater_record::TxnId(bytes::Bytes::copy_from_slice(stamp.native.as_bytes())));
    let unit = found.units.entry(stamp.version.commit_seq).or_insert((id, None));
    if native.is_some() {
        unit.1 = native;
    }
}

/// Keys of a table's topic that are in the log: what a chunk must not bring again (capture.md 7.5).
pub(in crate::worker) async fn read_keys(
    begun: &mut Begun<'_>,
    log: &dyn LogClient,
    table: &TableSchema,
    partitions: u32,
) -> Result<(), Trouble> {
    let capture = begun.session.config.capture;
    for partition in 0..partitions {
        let at = TopicPartition::new(table.topic, partition);
        let Some(end) = begun.tails.get(&at).map(|t| t.end) else { continue };
        let (backfill, table_no) = (&mut begun.backfill, table.table_no);
        let mut full = false;
        read_all(log, at, Offset::ZERO, end, |_, record| {
            let Some(Ok(stamp)) = debezium_json::stamp(record.headers()) else { return };
            let Some(key) = record.key else { return };
            if stamp.source == capture {
                let whole = stamp.flags & flag::INCOMPLETE == 0;
                // PostgreSQL's transaction ids are numbers, and a view is asked by them.
                let id = stamp.txn.as_ref().and_then(|t| std::str::from_utf8(&t.0).ok()?.parse::<u64>().ok());
                let when = match id {
                    Some(xid) => When::Now { xid: Some(xid), native: stamp.native },
                    None => When::Earlier,
                };
                full |= backfill.emitted(table_no, key, whole, when).is_err();
            }
        })
        .await?;
        if full {
            return Err(Trouble::fail(code::CONTRACT, crate::backfill::TooMany.to_string(), "begin the source again"));
        }
    }
    Ok(())
}

/// Gives every record of `from..end` to `each`.
pub(in crate::worker) async fn read_all(
    log: &dyn LogClient,
    at: TopicPartition,
    from: Offset,
    end: Offset,
    mut each: impl FnMut(Offset, &iterate::RecordView<'_>) + Send,
) -> Result<(), Trouble> {
    let mut offset = from;
    while offset < end {
        let want = Fetch {
            parts: vec![FetchPart { at, offset, max_bytes: FETCH_BYTES }],
            isolation: Isolation::Uncommitted,
            min_bytes: 1,
            max_wait_ms: 1000,
            credit_bytes: FETCH_BYTES,
        };
        let fetched = log.fetch(want).await.map_err(log_trouble)?;
        let Some(part) = fetched.into_iter().next() else {
            return Err(Trouble::retry(code::LOG, "a fetch without an answer"));
        };
        let bytes = match part.batches {
            Ok(bytes) => bytes,
            // Retention took the beginning; what is gone says nothing about now.
            Err(PartitionError::OutOfRange) if offset < part.bounds.log_start => {
                offset = part.bounds.log_start;
                continue;
            }
            Err(e) => return Err(Trouble::retry(code::LOG, format!("fetch: {e}"))),
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (view, tail) = BatchView::split(rest)
                .map_err(|e| Trouble::fail(code::STORED, format!("a batch of the log is damaged: {e}"), ""))?;
            rest = tail;
            let next = view.offset().plus(u64::from(view.offset_count()));
            if next <= offset {
                continue;
            }
            let section = compress::section(&view, SECTION_BYTES_MAX)
                .map_err(|e| Trouble::fail(code::STORED, format!("a batch of the log cannot be opened: {e}"), ""))?;
            for record in iterate::records(&section, view.records_count().max(0) as u32) {
                let record = record
                    .map_err(|e| Trouble::fail(code::STORED, format!("a record of the log is damaged: {e}"), ""))?;
                let here = view.offset().plus(u64::from(record.offset_delta.max(0) as u32));
                if here >= offset && here < end {
                    each(here, &record);
                }
            }
            offset = next;
        }
    }
    Ok(())
}
