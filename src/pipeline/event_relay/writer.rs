//! Reads what is settled, set after set, and writes it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{EventRelay, Matter, set::Set};
use crate::{
    broker::{Blame, Refusal},
    order::{Cursor, FeedEvent, OrderFacts, OrderId},
    store::StoreError,
    telemetry::health::{Health, Issue, IssueKind, Issues},
    time::Backoff,
    tracker::Follower,
};

/// Most events in a set.
const SET: usize = 4_000;
/// How often the topic is looked at while there is nothing to write.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same as long as nobody knows that it is there.
const LOOK_SOON: Duration = Duration::from_millis(100);

/// Writes events behind a place.
pub(super) struct Writer<'a> {
    relay: &'a EventRelay,
    stop: &'a CancellationToken,
    follower: Follower,
    /// Everything up to here is done.
    acknowledged: watch::Sender<Cursor>,
    /// What is done beyond, at most a set.
    done: HashSet<Cursor>,
    /// Whether the topic was there when it was last looked at, and nothing has failed since.
    looked: bool,
    backoff: Backoff,
}

impl<'a> Writer<'a> {
    /// Behind the place that `acknowledged` holds.
    pub(super) fn new(
        relay: &'a EventRelay,
        acknowledged: watch::Sender<Cursor>,
        stop: &'a CancellationToken,
    ) -> Self {
        let follower = relay.feed.follow_inside(*acknowledged.borrow(), None);
        let (done, backoff) = (HashSet::new(), Backoff::default());
        Self { relay, stop, follower, acknowledged, done, looked: false, backoff }
    }

    /// Works until told to stop, and ends the set that is under way.
    pub(super) async fn run(mut self) {
        let stop = self.stop;
        while let Some(mut set) = stop.run_until_cancelled(self.next_set()).await {
            let outcome = self.write(&mut set).await;
            self.done = set.done_beyond();
            match outcome {
                Ok(()) => {
                    self.backoff.reset();
                    self.relay.trouble.is_over(Matter::Topic);
                }
                // From the first that was not acknowledged on all is read once more.
                Err(refusal) => {
                    self.looked = false;
                    self.relay.trouble.is(Matter::Topic, told(&refusal, self.relay));
                    stop.run_until_cancelled(sleep(self.backoff.next_pause())).await;
                    self.follower = self.relay.feed.follow_inside(*self.acknowledged.borrow(), None);
                }
            }
        }
    }

    /// Waits for events, and looks after the topic meanwhile.
    async fn next_set(&mut self) -> Set {
        let mut backoff = Backoff::default();
        loop {
            let patience = if self.looked { LOOK_EVERY } else { LOOK_SOON };
            let from = self.follower.cursor();
            let read = match timeout(patience, self.follower.news(SET)).await {
                Ok(Ok(events)) => self.with_facts(from, events).await,
                Ok(Err(error)) => Err(error),
                Err(_) => {
                    self.look_idle().await;
                    continue;
                }
            };
            match read {
                Ok(set) => {
                    self.relay.trouble.is_over(Matter::Reading);
                    return set;
                }
                Err(error) => {
                    let reason = format!("events can't be read ({error})");
                    self.relay.trouble.is(Matter::Reading, Health::Down(reason));
                    sleep(backoff.next_pause()).await;
                    self.follower = self.relay.feed.follow_inside(from, None);
                }
            }
        }
    }

    /// With nothing to write a topic that can't be used is trouble all the same.
    async fn look_idle(&mut self) {
        match self.relay.publisher.look().await {
            Ok(()) => {
                self.looked = true;
                self.backoff.reset();
                self.relay.trouble.is_over(Matter::Topic);
            }
            Err(refusal) => {
                self.looked = false;
                self.relay.trouble.is(Matter::Topic, told(&refusal, self.relay));
                sleep(self.backoff.next_pause()).await;
            }
        }
    }

