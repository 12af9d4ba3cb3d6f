//! Where looks for due steps begin.
//!
//! Each step leaves a dead entry in the index of due times until a vacuum, and a vacuum can't take it
//! while any session holds an older snapshot. A look that began at the beginning would walk past all
//! of them, more each second of a backup. So looks begin at a mark a little behind the last one, and
//! what came late below it is looked for apart ([`LowWater::below`]), in slices where all at once is too much.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::order::Timestamp;

/// How far the mark stays behind a look: what was stamped before and is committed within this time is above it.
const BEHIND: Duration = Duration::from_secs(1);
/// Shortest pause between two looks below the mark.
const BELOW_EVERY: Duration = Duration::from_secs(1);
/// Looks below the mark take at most this part of the time.
const SHARE: u32 = 20;
/// How much time the first slice below the mark covers; each further one twice as much.
const FIRST_SLICE: Duration = Duration::from_mins(1);
/// All of them together may be seen at once again, if they took no longer.
const WHOLE_WITHIN: Duration = Duration::from_millis(500);
/// A slice that is too slow is halved, down to this.
const LEAST_SLICE: Duration = Duration::from_secs(1);
/// No order of ours was due before.
const BEGINNING: Timestamp = Timestamp::UNIX_EPOCH;

/// Due times to look at, from the first to the second; `None` is without end.
pub(super) type Range = (Option<Timestamp>, Option<Timestamp>);

/// The mark, and how far the looks below it have come.
#[derive(Debug)]
pub(super) struct LowWater(Mutex<State>);

#[derive(Debug)]
struct State {
    every: Duration,
    /// Everything due before was done or seen; `None` until the first look.
    mark: Option<Timestamp>,
    /// What is left of the look below the mark; `None` if the next one begins anew.
    slice: Option<Slice>,
    /// Where it looked last.
    last_below: Option<Range>,
    below_at: Instant,
    /// What the slices of this look have cost so far.
    cost: Duration,
    /// All at once was too slow.
    sliced: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slice {
    to: Timestamp,
    /// `None` reaches to the beginning.
    span: Option<Duration>,
}

impl LowWater {
    pub(super) fn new() -> Self {
        Self::with_pause(BELOW_EVERY)
    }

    /// The same with another pause between looks below the mark.
    pub(super) fn with_pause(every: Duration) -> Self {
        let (below_at, cost) = (Instant::now(), Duration::ZERO);
        Self(Mutex::new(State {
            every,
            mark: None,
            slice: None,
            last_below: None,
            below_at,
            cost,
            sliced: false,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }

    /// Where a look for what is due now begins.
    pub(super) fn mark(&self) -> Option<Timestamp> {
        self.state().mark
    }

    /// A look from the mark at the moment `now` has seen all that is due until `seen`. Follows the
    /// database's clock back, too.
    pub(super) fn looked(&self, now: Timestamp, seen: Timestamp) {
        self.state().mark = Some(seen.min(now - BEHIND));
    }

    /// The first look of all was too slow: begins just before `now` and leaves the rest to slices.
    pub(super) fn too_slow(&self, now: Timestamp) {
        let mut state = self.state();
        if state.mark.is_none() {
            state.mark = Some(now - FIRST_SLICE);
            state.sliced = true;
        }
    }

    /// What to look at below the mark, if it is time to.
    pub(super) fn below(&self) -> Option<Range> {
        let mut state = self.state();
        let mark = state.mark.filter(|_| state.below_at <= Instant::now())?;
        let first = Slice { to: mark, span: state.sliced.then_some(FIRST_SLICE) };
        let Slice { to, span } = *state.slice.get_or_insert(first);
        state.last_below = Some((span.map(|span| to - span), Some(to)));
        state.last_below
    }

    /// Where the last look below the mark was for.
    pub(super) fn last_below(&self) -> Option<Range> {
        self.state().last_below
    }

    /// The look below the mark saw everything in its slice.
    pub(super) fn looked_below(&self, took: Duration) {
        let mut state = self.state();
        state.cost += took;
        let Some(Slice { to, span }) = state.slice.take() else { return };
        let rest = span.map(|span| Slice { to: to - span, span: Some(span * 2) });
        state.slice = rest.filter(|rest| rest.to > BEGINNING);
        let (cost, least) = if state.slice.is_some() {
            (took, Duration::ZERO)
        } else {
            let whole = std::mem::take(&mut state.cost);
            state.sliced &= whole > WHOLE_WITHIN;
            (whole, state.every)
        };
        state.below_at = Instant::now() + (cost * SHARE).max(least);
    }

    /// It did not end in time: the same end again, in a smaller slice.
    pub(super) fn too_slow_below(&self) {
        let mut state = self.state();
        state.sliced = true;
        if let Some(slice) = &mut state.slice {
            slice.span = Some(slice.span.map_or(FIRST_SLICE, |span| (span / 2).max(LEAST_SLICE)));
        }
        state.below_at = Instant::now() + BELOW_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use tokio::time::advance;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        DAY + TimeDelta::seconds(seconds)
    }

    const DAY: Timestamp = Timestamp::from_timestamp_nanos(1_800_000_000_000_000_000);

    #[tokio::test(start_paused = true)]
    async fn the_mark_stays_behind_the_look_and_before_what_was_not_reached() {
        let water = LowWater::new();
        assert_eq!((water.mark(), water.below()), (None, None));
        water.looked(at(10), at(10));
        assert_eq!(water.mark(), Some(at(9)));
        water.looked(at(20), at(12));
        assert_eq!(water.mark(), Some(at(12)));
        water.looked(at(5), at(5));
        assert_eq!(water.mark(), Some(at(4)), "a clock that was set back");
    }

    #[tokio::test(start_paused = true)]
    async fn looks_below_the_mark_cost_a_twentieth_of_the_time() {
        let water = LowWater::new();
        water.looked(at(10), at(10));
        assert_eq!(water.below(), Some((None, Some(at(9)))));
        water.looked_below(Duration::from_millis(150));
        advance(Duration::from_millis(2_999)).await;
        assert_eq!(water.below(), None);
        advance(Duration::from_millis(1)).await;
        assert!(water.below().is_some());
        water.looked_below(Duration::ZERO);
        advance(BELOW_EVERY).await;
        assert!(water.below().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_much_at_once_is_seen_slice_by_slice() {
        let water = LowWater::new();
        water.too_slow(at(100));
        assert_eq!(water.mark(), Some(at(40)));
        let (mut end, mut slices) = (at(40), 0);
        while end > BEGINNING {
            advance(BELOW_EVERY).await;
            let (from, to) = water.below().expect("it is time");
            assert_eq!(to, Some(end), "no gap and no overlap");
            // Every third is too slow at first.
            if slices % 3 == 2 {
                water.too_slow_below();
                slices += 1;
                continue;
            }
            end = from.expect("a slice");
            slices += 1;
            water.looked_below(Duration::from_millis(1));
        }
        assert!(slices < 80, "{slices}");
    }
}
