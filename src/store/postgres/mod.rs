//! PostgreSQL 15 and later: any number of equal replicas on one database.
//!
//! One or two statements per verb, whatever the number of orders: sets travel as arrays (`unnest`),
//! and what belongs together is one statement, so that it is one transaction and one round trip.
//! The database's clock stamps and decides what is due.

mod arrive;
mod attention;
mod low_water;
#[cfg(test)]
mod oddities;
mod outbox;
#[cfg(test)]
mod plans;
mod pools;
mod rows;
mod schema;
mod timers;
mod verbs;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, timeout};

use super::{
    Admission, Advance, Arrival, Attention, AuditPage, Backlog, Due, DueOrders, NewOrder, Outbox, Page,
    Place, Placement, Position, Republished, Store, StoreError,
};
use crate::{
    clock::Clock,
    order::{Order, OrderId, OrderPlaced, StageDelays, Status, Timestamp, TrackedOrder},
};
use low_water::LowWater;
use pools::{Pools, Slot};
use timers::{Among, Looked, Which};

/// How long a verb may take before its connections are given up: nothing else notices a server
/// that has gone silent.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_900);
/// The oldest server that the statements are tested with.
const MIN_VERSION: i32 = 150_000;

/// How to reach the database.
#[derive(Clone)]
pub struct PgSettings {
    /// Where it is and who we are there.
    pub dsn: PgDsn,
    /// Most connections of this replica, at least [`PgSettings::MIN_CONNECTIONS`].
    pub max_connections: u32,
    /// How long each stage takes.
    pub delays: StageDelays,
}

impl PgSettings {
    /// Two to place, two for the loops, one to read.
    pub const MIN_CONNECTIONS: u32 = 5;
}

/// The address of a database, `postgres://user:password@host:port/database`; never shown.
#[derive(Clone)]
pub struct PgDsn(PgConnectOptions);

impl fmt::Debug for PgDsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, database) = (self.0.get_host(), self.0.get_database().unwrap_or_default());
        write!(f, "postgres://***@{host}:{}/{database}", self.0.get_port())
    }
}

/// The text is no address of a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be postgres://user:password@host:port/database, special characters in the password %-encoded")]
pub struct ParseDsnError;

impl FromStr for PgDsn {
    type Err = ParseDsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ours = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        text.parse().ok().filter(|_| ours).map(Self).ok_or(ParseDsnError)
    }
}

/// The adapter for PostgreSQL.
pub struct PgStore {
    settings: PgSettings,
    pools: Pools,
    /// Stands in for the database's clock in tests.
    clock: Option<Arc<dyn Clock>>,
    /// Marks outbox rows that this very replica holds in memory.
    replica: i64,
    migrated: AtomicBool,
    low_water: LowWater,
}

impl PgStore {
    /// Describes a database; connects to nothing yet.
    pub fn new(settings: PgSettings) -> Self {
        let replica = rand::random();
        Self {
            pools: Pools::new(&settings, replica),
            settings,
            clock: None,
            replica,
            migrated: AtomicBool::new(false),
            low_water: LowWater::new(),
        }
    }

    /// The same for a schema that is there already.
    pub fn migrated(settings: PgSettings) -> Self {
        let store = Self::new(settings);
        store.migrated.store(true, Ordering::Release);
        store
    }

    /// The same on a clock of the test's own.
    #[cfg(test)]
    fn with_clock(settings: PgSettings, clock: Arc<dyn Clock>) -> Self {
        let low_water = LowWater::with_pause(Duration::ZERO);
        Self { clock: Some(clock), low_water, ..Self::new(settings) }
    }

    /// Makes what the loops' sessions have read known to the server's statistics.
    #[cfg(test)]
    async fn flush_statistics(&self) {
        for _ in 0..4 {
            let flush = async |db: &mut PgConnection| {
                sqlx::query("SELECT pg_stat_force_next_flush()").execute(db).await
            };
            bounded(&self.pools.loops, flush).await.expect("flushes");
        }
    }

    fn now(&self) -> Option<Timestamp> {
        self.clock.as_ref().map(|clock| clock.now())
    }

