//! Pure. A group's position in a partition is a register: a read gives a value that no later acknowledged write replaced.

use crate::anomaly::{Kind, Report};
use crate::checker::{NEVER, Register};
use crate::history::Outcome;
use std::collections::BTreeMap;

pub(crate) fn judge(groups: &BTreeMap<(String, String), Register>, report: &mut Report) {
    for ((group, tp), r) in groups {
        let mut writes: Vec<_> = r.writes.iter().filter(|w| w.4 != Outcome::Fail).collect();
        writes.sort_by_key(|w| (w.1, w.0));
        // Acknowledged writes by their end: the latest begin among those that ended before a read decides what is too old.
        let mut ended: Vec<_> = writes.iter().filter(|w| w.2 != NEVER).map(|w| (w.2, w.1)).collect();
        ended.sort_unstable();
        let mut latest = 0;
        let latest_begin: Vec<(u64, u64)> = ended
            .iter()
            .map(|(end, at)| {
                latest = latest.max(*at);
                (*end, latest)
            })
            .collect();
        for (line, at, end, offset) in &r.reads {
            let before = latest_begin.partition_point(|(ended, _)| ended < at);
            let newest = before.checked_sub(1).map(|n| latest_begin[n].1);
            let Some(offset) = offset else {
                if newest.is_some() {
                    report.add(Kind::CommitBack, || {
                        format!("group {group} {tp} line {line}: no position, one was acknowledged before")
                    });
                }
                continue;
            };
            let same: Vec<_> = writes.iter().filter(|w| w.3 == *offset && w.1 <= *end).collect();
            if same.is_empty() {
                report.add(Kind::CommitPhantom, || {
                    format!("group {group} {tp} line {line}: position {offset} was never committed")
                });
            } else if newest.is_some_and(|n| same.iter().all(|w| w.2 < n)) {
                report.add(Kind::CommitBack, || {
                    format!(
                        "group {group} {tp} line {line}: position {offset} (line {}) was replaced by an acknowledged one",
                        same.iter().map(|w| w.0).max().unwrap_or(0)
                    )
                });
            }
        }
    }
}
