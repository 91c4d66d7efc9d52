#![allow(clippy::unwrap_used)]
//! A connection over an in-memory pipe; handlers are told by the frame's first byte what to do.

use super::*;
use catchwater_runtime::shutdown;
use catchwater_runtime::spawn;
use catchwater_runtime::sync::{Notify, Semaphore};
use catchwater_runtime::time::SystemClock;
use std::sync::Mutex;
use tokio::io::{DuplexStream, duplex};

/// b'e' echoes, b'p' parks until released, b'h' holds the order until released, b'n' acks nothing, b'c' closes,
/// b'x' is refused, b'f' parks like a fetch, b'w' works a while before it has an effect.
struct Script {
    release: Arc<Semaphore>,
    begun: Arc<Mutex<Vec<u8>>>,
    told: Arc<Notify>,
}

impl Requests for Script {
    fn start(&self, frame: Bytes) -> Result<Started, Refuse> {
        if frame[0] == b'x' {
            return Err(Refuse::UnknownApi(0));
        }
        let (release, begun, told) = (self.release.clone(), self.begun.clone(), self.told.clone());
        let order = Order::default();
        let gate = order.clone();
        let only_answers = frame[0] == b'f';
        let header = frame.slice(4..8);
        let work: Work = Box::pin(async move {
            match frame[0] {
                b'h' => gate.hold(),
                b'w' => {
                    gate.hold();
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                    }
                    gate.release();
                }
                _ => {}
            }
            begun.lock().unwrap().push(frame[0]);
            told.notify_one();
            match frame[0] {
                b'p' | b'h' | b'f' => release.acquire().await.unwrap().forget(),
                b'n' => return Ok(Response::nothing()),
                b'c' => return Ok(Response::close()),
                _ => {}
            }
            Ok(Response::parts(vec![frame.slice(..1), Bytes::new(), frame.slice(8..)]))
        });
        Ok(Started { header, order, only_answers, work })
    }
}

struct Bed {
    client: DuplexStream,
    end: spawn::Task<Closed>,
    release: Arc<Semaphore>,
    begun: Arc<Mutex<Vec<u8>>>,
    told: Arc<Notify>,
    budget: Budget,
    _stop: shutdown::Stop,
}

fn bed(limits: Limits, budget: u64) -> Bed {
    let (client, server) = duplex(1 << 20);
    let (reader, writer) = tokio::io::split(server);
    let (stop, stopped) = shutdown::channel();
    let release = Arc::new(Semaphore::new(0));
    let begun = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::new(Notify::new());
    let requests = Arc::new(Script { release: release.clone(), begun: begun.clone(), told: told.clone() });
    let budget = Budget::new(budget);
    let shared = Arc::new(Shared { clock: Arc::new(SystemClock::default()), budget: budget.clone(), limits });
    let end = spawn::spawn("connection", run(reader, writer, requests, shared, stopped));
    Bed { client, end, release, begun, told, budget, _stop: stop }
}

fn frame(what: u8, id: u32, rest: &[u8]) -> Vec<u8> {
    let mut out = (8 + rest.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&[what, 0, 0, 0]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(rest);
    out
}

impl Bed {
    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }
    async fn reply(&mut self) -> (u32, Vec<u8>) {
        let length = self.client.read_u32().await.unwrap();
        let id = self.client.read_u32().await.unwrap();
        let mut body = vec![0; length as usize - 4];
        self.client.read_exact(&mut body).await.unwrap();
        (id, body)
    }
    async fn begun(&self, n: usize) -> Vec<u8> {
        loop {
            let begun = self.begun.lock().unwrap().clone();
            if begun.len() >= n {
                return begun;
            }
            self.told.notified().await;
        }
    }
}

