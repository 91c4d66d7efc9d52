//! What Kafka's own requests change, said before it is changed: topics, settings, groups, DeleteRecords.
//!
//! The broker says *what*; who keeps it is the [`Auditor`] that the node was started with (`catchwater` writes
//! `__catchwater_audit`). Names and numbers only: never the value of a setting, never a record. Data requests (Produce,
//! OffsetCommit, joins) are not changes in this sense.

use crate::api::RequestContext;
use crate::error_code::name;
use crate::node::ControllerError;
use catchwater_base::log;
use catchwater_runtime::Fut;
use std::fmt;

/// Longest text of a client that is kept, in characters: the longest legal name of a topic.
const TEXT_CHARS_MAX: usize = 249;
/// Names of settings or offsets of partitions that one note lists.
pub const LISTED_MAX: usize = 50;

/// One change that a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// `topic.create`
    pub action: &'static str,
    /// `topic orders`
    pub on: String,
    /// Names and numbers that say more: settings, partitions, offsets.
    pub after: Vec<(&'static str, String)>,
    /// It makes room: it is done even where the disk is too full to write of it.
    pub frees: bool,
}

impl Deed {
    pub fn new(action: &'static str, kind: &str, name: &str) -> Deed {
        Deed { action, on: format!("{kind} {}", cut(name)), after: Vec::new(), frees: false }
    }
    pub fn with(mut self, what: &'static str, text: impl Into<String>) -> Deed {
        self.after.push((what, text.into()));
        self
    }
    pub fn frees(mut self) -> Deed {
        self.frees = true;
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Written before it is done.
    Allowed,
    /// Nothing was changed; Kafka's name of the error.
    Refused(&'static str),
    /// It was allowed, and then it was not done.
    Failed(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The principal, and what the client calls itself.
    pub who: String,
    /// Address of the other end.
    pub from: String,
    pub deed: Deed,
    pub decision: Decision,
}

/// Why a note was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// The disk is full.
    NoRoom,
    /// Anything else: too early, no leader, an outcome nobody knows.
    Other,
}

/// Keeps notes. Durable when it answers; order is that of the calls.
pub trait Auditor: Send + Sync + fmt::Debug {
    fn note(&self, notes: Vec<Note>) -> Fut<'_, Result<(), Unwritten>>;
}

/// Text of a client for one line: cut, and without what a terminal would obey.
pub fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The first of many, and how many more there are.
pub fn listed(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(LISTED_MAX);
    let mut text = all.take(LISTED_MAX).collect::<Vec<_>>().join(" ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn notes(ctx: &RequestContext, deeds: impl IntoIterator<Item = (Deed, Decision)>) -> Vec<Note> {
    let client = ctx.client_id.as_deref().map(cut).filter(|c| !c.is_empty());
    let principal = &ctx.caller.principal;
    let who = client.map_or_else(|| principal.to_string(), |c| format!("{principal} {c}"));
    let from = format!("kafka {}", ctx.peer);
    let note = |(deed, decision)| Note { who: who.clone(), from: from.clone(), deed, decision };
    deeds.into_iter().map(note).collect()
}

/// Before anything is done: what will be tried, and what is refused already (with Kafka's code). Holds the requests behind
/// this one on its connection meanwhile. An error means that nothing may be changed.
pub async fn before(ctx: &RequestContext, deeds: Vec<(Deed, Option<i16>)>) -> Result<(), ControllerError> {
    let Some(auditor) = &ctx.node.auditor else { return Ok(()) };
    if deeds.is_empty() {
        return Ok(());
    }
    let frees = deeds.iter().all(|(deed, refused)| deed.frees || refused.is_some());
    let decided = deeds.into_iter().map(|(deed, refused)| match refused {
        Some(code) => (deed, Decision::Refused(name(code))),
        None => (deed, Decision::Allowed),
    });
    ctx.order.hold();
    let written = auditor.note(notes(ctx, decided)).await;
    ctx.order.release();
    match written {
        Ok(()) => Ok(()),
        Err(Unwritten::NoRoom) if frees => {
            log!(Warn, "audit.no_room", "a request of {} makes room, and its audit record finds none", ctx.peer);
            Ok(())
        }
        Err(why) => {
            log!(Warn, "audit.unwritten", "a request of {} was refused: its audit record: {why:?}", ctx.peer);
            Err(ControllerError::NotReady)
        }
    }
}

/// Afterwards: what was allowed and not done all the same.
pub async fn failed(ctx: &RequestContext, deeds: Vec<(Deed, i16)>) {
    let Some(auditor) = &ctx.node.auditor else { return };
    if deeds.is_empty() {
        return;
    }
    let decided = deeds.into_iter().map(|(deed, code)| (deed, Decision::Failed(name(code))));
    // That it cannot be written changes nothing of what was or was not done.
    let _ = auditor.note(notes(ctx, decided)).await;
}
