//! Pure. What a new text of a pipeline would change: one step per node, each with a class. What would leave a target
//! wrong without a word is not a step but a refusal, with the way round it.
//!
//! ```text
//!  stored revision ─┐
//!                   ├─▶ steps ─▶ shown by `plan`, counted into its hash, done by `apply`
//!  new text ────────┘
//! ```

use super::model::{Component, Pipeline, Sink, Source};
use catchwater_capture::SnapshotMode;
use std::collections::{BTreeMap, BTreeSet};

/// What a step costs, mildest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Changes nothing that runs.
    Live,
    /// A task starts again where it was.
    Restart,
    /// A target is filled from the log.
    Rebuild,
    /// A source's rows are read.
    Resnapshot,
    /// Something is given up for good: a slot, a position.
    Destructive,
    /// Not done at all.
    Refused,
}

impl Class {
    pub fn word(self) -> &'static str {
        match self {
            Class::Live => "live",
            Class::Restart => "restart",
            Class::Rebuild => "rebuild",
            Class::Resnapshot => "resnapshot",
            Class::Destructive => "destructive",
            Class::Refused => "refused",
        }
    }
}

/// One line of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub class: Class,
    /// `source shop`, `sink copy`.
    pub node: String,
    pub what: String,
    /// What to do instead, or to know before; may be empty.
    pub next: String,
}

fn step(class: Class, node: &str, what: impl Into<String>) -> Step {
    Step { class, node: node.to_owned(), what: what.into(), next: String::new() }
}

impl Step {
    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }
}

/// From `old` (`None` = there is no such pipeline) to `new` (`None` = it is deleted), sources first.
pub fn steps(old: Option<&Pipeline>, new: Option<&Pipeline>) -> Vec<Step> {
    let mut out = Vec::new();
    let (no_sources, no_sinks) = (BTreeMap::new(), BTreeMap::new());
    let (was, is) = (old.map_or(&no_sources, |p| &p.sources), new.map_or(&no_sources, |p| &p.sources));
    for name in names(was, is) {
        let node = format!("source {name}");
        match (was.get(name), is.get(name)) {
            (None, Some(s)) => out.push(new_source(&node, s)),
            (Some(s), None) => out.push(gone_source(&node, name, s)),
            (Some(a), Some(b)) => changed_source(&node, a, b, &mut out),
            (None, None) => {}
        }
    }
    let (was, is) = (old.map_or(&no_sinks, |p| &p.sinks), new.map_or(&no_sinks, |p| &p.sinks));
    for name in names(was, is) {
        let node = format!("sink {name}");
        match (was.get(name), is.get(name)) {
            (None, Some(s)) => out.push(step(
                Class::Rebuild,
                &node,
                format!("new: fills its tables from the log of {} ({})", s.source(), s.from.join(", ")),
            )),
            (Some(_), None) => out.push(
                step(Class::Destructive, &node, "its task ends and its position in the target is removed")
                    .next("its tables stay as they are; the same name again would begin at the start of the log"),
            ),
            (Some(a), Some(b)) => changed_sink(&node, a, b, &mut out),
            (None, None) => {}
        }
    }
    out
}

fn names<'a, T>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> BTreeSet<&'a str> {
    a.keys().chain(b.keys()).map(String::as_str).collect()
}

fn new_source(node: &str, s: &Source) -> Step {
    let tables = s.tables.join(", ");
    match s.snapshot {
        SnapshotMode::NoData => step(Class::Restart, node, format!("new: follows the changes of {tables} from now on")),
        SnapshotMode::InitialOnly => {
            step(Class::Resnapshot, node, format!("new: reads the rows of {tables}, and then nothing more"))
        }
        SnapshotMode::Initial | SnapshotMode::Always => {
            step(Class::Resnapshot, node, format!("new: reads the rows of {tables}, then follows their changes"))
        }
    }
}

fn gone_source(node: &str, name: &str, s: &Source) -> Step {
    let made = match &s.component {
        Component::Postgres { slot, .. } => {
            format!("slot {} and its publication are dropped", slot.clone().unwrap_or(format!("catchwater_{name}")))
        }
        Component::Sqlite { .. } => "its triggers and tables in the file are removed".to_owned(),
    };
    step(Class::Destructive, node, format!("capture ends, {made}"))
        .next("its topics stay; the changes from now on are lost to it, so capture again means a new source name")
}

/// A source of PostgreSQL that goes on at another URL.
pub fn is_moved(was: &Component, now: &Component) -> bool {
    matches!((was, now), (Component::Postgres { url: a, .. }, Component::Postgres { url: b, .. }) if a != b)
}