#[tokio::test]
async fn replies_leave_in_request_order_and_a_parked_request_holds_up_no_execution() {
    let mut bed = bed(Limits::default(), 1 << 20);
    let mut bytes = frame(b'p', 1, b"first");
    bytes.extend(frame(b'e', 2, b"second"));
    bytes.extend(frame(b'n', 3, b""));
    bytes.extend(frame(b'e', 4, b""));
    // Byte by byte: frames may come in any pieces.
    for b in bytes {
        bed.send(&[b]).await;
    }
    assert_eq!(bed.begun(4).await, b"pene");
    bed.release.add_permits(1);
    assert_eq!(bed.reply().await, (1, b"pfirst".to_vec()));
    assert_eq!(bed.reply().await, (2, b"esecond".to_vec()));
    assert_eq!(bed.reply().await, (4, b"e".to_vec()), "acks=0 has no slot");
}

#[tokio::test]
async fn nothing_starts_behind_a_request_before_its_ordering_point() {
    let mut bed = bed(Limits::default(), 1 << 20);
    let mut bytes = frame(b'e', 1, b"");
    bytes.extend(frame(b'h', 2, b""));
    bytes.extend(frame(b'e', 3, b""));
    bed.send(&bytes).await;
    assert_eq!(bed.reply().await.0, 1);
    assert_eq!(bed.begun(2).await, b"eh");
    bed.release.add_permits(1);
    assert_eq!((bed.reply().await.0, bed.reply().await.0), (2, 3));
    assert_eq!(bed.begun(3).await, b"ehe");
}

#[tokio::test]
async fn hostile_lengths_close_at_once() {
    for length in [-1i32, i32::MIN, 0, 7, 1001, i32::MAX] {
        let mut bed = bed(Limits { frame_bytes_max: 1000, ..Limits::default() }, 1 << 20);
        bed.send(&length.to_be_bytes()).await;
        assert!(matches!(bed.end.join().await, Ok(Closed::FrameLength(l)) if l == length));
        assert_eq!(bed.budget.available(), 1 << 20);
    }
}

#[tokio::test]
async fn a_refused_request_closes_behind_the_replies_before_it() {
    let mut bed = bed(Limits::default(), 1 << 20);
    let mut bytes = frame(b'p', 1, b"");
    bytes.extend(frame(b'x', 2, b""));
    bytes.extend(frame(b'e', 3, b""));
    bed.send(&bytes).await;
    bed.begun(1).await;
    bed.release.add_permits(1);
    assert_eq!(bed.reply().await.0, 1);
    assert!(matches!(bed.end.join().await, Ok(Closed::Refused(_))));
    assert_eq!(*bed.begun.lock().unwrap(), b"p", "nothing starts behind the end");
}

#[tokio::test]
async fn acks_zero_that_failed_closes() {
    let mut bed = bed(Limits::default(), 1 << 20);
    bed.send(&frame(b'c', 1, b"")).await;
    assert!(matches!(bed.end.join().await, Ok(Closed::AcksZero)));
}

#[tokio::test]
async fn a_byte_a_second_runs_into_the_limits() {
    let limits = Limits { header_ms: 20, idle_ms: 100_000, ..Limits::default() };
    for started in [&[0u8][..], &[0, 0, 1, 0][..], &[0, 0, 1, 0, 9, 9][..]] {
        let mut bed = bed(limits, 1 << 20);
        bed.send(started).await;
        assert!(matches!(bed.end.join().await, Ok(Closed::Slow)), "{started:?}");
    }
    let bed = bed(Limits { idle_ms: 20, ..limits }, 1 << 20);
    assert!(matches!(bed.end.join().await, Ok(Closed::Idle)));
}

#[tokio::test]
async fn a_body_waits_for_the_budget_and_small_ones_do_not() {
    let mut bed = bed(Limits::default(), 20_000);
    let taken = bed.budget.try_reserve(20_000).unwrap();
    bed.send(&frame(b'e', 1, &[7; 5_000])).await;
    assert_eq!(bed.reply().await.0, 1);
    bed.send(&frame(b'e', 2, &[7; 50_000])).await;
    bed.send(&frame(b'e', 3, b"")).await;
    assert_eq!(bed.begun(1).await.len(), 1);
    drop(taken);
    assert_eq!((bed.reply().await.1.len(), bed.reply().await.0), (50_001, 3));
    assert_eq!(bed.budget.available(), 20_000);
}

