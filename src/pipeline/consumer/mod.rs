//! From the topic back to the tables: unknown orders are admitted, known ones left alone, what
//! can't be an order goes to the dead letters. An offset is stored only after all that.
//!
//! A message that can be neither admitted nor written to the dead-letter topic holds up its own partition only: what was taken of
//! it is kept, no more is taken, and the other partitions go on. Nor do they wait while one that the database takes only too
//! slowly is tried: a batch with it is given up soon, it is found, and goes alone and beside from then on (`alone`).

mod alone;
mod health;
mod queue;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Outcome, StepError};
use crate::{
    broker::{BrokerError, Publisher, Record, Subscription},
    order::Start,
    store::{Incoming, Portion, Store, in_portions, written_within},
    telemetry::{
        health::Health,
        metrics::{Consumed, Metrics, Step},
    },
    time::Backoff,
    tracker::Transitions,
};
use alone::Trial;
use health::HealthReporter;
use queue::{MessageState, Pending, Queue, Why};

/// Most messages in one transaction.
const BATCH: usize = 500;
/// With so many that wait no more are taken from any partition.
const MOST_WAITING: usize = 10 * BATCH;
/// How long everybody waits for the acknowledgement of messages that become dead letters; from then on only their
/// partition does.
const DEAD_LETTER_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether the topic can be read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Partition and offset.
type PartitionOffset = (i32, i64);
/// What the dead-letter topic said.
type DeadLetterAnswer = (PartitionOffset, Result<(), BrokerError>);

/// Reads the topic.
pub struct Consumer {
    subscription: Box<dyn Subscription>,
    store: Arc<dyn Store>,
    publisher: Arc<dyn Publisher>,
    transitions: Arc<Transitions>,
    metrics: Arc<Metrics>,
    /// How long after it is taken over an order's first step is due.
    start: Start,
    /// Taken from the topic and not done with, by partition.
    queues: BTreeMap<i32, Queue>,
    /// Partitions from which nothing is taken.
    held_back: BTreeSet<i32>,
    /// Messages on their way to the dead-letter topic.
    leaving: FuturesUnordered<BoxFuture<'static, DeadLetterAnswer>>,
    /// How many messages the database takes in time.
    portion: Arc<Portion>,
    /// A message that is tried alone.
    trial: Trial,
}

impl Consumer {
    /// A consumer that reads from `subscription` and writes dead letters through `publisher`.
    pub fn new(
        subscription: Box<dyn Subscription>,
        store: Arc<dyn Store>,
        publisher: Arc<dyn Publisher>,
        transitions: Arc<Transitions>,
        metrics: Arc<Metrics>,
        start: Start,
    ) -> Self {
        Self {
            subscription,
            store,
            publisher,
            transitions,
            metrics,
            start,
            queues: BTreeMap::new(),
            held_back: BTreeSet::new(),
            leaving: FuturesUnordered::new(),
            portion: Arc::new(Portion::given_up_after(BATCH, written_within(BATCH))),
            trial: Trial::new(),
        }
    }

