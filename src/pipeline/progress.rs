//! Makes due steps. A timer is a row (`due_at`), so it survives any crash; this loop only decides
//! when to look: at the next due time, when the bell rings, and at least every second for what
//! other replicas left behind. Steps that are due within a few milliseconds share a commit.
//!
//! A second loop beside it takes what made a set fail: it moves those that can move and puts the others
//! off, one by one. So the first never waits for an order that can't be moved.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Backoff, Outcome, StepError, pause, postponed::Postponements};
use crate::{
    bell::Bell,
    health::Condition,
    live::Live,
    metrics::{Metrics, Step},
    order::OrderId,
    store::{Advance, Due, MOVED_AT_ONCE, Portion, Store, StoreError, in_portions},
};

/// Longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two looks, unless more was due than one batch takes: a step may be as late as that.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Longest time between two looks at what was put off or overlooked.
const SORT_EVERY: Duration = Duration::from_millis(250);
/// Most that are sorted in one go.
const SORTED_AT_ONCE: usize = 1_000;
/// How many of those that can't be moved are named.
const NAMED: usize = 3;

/// Moves orders.
pub struct Progress {
    store: Arc<dyn Store>,
    bell: Arc<Bell>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    /// How many orders the database moves in time, all together and those that are sorted.
    portion: Portion,
    sorted: Portion,
    held: Mutex<Held>,
    suspected: Notify,
}

/// Orders that the first loop leaves alone.
#[derive(Default)]
struct Held {
    /// Members of a set that failed: one of them may be the reason.
    suspects: HashSet<OrderId>,
    /// Those that failed alone.
    postponed: Postponements,
}

impl Held {
    fn except(&self) -> Vec<OrderId> {
        self.suspects.iter().copied().chain(self.postponed.ids()).collect()
    }
}

