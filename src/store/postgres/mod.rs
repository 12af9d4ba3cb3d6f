//! PostgreSQL 15 and later: any number of equal replicas on one database.
//!
//! One or two statements per verb, whatever the number of orders: sets travel as arrays (`unnest`),
//! and what belongs together is one statement, so that it is one transaction and one round trip.
//! The database's clock stamps and decides what is due.

mod arrive;
mod attention;
mod call_limit;
mod causes;
mod dsn;
mod events;
mod expiry;
mod insight;
mod keys;
mod looks;
mod low_water;
mod outbox;
mod parameters;
mod pools;
mod preconditions;
mod reach;
mod readiness;
mod rehearsal;
mod reports;
mod rights;
mod rows;
mod schema;
mod session;
mod settling;
mod timers;
mod tunnel;
mod verbs;

#[cfg(test)]
mod tests;

use std::{slice, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::PgConnection;
use tokio::time::{Instant, timeout_at};

use super::{
    Admission, Advance, Due, DueKey, DueOrders, Found, IdempotencyKey, Incoming, Maintenance, NewOrder,
    OrderReport, OrderStore, Outbox, OutboxStore, Page, Placement, Position, Reported, Republished, SOON,
    StoreError, due, errors, written_within,
};
use crate::{
    order::{Order, OrderId, OrderPlaced, Rules, StageDelays, Timestamp},
    time::Clock,
};
pub use dsn::{ParseDsnError, PgDsn};
#[cfg(test)]
pub(crate) use tests::Database as PgDatabase;

use attention::FigureReaches;
use call_limit::CallLimits;
use expiry::Expiry;
use low_water::LowWater;
use pools::{Pools, Slot};
use preconditions::Preconditions;
use rehearsal::{Kind, Rehearsals};
use session::Access;
use settling::Settling;
use timers::{Among, Looked, Which};

use crate::time::deadlines::{CALL, STATEMENT as STATEMENT_TIMEOUT};

/// How to reach the database.
#[derive(Clone)]
pub struct PgSettings {
    /// Where it is and who we are there.
    pub dsn: PgDsn,
    /// Most connections of this replica, at least [`PgSettings::MIN_CONNECTIONS`].
    pub max_connections: u32,
}

impl PgSettings {
    /// Two to place, one to report, two for the loops, one to read.
    pub const MIN_CONNECTIONS: u32 = 6;
}

/// The adapter for PostgreSQL.
pub struct PgStore {
    pools: Pools,
    /// Stands in for the database's clock in tests.
    clock: Option<Arc<dyn Clock>>,
    /// Marks outbox rows that this very replica holds in memory.
    replica: i64,
    access: Arc<Access>,
    preconditions: Arc<Preconditions>,
    rehearsals: Rehearsals,
    low_water: LowWater,
    call_limits: CallLimits,
    figures: FigureReaches,
    expiry: Expiry,
    settling: Settling,
}

impl PgStore {
    /// Describes a database; connects to nothing yet.
    pub fn new(settings: PgSettings) -> Self {
        let PgSettings { dsn, max_connections } = settings;
        let replica = rand::random();
        let access = Arc::new(Access::new(&dsn, replica));
        let reason = format!("not reached yet, {}", access.address());
        let preconditions = Arc::new(Preconditions::new(reason));
        Self {
            pools: Pools::new(&access, &preconditions, max_connections),
            clock: None,
            replica,
            access,
            preconditions,
            rehearsals: Rehearsals::default(),
            low_water: LowWater::new(),
            call_limits: CallLimits::default(),
            figures: FigureReaches::default(),
            expiry: Expiry::default(),
            settling: Settling::default(),
        }
    }

    /// The same on a clock of the test's own.
    #[cfg(test)]
    fn with_clock(settings: PgSettings, clock: Arc<dyn Clock>) -> Self {
        let low_water = LowWater::with_pause(Duration::ZERO);
        Self { clock: Some(clock), low_water, ..Self::new(settings) }
    }

    fn now(&self) -> Option<Timestamp> {
        self.clock.as_ref().map(|clock| clock.now())
    }

    fn pools(&self) -> Result<&Pools, StoreError> {
        self.preconditions.check()?;
        Ok(&self.pools)
    }
}

/// Runs a verb on a connection in time; gives up connections that only read, or get no answer.
async fn bounded<T>(
    slot: &Slot,
    verb: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> Result<T, StoreError> {
    run_within(STATEMENT_TIMEOUT, slot, |_| false, verb).await
}

/// The same with another limit of each statement; a failure that is `contained` leaves its connection to the next call.
async fn run_within<T>(
    limit: Duration,
    slot: &Slot,
    contained: impl Fn(&sqlx::Error) -> bool,
    verb: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> Result<T, StoreError> {
    let deadline = Instant::now() + CALL;
    let mut lease = slot.lease(limit).await?;
    let era = lease.era();
    let call = async {
        lease.give_up_after(limit).await?;
        verb(lease.connection()).await
    };
    match timeout_at(deadline, call).await {
        Ok(Ok(answer)) => {
            lease.rest();
            Ok(answer)
        }
        Ok(Err(error)) if contained(&error) => {
            lease.rest();
            Err(slot.access().error(error))
        }
        Ok(Err(error)) => {
            if let Some(sqlstate) = errors::questions_preconditions(&error) {
                slot.preconditions.doubt_for(&sqlstate);
            }
            let (read_only, broken) = (errors::is_read_only(&error), errors::invalidates_pool(&error));
            let error = slot.access().error(error);
            if read_only {
                slot.give_up(era, error.clone());
            }
            if broken {
                slot.doubt();
            }
            Err(error)
        }
        Err(_) => {
            let silence = format!("no answer within {CALL:?}, {}", slot.access().address());
            slot.give_up(era, StoreError::Unavailable(silence));
            Err(StoreError::Timeout(CALL))
        }
    }
}

#[async_trait]
impl OrderStore for PgStore {
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        let claimed_by = (outbox == Outbox::Mine).then_some(self.replica);
        let kind = Kind::of(orders);
        let slot = pools.placing(kind);
        let trial = self.preconditions.trial(kind);
        let placed = bounded(slot, async |db| arrive::place(db, orders, now, claimed_by).await).await;
        let placed = self.blamed(placed, (kind, slot, orders.len())).await;
        trial.judge(&placed);
        placed
    }

    async fn admit(&self, incoming: &[Incoming]) -> Result<Vec<Admission>, StoreError> {
        self.admit_within(incoming, Some(written_within(incoming.len()))).await
    }

    async fn admit_alone(&self, incoming: &Incoming) -> Result<Admission, StoreError> {
        Ok(self.admit_within(slice::from_ref(incoming), None).await?[0])
    }

    async fn advance_due(&self, which: Due<'_>, delays: &StageDelays) -> Result<Advance, StoreError> {
        match which {
            Due::Soonest { limit, after } => self.advance_soonest(limit, after, delays).await,
            Due::Overlooked { limit, after, except } => {
                self.advance_overlooked(Among { range: (None, None), after, limit, except }, delays).await
            }
            Due::Part(orders) => {
                self.advance_these(orders, Some(due::moved_within(orders.len())), delays).await
            }
            Due::SecondChance(orders) => self.advance_these(orders, Some(SOON), delays).await,
            Due::Alone(order_id) => self.advance_these(&[order_id], None, delays).await,
        }
    }

    async fn report_again(
        &self,
        reports: &[OrderReport],
        rules: &Rules,
        earlier: Option<Instant>,
    ) -> Result<Vec<Reported>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        let slot = &pools.reports;
        let verb = async |db: &mut PgConnection| reports::report(db, reports, rules, (now, earlier)).await;
        let named = async |db: &mut PgConnection| rights::naming(db, rights::OF_REPORTS, verb).await;
        let reported = bounded(slot, named).await.and_then(|reported| reported);
        self.blamed(reported, (Kind::Reported, slot, reports.len())).await
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
            Due::Part(orders) | Due::SecondChance(orders) => {
                return Ok(DueOrders { order_ids: orders.to_vec(), last: None });
            }
            Due::Alone(order_id) => return Ok(DueOrders { order_ids: vec![order_id], last: None }),
        };
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| timers::due(db, among, now).await).await
    }

    async fn positions(&self, orders: &[OrderId]) -> Result<Vec<Position>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.read, async |db| verbs::positions(db, orders, now).await).await
    }

    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Found, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        let find = async |db: &mut PgConnection| {
            let Found { now, orders } = verbs::find_all(db, order_ids, now).await?;
            Ok(Found { now, orders: reports::with_notes(db, orders).await })
        };
        bounded(&pools.read, find).await
    }

    async fn list(&self, page: &Page) -> Result<Vec<Order>, StoreError> {
        let pools = self.pools()?;
        bounded(&pools.read, async |db| verbs::list(db, page).await).await
    }
}

