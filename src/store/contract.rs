//! The contract, split by who calls. `conformance` holds each adapter to the same suite.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    Admission, Advance, Arrival, AuditPage, Backlog, Counts, Due, DueOrders, FeedPage, FeedQuery, Found,
    Holder, Horizon, Incoming, LateOrders, LateSteps, Lease, NewOrder, OrderReport, Outbox, Page, Placement,
    Position, Reported, Republished, Span, StoreError,
};
use crate::{
    keys::{KeyCreation, KeyId, KeyList, KeyRecord, KeyUse, StoredKey},
    order::{
        AuditedReport, Cursor, Order, OrderFacts, OrderId, OrderPlaced, Rules, StageDelays, Status,
        TrackedOrder,
    },
};

/// What is done with orders: they are placed or taken over, move on, and are read.
#[async_trait]
pub trait OrderStore: Send + Sync + 'static {
    /// Writes new orders: each with its CREATED and PLACED events, its outbox row and its
    /// idempotency key. Answers in the order given. Repeating an id that is stored already
    /// answers [`Placement::Placed`] again.
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError>;

    /// Takes over orders that arrived on the topic: an unknown one starts at PLACED, a known one
    /// is left as it is. Answers in the order given. Given up [`written_within`](super::written_within) a time.
    async fn admit(&self, incoming: &[Incoming]) -> Result<Vec<Admission>, StoreError>;

    /// The same of one that was too slow among others, or failed with them: it has as long as a statement may take.
    async fn admit_alone(&self, incoming: &Incoming) -> Result<Admission, StoreError> {
        Ok(self.admit(std::slice::from_ref(incoming)).await?[0])
    }

    /// Moves due orders as far as they may go by these delays, one event row per step.
    async fn advance_due(&self, due: Due<'_>, delays: &StageDelays) -> Result<Advance, StoreError>;

    /// Moves up to `limit` of those that are due, by the default delays.
    #[cfg(test)]
    async fn advance(&self, limit: usize) -> Result<Advance, StoreError> {
        self.advance_due(Due::Soonest { limit, after: None }, &StageDelays::default()).await
    }

    /// Adds what is reported to the timelines, in the order given: each report sees what those before it did. One that is
    /// applied is stored with its order, its events and what it said, or not at all; answers in the order given.
    async fn report(&self, reports: &[OrderReport], rules: &Rules) -> Result<Vec<Reported>, StoreError> {
        self.report_again(reports, rules, None).await
    }

    /// The same, where an earlier call with these reports may have stored them: it began then, and its answer got lost.
    /// What it did not apply of an order that it has changed is answered as it was then, not by what it wrote behind it.
    async fn report_again(
        &self,
        reports: &[OrderReport],
        rules: &Rules,
        earlier: Option<Instant>,
    ) -> Result<Vec<Reported>, StoreError>;

    /// The orders that [`OrderStore::advance_due`] would take, most overdue first; nothing is moved.
    async fn due(&self, due: Due<'_>) -> Result<DueOrders, StoreError>;

    /// How far these orders are and when they go on, in any order; an unknown id is left out.
    async fn positions(&self, orders: &[OrderId]) -> Result<Vec<Position>, StoreError>;

    /// Those of these orders that are there, each with its timeline; in no order.
    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Found, StoreError>;

    /// One order with its timeline.
    async fn find(&self, order_id: OrderId) -> Result<Option<TrackedOrder>, StoreError> {
        Ok(self.find_all(&[order_id]).await?.orders.pop())
    }

    /// Orders, newest (greatest id) first, by keyset.
    async fn list(&self, page: &Page) -> Result<Vec<Order>, StoreError>;
}

/// What is done with orders that wait to be published.
#[async_trait]
pub trait OutboxStore: Send + Sync + 'static {
    /// Says that this replica lives; called at least once a second, or others take its outbox rows.
    async fn heartbeat(&self) -> Result<(), StoreError>;

    /// Up to `limit` outbox rows that nobody alive is about to publish, with greater ids than `after`,
    /// smallest first. Only reads.
    async fn unclaimed(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, StoreError>;

    /// Makes those of these outbox rows this replica's that are nobody's still, or its own already;
    /// answers what to publish, smallest id first.
    async fn claim(&self, unsent: &[OrderId]) -> Result<Vec<OrderPlaced>, StoreError>;

    /// Up to `limit` outbox rows that are this replica's for more than [`LOST_AFTER`](super::LOST_AFTER) and that it does
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
}

/// What is done with the events of all orders, which lie in one order: that of their ids.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Looks how far they are settled. Costs the same however many there are.
    async fn horizon(&self) -> Result<Horizon, StoreError>;

    /// Up to `limit` of those that are visible within these spans, settled or not, smallest id first.
    async fn arrivals(&self, spans: &[Span], limit: usize) -> Result<Vec<Arrival>, StoreError>;

    /// Reads events, smallest id first; of a kind, within the first [`FeedQuery::EXAMINED`] rows.
    async fn events(&self, query: &FeedQuery) -> Result<FeedPage, StoreError>;

    /// What may be told of these orders and never changes; in no order.
    async fn facts(&self, orders: &[OrderId]) -> Result<Vec<(OrderId, OrderFacts)>, StoreError>;

    /// Who holds the horizon back the longest, if anybody does.
    async fn holder(&self) -> Result<Option<Holder>, StoreError>;

    /// Takes the place `name` for so long, or keeps it; `None` while another replica has it. It begins at the start.
    async fn lease(&self, name: &str, lasting: Duration) -> Result<Option<Lease>, StoreError>;

    /// Moves a place on and keeps it for so long. Answers the new lease; `None` if it is not this one's any more.
    async fn move_on(
        &self,
        name: &str,
        lease: Lease,
        to: Cursor,
        lasting: Duration,
    ) -> Result<Option<Lease>, StoreError>;

    /// Gives a place back, for anybody to take at once.
    async fn give_back(&self, name: &str, lease: Lease) -> Result<(), StoreError>;

    /// How far the reader of this name has come; `None` before its first lease.
    async fn place_of(&self, name: &str) -> Result<Option<Cursor>, StoreError>;
}