impl Progress {
    /// A loop that is woken by `bell` and tells `live` what it moved.
    pub fn new(store: Arc<dyn Store>, bell: Arc<Bell>, live: Arc<Live>, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            bell,
            live,
            metrics,
            portion: Portion::new(MOVED_AT_ONCE),
            sorted: Portion::new(SORTED_AT_ONCE),
            held: Mutex::default(),
            suspected: Notify::new(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("no holder panics")
    }

    /// Works until told to stop; a step cut short is rolled back and due again.
    /// Says through `condition` whether steps can be made.
    pub async fn run(self, stop: CancellationToken, condition: watch::Sender<Condition>) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.make_steps(&stop, &condition) => {}
            () = self.sort_out(&stop) => {}
        }
    }

    async fn make_steps(&self, stop: &CancellationToken, condition: &watch::Sender<Condition>) {
        let mut backoff = Backoff::default();
        loop {
            let looked = Instant::now();
            match self.step().await {
                Ok(outcome) => {
                    backoff.reset();
                    tell(condition, self.condition());
                    if outcome == Outcome::Idle {
                        sleep_until(looked + LOOK_AGAIN).await;
                        self.bell.wait(LOOK_EVERY).await;
                    }
                }
                Err(error) => {
                    tell(condition, Condition::Down(error.to_string()));
                    pause("the progress loop", &mut backoff, &error, stop).await;
                }
            }
        }
    }

    async fn sort_out(&self, stop: &CancellationToken) {
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
                Err(error) => pause("sorting out what can't be moved", &mut backoff, &error, stop).await,
            }
        }
    }

    /// What is to be said of this part.
    pub(super) fn condition(&self) -> Condition {
        let held = self.held();
        if held.postponed.is_empty() {
            return Condition::Up;
        }
        let list = held.postponed.list();
        let named = list.iter().take(NAMED);
        let named: Vec<String> =
            named.map(|one| format!("{} can't be moved: {}", one.order_id, one.reason)).collect();
        let more = list.len().saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Condition::Degraded(format!("{}{more}", named.join("; ")))
    }

    /// Moves what is due now and sets the bell for what is due next; worked means that there is more.
    pub async fn step(&self) -> Result<Outcome, StepError> {
        let (started, except, limit) = (Instant::now(), self.held().except(), self.portion.size());
        let due = Due::Soonest { limit, except: &except };
        let outcome = self.store.advance_due(due).await;
        self.portion.judge(limit, started, &outcome);
        let Some(advance) = self.unless_it_may_be_one(outcome, due).await? else {
            return Ok(Outcome::Worked(0));
        };
        if let Some(wait) = advance.next_due_in {
            self.bell.ring_in(wait);
        }
        self.made(&advance, started);
        let more = advance.next_due_in == Some(Duration::ZERO) && !advance.moves.is_empty();
        Ok(if more { Outcome::Worked(advance.moves.len()) } else { Outcome::Idle })
    }

    /// Moves or puts off what made a set fail, and moves what was overlooked. Idle if nothing was there.
    pub async fn sort(&self) -> Result<Outcome, StepError> {
        let sorted = self.sort_suspects().await?;
        let (started, except, limit) = (Instant::now(), self.held().except(), self.sorted.size());
        let due = Due::Overlooked { limit, except: &except };
        let outcome = self.store.advance_due(due).await;
        self.sorted.judge(limit, started, &outcome);
        let Some(advance) = self.unless_it_may_be_one(outcome, due).await? else {
            return Ok(Outcome::Worked(sorted));
        };
        self.made(&advance, started);
        let count = sorted + advance.moves.len();
        Ok(if count > 0 { Outcome::Worked(count) } else { Outcome::Idle })
    }

    /// What a look did; none if it failed because of one of the orders, which then are suspects.
    async fn unless_it_may_be_one(
        &self,
        outcome: Result<Advance, StoreError>,
        due: Due<'_>,
    ) -> Result<Option<Advance>, StepError> {
        let error = match outcome {
            Ok(advance) => return Ok(Some(advance)),
            Err(error) if error.may_be_one() => error,
            Err(error) => return Err(error.into()),
        };
        let suspects = self.store.due(due).await?;
        if suspects.is_empty() {
            return Err(error.into());
        }
        self.held().suspects.extend(suspects);
        self.suspected.notify_one();
        Ok(None)
    }

    async fn sort_suspects(&self) -> Result<usize, StepError> {
        let suspects: Vec<OrderId> = {
            let held = self.held();
            let again = held.postponed.due(SORTED_AT_ONCE);
            again.into_iter().chain(held.suspects.iter().copied()).take(SORTED_AT_ONCE).collect()
        };
        if suspects.is_empty() {
            return Ok(0);
        }
        let answers =
            in_portions(&self.sorted, suspects.len(), |part| self.move_these(&suspects[part])).await;
        let (mut trouble, mut passed_over) = (None, Vec::new());
        for (order_id, answer) in suspects.iter().zip(answers) {
            match answer {
                Ok(true) => self.forget([*order_id]),
                Ok(false) => passed_over.push(*order_id),
                Err(error) if error.may_be_one() => self.put_off(*order_id, &error),
                Err(error) => trouble = Some(error),
            }
        }
        self.keep_those_still_due(passed_over).await?;
        trouble.map_or(Ok(suspects.len()), |error| Err(error.into()))
    }

    /// Answers for each whether it moved; one that another replica holds is passed over.
    async fn move_these(&self, orders: &[OrderId]) -> Result<Vec<bool>, StoreError> {
        let started = Instant::now();
        let advance = self.store.advance_due(Due::These(orders)).await?;
        self.made(&advance, started);
        let moved: HashSet<OrderId> = advance.moves.iter().map(|step| step.order_id).collect();
        Ok(orders.iter().map(|order_id| moved.contains(order_id)).collect())
    }

    /// Those that were passed over and are due all the same are tried by somebody else just now: they stay
    /// put off. All others have moved on.
    async fn keep_those_still_due(&self, passed_over: Vec<OrderId>) -> Result<(), StepError> {
        if passed_over.is_empty() {
            return Ok(());
        }
        let mut gone: HashSet<OrderId> = passed_over.iter().copied().collect();
        for position in self.store.positions(&passed_over).await? {
            if position.due_in == Some(Duration::ZERO) && self.held().postponed.wait(position.order_id) {
                gone.remove(&position.order_id);
            }
        }
        self.forget(gone);
        Ok(())
    }

    fn forget(&self, orders: impl IntoIterator<Item = OrderId>) {
        let mut held = self.held();
        for order_id in orders {
            held.suspects.remove(&order_id);
            held.postponed.remove(order_id);
        }
    }

    fn put_off(&self, order_id: OrderId, error: &StoreError) {
        let pause = {
            let mut held = self.held();
            held.suspects.remove(&order_id);
            held.postponed.add(order_id, error.to_string())
        };
        warn!(%order_id, %error, "an order can't be moved and is tried again in {pause:?}; all others go on");
    }

    fn made(&self, advance: &Advance, started: Instant) {
        if !advance.moves.is_empty() {
            self.live.moved(&advance.moves);
            self.metrics.step_done(Step::Advance, started.elapsed());
            self.metrics.moved(&advance.moves);
        }
    }
}

fn tell(condition: &watch::Sender<Condition>, now: Condition) {
    condition.send_if_modified(|last| {
        let news = *last != now;
        if news {
            *last = now;
        }
        news
    });
}