#[async_trait]
impl OutboxStore for PgStore {
    async fn heartbeat(&self) -> Result<(), StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        let said = bounded(&pools.loops, async |db| outbox::stay_alive(db, now, self.replica).await).await;
        // Nothing is committed where somebody holds the row.
        let held = || StoreError::Failed("another session holds this replica's row".to_owned());
        let said = said.and_then(|said| said.then_some(()).ok_or_else(held));
        self.preconditions.judge_heartbeat(&said);
        said
    }

    async fn unclaimed(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| outbox::unclaimed(db, after, limit, now).await).await
    }

    async fn claim(&self, unsent: &[OrderId]) -> Result<Vec<OrderPlaced>, StoreError> {
        let now = self.now();
        let claim = async |db: &mut PgConnection| outbox::claim(db, unsent, now, self.replica).await;
        self.on_rows(unsent.len(), claim, |claimed| !claimed.is_empty()).await
    }

    async fn lost(&self, held: &[OrderId], limit: usize) -> Result<Vec<OrderId>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        let (figures, replica) = (&self.figures, self.replica);
        bounded(&pools.loops, async |db| outbox::lost(db, figures, held, limit, now, replica).await).await
    }

    async fn mark_sent(&self, sent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        let mark = async |db: &mut PgConnection| outbox::mark_sent(db, sent).await;
        self.on_rows(sent.len(), mark, |held| held.len() < sent.len()).await
    }

    async fn release(&self, unsent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        let release = async |db: &mut PgConnection| outbox::release(db, unsent, self.replica).await;
        self.on_rows(unsent.len(), release, |held| held.len() < unsent.len()).await
    }

    async fn republish(&self, orders: &[OrderId]) -> Result<Vec<Republished>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| outbox::republish(db, orders, now).await).await
    }
}

