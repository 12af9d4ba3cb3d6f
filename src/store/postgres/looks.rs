//! How the scheduler's looks go: where each begins, and what it tells the next one.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::due, Advance, Among, DueKey, Looked, PgStore, STATEMENT_TIMEOUT, StoreError, Which, bounded,
    errors, timers, within,
};
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
        let (pools, now) = (self.pools()?, self.now());
        // How long a look takes says nothing of a few orders that are named.
        let (call_limit, usual) = match which {
            Which::These(orders) => (&self.limit_of_sets, Some(due::within(orders.len()))),
            Which::In(_) => (&self.limit_of_looks, least),
        };
        let limit = least.map_or(STATEMENT_TIMEOUT, |least| call_limit.limit(least));
        let mut took = Duration::ZERO;
        let looked = within(limit, &pools.loops, errors::leaves_session, async |db| {
            let started = Instant::now();
            let looked = timers::advance(db, which, now, delays).await;
            took = started.elapsed();
            looked
        });
        match looked.await {
            Ok(looked) => {
                if !looked.advance.transitions.is_empty() {
                    call_limit.moved(took, usual.unwrap_or_else(|| due::within(1)));
                }
                Ok(looked)
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
        let looked = self.look(Which::In(among), mark.map(|_| due::within(limit)), delays).await;
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
        let looked =
            self.look(Which::In(Among { range, ..among }), Some(due::within(among.limit)), delays).await;
        match &looked {
            Ok(Looked { full: false, .. }) => self.low_water.looked_below(started.elapsed()),
            Err(StoreError::Timeout(_)) => self.low_water.too_slow_below(started.elapsed()),
            _ => {}
        }
        Ok(looked?.advance)
    }
}
