//! Pure. `topic.creation.*`: what a topic is told when it is made. Never again: a topic that is there stays as it is, as in
//! Kafka Connect.
//!
//! ```text
//! topic.creation.groups: big
//! topic.creation.big.include: shop\.public\.orders.*      the first group that a name fits; `exclude` takes some out again
//! topic.creation.big.retention.ms: "86400000"             a setting of the topic
//! topic.creation.default.replication.factor: "-1"         of all others; groups take it over, and nothing else
//! ```
//! A captured topic has one partition, so that its transactions stand in order; those that an outbox router makes have as many
//! as is said. Source: Kafka 4.3, `TopicCreationConfig`, KIP-158.

use regex_lite::Regex;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// What these properties begin with.
pub const FAMILY: &str = "topic.creation.";
const DEFAULT: &str = "default";
/// Most groups of a source.
const GROUPS_MAX: usize = 64;
/// Most partitions of a topic of events.
const PARTITIONS_MAX: u32 = 1000;

/// See the file head.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    groups: Vec<Group>,
    rest: Setup,
}

#[derive(Clone, Debug)]
struct Group {
    include: Vec<Regex>,
    exclude: Vec<Regex>,
    setup: Setup,
}

/// What a new topic is told beside what a captured topic has by itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Setup {
    /// None = the cluster's default.
    pub replication: Option<u16>,
    /// Of the topic of events; more than one of no other.
    pub partitions: Option<NonZeroU32>,
    pub configs: BTreeMap<String, String>,
}

impl Setup {
    /// Settings of a new topic: these, and of `own` what they do not name.
    pub fn over(&self, own: Vec<(String, String)>) -> Vec<(String, String)> {
        let mut out: BTreeMap<String, String> = own.into_iter().collect();
        out.extend(self.configs.clone());
        out.into_iter().collect()
    }

    /// True if records without a key would be refused.
    pub fn compacts(&self) -> bool {
        self.configs.get("cleanup.policy").is_some_and(|p| p.split(',').any(|w| w.trim() == "compact"))
    }
}

/// Key and what is wrong with it.
type Faults = Vec<(String, String)>;

impl Creation {
    /// From all properties of a source; others are passed over.
    /// `has_events`: topics may be made that are no table's.
    pub fn parse(all: &BTreeMap<&str, &str>, has_events: bool) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let named = all.get("topic.creation.groups").copied().unwrap_or_default();
        let mut names: Vec<&str> = named.split(',').map(str::trim).filter(|n| !n.is_empty() && *n != DEFAULT).collect();
        if names.len() > GROUPS_MAX {
            faults.push(("topic.creation.groups".to_owned(), format!("at most {GROUPS_MAX} groups")));
        }
        let rest = setup(all, DEFAULT, &Setup::default(), has_events, &mut faults);
        let mut groups = Vec::new();
        for name in &names {
            let key = format!("{FAMILY}{name}.include");
            if !all.contains_key(key.as_str()) {
                faults.push((key, "must be given for a group".to_owned()));
            }
            groups.push(Group {
                include: expressions(all, name, "include", &mut faults),
                exclude: expressions(all, name, "exclude", &mut faults),
                setup: setup(all, name, &rest, has_events, &mut faults),
            });
        }
        names.push(DEFAULT);
        let is_known = |k: &str| names.iter().any(|n| k.strip_prefix(n).is_some_and(|rest| rest.starts_with('.')));
        let of = |k: &&&str| k.strip_prefix(FAMILY).is_some_and(|rest| rest != "groups" && !is_known(rest));
        let unknown = all.keys().filter(of);
        faults
            .extend(unknown.map(|k| ((*k).to_owned(), "`topic.creation.groups` does not name this group".to_owned())));
        if faults.is_empty() { Ok(Creation { groups, rest }) } else { Err(faults) }
    }

    /// What a topic is told when it is made.
    pub fn of(&self, topic: &str) -> &Setup {
        let fits = |list: &[Regex]| list.iter().any(|r| r.is_match(topic));
        let group = self.groups.iter().find(|g| fits(&g.include) && !fits(&g.exclude));
        group.map_or(&self.rest, |g| &g.setup)
    }
}

