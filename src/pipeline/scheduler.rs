//! Makes due steps. A timer is a row (`due_at`), so it survives any crash; this loop only decides
//! when to look: at the next due time, when the alarm goes off, and at least every second for what
//! other replicas left behind. Steps that are due within a few milliseconds share a commit.
//!
//! A second loop beside it takes what made a set fail: it moves those that can move and puts the others
//! off, one by one. So the first never waits for an order that can't be moved; it goes on after them.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Outcome, StepError, held::Held, pause, postponed::Postponed};
use crate::{
    order::{OrderId, StageDelays, promises::OVERDUE_AFTER},
    store::{Advance, Due, DueOrders, MOVED_AT_ONCE, Portion, SOON, Store, StoreError, in_portions},
    telemetry::{
        health::{Health, Issue, IssueKind, Issues},
        metrics::{Metrics, Step},
    },
    time::{Alarm, Backoff},
    tracker::Transitions,
};

/// Longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const _: () = assert!(LOOK_EVERY.as_millis() < OVERDUE_AFTER.as_millis(), "what others left is made in time");
/// Shortest time between two looks, unless more was due than one batch takes: a step may be as late as that.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Longest time between two looks at what was put off or overlooked.
const SORT_EVERY: Duration = Duration::from_millis(250);
/// Most that are sorted in one go.
const SORTED_AT_ONCE: usize = 1_000;
/// Most of those put off that are tried in one go, and no more once it has taken so long: one alone may take as
/// long as a statement may.
const AGAIN_AT_ONCE: usize = 100;
const AGAIN_WITHIN: Duration = Duration::from_millis(250);
/// How many of those that can't be moved are named.
const NAMED: usize = 3;

/// Moves orders.
pub struct Scheduler {
    store: Arc<dyn Store>,
    alarm: Arc<Alarm>,
    transitions: Arc<Transitions>,
    metrics: Arc<Metrics>,
    delays: StageDelays,
    /// How many orders the database moves in time: of those that are due, were overlooked, are sorted.
    portion: Portion,
    overlooked: Portion,
    sorted: Portion,
    held: Mutex<Held>,
    /// How often orders were moved.
    moved: AtomicU64,
    suspected: Notify,
}

impl Scheduler {
    /// A loop that is woken by `alarm` and tells `transitions` of what it moved by these delays.
    pub fn new(
        store: Arc<dyn Store>,
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
            portion: Portion::new(MOVED_AT_ONCE),
            overlooked: Portion::new(MOVED_AT_ONCE),
            sorted: Portion::given_up_after(SORTED_AT_ONCE, SOON),
            held: Mutex::default(),
            moved: AtomicU64::new(0),
            suspected: Notify::new(),
        }
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
            () = self.sort_out() => {}
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

    async fn sort_out(&self) {
        let mut backoff = Backoff::default();
        loop {
            match self.sort().await {
                Ok(Outcome::Worked(_)) => backoff.reset(),
                Ok(_) => {
                    backoff.reset();
                    tokio::select! {
                        () = self.suspected.notified() => {}
                        () = sleep(SORT_EVERY) => {}
                    }
                }
                // That the database is away, the other loop says.
                Err(StepError::Store(StoreError::Unavailable(_))) => sleep(LOOK_EVERY).await,
                Err(error) => pause("sorting out what can't be moved", &mut backoff, &error).await,
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
                self.held().suspect(suspects);
                self.suspected.notify_one();
                // Goes on after them.
                Ok(Outcome::Worked(0))
            }
        }
    }

