//! The store remembers orders: each write happens whole or not at all.
//!
//! [`Store`] is the contract, made of what each of its callers needs. Its verbs are sets, so that a
//! batch costs one transaction however many orders it carries. The store owns the time: it stamps rows
//! and decides what is due, so that replicas with different clocks can share one database. Every write
//! may be repeated after an answer got lost; the second time changes nothing.
//!
//! Invariant: no SQL outside this folder, no business rule inside it.

mod columns;
#[cfg(test)]
pub(crate) mod conformance;
mod contract;
mod due;
mod errors;
mod feed;
mod figures;
#[cfg(test)]
pub(crate) mod flaky;
#[cfg(test)]
pub(crate) mod forwarded;
mod idempotency;
mod lost_answers;
#[cfg(test)]
pub(crate) mod memory;
mod odd_rows;
mod pages;
mod portions;
mod postgres;
mod reports;
mod resilient;
mod sqlite;

use std::time::Duration;

use serde_json::Value;

pub use contract::{EventLog, Insight, KeyStore, Maintenance, OrderStore, OutboxStore, Store};
pub use due::{Advance, Due, DueKey, DueOrders, SOON, moved_within};
pub use feed::{Arrival, FeedPage, FeedQuery, Holder, Horizon, Lease, Span};
pub use figures::Counts;
pub use pages::{Pages, Patience, ReportPages};
pub use portions::{Portion, in_portions, written_within};
#[cfg(test)]
pub(crate) use postgres::PgDatabase;
pub use postgres::{ParseDsnError, PgDsn, PgSettings, PgStore};
pub use reports::{OrderReport, ReportOutcome, Reported, Standing};
pub use resilient::Resilient;
pub use sqlite::SqliteStore;

use crate::order::{
    AuditedOrder, Backlog, COUNTED_TO, EventKind, LateOrders, LateSteps, OrderDetails, OrderId, OrderPlaced,
    Overdue, Start, Status, Timestamp, TrackedOrder, Transition, UNSENT_LISTED, Unsent,
};

/// What the database's driver may log unless somebody asks for more: it warns of each broken
/// connection after a restart of the server, and the loops have said so already.
pub const LOG_FILTER: &str = "sqlx::pool=error";

/// What is said of a database that 0.1 has made.
const EARLIER_VERSION: &str = "its tables are those of version 0.1, which this version can't take over";

pub use crate::{order::promises::IDEMPOTENCY_KEY_LIFETIME, time::deadlines::LOST as LOST_AFTER};

/// A client's `Idempotency-Key`: what two owners call the same are two keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey {
    /// The id of the API key that it came with; empty where nobody is asked for one.
    pub owner: String,
    /// As the client sent it.
    pub key: String,
}

impl IdempotencyKey {
    /// This owner's.
    pub fn new(owner: impl Into<String>, key: impl Into<String>) -> Self {
        Self { owner: owner.into(), key: key.into() }
    }

    /// Of a client that nobody has asked who it is.
    #[cfg(test)]
    pub(crate) fn open(key: impl Into<String>) -> Self {
        Self::new("", key)
    }
}

/// An order to be written.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Chosen before the first try, so that a retry can't make a second order.
    pub order_id: OrderId,
    /// What was ordered.
    pub details: OrderDetails,
    /// The client's `Idempotency-Key`, if it sent one.
    pub key: Option<IdempotencyKey>,
    /// Kept with the CREATED event.
    pub meta: Option<Value>,
    /// When it goes on.
    pub start: Start,
}

/// Who publishes the outbox rows of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbox {
    /// This replica does, from memory, right after the commit.
    Mine,
    /// Whoever calls [`OutboxStore::claim`] first.
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
    /// When it goes on.
    pub start: Start,
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

/// Orders with their timelines, as they stood at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// That moment, by the database's clock; of no meaning if there are none.
    pub now: Timestamp,
    /// The orders, in no order.
    pub orders: Vec<TrackedOrder>,
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