    /// Works until told to stop, then commits what was handled and leaves the group.
    /// Says through `health` whether the topic can be read and its messages handled.
    pub async fn run(mut self, stop: CancellationToken, health: watch::Sender<Health>) {
        let mut reporter = HealthReporter::new(health, Arc::clone(&self.metrics));
        let work = async {
            let mut backoff = Backoff::default();
            loop {
                match self.step().await {
                    Ok(_) => {
                        backoff.reset();
                        reporter.tell(self.health());
                    }
                    Err(error) => {
                        reporter.tell(Health::Down(error.to_string()));
                        tokio::time::sleep(backoff.next_pause()).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(work).await;
        drop(self.trial);
        self.subscription.close().await;
    }

    /// Waits for messages, or for the time to try some again, and handles all that may go.
    pub async fn step(&mut self) -> Result<Outcome, StepError> {
        self.forget_lost()?;
        let has_room = self.queues.values().map(Queue::waiting).sum::<usize>() < MOST_WAITING;
        let look_at = Instant::now() + LOOK_EVERY;
        let try_at = self.queues.values().filter_map(Queue::try_at);
        let wake_at = try_at.chain(self.try_alone_at()).fold(look_at, Instant::min);
        tokio::select! {
            biased;
            Some(answer) = self.leaving.next() => self.note(answer),
            answer = self.trial.end() => self.note_alone(answer),
            () = sleep_until(wake_at) => {}
            records = self.subscription.next_batch(BATCH), if has_room => {
                let records = records?;
                // Before what has come since.
                self.forget_lost()?;
                self.take(records);
            }
        }
        let started = Instant::now();
        self.admit().await;
        self.try_alone();
        self.dead_letter().await;
        let count = self.finish()?;
        if count > 0 {
            self.metrics.step_done(Step::Admit, started.elapsed());
        }
        Ok(if count > 0 { Outcome::Worked(count) } else { Outcome::Idle })
    }

    /// Whoever has a partition now reads again what was not handled here; if this member has it again, it must.
    fn forget_lost(&mut self) -> Result<(), StepError> {
        let lost = self.subscription.lost();
        self.queues.retain(|partition, _| !lost.contains(partition));
        let held_back = &self.held_back - &lost;
        if held_back != self.held_back {
            self.subscription.hold_back(&held_back)?;
            self.held_back = held_back;
        }
        Ok(())
    }

    fn take(&mut self, records: Vec<Record>) {
        for record in records {
            self.queues.entry(record.partition).or_default().take(record, self.start);
        }
    }

    /// Every message of this kind that may be tried now.
    fn due(&mut self, wanted: impl Fn(&MessageState) -> bool) -> Vec<(i32, &mut Pending)> {
        let now = Instant::now();
        let due = self.queues.iter_mut().filter(|(_, queue)| queue.is_due(now));
        due.flat_map(|(partition, queue)| queue.pending.iter_mut().map(|pending| (*partition, pending)))
            .filter(|(_, pending)| wanted(&pending.state))
            .collect()
    }

    async fn admit(&mut self) {
        let (store, transitions) = (Arc::clone(&self.store), Arc::clone(&self.transitions));
        let portion = Arc::clone(&self.portion);
        let due = self.due(|state| matches!(state, MessageState::Order(_)));
        let incoming: Vec<Incoming> = due.iter().filter_map(|(_, pending)| incoming(pending)).collect();
        // A message that the database refuses, or takes only too slowly, is found: the others need not wait for it.
        let answers = in_portions(&portion, incoming.len(), |part| store.admit(&incoming[part])).await;
        let mut failed = BTreeMap::new();
        for ((partition, pending), answer) in due.into_iter().zip(answers) {
            if let Some(error) = pending.answered(answer, &transitions) {
                failed.entry(partition).or_insert(error);
            }
        }
        for (partition, error) in failed {
            self.failed(partition, Why::from(&error));
        }
    }

    async fn dead_letter(&mut self) {
        let unhindered: BTreeSet<i32> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.trouble.is_none())
            .map(|(partition, _)| *partition)
            .collect();
        let publisher = Arc::clone(&self.publisher);
        let mut awaited = BTreeSet::new();
        let mut started: Vec<BoxFuture<'static, DeadLetterAnswer>> = Vec::new();
        for (partition, pending) in self.due(|state| matches!(state, MessageState::Rejected(_))) {
            let MessageState::Rejected(reject) = &pending.state else { continue };
            let (record, reject, publisher) =
                (pending.record.clone(), reject.clone(), Arc::clone(&publisher));
            pending.state = MessageState::DeadLettering(reject.clone());
            let place = (partition, record.offset);
            if unhindered.contains(&partition) {
                awaited.insert(place);
            }
            started.push(async move { (place, publisher.dead_letter(&record, &reject).await) }.boxed());
        }
        // All are handed over before the first is waited for: one round trip for a batch.
        self.leaving.extend(started);
        let deadline = Instant::now() + DEAD_LETTER_WITHIN;
        while !awaited.is_empty()
            && let Ok(Some(answer)) = timeout_at(deadline, self.leaving.next()).await
        {
            awaited.remove(&answer.0);
            self.note(answer);
        }
        // One that may still arrive is not sent again.
        for partition in awaited.into_iter().map(|(partition, _)| partition).collect::<BTreeSet<_>>() {
            let why =
                format!("the dead-letter topic has not acknowledged a message within {DEAD_LETTER_WITHIN:?}");
            self.failed(partition, Why::DeadLetter(why));
        }
    }

    /// Takes the dead-letter topic's answer.
    fn note(&mut self, ((partition, offset), answer): DeadLetterAnswer) {
        let Some(queue) = self.queues.get_mut(&partition) else { return };
        let Some(pending) = queue.pending.iter_mut().find(|pending| pending.record.offset == offset) else {
            return;
        };
        let MessageState::DeadLettering(reject) = &pending.state else { return };
        let reject = reject.clone();
        match answer {
            Ok(()) => {
                let topic = &pending.record.topic;
                warn!(topic, partition, offset, "a message becomes a dead letter: {reject}");
                self.metrics.dead_letter(reject.reason);
                pending.done(Consumed::Rejected);
            }
            // One that failed must not make those that were acknowledged go out again.
            Err(error) => {
                pending.state = MessageState::Rejected(reject);
                self.failed(partition, Why::DeadLetter(error.to_string()));
            }
        }
    }

    fn failed(&mut self, partition: i32, why: Why) {
        if let Some(queue) = self.queues.get_mut(&partition) {
            queue.failed(why);
        }
    }

    /// Hands on what is done with, and takes no more from partitions that stand still. Answers how many
    /// messages were handed on.
    fn finish(&mut self) -> Result<usize, StepError> {
        let mut handled = Vec::new();
        for queue in self.queues.values_mut() {
            for (record, result) in queue.finished() {
                self.metrics.consumed(result);
                handled.push(record);
            }
        }
        self.queues.retain(|_, queue| !queue.pending.is_empty());
        let standing = self.queues.iter().filter(|(_, queue)| queue.stands());
        let standing: BTreeSet<i32> = standing.map(|(partition, _)| *partition).collect();
        if standing != self.held_back {
            self.subscription.hold_back(&standing)?;
            self.held_back = standing;
        }
        if !handled.is_empty() {
            self.subscription.handled(&handled)?;
        }
        Ok(handled.len())
    }

    /// Whether the topic can be read and all of its messages handled.
    pub(super) fn health(&self) -> Health {
        let troubles = self
            .queues
            .iter()
            .filter_map(|(partition, queue)| Some((*partition, &queue.trouble.as_ref()?.why)));
        health::health(troubles).unwrap_or_else(|| self.subscription.health())
    }
}

fn incoming(pending: &Pending) -> Option<Incoming> {
    match &pending.state {
        MessageState::Order(order) => Some((**order).clone()),
        _ => None,
    }
}
