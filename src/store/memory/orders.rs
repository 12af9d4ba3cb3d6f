//! The orders of the model.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    super::{
        Admission, Advance, Due, DueKey, DueOrders, Found, Incoming, NewOrder, OrderStore, Outbox, Page,
        Placement, Position, StoreError, Transition, idempotency,
        reports::{Known, OrderReport, Remembered, Reported, Written, judge_all, put_notes},
    },
    Database, MemoryStore,
    transaction::{Locks, Transaction},
};
use crate::order::{
    Event, EventKind, Order, OrderId, Rules, StageDelays, Timestamp, TrackedOrder, not_accepted,
};

impl Database {
    fn due(&self, due: Due<'_>, now: Timestamp) -> Vec<DueKey> {
        let place = |order_id: &OrderId| {
            let due_at = self.orders.get(order_id)?.order.due_at.filter(|due| *due <= now)?;
            Some(DueKey { due_at, order_id: *order_id })
        };
        let (limit, after, except) = match due {
            Due::Soonest { limit, after } => (limit, after, &[][..]),
            Due::Overlooked { limit, after, except } => (limit, after, except),
            Due::Part(orders) | Due::SecondChance(orders) => {
                return orders.iter().filter_map(place).collect();
            }
            Due::Alone(order_id) => return place(&order_id).into_iter().collect(),
        };
        let except: HashSet<&OrderId> = except.iter().collect();
        let others = self.orders.keys().filter(|id| !except.contains(id)).filter_map(place);
        let mut due: Vec<DueKey> = others.filter(|place| Some(*place) > after).collect();
        due.sort_unstable();
        due.truncate(limit);
        due
    }

    fn place(
        &mut self,
        transaction: &mut Transaction,
        orders: &[NewOrder],
        claimed_by: Option<u64>,
    ) -> Vec<Placement> {
        let sent = orders.iter().filter_map(|order| order.key.as_ref());
        let held = sent.filter_map(|key| {
            let (order_id, _) = self.keys.get(key)?;
            Some((key, (*order_id, self.orders[order_id].order.details.clone())))
        });
        let verdicts = idempotency::judge(orders, held.collect());
        let now = transaction.now;
        for order in idempotency::fresh(orders, &verdicts) {
            let (what, meta) = ((order.order_id, &order.details), order.meta.as_ref());
            if transaction.insert(self, what, now, meta, order.start) {
                transaction.outbox.push((order.order_id, claimed_by));
                transaction.keys.extend(order.key.clone().map(|key| (key, order.order_id)));
            }
        }
        let created_at = |order_id| {
            let written = transaction.order(order_id).or_else(|| self.orders.get(&order_id));
            written.map(|tracked| tracked.order.created_at).expect("was there or is now")
        };
        idempotency::placements(orders, &verdicts, created_at)
    }

    fn report(
        &mut self,
        transaction: &mut Transaction,
        reports: &[OrderReport],
        rules: &Rules,
        earlier: Option<Instant>,
    ) -> Vec<Reported> {
        let known = |order_id: &OrderId| {
            let tracked = self.orders.get(order_id)?.clone();
            let said = self.said.iter().filter(|((of, _), _)| of == order_id);
            let remembered = said.filter_map(|((_, seq), said)| {
                let id = said.report_id.clone()?;
                Some((id, Remembered { seq: *seq, said: said.said.clone(), note: said.note.clone() }))
            });
            let row_seq = tracked.events.last().map_or(0, |last| last.seq);
            Some((*order_id, Known { tracked, row_seq, reports: remembered.collect() }))
        };
        let known = reports.iter().filter_map(|report| known(&report.order_id)).collect();
        let (answers, written) = judge_all(reports, known, rules, (transaction.now, earlier));
        for Written { order, events, said, .. } in written {
            let mut tracked = self.orders[&order.order_id].clone();
            let at = tracked.events.len();
            let rows = said.into_iter().map(|said| ((order.order_id, said.seq), said));
            transaction.said.extend(rows);
            tracked.order = order;
            tracked.events.extend(events);
            transaction.write(self, tracked, at);
        }
        answers
    }

    /// By order and position.
    fn notes(&self) -> HashMap<(OrderId, u32), String> {
        self.said.iter().filter_map(|(at, said)| Some((*at, said.note.clone()?))).collect()
    }

