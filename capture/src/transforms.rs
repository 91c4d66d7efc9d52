//! Pure. `transforms` and `predicates` of a source: those of Kafka's and Debezium's that are served, by their names and in
//! their words, and what they make of the records of a topic ([`Placed`]). Those that change the records themselves are in
//! `connect.rs`; what they do is done where records are made.
//!
//! ```text
//! transforms: unwrap, route
//! transforms.unwrap.type: io.debezium.transforms.ExtractNewRecordState   → flat rows
//! transforms.route.type: org.apache.kafka.connect.transforms.RegexRouter → another topic
//! ```
//! They run in the order in which they are listed; each sees the topic that those before it gave. What one of them decides
//! depends on the topic's name alone, so it is decided once per table; but for an outbox router, behind which each row has a
//! topic of its own. A name's expression must fit the whole topic, and the
//! first place that it fits is replaced: `Matcher.matches`, then `replaceFirst`. Source: Kafka 4.3 `RegexRouter`, `TopicNameMatches`;
//! Debezium 3.7 `ToLogicalTopicRouter`, `ExtractNewRecordState`.

mod connect;
mod outbox;

use catchwater_change::connect::smt::Smt;
use catchwater_change::encode::debezium_json::{
    Added, Deletes, Flat, Link, NameMode, Outbox, Part, Placed, Places, When,
};
use regex_lite::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const REGEX_ROUTER: &str = "org.apache.kafka.connect.transforms.RegexRouter";
const BY_TABLE: &str = "io.debezium.transforms.ByLogicalTableRouter";
const TO_TOPIC: &str = "io.debezium.transforms.ToLogicalTopicRouter";
const UNWRAP: &str = "io.debezium.transforms.ExtractNewRecordState";
/// The class of outbox routers.
pub const OUTBOX: &str = "io.debezium.transforms.outbox.EventRouter";
const FILTER: &str = "org.apache.kafka.connect.transforms.Filter";
const TOPIC_MATCHES: &str = "org.apache.kafka.connect.transforms.predicates.TopicNameMatches";
const IS_TOMBSTONE: &str = "org.apache.kafka.connect.transforms.predicates.RecordIsTombstone";
const HAS_HEADER: &str = "org.apache.kafka.connect.transforms.predicates.HasHeaderKey";
/// Most transforms of a source.
const STEPS_MAX: usize = 32;

/// A property that begins with one of these is one of a transform or predicate.
pub const FAMILIES: [&str; 2] = ["transforms.", "predicates."];

/// See the file head.
#[derive(Clone, Debug, Default)]
pub struct Transforms {
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    name: String,
    /// The topics that it is for; `true` = all others.
    only: Option<(Regex, bool)>,
    /// The records that it is for.
    when: When,
    what: What,
}

/// A topic has something else than rows, by these transforms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoRows {
    Changed(Vec<String>),
    Events(String),
}

/// A predicate.
#[derive(Clone, Debug)]
enum Only {
    Topic(Regex),
    Tombstone,
    Header(String),
}

#[derive(Clone, Debug)]
enum What {
    Rename(Rename),
    Logical(Box<Logical>),
    Unwrap(Arc<Flat>),
    Outbox(Arc<Outbox>, Box<Rename>),
    Change(Box<Smt>),
    Filter,
    /// It changes nothing of what a source here writes.
    Nothing,
}

#[derive(Clone, Debug)]
struct Logical {
    rename: Rename,
    /// Of the field that says which table a key is of; none = it is not added.
    field: Option<String>,
    /// What the field says; none = the topic before.
    identifier: Option<Rename>,
    names: NameMode,
}

/// An expression over a whole topic, and what stands in its place.
#[derive(Clone, Debug)]
pub struct Rename {
    whole: Regex,
    part: Regex,
    to: Replacement,
}

