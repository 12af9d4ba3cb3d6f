//! The store remembers orders: each write happens whole or not at all.
//!
//! [`Store`] is the contract. Its verbs are sets, so that a batch costs one transaction however
//! many orders it carries. The store owns the time: it stamps rows and decides what is due, so
//! that replicas with different clocks can share one database. Every write may be repeated after an
//! answer got lost; the second time changes nothing.
//!
//! Invariant: no SQL outside this folder, no business rule inside it.

mod columns;
#[cfg(test)]
pub(crate) mod conformance;
mod due;
mod errors;
mod figures;
#[cfg(test)]
pub(crate) mod flaky;
mod idempotency;
#[cfg(test)]
pub(crate) mod memory;
mod odd_rows;
mod pages;
mod portions;
mod postgres;
mod resilient;
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

pub use due::{Advance, Due, DueOrders, Place, SOON, Transition};
pub use figures::{Backlog, COUNTED_TO, Counts, LateSteps, Overdue, UNSENT_LISTED, Unsent};
pub use pages::{Pages, Patience};
pub use portions::{Portion, in_portions};
pub use postgres::{ParseDsnError, PgDsn, PgSettings, PgStore};
pub use resilient::Resilient;
pub use sqlite::SqliteStore;

use crate::order::{
    AuditedOrder, EventKind, Order, OrderDetails, OrderId, OrderPlaced, StageDelays, Status, Timestamp,
    TrackedOrder,
};

/// What every database adapter does. `conformance` holds each to the same suite.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes new orders: each with its CREATED and PLACED events, its outbox row and its
    /// idempotency key. Answers in the order given. Repeating an id that is stored already
    /// answers [`Placement::Placed`] again.
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError>;

    /// Takes over orders that arrived on the topic: an unknown one starts at PLACED, a known one
    /// is left as it is. Answers in the order given.
    async fn admit(&self, incoming: &[Incoming]) -> Result<Vec<Admission>, StoreError>;

    /// Moves due orders as far as they may go by these delays, one event row per step.
    async fn advance_due(&self, due: Due<'_>, delays: &StageDelays) -> Result<Advance, StoreError>;

    /// Moves up to `limit` of those that are due, by the default delays.
    #[cfg(test)]
    async fn advance(&self, limit: usize) -> Result<Advance, StoreError> {
        self.advance_due(Due::Soonest { limit, after: None }, &StageDelays::default()).await
    }

    /// The orders that [`Store::advance_due`] would take, most overdue first; nothing is moved.
    async fn due(&self, due: Due<'_>) -> Result<DueOrders, StoreError>;

    /// Those of these orders that are there, each with its timeline; in no order.
    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Vec<TrackedOrder>, StoreError>;

    /// One order with its timeline.
    async fn find(&self, order_id: OrderId) -> Result<Option<TrackedOrder>, StoreError> {
        Ok(self.find_all(&[order_id]).await?.pop())
    }

    /// How far these orders are and when they go on, in any order; an unknown id is left out.
    async fn positions(&self, orders: &[OrderId]) -> Result<Vec<Position>, StoreError>;

    /// Orders, newest (greatest id) first, by keyset.
    async fn list(&self, page: &Page) -> Result<Vec<Order>, StoreError>;

    /// Up to `limit` orders with greater ids than `after`, smallest first, as an auditor reads them. Ids are
    /// texts here, since one that was written by hand may be none.
    async fn audit(&self, after: Option<&str>, limit: usize) -> Result<AuditPage, StoreError>;

    /// Says that this replica lives; called at least once a second, or others take its outbox rows.
    async fn heartbeat(&self) -> Result<(), StoreError>;

    /// Up to `limit` outbox rows that nobody alive is about to publish, with greater ids than `after`,
    /// smallest first. Only reads.
    async fn unclaimed(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, StoreError>;

    /// Makes those of these outbox rows this replica's that are nobody's still, or its own already;
    /// answers what to publish, smallest id first.
    async fn claim(&self, unsent: &[OrderId]) -> Result<Vec<OrderPlaced>, StoreError>;

    /// Up to `limit` outbox rows that are this replica's for more than [`LOST_AFTER`] and that it does
    /// not hold: a write took them whose answer got lost. The caller claims and publishes them.
    async fn lost(&self, held: &[OrderId], limit: usize) -> Result<Vec<OrderId>, StoreError>;

    /// Forgets outbox rows after the broker's acknowledgement. Answers those that stay, since another
    /// session of the database holds them.
    async fn mark_sent(&self, sent: &[OrderId]) -> Result<Vec<OrderId>, StoreError>;

    /// Gives outbox rows back that this replica could not publish, for anybody to take. Answers those
    /// that stay its own, since another session of the database holds them.
    async fn release(&self, unsent: &[OrderId]) -> Result<Vec<OrderId>, StoreError>;

    /// Puts orders into the outbox again, for anybody to take. Answers in the order given.
    async fn republish(&self, orders: &[OrderId]) -> Result<Vec<Republished>, StoreError>;

    /// Asks the database for nothing: whether it answers, and the schema is there.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What waits to be published.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// How many orders have each of these statuses; 0 for the others.
    async fn count(&self, statuses: &[Status]) -> Result<Counts, StoreError>;

    /// Steps more than `late` behind their time, and up to `limit` of these orders.
    async fn overdue(&self, late: Duration, limit: usize) -> Result<LateSteps, StoreError>;

    /// Forgets up to `limit` idempotency keys older than [`KEY_LIFETIME`]; answers how many.
    async fn expire_keys(&self, limit: usize) -> Result<u64, StoreError>;

    /// Brings the schema up to date; until then every other verb answers
    /// [`StoreError::Unavailable`]. Replicas may call it at the same time.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Waits until a call has failed as it would without the schema, or a right: [`Store::migrate`] tells.
    async fn doubted(&self) {
        std::future::pending::<()>().await;
    }

    /// Gives up this replica's outbox rows and closes all connections.
    async fn close(&self);
}

/// What the database's driver may log unless somebody asks for more: it warns of each broken
/// connection after a restart of the server, and the loops have said so already.
pub const LOG_FILTER: &str = "sqlx::pool=error";

/// What is said of a database that 0.1 has made.
const EARLIER_VERSION: &str = "its tables are those of version 0.1, which this version can't take over";

/// How long an idempotency key is honoured, at least.
pub const KEY_LIFETIME: Duration = Duration::from_hours(24);

/// How old an own outbox row must be to count as lost: older than any write may still be under way.
pub const LOST_AFTER: Duration = Duration::from_secs(10);

/// An order to be written.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Chosen before the first try, so that a retry can't make a second order.
    pub order_id: OrderId,
    /// What was ordered.
    pub details: OrderDetails,
    /// The client's `Idempotency-Key`, if it sent one.
    pub key: Option<String>,
    /// Kept with the CREATED event.
    pub meta: Option<Value>,
    /// How long after it is placed its first step is due; `None` if the service makes none.
    pub due_in: Option<Duration>,
}

/// Who publishes the outbox rows of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbox {
    /// This replica does, from memory, right after the commit.
    Mine,
    /// Whoever calls [`Store::claim`] first.
    Anyones,
}

