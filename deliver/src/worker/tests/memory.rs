//! What a sink holds and asks of a log whose batches are a fraction of what they grow to.

use super::*;
use catchwater_client::{At, Bounds, Fetch, Fetched, Tail};
use catchwater_record::GroupName;
use catchwater_record::batch::{BatchView, Codec};
use catchwater_record::compress::{self, SnappyFraming};
use catchwater_runtime::Fut;
use std::sync::atomic::{AtomicU64, Ordering};

/// A log that counts the bytes it gives of one partition.
struct Counting {
    log: Arc<MemoryClient>,
    of: TopicPartition,
    given: Arc<AtomicU64>,
}

impl LogClient for Counting {
    fn append(&self, to: TopicPartition, batch: Bytes, how: Append) -> Fut<'_, AppendOutcome> {
        self.log.append(to, batch, how)
    }
    fn fetch(&self, want: Fetch) -> Fut<'_, Result<Vec<Fetched>, LogError>> {
        Box::pin(async move {
            let fetched = self.log.fetch(want).await?;
            for f in fetched.iter().filter(|f| f.at == self.of) {
                self.given.fetch_add(f.batches.as_ref().map_or(0, |b| b.len() as u64), Ordering::Relaxed);
            }
            Ok(fetched)
        })
    }
    fn bounds(&self, of: Vec<TopicPartition>, at: At) -> Fut<'_, Result<Vec<Bounds>, LogError>> {
        self.log.bounds(of, at)
    }
    fn committed(&self, group: GroupName, of: Vec<TopicPartition>) -> Fut<'_, Result<Vec<Option<Offset>>, LogError>> {
        self.log.committed(group, of)
    }
    fn commit(&self, group: GroupName, offsets: Vec<(TopicPartition, Offset)>) -> Fut<'_, Result<(), LogError>> {
        self.log.commit(group, offsets)
    }
    fn open_capture(&self, capture: CaptureId, epoch: CaptureEpoch) -> Fut<'_, Result<Vec<Tail>, LogError>> {
        self.log.open_capture(capture, epoch)
    }
    fn last_positions(&self, capture: CaptureId, of: Vec<TopicPartition>) -> Fut<'_, Result<Vec<Tail>, LogError>> {
        self.log.last_positions(capture, of)
    }
}

/// Eighty transactions of 200 rows, each a batch; what they take in the log, and decompressed.
async fn fill(source: &mut TestSource) -> (u64, u64) {
    let (mut stored, mut grown) = (0, 0);
    let (no, topic, _) = source.tables["t"];
    let at = TopicPartition::new(topic, 0);
    for _ in 0..80 {
        source.begin();
        let mut batch = Builder::new();
        for i in 0..200 {
            let change = RowChange {
                table: source.schemas[&no].clone(),
                op: Op::Create,
                before: None,
                after: Some(Row::new(vec![Cell::Value(Value::Int(source.seq as i64 * 1000 + i))])),
                snapshot: SnapshotMark::No,
                info: SourceInfo::None,
            };
            let version = Version { incarnation: Incarnation(0), commit_seq: CommitSeq(source.seq), ordinal: i as u64 };
            let stamp = Stamp {
                op: b'c',
                flags: 0,
                version,
                total: 0,
                source: CAPTURE,
                commit_time: Wall::from_micros(1),
                schema_no: no,
                native: Native::sqlite(source.seq),
                txn: None,
            };
            let piece = source.encoder.pieces(&change)[0];
            let e = source.encoder.encode(&change, piece, stamp, Wall::from_micros(0)).unwrap();
            let headers = e.headers.iter().map(|(k, v)| (&k[..], v.as_deref()));
            batch.push(1000, e.key.as_deref(), e.value.as_deref(), headers);
        }
        let plain = batch.finish().freeze();
        let small =
            compress::compress_batch(&BatchView::new(&plain).unwrap(), Codec::Zstd, SnappyFraming::Xerial).unwrap();
        (stored, grown) = (stored + small.len() as u64, grown + plain.len() as u64);
        let how = Append { context: AppendContext::None, acks: Acks::All, timeout_ms: 1000 };
        let AppendOutcome::Appended { end, .. } = source.client.append(at, small.freeze(), how).await else {
            panic!("not appended")
        };
        source.ends.insert(at, end);
        source.cut(false).await;
    }
    (stored, grown)
}

#[tokio::test(start_paused = true)]
async fn of_a_compressed_log_no_more_is_asked_than_there_is_room_for_when_it_has_grown() {
    let cluster = MemoryCluster::new(9);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id"], &["id"], 1).await;
    let (stored, grown) = fill(&mut source).await;
    assert!(grown > 8 * stored && grown > 5 << 20, "{grown} of {stored}");
    let given = Arc::new(AtomicU64::new(0));
    let mut deps = deps(&cluster, &target);
    let of = TopicPartition::new(source.tables["t"].1, 0);
    deps.log = Arc::new(Counting { log: cluster.client(), of, given: given.clone() });
    let mut c = config(1);
    c.credit_bytes = 256 << 10;
    let room = c.credit_bytes + (5 << 18) + (grown / 80) as usize;
    let (end, status) = run_until(deps, c, |s| {
        assert!(s.bytes <= room, "{} of {room} bytes are held", s.bytes);
        s.rows == 16_000
    })
    .await;
    assert_eq!((end, status.rows), (End::Stopped, 16_000));
    let given = given.load(Ordering::Relaxed);
    assert!(
        (stored..2 * stored).contains(&given),
        "{given} bytes were read of a log of {stored}, {grown} decompressed"
    );
}
