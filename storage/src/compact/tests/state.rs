//! F10 under compaction: whatever was compacted, cut by the power or lost of snapshots, the log knows of producers, captures
//! and transactions what a replay of every entry that ever was says. Of the batches of a producer compaction keeps the newest.

use super::*;
use catchwater_record::{CaptureId, Position, ProducerId};

/// Newest batch of each producer, open transactions, the capture's position, the last stable offset.
type Known = (Vec<(i64, i16, Option<u64>)>, Vec<(Offset, ProducerId)>, Option<Position>, Offset);

fn known(log: &Log) -> Known {
    let mut producers: Vec<_> = log.producers().last_batches().collect();
    producers.sort_unstable();
    let mut open: Vec<_> = log.producers().open_transactions().collect();
    open.sort_unstable();
    (producers, open, log.capture_last(CaptureId(1)).map(|(_, at)| at), log.last_stable_offset())
}

/// A producer's next sequence is taken, the one before is known, one beyond the next is refused.
fn judge_sequences(log: &Log, next: &[(i64, i32)], about: &str) {
    for (id, next) in next.iter().filter(|(_, next)| *next > 0) {
        let check = |sequence| {
            let mut b = Builder::new().producer(*id, 0, sequence);
            b.push(1, Some(b"key-1"), Some(b"v"), []);
            let body = b.finish();
            log.check(&BatchView::new(&body).unwrap(), None)
        };
        assert_eq!(check(*next), crate::log::Check::New, "{about}: producer {id} goes on at {next}");
        let last = check(next - 1);
        let known = matches!(last, crate::log::Check::Duplicate { .. } | crate::log::Check::StaleSequence);
        assert!(known, "{about}: producer {id}, {}: {last:?}", next - 1);
        let far = check(next + 1);
        assert!(matches!(far, crate::log::Check::OutOfOrder { .. }), "{about}: producer {id}, {}: {far:?}", next + 1);
    }
}

struct Run {
    rig: Rig,
    /// All that was ever written, nothing of it compacted.
    whole: Log,
    /// Plain producers 1 and 2, transactional ones 11 to 13: the next sequence.
    next: Vec<(i64, i32)>,
    compacted: u64,
}

impl Run {
    fn write(&mut self, rng: &mut Rng) {
        let before = self.rig.log.last_index();
        match rng.below(10) {
            0..=3 => {
                let at = rng.below(2) as usize;
                let (id, sequence) = self.next[at];
                let keys: Vec<(u8, bool)> =
                    (0..rng.between(1, 3)).map(|_| (rng.below(5) as u8, rng.chance(800_000))).collect();
                self.rig.append(Some((id, sequence)), Codec::None, &keys);
                self.next[at].1 += keys.len() as i32;
            }
            4..=6 => {
                let at = 2 + rng.below(3) as usize;
                let (id, sequence) = self.next[at];
                self.rig.transactional(id, sequence, Ok(rng.below(5) as u8));
                self.next[at].1 += 1;
            }
            7 => {
                let (id, _) = self.next[2 + rng.below(3) as usize];
                if self.rig.log.producers().open_transactions().any(|(_, p)| p == ProducerId(id)) {
                    self.rig.transactional(id, 0, Err(rng.chance(500_000)));
                }
            }
            8 => self.rig.capture(&[(Some(rng.below(5) as u8), b'u')]),
            _ => self.rig.internal(),
        }
        for at in before.0 + 1..=self.rig.log.last_index().0 {
            let entry = self.rig.log.cached(EntryIndex(at)).cloned().unwrap();
            self.whole.append(vec![entry]);
        }
        let last = self.whole.last_index();
        self.whole.persisted(last);
        self.whole.committed(last);
        self.rig.ms += rng.between(1, 60) as i64;
    }

    fn judge(&self, about: &str) {
        assert_eq!(known(&self.rig.log), known(&self.whole), "{about}");
        judge_sequences(&self.rig.log, &self.next, about);
    }

    /// Dies, loses snapshots perhaps, and comes back.
    fn again(mut self, rng: &mut Rng, about: &str) -> Run {
        let (disk, ms, written) = (self.rig.disk.disk.fork(), self.rig.ms, std::mem::take(&mut self.rig.written));
        if rng.chance(500_000) {
            disk.power_cut([Cut::LoseAll, Cut::KeepAll, Cut::Random][rng.below(3) as usize], rng);
        } else {
            disk.kill();
        }
        let snaps: Vec<String> = disk.files().into_iter().map(|(n, _)| n).filter(|n| n.ends_with(".snap")).collect();
        for name in snaps.iter().rev().take(rng.below(3) as usize) {
            disk.unlink(name).unwrap();
        }
        self.rig = Rig::on(disk, 700, false);
        (self.rig.ms, self.rig.written) = (ms, written);
        self.judge(about);
        self
    }
}

#[test]
fn what_a_compacted_log_knows_is_what_a_replay_of_everything_says() {
    let (mut compacted, mut restarts) = (0, 0);
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let rig = Rig::new(700);
        let spec = GroupSpec {
            topic: TopicId([7; 16]),
            partition: PartitionId(0),
            incarnation: 1,
            conf: Bytes::new(),
            conf_index: EntryIndex::ZERO,
        };
        let whole = Log::open(crate::entry::RecoveredGroup::fresh(GID, spec)).unwrap();
        let next = vec![(1, 0), (2, 0), (11, 0), (12, 0), (13, 0)];
        let mut run = Run { rig, whole, next, compacted: 0 };
        for step in 0..220 {
            let about = format!("seed {seed}, step {step}");
            match rng.below(40) {
                0..=1 => {
                    let stats = run.rig.compact(run.rig.policy(), if rng.chance(300_000) { 240 } else { 1 << 20 });
                    run.compacted += u64::from(stats.is_some_and(|s| s.bytes_after < s.bytes_before));
                }
                2 => {
                    run = run.again(&mut rng, &about);
                    restarts += 1;
                }
                _ => run.write(&mut rng),
            }
            run.judge(&about);
        }
        compacted += run.compacted;
    }
    assert!(compacted > 20 && restarts > 20, "{compacted} compactions, {restarts} restarts");
}