    /// Moves or puts off what made a set fail, tries again what was put off, and moves what was overlooked: each
    /// of these whatever comes of the others. Idle if nothing was there.
    pub async fn sort(&self) -> Result<Outcome, StepError> {
        let done = [self.sort_suspects().await, self.try_again().await, self.move_overlooked().await];
        if let Some(more) = self.held().postponed.left_out() {
            warn!("{more} more orders could not be moved");
        }
        let count = done.into_iter().sum::<Result<usize, StepError>>()?;
        Ok(if count > 0 { Outcome::Worked(count) } else { Outcome::Idle })
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

    /// Those first that came last: they have had no chance yet.
    async fn sort_suspects(&self) -> Result<usize, StepError> {
        let suspects: Vec<OrderId> = self.held().suspects.iter().rev().copied().collect();
        let before = self.moved.load(Ordering::Relaxed);
        let answers = in_portions(&self.sorted, suspects.len(), async |part| {
            let part = &suspects[part];
            let answer = self.move_these(Due::These(part), part).await;
            let others_moved = self.moved.load(Ordering::Relaxed) > before;
            answer.map_err(|error| match error {
                // The database does move orders, so this is not its trouble.
                StoreError::Timeout(limit) if part.len() == 1 && others_moved => {
                    StoreError::Failed(format!("it takes more than {limit:?}"))
                }
                error => error,
            })
        })
        .await;
        self.settle(suspects.into_iter().zip(answers)).await
    }

    /// Tries those that were put off, each alone. They are known to be bad, so whatever comes of them is their
    /// own fault, and they take a part of the time only.
    async fn try_again(&self) -> Result<usize, StepError> {
        let (again, started) = (self.held().again(AGAIN_AT_ONCE), Instant::now());
        let mut answers = Vec::new();
        for order_id in again {
            if !answers.is_empty() && started.elapsed() > AGAIN_WITHIN {
                break;
            }
            let answer = self.move_these(Due::Alone(order_id), &[order_id]).await;
            answers.push((order_id, answer.map(|moved| moved[0])));
        }
        if !answers.is_empty() {
            self.held().tried_again(started.elapsed());
        }
        self.settle(answers).await
    }

    async fn move_overlooked(&self) -> Result<usize, StepError> {
        let started = Instant::now();
        let Some((limit, after, except)) = self.held().overlooked(self.overlooked.size()) else {
            return Ok(0);
        };
        let due = Due::Overlooked { limit, after, except: &except };
        match self.store.advance_due(due, &self.delays).await {
            Ok(advance) => {
                self.overlooked.fits(advance.orders(), started.elapsed());
                self.made(&advance, started);
                if advance.next_due_in != Some(Duration::ZERO) {
                    self.held().seen_below();
                }
                Ok(advance.orders())
            }
            Err(error) => {
                let suspects = match self.blamed(due, &self.overlooked, error).await {
                    // There is too much to look through, not to move: the store looks at less the next time.
                    Err(StepError::Store(StoreError::Timeout(_))) => return Ok(0),
                    suspects => suspects?,
                };
                self.held().suspect_below(suspects);
                let sorted = self.sort_suspects().await;
                self.held().rest_below(started.elapsed());
                sorted
            }
        }
    }

    /// Answers for each whether it moved; one that another replica holds is passed over.
    async fn move_these(&self, due: Due<'_>, orders: &[OrderId]) -> Result<Vec<bool>, StoreError> {
        let started = Instant::now();
        let advance = self.store.advance_due(due, &self.delays).await?;
        self.made(&advance, started);
        let moved: HashSet<OrderId> = advance.transitions.iter().map(|step| step.order_id).collect();
        Ok(orders.iter().map(|order_id| moved.contains(order_id)).collect())
    }

    /// Forgets those that moved and puts those off that failed alone; answers how many these are.
    async fn settle(
        &self,
        answers: impl IntoIterator<Item = (OrderId, Result<bool, StoreError>)>,
    ) -> Result<usize, StepError> {
        let (mut count, mut trouble, mut passed_over) = (0, None, Vec::new());
        for (order_id, answer) in answers {
            match answer {
                Ok(true) => self.held().forget([order_id]),
                Ok(false) => {
                    passed_over.push(order_id);
                    continue;
                }
                Err(error) if error.may_be_one() => self.put_off(order_id, &error),
                Err(error) => {
                    trouble = Some(error);
                    continue;
                }
            }
            count += 1;
        }
        self.keep_those_still_due(passed_over).await?;
        trouble.map_or(Ok(count), |error| Err(error.into()))
    }

    /// Those that were passed over and are due all the same are tried by somebody else just now: they stay what
    /// they are. All others have moved on.
    async fn keep_those_still_due(&self, passed_over: Vec<OrderId>) -> Result<(), StepError> {
        if passed_over.is_empty() {
            return Ok(());
        }
        let mut gone: HashSet<OrderId> = passed_over.iter().copied().collect();
        for position in self.store.positions(&passed_over).await? {
            if position.due_in == Some(Duration::ZERO) {
                self.held().postponed.wait(position.order_id);
                gone.remove(&position.order_id);
            }
        }
        self.held().forget(gone);
        Ok(())
    }

    fn put_off(&self, order_id: OrderId, error: &StoreError) {
        if let Some(pause) = self.held().put_off(order_id, error.to_string()) {
            warn!(%order_id, %error, "an order can't be moved and is tried again in {pause:?} and after growing \
                pauses; all others go on");
        }
    }

    fn made(&self, advance: &Advance, started: Instant) {
        self.transitions.committed(&advance.transitions, advance.next_due_in);
        if !advance.transitions.is_empty() {
            self.moved.fetch_add(1, Ordering::Relaxed);
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
