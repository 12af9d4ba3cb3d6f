//! What the relay asks of the database, and when; and what it makes of the answers.

use std::{collections::HashSet, time::Duration};

use futures::FutureExt as _;
use tokio::time::Instant;
use tracing::warn;

use super::{
    BATCH, BEAT_AGAIN, BEAT_EVERY, LOOK_EVERY, Relay, SEARCH_EVERY, SEARCH_HOLDING, SILENT_AFTER,
    work::{self, Done, Fates, Portions},
};
use crate::{
    broker::{Blame, Refusal},
    order::{OrderId, OrderPlaced},
    pipeline::{Outcome, StepError, postponed::Postponements},
    store::StoreError,
};

impl Relay {
    /// Begins what is due; answers when there may be more to begin.
    pub(super) fn begin_what_is_due(&mut self) -> Instant {
        let now = Instant::now();
        if self.look_at <= now {
            self.look_at = now + LOOK_EVERY;
            self.partitions = self.publisher.partitions();
            self.flight.look(&self.partitions, &self.metrics);
        }
        if self.beat.is_none() && self.beat_at <= now {
            let store = self.store.clone();
            self.beat = Some(async move { store.heartbeat().await }.boxed());
        }
        if self.work.is_none() && self.rest_until <= now {
            self.begin_work(now);
        }
        let mut wake_at = self.refused.all_until().map_or(self.look_at, |until| until.min(self.look_at));
        if self.beat.is_none() {
            wake_at = wake_at.min(self.beat_at);
        }
        if self.work.is_none() {
            wake_at = wake_at.min(self.work_at());
        }
        wake_at
    }

    /// When there is something for the database to do.
    fn work_at(&self) -> Instant {
        let claim = (!self.found.is_empty()).then_some(self.rest_until);
        let sweep = self.may_sweep().then(|| self.rotation.at());
        let next = self.settle_at.into_iter().chain(self.locked.at()).chain(claim).chain(sweep).min();
        next.map_or(self.look_at, |at| at.max(self.rest_until))
    }

    fn begin_work(&mut self, now: Instant) {
        let (store, portions) = (self.store.clone(), self.portions.clone());
        let held_again = self.locked.at().is_some_and(|at| at <= now);
        if held_again || self.settle_at.is_some_and(|at| at <= now) {
            self.settle_at = None;
            let (mut sent, mut unsent) =
                (std::mem::take(&mut self.acknowledged), std::mem::take(&mut self.unsent));
            if held_again {
                let (held_sent, held_unsent) = self.locked.take();
                sent.extend(held_sent);
                unsent.extend(held_unsent);
            }
            self.settling = [&sent[..], &unsent[..]].concat();
            self.work = Some(work::settle(store, portions, sent, unsent).boxed());
        } else if !self.found.is_empty() {
            let ids: Vec<OrderId> = self.found.drain(..self.found.len().min(BATCH)).collect();
            self.work = Some(work::claim(store, portions, ids).boxed());
        } else if self.may_sweep() && self.rotation.at() <= now {
            let (after, limit) = self.rotation.next(self.clock.now());
            self.work = Some(work::read(store, after, limit).boxed());
        } else if self.may_search(now) {
            self.search_at = now + SEARCH_EVERY;
            let held = self.all_held().into_iter().collect();
            self.work = Some(work::search(store, held, BATCH).boxed());
        } else {
            let (sent, unsent) = (self.uncleared.due(1), self.unreleased.due(1));
            if !sent.is_empty() || !unsent.is_empty() {
                self.work = Some(work::settle(store, Portions::alone().into(), sent, unsent).boxed());
            }
        }
    }

    fn lives(&self) -> bool {
        self.lived_at.is_some_and(|at| at.elapsed() <= SILENT_AFTER)
    }

    fn may_sweep(&self) -> bool {
        !self.writer_gone && self.lives() && self.room() > 0
    }

    fn may_search(&self, now: Instant) -> bool {
        // What still waits to be received is held too.
        let knows_all = self.held() <= SEARCH_HOLDING && self.fresh.is_empty();
        self.search_at <= now && self.may_sweep() && knows_all
    }

    /// Every order that is in memory here.
    fn all_held(&self) -> HashSet<OrderId> {
        let listed = [&self.acknowledged, &self.unsent, &self.settling].into_iter().flatten().copied();
        let postponed = [self.uncleared.ids(), self.unreleased.ids()].into_iter().flatten();
        self.flight.ids().chain(listed).chain(self.locked.ids()).chain(postponed).collect()
    }

    /// A sign of life was given.
    pub(super) fn beaten(&mut self, outcome: Result<(), StoreError>) -> Result<Outcome, StepError> {
        let now = Instant::now();
        match outcome {
            Ok(()) => {
                // After an outage of the database all claims have run out. Each replica renews its own before
                // any takes another's, or what is published already would be published again.
                if self.lived_at.replace(now).is_none_or(|at| now - at > SILENT_AFTER) {
                    self.rotation.hold();
                }
                self.beat_at = now + BEAT_EVERY;
                let at_rest = self.work.is_none() && self.acknowledged.is_empty() && self.unsent.is_empty();
                Ok(if at_rest { self.worked(Outcome::Idle) } else { Outcome::Idle })
            }
            // Somebody holds the row that says it, or too much is going on: no reason for all else to rest.
            Err(error) if error.may_be_one() => {
                self.beat_at = now + BEAT_AGAIN;
                self.trouble = Some(error.to_string());
                Ok(Outcome::Idle)
            }
            Err(error) => {
                self.beat_at = now + BEAT_AGAIN;
                self.failed(error)
            }
        }
    }

