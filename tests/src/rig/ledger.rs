//! What was sent and what was answered, kept outside the broker, and the judgement of what is read back.
//!
//! Judged per partition: offsets without hole from the log start to the high watermark; every record one that was sent, with
//! its body; no record twice; those of one producer in the order they were sent; every acknowledged batch at its offset; a
//! batch whole or absent; what was refused absent; high watermark and log start never back. What a reader has seen once must
//! stay. An unknown outcome is allowed to be there or not, once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Topic and partition.
pub type Part = (String, i32);

/// What the sender knows of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Sent, or about to be; no answer yet.
    Open,
    /// In the log at this base offset.
    Acked(i64),
    /// Surely not in the log.
    Refused,
    /// It may be there.
    Unknown,
}

/// One batch: records `first .. first + count` of a producer in one partition.
#[derive(Clone, Debug)]
pub struct Sent {
    pub count: u32,
    pub value_bytes: u32,
    pub answer: Answer,
    /// Seen by a reader at this base offset, acknowledged or not: it must stay there.
    pub seen_at: Option<i64>,
    /// When it left (again), and when its answer was here.
    pub sent: Instant,
    pub answered: Option<Instant>,
}

/// What a power cut may take from the end of a log.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub time: Duration,
    pub bytes: u64,
}

/// Acknowledged records that a cut took from one partition, all of them at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    pub records: u64,
    pub bytes: u64,
    /// From the answer to the first batch taken to the departure of the last: they were appended at least so far apart.
    pub span: Duration,
}

/// One record as a reader got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub offset: i64,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// A whole partition as a reader got it.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub log_start: i64,
    pub high_watermark: i64,
    pub records: Vec<Got>,
}

#[derive(Clone, Debug, Default)]
struct PartLedger {
    sent: BTreeMap<(u32, u64), Sent>,
    high_watermark: i64,
    log_start: i64,
    /// Retention may move the log start.
    trims: bool,
}

/// See the file head.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    parts: BTreeMap<Part, PartLedger>,
    acked_records: u64,
}

/// Key of a record; unique within its partition.
pub fn key(producer: u32, seq: u64) -> Vec<u8> {
    format!("p{producer}-{seq}").into_bytes()
}

fn parse_key(key: &[u8]) -> Option<(u32, u64)> {
    let (producer, seq) = std::str::from_utf8(key).ok()?.strip_prefix('p')?.split_once('-')?;
    Some((producer.parse().ok()?, seq.parse().ok()?))
}