    fn advance(&mut self, transaction: &mut Transaction, due: Due<'_>, delays: &StageDelays) -> Advance {
        let now = transaction.now;
        let (mut transitions, mut places) = (Vec::new(), self.due(due, now));
        // What another transaction moves is passed over.
        places.retain(|place| !self.locks.hold(&place.order_id));
        let full = matches!(due, Due::Soonest { limit, .. } | Due::Overlooked { limit, .. } if places.len() >= limit);
        for DueKey { order_id, due_at } in places {
            let mut tracked = self.orders[&order_id].clone();
            let (status, by_people) = (tracked.order.status, tracked.order.expected_at.is_some());
            let path = if by_people {
                StageDelays::not_accepted(status, due_at, now)
            } else {
                delays.path(status, due_at, now)
            };
            let known = tracked.events.len();
            for to in path.steps {
                let seq = tracked.events.last().map_or(0, |last| last.seq) + 1;
                transitions.push(Transition { order_id, from: tracked.order.status, to, seq });
                let (event, meta) = (EventKind::Reached(to), by_people.then(not_accepted));
                tracked.events.push(Event { seq, event, timestamp: now, meta });
                tracked.order.status = to;
                tracked.order.updated_at = now;
            }
            tracked.order.due_at = path.due_at;
            transaction.write(self, tracked, known);
        }
        let others = self.orders.values().map(|tracked| &tracked.order);
        let others = others.filter(|order| transaction.order(order.order_id).is_none());
        let next = others
            .chain(transaction.orders())
            .filter_map(|order| order.due_at)
            .filter(|due| *due > now)
            .min();
        let next = if full { Some(now) } else { next };
        Advance { transitions, next_due_in: next.map(|due| (due - now).to_std().unwrap_or_default()) }
    }
}

#[async_trait]
impl OrderStore for MemoryStore {
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError> {
        let claimed_by = (outbox == Outbox::Mine).then_some(self.replica);
        let held = |locks: &Locks| {
            orders.iter().any(|order| {
                locks.hold(&order.order_id) || order.key.as_ref().is_some_and(|key| locks.hold_key(key))
            })
        };
        self.transact(held, |database, transaction| database.place(transaction, orders, claimed_by)).await
    }

    async fn admit(&self, incoming: &[Incoming]) -> Result<Vec<Admission>, StoreError> {
        let held = |locks: &Locks| incoming.iter().any(|order| locks.hold(&order.placed.order_id));
        let admit = |database: &mut Database, transaction: &mut Transaction| {
            let admit = |Incoming { placed, meta, start }: &Incoming| {
                let created_at = placed.created_at.min(transaction.now);
                let what = (placed.order_id, &placed.details);
                let new = transaction.insert(database, what, created_at, meta.as_ref(), *start);
                if new { Admission::Admitted } else { Admission::Known }
            };
            incoming.iter().map(admit).collect()
        };
        self.transact(held, admit).await
    }

    async fn advance_due(&self, due: Due<'_>, delays: &StageDelays) -> Result<Advance, StoreError> {
        self.transact(|_| false, |database, transaction| database.advance(transaction, due, delays)).await
    }

    async fn report_again(
        &self,
        reports: &[OrderReport],
        rules: &Rules,
        earlier: Option<Instant>,
    ) -> Result<Vec<Reported>, StoreError> {
        let held = |locks: &Locks| reports.iter().any(|report| locks.hold(&report.order_id));
        self.transact(held, |database, transaction| database.report(transaction, reports, rules, earlier))
            .await
    }

    async fn due(&self, due: Due<'_>) -> Result<DueOrders, StoreError> {
        let (database, now) = self.lock();
        let due = database.due(due, now);
        let order_ids = due.iter().map(|place| place.order_id).collect();
        Ok(DueOrders { order_ids, last: due.last().copied() })
    }

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

    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Found, StoreError> {
        let (database, now) = self.lock();
        let there = &database.reached()?.orders;
        let mut orders: Vec<TrackedOrder> =
            order_ids.iter().filter_map(|id| there.get(id)).cloned().collect();
        put_notes(&mut orders, &database.notes());
        Ok(Found { now, orders })
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