    fn pools(&self) -> Result<&Pools, StoreError> {
        if self.migrated.load(Ordering::Acquire) {
            Ok(&self.pools)
        } else {
            Err(StoreError::Unavailable("its schema is not up to date yet".to_owned()))
        }
    }

    async fn look(&self, which: Which<'_>) -> Result<Looked, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| timers::advance(db, which, now, &self.settings.delays).await).await
    }

    async fn advance_soonest(&self, limit: usize, after: Option<Place>) -> Result<Advance, StoreError> {
        let mark = self.low_water.mark();
        let looked = self.look(Which::In(Among { range: (mark, None), after, limit, except: &[] })).await;
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
    async fn advance_overlooked(&self, among: Among<'_>) -> Result<Advance, StoreError> {
        let Some(range) = self.low_water.below() else { return Ok(Advance::default()) };
        let started = Instant::now();
        let looked = self.look(Which::In(Among { range, ..among })).await;
        match &looked {
            Ok(Looked { full: false, .. }) => self.low_water.looked_below(started.elapsed()),
            Err(StoreError::Timeout(_)) => self.low_water.too_slow_below(started.elapsed()),
            _ => {}
        }
        Ok(looked?.advance)
    }
}

/// Runs a verb on a connection in time; gives up connections that lead nowhere.
async fn bounded<T>(
    slot: &Slot,
    verb: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> Result<T, StoreError> {
    let pool = slot.pool();
    let call = async {
        let mut lease = slot.lease().await?;
        let answer = verb(lease.connection()).await?;
        lease.rest();
        Ok(answer)
    };
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            if super::trouble::leads_nowhere(&error) {
                slot.replace(&pool);
            }
            if super::trouble::breaks_connections(&error) {
                slot.doubt();
            }
            Err(error.into())
        }
        Err(_) => {
            slot.replace(&pool);
            Err(StoreError::Timeout(CALL_TIMEOUT))
        }
    }
}