/// Body of a record: a function of who and which, so that any reader can tell its own from another's.
pub fn value(producer: u32, seq: u64, bytes: u32) -> Vec<u8> {
    let mut rng = catchwater_base::Rng::new((u64::from(producer) << 40) ^ seq ^ (u64::from(bytes) << 20));
    let mut out = Vec::with_capacity(bytes as usize + 8);
    while out.len() < bytes as usize {
        out.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    out.truncate(bytes as usize);
    out
}

impl Ledger {
    /// Begins a partition. `trims`: its topic has a retention.
    pub fn open(&mut self, part: Part, trims: bool) {
        self.parts.entry(part).or_default().trims = trims;
    }

    /// Its topic was deleted.
    pub fn close(&mut self, topic: &str) {
        self.parts.retain(|(name, _), _| name != topic);
    }

    pub fn parts(&self) -> Vec<Part> {
        self.parts.keys().cloned().collect()
    }

    /// Records acknowledged since the beginning.
    pub fn acked_records(&self) -> u64 {
        self.acked_records
    }

    /// Before a batch leaves. A batch sent again keeps its place.
    pub fn send(&mut self, part: &Part, producer: u32, first: u64, count: u32, value_bytes: u32) {
        let Some(p) = self.parts.get_mut(part) else { return };
        let sent =
            Sent { count, value_bytes, answer: Answer::Open, seen_at: None, sent: Instant::now(), answered: None };
        p.sent
            .entry((producer, first))
            .and_modify(|s| (s.answer, s.sent, s.answered) = (Answer::Open, Instant::now(), None))
            .or_insert(sent);
    }

    /// After its answer. Words if the answer contradicts what is known.
    pub fn answer(&mut self, part: &Part, producer: u32, first: u64, answer: Answer) -> Option<String> {
        let p = self.parts.get_mut(part)?;
        let sent = p.sent.get_mut(&(producer, first))?;
        (sent.answer, sent.answered) = (answer, Some(Instant::now()));
        if let Answer::Acked(base) = answer {
            self.acked_records += u64::from(sent.count);
            // The answer came after the commit: the end of the batch is a high watermark that was passed.
            p.high_watermark = p.high_watermark.max(base + i64::from(sent.count));
            if let Some(at) = sent.seen_at.filter(|at| *at != base) {
                return Some(format!(
                    "{}: batch {producer}/{first} was read at {at} and acknowledged at {base}",
                    name(part)
                ));
            }
        }
        None
    }

    /// What a reader was told in passing; the next reading must not fall behind it. Words if it already does.
    pub fn observe(&mut self, part: &Part, log_start: i64, high_watermark: i64) -> Option<String> {
        let p = self.parts.get_mut(part)?;
        p.log_start = p.log_start.max(log_start);
        p.high_watermark = p.high_watermark.max(high_watermark);
        let wrong = log_start > high_watermark || (log_start > 0 && !p.trims);
        wrong.then(|| format!("{}: a reader was told {log_start}..{high_watermark}", name(part)))
    }

    /// After a power cut, before [`Ledger::judge`], for a relaxed partition: forgets what was at or behind the end that was read,
    /// and says what was taken. Words if more is gone than `window` allows.
    pub fn forgive(&mut self, part: &Part, end: i64, window: Window) -> (Taken, Option<String>) {
        let Some(p) = self.parts.get_mut(part) else { return (Taken::default(), None) };
        let (mut taken, mut first, mut last) = (Taken::default(), None::<Instant>, None::<Instant>);
        p.sent.retain(|_, sent| {
            let at = if let Answer::Acked(base) = sent.answer { Some(base) } else { sent.seen_at };
            let gone = at.is_some_and(|base| base >= end);
            if gone && matches!(sent.answer, Answer::Acked(_)) {
                taken.records += u64::from(sent.count);
                taken.bytes += u64::from(sent.count) * u64::from(sent.value_bytes);
                first = first.into_iter().chain(sent.answered).min();
                last = last.into_iter().chain([sent.sent]).max();
            }
            !gone
        });
        p.high_watermark = p.high_watermark.min(end);
        taken.span = last.zip(first).map_or(Duration::ZERO, |(last, first)| last.saturating_duration_since(first));
        let beyond = taken.span > window.time || taken.bytes > window.bytes;
        (taken, beyond.then(|| format!("{}: LOST beyond the window: {taken:?}", name(part))))
    }

    /// Judges one partition read whole after a restart; each violation in words. Learns what was seen.
    pub fn judge(&mut self, part: &Part, reading: &Reading) -> Vec<String> {
        let Some(p) = self.parts.get_mut(part) else { return vec![format!("{}: not in the ledger", name(part))] };
        let mut wrong = Wrong { part: name(part), words: Vec::new() };
        if reading.high_watermark < p.high_watermark {
            wrong.say(format!("high watermark {} went back from {}", reading.high_watermark, p.high_watermark));
        }
        if reading.log_start < p.log_start {
            wrong.say(format!("log start {} went back from {}", reading.log_start, p.log_start));
        }
        if reading.log_start > 0 && !p.trims {
            wrong.say(format!("log start is {} and nothing trims this topic", reading.log_start));
        }
        p.high_watermark = p.high_watermark.max(reading.high_watermark);
        p.log_start = p.log_start.max(reading.log_start);

        let mut next = reading.log_start;
        let mut found: BTreeMap<(u32, u64), Vec<i64>> = BTreeMap::new();
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for got in &reading.records {
            if got.offset != next {
                wrong.say(format!("offset {} follows {}", got.offset, next - 1));
            }
            next = got.offset + 1;
            let Some((producer, seq)) = parse_key(&got.key) else {
                wrong.say(format!("a record nobody sent at {}", got.offset));
                continue;
            };
            let batch = p.sent.range(..=(producer, seq)).next_back();
            let Some((&(owner, first), sent)) =
                batch.filter(|((o, f), s)| *o == producer && seq < f + u64::from(s.count))
            else {
                wrong.say(format!("record {producer}/{seq} at {} was never sent", got.offset));
                continue;
            };
            if got.value != value(producer, seq, sent.value_bytes) {
                wrong.say(format!("record {producer}/{seq} at {} has another body", got.offset));
            }
            if sent.answer == Answer::Refused && sent.seen_at.is_none() {
                wrong.say(format!("record {producer}/{seq} at {} was refused", got.offset));
            }
            if last.insert(producer, seq).is_some_and(|before| before >= seq) {
                wrong.say(format!("record {producer}/{seq} at {} is twice there or out of order", got.offset));
            }
            found.entry((owner, first)).or_default().push(got.offset);
        }
        if next != reading.high_watermark.max(reading.log_start) {
            wrong.say(format!("reading ended at {next}, the high watermark is {}", reading.high_watermark));
        }
        for (&(producer, first), sent) in &mut p.sent {
            let at = found.get(&(producer, first));
            let base = match sent.answer {
                Answer::Acked(base) => Some(base),
                _ => sent.seen_at,
            };
            match (base, at) {
                // Retention takes whole segments: a batch is gone whole.
                (Some(base), None) if base + i64::from(sent.count) <= reading.log_start => {}
                (Some(base), None) => wrong.say(format!(
                    "LOST: batch {producer}/{first} ({} records, {:?}) was at {base}, log {}..{}",
                    sent.count, sent.answer, reading.log_start, reading.high_watermark
                )),
                (base, Some(at)) => {
                    if at.len() != sent.count as usize || at.windows(2).any(|w| w[1] != w[0] + 1) {
                        wrong.say(format!("batch {producer}/{first} of {} records is torn: {at:?}", sent.count));
                    }
                    if base.is_some_and(|base| at.first() != Some(&base)) {
                        wrong.say(format!("batch {producer}/{first} was at {base:?}, is at {:?}", at.first()));
                    }
                    sent.seen_at = at.first().copied();
                }
                (None, None) => {}
            }
        }
        wrong.words
    }

    /// Partitions, batches and their answers: for a message.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        for (part, p) in &self.parts {
            let _ = write!(out, "{} {} batches, end {}; ", name(part), p.sent.len(), p.high_watermark);
        }
        out
    }
}

