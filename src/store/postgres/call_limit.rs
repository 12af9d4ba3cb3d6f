//! How soon the server gives up a call that moves orders, takes them over, or writes their outbox rows.
//!
//! One order that takes too long keeps all others of its set waiting for as long as the call may take, so that is a small
//! part of what a statement may take. Only where the database itself is so slow that nothing moves within it is it more.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{super::written_within, PgStore, STATEMENT_TIMEOUT, StoreError, errors, run_within};

/// So many calls that are given up one after the other, while nothing moves, are the database's fault.
const GIVEN_UP: u32 = 32;
/// Doubled so often, the shortest limit is as long as that of a statement.
const MOST_DOUBLED: u32 = 7;
/// A call that ends well takes at most this part of its limit, or the next has more.
const SHARE: u32 = 2;

/// One for each kind of call: how long one takes says nothing of another.
#[derive(Debug, Default)]
pub(super) struct CallLimits {
    /// Looks for what is due.
    pub(super) looks: CallLimit,
    /// Moving orders that are named.
    pub(super) sets: CallLimit,
    /// Taking orders over.
    pub(super) admissions: CallLimit,
    /// Clearing, claiming and giving back outbox rows.
    pub(super) outbox: CallLimit,
}

/// What was seen of it.
#[derive(Debug, Default)]
pub(super) struct CallLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How often limits are doubled.
    doubled: u32,
    given_up: u32,
}

impl CallLimit {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }

    /// The limit of a call that has `least` where the database is quick.
    pub(super) fn limit(&self, least: Duration) -> Duration {
        (least * (1 << self.state().doubled)).min(STATEMENT_TIMEOUT)
    }

    /// A call that has `least` where the database is quick has moved orders.
    pub(super) fn moved(&self, took: Duration, least: Duration) {
        let enough = |doubled: &u32| least * (1 << *doubled) >= took * SHARE;
        let doubled = (0..MOST_DOUBLED).find(enough).unwrap_or(MOST_DOUBLED);
        *self.state() = State { doubled, given_up: 0 };
    }

    /// One that went alone, in its own time, has moved. If it took long that may be its own fault, so others have a bit more
    /// at most.
    fn moved_alone(&self, took: Duration, least: Duration) {
        let before = self.state().doubled;
        self.moved(took, least);
        let mut state = self.state();
        state.doubled = state.doubled.min(before + 1);
    }

    /// A call was given up.
    pub(super) fn gave_up(&self) {
        let mut state = self.state();
        state.given_up += 1;
        if state.given_up >= GIVEN_UP {
            *state = State { doubled: (state.doubled + 1).min(MOST_DOUBLED), given_up: 0 };
        }
    }
}

impl PgStore {
    /// Runs a verb of the loops, whose statements stand alone: it is given up after `least`, unless the database does
    /// nothing so soon, or else as late as any. `usual` is what such a call would have where the database is quick.
    pub(super) async fn limited<T>(
        &self,
        call_limit: &CallLimit,
        (least, usual): (Option<Duration>, Duration),
        verb: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
        has_moved: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let pools = self.pools()?;
        let limit = least.map_or(STATEMENT_TIMEOUT, |least| call_limit.limit(least));
        let mut took = Duration::ZERO;
        let call = run_within(limit, &pools.loops, errors::leaves_session, async |db| {
            let started = Instant::now();
            let answer = verb(db).await;
            took = started.elapsed();
            answer
        });
        match call.await {
            Ok(answer) => {
                if has_moved(&answer) {
                    match least {
                        Some(_) => call_limit.moved(took, usual),
                        None => call_limit.moved_alone(took, usual),
                    }
                }
                Ok(answer)
            }
            Err(StoreError::Timeout(_)) => {
                if least.is_some() {
                    call_limit.gave_up();
                }
                Err(StoreError::Timeout(limit))
            }
            Err(error) => Err(error),
        }
    }

    /// The same with outbox rows: one of several may be what takes so long, and one alone has as long as a statement may.
    pub(super) async fn on_rows<T>(
        &self,
        count: usize,
        verb: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
        has_moved: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let usual = written_within(count);
        let least = (count > 1).then_some(usual);
        self.limited(&self.call_limits.outbox, (least, usual), verb, has_moved).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Duration = Duration::from_millis(25);
    const MANY: Duration = Duration::from_millis(250);

    #[test]
    fn a_slow_database_is_given_more_time_and_a_quick_one_less() {
        let call_limit = CallLimit::default();
        let limits = || [FEW, MANY].map(|least| call_limit.limit(least));
        assert_eq!(limits(), [FEW, MANY]);
        // Some that are slow among others that move change nothing.
        for _ in 0..10 {
            (1..GIVEN_UP).for_each(|_| call_limit.gave_up());
            call_limit.moved(FEW / SHARE, FEW);
        }
        assert_eq!(limits(), [FEW, MANY]);
        (0..GIVEN_UP).for_each(|_| call_limit.gave_up());
        assert_eq!(limits(), [FEW * 2, MANY * 2]);
        (0..GIVEN_UP * 9).for_each(|_| call_limit.gave_up());
        assert_eq!(limits(), [STATEMENT_TIMEOUT; 2], "no more than a statement may take");
        // Where each takes so long it stays so; where one is quick again, at once no more.
        call_limit.moved(FEW * 4, FEW);
        assert_eq!(limits(), [FEW * 8, STATEMENT_TIMEOUT]);
        call_limit.moved(MANY / SHARE, MANY);
        assert_eq!(limits(), [FEW, MANY]);
        call_limit.moved_alone(STATEMENT_TIMEOUT, FEW);
        assert_eq!(limits(), [FEW * 2, MANY * 2], "one that is slow alone says little of others");
        call_limit.moved_alone(FEW / SHARE, FEW);
        assert_eq!(limits(), [FEW, MANY]);
    }
}