fn changed_source(node: &str, a: &Source, b: &Source, out: &mut Vec<Step>) {
    let instead = "give the new one another source name";
    match (&a.component, &b.component) {
        (
            Component::Postgres { url: ua, slot: sa, publication: pa, streaming: ta, failover: fa, binary: ba, .. },
            Component::Postgres { url: ub, slot: sb, publication: pb, streaming: tb, failover: fb, binary: bb, .. },
        ) => {
            if sa != sb {
                out.push(
                    step(Class::Refused, node, "another slot does not hold what this capture has not read yet")
                        .next(instead),
                );
            }
            if ua != ub {
                out.push(
                    step(Class::Restart, node, "another url: goes on at its position")
                        .next("it must be the same database, or the server that took its place with the slot"),
                );
            }
            if ta != tb || ba != bb {
                out.push(step(Class::Restart, node, "the stream comes in another form, with the same changes"));
            }
            if fa != fb {
                out.push(
                    step(Class::Refused, node, "`failover` is a property of the slot, which exists").next(instead),
                );
            }
            if pa != pb {
                out.push(step(Class::Restart, node, "another publication"));
            }
        }
        (Component::Sqlite { file: fa }, Component::Sqlite { file: fb }) if fa != fb => {
            out.push(
                step(Class::Restart, node, "another file: goes on at its position")
                    .next("it must be the same database, moved"),
            );
        }
        (Component::Sqlite { .. }, Component::Sqlite { .. }) => {}
        _ => out.push(step(Class::Refused, node, "another kind of system is another history").next(instead)),
    }
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (a.tables.iter().collect(), b.tables.iter().collect());
    let list = |of: Vec<&&String>| of.into_iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
    let (more, less) = (list(is.difference(&was).collect()), list(was.difference(&is).collect()));
    if !more.is_empty() {
        out.push(
            step(Class::Restart, node, format!("captures {more}, too, from now on")).next(
                "the rows that they have already are read beside the stream; not so with snapshot mode `no_data`",
            ),
        );
    }
    if !less.is_empty() {
        out.push(step(Class::Restart, node, format!("no longer captures {less}; topics stay")));
    }
    if (&a.debezium, a.fill_unchanged) != (&b.debezium, b.fill_unchanged) {
        out.push(
            step(Class::Restart, node, "other Debezium properties: records have the new form from now on")
                .next("those in the topics stay as they are; after an unclean stop the new ones are refused (CW0590)"),
        );
    }
    out.extend(changed_snapshot(node, a.snapshot, b.snapshot));
}

fn changed_snapshot(node: &str, a: SnapshotMode, b: SnapshotMode) -> Option<Step> {
    if a == b {
        return None;
    }
    Some(match (a, b) {
        (_, SnapshotMode::InitialOnly) => {
            step(Class::Destructive, node, "capture ends when its snapshot is whole, and its slot is dropped")
                .next("the changes from then on are lost to it")
        }
        (_, SnapshotMode::Always) => step(Class::Resnapshot, node, "reads all rows again, now and at each later start"),
        (SnapshotMode::InitialOnly, _) => {
            step(Class::Restart, node, "follows changes, if its snapshot is not whole yet")
                .next("one that is has no slot any more (CW0514): catchwater pipeline reset")
        }
        (SnapshotMode::Always, _) => step(Class::Restart, node, "does not read its rows again when it starts"),
        _ => step(Class::Live, node, "snapshot.mode has an effect on a first start only"),
    })
}