fn name(part: &Part) -> String {
    format!("{}-{}", part.0, part.1)
}

/// The first few violations of a partition; one damaged segment would else fill the screen.
struct Wrong {
    part: String,
    words: Vec<String>,
}

impl Wrong {
    const MOST: usize = 8;

    fn say(&mut self, what: String) {
        if self.words.len() < Wrong::MOST {
            self.words.push(format!("{}: {what}", self.part));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> Part {
        ("t".to_owned(), 0)
    }

    /// Three acknowledged batches of two records, one of unknown outcome, one refused.
    fn ledger() -> Ledger {
        let mut l = Ledger::default();
        l.open(part(), false);
        for (first, answer) in [
            (0, Answer::Acked(0)),
            (2, Answer::Acked(2)),
            (4, Answer::Acked(4)),
            (6, Answer::Unknown),
            (8, Answer::Refused),
        ] {
            l.send(&part(), 1, first, 2, 16);
            assert_eq!(l.answer(&part(), 1, first, answer), None);
        }
        l
    }

    fn reading(seqs: impl IntoIterator<Item = u64>) -> Reading {
        let records: Vec<Got> = seqs
            .into_iter()
            .enumerate()
            .map(|(at, seq)| Got { offset: at as i64, key: key(1, seq), value: value(1, seq, 16) })
            .collect();
        Reading { log_start: 0, high_watermark: records.len() as i64, records }
    }

    #[test]
    fn what_was_acknowledged_is_there_and_what_is_unknown_may_be() {
        assert_eq!(ledger().judge(&part(), &reading(0..6)), [""; 0]);
        assert_eq!(ledger().judge(&part(), &reading(0..8)), [""; 0]);
    }

    #[test]
    fn each_sort_of_damage_is_named() {
        let cases: [(&str, Reading); 11] = [
            ("LOST", reading(0..4)),
            ("went back from 6", reading(0..4)),
            ("LOST", reading([0, 1, 4, 5])),
            ("was refused", reading([0, 1, 2, 3, 4, 5, 8, 9])),
            ("torn", reading(0..7)),
            ("twice there", reading([0, 1, 2, 3, 4, 5, 4, 5])),
            ("out of order", reading([0, 1, 4, 5, 2, 3])),
            ("never sent", reading([0, 1, 2, 3, 4, 5, 77])),
            ("the high watermark is 9", Reading { high_watermark: 9, ..reading(0..6) }),
            ("nothing trims", Reading { log_start: 2, ..reading(0..6) }),
            ("another body", {
                let mut r = reading(0..6);
                r.records[3].value[5] ^= 1;
                r
            }),
        ];
        for (want, reading) in cases {
            let words = ledger().judge(&part(), &reading);
            assert!(words.iter().any(|w| w.contains(want)), "{want}: {words:?}");
        }
        let mut holes = reading(0..6);
        holes.records[5].offset = 6;
        assert!(ledger().judge(&part(), &holes).iter().any(|w| w.contains("offset 6 follows 4")));
    }

    #[test]
    fn what_a_reader_saw_must_stay_although_it_was_never_acknowledged() {
        let mut l = ledger();
        assert_eq!(l.judge(&part(), &reading(0..8)), [""; 0]);
        let words = l.judge(&part(), &reading(0..6));
        assert!(words.iter().any(|w| w.contains("LOST: batch 1/6")), "{words:?}");
    }

    #[test]
    fn a_topic_with_retention_may_lose_its_front_whole() {
        let mut l = ledger();
        l.open(part(), true);
        let mut r = reading(0..6);
        r.records.drain(..2);
        r.log_start = 2;
        assert_eq!(l.judge(&part(), &r), [""; 0]);
        r.log_start = 0;
        assert!(l.judge(&part(), &r).iter().any(|w| w.contains("log start 0 went back")));
    }

    #[test]
    fn an_answer_that_contradicts_a_reader_is_found() {
        let mut l = ledger();
        assert_eq!(l.judge(&part(), &reading(0..8)), [""; 0]);
        l.send(&part(), 1, 6, 2, 16);
        assert_eq!(l.answer(&part(), 1, 6, Answer::Acked(6)), None);
        assert!(l.answer(&part(), 1, 6, Answer::Acked(8)).is_some_and(|w| w.contains("read at 6")));
    }

    #[test]
    fn a_cut_may_take_the_end_within_the_window_and_nothing_else() {
        let wide = Window { time: Duration::from_secs(60), bytes: 1000 };
        let mut l = ledger();
        let (taken, wrong) = l.forgive(&part(), 2, wide);
        assert_eq!((taken.records, taken.bytes, wrong), (4, 64, None));
        assert_eq!(l.judge(&part(), &reading(0..2)), [""; 0]);
        // Torn within what was taken, or short of it: the judge sees it.
        let mut l = ledger();
        assert_eq!(l.forgive(&part(), 5, wide).0.records, 0);
        assert!(l.judge(&part(), &reading(0..5)).iter().any(|w| w.contains("torn")));
        let (taken, wrong) = ledger().forgive(&part(), 0, Window { bytes: 95, ..wide });
        assert_eq!(taken.records, 6);
        assert!(wrong.is_some_and(|w| w.contains("beyond the window")));
        let mut l = ledger();
        let ago = |s| Instant::now().checked_sub(Duration::from_secs(s)).expect("a clock that has run for minutes");
        l.parts.get_mut(&part()).expect("open").sent.get_mut(&(1, 0)).expect("sent").answered = Some(ago(2));
        assert!(l.forgive(&part(), 0, Window { time: Duration::from_secs(1), ..wide }).1.is_some());
    }
}