#[async_trait]
impl Maintenance for PgStore {
    /// On a connection of its own, without the statement timeout of the others. The migrator holds
    /// an advisory lock, so replicas that start together take turns.
    async fn migrate(&self) -> Result<(), StoreError> {
        match self.prepare().await {
            Ok(placing) => {
                let held = !self.preconditions.hold();
                self.preconditions.looked(!held || placing.is_err());
                if !held {
                    // What was prepared in older sessions may not fit any more.
                    self.pools.doubt();
                }
                placing.map_err(|error| self.access.explained(error))
            }
            Err(unfit) => {
                if !self.preconditions.fail(&unfit) {
                    // Nobody uses them until then, and looking again takes two.
                    self.pools.doubt();
                }
                Err(self.access.explained(unfit.into()))
            }
        }
    }

    async fn doubted(&self) {
        self.preconditions.doubted().await;
    }

    async fn expire_idempotency_keys(&self, limit: usize) -> Result<u64, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.loops, async |db| self.expiry.slice(db, now, limit).await).await
    }

    async fn close(&self) {
        if let Ok(pools) = self.pools() {
            // If it fails, the claim just runs out a few seconds later.
            drop(bounded(&pools.loops, async |db| outbox::leave(db, self.replica).await).await);
        }
        self.pools.close().await;
    }
}
