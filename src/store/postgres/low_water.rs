//! Where looks for due steps begin.
//!
//! Each step leaves a dead entry in the index of due times until a vacuum, and a vacuum can't take it
//! while any session holds an older snapshot. A look that began at the beginning would walk past all
//! of them, more each second of a backup. So looks begin at a mark a little behind the last one, and
//! what came late below it is looked for apart ([`LowWater::below`]): near the mark about every second, since
//! that is where a replica that is killed leaves what it held, and from there to the beginning as often as it may
//! cost a small part of the time, in slices where all at once is too much.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use crate::order::Timestamp;

/// How far the mark stays behind a look: what was stamped before and is committed within this time is above it.
const BEHIND: Duration = Duration::from_secs(1);
/// Shortest pause between two looks of a kind below the mark.
const BELOW_EVERY: Duration = Duration::from_secs(1);
/// Looks far below the mark take at most this part of the time.
const SHARE: u32 = 20;
/// Looks near the mark take at most a fifth of the time.
const REST: u32 = 4;
/// How much time the looks near the mark cover: less where that takes long, down to the least.
const NEAR: Duration = Duration::from_mins(1);
const LEAST_NEAR: Duration = Duration::from_secs(5);
/// What a look near the mark may take.
const NEAR_WITHIN: Duration = Duration::from_millis(50);
/// How much time the first slice far below the mark covers; each further one twice as much.
const FIRST_SLICE: Duration = Duration::from_mins(1);
/// All of them together may be seen at once again, if they took no longer.
const WHOLE_WITHIN: Duration = Duration::from_millis(500);
/// A slice that is too slow is quartered, down to this; then it is left out.
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
    /// Shortest pause between two looks of a kind; with none, as in tests, looks cost nothing.
    every: Duration,
    /// Everything due before was done or seen; `None` until the first look.
    mark: Option<Timestamp>,
    near: Near,
    far: Far,
    /// The last look below the mark: whether it was near, and where.
    last_below: Option<(bool, Range)>,
}

/// Looks near the mark.
#[derive(Debug)]
struct Near {
    span: Duration,
    at: Instant,
}

/// Looks further below.
#[derive(Debug)]
struct Far {
    /// What is left of this pass; `None` if the next one begins anew.
    slice: Option<Slice>,
    at: Instant,
    /// What the slices of this pass have cost so far.
    cost: Duration,
    /// All at once was too slow.
    sliced: bool,
    /// Whether it was said that slices are left out.
    told: bool,
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
        let at = Instant::now();
        let near = Near { span: NEAR, at };
        let far = Far { slice: None, at, cost: Duration::ZERO, sliced: false, told: false };
        Self(Mutex::new(State { every, mark: None, near, far, last_below: None }))
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
            state.far.sliced = true;
        }
    }

    /// What to look at below the mark, if it is time to: what has waited longer.
    pub(super) fn below(&self) -> Option<Range> {
        let mut state = self.state();
        let (mark, now) = (state.mark?, Instant::now());
        let is_near = state.near.at <= state.far.at;
        if state.near.at.min(state.far.at) > now {
            return None;
        }
        let near_from = mark - state.near.span;
        let range = if is_near { (Some(near_from), Some(mark)) } else { state.far.range(near_from) };
        state.last_below = Some((is_near, range));
        Some(range)
    }

    /// Where the last look below the mark was for.
    pub(super) fn last_below(&self) -> Option<Range> {
        self.state().last_below.map(|(_, range)| range)
    }

    /// The look below the mark saw everything in its range.
    pub(super) fn looked_below(&self, took: Duration) {
        let State { every, near, far, last_below, .. } = &mut *self.state();
        let took = if every.is_zero() { Duration::ZERO } else { took };
        match last_below {
            Some((true, _)) => near.looked(took, *every),
            _ => far.looked(took, *every),
        }
    }

    /// It did not end in time.
    pub(super) fn too_slow_below(&self, took: Duration) {
        let State { every, near, far, last_below, .. } = &mut *self.state();
        match last_below {
            Some((true, _)) => near.looked(took, *every),
            _ => far.too_slow(took),
        }
    }
}

impl Near {
    fn looked(&mut self, took: Duration, every: Duration) {
        if took > NEAR_WITHIN {
            self.span = (self.span / 2).max(LEAST_NEAR);
        } else if took < NEAR_WITHIN / 4 {
            self.span = (self.span * 2).min(NEAR);
        }
        self.at = Instant::now() + (took * REST).max(every);
    }
}

impl Far {
    fn range(&mut self, from: Timestamp) -> Range {
        let first = Slice { to: from, span: self.sliced.then_some(FIRST_SLICE) };
        let Slice { to, span } = *self.slice.get_or_insert(first);
        (span.map(|span| to - span), Some(to))
    }

    fn looked(&mut self, took: Duration, every: Duration) {
        self.cost += took;
        self.next();
        let mut pause = took * SHARE;
        if self.slice.is_none() {
            self.sliced &= std::mem::take(&mut self.cost) > WHOLE_WITHIN;
            pause = pause.max(every);
        }
        self.at = Instant::now() + pause;
    }

