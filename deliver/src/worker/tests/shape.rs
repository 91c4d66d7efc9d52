//! A column that somebody takes away from the target is never made again with NULLs in it; one that is new at the source,
//! or newly chosen, is.

use super::*;

/// The target's table as somebody left it.
fn columns_now(target: &MemoryTarget, of: &str, columns: &[&str]) {
    let mut shape = target.table(&name(of)).shape.unwrap();
    shape.columns.retain(|c| columns.contains(&c.name.as_str()));
    target.create(shape);
}

fn columns(target: &MemoryTarget, of: &str) -> Vec<String> {
    target.table(&name(of)).shape.unwrap().columns.iter().map(|c| c.name.clone()).collect()
}

fn is_gone(end: &End, words: &[&str]) {
    let End::Failed(f) = end else { panic!("{end:?}") };
    assert_eq!(f.code.0, code::COLUMN_GONE, "{f:?}");
    assert!(words.iter().all(|w| f.what.contains(w)) && f.next.contains("rebuild"), "{f:?}");
}

#[tokio::test(start_paused = true)]
async fn a_column_that_somebody_takes_away_stops_the_sink_with_the_next_row() {
    let cluster = MemoryCluster::new(31);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id", "a"], &["id"], 1).await;
    source.table("other", &["id"], &["id"], 1).await;
    source.begin();
    source.row("t", Op::Create, None, Some(&[1, 10])).await;
    source.cut(true).await;
    let (end, _) = run_until(deps(&cluster, &target), config(1), |s| s.rows == 1).await;
    assert_eq!(end, End::Stopped);
    // While no node runs, and of the first shape: nothing is noted, the log says it.
    columns_now(&target, "t", &["id"]);
    assert_eq!(target.mark("shop", "copy", "main").unwrap().shapes_taken().count(), 0);
    source.begin();
    source.row("other", Op::Create, None, Some(&[1])).await;
    source.cut(false).await;
    let (end, _) = run_until(deps(&cluster, &target), config(2), |s| s.rows == 1).await;
    assert_eq!(end, End::Stopped, "what has no rows stops nothing");
    source.begin();
    source.row("t", Op::Create, None, Some(&[2, 20])).await;
    source.cut(false).await;
    let (end, _) = run_until(deps(&cluster, &target), config(3), |_| false).await;
    is_gone(&end, &["column a of t"]);
    assert_eq!((columns(&target, "t"), target.commits()), (vec!["id".to_owned()], 2), "nothing was changed");
    // Made by hand, it is as good as it was.
    columns_now(&target, "t", &["id"]);
    let mut shape = target.table(&name("t")).shape.unwrap();
    shape.columns.push(table("", "t", &[("a", INT)], &[]).columns[0].clone());
    target.create(shape);
    let (end, _) = run_until(deps(&cluster, &target), config(4), |s| s.rows == 1).await;
    assert_eq!(end, End::Stopped);
    assert_eq!(rows(&target.table(&name("t")), &["id", "a"]), [[1, 10], [2, 20]]);
}

#[tokio::test(start_paused = true)]
async fn a_column_that_came_later_and_is_taken_away_is_missed_too() {
    let cluster = MemoryCluster::new(32);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id", "a"], &["id"], 1).await;
    source.begin();
    source.row("t", Op::Create, None, Some(&[1, 10])).await;
    source.cut(true).await;
    let (end, _) = run_until(deps(&cluster, &target), config(1), |s| s.rows == 1).await;
    assert_eq!(end, End::Stopped);
    let before = target.mark("shop", "copy", "main").unwrap();
    // New at the source, while no node runs: it is added.
    source.table("t", &["id", "a", "b"], &["id"], 1).await;
    source.begin();
    source.row("t", Op::Create, None, Some(&[2, 20, 200])).await;
    source.cut(false).await;
    let (end, _) = run_until(deps(&cluster, &target), config(2), |s| s.rows == 1).await;
    assert_eq!(end, End::Stopped);
    assert_eq!(columns(&target, "t"), ["id", "a", "b"]);
    let after = target.mark("shop", "copy", "main").unwrap();
    assert_eq!(after.shapes_taken().count(), 1);
    // In a worker that runs, and that the target tells by an error.
    source.begin();
    source.row("t", Op::Create, None, Some(&[3, 30, 300])).await;
    let status = StatusHandle::new();
    let (_stop, stopped) = shutdown::channel();
    let work = Worker::run(deps(&cluster, &target), config(3), status.clone(), stopped);
    let task = catchwater_runtime::spawn::spawn("worker", work);
    wait(|| status.read().state == State::Running).await;
    columns_now(&target, "t", &["id", "a"]);
    source.cut(false).await;
    let end = task.join().await.unwrap();
    is_gone(&end, &["column b of t"]);
    // A target that was put back to before brings its own note: there the column is new once more.
    target.set_mark("shop", "copy", "main", before);
    let (end, _) = run_until(deps(&cluster, &target), config(4), |s| s.rows == 2).await;
    assert_eq!(end, End::Stopped);
    assert_eq!(rows(&target.table(&name("t")), &["id", "a", "b"])[2], [3, 30, 300]);
}

#[tokio::test(start_paused = true)]
async fn another_choice_of_columns_adds_what_it_takes_in() {
    let cluster = MemoryCluster::new(33);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id", "a", "b"], &["id"], 1).await;
    source.begin();
    source.row("t", Op::Create, None, Some(&[1, 10, 100])).await;
    source.cut(true).await;
    let chosen = |epoch, drop: &[&str]| {
        let drop = drop.iter().map(|c| (*c).to_owned()).collect();
        let mut c = config(epoch);
        c.columns.insert("main.t".into(), Columns { drop, ..Columns::default() });
        c
    };
    let (end, _) = run_until(deps(&cluster, &target), chosen(1, &["b"]), |s| s.rows == 1).await;
    assert_eq!((end, columns(&target, "t")), (End::Stopped, vec!["id".to_owned(), "a".to_owned()]));
    source.begin();
    source.row("t", Op::Create, None, Some(&[2, 20, 200])).await;
    source.cut(false).await;
    let (end, _) = run_until(deps(&cluster, &target), config(2), |s| s.rows == 1).await;
    assert_eq!(end, End::Stopped, "newly chosen is not gone");
    assert_eq!(rows(&target.table(&name("t")), &["id", "a", "b"]), [[1, 10, i64::MIN], [2, 20, 200]]);
    // Chosen before, and taken away.
    columns_now(&target, "t", &["id", "b"]);
    source.begin();
    source.row("t", Op::Create, None, Some(&[3, 30, 300])).await;
    source.cut(false).await;
    let (end, _) = run_until(deps(&cluster, &target), chosen(3, &["a"]), |s| s.rows == 1).await;
    assert_eq!(end, End::Stopped, "what is not taken is not missed");
    columns_now(&target, "t", &["id"]);
    source.begin();
    source.row("t", Op::Create, None, Some(&[4, 40, 400])).await;
    source.cut(false).await;
    let (end, _) = run_until(deps(&cluster, &target), chosen(4, &["a"]), |_| false).await;
    is_gone(&end, &["column b of t"]);
}