impl Rename {
    /// The error says what is wrong with which of the two.
    pub fn new(regex: &str, replacement: &str) -> Result<Rename, (bool, String)> {
        let made = |text: &str| {
            let why = "is no regular expression of Catchwater";
            Regex::new(text).map_err(|e| (true, format!("`{regex}` {why}: {e} (look-around is not known)")))
        };
        let part = made(regex)?;
        let to = Replacement::parse(replacement, &part).map_err(|why| (false, why))?;
        Ok(Rename { whole: made(&format!("^(?:{regex})$"))?, part, to })
    }

    /// The new name; none = the expression does not fit.
    pub fn apply(&self, name: &str) -> Option<String> {
        if !self.whole.is_match(name) {
            return None;
        }
        let Some(found) = self.part.captures(name) else { return Some(name.to_owned()) };
        let Some(at) = found.get(0) else { return Some(name.to_owned()) };
        let mut out = name[..at.start()].to_owned();
        self.to.put(&mut out, &found);
        out.push_str(&name[at.end()..]);
        Some(out)
    }
}

/// Java's replacement: `$1`, `${name}`, `\$`. A number takes as many digits as there is a group for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replacement(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    Group(usize),
    Named(String),
}

impl Replacement {
    fn parse(text: &str, regex: &Regex) -> Result<Self, String> {
        let groups = regex.captures_len();
        let mut out = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let token = match c {
                '\\' => Token::Char(chars.next().ok_or("a character is missing behind the last `\\`")?),
                '$' if chars.next_if_eq(&'{').is_some() => {
                    let name: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_alphanumeric)).collect();
                    if chars.next() != Some('}') || !regex.capture_names().flatten().any(|n| n == name) {
                        return Err(format!("`${{{name}}}` names no group of the expression"));
                    }
                    Token::Named(name)
                }
                '$' => {
                    let digit = |c: char| c.to_digit(10).map(|d| d as usize);
                    let first =
                        chars.next().and_then(digit).ok_or("`$` wants a group's number or ${name}; `\\$` is a `$`")?;
                    if first >= groups {
                        return Err(format!("the expression has no group {first}"));
                    }
                    let mut group = first;
                    while let Some(more) = chars.peek().copied().and_then(digit)
                        && group * 10 + more < groups
                    {
                        group = group * 10 + more;
                        chars.next();
                    }
                    Token::Group(group)
                }
                other => Token::Char(other),
            };
            out.push(token);
        }
        Ok(Replacement(out))
    }

    fn put(&self, out: &mut String, found: &regex_lite::Captures<'_>) {
        for token in &self.0 {
            match token {
                Token::Char(c) => out.push(*c),
                Token::Group(n) => out.push_str(found.get(*n).map_or("", |m| m.as_str())),
                Token::Named(name) => out.push_str(found.name(name).map_or("", |m| m.as_str())),
            }
        }
    }
}

/// Key and what is wrong with it.
type Faults = Vec<(String, String)>;

/// The properties of one transform or predicate.
struct Own<'p> {
    prefix: String,
    given: BTreeMap<&'p str, &'p str>,
    known: BTreeSet<&'static str>,
    faults: Faults,
}

