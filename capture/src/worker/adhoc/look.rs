//! Conditions that somebody who waits for an answer asks for: the server says what it thinks of them before anything is
//! taken, so a wrong one is told at once and leaves nothing behind.
//!
//! One signal at a time, by a reader with a connection of its own; the stream goes on. The others wait, [`WAIT_MAX`] at most.
//! A server that cannot be asked now judges nothing: the signal is taken, and its table tries again as any does.

use super::{AdHoc, newest};
use crate::signal::{Execute, Signal, SignalError};
use crate::source::{Source, SourceError, Stretch};
use crate::status::{Asked, TOO_MANY};
use crate::worker::fill::{Ask, Reader, Told};
use crate::worker::start::Begun;
use catchwater_base::log;
use std::collections::VecDeque;

/// Signals whose conditions are not looked at.
const WAIT_MAX: usize = 64;

/// A signal, and what the server has to say of it.
struct Look {
    asked: Asked,
    parts: VecDeque<Stretch>,
}

#[derive(Default)]
pub(super) struct Looks {
    waiting: VecDeque<Look>,
    reader: Option<Reader>,
    /// The reader owes an answer.
    busy: bool,
    told: Option<Told>,
}

impl Looks {
    pub(super) fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        ended: impl FnOnce() -> Told,
    ) -> std::task::Poll<()> {
        if self.busy
            && let Some(reader) = &mut self.reader
            && let std::task::Poll::Ready(told) = reader.told.poll_recv(cx)
        {
            self.busy = false;
            self.told = Some(told.unwrap_or_else(ended));
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    }
}

impl AdHoc<'_> {
    /// The parts of tables whose condition the server must see first.
    fn conditions(begun: &Begun<'_>, execute: &Execute) -> VecDeque<Stretch> {
        let named = begun.numbered.values().map(|n| (n.table.qualified(), n.table.table_no));
        let named: std::collections::BTreeMap<String, u32> = named.collect();
        let fits = named.iter().filter(|(name, _)| execute.tables.iter().any(|t| t.fits(name)));
        fits.filter(|(name, _)| !execute.filter_of(name).trim().is_empty())
            .filter_map(|(name, no)| {
                let (table, filter) = (newest(begun, *no)?, execute.filter_of(name).to_owned());
                let (after, keys) = (Vec::new(), Vec::new());
                Some(Stretch { table, after, filter, rows_max: 1, keys, hold: false, to_maximum: false })
            })
            .collect()
    }

    /// Takes a signal whose answer waits for the server; gives back one that does not.
    pub(super) fn look_first(&mut self, begun: &Begun<'_>, asked: Asked) -> Option<Asked> {
        let parts = match &asked.signal {
            Signal::Execute(execute) if begun.late.has_stretches => Self::conditions(begun, execute),
            _ => VecDeque::new(),
        };
        if parts.is_empty() {
            return Some(asked);
        }
        if self.looks.waiting.len() >= WAIT_MAX {
            let _ = asked.answer.send(Err(SignalError::Wrong(TOO_MANY.into())));
        } else {
            self.looks.waiting.push_back(Look { asked, parts });
        }
        None
    }

    /// Asks on. Returns the signals that are looked at: the server has no objection, or could not be asked.
    pub(super) fn turn_looks(&mut self, begun: &Begun<'_>, source: &mut dyn Source) -> Vec<Asked> {
        let mut good = Vec::new();
        let verdict = match self.looks.told.take() {
            None => None,
            Some(Told::Failed(e)) if !e.is_retry() => Some(Err(e)),
            Some(Told::Failed(_)) => {
                self.looks.reader = None;
                self.looks.waiting.front_mut().into_iter().for_each(|l| l.parts.clear());
                Some(Ok(()))
            }
            Some(_) => Some(Ok(())),
        };
        match (verdict, self.looks.waiting.front_mut()) {
            (Some(Ok(())), Some(look)) => {
                look.parts.pop_front();
                if look.parts.is_empty() {
                    good.extend(self.looks.waiting.pop_front().map(|l| l.asked));
                }
            }
            (Some(Err(e)), Some(_)) => {
                if let Some(look) = self.looks.waiting.pop_front() {
                    refused(begun, look, &e);
                }
            }
            _ => {}
        }
        let Some(part) = self.looks.waiting.front().and_then(|l| l.parts.front()).filter(|_| !self.looks.busy) else {
            if self.looks.waiting.is_empty() {
                self.looks.reader = None;
            }
            return good;
        };
        if self.looks.reader.is_none() {
            match source.snapshot() {
                Ok(snapshot) => {
                    let name = format!("capture.{}.look", begun.session.config.source);
                    self.looks.reader = Some(Reader::start(name, snapshot));
                }
                // What it is, the table's own turn tells.
                Err(_) => {
                    good.extend(self.looks.waiting.drain(..).map(|l| l.asked));
                    return good;
                }
            }
        }
        if let Some(reader) = &self.looks.reader {
            reader.ask(Ask::Look(Box::new(part.clone())));
            self.looks.busy = true;
        }
        good
    }
}

fn refused(begun: &Begun<'_>, look: Look, e: &SourceError) {
    let name = look.parts.front().map(|p| p.table.qualified()).unwrap_or_default();
    let what = format!("the condition for {name} cannot be taken: {} {}", e.code, e.what);
    log!(Info, "source.signal", "source {}: not followed: {what}", begun.session.config.source);
    // Whoever asked may be gone.
    let _ = look.asked.answer.send(Err(SignalError::Condition(what)));
}
