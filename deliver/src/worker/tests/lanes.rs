//! Groups that do not meet are open at the same time and become visible one after the other; groups that meet are not.

use super::*;

/// Commits `count` transactions, each of one row of `id(n)`, slowly, in groups of one. What the target showed: the number
/// of rows and the highest `a` at each commit, and the most lanes at once.
async fn deliver(lanes: usize, count: i64, id: impl Fn(i64) -> i64) -> (Vec<u64>, usize, crate::Status) {
    let cluster = MemoryCluster::new(9);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    target.slow(20);
    let marks: Arc<Mutex<Vec<u64>>> = Arc::default();
    let seen = marks.clone();
    target.on_commit(Box::new(move |tables, mark| {
        let at = mark.seq.0 as i64;
        let highest = rows(&tables[&name("t")], &["a"]).iter().map(|r| r[0]).max();
        assert_eq!(highest, Some(at), "a commit shows its own transaction and nothing after it");
        seen.lock().unwrap().push(mark.seq.0);
    }));
    source.table("t", &["id", "a"], &["id"], 2).await;
    for n in 1..=count {
        source.begin();
        source.row("t", Op::Update, None, Some(&[id(n), n])).await;
    }
    source.cut(true).await;
    let mut c = config(1);
    c.batch.rows = 1;
    c.lanes = lanes;
    let (end, status) = run_until(deps(&cluster, &target), c, |s| s.rows == count as u64).await;
    assert_eq!(end, End::Stopped);
    let marks = marks.lock().unwrap().clone();
    (marks, target.lanes_at_once(), status)
}

#[tokio::test(start_paused = true)]
async fn groups_that_do_not_meet_overlap_and_commit_in_order() {
    let (marks, at_once, status) = deliver(4, 60, |n| n).await;
    assert_eq!(marks, (1..=60).collect::<Vec<_>>());
    assert_eq!((at_once, status.reorders), (4, 0));
    let (marks, at_once, _) = deliver(1, 20, |n| n).await;
    assert_eq!((marks.len(), at_once), (20, 1));
}

#[tokio::test(start_paused = true)]
async fn groups_that_meet_wait_for_each_other() {
    // The target fails if two open transactions write one key.
    let (marks, at_once, status) = deliver(4, 40, |_| 7).await;
    assert_eq!((marks.len(), at_once, status.reorders), (40, 1, 0));
    let (marks, at_once, _) = deliver(4, 60, |n| n % 3).await;
    assert_eq!(marks.len(), 60);
    assert_eq!(at_once, 3);
}

#[tokio::test(start_paused = true)]
async fn what_write_sets_do_not_see_is_run_again_alone() {
    let cluster = MemoryCluster::new(10);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    target.slow(20);
    source.table("t", &["id", "a"], &["id"], 1).await;
    for n in 1..=30 {
        source.begin();
        source.row("t", Op::Update, None, Some(&[n, n])).await;
    }
    source.cut(true).await;
    // A group is refused once, as one is that needs the end of another which is not committed.
    let mut writes = 0;
    target.on_call(Some(Box::new(move |call| {
        writes += u32::from(call == crate::testing::Call::Write);
        (call == crate::testing::Call::Write && writes == 7).then_some(Fault::Fail(SinkClass::Row))
    })));
    let mut c = config(1);
    c.batch.rows = 1;
    let (end, status) = run_until(deps(&cluster, &target), c, |s| s.rows == 30).await;
    assert_eq!((end, status.rows, status.reorders), (End::Stopped, 30, 1));
    assert_eq!(rows(&target.table(&name("t")), &["a"]).len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_asks_for_a_few_megabytes_of_a_partition_whatever_the_credit() {
    let (cluster, target) = (MemoryCluster::new(11), MemoryTarget::new());
    let mut source = TestSource::new(&cluster).await;
    source.table("t", &["id"], &["id"], 2).await;
    source.begin();
    for id in 0..20 {
        source.row("t", Op::Create, None, Some(&[id])).await;
    }
    source.cut(true).await;
    let (_, status) = run_until(deps(&cluster, &target), config(1), |s| s.rows == 20).await;
    assert_eq!(status.rows, 20);
    let topics = cluster.topics();
    let (_, topic, partitions) = topics.iter().find(|(name, ..)| !name.as_str().starts_with("__")).unwrap();
    for partition in 0..*partitions {
        assert_eq!(cluster.asked_max(TopicPartition::new(*topic, partition)), 4 << 20);
    }
}
