//! The sink, and a connection that is lost at each message of an apply: before the server has it, and when the answer to it
//! is on its way. Whatever the sink says, the next open tells the truth, and rows and position are of the same moment.

use crate::sink::{claim, mark, plan};
use crate::support::*;
use catchwater_change::{Cell, Row, Type, Value, Version};
use catchwater_connector_postgres::{ConnectConfig, PgSink, SinkConfig};
use catchwater_deliver::sink::{Apply, Group, Sink, SinkClass, TargetPlan, What};
use catchwater_deliver::testing::table;
use catchwater_record::{CommitSeq, Incarnation};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Cut {
    Before,
    Answer,
}

#[derive(Default)]
struct Shared {
    /// Messages of clients since it was set.
    seen: u32,
    at: Option<(u32, Cut)>,
    /// The next bytes of the server are lost, and all connections with them.
    deaf: bool,
    open: Vec<TcpStream>,
}

impl Shared {
    fn cut(&mut self) {
        (self.at, self.deaf) = (None, false);
        self.open.drain(..).for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
}

struct Proxy {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    fn start(server: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let all = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&server).unwrap();
                let (to, from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let mut shared = all.lock().unwrap();
                shared.open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                drop(shared);
                let (up, down) = (all.clone(), all.clone());
                std::thread::spawn(move || requests(from, to, &up));
                std::thread::spawn(move || answers(server, client, &down));
            }
        });
        Proxy { port, shared }
    }
    fn set(&self, at: Option<(u32, Cut)>) -> u32 {
        let mut shared = self.shared.lock().unwrap();
        (shared.at, shared.deaf) = (at, false);
        std::mem::take(&mut shared.seen)
    }
}

/// Message by message: the first ones have no letter.
fn requests(mut from: TcpStream, mut to: TcpStream, shared: &Mutex<Shared>) {
    let mut started = false;
    loop {
        let mut message = vec![0; if started { 5 } else { 4 }];
        if from.read_exact(&mut message).is_err() {
            break;
        }
        let head = message.len();
        let len = u32::from_be_bytes(message[head - 4..].try_into().unwrap()) as usize;
        message.resize(head - 4 + len, 0);
        if from.read_exact(&mut message[head..]).is_err() {
            break;
        }
        if !started {
            // Protocol 3.0; else the question for TLS.
            started = message[4..8] == [0, 3, 0, 0];
        } else {
            let mut shared = shared.lock().unwrap();
            shared.seen += 1;
            match shared.at {
                Some((n, Cut::Before)) if n == shared.seen => {
                    shared.cut();
                    return;
                }
                Some((n, Cut::Answer)) if n == shared.seen => shared.deaf = true,
                _ => {}
            }
        }
        if to.write_all(&message).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn answers(mut from: TcpStream, mut to: TcpStream, shared: &Mutex<Shared>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        {
            let mut shared = shared.lock().unwrap();
            if shared.deaf {
                shared.cut();
                return;
            }
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Row 1 becomes `seq`, one row comes, the one before it goes.
fn group(plan: &Arc<TargetPlan>, seq: u64, source_order: bool) -> Group {
    let int = |v: u64| Cell::Value(Value::Int(v as i64));
    let row = |id: u64| Row::new(vec![int(id), int(seq)]);
    let whats = [What::Upsert(row(1)), What::Upsert(row(100 + seq)), What::Delete(row(99 + seq))];
    let version = |i| Version { incarnation: Incarnation(0), commit_seq: CommitSeq(seq), ordinal: i };
    let applies = whats.into_iter().zip(0..).map(|(what, i)| Apply { table: plan.clone(), what, version: version(i) });
    Group {
        first_seq: CommitSeq(seq),
        last_seq: CommitSeq(seq),
        applies: applies.collect(),
        source_order,
        ..Group::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_at_any_message_leaves_rows_and_position_of_one_moment() {
    let Some(db) = database("cut").await else { return };
    db.exec("CREATE TABLE t(id bigint PRIMARY KEY, n bigint)").await;
    const INT: Type = Type::Int { bits: 64, unsigned: false };
    let plan = plan(&table("public", "t", &[("id", INT), ("n", INT)], &["id"]), "public");
    let (head, rest) = db.url.split_once('@').unwrap();
    let (server, path) = rest.split_once('/').unwrap();
    let proxy = Proxy::start(server.to_owned());
    let made = |url: &str| PgSink::new(SinkConfig::new(ConnectConfig::parse(url).unwrap()));
    let (mut far, mut near) = (made(&format!("{head}@127.0.0.1:{}/{path}?sslmode=disable", proxy.port)), made(&db.url));
    let (mut fence, mut seq, mut lost) = (0, 0, [0, 0]);
    for source_order in [false, true] {
        let mut at = 1;
        loop {
            let mut struck = false;
            for cut in [Cut::Before, Cut::Answer] {
                seq += 1;
                fence += 2;
                far.open(claim(fence)).await.unwrap();
                let mut lane = far.lane().await.unwrap();
                proxy.set(Some((at, cut)));
                let group = group(&plan, seq, source_order);
                let done = match lane.write(&group).await {
                    Ok(()) => lane.commit(&mark(seq)).await.map(drop),
                    Err(e) => Err(e),
                };
                struck |= proxy.set(None) >= at;
                drop(lane);
                if let Err(e) = &done {
                    let classes = [SinkClass::Environment, SinkClass::UnknownOutcome];
                    assert!(classes.contains(&e.class), "{cut:?} {at}: {e:?}");
                    lost[cut as usize] += 1;
                }
                let found = near.open(claim(fence + 1)).await.unwrap().mark.map_or(0, |m| m.seq.0);
                let before = seq - 1;
                assert!(found == seq || (found == before && done.is_err()), "{cut:?} {at}: {found} {done:?}");
                let shows = "SELECT coalesce(string_agg(id || ':' || n, ' ' ORDER BY id), '') FROM t";
                let want = |seq: u64| match seq {
                    0 => String::new(),
                    _ => format!("1:{seq} {}:{seq}", 100 + seq),
                };
                assert_eq!(db.one(shows).await, want(found), "{cut:?} {at}");
                if found == before {
                    let mut lane = near.lane().await.unwrap();
                    lane.write(&group).await.unwrap();
                    lane.commit(&mark(seq)).await.unwrap();
                }
                assert_eq!(db.one(shows).await, want(seq), "{cut:?} {at}");
            }
            if !struck {
                break;
            }
            at += 1;
        }
        assert!(at > 10, "an apply has more messages than {at}");
    }
    assert!(lost.iter().all(|n| *n > 20), "{lost:?}");
    far.shutdown().await;
    near.shutdown().await;
    db.drop().await;
}
