//! How the scheduler's looks go: where each begins, and what it tells the next one.

use tokio::time::Instant;

use super::{Advance, Among, Looked, PgStore, Place, StoreError, Which, bounded, timers};
use crate::order::StageDelays;

impl PgStore {
    pub(super) async fn look(&self, which: Which<'_>, delays: &StageDelays) -> Result<Looked, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| timers::advance(db, which, now, delays).await).await
    }

    pub(super) async fn advance_soonest(
        &self,
        limit: usize,
        after: Option<Place>,
        delays: &StageDelays,
    ) -> Result<Advance, StoreError> {
        let mark = self.low_water.mark();
        let among = Among { range: (mark, None), after, limit, except: &[] };
        let looked = self.look(Which::In(among), delays).await;
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
        let looked = self.look(Which::In(Among { range, ..among }), delays).await;
        match &looked {
            Ok(Looked { full: false, .. }) => self.low_water.looked_below(started.elapsed()),
            Err(StoreError::Timeout(_)) => self.low_water.too_slow_below(started.elapsed()),
            _ => {}
        }
        Ok(looked?.advance)
    }
}