/// What is asked about orders by those who watch, count and audit them.
#[async_trait]
pub trait Insight: Send + Sync + 'static {
    /// Asks the database for nothing: whether it answers, and the schema is there.
    async fn ping(&self) -> Result<(), StoreError>;

    /// How many orders have each of these statuses; 0 for the others.
    async fn count(&self, statuses: &[Status]) -> Result<Counts, StoreError>;

    /// What waits to be published.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// Steps more than `late` behind their time, and up to `limit` of these orders.
    async fn overdue(&self, late: Duration, limit: usize) -> Result<LateSteps, StoreError>;

    /// Orders that people move and that are behind their time, and up to `limit` of them.
    async fn late(&self, limit: usize) -> Result<LateOrders, StoreError>;

    /// Up to `limit` orders with greater ids than `after`, smallest first, as an auditor reads them. Ids are
    /// texts here, since one that was written by hand may be none.
    async fn audit(&self, after: Option<&str>, limit: usize) -> Result<AuditPage, StoreError>;

    /// Up to `limit` of what is kept beside events, behind this order and position, up to the order `until` if one is given,
    /// by orders and positions; each with the event that stands there.
    async fn audit_reports(
        &self,
        after: (&str, i64),
        until: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AuditedReport>, StoreError>;
}

/// What is done with the keys by which programs and people say who they are.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Those that are good, at most [`MAX_LIVE_KEYS`](crate::keys::MAX_LIVE_KEYS); one that can't be read is left out.
    async fn live_keys(&self) -> Result<Vec<StoredKey>, StoreError>;

    /// Notes when keys were last used, to the minute; never goes back. Answers those that are still to be noted, since
    /// another session of the database holds them.
    async fn note_uses(&self, uses: &[KeyUse]) -> Result<Vec<KeyId>, StoreError>;

    /// All of them, oldest first.
    async fn list_keys(&self) -> Result<KeyList, StoreError>;

    /// Writes a new one. Repeating it answers the same.
    async fn create_key(&self, key: &StoredKey) -> Result<KeyCreation, StoreError>;

    /// Ends the key with this id, else the one with this name, and answers it; `None` if there is none. One that is
    /// revoked already stays as it is.
    async fn revoke_key(&self, id_or_name: &str) -> Result<Option<KeyRecord>, StoreError>;
}

/// What makes and keeps a database fit, whatever it holds.
#[async_trait]
pub trait Maintenance: Send + Sync + 'static {
    /// Brings the schema up to date; until then every other verb answers
    /// [`StoreError::Unavailable`]. Replicas may call it at the same time.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Waits until a call has failed as it would without the schema, or a right: [`Maintenance::migrate`] tells.
    async fn doubted(&self) {
        std::future::pending::<()>().await;
    }

    /// Forgets up to `limit` idempotency keys older than [`IDEMPOTENCY_KEY_LIFETIME`](super::IDEMPOTENCY_KEY_LIFETIME); answers how many.
    async fn expire_idempotency_keys(&self, limit: usize) -> Result<u64, StoreError>;

    /// Gives up this replica's outbox rows and closes all connections.
    async fn close(&self);
}

/// What every database adapter does.
pub trait Store: OrderStore + OutboxStore + EventLog + Insight + KeyStore + Maintenance {}

impl<T: OrderStore + OutboxStore + EventLog + Insight + KeyStore + Maintenance> Store for T {}
