//! Pure. What the server holds that has not come yet: a server that decodes for minutes before it sends anything (what it kept
//! while nobody read, a large transaction) is silent, and a source that took silence for nothing to do would say that
//! nothing lags.
//!
//! While the stream is heard (an idle server answers each of our words, below a second), nothing is asked. In silence the
//! server is asked for its end of WAL; below it there may be changes for us, so the source counts as behind from that
//! moment on, until a keep-alive says that the stream is past it. At least so long: how old the oldest of them is, nobody
//! knows before it comes.

use catchwater_base::{Mono, Now, Wall};
use std::time::Duration;

/// After so long without a word the server is asked, again and again. More than twice the pause between our words.
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The last word of the stream, or look.
    heard: Option<Mono>,
    /// The server's end of WAL at the newest look.
    head: u64,
    /// Where the server stood at the first look that found the stream below, and when; until the stream is there.
    behind: Option<(u64, Wall)>,
}

impl Ahead {
    /// How long to wait for the stream before the server is asked. At first not at all.
    pub(super) fn pause(&self, now: Mono) -> Duration {
        self.heard.map_or(Duration::ZERO, |at| SILENCE.saturating_sub(now.since(at)))
    }

    pub(super) fn heard(&mut self, now: Mono) {
        self.heard = Some(now);
    }

    /// `head` = the server's answer, `None` = it gave none; `end` = as far as the stream told.
    pub(super) fn looked(&mut self, now: Now, head: Option<u64>, end: u64) {
        self.heard = Some(now.mono);
        let Some(head) = head else { return };
        self.head = self.head.max(head);
        if self.behind.is_none() && end < head {
            self.behind = Some((head, now.wall));
        }
    }

    /// The stream is past everything below `end`.
    pub(super) fn reached(&mut self, end: u64) {
        self.behind = self.behind.filter(|(head, _)| *head > end);
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn since(&self) -> Option<Wall> {
        self.behind.map(|(_, since)| since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: Mono::ZERO.plus_millis(ms), wall: Wall::from_millis(ms as i64) }
    }

    #[test]
    fn a_silent_server_is_asked_and_the_source_is_behind_until_the_stream_is_there() {
        let mut a = Ahead::default();
        assert_eq!(a.pause(at(0).mono), Duration::ZERO, "right after the start nobody knows what it kept");
        a.looked(at(0), Some(500), 100);
        assert_eq!((a.since(), a.head()), (Some(Wall::from_millis(0)), 500));
        assert_eq!(a.pause(at(500).mono), Duration::from_millis(1500));
        a.looked(at(2000), Some(900), 100);
        assert_eq!((a.since(), a.head()), (Some(Wall::from_millis(0)), 900), "since the first look");
        a.looked(at(4000), None, 100);
        a.heard(at(5000).mono);
        a.reached(499);
        assert!(a.since().is_some());
        a.reached(500);
        assert_eq!(a.since(), None);
        // Heard all the time: not asked.
        assert_eq!(a.pause(at(5900).mono), Duration::from_millis(1100));
        a.looked(at(7000), Some(900), 900);
        assert_eq!(a.since(), None, "an idle server at its own end");
    }
}
