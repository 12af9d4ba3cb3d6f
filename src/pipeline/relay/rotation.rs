//! How the outbox is read: on from the last row that was seen, and from the beginning again at the end. So
//! rows that can't go stand in nobody's way, however many they are.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    order::{OrderId, Timestamp},
    store::{Portion, StoreError},
};

/// Most rows in one reading.
const READ_AT_ONCE: usize = 5_000;
/// Readings take at most a fifth of the time.
const REST: u32 = 4;
/// Where a rotation begins if it can't be read from the beginning in time: what is dead and not yet
/// vacuumed lies mostly there.
const REACH: [Option<Duration>; 4] =
    [None, Some(Duration::from_hours(1)), Some(Duration::from_mins(10)), Some(Duration::from_mins(1))];
/// How often it is tried to begin further back again.
const REACH_AGAIN: Duration = Duration::from_mins(1);

/// Where the reading stands.
#[derive(Debug)]
pub(super) struct Rotation {
    every: Duration,
    at: Instant,
    begun: Instant,
    /// Whether the next reading is the first of a rotation.
    begins: bool,
    after: Option<OrderId>,
    portion: Portion,
    /// The place in [`REACH`], and since when.
    reach: usize,
    reach_since: Instant,
    /// Whether it was said that the beginning can't be read.
    told: bool,
}

impl Rotation {
    /// A rotation that begins every so often at most.
    pub(super) fn new(every: Duration) -> Self {
        let now = Instant::now();
        Self {
            every,
            at: now,
            begun: now,
            begins: true,
            after: None,
            portion: Portion::new(READ_AT_ONCE),
            reach: 0,
            reach_since: now,
            told: false,
        }
    }

    /// When the next reading may be made.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// No reading for so long as two rotations lie apart.
    pub(super) fn hold(&mut self) {
        self.at = self.at.max(Instant::now() + self.every);
    }

    /// After which row to read, and how many.
    pub(super) fn next(&mut self, now: Timestamp) -> (Option<OrderId>, usize) {
        if self.begins {
            self.begins = false;
            self.begun = Instant::now();
            if self.reach > 0 && self.reach_since.elapsed() > REACH_AGAIN {
                self.reach -= 1;
                self.reach_since = self.begun;
            }
            self.after = REACH[self.reach].map(|back| OrderId::first_of(now - back));
        }
        (self.after, self.portion.size())
    }

    /// A reading of `rows` took so long; `last` is the last row that was dealt with. Answers since when all
    /// rows were seen, if there were no more.
    pub(super) fn read(&mut self, last: Option<OrderId>, rows: usize, took: Duration) -> Option<Instant> {
        let now = Instant::now();
        self.portion.fits(rows, took);
        self.at = now + took * REST;
        if rows > 0 {
            self.after = last.or(self.after);
            return None;
        }
        if self.reach == 0 && std::mem::take(&mut self.told) {
            info!("the outbox is read from its beginning again");
        }
        self.begins = true;
        self.at = self.at.max(self.begun + self.every);
        Some(self.begun)
    }

    /// Rows were claimed in vain, and it took so long: that counts as reading.
    pub(super) fn in_vain(&mut self, took: Duration) {
        self.at += took * REST;
    }

    /// A reading did not end in time.
    pub(super) fn too_slow(&mut self, error: &StoreError, took: Duration) {
        self.portion.too_much(self.portion.size());
        if !std::mem::replace(&mut self.told, true) {
            warn!(%error, "the outbox can't be read from its beginning, newer orders are looked for first; \
                is a transaction open for long?");
        }
        self.reach = (self.reach + 1).min(REACH.len() - 1);
        self.reach_since = Instant::now();
        self.begins = true;
        self.at = self.reach_since + took * REST;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::order::IdMint;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotation_goes_on_from_where_it_was_and_rests_between() {
        let (mut rotation, now, begun) = (Rotation::new(SECOND), Timestamp::UNIX_EPOCH, Instant::now());
        let [first, second] = [1, 2].map(|n| IdMint::default().mint(n, 7));
        assert_eq!(rotation.next(now), (None, READ_AT_ONCE));
        assert_eq!(rotation.read(Some(first), 9, at(50)), None);
        assert_eq!(rotation.at(), begun + at(200), "a fifth of the time");
        advance(at(200)).await;
        assert_eq!(rotation.next(now).0, Some(first));
        rotation.read(Some(second), 9, at(50));
        advance(at(200)).await;
        assert_eq!(rotation.next(now).0, Some(second));
        assert_eq!(rotation.read(None, 0, at(50)), Some(begun));
        assert_eq!(rotation.at(), begun + SECOND, "one a second");
        assert_eq!(rotation.next(now).0, None, "from the beginning");
        rotation.read(None, 0, at(400));
        rotation.in_vain(at(100));
        assert_eq!(rotation.at(), Instant::now() + at(2_000));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cant_be_read_in_time_is_begun_later_and_tried_again() {
        let mut rotation = Rotation::new(SECOND);
        let now = Timestamp::from_timestamp_millis(1_469_922_850_259).expect("a moment");
        let error = StoreError::Timeout(SECOND);
        assert_eq!(rotation.next(now).0, None);
        for back in REACH[1..].iter().chain(&REACH[3..]) {
            rotation.too_slow(&error, at(1_800));
            let start = OrderId::first_of(now - back.expect("some"));
            let (after, limit) = rotation.next(now);
            assert!(after == Some(start) && limit < READ_AT_ONCE, "{back:?}: {after:?}, {limit}");
        }
        rotation.read(None, 0, at(1));
        for begins in [REACH[2], REACH[1], None] {
            advance(REACH_AGAIN + at(1)).await;
            let start = begins.map(|back| OrderId::first_of(now - back));
            assert_eq!(rotation.next(now).0, start);
            assert!(rotation.told);
            rotation.read(None, 0, at(1));
        }
        assert!(!rotation.told, "what is over is said too");
    }

    /// Readings that find nothing say nothing about how many rows can be read in time.
    #[tokio::test(start_paused = true)]
    async fn the_size_that_works_is_kept_until_as_many_were_read() {
        let (mut rotation, now) = (Rotation::new(SECOND), Timestamp::UNIX_EPOCH);
        let some = IdMint::default().mint(1, 7);
        rotation.too_slow(&StoreError::Timeout(SECOND), at(1_800));
        for rows in [0, 1, READ_AT_ONCE / 2 - 1] {
            rotation.read(Some(some), rows, at(1));
            assert_eq!(rotation.next(now).1, READ_AT_ONCE / 2);
        }
        rotation.read(Some(some), READ_AT_ONCE / 2, at(1));
        assert_eq!(rotation.next(now).1, READ_AT_ONCE);
    }
}
