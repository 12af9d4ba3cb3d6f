//! Makes due steps. A timer is a row (`due_at`), so it survives any crash; this loop only decides
//! when to look: at the next due time, when the alarm goes off, and at least every second for what
//! other replicas left behind. Steps that are due within a few milliseconds share a commit.
//!
//! A second loop beside it takes what made a set fail: it moves those that can move and puts the others
//! off, one by one; a third tries again those that were put off. So the first never waits for an order that can't be
//! moved, but goes on after them, and whoever was in their company waits for no other that can't.

mod held;
mod isolation;
mod suspects;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Outcome, StepError, pause, postponed::Postponed};
use crate::{
    order::{StageDelays, promises::OVERDUE_AFTER},
    store::{Advance, Due, DueOrders, MOVED_AT_ONCE, OrderStore, Portion, StoreError, moved_within},
    telemetry::{
        health::{Health, Issue, IssueKind, Issues},
        metrics::{Metrics, Step},
    },
    time::{Alarm, Backoff},
    tracker::Transitions,
};
use held::Held;

/// Longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const _: () = assert!(LOOK_EVERY.as_millis() < OVERDUE_AFTER.as_millis(), "what others left is made in time");
/// Shortest time between two looks, unless more was due than one batch takes: a step may be as late as that.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How many of those that can't be moved are named.
const NAMED: usize = 3;

/// Moves orders.
pub struct Scheduler {
    store: Arc<dyn OrderStore>,
    alarm: Arc<Alarm>,
    transitions: Arc<Transitions>,
    metrics: Arc<Metrics>,
    delays: StageDelays,
    /// How many orders the database moves in time: of those that are due, and of those that were overlooked.
    portion: Portion,
    overlooked: Portion,
    held: Mutex<Held>,
    /// How often orders were moved.
    moved: AtomicU64,
    /// How many were too slow alone since orders were last moved.
    too_slow_alone: AtomicUsize,
    suspected: Notify,
}

impl Scheduler {
    /// A loop that is woken by `alarm` and tells `transitions` of what it moved by these delays.
    pub fn new(
        store: Arc<dyn OrderStore>,
        alarm: Arc<Alarm>,
        transitions: Arc<Transitions>,
        metrics: Arc<Metrics>,
        delays: StageDelays,
    ) -> Self {
        Self {
            store,
            alarm,
            transitions,
            metrics,
            delays,
            portion: Portion::given_up_after(MOVED_AT_ONCE, moved_within(MOVED_AT_ONCE)),
            overlooked: Portion::given_up_after(MOVED_AT_ONCE, moved_within(MOVED_AT_ONCE)),
            held: Mutex::default(),
            moved: AtomicU64::default(),
            too_slow_alone: AtomicUsize::default(),
            suspected: Notify::new(),
        }
    }

    fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("no holder panics")
    }

    /// Works until told to stop; a step cut short is rolled back and due again.
    /// Says through `health` whether steps can be made.
    pub async fn run(self, stop: CancellationToken, health: watch::Sender<Health>) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.make_steps(&health) => {}
            () = self.isolate_failures() => {}
            () = self.try_over_and_over() => {}
        }
    }

    async fn make_steps(&self, health: &watch::Sender<Health>) {
        let mut backoff = Backoff::default();
        loop {
            let looked = Instant::now();
            match self.step().await {
                Ok(outcome) => {
                    backoff.reset();
                    tell(health, self.health());
                    if outcome == Outcome::Idle {
                        sleep_until(looked + LOOK_AGAIN).await;
                        self.alarm.wait(LOOK_EVERY).await;
                    }
                }
                Err(error) => {
                    tell(health, Health::Down(error.to_string()));
                    pause("the scheduler", &mut backoff, &error).await;
                }
            }
        }
    }

    /// What is to be said of this part.
    pub(super) fn health(&self) -> Health {
        let held = self.held();
        if held.postponed.is_empty() {
            return Health::Up;
        }
        let say = |one: &Postponed| {
            let text = format!("{} can't be moved: {}", one.order_id, one.reason);
            Issue::about(IssueKind::Held, one.order_id, text)
        };
        let mut issues: Vec<Issue> = held.postponed.worst(NAMED).into_iter().map(say).collect();
        let more = held.postponed.len().saturating_sub(NAMED);
        if more > 0 {
            issues.push(Issue::new(IssueKind::Held, format!("and {more} more")));
        }
        Health::Degraded(Issues(issues))
    }

    /// Moves what is due now and sets the alarm for what is due next; worked means that there is more.
    pub async fn step(&self) -> Result<Outcome, StepError> {
        let (started, limit) = (Instant::now(), self.portion.size());
        let due = Due::Soonest { limit, after: self.held().passed() };
        match self.store.advance_due(due, &self.delays).await {
            Ok(advance) => {
                self.portion.fits(advance.orders(), started.elapsed());
                self.made(&advance, started);
                let more = advance.next_due_in == Some(Duration::ZERO) && !advance.transitions.is_empty();
                Ok(if more { Outcome::Worked(advance.transitions.len()) } else { Outcome::Idle })
            }
            Err(error) => {
                let suspects = self.blamed(due, &self.portion, error).await?;
                self.held().suspect(suspects, self.moved());
                self.suspected.notify_one();
                // Goes on after them.
                Ok(Outcome::Worked(0))
            }
        }
    }

    /// The orders that a failed look was for, one of which may be the reason; the error if none can be.
    async fn blamed(
        &self,
        due: Due<'_>,
        portion: &Portion,
        error: StoreError,
    ) -> Result<DueOrders, StepError> {
        if !error.may_be_one() {
            return Err(error.into());
        }
        let orders = self.store.due(due).await?;
        if orders.order_ids.is_empty() {
            return Err(error.into());
        }
        if matches!(error, StoreError::Timeout(_)) {
            portion.too_much(orders.order_ids.len());
        }
        Ok(orders)
    }

    fn made(&self, advance: &Advance, started: Instant) {
        self.transitions.committed(&advance.transitions, advance.next_due_in);
        if !advance.transitions.is_empty() {
            self.moved.fetch_add(1, Ordering::Relaxed);
            self.too_slow_alone.store(0, Ordering::Relaxed);
            self.metrics.step_done(Step::Advance, started.elapsed());
        }
    }
}

fn tell(health: &watch::Sender<Health>, now: Health) {
    health.send_if_modified(|last| {
        let news = *last != now;
        if news {
            *last = now;
        }
        news
    });
}
