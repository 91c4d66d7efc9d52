//! Pure. Rows that fit only together: each refused alone for want of another, as of two tables that refer to each other.
//!
//! Of rows that were refused one by one, those that need each other in a circle stand or fall as one; any other is tried
//! when what it needs was tried. So a row is set aside only if it is refused by itself, or with all that it needs.

use crate::order::{hash, row_of};
use crate::park::{KeyOf, keys_of};
use crate::sink::Apply;
use catchwater_base::hash::{Map, Seeded};
use std::collections::BTreeMap;

/// What one unit touches.
struct Ends {
    writes: Vec<u64>,
    needs: Vec<u64>,
}

/// The units in sets, by their places: what needs each other is one set, and what a set needs stands before it. Changes of one
/// row are one, for only what they come to has to fit. `swaps`: those with the same number may have to give each other a value.
pub fn sets(units: &[&[Apply]], swaps: &[Option<u64>]) -> Vec<Vec<usize>> {
    let ends: Vec<Ends> = units.iter().map(|applies| ends(applies)).collect();
    let mut writers: Map<u64, Vec<usize>> = Map::with_hasher(Seeded::default());
    for (i, e) in ends.iter().enumerate() {
        e.writes.iter().for_each(|w| writers.entry(*w).or_default().push(i));
    }
    let mut needs: Vec<Vec<usize>> = vec![Vec::new(); units.len()];
    for (i, e) in ends.iter().enumerate() {
        needs[i].extend(e.needs.iter().filter_map(|n| writers.get(n)).flatten().filter(|w| **w != i));
    }
    // What is written twice is written in its order; neighbours are enough for that.
    for list in writers.values() {
        list.windows(2).for_each(|two| needs[two[1]].push(two[0]));
    }
    let mut join = |i: usize, before: Option<usize>| {
        if let Some(before) = before {
            needs[i].push(before);
            needs[before].push(i);
        }
    };
    let (mut rows, mut values): (BTreeMap<KeyOf, usize>, BTreeMap<u64, usize>) = Default::default();
    for (i, applies) in units.iter().enumerate() {
        keys_of(applies).into_iter().for_each(|key| join(i, rows.insert(key, i)));
        swaps[i].into_iter().for_each(|swap| join(i, values.insert(swap, i)));
    }
    circles(&needs)
}

fn ends(applies: &[Apply]) -> Ends {
    let (mut writes, mut needs, mut text) = (Vec::new(), Vec::new(), Vec::new());
    for apply in applies {
        let Some(row) = row_of(&apply.what) else { continue };
        let meets = &apply.table.meets;
        let mut of = |(seed, columns): &(u64, Vec<u16>)| hash(&mut text, *seed, row, columns);
        writes.extend(meets.keys.iter().filter_map(&mut of));
        needs.extend(meets.parents.iter().chain(&meets.late_parents).filter_map(&mut of));
    }
    for list in [&mut writes, &mut needs] {
        list.sort_unstable();
        list.dedup();
    }
    Ends { writes, needs }
}

/// Strongly connected components, what is needed first (Tarjan), without recursion: a chain may be as long as the list.
fn circles(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let n = needs.len();
    let (mut number, mut low, mut on_stack) = (vec![NEW; n], vec![0; n], vec![false; n]);
    let (mut stack, mut out, mut count) = (Vec::new(), Vec::new(), 0);
    for start in 0..n {
        if number[start] != NEW {
            continue;
        }
        // A unit, and which of its needs comes next.
        let mut path = vec![(start, 0)];
        while let Some((at, next)) = path.last_mut() {
            let at = *at;
            if *next == 0 && number[at] == NEW {
                (number[at], low[at], on_stack[at]) = (count, count, true);
                count += 1;
                stack.push(at);
            }
            match needs[at].get(*next) {
                Some(&to) => {
                    *next += 1;
                    if number[to] == NEW {
                        path.push((to, 0));
                    } else if on_stack[to] {
                        low[at] = low[at].min(number[to]);
                    }
                }
                None => {
                    path.pop();
                    if let Some((parent, _)) = path.last() {
                        low[*parent] = low[*parent].min(low[at]);
                    }
                    if low[at] == number[at] {
                        let mut set = stack.split_off(stack.iter().rposition(|s| *s == at).unwrap_or(0));
                        set.iter().for_each(|s| on_stack[*s] = false);
                        set.sort_unstable();
                        out.push(set);
                    }
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(needs: &[&[usize]], want: &[&[usize]]) {
        let needs: Vec<Vec<usize>> = needs.iter().map(|n| n.to_vec()).collect();
        assert_eq!(circles(&needs), want.iter().map(|w| w.to_vec()).collect::<Vec<_>>(), "{needs:?}");
    }

    #[test]
    fn circles_are_one_and_what_is_needed_comes_first() {
        check(&[], &[]);
        check(&[&[], &[]], &[&[0], &[1]]);
        check(&[&[1], &[2], &[]], &[&[2], &[1], &[0]]);
        check(&[&[1], &[0]], &[&[0, 1]]);
        // A pair that hangs on another pair, and one beside.
        check(&[&[1, 3], &[0], &[], &[4], &[3]], &[&[3, 4], &[0, 1], &[2]]);
        check(&[&[0, 1], &[2], &[1], &[1]], &[&[1, 2], &[0], &[3]]);
    }

    #[test]
    fn a_chain_as_long_as_a_group_needs_no_deep_stack() {
        let n = 200_000;
        let needs: Vec<Vec<usize>> = (0..n).map(|i| if i + 1 < n { vec![i + 1] } else { Vec::new() }).collect();
        let sets = circles(&needs);
        assert_eq!((sets.len(), sets.first().cloned()), (n, Some(vec![n - 1])));
    }
}
