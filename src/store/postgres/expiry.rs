//! Throws old idempotency keys away, slice by slice.

use std::{sync::Mutex, time::Duration};

use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};
use tokio::time::Instant;

use super::{
    super::IDEMPOTENCY_KEY_LIFETIME,
    reach::Reach,
    rows::{moment, moment_if_any},
};
use crate::order::Timestamp;

/// Keys that somebody holds are left for the next time. Also forgets replicas that have been gone for as long.
const EXPIRE: &str = "
    WITH long_ago AS MATERIALIZED (
        SELECT COALESCE($1, clock_timestamp()) - $2::float8 * interval '1 second' AS moment
    ), gone AS (
        DELETE FROM relays WHERE replica = ANY (ARRAY(
            SELECT replica FROM relays WHERE alive_until < (SELECT moment FROM long_ago) FOR UPDATE SKIP LOCKED))
    ), old AS MATERIALIZED (
        SELECT ctid, created_at FROM idempotency_keys
        WHERE created_at >= COALESCE($3, (SELECT moment FROM long_ago) - $4::float8 * interval '1 second', '-infinity')
            AND created_at < (SELECT moment FROM long_ago)
        ORDER BY created_at LIMIT $5 FOR UPDATE SKIP LOCKED
    ), expired AS (
        -- Locked, so each is still where it was seen.
        DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING key
    )
    SELECT (SELECT moment FROM long_ago) AS until, (SELECT max(created_at) FROM old) AS last,
        (SELECT count(*) FROM expired) AS expired";

/// Where the next slice begins. One that began at the beginning would walk past all that those before it have left
/// dead in the index, for as long as an older snapshot is open.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    reach: Reach,
    place: Mutex<ExpiryProgress>,
}

#[derive(Debug, Default, Clone, Copy)]
struct ExpiryProgress {
    /// Where the last slice ended; `None` if the next one begins anew.
    from: Option<Timestamp>,
    /// Until when everything was thrown away once.
    done: Option<Timestamp>,
}

impl Expiry {
    /// Throws up to `limit` keys away; answers how many.
    pub(super) async fn slice(
        &self,
        db: &mut PgConnection,
        now: Option<Timestamp>,
        limit: usize,
    ) -> sqlx::Result<u64> {
        let place = *self.place.lock().expect("no holder panics");
        let started = Instant::now();
        let row = if let Some(from) = place.from {
            expire(db, now, Some(from), None, limit).await?
        } else {
            let back = self.reach.back();
            let from = place.done.filter(|_| back.is_some());
            self.reach.judge(started, expire(db, now, from, back, limit).await)?
        };
        let expired = row.try_get::<i64, _>("expired")?.unsigned_abs();
        let last = moment_if_any(&row, "last").ok().flatten();
        let place = if expired < limit as u64 {
            ExpiryProgress { from: None, done: Some(moment(&row, "until")?) }
        } else {
            ExpiryProgress { from: last.or(place.from), ..place }
        };
        *self.place.lock().expect("no holder panics") = place;
        Ok(expired)
    }
}

async fn expire(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    from: Option<Timestamp>,
    back: Option<Duration>,
    limit: usize,
) -> sqlx::Result<PgRow> {
    let mut tx = db.begin().await?;
    // In the order of the index: without statistics the planner would read and sort all that is old for each slice.
    sqlx::query(
        "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)",
    )
    .execute(&mut *tx)
    .await?;
    let row = sqlx::query(EXPIRE)
        .bind(now)
        .bind(IDEMPOTENCY_KEY_LIFETIME.as_secs_f64())
        .bind(from)
        .bind(back.map(|back| back.as_secs_f64()))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(row)
}
