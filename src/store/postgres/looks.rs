//! How the scheduler's looks go: where each begins, and what it tells the next one.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{super::due, Advance, Among, DueKey, Looked, PgStore, StoreError, Which, bounded, timers};
use crate::order::{OrderId, StageDelays};

impl PgStore {
    /// One statement, so a replica that freezes meanwhile holds no order; given up after `least`, unless the database
    /// moves nothing so soon, or else as late as any.
    async fn look(
        &self,
        which: Which<'_>,
        least: Option<Duration>,
        delays: &StageDelays,
    ) -> Result<Looked, StoreError> {
        let now = self.now();
        // How long a look takes says nothing of a few orders that are named.
        let (call_limit, usual) = match which {
            Which::These(orders) => (&self.call_limits.sets, due::moved_within(orders.len())),
            Which::In(_) => (&self.call_limits.looks, least.unwrap_or_else(|| due::moved_within(1))),
        };
        let look = async |db: &mut PgConnection| timers::advance(db, which, now, delays).await;
        let has_moved = |looked: &Looked| !looked.advance.transitions.is_empty();
        self.limited(call_limit, (least, usual), look, has_moved).await
    }

    pub(super) async fn advance_these(
        &self,
        orders: &[OrderId],
        least: Option<Duration>,
        delays: &StageDelays,
    ) -> Result<Advance, StoreError> {
        Ok(self.look(Which::These(orders), least, delays).await?.advance)
    }

    pub(super) async fn advance_soonest(
        &self,
        limit: usize,
        after: Option<DueKey>,
        delays: &StageDelays,
    ) -> Result<Advance, StoreError> {
        let mark = self.low_water.mark();
        let among = Among { range: (mark, None), after, limit, except: &[] };
        // The first look of all may have much to walk past.
        let looked = self.look(Which::In(among), mark.map(|_| due::moved_within(limit)), delays).await;
        if let (Err(StoreError::Timeout(_)), None) = (&looked, mark) {
            let (pools, now) = (self.pools()?, self.now());
            let time = bounded(&pools.loops, async |db| timers::time(db, now).await).await?;
            self.low_water.too_slow(time);
        }
        let Looked { advance, now, seen, .. } = looked?;
        if let Some(seen) = seen {
            self.low_water.looked(now, seen);
        }
        Ok(advance)
    }

    /// What is full is looked at again before anything else.
    pub(super) async fn advance_overlooked(
        &self,
        among: Among<'_>,
        delays: &StageDelays,
    ) -> Result<Advance, StoreError> {
        let Some(range) = self.low_water.below() else { return Ok(Advance::default()) };
        let started = Instant::now();
        let looked = self
            .look(Which::In(Among { range, ..among }), Some(due::moved_within(among.limit)), delays)
            .await;
        match &looked {
            Ok(Looked { full: false, .. }) => self.low_water.looked_below(started.elapsed()),
            Err(StoreError::Timeout(_)) => self.low_water.too_slow_below(started.elapsed()),
            _ => {}
        }
        Ok(looked?.advance)
    }
}
