//! The messages of one partition that were taken and are not done with, in their order, and what holds
//! them up.
//!
//! Invariant: an offset is handed on only when every message before it is done with.

use std::{collections::VecDeque, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::alone::Alone;
use crate::{
    broker::Record,
    order::{OrderPlaced, Reject, RejectReason, Start},
    store::{Admission, Incoming, StoreError},
    telemetry::metrics::Consumed,
    time::Backoff,
    tracker::Transitions,
};

/// A message and how far it has come.
pub(super) struct Pending {
    pub(super) record: Record,
    pub(super) state: MessageState,
}

/// How far a message has come.
pub(super) enum MessageState {
    /// To be admitted, with all others.
    Order(Box<Incoming>),
    /// To be admitted alone.
    Alone(Box<Alone>),
    /// To become a dead letter.
    Rejected(Reject),
    /// Handed to the dead-letter topic and not acknowledged yet.
    DeadLettering(Reject),
    /// Done with.
    Done(Consumed),
}

impl Pending {
    fn judge(record: Record, start: Start) -> Self {
        let state = match &record.value {
            None => MessageState::Done(Consumed::Tombstone),
            Some(value) => match OrderPlaced::parse(record.key.as_deref(), value) {
                Ok(placed) => {
                    MessageState::Order(Box::new(Incoming { placed, meta: Some(origin(&record)), start }))
                }
                Err(reject) => MessageState::Rejected(reject),
            },
        };
        Self { record, state }
    }

    fn is_done(&self) -> bool {
        matches!(self.state, MessageState::Done(_))
    }

    /// What the database has said of this order; the error, if it waits and not only to be tried alone.
    pub(super) fn answered(
        &mut self,
        answer: Result<Admission, StoreError>,
        transitions: &Transitions,
    ) -> Option<StoreError> {
        match answer {
            Ok(Admission::Known) => self.done(Consumed::Known),
            Ok(Admission::Admitted) => {
                // At once, not after the first delay: the scheduler looks and sets its own alarm.
                transitions.placed(Some(Duration::ZERO));
                self.done(Consumed::Admitted);
            }
            // Only then it is the message that is wrong.
            Err(StoreError::Refused(detail)) => {
                self.state = MessageState::Rejected(Reject { reason: RejectReason::Refused, detail });
            }
            Err(error) => return self.waits(error),
        }
        None
    }

    /// One that may be the reason why it could not be admitted goes alone from now on, whatever becomes of it there. That is
    /// soon, so nothing is said of it until then.
    fn waits(&mut self, error: StoreError) -> Option<StoreError> {
        match &mut self.state {
            MessageState::Order(incoming) if error.may_be_one() => {
                self.state = MessageState::Alone(Box::new(Alone::new((**incoming).clone())));
                return None;
            }
            MessageState::Alone(alone) => alone.put_off(),
            _ => {}
        }
        Some(error)
    }

    /// Its place is all that is still needed.
    pub(super) fn done(&mut self, result: Consumed) {
        self.state = MessageState::Done(result);
        (self.record.key, self.record.value) = (None, None);
    }
}

/// Where an admitted order came from, kept with its CREATED event.
fn origin(record: &Record) -> Value {
    json!({"source": "topic", "topic": record.topic, "partition": record.partition, "offset": record.offset})
}

/// Why a partition stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// The database can't be used, by nobody.
    Database(String),
    /// The database does not take this message; the message is not to blame.
    Message(String),
    /// A message can't be written to the dead-letter topic.
    DeadLetter(String),
}

impl From<&StoreError> for Why {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Database(error.to_string()),
            _ => Self::Message(error.to_string()),
        }
    }
}

/// What holds a partition up.
pub(super) struct Trouble {
    pub(super) why: Why,
    backoff: Backoff,
    again_at: Instant,
}

/// One partition's messages.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) pending: VecDeque<Pending>,
    pub(super) trouble: Option<Trouble>,
    /// When one of its messages was last tried alone.
    pub(super) tried_alone_at: Option<Instant>,
}

impl Queue {
    /// Takes a message; if it is an order, it goes on as `start` says. One that does not follow the last says that the partition is read anew.
    pub(super) fn take(&mut self, record: Record, start: Start) {
        if self.pending.back().is_some_and(|last| record.offset <= last.record.offset) {
            self.pending.clear();
            self.trouble = None;
        }
        self.pending.push_back(Pending::judge(record, start));
    }

    /// Whether what waits may be tried now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.trouble.as_ref().is_none_or(|trouble| trouble.again_at <= now)
    }

    /// When one of those that go alone may be tried.
    pub(super) fn alone_at(&self) -> Option<Instant> {
        let again_at = |pending: &Pending| match &pending.state {
            MessageState::Alone(alone) => alone.again_at(),
            _ => None,
        };
        self.pending.iter().filter_map(again_at).min()
    }

    /// Whether no more is taken: something failed, or is tried alone.
    pub(super) fn stands(&self) -> bool {
        let alone = |pending: &Pending| matches!(pending.state, MessageState::Alone(_));
        self.trouble.is_some() || self.pending.iter().any(alone)
    }

    /// When there is something else to be tried.
    pub(super) fn try_at(&self) -> Option<Instant> {
        let waits =
            |pending: &Pending| matches!(pending.state, MessageState::Order(_) | MessageState::Rejected(_));
        let again_at = || self.trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.again_at);
        self.pending.iter().any(waits).then(again_at)
    }

    /// Something failed: it is tried again later.
    pub(super) fn failed(&mut self, why: Why) {
        let mut backoff = self.trouble.take().map(|trouble| trouble.backoff).unwrap_or_default();
        let again_at = Instant::now() + backoff.next_pause();
        self.trouble = Some(Trouble { why, backoff, again_at });
    }

    /// Gives up the messages at the front that are done with. The trouble is over with the last that is not.
    pub(super) fn finished(&mut self) -> Vec<(Record, Consumed)> {
        let mut finished = Vec::new();
        while let Some(Pending { state: MessageState::Done(result), .. }) = self.pending.front() {
            let result = *result;
            finished.extend(self.pending.pop_front().map(|pending| (pending.record, result)));
        }
        if self.pending.iter().all(Pending::is_done) {
            self.trouble = None;
        }
        finished
    }

    /// How many are not done with.
    pub(super) fn waiting(&self) -> usize {
        self.pending.iter().filter(|pending| !pending.is_done()).count()
    }
}