#[async_trait]
impl Store for PgStore {
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        let claimed_by = (outbox == Outbox::Mine).then_some(self.replica);
        let delays = &self.settings.delays;
        let slot = if orders.iter().any(|order| order.key.is_some()) { &pools.keyed } else { &pools.place };
        bounded(slot, async |db| arrive::place(db, orders, now, delays, claimed_by).await).await
    }

    async fn admit(&self, arrivals: &[Arrival]) -> Result<Vec<Admission>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| arrive::admit(db, arrivals, now, &self.settings.delays).await).await
    }

    async fn advance_due(&self, due: Due<'_>) -> Result<Advance, StoreError> {
        match due {
            Due::Soonest { limit, after } => self.advance_soonest(limit, after).await,
            Due::Overlooked { limit, after, except } => {
                self.advance_overlooked(Among { range: (None, None), after, limit, except }).await
            }
            Due::These(orders) => {
                let (pools, now, delays) = (self.pools()?, self.now(), &self.settings.delays);
                let verb = async |db: &mut PgConnection| timers::advance_these(db, orders, now, delays).await;
                Ok(bounded(&pools.loops, verb).await?.advance)
            }
            Due::Alone(order_id) => Ok(self.look(Which::These(&[order_id])).await?.advance),
        }
    }

    async fn due(&self, due: Due<'_>) -> Result<DueOrders, StoreError> {
        let among = match due {
            Due::Soonest { limit, after } => {
                Among { range: (self.low_water.mark(), None), after, limit, except: &[] }
            }
            Due::Overlooked { limit, after, except } => match self.low_water.last_below() {
                Some(range) => Among { range, after, limit, except },
                None => return Ok(DueOrders::default()),
            },
            Due::These(orders) => return Ok(DueOrders { order_ids: orders.to_vec(), last: None }),
            Due::Alone(order_id) => return Ok(DueOrders { order_ids: vec![order_id], last: None }),
        };
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| timers::due(db, among, now).await).await
    }

    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Vec<TrackedOrder>, StoreError> {
        let pools = self.pools()?;
        bounded(&pools.read, async |db| verbs::find_all(db, order_ids).await).await
    }

    async fn positions(&self, orders: &[OrderId]) -> Result<Vec<Position>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.read, async |db| verbs::positions(db, orders, now).await).await
    }

    async fn list(&self, page: &Page) -> Result<Vec<Order>, StoreError> {
        let pools = self.pools()?;
        bounded(&pools.read, async |db| verbs::list(db, page).await).await
    }

    async fn audit(&self, after: Option<OrderId>, limit: usize) -> Result<AuditPage, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.read, async |db| verbs::audit(db, after, limit, now).await).await
    }

    async fn heartbeat(&self) -> Result<(), StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| outbox::stay_alive(db, now, self.replica).await).await
    }

    async fn unclaimed(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| outbox::unclaimed(db, after, limit, now).await).await
    }

    async fn claim(&self, unsent: &[OrderId]) -> Result<Vec<OrderPlaced>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| outbox::claim(db, unsent, now, self.replica).await).await
    }

    async fn lost(&self, held: &[OrderId], limit: usize) -> Result<Vec<OrderId>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| outbox::lost(db, held, limit, now, self.replica).await).await
    }

    async fn mark_sent(&self, sent: &[OrderId]) -> Result<(), StoreError> {
        let pools = self.pools()?;
        bounded(&pools.loops, async |db| outbox::mark_sent(db, sent).await).await
    }

    async fn release(&self, unsent: &[OrderId]) -> Result<(), StoreError> {
        let pools = self.pools()?;
        bounded(&pools.loops, async |db| outbox::release(db, unsent, self.replica).await).await
    }

    async fn republish(&self, orders: &[OrderId]) -> Result<Vec<Republished>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| outbox::republish(db, orders, now).await).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let pools = self.pools()?;
        bounded(&pools.read, async |db| sqlx::query("SELECT 1").execute(db).await.map(drop)).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let (pools, now, from) = (self.pools()?, self.now(), self.low_water.readable_from());
        let backlog = bounded(&pools.read, async |db| attention::backlog(db, now, from).await).await;
        backlog.inspect_err(|error| self.low_water.unreadable(error))
    }

    async fn count(&self, statuses: &[Status]) -> Result<[u64; 5], StoreError> {
        let pools = self.pools()?;
        bounded(&pools.read, async |db| attention::count(db, statuses).await).await
    }

    async fn attention(&self, late: Duration, limit: usize) -> Result<Attention, StoreError> {
        let (pools, now, from) = (self.pools()?, self.now(), self.low_water.readable_from());
        let verb = async |db: &mut PgConnection| attention::attention(db, now, from, late, limit).await;
        bounded(&pools.read, verb).await.inspect_err(|error| self.low_water.unreadable(error))
    }

    async fn expire_keys(&self, limit: usize) -> Result<u64, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| verbs::expire_keys(db, now, limit).await).await
    }

    /// On a connection of its own, without the statement timeout of the others. The migrator holds
    /// an advisory lock, so replicas that start together take turns.
    async fn migrate(&self) -> Result<(), StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CALL_TIMEOUT)
            .connect_with(self.settings.dsn.0.clone())
            .await?;
        let (version,): (i32,) =
            sqlx::query_as("SELECT current_setting('server_version_num')::int").fetch_one(&pool).await?;
        if version < MIN_VERSION {
            let (found, needed) = (version / 10_000, MIN_VERSION / 10_000);
            return Err(StoreError::Refused(format!("PostgreSQL {found} is too old, {needed} is needed")));
        }
        schema::bring_up_to_date(&pool).await?;
        // The first sign of life: what is placed before the relay's first sweep is ours already.
        outbox::stay_alive(&mut *pool.acquire().await?, self.now(), self.replica).await?;
        pool.close().await;
        self.migrated.store(true, Ordering::Release);
        Ok(())
    }

    async fn close(&self) {
        if let Ok(pools) = self.pools() {
            // If it fails, the claim just runs out a few seconds later.
            drop(bounded(&pools.loops, async |db| outbox::leave(db, self.replica).await).await);
        }
        self.pools.close().await;
    }
}
