//! Walk: row-change 1/17. The replication connection's own task: cuts the bytes into blocks of whole messages, tells the
//! server what is confirmed, answers keep-alives. It does so while nobody takes blocks, too: then it stops reading (the
//! server waits on its socket) and goes on telling.
//!
//! Bounds: `BLOCKS_MAX` blocks wait, each about as large as one read, or as one message if that is larger; a message above
//! the limit ends the stream before it is read.

use crate::dial::Wire;
use crate::fault::Fault;
use crate::source::ack::Ack;
use crate::source::pace::Pace;
use crate::source::transport::{self, Reader};
use crate::tls::fault_of;
use bytes::{BufMut, Bytes, BytesMut};
use catchwater_base::{Clock, Mono, crash_point};
use catchwater_runtime::net::AsyncWriteExt;
use catchwater_runtime::spawn::{self, Task};
use catchwater_runtime::sync::{Receiver, Sender, bounded, watch};
use catchwater_runtime::time::{SystemClock, sleep, timeout, wall};
use std::time::Duration;
use tokio::io::WriteHalf;

/// Blocks between the task and `next`.
const BLOCKS_MAX: usize = 4;
/// The server is told at least this often, and asked where it stands when it was silent for as long (S11).
const TELL_MS: u64 = 900;
/// A server that answers nothing for so long is gone.
const SILENCE_MS_MAX: u64 = 60_000;
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const END_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wish {
    confirm: u64,
    end: bool,
}

/// The handle on the task.
pub struct Stream {
    pub blocks: Receiver<Result<Bytes, Fault>>,
    wish: watch::Sender<Wish>,
    task: Task<()>,
}

impl Stream {
    /// `from` = what is confirmed at once; 0 = nothing, which the server takes for no word about it.
    pub fn start(reader: Reader, write: WriteHalf<Wire>, from: u64, message_bytes_max: usize) -> Self {
        let (tx, blocks) = bounded(BLOCKS_MAX);
        let (wish, wish_rx) = watch::channel(Wish { confirm: from, end: false });
        let pump = Pump {
            reader,
            write,
            blocks: tx,
            wish: wish_rx,
            ack: Ack::new(from),
            pace: Pace::default(),
            message_bytes_max,
        };
        Stream { blocks, wish, task: spawn::spawn("postgres replication stream", pump.run()) }
    }

    /// Returns at once.
    pub fn confirm(&self, upto: u64) {
        self.wish.send_if_modified(|w| {
            let news = upto > w.confirm;
            w.confirm = w.confirm.max(upto);
            news
        });
    }

    pub fn confirmed(&self) -> u64 {
        self.wish.borrow().confirm
    }

    /// Tells the last position, says good-bye, ends the task.
    pub async fn end(mut self) {
        self.wish.send_modify(|w| w.end = true);
        self.blocks.close();
        let _ = timeout(END_TIMEOUT, self.task.join()).await;
    }
}

/// What woke the task.
enum Turn {
    Handed,
    /// So many bytes.
    Heard(usize),
    Rested,
    Wish,
    Due,
    End,
}

struct Pump {
    reader: Reader,
    write: WriteHalf<Wire>,
    blocks: Sender<Result<Bytes, Fault>>,
    wish: watch::Receiver<Wish>,
    ack: Ack,
    pace: Pace,
    message_bytes_max: usize,
}

impl Pump {
    async fn run(mut self) {
        if let Err(fault) = self.pump().await {
            // The receiver may be gone: then nobody wants to know.
            let _ = self.blocks.send(Err(fault)).await;
        }
    }

    async fn pump(&mut self) -> Result<(), Fault> {
        let clock = SystemClock::default();
        let now = || clock.now().mono;
        let mut heard = now();
        let mut told = Mono::ZERO;
        let mut waiting: Option<Bytes> = None;
        loop {
            if waiting.is_none() {
                let block = self.reader.take_block(self.message_bytes_max)?;
                if !block.is_empty() {
                    if wants_reply(&block) {
                        self.tell(false).await?;
                        told = now();
                    }
                    crash_point!("source.before_frame");
                    waiting = Some(block);
                }
            }
            let due = told.plus_millis(TELL_MS);
            let pause = due.since(now());
            let rest = self.pace.rest().filter(|_| waiting.is_none());
            // Every arm is cancel-safe: reserve, read_buf and changed lose nothing when dropped.
            let turn = tokio::select! {
                permit = self.blocks.reserve(), if waiting.is_some() => match (permit, waiting.take()) {
                    (Ok(permit), Some(block)) => {
                        permit.send(Ok(block));
                        crash_point!("source.after_frame");
                        Turn::Handed
                    }
                    _ => Turn::End,
                },
                // During a rest it is not told of less than the pace says.
                filled = self.reader.fill(), if waiting.is_none() => Turn::Heard(filled?),
                () = sleep(rest.map_or(Duration::MAX, |at| at.since(now()))), if rest.is_some() => Turn::Rested,
                changed = self.wish.changed() => if changed.is_ok() { Turn::Wish } else { Turn::End },
                () = sleep(pause) => Turn::Due,
            };
            match turn {
                Turn::Handed => {}
                Turn::Heard(bytes) => {
                    heard = now();
                    let told_from = self.pace.rest().map(|_| self.pace.tell_from());
                    let tell_from = self.pace.read(heard, bytes).map(|_| self.pace.tell_from());
                    if tell_from != told_from {
                        self.reader.tell_from(tell_from.unwrap_or(1));
                    }
                }
                Turn::Rested => {
                    self.pace.rested(now());
                    self.reader.tell_from(1);
                }
                Turn::End => return self.good_bye().await,
                Turn::Wish => {
                    let wish = *self.wish.borrow_and_update();
                    self.ack.confirm(wish.confirm);
                    if wish.end {
                        return self.good_bye().await;
                    }
                    self.tell(false).await?;
                    told = now();
                }
                Turn::Due => {
                    if waiting.is_some() {
                        heard = now(); // we do not listen
                    }
                    let silent = now().since(heard);
                    if silent > Duration::from_millis(SILENCE_MS_MAX) {
                        return Err(Fault::Closed(format!("the server was silent for {} s", silent.as_secs())));
                    }
                    self.tell(waiting.is_none()).await?;
                    told = now();
                }
            }
        }
    }