    fn failed(&mut self, error: StoreError) -> Result<Outcome, StepError> {
        self.trouble = Some(error.to_string());
        let now = Instant::now();
        // Two that fail at the same time are one trouble.
        if self.rest_until > now {
            return Ok(Outcome::Idle);
        }
        self.rest_until = now + self.backoff.next_pause();
        Err(error.into())
    }

    fn worked(&mut self, outcome: Outcome) -> Outcome {
        self.trouble = None;
        self.backoff.reset();
        outcome
    }

    /// The database has answered.
    pub(super) fn done(&mut self, done: Done) -> Result<Outcome, StepError> {
        match done {
            Done::Settled { sent, unsent } => self.settled(sent, unsent),
            Done::Read { outcome: Ok(found), took } => {
                self.read(&found, took);
                Ok(self.worked(Outcome::Idle))
            }
            Done::Read { outcome: Err(error @ StoreError::Timeout(_)), took } => {
                self.rotation.too_slow(&error, took);
                Ok(Outcome::Idle)
            }
            Done::Searched(Ok(lost)) => {
                if !lost.is_empty() {
                    let orders = lost.len();
                    warn!(orders, "orders were claimed by a write whose answer got lost; publishing them");
                    self.found.extend(lost);
                }
                Ok(self.worked(Outcome::Idle))
            }
            // The next search reads less.
            Done::Searched(Err(StoreError::Timeout(_))) => Ok(Outcome::Idle),
            Done::Claimed { fates, took } => self.claimed(fates, took),
            Done::Read { outcome: Err(error), .. } | Done::Searched(Err(error)) => self.failed(error),
        }
    }

    /// Rows were read that are nobody's; those are claimed that may go now.
    fn read(&mut self, found: &[OrderId], took: Duration) {
        let (mut last, now) = (None, Instant::now());
        let held = if found.is_empty() { HashSet::new() } else { self.all_held() };
        self.partitions = self.publisher.partitions();
        for id in found {
            let room = if self.writer_gone { 0 } else { self.room() };
            if room == 0 {
                break;
            }
            last = Some(*id);
            let partition = self.partitions.of(*id);
            if self.flight.may_take(partition, room) && !self.refused.waits(*id, now) && !held.contains(id) {
                self.flight.reserve(*id, partition);
                self.found.push_back(*id);
            }
        }
        if let Some(begun) = self.rotation.read(last, found.len(), took) {
            self.refused.forget_gone(begun);
        }
    }

    fn claimed(&mut self, fates: Fates<Option<OrderPlaced>>, took: Duration) -> Result<Outcome, StepError> {
        for (order_id, _) in &fates {
            self.flight.give_up(*order_id);
        }
        let (acknowledged, refused) = std::mem::take(&mut self.answers);
        if refused > acknowledged {
            self.rotation.in_vain(took);
        }
        let (mut orders, mut trouble) = (Vec::new(), None);
        for (order_id, fate) in fates {
            match fate {
                Ok(order) => orders.extend(order),
                // It may be ours by now, though it can't be read.
                Err(error) if error.may_be_one() => {
                    let reason = format!("it can't be read: {error}");
                    self.refuse(order_id, &Refusal { blame: Blame::Message, reason });
                }
                Err(error) => trouble = Some(error),
            }
        }
        let count = orders.len();
        self.publish_all(orders);
        match trouble {
            None => Ok(self.worked(Outcome::Worked(count))),
            Some(error) => self.failed(error),
        }
    }

    fn settled(&mut self, sent: Fates<bool>, unsent: Fates<bool>) -> Result<Outcome, StepError> {
        self.settling.clear();
        let count = sent.len() + unsent.len();
        let cleared = put_by(sent, &mut self.acknowledged, &mut self.uncleared, "cleared");
        let released = put_by(unsent, &mut self.unsent, &mut self.unreleased, "given back");
        if !self.acknowledged.is_empty() || !self.unsent.is_empty() {
            self.settle_at.get_or_insert_with(Instant::now);
        }
        let trouble = cleared.1.and(released.1);
        self.locked.add(cleared.0, released.0);
        match trouble {
            Ok(()) => Ok(self.worked(Outcome::Worked(count))),
            Err(error) => self.failed(error),
        }
    }
}

/// Puts off rows that failed alone, and those that failed with all others back to be tried again. Answers those
/// that another session holds.
fn put_by(
    fates: Fates<bool>,
    again: &mut Vec<OrderId>,
    postponed: &mut Postponements,
    what: &str,
) -> (Vec<OrderId>, Result<(), StoreError>) {
    let (mut held, mut trouble) = (Vec::new(), Ok(()));
    for (order_id, fate) in fates {
        match fate {
            Ok(went) => {
                postponed.remove(order_id);
                held.extend((!went).then_some(order_id));
            }
            Err(error) if error.may_be_one() => {
                if let Some(pause) = postponed.add(order_id, error.to_string()) {
                    warn!(%order_id, %error, "an outbox row can't be {what} and is tried again in {pause:?}; \
                        all others are");
                }
            }
            Err(error) => {
                if !postponed.knows(order_id) {
                    again.push(order_id);
                }
                trouble = Err(error);
            }
        }
    }
    if let Some(more) = postponed.left_out() {
        warn!("{more} more outbox rows could not be {what}");
    }
    (held, trouble)
}
