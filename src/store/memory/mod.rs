//! A model of the store in memory, for simulations in virtual time: held to the same conformance
//! suite as the real ones, and many thousand times faster than a disk.

mod events;
mod keys;
mod orders;
pub(crate) mod transaction;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use chrono::TimeDelta;
use serde_json::Value;

pub(crate) use events::Log;
use transaction::{Course, Courses, Locks};

use super::reports::SaidRow;

use super::{
    AuditPage, Backlog, Counts, IDEMPOTENCY_KEY_LIFETIME, IdempotencyKey, Insight, LateOrders, LateSteps,
    Maintenance, OutboxStore, Overdue, Republished, StoreError, UNSENT_LISTED, Unsent,
};
use crate::{
    keys::{KeyId, KeyRecord, StoredKey},
    order::{
        AuditedEvent, AuditedOrder, AuditedReport, OrderId, OrderPlaced, Status, Timestamp, TrackedOrder,
    },
    time::Clock,
};

/// How long a replica that gives no sign of life keeps its outbox rows.
const CLAIM: TimeDelta = TimeDelta::seconds(4);
/// The contract's `LOST_AFTER`.
const LOST: TimeDelta = TimeDelta::seconds(10);

/// What all replicas share.
#[derive(Default)]
pub(crate) struct Database {
    orders: BTreeMap<OrderId, TrackedOrder>,
    outbox: BTreeMap<OrderId, (Timestamp, Option<u64>)>,
    alive: HashMap<u64, Timestamp>,
    keys: HashMap<IdempotencyKey, (OrderId, Timestamp)>,
    api_keys: BTreeMap<KeyId, (StoredKey, KeyRecord)>,
    /// What was said beside events, by order and position.
    said: BTreeMap<(OrderId, u32), SaidRow>,
    pub(crate) log: Log,
    locks: Locks,
    /// How often positions or the horizon were asked for.
    pub(crate) looks: usize,
    /// Whether reading orders, their positions or events fails.
    pub(crate) away: bool,
}

/// One replica's view.
pub(crate) struct MemoryStore {
    database: Arc<Mutex<Database>>,
    clock: Arc<dyn Clock>,
    replica: u64,
    courses: Mutex<Option<Courses>>,
}

impl MemoryStore {
    pub(crate) fn new(database: Arc<Mutex<Database>>, clock: Arc<dyn Clock>, replica: u64) -> Self {
        let now = clock.now();
        database.lock().expect("no panic").alive.insert(replica, now + CLAIM);
        Self { database, clock, replica, courses: Mutex::default() }
    }

    /// The same, whose transactions that write events each go as `courses` says.
    pub(crate) fn with_courses(self, courses: impl FnMut() -> Course + Send + 'static) -> Self {
        Self { courses: Mutex::new(Some(Box::new(courses))), ..self }
    }

    /// What the database's clock says.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn lock(&self) -> (MutexGuard<'_, Database>, Timestamp) {
        (self.database.lock().expect("no panic"), self.clock.now())
    }
}

impl Database {
    fn reached(&self) -> Result<&Self, StoreError> {
        if self.away { Err(StoreError::Unavailable("away".to_owned())) } else { Ok(self) }
    }

    /// Whether this is a replica that has given a sign of life.
    fn lives(&self, replica: Option<u64>, now: Timestamp) -> bool {
        replica.is_some_and(|replica| self.alive.get(&replica).is_some_and(|until| *until > now))
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.orders.values().filter_map(|tracked| tracked.order.due_at).min()
    }
}

#[async_trait]
impl OutboxStore for MemoryStore {
    async fn heartbeat(&self) -> Result<(), StoreError> {
        let (mut database, now) = self.lock();
        database.alive.insert(self.replica, now + CLAIM);
        Ok(())
    }

