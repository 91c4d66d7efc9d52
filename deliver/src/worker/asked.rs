//! What people ask of a sink about its dead letters while it runs: apply them after all, or give them up.
//!
//! A request ends the session, as a failure would, and is done where the next one begins: nothing is open there, and the
//! target says where it stands. It is done whole or again: after a failure that passes it waits for the session after
//! that, unless nobody waits for the answer any more.

use super::{Session, Trouble, Worker};
use crate::error::{Failure, code};
use crate::park::KeyOf;
use crate::sink::Mark;
use catchwater_client::At;
use catchwater_record::{ErrorCode, Offset};
use catchwater_runtime::sync::{Receiver, Sender, bounded, oneshot};

/// Requests that may wait for one sink.
const ASKS_MAX: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Apply in the source's order; what is refused again stays.
    Replay,
    /// Later rows of the key go to the target again; the letters stay in their topic and are not applied.
    Discard,
    /// Fill the target anew from the log; answered when it begins.
    Rebuild,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    All,
    /// Keys of a table (`schema.table` of the source).
    Table(String),
    /// The keys of the letter at this offset, with all their letters.
    Letter(Offset),
}

pub struct Request {
    pub ask: Ask,
    pub which: Which,
    pub reply: oneshot::Sender<Result<Answer, Failure>>,
}

/// What was done; durable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Keys that are parked no more.
    pub keys: u64,
    /// Letters that were applied; 1 for the one without a key that was given up.
    pub letters: u64,
    /// Keys that stay parked.
    pub kept: u64,
    /// Why the first of them stays, or where letters of tables without a key came to a halt.
    pub refused: Option<Refusal>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Of the letter in its topic, where one letter is known to be the reason.
    pub offset: Option<Offset>,
    pub code: ErrorCode,
    pub what: String,
}

impl Answer {
    pub(super) fn keep(&mut self, refusal: Refusal) {
        self.kept += 1;
        self.refused.get_or_insert(refusal);
    }
}

/// Both ends of what a worker is asked by.
pub fn asks() -> (Sender<Request>, Receiver<Request>) {
    bounded(ASKS_MAX)
}

impl Worker {
    pub(super) fn is_asked(&mut self) -> bool {
        if self.asked.is_none() {
            self.asked = self.deps.asks.try_recv().ok();
        }
        self.asked.is_some()
    }

    /// The session ends for what was asked. Letters that it has written are of rows below the position then, if nothing
    /// else is on its way.
    pub(super) async fn leave_for_asked(&mut self, session: &mut Session<'_>) -> Result<Trouble, Trouble> {
        self.settle(session).await?;
        if session.batch.is_empty() && !session.regroup.is_inside() {
            self.commit_letters(session).await?;
        }
        Ok(Trouble::Asked)
    }

    /// Rows that were all set aside leave nothing to write: their position commits alone.
    pub(super) async fn commit_letters(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        self.post_letters(session).await?;
        if session.parked > 0 && !self.is_held(session) {
            let mark = self.mark(session);
            self.commit(session, mark).await?;
        }
        Ok(())
    }

    /// Does what was asked. Where a session begins.
    pub(super) async fn answer(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let Some(request) = self.asked.take() else { return Ok(()) };
        if request.reply.is_closed() {
            return Ok(());
        }
        let Some(mark) = session.commit.durable().cloned() else {
            let _ = request.reply.send(Ok(Answer::default()));
            return Ok(());
        };
        match self.do_asked(session, mark, &request).await {
            Ok(answer) => drop(request.reply.send(answer)),
            Err(trouble) => {
                self.asked = Some(request);
                return Err(trouble);
            }
        }
        Ok(())
    }

    async fn do_asked(
        &mut self,
        session: &mut Session<'_>,
        mark: Mark,
        request: &Request,
    ) -> Result<Result<Answer, Failure>, Trouble> {
        let mut of = Vec::new();
        if let Which::Letter(offset) = request.which {
            let Some(letter) = self.letter_at(session, offset, &mark).await? else {
                return Ok(Err(no_letter(format!("there is no dead letter of this sink at offset {offset}"))));
            };
            let Some(keys) = letter.keys else {
                return Ok(Err(Failure::new(
                    code::LETTER_UNREADABLE,
                    format!("the dead letter at offset {offset} cannot be read, and so not its key"),
                    "name its table instead",
                )));
            };
            if keys.is_empty() {
                return self.asked_of_one(session, &mark, request.ask, offset).await;
            }
            of = keys;
        }
        let wanted = |key: &KeyOf| match &request.which {
            Which::All => true,
            Which::Table(table) => key.table == *table,
            Which::Letter(_) => of.contains(key),
        };
        let keys: Vec<KeyOf> = self.parked.iter().map(|(k, _)| k).filter(|k| wanted(k)).cloned().collect();
        let mut answer = Answer::default();
        match request.ask {
            Ask::Replay => {
                self.replay_keys(session, &mark, &keys, &mut answer).await?;
                if request.which == Which::All {
                    self.replay_keyless(session, &mark, &mut answer).await?;
                }
            }
            Ask::Discard => {
                self.unpark(&keys).await?;
                answer.keys = keys.len() as u64;
                if request.which == Which::All {
                    self.settle_all(session, mark).await?;
                }
            }
            // Taken where the session began.
            Ask::Rebuild => {}
        }
        self.retry.progress();
        Ok(Ok(answer))
    }

    /// A letter of a table without a key: they go in their order, so only the first of those that wait can be given up
    /// alone, and none applied.
    async fn asked_of_one(
        &mut self,
        session: &mut Session<'_>,
        mark: &Mark,
        ask: Ask,
        offset: Offset,
    ) -> Result<Result<Answer, Failure>, Trouble> {
        let first = self.first_waiting(session, mark).await?;
        match (ask, first) {
            (Ask::Discard, Some(first)) if first == offset => {
                self.settle_letters(session, mark.clone(), offset.plus(1)).await?;
                Ok(Ok(Answer { letters: 1, ..Answer::default() }))
            }
            (Ask::Replay, _) => Ok(Err(no_letter(format!(
                "the dead letter at offset {offset} is of a table without a key: these are applied all together"
            )))),
            (Ask::Discard | Ask::Rebuild, first) => {
                let first = first.map_or("none waits".to_owned(), |o| format!("the first that waits is at {o}"));
                Ok(Err(no_letter(format!("the dead letter at offset {offset} is not the next of its kind: {first}"))))
            }
        }
    }

    /// Nothing of tables without a key waits any more.
    async fn settle_all(&mut self, session: &mut Session<'_>, mark: Mark) -> Result<(), Trouble> {
        let Some(to) = self.letters_to(false).await? else { return Ok(()) };
        let bounds = self.deps.log.bounds(vec![to.letters], At::Now).await?;
        let Some(end) = bounds.first().map(|b| b.lso) else { return Ok(()) };
        self.settle_letters(session, mark, end).await
    }
}

fn no_letter(what: String) -> Failure {
    Failure::new(code::NO_LETTER, what, "catchwater dlq list shows them, with their offsets")
}
