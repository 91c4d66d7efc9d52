//! Pure. Long poll: is what was found enough, or is it worth waiting? Walk: produce-fetch 13/14, row-change 13/17.
//!
//! One waiter per request stands in the lists of its partitions and is woken when a high watermark or a role moves;
//! the request's own connection keeps its time. No thread and no timer per partition. Decided on offsets and sizes
//! alone: no byte is read before the answer is due.

use catchwater_base::Mono;

/// What one look at all partitions of a request found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Bytes that would be sent now.
    pub bytes: u64,
    /// A partition has an error, a diverging epoch, or was never to be waited for.
    pub urgent: bool,
}

/// The patience of one request.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    pub deadline: Mono,
    pub min_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Answer,
    /// Look again when woken, at the latest then.
    Park(Mono),
}

impl Wait {
    pub fn new(now: Mono, max_wait_ms: u32, min_bytes: u32) -> Self {
        Wait { deadline: now.plus_millis(u64::from(max_wait_ms)), min_bytes: u64::from(min_bytes) }
    }

    pub fn judge(&self, now: Mono, found: Found) -> Verdict {
        if found.urgent || found.bytes >= self.min_bytes || now >= self.deadline {
            return Verdict::Answer;
        }
        Verdict::Park(self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_wait() {
        let wait = Wait::new(Mono::from_millis(100), 500, 10);
        let park = Verdict::Park(Mono::from_millis(600));
        let check = |at_ms, bytes, urgent, want| {
            assert_eq!(wait.judge(Mono::from_millis(at_ms), Found { bytes, urgent }), want);
        };
        check(100, 0, false, park);
        check(599, 9, false, park);
        check(100, 10, false, Verdict::Answer);
        check(100, 0, true, Verdict::Answer);
        check(600, 0, false, Verdict::Answer);
        let hasty = Wait::new(Mono::from_millis(100), 0, 10);
        assert_eq!(hasty.judge(Mono::from_millis(100), Found::default()), Verdict::Answer);
        let any = Wait::new(Mono::from_millis(100), 500, 0);
        assert_eq!(any.judge(Mono::from_millis(100), Found::default()), Verdict::Answer);
    }
}
