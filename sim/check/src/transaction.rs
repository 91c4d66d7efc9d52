//! Pure. What a transaction showed, and when.

use crate::anomaly::{Kind, Report};
use crate::checker::{Partition, Txn};
use crate::history::{Ending, Isolation, Micros, Outcome};
use crate::log::{Index, id, is_aborted, is_committed};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn judge(
    p: &Partition,
    index: &Index,
    names: &[&str],
    final_at: Option<Micros>,
    txns: &BTreeMap<u32, Vec<Txn>>,
    torn: &mut BTreeSet<u32>,
    report: &mut Report,
) {
    let mut finally: Option<BTreeSet<(u32, u64)>> = None;
    for poll in p.polls.iter().filter(|x| x.isolation == Isolation::Committed) {
        if final_at.is_some_and(|f| poll.at >= f) {
            finally.get_or_insert_default().extend(poll.records.iter().map(|r| r.1));
        }
        for (offset, value, _) in &poll.records {
            let Some(s) = index.sent.get(value).map(|n| &p.sends[*n]) else { continue };
            let Some(txn) = s.txn else { continue };
            let ends = txns.get(&txn).map(Vec::as_slice).unwrap_or_default();
            if is_aborted(txns, s.txn) {
                report.add(Kind::AbortedRead, || {
                    format!(
                        "{} offset {offset}: {} of an aborted transaction was shown (line {})",
                        p.name,
                        id(names, *value),
                        poll.line
                    )
                });
            } else if !ends.iter().any(|t| {
                // A commit that was begun may have happened, whatever its client was told.
                t.ending == Ending::Commit && t.result != Outcome::Fail && t.at <= poll.end
            }) {
                report.add(Kind::PrecommittedRead, || {
                    format!(
                        "{} offset {offset}: {} was shown (line {}) before its transaction was committed ({:?})",
                        p.name,
                        id(names, *value),
                        poll.line,
                        ends.iter().map(|t| t.line).collect::<Vec<_>>()
                    )
                });
            }
        }
    }
    let Some(finally) = finally else { return };
    // All or nothing, at the final read. An unknown outcome counts as committed once a part of it was shown.
    let mut shown: BTreeSet<u32> = BTreeSet::new();
    for s in &p.sends {
        if let Some(txn) = s.txn.filter(|_| finally.contains(&s.value)) {
            shown.insert(txn);
        }
    }
    for s in p.sends.iter().filter(|s| s.result == Outcome::Ok) {
        let Some(txn) = s.txn else { continue };
        let trimmed = s.offset.is_none_or(|o| o < index.log_start);
        let due = is_committed(txns, s.txn) || shown.contains(&txn);
        if due && !trimmed && !p.compact && !finally.contains(&s.value) && torn.insert(txn) {
            report.add(Kind::TornTransaction, || {
                format!(
                    "{}: {} (line {}) of a committed transaction is missing from the final read",
                    p.name,
                    id(names, s.value),
                    s.line
                )
            });
        }
    }
}