    async fn unclaimed(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, StoreError> {
        let (database, now) = self.lock();
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = database.outbox.range((after, Bound::Unbounded));
        let free = rows.filter(|(_, (_, claimed_by))| !database.lives(*claimed_by, now));
        Ok(free.take(limit).map(|(id, _)| *id).collect())
    }

    async fn claim(&self, unsent: &[OrderId]) -> Result<Vec<OrderPlaced>, StoreError> {
        let (mut database, now) = self.lock();
        let ours = |(_, claimed_by): &(Timestamp, Option<u64>)| {
            *claimed_by == Some(self.replica) || !database.lives(*claimed_by, now)
        };
        let mut taken: Vec<OrderId> =
            unsent.iter().filter(|id| database.outbox.get(id).is_some_and(ours)).copied().collect();
        taken.sort_unstable();
        let take = |id: &OrderId| {
            database.outbox.get_mut(id)?.1 = Some(self.replica);
            Some(OrderPlaced::from(&database.orders.get(id)?.order))
        };
        Ok(taken.iter().filter_map(take).collect())
    }

    async fn lost(&self, held: &[OrderId], limit: usize) -> Result<Vec<OrderId>, StoreError> {
        let (database, now) = self.lock();
        let lost = database.outbox.iter().filter(|(id, (created_at, claimed_by))| {
            *claimed_by == Some(self.replica) && now - *created_at > LOST && !held.contains(id)
        });
        Ok(lost.take(limit).map(|(id, _)| *id).collect())
    }

    async fn mark_sent(&self, sent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        let (mut database, _) = self.lock();
        database.outbox.retain(|id, _| !sent.contains(id));
        Ok(Vec::new())
    }

    async fn release(&self, unsent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        let (mut database, _) = self.lock();
        for id in unsent {
            if let Some((_, claimed_by)) = database.outbox.get_mut(id) {
                claimed_by.take_if(|replica| *replica == self.replica);
            }
        }
        Ok(Vec::new())
    }

    async fn republish(&self, orders: &[OrderId]) -> Result<Vec<Republished>, StoreError> {
        let (mut database, now) = self.lock();
        let republish = |id: &OrderId| {
            if !database.orders.contains_key(id) {
                Republished::Unknown
            } else if database.outbox.contains_key(id) {
                Republished::Waiting
            } else {
                database.outbox.insert(*id, (now, None));
                Republished::Queued
            }
        };
        Ok(orders.iter().map(republish).collect())
    }
}

#[async_trait]
impl Insight for MemoryStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.lock().0.reached().map(|_| ())
    }

    async fn count(&self, statuses: &[Status]) -> Result<Counts, StoreError> {
        let (database, _) = self.lock();
        let mut counts = Counts::default();
        for tracked in database.orders.values().filter(|tracked| statuses.contains(&tracked.order.status)) {
            counts.orders[tracked.order.status] += 1;
        }
        Ok(counts)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let (database, now) = self.lock();
        let since = |at: Timestamp| (now - at).to_std().unwrap_or_default();
        let oldest_unsent = database.outbox.values().map(|(at, _)| *at).min();
        let first = database.outbox.iter().take(UNSENT_LISTED);
        Ok(Backlog {
            unsent: database.outbox.len() as u64,
            oldest_unsent,
            oldest_unsent_age: oldest_unsent.map(since).unwrap_or_default(),
            first: first.map(|(id, (at, _))| Unsent { order_id: *id, age: since(*at) }).collect(),
            since: None,
        })
    }

    async fn overdue(&self, late: Duration, limit: usize) -> Result<LateSteps, StoreError> {
        let (database, now) = self.lock();
        let since = |at: Timestamp| (now - at).to_std().unwrap_or_default();
        let behind = |tracked: &TrackedOrder| {
            let late = tracked.order.due_at.filter(|due| *due < now - late).map(since)?;
            Some(Overdue { order: tracked.order.clone(), late })
        };
        let mut first: Vec<Overdue> = database.orders.values().filter_map(behind).collect();
        first.sort_by_key(|overdue| std::cmp::Reverse(overdue.late));
        let (orders, most) = (first.len() as u64, database.next_due().map_or(Duration::ZERO, since));
        first.truncate(limit);
        Ok(LateSteps { most, orders, first, since: None })
    }

    async fn late(&self, limit: usize) -> Result<LateOrders, StoreError> {
        let (database, now) = self.lock();
        let behind = |tracked: &TrackedOrder| {
            let order = &tracked.order;
            let expected = order.expected_at.filter(|at| *at < now && !order.status.is_final())?;
            Some(Overdue { order: order.clone(), late: (now - expected).to_std().unwrap_or_default() })
        };
        let mut first: Vec<Overdue> = database.orders.values().filter_map(behind).collect();
        let mut late = LateOrders::default();
        for overdue in &first {
            late.orders[overdue.order.status] += 1;
        }
        first.sort_by_key(|overdue| std::cmp::Reverse(overdue.late));
        first.truncate(limit);
        Ok(LateOrders { first, ..late })
    }

    async fn audit(&self, after: Option<&str>, limit: usize) -> Result<AuditPage, StoreError> {
        let (database, now) = self.lock();
        let beyond = |id: &OrderId| after.is_none_or(|after| *id.to_string() > *after);
        let rows = database.orders.iter().filter(|(id, _)| beyond(id)).take(limit);
        let audited = |(id, tracked): (&OrderId, &TrackedOrder)| AuditedOrder {
            order_id: *id,
            status: tracked.order.status,
            seq: tracked.events.last().map_or(0, |last| last.seq.into()),
            created_at: tracked.order.created_at,
            updated_at: tracked.order.updated_at,
            due_at: tracked.order.due_at,
            expected_at: tracked.order.expected_at,
            unsent: database.outbox.contains_key(id),
            events: tracked.events.iter().map(AuditedEvent::from).collect(),
        };
        let orders: Vec<AuditedOrder> = rows.map(audited).collect();
        let last = orders.last().map(|order| order.order_id.to_string());
        Ok(AuditPage { now, orders, unreadable: Vec::new(), last })
    }

    async fn audit_reports(
        &self,
        after: (&str, i64),
        until: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AuditedReport>, StoreError> {
        let (database, _) = self.lock();
        let within = |(order_id, seq): &(OrderId, u32)| {
            let order_id = order_id.to_string();
            (order_id.as_str(), i64::from(*seq)) > after && until.is_none_or(|until| *order_id <= *until)
        };
        let audited = |((order_id, seq), said): (&(OrderId, u32), &SaidRow)| {
            let events = database.orders.get(order_id).map(|tracked| &tracked.events);
            let event = events.and_then(|events| events.iter().find(|event| event.seq == *seq));
            AuditedReport {
                order_id: order_id.to_string(),
                seq: (*seq).into(),
                report_id: said.report_id.clone(),
                said: said.said.get("event").and_then(Value::as_str).map(str::to_owned),
                has_note: said.note.is_some(),
                event: event.map(|event| event.event.to_string()),
            }
        };
        Ok(database.said.iter().filter(|(at, _)| within(at)).take(limit).map(audited).collect())
    }
}

#[async_trait]
impl Maintenance for MemoryStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn expire_idempotency_keys(&self, limit: usize) -> Result<u64, StoreError> {
        let (mut database, now) = self.lock();
        let old = database.keys.extract_if(|_, (_, created_at)| *created_at < now - IDEMPOTENCY_KEY_LIFETIME);
        Ok(old.take(limit).count() as u64)
    }

    async fn close(&self) {
        self.lock().0.alive.remove(&self.replica);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{
            Store,
            conformance::{Fixture, conformance, start},
        },
        time::ManualClock,
    };

    conformance!(fixture);

    async fn fixture() -> Fixture {
        let (database, clock) = (Arc::default(), Arc::new(ManualClock::new(start())));
        let replica =
            |n| -> Arc<dyn Store> { Arc::new(MemoryStore::new(Arc::clone(&database), clock.clone(), n)) };
        Fixture {
            store: replica(1),
            replica: replica(2),
            clock: clock.clone(),
            // There is no hand that could reach in.
            by_hand: Box::new(|_| Box::pin(async { Err("no console".to_owned()) })),
            dialect: None,
            _guard: Box::new(()),
        }
    }
}