fn changed_sink(node: &str, a: &Sink, b: &Sink, out: &mut Vec<Step>) {
    let instead = "give the new one another sink name: it is filled from the log";
    match (&a.component, &b.component) {
        (Component::Postgres { url: ua, schema: sa, .. }, Component::Postgres { url: ub, schema: sb, .. }) => {
            if sa.as_deref().unwrap_or("public") != sb.as_deref().unwrap_or("public") {
                let what = "tables in another schema would lack every row that was delivered before";
                out.push(step(Class::Refused, node, what).next(instead));
            }
            if ua != ub {
                out.push(
                    step(Class::Restart, node, "another url: goes on at the position that this target holds")
                        .next("a target without one is filled from the start of the log"),
                );
            }
        }
        (Component::Sqlite { file: fa }, Component::Sqlite { file: fb }) if fa != fb => {
            out.push(
                step(Class::Restart, node, "another file: goes on at the position that this file holds")
                    .next("a file without one is filled from the start of the log"),
            );
        }
        (Component::Sqlite { .. }, Component::Sqlite { .. }) => {}
        _ => {
            out.push(step(Class::Refused, node, "another kind of system is another target").next(instead));
            return;
        }
    }
    if a.source() != b.source() {
        out.push(step(Class::Refused, node, "reads another source: positions do not carry over").next(instead));
    } else {
        let (was, is): (BTreeSet<_>, BTreeSet<_>) =
            (a.from.iter().chain(&a.topics).collect(), b.from.iter().chain(&b.topics).collect());
        if is.difference(&was).next().is_some() {
            out.push(
                step(Class::Restart, node, "reads more tables")
                    .next("tables the source captured before stop it (CW0674): a new sink name is filled from the log"),
            );
        } else if was != is {
            out.push(step(Class::Restart, node, "reads fewer tables; theirs stay as they are"));
        }
        // A table that is written elsewhere from now on would lack its old rows there.
        let moved: Vec<&String> = names(&a.tables, &b.tables)
            .into_iter()
            .filter_map(|t| {
                let (table, _) = a.tables.get_key_value(t).or_else(|| b.tables.get_key_value(t))?;
                (a.target_name(table) != b.target_name(table)).then_some(table)
            })
            .collect();
        let listed = names(&a.tables, &b.tables);
        let chosen = |s: &Sink, t: &str| (s.columns(t).clone(), s.other_columns.clone());
        if listed.iter().any(|t| chosen(a, t) != chosen(b, t)) || a.other_columns != b.other_columns {
            out.push(step(Class::Restart, node, "other columns, or other names of them, from now on").next(
                "rows that were delivered stay as they are until they change; catchwater sink rebuild fills the tables anew",
            ));
        }
        if a.naming != b.naming {
            let what = "other names of tables: theirs would lack the rows delivered before";
            out.push(step(Class::Refused, node, what).next(instead));
        }
        for table in moved {
            let what = format!(
                "{table} would go to `{}` instead of `{}`, without the rows delivered before",
                b.target_name(table),
                a.target_name(table)
            );
            out.push(step(Class::Refused, node, what).next(instead));
        }
    }
    if a.mode != b.mode {
        let what = format!("mode {} instead of {}: the target has another shape and other rows", b.mode, a.mode);
        out.push(step(Class::Refused, node, what).next("give the sink another name and other target tables"));
    }
    if (a.deletes, a.truncates) != (b.deletes, b.truncates) {
        out.push(
            step(Class::Restart, node, "another answer to deletes and truncates, from now on")
                .next("rows that were left or removed before stay as they are"),
        );
    }
    if a.additive != b.additive {
        out.push(step(Class::Restart, node, "another answer to tables and columns that the target lacks"));
    }
    if a.park != b.park {
        out.push(step(Class::Restart, node, "another answer to rows that the target refuses"));
    }
    let batch = |s: &Sink| (s.batch_rows, s.batch_bytes, s.linger_ms, s.lanes);
    if batch(a) != batch(b) {
        out.push(step(Class::Restart, node, "another batch size, or another number of lanes"));
    }
}

/// Sources and targets of another pipeline that this one would use, too: each is a refusal.
pub fn clashes(new: &Pipeline, other: &Pipeline) -> Vec<Step> {
    let mut out = Vec::new();
    for name in new.sources.keys().filter(|n| other.sources.contains_key(*n)) {
        let what = format!("pipeline {} has a source of this name: its topics would be the same", other.name);
        out.push(step(Class::Refused, &format!("source {name}"), what).next("give it another name"));
    }
    for (name, sink) in &new.sinks {
        let theirs = other.sinks.iter().find(|(_, s)| {
            s.component.place() == sink.component.place()
                && targets(new, sink).intersection(&targets(other, s)).next().is_some()
        });
        if let Some((theirs, _)) = theirs {
            let what = format!("sink {theirs} of pipeline {} writes a table of this target", other.name);
            out.push(step(Class::Refused, &format!("sink {name}"), what).next("give the table another name"));
        }
    }
    out
}

