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
    /// When the server started: what an earlier life of it has handed out and not committed may be handed out again.
    server: Option<f64>,
    settled: i64,
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
            self.settled = mark.last;
        }
    }
}

/// Ids are handed out in blocks, so that what a session holds in reserve may be far below the last value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InBlocks;

impl Settling {
    /// Looks once more.
    pub(super) async fn look(&self, db: &mut PgConnection) -> sqlx::Result<Result<Horizon, InBlocks>> {
        let mut state = self.0.lock().await;
        let seen = sqlx::query(
            "SELECT EXTRACT(epoch FROM pg_postmaster_start_time())::float8 AS server,
                 CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS last,
                 (SELECT seqcache FROM pg_sequence WHERE seqrelid = 'order_events_id_seq'::regclass) AS cache,
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin
             FROM order_events_id_seq",
        )
        .fetch_one(&mut *db)
        .await?;
        if seen.try_get::<i64, _>("cache")? != 1 {
            return Ok(Err(InBlocks));
        }
        let (server, last) = (seen.try_get("server")?, seen.try_get("last")?);
        if state.server != Some(server) || last < state.settled {
            *state = State { server: Some(server), ..State::default() };
        }
        state.reach(seen.try_get("xmin")?);
        if state.marked() < last && state.marks.len() < MARKS {
            let transaction = sqlx::query_scalar("SELECT pg_current_xact_id()::text::bigint");
            let transaction: i64 = transaction.fetch_one(&mut *db).await?;
            state.marks.push_back(Mark { last, transaction, made: Instant::now() });
            let xmin = sqlx::query_scalar("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint");
            state.reach(xmin.fetch_one(&mut *db).await?);
        }
        let held = state.marks.front().map_or(Duration::ZERO, |mark| mark.made.elapsed());
        Ok(Ok(Horizon { settled: Cursor(state.settled), last: Cursor(last), held }))
    }
}