    /// Goes on to what was due before.
    fn next(&mut self) {
        let Some(Slice { to, span }) = self.slice.take() else { return };
        let rest = span.map(|span| Slice { to: to - span, span: Some(span * 2) });
        self.slice = rest.filter(|rest| rest.to > BEGINNING);
        self.told &= self.slice.is_some();
    }

    /// The same end again, in a smaller slice; the least is left out.
    fn too_slow(&mut self, took: Duration) {
        self.sliced = true;
        self.cost += took;
        self.at = Instant::now() + took * SHARE;
        let Some(slice) = &mut self.slice else { return };
        if slice.span != Some(LEAST_SLICE) {
            slice.span = Some(slice.span.map_or(FIRST_SLICE, |span| (span / 4).max(LEAST_SLICE)));
            return;
        }
        let to = slice.to;
        if !std::mem::replace(&mut self.told, true) {
            warn!(
                "steps that were due within {LEAST_SLICE:?} before {to} can't be looked for in time and are left out \
                 this time; is a transaction open for long?"
            );
        }
        self.next();
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
    const MOMENT: Duration = Duration::from_millis(1);

    /// Lets looks near the mark pass until one further below is due; answers its range.
    async fn far_below(water: &LowWater) -> Range {
        loop {
            match water.below() {
                Some(range) if water.state().last_below.is_some_and(|(is_near, _)| !is_near) => return range,
                Some(_) => water.looked_below(Duration::ZERO),
                None => advance(MOMENT).await,
            }
        }
    }

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

    /// However long everything below takes.
    #[tokio::test(start_paused = true)]
    async fn what_is_near_the_mark_is_looked_at_every_second() {
        let water = LowWater::new();
        water.looked(at(1), at(1));
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for second in 1..=200 {
            water.looked(at(second), at(second));
            let mark = at(second) - BEHIND;
            while let Some(range) = water.below() {
                if range == (Some(mark - NEAR), Some(mark)) {
                    near.push(second);
                    water.looked_below(Duration::from_millis(10));
                } else {
                    assert_eq!(range, (None, Some(mark - NEAR)));
                    far.push(second);
                    water.looked_below(Duration::from_millis(1_500));
                }
            }
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(near, (1..=200).collect::<Vec<_>>());
        assert_eq!(far[..2], [1, 31], "a twentieth of the time");
    }

    #[tokio::test(start_paused = true)]
    async fn looks_near_the_mark_are_bounded_in_what_they_cost() {
        let mut near = Near { span: NEAR, at: Instant::now() };
        let mut look = |millis| {
            near.looked(Duration::from_millis(millis), BELOW_EVERY);
            (near.span, near.at - Instant::now())
        };
        assert_eq!(look(200), (NEAR / 2, BELOW_EVERY));
        assert_eq!(look(500), (NEAR / 4, Duration::from_secs(2)));
        for _ in 0..3 {
            look(60);
        }
        assert_eq!(look(30), (LEAST_NEAR, BELOW_EVERY));
        for _ in 0..9 {
            look(1);
        }
        assert_eq!(look(1), (NEAR, BELOW_EVERY));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_much_at_once_is_seen_slice_by_slice() {
        let water = LowWater::new();
        water.too_slow(at(160));
        assert_eq!(water.mark(), Some(at(100)));
        let (mut end, mut slices) = (at(100) - NEAR, 0);
        while end > BEGINNING {
            let (from, to) = far_below(&water).await;
            assert_eq!(to, Some(end), "no gap and no overlap");
            slices += 1;
            // Every fourth is too slow at first.
            if slices % 4 == 0 {
                water.too_slow_below(MOMENT);
                continue;
            }
            end = from.expect("a slice");
            water.looked_below(MOMENT);
        }
        assert!(slices < 160, "{slices}");
    }

    /// However slow one stretch of time is, what was due before is looked for.
    #[tokio::test(start_paused = true)]
    async fn a_hopeless_slice_is_left_out() {
        let (water, began) = (LowWater::new(), Instant::now());
        water.looked(at(1_000), at(1_000));
        let (start, failing) = (at(999) - NEAR, Duration::from_millis(1_800));
        let hopeless = start - Duration::from_secs(30);
        let (mut failures, mut before) = (0, None);
        while before.is_none_or(|before| before > BEGINNING) {
            let (from, to) = far_below(&water).await;
            if from.is_none_or(|from| from <= hopeless) && to > Some(hopeless) {
                water.too_slow_below(failing);
                failures += 1;
                assert!(water.state().far.at - Instant::now() == failing * SHARE, "a twentieth of the time");
            } else {
                before = from.or(Some(BEGINNING)).filter(|_| to <= Some(hopeless));
                water.looked_below(MOMENT);
            }
        }
        assert!(failures < 12 && began.elapsed() < failing * SHARE * 14, "{failures}, {:?}", began.elapsed());
        assert!(!water.state().far.told, "what is left out next time is said again");
    }
}