#[tokio::test]
async fn requests_above_the_limit_stay_unread() {
    let mut bed = bed(Limits { requests_max: 2, ..Limits::default() }, 1 << 20);
    let mut bytes = Vec::new();
    for id in 0..4 {
        bytes.extend(frame(b'p', id, b""));
    }
    bed.send(&bytes).await;
    assert_eq!(bed.begun(2).await, b"pp");
    bed.release.add_permits(1);
    assert_eq!(bed.reply().await.0, 0);
    assert_eq!(bed.begun(3).await, b"ppp");
    bed.release.add_permits(3);
    assert_eq!((bed.reply().await.0, bed.reply().await.0, bed.reply().await.0), (1, 2, 3));
}

/// acks=0: a client that sends and is gone at once, whose unread replies make the kernel reset the connection.
#[tokio::test]
async fn what_was_sent_before_the_client_went_away_is_executed() {
    for limits in [Limits::default(), Limits { requests_max: 2, ..Limits::default() }] {
        let Bed { mut client, end, begun, budget, _stop, .. } = bed(limits, 1 << 20);
        let mut bytes = Vec::new();
        for id in 0..30 {
            // Echoes fail to be written, the others have no reply.
            bytes.extend(frame(if id % 3 == 0 { b'e' } else { b'w' }, id, &[7; 3_000]));
            bytes.extend(frame(b'n', id, &[7; 10]));
        }
        // The rest of a frame that never comes.
        bytes.extend(&frame(b'e', 99, &[7; 1_000])[..500]);
        client.write_all(&bytes).await.unwrap();
        drop(client);
        let closed = end.join().await.unwrap();
        assert!(matches!(closed, Closed::Socket(_)), "{closed}");
        assert_eq!(*begun.lock().unwrap(), b"enwnwn".repeat(10));
        assert_eq!(budget.available(), 1 << 20);
    }
}

#[tokio::test]
async fn a_client_that_is_gone_is_waited_for_by_nobody() {
    let Bed { mut client, end, begun, release, _stop, .. } = bed(Limits::default(), 1 << 20);
    let mut bytes = frame(b'f', 1, b"");
    bytes.extend(frame(b'h', 2, b""));
    bytes.extend(frame(b'f', 3, b""));
    bytes.extend(frame(b'n', 4, b""));
    client.write_all(&bytes).await.unwrap();
    drop(client);
    while begun.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!end.is_finished(), "the request that holds the order is not at its end");
    // For the first two; the last `f` never gets one.
    release.add_permits(2);
    assert!(matches!(end.join().await, Ok(Closed::ByClient | Closed::Socket(_))));
    assert_eq!(*begun.lock().unwrap(), b"fhfn");
}

#[tokio::test]
async fn a_client_that_only_stops_sending_still_gets_its_replies() {
    let mut bed = bed(Limits::default(), 1 << 20);
    bed.send(&frame(b'w', 1, b"one")).await;
    bed.send(&frame(b'p', 2, b"two")).await;
    bed.client.shutdown().await.unwrap();
    bed.release.add_permits(1);
    assert_eq!(bed.reply().await, (1, b"wone".to_vec()));
    assert_eq!(bed.reply().await, (2, b"ptwo".to_vec()));
    assert!(matches!(bed.end.join().await, Ok(Closed::ByClient)));
}

#[tokio::test]
async fn what_a_client_left_behind_does_not_take_for_ever() {
    let limits = Limits { finish_ms: 20, ..Limits::default() };
    let Bed { mut client, end, _stop, budget, .. } = bed(limits, 1 << 20);
    client.write_all(&frame(b'p', 1, b"")).await.unwrap();
    drop(client);
    assert!(end.join().await.is_ok());
    assert_eq!(budget.available(), 1 << 20);
}
