//! A source as the suite reads it: what holds of every item of every case.

use super::*;

/// A transaction (or several, with `superset`) as it was given out.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Unit {
    pub(super) txn: TxnId,
    pub(super) xid: Option<u64>,
    pub(super) time: Wall,
    pub(super) native: Native,
    pub(super) rows: Vec<String>,
}

/// Reads a source and checks what holds of every item of every case.
pub(super) struct Reader {
    pub(super) source: Box<dyn Source>,
    pub(super) opened: Opened,
    pub(super) out: EventBatch,
    pub(super) room: usize,
    pub(super) open: Option<Unit>,
    pub(super) shapes: Vec<Arc<TableSchema>>,
    pub(super) units: Vec<Unit>,
    /// Up to here everything was given.
    pub(super) upto: Native,
    pub(super) idles: usize,
}

/// Calls in a row that may end with nothing, to have the source's own lag looked at.
const EMPTY_MAX: u32 = 3;

impl Reader {
    pub(super) async fn fresh(probe: &mut dyn Probe) -> Reader {
        let mut source = probe.source();
        let known = ends("identify", source.identify()).await.expect("S9 identify of a healthy server");
        let opened = ends("open", source.open(Start::Fresh, Some(known))).await.expect("S2 a fresh start");
        Reader::on(source, opened)
    }

    pub(super) async fn after(probe: &mut dyn Probe, native: &Native, known: &Identity) -> Result<Reader, SourceError> {
        let mut source = probe.source();
        let opened = ends("open", source.open(Start::After(native.clone()), Some(known.clone()))).await?;
        assert_eq!(opened.native, *native, "S2 open never moves the position");
        Ok(Reader::on(source, opened))
    }

    pub(super) fn on(source: Box<dyn Source>, opened: Opened) -> Reader {
        Reader {
            source,
            out: EventBatch::new(ROOM),
            room: ROOM,
            open: None,
            shapes: opened.tables.clone(),
            units: Vec::new(),
            upto: opened.native.clone(),
            idles: 0,
            opened,
        }
    }

    pub(super) fn with_room(mut self, room: usize) -> Reader {
        (self.out, self.room) = (EventBatch::new(room), room);
        self
    }

    /// Calls until one has given something; few have not.
    pub(super) async fn next(&mut self) -> Result<(), SourceError> {
        for _ in 0..=EMPTY_MAX {
            let progress = ends("next", self.source.next(&mut self.out)).await?;
            assert_eq!(progress, Progress::Items, "S1 the stream of a living database has no end");
            if !self.out.items.is_empty() {
                break;
            }
        }
        assert!(!self.out.items.is_empty(), "S6 next gives something, but for a call now and then");
        self.look();
        Ok(())
    }

    /// Looks at what was given and takes it away.
    pub(super) fn look(&mut self) {
        let mut filled = EventBatch::new(self.room);
        for item in std::mem::take(&mut self.out.items) {
            // A description is small and may stand before its row in a full batch.
            if matches!(item, Item::Row(_)) {
                assert!(filled.room() > 0, "S6 a row behind a full batch of {} bytes", self.room);
                filled.push(item.clone());
            }
            self.take(item);
        }
        self.out.clear();
    }

    pub(super) fn take(&mut self, item: Item) {
        match item {
            Item::Begin { txn, commit_time, xid, .. } => {
                assert!(self.open.is_none(), "S1 a transaction inside another");
                let native = Native::default();
                self.open = Some(Unit { txn, xid, time: commit_time, native, rows: Vec::new() });
            }
            Item::Schema(table) => self.shapes.push(table),
            Item::Again(table) => assert!(self.shapes.contains(&table), "S4 {} before its shape", table.name),
            Item::Row(row) => {
                assert!(self.shapes.contains(&row.table), "S4 a row of {} before its shape", row.table.name);
                for side in [&row.before, &row.after].into_iter().flatten() {
                    assert_eq!(side.cells.len(), row.table.columns.len(), "S4 the row has its shape");
                }
                self.open.as_mut().expect("S1 a row stands in a transaction").rows.push(show_row(&row));
            }
            Item::Commit { native, txn, commit_time } => {
                let mut unit = self.open.take().expect("S1 a commit ends a transaction");
                assert_eq!((&unit.txn, unit.time), (&txn, commit_time), "S1 begin and commit are of one transaction");
                assert!(native > self.upto, "S2 positions rise: {native:?} after {:?}", self.upto);
                self.upto = native.clone();
                unit.native = native;
                if !unit.rows.is_empty() {
                    self.units.push(unit);
                }
            }
            Item::Idle(native) => {
                assert!(self.open.is_none(), "S11 idle inside a transaction");
                assert!(native >= self.upto, "S11 idle goes back: {native:?} after {:?}", self.upto);
                self.upto = native;
                self.idles += 1;
            }
        }
    }

    /// Reads until this many rows have come in whole transactions.
    pub(super) async fn rows(&mut self, count: usize) -> &[Unit] {
        while self.units.iter().map(|u| u.rows.len()).sum::<usize>() < count {
            self.next().await.unwrap_or_else(|e| panic!("S9 {e} ({:?})", e.class));
        }
        &self.units
    }

    /// Reads until this many rows were created; these.
    pub(super) async fn created(&mut self, count: usize) -> Vec<String> {
        loop {
            let mut rows = self.units.concat_rows();
            rows.retain(|r| r.starts_with('c'));
            if rows.len() >= count {
                return rows;
            }
            self.next().await.unwrap_or_else(|e| panic!("S9 {e} ({:?})", e.class));
        }
    }

    /// Reads two idle reports: whatever was committed before has come.
    pub(super) async fn idle(&mut self) {
        let want = self.idles + 2;
        while self.idles < want {
            self.next().await.unwrap_or_else(|e| panic!("S9 {e} ({:?})", e.class));
        }
    }

    /// Reads until it fails.
    pub(super) async fn failure(&mut self) -> SourceError {
        let failed = async {
            loop {
                if let Err(e) = self.source.next(&mut self.out).await {
                    return e;
                }
                self.look();
            }
        };
        ends("the failure", failed).await
    }

    pub(super) async fn close(mut self) {
        ends("close", self.source.close()).await;
    }
}

pub(super) async fn ends<T>(what: &str, call: impl Future<Output = T>) -> T {
    time::timeout(LIMIT, call).await.unwrap_or_else(|_| panic!("S9 {what} does not end"))
}

/// The transactions `want` came, each whole, in this order, and nothing else.
pub(super) fn whole(superset: bool, units: &[Unit], want: &[Vec<Change>]) {
    let got: Vec<Vec<String>> = units.iter().map(|u| u.rows.clone()).collect();
    let want: Vec<Vec<String>> = want.iter().map(|t| show_all(t)).filter(|t| !t.is_empty()).collect();
    if !superset {
        assert_eq!(got, want, "S1 whole transactions in commit order");
        return;
    }
    assert_eq!(got.concat(), want.concat(), "S1 the changes in commit order");
    let ends = |all: &[Vec<String>]| -> BTreeSet<usize> {
        all.iter()
            .scan(0, |sum, t| {
                *sum += t.len();
                Some(*sum)
            })
            .collect()
    };
    let (units, txns) = (ends(&got), ends(&want));
    assert!(units.is_subset(&txns), "S1 a unit ends inside a transaction: {units:?} of {txns:?}");
}