impl<'p> Own<'p> {
    fn of(family: &str, name: &str, all: &BTreeMap<&'p str, &'p str>) -> Self {
        let prefix = format!("{family}{name}.");
        let given = all.iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?, *v))).collect();
        Own { prefix, given, known: ["type"].into(), faults: Vec::new() }
    }
    fn get(&mut self, key: &'static str) -> Option<&'p str> {
        self.known.insert(key);
        self.given.get(key).copied()
    }
    fn required(&mut self, key: &'static str) -> &'p str {
        let found = self.get(key).filter(|v| !v.is_empty());
        if found.is_none() {
            self.wrong(key, "must be given");
        }
        found.unwrap_or_default()
    }
    /// A list that is not empty.
    fn names(&mut self, key: &'static str) -> Vec<String> {
        list(self.required(key))
    }
    fn flag(&mut self, key: &'static str, default: bool) -> bool {
        match self.get(key).map(|v| v.trim().to_ascii_lowercase()).as_deref() {
            None | Some("") => default,
            Some("true") => true,
            Some("false") => false,
            Some(_) => {
                self.wrong(key, "one of true, false");
                default
            }
        }
    }
    fn wrong(&mut self, key: &str, why: impl Into<String>) {
        self.faults.push((format!("{}{key}", self.prefix), why.into()));
    }
    fn rename(&mut self, regex: &'static str, replacement: &'static str) -> Option<Rename> {
        let (from, to) = (self.required(regex), self.get(replacement).unwrap_or_default());
        if !self.given.contains_key(replacement) {
            self.wrong(replacement, "must be given");
        }
        match Rename::new(from, to) {
            Ok(made) => Some(made),
            Err((is_regex, why)) => {
                self.wrong(if is_regex { regex } else { replacement }, why);
                None
            }
        }
    }
    /// What nobody asked for is what nobody does.
    fn done(mut self, faults: &mut Faults) {
        let unknown: Vec<&str> = self.given.keys().filter(|k| !self.known.contains(**k)).copied().collect();
        for key in unknown {
            let known = self.known.iter().filter(|k| **k != "type").copied().collect::<Vec<_>>().join(", ");
            self.wrong(key, format!("not an option that is served here: {known}"));
        }
        faults.append(&mut self.faults);
    }
}

impl Transforms {
    /// From all properties of a source; others than the transforms' are passed over.
    pub fn parse(all: &BTreeMap<&str, &str>) -> Result<Self, Faults> {
        let (mut out, mut faults) = (Transforms::default(), Vec::new());
        let names = |key| all.get(key).map_or(Vec::new(), |v| list(v));
        let (steps, predicates) = (names("transforms"), names("predicates"));
        for (family, listed) in [("transforms", &steps), ("predicates", &predicates)] {
            let of = |k: &str| k.strip_prefix(family)?.strip_prefix('.')?.split('.').next().map(str::to_owned);
            let unlisted = all.keys().filter(|k| of(k).is_some_and(|name| !listed.contains(&name)));
            faults.extend(unlisted.map(|k| ((*k).to_owned(), format!("`{family}` does not name it"))));
            let twice = listed.iter().collect::<BTreeSet<_>>().len() < listed.len() || listed.len() > STEPS_MAX;
            faults.extend(twice.then(|| (family.to_owned(), format!("different names, at most {STEPS_MAX}"))));
        }
        let mut known = BTreeMap::new();
        for name in &predicates {
            let mut own = Own::of("predicates.", name, all);
            match own.given.get("type").copied().unwrap_or_default() {
                TOPIC_MATCHES => {
                    let text = own.required("pattern");
                    match Regex::new(&format!("^(?:{text})$")) {
                        Ok(regex) => drop(known.insert(name.clone(), Only::Topic(regex))),
                        Err(e) => own.wrong("pattern", format!("`{text}` is no regular expression of Catchwater: {e}")),
                    }
                    own.done(&mut faults);
                }
                IS_TOMBSTONE => {
                    known.insert(name.clone(), Only::Tombstone);
                    own.done(&mut faults);
                }
                HAS_HEADER => {
                    known.insert(name.clone(), Only::Header(own.required("name").to_owned()));
                    own.done(&mut faults);
                }
                other => faults.push((
                    format!("predicates.{name}.type"),
                    format!("`{other}` is not served here; {TOPIC_MATCHES}, {IS_TOMBSTONE}, {HAS_HEADER} are"),
                )),
            }
        }
        for name in &steps {
            let mut own = Own::of("transforms.", name, all);
            let negate = own.flag("negate", false);
            let predicate = own.get("predicate").map(str::trim).filter(|p| !p.is_empty());
            let (mut only, mut when) = (None, When::Always);
            match predicate.and_then(|p| known.get(p)) {
                Some(Only::Topic(regex)) => only = Some((regex.clone(), negate)),
                Some(Only::Tombstone) => when = When::IsTombstone(negate),
                Some(Only::Header(name)) => when = When::HasHeader(name.clone(), negate),
                None => {}
            }
            if let Some(p) = predicate.filter(|p| !predicates.iter().any(|known| known == p)) {
                own.wrong("predicate", format!("`predicates` does not name {p}"));
            }
            let class = own.given.get("type").copied().unwrap_or_default();
            let is_change = |s: &Step| matches!(s.what, What::Change(_));
            let what = match class {
                REGEX_ROUTER => own.rename("regex", "replacement").map(What::Rename),
                BY_TABLE => logical(&mut own, "__dbz__physicalTableIdentifier").map(|l| What::Logical(Box::new(l))),
                TO_TOPIC => logical(&mut own, "__dbz__sourceIdentifier").map(|l| What::Logical(Box::new(l))),
                UNWRAP => {
                    let again = out.steps.iter().any(|s| matches!(s.what, What::Unwrap(_)));
                    if again {
                        own.wrong("type", "a row has one envelope");
                    }
                    let early = out.steps.iter().find(|s| match &s.what {
                        What::Change(smt) => !adds_header(smt) && !keeps_fields(smt),
                        _ => false,
                    });
                    let parts = out.steps.iter().find(|s| match &s.what {
                        What::Change(smt) => matches!(&**smt, Smt::Zones(z) if z.rules.names_parts()),
                        _ => false,
                    });
                    if let Some(by_part) = parts {
                        let why =
                            "names fields with before., after. or source.: it must stand behind, or name them without";
                        own.wrong("type", format!("{} {why}", by_part.name));
                    }
                    if let Some(early) = early {
                        own.wrong("type", format!("it must stand before {}, which would change envelopes", early.name));
                    }
                    Some(What::Unwrap(Arc::new(unwrap(&mut own))))
                }
                FILTER => Some(What::Filter),
                other if connect::is_nothing(other) => {
                    connect::nothing(other, &mut own);
                    Some(What::Nothing)
                }
                OUTBOX => {
                    if out.steps.iter().any(|s| matches!(s.what, What::Outbox(..))) {
                        own.wrong("type", "one router of outbox tables");
                    }
                    outbox::outbox(&mut own).map(|(outbox, rename)| What::Outbox(Arc::new(outbox), Box::new(rename)))
                }
                other => match connect::parse(other, &mut own) {
                    Some(smt) => smt.map(|smt| What::Change(Box::new(smt))),
                    None => {
                        let served = [REGEX_ROUTER, BY_TABLE, TO_TOPIC, UNWRAP, OUTBOX, FILTER].join(", ");
                        let why = connect::refused(other).map_or_else(
                            || format!("`{other}` is not served here; {served}, {} are", connect::served()),
                            |why| format!("`{other}` is not served here: {why}"),
                        );
                        faults.push((own.prefix + "type", why));
                        continue;
                    }
                },
            };
            // Where a record goes is decided once for a topic.
            let by_record = !matches!(what, Some(What::Change(_) | What::Filter | What::Nothing) | None);
            if when != When::Always && by_record {
                own.wrong("predicate", format!("of {class} a {TOPIC_MATCHES} alone"));
            }
            if matches!(what, Some(What::Filter)) {
                let unsure = |s: &Step| match &s.what {
                    What::Change(smt) => matches!(**smt, Smt::ExtractField { .. } | Smt::HoistField { .. }),
                    _ => false,
                };
                match &when {
                    When::HasHeader(..) => {
                        own.wrong("predicate", format!("of Filter {TOPIC_MATCHES} or {IS_TOMBSTONE}"))
                    }
                    When::IsTombstone(_) if out.steps.iter().any(unsure) => {
                        own.wrong("predicate", "it must stand before what extracts or hoists a value")
                    }
                    When::Always if only.is_none() => own.wrong("predicate", "without one nothing would be left"),
                    _ => {}
                }
            }
            if matches!(what, Some(What::Outbox(..))) && out.steps.iter().any(is_change)
                || matches!(what, Some(What::Change(_))) && out.steps.iter().any(|s| matches!(s.what, What::Outbox(..)))
            {
                own.wrong("type", "not beside a router of outbox tables, whose events are the row's");
            }
            own.done(&mut faults);
            out.steps.extend(what.map(|what| Step { name: name.clone(), only, when, what }));
        }
        if faults.is_empty() { Ok(out) } else { Err(faults) }
    }

    pub fn is_nothing(&self) -> bool {
        self.steps.is_empty()
    }

    /// Why a sink would find no rows in a table's topic; `None` = in every topic, whatever its name is.
    pub fn no_rows(&self, topic: Option<&str>) -> Option<NoRows> {
        let (mut at, mut changed) = (topic.map(str::to_owned), Vec::new());
        for step in &self.steps {
            let fits = at.as_ref().map_or(step.only.is_none(), |t| step.fits(t));
            match &step.what {
                _ if !fits => {}
                What::Rename(rename) => at = at.map(|t| rename.apply(&t).unwrap_or(t)),
                What::Logical(l) => at = at.map(|t| l.rename.apply(&t).filter(|to| !to.is_empty()).unwrap_or(t)),
                // What stands before it may add headers only.
                What::Unwrap(_) => changed.clear(),
                What::Outbox(..) => return Some(NoRows::Events(step.name.clone())),
                What::Change(smt) if step.link(smt, "").changes_value() => changed.push(step.name.clone()),
                What::Change(_) | What::Filter | What::Nothing => {}
            }
        }
        (!changed.is_empty()).then_some(NoRows::Changed(changed))
    }

    /// What becomes of deletes where rows lose their envelope.
    pub fn deletes(&self) -> Option<Deletes> {
        self.steps.iter().find_map(|s| match &s.what {
            What::Unwrap(flat) => Some(flat.deletes),
            _ => None,
        })
    }
}

impl Places for Transforms {
    fn table(&self, topic: &str) -> Placed {
        let mut placed = Placed { topic: topic.to_owned(), ..Placed::default() };
        for step in &self.steps {
            if !step.fits(&placed.topic) {
                continue;
            }
            match &step.what {
                What::Rename(rename) => placed.topic = rename.apply(&placed.topic).unwrap_or(placed.topic),
                What::Unwrap(flat) => {
                    placed.flat = Some(flat.clone());
                    // What is done to each field in its place is done to a flat row as well.
                    let (early, late): (Vec<Link>, Vec<Link>) =
                        std::mem::take(&mut placed.chain).into_iter().partition(|link| adds_header(&link.smt));
                    placed.before = early;
                    placed.chain = late;
                    for link in &mut placed.chain {
                        match &mut link.smt {
                            Smt::Zones(zones) => Arc::make_mut(zones).flat = true,
                            Smt::DecodeMessage { rest, .. } => *rest = flat.of_message(),
                            _ => {}
                        }
                    }
                    placed.early_drops = std::mem::take(&mut placed.drops);
                }
                What::Logical(logical) => logical.place(&mut placed),
                // A row without its envelope is not looked at.
                What::Outbox(..) if placed.flat.is_some() => {}
                What::Outbox(outbox, _) => {
                    placed.outbox = Some(outbox.clone());
                    // What follows sees events, each with its topic.
                    break;
                }
                // It looks at envelopes alone.
                What::Change(smt) if placed.flat.is_some() && **smt == Smt::SourceSchema => {}
                What::Change(smt) => placed.chain.push(step.link(smt, &placed.topic)),
                What::Nothing => {}
                What::Filter => {
                    let tombstone = |negate| step.when != When::IsTombstone(negate);
                    placed.drops.tombstones |= tombstone(true);
                    placed.drops.others |= tombstone(false);
                }
            }
        }
        placed
    }

    fn chain(&self, topic: &str) -> Vec<Link> {
        let (mut topic, mut out) = (topic.to_owned(), Vec::new());
        for step in self.steps.iter() {
            match &step.what {
                _ if !step.fits(&topic) => {}
                What::Rename(rename) => topic = rename.apply(&topic).unwrap_or(topic),
                What::Change(smt) if !matches!(**smt, Smt::DecodeMessage { .. }) => out.push(step.link(smt, &topic)),
                _ => {}
            }
        }
        out
    }

    fn has_chains(&self) -> bool {
        self.steps.iter().any(|s| matches!(s.what, What::Change(_)))
    }

    /// A logical router would change their keys, too.
    fn other(&self, topic: &str) -> Result<String, String> {
        let mut topic = topic.to_owned();
        for step in &self.steps {
            if !step.fits(&topic) {
                continue;
            }
            match &step.what {
                What::Rename(rename) => topic = rename.apply(&topic).unwrap_or(topic),
                What::Logical(logical) if logical.rename.apply(&topic).is_some_and(|t| !t.is_empty()) => {
                    return Err(format!("topic.regex of a logical router fits {topic}, which is no table's topic"));
                }
                What::Filter if step.when != When::IsTombstone(false) => {
                    return Err(format!(
                        "a Filter leaves out {topic}, which is no table's topic: give it a predicate of topics"
                    ));
                }
                What::Logical(_)
                | What::Unwrap(_)
                | What::Outbox(..)
                | What::Change(_)
                | What::Filter
                | What::Nothing => {}
            }
        }
        Ok(topic)
    }

    fn has_events(&self) -> bool {
        self.steps.iter().any(|s| matches!(s.what, What::Outbox(..)))
    }

    fn routed(&self, topic: &str, by: &str) -> Result<String, String> {
        let (mut topic, mut is_event) = (topic.to_owned(), false);
        for step in &self.steps {
            if !step.fits(&topic) {
                continue;
            }
            match &step.what {
                What::Rename(rename) => topic = rename.apply(&topic).unwrap_or(topic),
                What::Outbox(_, rename) => {
                    topic = rename.apply(by).unwrap_or_else(|| by.to_owned());
                    is_event = true;
                }
                What::Logical(logical) if is_event => {
                    if logical.rename.apply(&topic).is_some_and(|t| !t.is_empty()) {
                        return Err("topic.regex of a logical router fits the topic of its events".into());
                    }
                }
                What::Logical(logical) => {
                    topic = logical.rename.apply(&topic).filter(|t| !t.is_empty()).unwrap_or(topic);
                }
                What::Unwrap(_) | What::Change(_) | What::Filter | What::Nothing => {}
            }
        }
        Ok(topic)
    }
}

impl Step {
    fn link(&self, smt: &Smt, topic: &str) -> Link {
        Link { name: self.name.clone(), smt: smt.clone(), when: self.when.clone(), topic: topic.to_owned() }
    }
    fn fits(&self, topic: &str) -> bool {
        self.only.as_ref().is_none_or(|(regex, negate)| regex.is_match(topic) != *negate)
    }
}

impl Logical {
    fn place(&self, placed: &mut Placed) {
        // An empty name leaves a record where it is.
        let Some(topic) = self.rename.apply(&placed.topic).filter(|t| !t.is_empty()) else { return };
        let name = |of: &str| Some(self.names.schema(&format!("{topic}.{of}")).into_owned());
        placed.key_name = name("Key");
        // The schema of a row without its envelope stays.
        if placed.flat.is_none() {
            (placed.row_name, placed.envelope_name) = (name("Value"), name("Envelope"));
        }
        if let Some(field) = &self.field {
            let text = self.identifier.as_ref().and_then(|i| i.apply(&placed.topic));
            placed.key_fields.push((field.clone(), text.unwrap_or_else(|| placed.topic.clone())));
        }
        placed.topic = topic;
    }
}

/// What may stand in front of what takes the envelope away: of a row it leaves headers at most.
fn adds_header(smt: &Smt) -> bool {
    matches!(smt, Smt::Changed { .. } | Smt::InsertHeader { .. } | Smt::SourceSchema)
}

fn keeps_fields(smt: &Smt) -> bool {
    matches!(smt, Smt::Zones(_) | Smt::VectorToJson | Smt::Geometry(_) | Smt::DecodeMessage { .. })
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

fn logical(own: &mut Own<'_>, field: &str) -> Option<Logical> {
    let rename = own.rename("topic.regex", "topic.replacement");
    let unique = own.flag("key.enforce.uniqueness", true);
    let field = own.get("key.field.name").filter(|f| !f.is_empty()).unwrap_or(field).to_owned();
    let has_regex = own.get("key.field.regex").is_some_and(|r| !r.trim().is_empty());
    let identifier = match has_regex {
        true if own.get("key.field.replacement").is_none_or(|r| r.trim().is_empty()) => {
            own.wrong("key.field.replacement", "must be given with key.field.regex");
            None
        }
        true => own.rename("key.field.regex", "key.field.replacement"),
        false => {
            own.get("key.field.replacement");
            None
        }
    };
    let names = match own.get("schema.name.adjustment.mode").map_or("none", str::trim) {
        "none" | "" => NameMode::None,
        "avro" => NameMode::Avro,
        "avro_unicode" => NameMode::AvroUnicode,
        _ => {
            own.wrong("schema.name.adjustment.mode", "one of none, avro, avro_unicode");
            NameMode::None
        }
    };
    // Bounds of caches that are not needed.
    own.get("logical.table.cache.size");
    own.get("logical.destination.cache.size");
    Some(Logical { rename: rename?, field: unique.then_some(field), identifier, names })
}

fn unwrap(own: &mut Own<'_>) -> Flat {
    // Those of Debezium 2 mean what they meant, where the one that took their place is not given.
    let drops = own.flag("drop.tombstones", true);
    let old = own.get("delete.handling.mode").map(|v| v.trim().to_ascii_lowercase());
    let new = own.get("delete.tombstone.handling.mode").map(|v| v.trim().to_ascii_lowercase());
    let is_old = own.given.contains_key("drop.tombstones") || old.is_some();
    let (deletes, tombstones) = match (new.as_deref(), old.as_deref()) {
        (Some("drop"), _) => (Deletes::Drop, false),
        (Some("tombstone" | ""), _) => (Deletes::Null, false),
        (Some("rewrite"), _) => (Deletes::Rewrite, false),
        (Some("rewrite-with-tombstone"), _) => (Deletes::Rewrite, true),
        (Some("delete-to-tombstone"), _) => (Deletes::Tombstone, false),
        (Some(_), _) => {
            let words = "one of drop, tombstone, rewrite, rewrite-with-tombstone, delete-to-tombstone";
            own.wrong("delete.tombstone.handling.mode", words);
            (Deletes::Null, false)
        }
        (None, None) if !is_old => (Deletes::Null, false),
        (None, None | Some("drop" | "")) => (Deletes::Drop, !drops),
        (None, Some("rewrite")) => (Deletes::Rewrite, !drops),
        (None, Some("none")) => (Deletes::Null, !drops),
        (None, Some(_)) => {
            own.wrong("delete.handling.mode", "one of drop, rewrite, none");
            (Deletes::Null, false)
        }
    };
    if own.get("route.by.field").is_some_and(|f| !f.trim().is_empty()) {
        own.wrong("route.by.field", "the rows of a table go to one topic here; a router names it by the table");
    }
    let mut added = |list_key: &'static str, prefix_key: &'static str| {
        let prefix = own.get(prefix_key).unwrap_or("__").to_owned();
        let mut out = Vec::new();
        for entry in list(own.get(list_key).unwrap_or_default()) {
            let (field, name) = entry.split_once(':').map_or((entry.as_str(), None), |(f, n)| (f, Some(n)));
            let name = format!("{prefix}{}", name.map_or_else(|| field.replace('.', "_"), str::to_owned));
            match Part::parse(field) {
                Ok(what) => out.extend(what.map(|what| Added { name, what })),
                Err(why) => own.wrong(list_key, why),
            }
        }
        out
    };
    let fields = added("add.fields", "add.fields.prefix");
    let headers = added("add.headers", "add.headers.prefix");
    let names: BTreeSet<&str> = fields.iter().map(|f| f.name.as_str()).collect();
    if names.len() < fields.len() {
        own.wrong("add.fields", "two fields have one name");
    }
    // Another transform would have to write that header; none that is served does.
    for key in ["drop.fields.header.name", "drop.fields.from.key", "drop.fields.keep.schema.compatible"] {
        own.get(key);
    }
    Flat { deletes, tombstones, fields, headers }
}

#[cfg(test)]
mod tests;
