//! How far the events are settled: up to which id nothing will become visible any more that is not visible now.
//!
//! An id is drawn before its transaction commits, so a reader that goes by the greatest visible id passes over those
//! that commit late. A *mark* is the sequence's last value and, from a later statement, a transaction id of our own.
//! Whoever drew an id up to that value held its transaction id by then (every statement that writes events writes its
//! orders first), and it is smaller than ours. So once a snapshot's `xmin` has reached ours, all of them have ended.
//! Not `xmax`, which misses what has begun and not ended; and never both in one statement, which sees one moment.

use std::collections::VecDeque;

use sqlx::{PgConnection, Row as _};
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::super::Horizon;
use crate::order::Cursor;

/// Most marks that wait; without room none is made, and the horizon moves in longer strides.
const MARKS: usize = 64;

/// The marks of this replica.
#[derive(Default)]
pub(super) struct Settling(Mutex<State>);

#[derive(Default)]
struct State {
    /// The life of the server: what an earlier one has handed out and not committed may be handed out again.
    server: Option<String>,
    settled: i64,
    /// Whether a mark was reached since.
    found: bool,
    /// Oldest first; each has a greater id and a greater transaction than the one before.
    marks: VecDeque<Mark>,
}

struct Mark {
    last: i64,
    transaction: i64,
    made: Instant,
}

impl State {
    fn marked(&self) -> i64 {
        self.marks.back().map_or(self.settled, |mark| mark.last)
    }

    fn reach(&mut self, xmin: i64) {
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.transaction <= xmin) {
            (self.settled, self.found) = (mark.last, true);
        }
    }

    /// Whether what is known is of another life of the server, or of a sequence that somebody has set back since.
    fn is_outdated(&self, seen: &Seen) -> bool {
        self.server.as_ref() != Some(&seen.server) || seen.last < self.marked()
    }
}

/// What a look sees in its first statement.
struct Seen {
    server: String,
    last: i64,
    cache: i64,
    xmin: i64,
}

impl Seen {
    async fn now(db: &mut PgConnection) -> sqlx::Result<Self> {
        let row = sqlx::query(
            // A crash of one of its processes is a new life too, and is seen by the statistics alone, which it resets.
            "SELECT concat(pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_wal)) AS server,
                 CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS last,
                 (SELECT seqcache FROM pg_sequence WHERE seqrelid = 'order_events_id_seq'::regclass) AS cache,
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin
             FROM order_events_id_seq",
        )
        .fetch_one(db)
        .await?;
        let (server, last) = (row.try_get("server")?, row.try_get("last")?);
        Ok(Self { server, last, cache: row.try_get("cache")?, xmin: row.try_get("xmin")? })
    }
}

/// Ids are handed out in blocks, so that what a session holds in reserve may be far below the last value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InBlocks;

impl Settling {
    /// Looks once more.
    pub(super) async fn look(&self, db: &mut PgConnection) -> sqlx::Result<Result<Horizon, InBlocks>> {
        let mut state = self.0.lock().await;
        let mut seen = Seen::now(&mut *db).await?;
        if state.is_outdated(&seen) {
            let places: Vec<i64> =
                sqlx::query_scalar("SELECT cursor FROM feed_cursors").fetch_all(&mut *db).await?;
            // Once more: one of them may have moved on since.
            seen = Seen::now(&mut *db).await?;
            *state = State {
                server: Some(seen.server.clone()),
                settled: begin(&places, seen.last),
                ..State::default()
            };
        }
        if seen.cache != 1 {
            return Ok(Err(InBlocks));
        }
        state.reach(seen.xmin);
        if state.marked() < seen.last && state.marks.len() < MARKS {
            let transaction = sqlx::query_scalar("SELECT pg_current_xact_id()::text::bigint");
            let transaction: i64 = transaction.fetch_one(&mut *db).await?;
            state.marks.push_back(Mark { last: seen.last, transaction, made: Instant::now() });
            let xmin = sqlx::query_scalar("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint");
            state.reach(xmin.fetch_one(&mut *db).await?);
        }
        let held = state.marks.front().map_or(Duration::ZERO, |mark| mark.made.elapsed());
        let found = state.found || state.settled == seen.last;
        Ok(Ok(Horizon { settled: Cursor(state.settled), last: Cursor(seen.last), held, found }))
    }
}

/// Where who knows nothing yet may begin: every place was settled when its reader got there, so that a transaction
/// left open elsewhere does not hide everything from a replica that has just started. One that somebody has set
/// beyond all events says nothing.
fn begin(places: &[i64], last: i64) -> i64 {
    places.iter().copied().filter(|place| *place <= last).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_replica_begins_where_readers_are() {
        assert_eq!(begin(&[], 9), 0);
        assert_eq!(begin(&[4, 7, 3], 9), 7);
        assert_eq!(begin(&[4, i64::MAX, 9], 9), 9, "one is nowhere");
    }
}