    async fn with_facts(&self, from: Cursor, events: Vec<FeedEvent>) -> Result<Set, StoreError> {
        let mut orders: Vec<OrderId> = events.iter().map(|event| event.order_id).collect();
        orders.sort_unstable();
        orders.dedup();
        let facts: HashMap<OrderId, OrderFacts> = self.relay.log.facts(&orders).await?.into_iter().collect();
        let (set, untold) = Set::new(events, &facts, &self.done, (from, self.follower.cursor()));
        for event in &untold {
            self.pass_over(Some(event), "its order can't be read");
        }
        self.relay.waits(set.waits_since(self.relay.clock.now()));
        Ok(set)
    }

    /// Writes all of them in rounds, or answers what keeps one back. Those of other orders go on meanwhile, unless none
    /// can go.
    async fn write(&mut self, set: &mut Set) -> Result<(), Refusal> {
        if !self.looked {
            self.relay.publisher.look().await?;
            self.looked = true;
        }
        let (mut held, mut first) = (HashSet::new(), None);
        loop {
            let round = set.round(&held);
            if round.is_empty() {
                break;
            }
            for (order_id, refusal) in self.write_round(set, round).await {
                held.insert(order_id);
                if refusal.blame == Blame::Everything {
                    return Err(refusal);
                }
                first.get_or_insert(refusal);
            }
        }
        self.note(set);
        first.map_or(Ok(()), Err)
    }

    /// Answers those that are to be tried again. What is refused for a message's own sake is tried in halves, since a
    /// broker may mean the batch that it came in, and then alone.
    async fn write_round(&self, set: &mut Set, round: Vec<usize>) -> Vec<(OrderId, Refusal)> {
        let (mut groups, mut kept_back, mut refused_alone) = (vec![round], Vec::new(), Vec::new());
        let mut taken = false;
        while let Some(group) = groups.pop() {
            let messages = group.iter().filter_map(|at| set.message(*at)).collect::<Vec<_>>();
            let outcomes = self.relay.publisher.publish(&messages).await;
            let (mut refused, mut produced) = (Vec::new(), 0);
            for (at, outcome) in group.iter().copied().zip(outcomes) {
                match outcome {
                    Ok(()) => {
                        (produced, taken) = (produced + 1, true);
                        set.done(at);
                    }
                    Err(refusal) if refusal.blame != Blame::Message => kept_back.push((at, refusal)),
                    Err(refusal) if group.len() == 1 => refused_alone.push((at, refusal)),
                    Err(_) => refused.push(at),
                }
            }
            self.relay.metrics.events_produced(produced);
            self.note(set);
            if kept_back.iter().any(|(_, refusal)| refusal.blame == Blame::Everything) {
                break;
            }
            let half = refused.split_off(refused.len() / 2);
            groups.extend([refused, half].into_iter().filter(|group| !group.is_empty()));
        }
        // Where the topic takes none at all now it is not the message's fault.
        if taken {
            for (at, refusal) in refused_alone.drain(..) {
                self.pass_over(set.message(at).map(|message| &message.event), &refusal.reason);
                set.done(at);
            }
            self.note(set);
        }
        kept_back.extend(refused_alone);
        let whose = |(at, refusal)| Some((set.message(at)?.event.order_id, refusal));
        kept_back.into_iter().filter_map(whose).collect()
    }

    /// How far all is done, and since when the next waits.
    fn note(&self, set: &Set) {
        self.acknowledged.send_if_modified(|cursor| {
            let further = *cursor < set.reached();
            *cursor = set.reached().max(*cursor);
            further
        });
        self.relay.waits(set.waits_since(self.relay.clock.now()));
    }

    /// One event that can't be written holds up nobody: `verify` names it as missing.
    fn pass_over(&self, event: Option<&FeedEvent>, reason: &str) {
        let Some(event) = event else { return };
        self.relay.metrics.event_left_out();
        let (id, cursor) = (event.event_id(), event.cursor);
        error!(id, %cursor, reason, "an event is not written to its topic and is passed over");
    }
}

/// How it shows that events are refused.
fn told(refusal: &Refusal, relay: &EventRelay) -> Health {
    let text = format!("events can't be written to {}: {}", relay.topic, refusal.reason);
    match refusal.blame {
        Blame::Everything => Health::Down(text),
        Blame::Partition => Health::Degraded(Issues(vec![Issue::new(IssueKind::Partition, text)])),
        Blame::Message => Health::Degraded(Issues(vec![Issue::new(IssueKind::Refused, text)])),
    }
}
