//! Tables that a pattern takes: those that came later join, those that were taken out stop the source.

use crate::support::*;
use catchwater_capture::source::{Opened, Source, SourceClass, SourceError, Start};
use catchwater_connector_postgres::PgSource;

async fn again(db: &Db, before: &Opened) -> Result<(PgSource, Opened), SourceError> {
    let mut source = PgSource::new(db.config(&["app.*"]));
    let opened = source.open(Start::After(before.native.clone()), Some(before.identity.clone())).await?;
    Ok((source, opened))
}

fn names(opened: &Opened) -> Vec<&str> {
    opened.tables.iter().map(|t| t.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_table_of_a_pattern_joins_and_one_that_was_taken_out_stops_the_source() {
    let Some(db) = database("late").await else { return };
    db.exec("CREATE SCHEMA app; CREATE TABLE app.a(id int PRIMARY KEY); CREATE TABLE app.b(id int PRIMARY KEY)").await;
    db.exec(
        "CREATE TABLE app.part(id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
         CREATE TABLE app.part1 PARTITION OF app.part FOR VALUES FROM (0) TO (9); INSERT INTO app.part VALUES (1, 1)",
    )
    .await;
    let (mut source, opened) = db.open(&["app.*"]).await;
    assert_eq!(names(&opened), ["a", "b", "part"]);
    source.close().await;
    // Without a key it is left out, published it would stop its application; nothing else waits for it.
    db.exec(
        "CREATE TABLE app.late(id int PRIMARY KEY); CREATE TABLE app.none(v int); CREATE UNLOGGED TABLE app.u(id int)",
    )
    .await;
    // What old rows of a partitioned table have in a new column stands at its partitions.
    db.exec("ALTER TABLE app.part ADD w int NOT NULL DEFAULT 68").await;
    let (mut source, opened) = again(&db, &opened).await.unwrap();
    assert_eq!(names(&opened), ["a", "b", "late", "part"]);
    let part = &opened.tables[3];
    assert_eq!(part.columns.iter().map(|c| c.missing.is_some()).collect::<Vec<_>>(), [false, false, true]);
    let published = "SELECT count(*)::text FROM pg_publication_tables WHERE tablename = 'late'";
    assert_eq!(db.one(published).await, "1");
    source.close().await;
    let (mut source, opened) = again(&db, &opened).await.unwrap();
    source.close().await;
    db.exec(&format!("ALTER PUBLICATION catchwater_{} DROP TABLE app.late", db.name)).await;
    let Err(error) = again(&db, &opened).await else { panic!("its changes are missing from now on") };
    assert_eq!((error.code.0, error.class), (521, SourceClass::Config), "{error}");
    db.drop().await;
}