/// Schemas and names of the tables a sink writes, as far as the text tells.
fn targets(p: &Pipeline, sink: &Sink) -> BTreeSet<(String, String)> {
    let source = sink.source();
    let Some(of) = p.sources.get(source) else {
        // What an expression fits is known when topics are there.
        if sink.topics.is_some() {
            return BTreeSet::new();
        }
        // Of another pipeline: its tables are named one by one.
        return sink.from.iter().map(|t| sink.target(t, None)).collect();
    };
    sink.from
        .iter()
        .flat_map(|f| of.table_names(f, source))
        .map(|t| sink.target(&format!("{source}.{t}"), Some(of)))
        .filter(|(schema, table)| !schema.contains('*') && !table.contains('*'))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::check::{Options, check};
    use super::*;

    const TEXT: &str = "\
version: 1
pipeline: p
sources:
  shop:
    postgres: { url: 'postgres://h/a', tables: [orders, items] }
sinks:
  copy:
    from: shop.public.orders
    postgres: { url: 'postgres://h/b' }
";

    fn pipeline(text: &str) -> Pipeline {
        let (p, findings) = check(text.as_bytes(), Options { plain_secrets: true });
        p.unwrap_or_else(|| panic!("{findings:?}"))
    }

    /// Classes and nodes of the steps from TEXT to TEXT with each `a` replaced by its `b`.
    fn changed(edits: &[(&str, &str)]) -> Vec<String> {
        let mut text = TEXT.to_owned();
        for (a, b) in edits {
            assert!(text.contains(a), "{a}");
            text = text.replace(a, b);
        }
        let (old, new) = (pipeline(TEXT), pipeline(&text));
        steps(Some(&old), Some(&new)).iter().map(|s| format!("{} {}", s.class.word(), s.node)).collect()
    }

    #[test]
    fn each_change_has_its_class() {
        assert_eq!(changed(&[]), [""; 0]);
        assert_eq!(changed(&[("h/a'", "h2/a'")]), ["restart source shop"]);
        assert_eq!(changed(&[("h/a',", "h/a', slot: other,")]), ["refused source shop"]);
        assert_eq!(changed(&[("h/a',", "h/a', publication: other,")]), ["restart source shop"]);
        assert_eq!(changed(&[("[orders, items]", "[orders, items, more]")]), ["restart source shop"]);
        assert_eq!(changed(&[("[orders, items]", "[orders]")]), ["restart source shop"]);
        let properties = "items] }\n    debezium: { decimal.handling.mode: string }";
        assert_eq!(changed(&[("items] }", properties)]), ["restart source shop"]);
        assert_eq!(
            changed(&[("items] }", "items] }\n    snapshot: { mode: no_data }")]),
            ["live source shop"],
            "no effect after the first start"
        );
        let mode = |mode: &str| format!("items] }}\n    snapshot: {{ mode: {mode} }}");
        assert_eq!(changed(&[("items] }", &mode("always"))]), ["resnapshot source shop"]);
        assert_eq!(changed(&[("items] }", &mode("initial_only"))]), ["destructive source shop"], "the slot goes");
        assert_eq!(changed(&[("h/b'", "h/c'")]), ["restart sink copy"]);
        assert_eq!(changed(&[("h/b'", "h/b', schema: s")]), ["refused sink copy"]);
        assert_eq!(changed(&[("h/b'", "h/b', schema: public")]), [""; 0], "the default, spelled out");
        assert_eq!(changed(&[("from: shop.public.orders", "from: shop")]), ["restart sink copy"]);
        assert_eq!(
            changed(&[("from: shop.public.orders", "from: shop.public.orders\n    batch: { rows: 5 }")]),
            ["restart sink copy"]
        );
        let with = |more: &str| format!("from: shop.public.orders\n    {more}");
        assert_eq!(changed(&[("from: shop.public.orders", &with("mode: append"))]), ["refused sink copy"]);
        let parks = with("on_error: { row: park_key }");
        assert_eq!(changed(&[("from: shop.public.orders", &parks)]), ["restart sink copy"]);
        let renamed = "h/b' }\n    tables: { shop.public.orders: { name: o2 } }";
        assert_eq!(changed(&[("h/b' }", renamed)]), ["refused sink copy"]);
        assert_eq!(
            changed(&[("postgres: { url: 'postgres://h/b' }", "sqlite: { file: x.db }")]),
            ["refused sink copy"]
        );
        assert_eq!(
            changed(&[("  copy:", "  copy2:")]),
            ["destructive sink copy", "rebuild sink copy2"],
            "another name is another sink"
        );
    }

    #[test]
    fn a_new_pipeline_reads_and_fills_and_a_deleted_one_gives_up() {
        let p = pipeline(TEXT);
        let words = |s: Vec<Step>| s.iter().map(|s| s.class.word()).collect::<Vec<_>>();
        assert_eq!(words(steps(None, Some(&p))), ["resnapshot", "rebuild"]);
        let gone = steps(Some(&p), None);
        assert!(gone[0].what.contains("catchwater_shop"), "{gone:?}");
        assert_eq!(words(gone), ["destructive", "destructive"]);
    }

    #[test]
    fn two_pipelines_share_neither_a_source_name_nor_a_target_table() {
        let p = pipeline(TEXT);
        let q = |edits: &[(&str, &str)]| {
            let mut text = TEXT.replace("pipeline: p", "pipeline: q");
            for (a, b) in edits {
                text = text.replace(a, b);
            }
            clashes(&pipeline(&text), &p).iter().map(|s| s.node.clone()).collect::<Vec<_>>()
        };
        assert_eq!(q(&[]), ["source shop", "sink copy"]);
        assert_eq!(q(&[("shop", "shop2")]), ["sink copy"]);
        assert_eq!(q(&[("shop", "shop2"), ("h/b", "h/c")]), [""; 0]);
        assert_eq!(q(&[("shop", "shop2"), ("public.orders", "public.items")]), [""; 0]);
    }
}