    async fn tell(&mut self, reply: bool) -> Result<(), Fault> {
        let news = self.ack.is_news();
        if news {
            crash_point!("source.before_confirm");
        }
        let status = self.ack.status(wall(), reply);
        self.send(&status).await?;
        if news {
            crash_point!("source.after_confirm");
        }
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let write = async {
            self.write.write_all(bytes).await?;
            self.write.flush().await
        };
        timeout(WRITE_TIMEOUT, write)
            .await
            .map_err(|_| Fault::Closed("the server does not read".into()))?
            .map_err(|e| fault_of(&e))
    }

    async fn good_bye(&mut self) -> Result<(), Fault> {
        self.ack.confirm(self.wish.borrow().confirm);
        let mut out = self.ack.status(wall(), false);
        out.put_slice(b"c\0\0\0\x04X\0\0\0\x04"); // CopyDone, Terminate
        let _ = self.send(&out).await;
        let _ = timeout(END_TIMEOUT, self.write.shutdown()).await;
        Ok(())
    }
}

/// True if a keep-alive of the block asks for an answer at once.
fn wants_reply(block: &Bytes) -> bool {
    let mut rest = &block[..];
    while let Some((tag, body, behind)) = transport::peek_of_block(rest) {
        if tag == b'd' && body.first() == Some(&b'k') && body.last() == Some(&1) {
            return true;
        }
        rest = behind;
    }
    false
}

/// Where START_REPLICATION begins, and what it asks for.
pub struct Ask<'a> {
    pub slot: &'a str,
    pub publication: &'a str,
    pub from: u64,
    /// `server_version_num`.
    pub version: i32,
    /// Large transactions while they are open.
    pub streaming: bool,
    /// Columns in the binary format.
    pub binary: bool,
}

impl Ask<'_> {
    /// The highest version of pgoutput's protocol that the server speaks. `two_phase` (3) is not asked for, so prepared
    /// transactions come when they are committed.
    /// Source: PostgreSQL, `src/include/replication/logicalproto.h`, `LOGICALREP_PROTO_MAX_VERSION_NUM` of each version.
    fn protocol(&self) -> u8 {
        match self.version {
            ..150_000 => 2,
            150_000..160_000 => 3,
            _ => 4,
        }
    }

    pub fn sql(&self) -> String {
        let mut out = BytesMut::new();
        // Names inside publication_names are identifiers inside a literal.
        let names = crate::config::quote_literal(&crate::config::quote_ident(self.publication));
        out.put_slice(
            format!(
                "START_REPLICATION SLOT {} LOGICAL {} (proto_version '{}', publication_names {names}",
                crate::config::quote_ident(self.slot),
                lsn_text(self.from),
                self.protocol(),
            )
            .as_bytes(),
        );
        if self.version >= 140_000 {
            out.put_slice(b", messages 'true'");
        }
        if self.streaming {
            let how: &[u8] = if self.protocol() >= 4 { b", streaming 'parallel'" } else { b", streaming 'on'" };
            out.put_slice(how);
        }
        if self.binary {
            out.put_slice(b", binary 'true'");
        }
        out.put_slice(b")");
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// `16/B3748AF0`.
pub fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lsn_round_trip() {
        assert_eq!(parse_lsn("16/B3748AF0"), Some(0x16_b374_8af0));
        assert_eq!(lsn_text(0x16_b374_8af0), "16/B3748AF0");
        assert_eq!(parse_lsn("16B3748AF0"), None);
    }

    #[test]
    fn the_command_quotes_names_twice() {
        let ask = Ask { slot: "s", publication: "p\"'x", from: 255, version: 150_000, streaming: false, binary: false };
        assert_eq!(
            ask.sql(),
            "START_REPLICATION SLOT \"s\" LOGICAL 0/FF (proto_version '3', publication_names '\"p\"\"''x\"', messages 'true')"
        );
        let ask = Ask { binary: true, ..ask };
        assert!(ask.sql().ends_with(", binary 'true')"), "{}", ask.sql());
        let ask = Ask { streaming: true, binary: false, ..ask };
        assert!(
            ask.sql().contains("(proto_version '3', ") && ask.sql().ends_with(", streaming 'on')"),
            "{}",
            ask.sql()
        );
        let ask = Ask { version: 140_000, ..ask };
        assert!(ask.sql().contains("(proto_version '2', ") && ask.sql().contains("streaming 'on'"), "{}", ask.sql());
        let ask = Ask { version: 160_000, ..ask };
        assert!(
            ask.sql().contains("(proto_version '4', ") && ask.sql().contains("streaming 'parallel'"),
            "{}",
            ask.sql()
        );
    }

    #[test]
    fn a_keep_alive_that_asks_is_seen_among_data() {
        let mut block = BytesMut::new();
        let mut put = |body: &[u8]| {
            block.put_u8(b'd');
            block.put_u32(body.len() as u32 + 4);
            block.put_slice(body);
        };
        put(b"w........................B");
        put(b"k................\0");
        assert!(!wants_reply(&block.clone().freeze()));
        block.put_slice(b"d\0\0\0\x16k................\x01");
        assert!(wants_reply(&block.freeze()));
    }
}
