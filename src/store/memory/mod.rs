//! A model of the store in memory, for simulations in virtual time: held to the same conformance
//! suite as the real ones, and many thousand times faster than a disk.

mod events;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use chrono::TimeDelta;

use events::Log;

use super::{
    Admission, Advance, AuditPage, Backlog, Counts, Due, DueOrders, Incoming, Insight, KEY_LIFETIME,
    LateSteps, Maintenance, NewOrder, OrderStore, Outbox, OutboxStore, Overdue, Page, Place, Placement,
    Position, Republished, StoreError, Transition, UNSENT_LISTED, Unsent, idempotency,
};
use crate::{
    order::{
        AuditedEvent, AuditedOrder, Event, EventKind, Order, OrderDetails, OrderId, OrderPlaced, StageDelays,
        Status, Timestamp, TrackedOrder,
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
    keys: HashMap<String, (OrderId, Timestamp)>,
    pub(crate) log: Log,
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
}

impl MemoryStore {
    pub(crate) fn new(database: Arc<Mutex<Database>>, clock: Arc<dyn Clock>, replica: u64) -> Self {
        let now = clock.now();
        database.lock().expect("no panic").alive.insert(replica, now + CLAIM);
        Self { database, clock, replica }
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
    fn insert(
        &mut self,
        order_id: OrderId,
        details: &OrderDetails,
        created_at: Timestamp,
        now: Timestamp,
        meta: Option<&serde_json::Value>,
        due_in: Option<Duration>,
    ) -> bool {
        if self.orders.contains_key(&order_id) {
            return false;
        }
        let status = Status::Placed;
        let due_at = due_in.map(|due_in| now + due_in);
        let order = Order { order_id, details: details.clone(), status, created_at, updated_at: now, due_at };
        let events = vec![
            Event { event: EventKind::Created, timestamp: created_at, meta: meta.cloned() },
            Event { event: EventKind::Reached(status), timestamp: now, meta: None },
        ];
        self.log.extend(order_id, 1, &events);
        self.orders.insert(order_id, TrackedOrder { order, events });
        true
    }

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

    fn due(&self, due: Due<'_>, now: Timestamp) -> Vec<Place> {
        let place = |order_id: &OrderId| {
            let due_at = self.orders.get(order_id)?.order.due_at.filter(|due| *due <= now)?;
            Some(Place { due_at, order_id: *order_id })
        };
        let (limit, after, except) = match due {
            Due::Soonest { limit, after } => (limit, after, &[][..]),
            Due::Overlooked { limit, after, except } => (limit, after, except),
            Due::These(orders) => return orders.iter().filter_map(place).collect(),
            Due::Alone(order_id) => return place(&order_id).into_iter().collect(),
        };
        let except: HashSet<&OrderId> = except.iter().collect();
        let others = self.orders.keys().filter(|id| !except.contains(id)).filter_map(place);
        let mut due: Vec<Place> = others.filter(|place| Some(*place) > after).collect();
        due.sort_unstable();
        due.truncate(limit);
        due
    }
}

#[async_trait]
impl OrderStore for MemoryStore {
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError> {
        let (mut database, now) = self.lock();
        let sent = orders.iter().filter_map(|order| order.key.as_deref());
        let held = sent.filter_map(|key| {
            let (order_id, _) = database.keys.get(key)?;
            Some((key, (*order_id, database.orders[order_id].order.details.clone())))
        });
        let verdicts = idempotency::judge(orders, held.collect());
        for order in idempotency::fresh(orders, &verdicts) {
            let meta = order.meta.as_ref();
            if database.insert(order.order_id, &order.details, now, now, meta, order.due_in) {
                let claimed_by = (outbox == Outbox::Mine).then_some(self.replica);
                database.outbox.insert(order.order_id, (now, claimed_by));
                if let Some(key) = &order.key {
                    database.keys.insert(key.clone(), (order.order_id, now));
                }
            }
        }
        Ok(idempotency::placements(orders, &verdicts, |id| database.orders[&id].order.created_at))
    }

    async fn admit(&self, incoming: &[Incoming]) -> Result<Vec<Admission>, StoreError> {
        let (mut database, now) = self.lock();
        let admit = |Incoming { placed, meta, due_in }: &Incoming| {
            let created_at = placed.created_at.min(now);
            let meta = meta.as_ref();
            let new = database.insert(placed.order_id, &placed.details, created_at, now, meta, *due_in);
            if new { Admission::Admitted } else { Admission::Known }
        };
        Ok(incoming.iter().map(admit).collect())
    }

    async fn advance_due(&self, due: Due<'_>, delays: &StageDelays) -> Result<Advance, StoreError> {
        let (mut database, now) = self.lock();
        let database = &mut *database;
        let (mut transitions, orders) = (Vec::new(), database.due(due, now));
        let full = matches!(due, Due::Soonest { limit, .. } | Due::Overlooked { limit, .. } if orders.len() >= limit);
        for Place { order_id, .. } in orders {
            let Some(tracked) = database.orders.get_mut(&order_id) else { continue };
            let Some(due_at) = tracked.order.due_at else { continue };
            let path = delays.path(tracked.order.status, due_at, now);
            for to in path.steps {
                transitions.push(Transition { order_id, from: tracked.order.status, to });
                let event = Event { event: EventKind::Reached(to), timestamp: now, meta: None };
                tracked.events.push(event.clone());
                database.log.extend(order_id, tracked.events.len(), &[event]);
                tracked.order.status = to;
                tracked.order.updated_at = now;
            }
            tracked.order.due_at = path.due_at;
        }
        let after = |due: &Timestamp| *due > now;
        let next = database.orders.values().filter_map(|tracked| tracked.order.due_at).filter(after).min();
        let next = if full { Some(now) } else { next };
        Ok(Advance { transitions, next_due_in: next.map(|due| (due - now).to_std().unwrap_or_default()) })
    }

    async fn due(&self, due: Due<'_>) -> Result<DueOrders, StoreError> {
        let (database, now) = self.lock();
        let due = database.due(due, now);
        let order_ids = due.iter().map(|place| place.order_id).collect();
        Ok(DueOrders { order_ids, last: due.last().copied() })
    }

    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Vec<TrackedOrder>, StoreError> {
        let (database, _) = self.lock();
        let there = &database.reached()?.orders;
        let found = order_ids.iter().filter_map(|id| there.get(id));
        Ok(found.cloned().collect())
    }

    async fn list(&self, page: &Page) -> Result<Vec<Order>, StoreError> {
        let (database, _) = self.lock();
        let orders = database.reached()?.orders.values().rev().map(|tracked| &tracked.order);
        let wanted = orders
            .filter(|order| page.before.is_none_or(|before| order.order_id < before))
            .filter(|order| page.status.is_none_or(|status| order.status == status));
        Ok(wanted.take(page.limit).cloned().collect())
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
    async fn positions(&self, orders: &[OrderId]) -> Result<Vec<Position>, StoreError> {
        let (mut database, now) = self.lock();
        database.looks += 1;
        let there = &database.reached()?.orders;
        let position = |order_id: &OrderId| {
            let order = &there.get(order_id)?.order;
            let due_in = order.due_at.map(|due| (due - now).to_std().unwrap_or_default());
            Some(Position { order_id: *order_id, status: order.status, due_in })
        };
        Ok(orders.iter().filter_map(position).collect())
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

    async fn audit(&self, after: Option<&str>, limit: usize) -> Result<AuditPage, StoreError> {
        let (database, now) = self.lock();
        let beyond = |id: &OrderId| after.is_none_or(|after| *id.to_string() > *after);
        let rows = database.orders.iter().filter(|(id, _)| beyond(id)).take(limit);
        let audited = |(id, tracked): (&OrderId, &TrackedOrder)| AuditedOrder {
            order_id: *id,
            status: tracked.order.status,
            seq: i64::try_from(tracked.events.len()).unwrap_or(i64::MAX),
            created_at: tracked.order.created_at,
            updated_at: tracked.order.updated_at,
            due_at: tracked.order.due_at,
            unsent: database.outbox.contains_key(id),
            events: (1..)
                .zip(&tracked.events)
                .map(|(seq, event)| AuditedEvent { seq, event: event.event, timestamp: event.timestamp })
                .collect(),
        };
        let orders: Vec<AuditedOrder> = rows.map(audited).collect();
        let last = orders.last().map(|order| order.order_id.to_string());
        Ok(AuditPage { now, orders, unreadable: Vec::new(), last })
    }
}

#[async_trait]
impl Maintenance for MemoryStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.lock().0.reached().map(|_| ())
    }

    async fn expire_keys(&self, limit: usize) -> Result<u64, StoreError> {
        let (mut database, now) = self.lock();
        let old = database.keys.extract_if(|_, (_, created_at)| *created_at < now - KEY_LIFETIME);
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
