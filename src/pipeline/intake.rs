//! From the topic back to the tables: unknown orders are admitted, known ones left alone, what
//! can't be an order goes to the dead letters. An offset is stored only after all that.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Backoff, Outcome, StepError, pause};
use crate::{
    bell::Bell,
    broker::{Publisher, Record, Subscription},
    metrics::{Consumed, Metrics, Step},
    order::{OrderPlaced, Reject, RejectReason},
    store::{Admission, Arrival, Portion, Store, StoreError, in_portions},
};

/// Most messages in one transaction.
const BATCH: usize = 500;

/// Reads the topic.
pub struct Intake {
    subscription: Box<dyn Subscription>,
    store: Arc<dyn Store>,
    publisher: Arc<dyn Publisher>,
    bell: Arc<Bell>,
    metrics: Arc<Metrics>,
    /// Taken from the topic and not done with: kept over a failed step.
    pending: Vec<Pending>,
    /// How many messages the database takes in time.
    portion: Portion,
}

struct Pending {
    record: Record,
    verdict: Verdict,
}

/// How far a message has come.
enum Verdict {
    Order(Box<Arrival>),
    Rejected(Reject),
    Done(Consumed),
}

impl Intake {
    /// An intake that reads from `subscription` and sets aside through `publisher`.
    pub fn new(
        subscription: Box<dyn Subscription>,
        store: Arc<dyn Store>,
        publisher: Arc<dyn Publisher>,
        bell: Arc<Bell>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            subscription,
            store,
            publisher,
            bell,
            metrics,
            pending: Vec::new(),
            portion: Portion::new(BATCH),
        }
    }

    /// Works until told to stop, then commits what was handled and leaves the group.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                outcome = self.step() => outcome,
            };
            match outcome {
                Ok(_) => backoff.reset(),
                Err(error) => pause("the intake", &mut backoff, &error, &stop).await,
            }
        }
        self.subscription.close().await;
    }

    /// Waits for messages and handles all that have come.
    pub async fn step(&mut self) -> Result<Outcome, StepError> {
        if self.pending.is_empty() {
            let records = self.subscription.next_batch(BATCH).await?;
            self.pending = records.into_iter().map(Pending::judge).collect();
        }
        let started = Instant::now();
        self.admit().await?;
        self.set_aside().await?;
        let (records, results): (Vec<Record>, Vec<Verdict>) =
            self.pending.drain(..).map(|pending| (pending.record, pending.verdict)).unzip();
        for result in results {
            if let Verdict::Done(result) = result {
                self.metrics.consumed(result);
            }
        }
        self.metrics.step_done(Step::Admit, started.elapsed());
        self.subscription.handled(&records)?;
        Ok(Outcome::Worked(records.len()))
    }

    async fn admit(&mut self) -> Result<(), StepError> {
        let Self { pending, store, bell, portion, .. } = self;
        let (arrivals, verdicts): (Vec<Arrival>, Vec<&mut Verdict>) = pending
            .iter_mut()
            .filter_map(|Pending { verdict, .. }| match verdict {
                Verdict::Order(arrival) => Some(((**arrival).clone(), verdict)),
                _ => None,
            })
            .unzip();
        // A message that the database refuses is found, so that the others need not wait for it.
        let answers = in_portions(portion, arrivals.len(), |part| store.admit(&arrivals[part])).await;
        let mut trouble = None;
        for (verdict, answer) in verdicts.into_iter().zip(answers) {
            match answer {
                Ok(admission) => *verdict = done(admission, bell),
                Err(StoreError::Refused(detail)) => {
                    *verdict = Verdict::Rejected(Reject { reason: RejectReason::Refused, detail });
                }
                Err(error) => trouble = Some(error),
            }
        }
        trouble.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn set_aside(&mut self) -> Result<(), StepError> {
        // All are handed over before the first is waited for: one round trip for a batch.
        let answers = self.pending.iter_mut().filter_map(|Pending { record, verdict }| match verdict {
            Verdict::Rejected(reject) => {
                let (reject, record) = (reject.clone(), &*record);
                let publisher = &self.publisher;
                Some(async move { (publisher.set_aside(record, &reject).await, record, reject, verdict) })
            }
            _ => None,
        });
        let mut failure = None;
        for (answer, record, reject, verdict) in join_all(answers).await {
            // One that failed must not make those that were acknowledged go out again.
            if let Err(error) = answer {
                failure = Some(error);
                continue;
            }
            let Record { topic, partition, offset, .. } = record;
            warn!(topic, partition, offset, "a message is set aside as a dead letter: {reject}");
            self.metrics.dead_letter(reject.reason);
            *verdict = Verdict::Done(Consumed::Rejected);
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn done(admission: Admission, bell: &Bell) -> Verdict {
    match admission {
        Admission::Known => Verdict::Done(Consumed::Known),
        Admission::Admitted => {
            // At once, not after the first delay: the progress loop looks and sets its own alarm.
            bell.ring_in(Duration::ZERO);
            Verdict::Done(Consumed::Admitted)
        }
    }
}

impl Pending {
    fn judge(record: Record) -> Self {
        let verdict = match &record.value {
            None => Verdict::Done(Consumed::Tombstone),
            Some(value) => match OrderPlaced::parse(record.key.as_deref(), value) {
                Ok(placed) => Verdict::Order(Box::new(Arrival { placed, meta: Some(origin(&record)) })),
                Err(reject) => Verdict::Rejected(reject),
            },
        };
        Self { record, verdict }
    }
}

/// Where an admitted order came from, kept with its CREATED event.
fn origin(record: &Record) -> Value {
    json!({"source": "topic", "topic": record.topic, "partition": record.partition, "offset": record.offset})
}
