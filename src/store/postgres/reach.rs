//! How far back figures are read.
//!
//! What was deleted or has moved on stays in an index until a vacuum, and no vacuum takes it while a session holds
//! an older snapshot. A reading from the beginning walks past all of that, longer each minute, until it never ends
//! in time. So each figure has a reach of its own: it shrinks when the server gives a reading up, and everything
//! is tried again ever more rarely.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

/// Where a reading may begin: so long ago, or at the beginning.
const BACK: [Option<Duration>; 4] =
    [None, Some(Duration::from_hours(1)), Some(Duration::from_mins(10)), Some(Duration::from_mins(1))];
/// What took longer is as good as too slow; more than a lock is waited for.
const SLOW: Duration = Duration::from_millis(1_200);
/// When everything is tried again; each time in vain doubles it.
const AGAIN: Duration = Duration::from_mins(1);
/// The longest pause between two tries.
const LONGEST_AGAIN: Duration = Duration::from_mins(32);

/// How far back one figure is read.
#[derive(Debug)]
pub(super) struct Reach(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The place in [`BACK`].
    step: usize,
    /// Whether everything is being tried again.
    trying: bool,
    again_at: Instant,
    pause: Duration,
}

impl Default for Reach {
    fn default() -> Self {
        Self(Mutex::new(State { step: 0, trying: false, again_at: Instant::now(), pause: AGAIN }))
    }
}

impl Reach {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }

    /// How far back to read now; `None` is everything.
    pub(super) fn back(&self) -> Option<Duration> {
        let mut state = self.state();
        state.trying = state.step > 0 && state.again_at <= Instant::now();
        if state.trying { None } else { BACK[state.step] }
    }

    /// Hands on what came of a reading that began so far back.
    pub(super) fn judge<T>(&self, started: Instant, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        match &outcome {
            Ok(_) if started.elapsed() < SLOW => self.went_well(),
            Ok(_) => self.too_slow(),
            Err(error) if is_given_up(error) => self.too_slow(),
            // A lock, or trouble: it says nothing of what lies in the index.
            Err(_) => {}
        }
        outcome
    }

    fn went_well(&self) {
        let mut state = self.state();
        if state.trying || state.step == 0 {
            *state = State { step: 0, trying: false, pause: AGAIN, ..*state };
        }
    }

    /// The server gave up, or nearly did.
    pub(super) fn too_slow(&self) {
        let mut state = self.state();
        if state.trying {
            state.pause = (state.pause * 2).min(LONGEST_AGAIN);
        } else {
            state.step = (state.step + 1).min(BACK.len() - 1);
        }
        state.again_at = Instant::now() + state.pause;
    }
}

/// Whether the server has given a statement up since it took too long.
fn is_given_up(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| code == "57014"))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_too_slow_is_read_less_far_back_and_all_is_tried_ever_more_rarely() {
        let reach = Reach::default();
        for back in BACK.iter().chain(&BACK[3..]) {
            assert_eq!(reach.back(), *back);
            reach.too_slow();
        }
        let mut pause = AGAIN;
        for _ in 0..8 {
            advance(pause.saturating_sub(Duration::from_millis(1))).await;
            assert_eq!(reach.back(), BACK[3]);
            assert!(reach.judge(Instant::now(), Ok(())).is_ok());
            advance(Duration::from_millis(1)).await;
            assert_eq!(reach.back(), None, "tried again after {pause:?}");
            reach.too_slow();
            assert_eq!(reach.back(), BACK[3], "in vain");
            pause = (pause * 2).min(LONGEST_AGAIN);
        }
        advance(pause).await;
        assert_eq!(reach.back(), None);
        assert!(reach.judge(Instant::now(), Ok(())).is_ok());
        assert_eq!(reach.back(), None, "all of it again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_nothing_of_the_index_changes_nothing() {
        let reach = Reach::default();
        for _ in 0..9 {
            assert!(reach.judge::<()>(Instant::now(), Err(sqlx::Error::PoolTimedOut)).is_err());
            assert_eq!(reach.back(), None);
        }
        let started = Instant::now();
        advance(SLOW).await;
        assert!(reach.judge(started, Ok(())).is_ok());
        assert_eq!(reach.back(), BACK[1], "it came, but hardly");
    }
}
