//! What is done about sets that failed, beside the loop that looks for due steps.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{
    super::{Outcome, StepError, pause},
    LOOK_EVERY, Scheduler,
    suspects::Part,
};
use crate::{
    order::OrderId,
    store::{Due, StoreError},
    time::Backoff,
};

/// Longest time between two looks at what was put off or overlooked.
const SORT_EVERY: Duration = Duration::from_millis(250);
/// Longest time for which suspects are sorted before what was overlooked has its turn.
const SORT_FOR: Duration = Duration::from_secs(1);
/// So many that are too slow alone, one after the other, while nothing moves, are no fault of theirs.
const TOO_SLOW_ALONE: usize = 2;
/// Most of those put off that are tried in one go, and no more once it has taken so long: one alone may take as
/// long as a statement may.
const AGAIN_AT_ONCE: usize = 100;
const AGAIN_WITHIN: Duration = Duration::from_millis(250);

impl Scheduler {
    /// Sorts what made sets fail, at once when there is some.
    pub(super) async fn isolate_failures(&self) {
        let mut backoff = Backoff::default();
        loop {
            let done = self.sort().await;
            tokio::select! {
                () = rest_after(done, &mut backoff) => {}
                () = self.suspected.notified() => {}
            }
        }
    }

    /// In a loop of its own: each of those that were put off may take as long as a statement may.
    pub(super) async fn try_over_and_over(&self) {
        let mut backoff = Backoff::default();
        loop {
            let done = self.try_again().await;
            rest_after(done, &mut backoff).await;
        }
    }

    /// Moves or puts off what made a set fail, and moves what was overlooked: each whatever comes of the other.
    /// Idle if nothing was there.
    pub async fn sort(&self) -> Result<Outcome, StepError> {
        let done = [self.sort_suspects(SORT_FOR).await, self.move_overlooked().await];
        if let Some(more) = self.held().postponed.left_out() {
            warn!("{more} more orders could not be moved");
        }
        let count = done.into_iter().sum::<Result<usize, StepError>>()?;
        Ok(if count > 0 || self.held().suspects.has_next() { Outcome::Worked(count) } else { Outcome::Idle })
    }

    /// Tries parts of sets that failed until none waits, or for as long as this; answers how many moved or were put off.
    async fn sort_suspects(&self, most: Duration) -> Result<usize, StepError> {
        let (started, mut count) = (Instant::now(), 0);
        while started.elapsed() < most {
            let Some(part) = self.held().suspects.next() else { break };
            count += self.sort_part(part).await?;
        }
        Ok(count)
    }

    async fn sort_part(&self, part: Part) -> Result<usize, StepError> {
        let (orders, is_second) = (&part.orders, part.is_second_chance());
        let due = if is_second { Due::SecondChance(orders) } else { Due::Part(orders) };
        let error = match self.move_these(due, orders).await {
            Ok(moved) => return self.settle(orders.iter().copied().zip(moved.into_iter().map(Ok))).await,
            Err(error) => error,
        };
        let error = match (error, &orders[..]) {
            (StoreError::Timeout(_), [_]) if !is_second => {
                self.held().suspects.second_chance(part);
                return Ok(0);
            }
            (StoreError::Timeout(limit), [_]) => self.too_slow_alone(limit, part.since),
            (error, _) => error,
        };
        match orders[..] {
            [order_id] if error.may_be_one() => return self.settle([(order_id, Err(error))]).await,
            _ if error.may_be_one() => self.held().suspects.take_apart(&part),
            _ => {
                self.held().suspects.put_last(part);
                return Err(error.into());
            }
        }
        Ok(0)
    }

    /// What it means that one alone was not moved in time.
    fn too_slow_alone(&self, limit: Duration, since: u64) -> StoreError {
        let before = self.too_slow_alone.fetch_add(1, Ordering::Relaxed);
        // The database does move orders, so this is not its trouble.
        if self.moved() > since {
            StoreError::Failed(format!("it takes more than {limit:?}"))
        } else if before >= TOO_SLOW_ALONE {
            StoreError::Unavailable(format!("nothing is moved within {limit:?}, not even one at a time"))
        } else {
            StoreError::Timeout(limit)
        }
    }

    /// Tries those that were put off, each alone. They are known to be bad, so whatever comes of them is their
    /// own fault, and they take a part of the time only. Idle if none was to be tried.
    pub async fn try_again(&self) -> Result<Outcome, StepError> {
        let asked = self.forget_those_not_due().await;
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
        let count = self.settle(answers).await?;
        asked?;
        Ok(if count > 0 { Outcome::Worked(count) } else { Outcome::Idle })
    }

    /// Whoever was put off and is cancelled, delayed or moved by somebody else meanwhile stands in nobody's list until its
    /// pause is over.
    async fn forget_those_not_due(&self) -> Result<(), StepError> {
        let orders = self.held().ask_about(LOOK_EVERY);
        if orders.is_empty() {
            return Ok(());
        }
        let positions = self.store.positions(&orders).await?;
        let due = positions.iter().filter(|position| position.due_in == Some(Duration::ZERO));
        let due: HashSet<OrderId> = due.map(|position| position.order_id).collect();
        self.held().forget(orders.into_iter().filter(|order_id| !due.contains(order_id)));
        Ok(())
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
                self.held().suspect_below(suspects, self.moved());
                let sorted = self.sort_suspects(Duration::MAX).await;
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
        let positions = self.store.positions(&passed_over).await.inspect_err(|_| {
            for order_id in &passed_over {
                self.held().suspects.leave_to_other(*order_id, self.moved());
            }
        })?;
        let mut gone: HashSet<OrderId> = passed_over.into_iter().collect();
        for position in positions {
            if position.due_in == Some(Duration::ZERO) {
                if !self.held().postponed.put_off_again(position.order_id) {
                    self.held().suspects.leave_to_other(position.order_id, self.moved());
                }
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
}

async fn rest_after(done: Result<Outcome, StepError>, backoff: &mut Backoff) {
    let rest = match done {
        Ok(Outcome::Worked(_)) => Duration::ZERO,
        Ok(_) => SORT_EVERY,
        // That the database is away, the first loop says.
        Err(StepError::Store(StoreError::Unavailable(_))) => LOOK_EVERY,
        Err(error) => return pause("sorting out what can't be moved", backoff, &error).await,
    };
    backoff.reset();
    if !rest.is_zero() {
        sleep(rest).await;
    }
}