fn setup(all: &BTreeMap<&str, &str>, group: &str, rest: &Setup, has_events: bool, faults: &mut Faults) -> Setup {
    let prefix = format!("{FAMILY}{group}.");
    let mut out = Setup { configs: BTreeMap::new(), ..rest.clone() };
    for (key, value) in all.iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?, v.trim()))) {
        let mut wrong = |why: &str| faults.push((format!("{prefix}{key}"), why.to_owned()));
        match (key, value.parse::<i64>()) {
            ("include" | "exclude", _) if group != DEFAULT => {}
            ("partitions", Ok(-1)) => out.partitions = None,
            ("partitions", Ok(n)) if n == 1 || has_events && (1..=i64::from(PARTITIONS_MAX)).contains(&n) => {
                out.partitions = NonZeroU32::new(n as u32);
            }
            ("partitions", _) if has_events => wrong("a number up to 1000, or -1 for the cluster's default"),
            ("partitions", Ok(2..)) => {
                wrong("a captured topic has one partition, so that its transactions stand in order: 1 or -1");
            }
            ("partitions", _) => wrong("1, or -1 for the cluster's default, which is 1 for a captured topic"),
            ("replication.factor", Ok(-1)) => out.replication = None,
            ("replication.factor", Ok(n)) if (1..=i64::from(i16::MAX)).contains(&n) => out.replication = Some(n as u16),
            ("replication.factor", _) => wrong("a number of nodes, or -1 for the cluster's default"),
            _ => drop(out.configs.insert(key.to_owned(), value.to_owned())),
        }
    }
    out
}

fn expressions(all: &BTreeMap<&str, &str>, group: &str, which: &str, faults: &mut Faults) -> Vec<Regex> {
    let key = format!("{FAMILY}{group}.{which}");
    let list = all.get(key.as_str()).copied().unwrap_or_default();
    let mut out = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match Regex::new(&format!("^(?:{part})$")) {
            Ok(regex) => out.push(regex),
            Err(e) => faults.push((key.clone(), format!("`{part}` is no regular expression of Catchwater: {e}"))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(given: &[(&'static str, &'static str)]) -> Result<Creation, Faults> {
        Creation::parse(&given.iter().copied().collect(), false)
    }

    #[test]
    fn the_first_group_that_a_name_fits_says_how_a_topic_is_made() {
        let of = parsed(&[
            ("topic.creation.groups", "big, all"),
            ("topic.creation.default.replication.factor", "3"),
            ("topic.creation.default.partitions", "-1"),
            ("topic.creation.default.cleanup.policy", "delete"),
            ("topic.creation.big.include", "s\\.p\\.a.*, s\\.p\\.b"),
            ("topic.creation.big.exclude", ".*x"),
            ("topic.creation.big.retention.ms", "7"),
            ("topic.creation.all.include", "s\\.p\\.c"),
            ("topic.creation.all.replication.factor", "-1"),
        ])
        .unwrap();
        let configs = |topic| of.of(topic).configs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        assert_eq!((configs("s.p.ab"), of.of("s.p.ab").replication), (vec!["retention.ms=7".to_owned()], Some(3)));
        assert_eq!(configs("s.p.ax"), ["cleanup.policy=delete"], "taken out again");
        assert_eq!((configs("s.p.c").len(), of.of("s.p.c").replication), (0, None));
        let own = vec![("cleanup.policy".to_owned(), "compact".to_owned()), ("a".to_owned(), "b".to_owned())];
        let over = of.of("s.p.z").over(own);
        assert_eq!(over, [("a".into(), "b".into()), ("cleanup.policy".into(), "delete".into())]);
        assert_eq!(parsed(&[]).unwrap().of("t"), &Setup::default());
    }

    #[test]
    fn what_a_captured_topic_cannot_be_is_refused() {
        let wrong = parsed(&[
            ("topic.creation.groups", "g"),
            ("topic.creation.default.partitions", "3"),
            ("topic.creation.g.replication.factor", "0"),
            ("topic.creation.g.exclude", "("),
            ("topic.creation.h.include", "a"),
        ])
        .unwrap_err();
        let keys: Vec<&str> = wrong.iter().map(|(k, _)| k.as_str()).collect();
        let rest = ["g.include", "g.exclude", "g.replication.factor", "h.include"];
        assert_eq!(keys[0], "topic.creation.default.partitions");
        assert_eq!(keys[1..], rest.map(|k| format!("topic.creation.{k}")));
        assert!(wrong[0].1.contains("one partition"));
    }
}