/// What became of an order that is to be published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Republished {
    /// It waits in the outbox now.
    Queued,
    /// It waited there already.
    Waiting,
    /// There is no such order.
    Unknown,
}

/// What became of a [`NewOrder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// It is stored; this is what to publish.
    Placed(OrderPlaced),
    /// Its idempotency key had placed this order before.
    Replayed(OrderId),
    /// Its idempotency key had placed another order before; nothing was written.
    KeyReused,
}

/// An order that came from the topic.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The order as another system, or an earlier life of ours, placed it.
    pub placed: OrderPlaced,
    /// Kept with the CREATED event: where it came from.
    pub meta: Option<Value>,
    /// How long after it is taken over its first step is due; `None` if the service makes none.
    pub due_in: Option<Duration>,
}

/// What became of an [`Incoming`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It was unknown and is stored now.
    Admitted,
    /// It was known; nothing changed.
    Known,
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Which order.
    pub order_id: OrderId,
    /// Its status.
    pub status: Status,
    /// How long until its next step is due, counted from the answer; `None` once delivered.
    pub due_in: Option<Duration>,
}

/// Which orders to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Page {
    /// Only those in this status.
    pub status: Option<Status>,
    /// Only those with a smaller id.
    pub before: Option<OrderId>,
    /// At most so many.
    pub limit: usize,
}

/// Orders for an audit, as they stood at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// That moment.
    pub now: Timestamp,
    /// The orders, smallest id first.
    pub orders: Vec<AuditedOrder>,
    /// The ids of those that hold what no order can hold, as they are written.
    pub unreadable: Vec<String>,
    /// The id of the last order of all that were looked at; `None` if there were no more.
    pub last: Option<String>,
}

/// What the timeline of every order begins with.
const FIRST_EVENTS: [EventKind; 2] = [EventKind::Created, EventKind::Reached(FIRST_STATUS)];
/// The status in which every order begins.
const FIRST_STATUS: Status = Status::Placed;

/// How many orders a replica moves in one transaction, those that are most overdue first.
pub const MOVED_AT_ONCE: usize = 1_000;

/// A verb failed. What it was to write is not there, or, if only the answer got lost, will be
/// found there by a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached, is busy, full, restarting, or lacks a right or a table; the same
    /// call may succeed later, and no order is to blame.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The call did not end in time and was given up: too much at once, one that is locked, or trouble.
    #[error("the database did not answer within {0:?}")]
    Timeout(Duration),
    /// The database failed at this call; a smaller one may succeed.
    #[error("the database failed: {0}")]
    Failed(String),
    /// The database refuses what this call would write; a retry won't help.
    #[error("the database refused: {0}")]
    Refused(String),
    /// The tables at this address are those of 0.1, and no migration leads away from there.
    #[error(
        "the database can't be used: {EARLIER_VERSION}; name an empty one, or drop these tables and all orders in them, {0}"
    )]
    EarlierVersion(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout(_))
    }

    /// Whether one member of a set may be the reason, so that the others could go without it.
    pub fn may_be_one(&self) -> bool {
        !matches!(self, Self::Unavailable(_) | Self::EarlierVersion(_))
    }
}
