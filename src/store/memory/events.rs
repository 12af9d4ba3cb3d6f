//! The events of the model, and those who read them.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    super::{Arrival, EventLog, FeedPage, FeedQuery, Holder, Horizon, Lease, Span, StoreError},
    MemoryStore,
};
use crate::order::{Cursor, Event, FeedEvent, OrderFacts, OrderId, Timestamp};

/// All events by their ids.
#[derive(Default)]
pub(crate) struct Log {
    visible: BTreeMap<i64, FeedEvent>,
    /// The last id that was drawn.
    last: i64,
    /// Drawn by transactions that have not ended, and when.
    open: BTreeMap<i64, Instant>,
    places: HashMap<String, HeldLease>,
}

struct HeldLease {
    lease: Lease,
    held_by: u64,
    held_until: Timestamp,
}

impl Log {
    /// Draws an id that becomes visible when its transaction commits, or never.
    pub(crate) fn draw(&mut self) -> i64 {
        self.last += 1;
        self.open.insert(self.last, Instant::now());
        self.last
    }

    /// Its transaction ends; without an event it is rolled back.
    pub(crate) fn end(&mut self, id: i64, event: Option<FeedEvent>) {
        self.open.remove(&id);
        if let Some(event) = event {
            self.visible.insert(id, event);
        }
    }

    /// Draws the ids of an order's events, of which the first has this position.
    pub(super) fn draw_for(&mut self, order_id: OrderId, first: usize, events: &[Event]) -> Vec<FeedEvent> {
        let mut draw = |(seq, event): (u32, &Event)| {
            let Event { event, timestamp, meta, .. } = event;
            FeedEvent::new((Cursor(self.draw()), order_id, seq), *event, *timestamp, meta.as_ref())
        };
        (u32::try_from(first).unwrap_or(u32::MAX)..).zip(events).map(&mut draw).collect()
    }

    fn span(&self, span: Span) -> impl Iterator<Item = &FeedEvent> {
        let none = span.after >= span.upto;
        let (after, upto) = (span.after.0, span.upto.0.max(span.after.0));
        self.visible
            .range((Bound::Excluded(after), if none { Bound::Unbounded } else { Bound::Included(upto) }))
            .map(|(_, event)| event)
            .take_while(move |_| !none)
    }
}

#[async_trait]
impl EventLog for MemoryStore {
    async fn horizon(&self) -> Result<Horizon, StoreError> {
        let (mut database, _) = self.lock();
        database.looks += 1;
        let log = &database.reached()?.log;
        let open = log.open.first_key_value();
        let settled = Cursor(open.map_or(log.last, |(first, _)| first - 1));
        let held = open.map_or(Duration::ZERO, |(_, drawn)| drawn.elapsed());
        Ok(Horizon { settled, last: Cursor(log.last), held, found: settled > Cursor::START || log.last == 0 })
    }

    async fn arrivals(&self, spans: &[Span], limit: usize) -> Result<Vec<Arrival>, StoreError> {
        let (database, _) = self.lock();
        let log = &database.reached()?.log;
        let found = spans.iter().flat_map(|span| log.span(*span));
        let arrival =
            |event: &FeedEvent| Arrival { cursor: event.cursor, order_id: event.order_id, seq: event.seq };
        Ok(found.take(limit).map(arrival).collect())
    }

    async fn events(&self, query: &FeedQuery) -> Result<FeedPage, StoreError> {
        let (database, _) = self.lock();
        let (mut page, rows) = (FeedPage::default(), database.reached()?.log.span(query.span));
        for (looked_at, event) in rows.enumerate() {
            page.more =
                page.events.len() == query.limit || query.event.is_some() && looked_at == FeedQuery::EXAMINED;
            if page.more {
                break;
            }
            page.events.extend(query.event.is_none_or(|kind| event.event == kind).then(|| event.clone()));
            page.examined = Some(event.cursor);
        }
        Ok(page)
    }

    async fn facts(&self, orders: &[OrderId]) -> Result<Vec<(OrderId, OrderFacts)>, StoreError> {
        let (database, _) = self.lock();
        let there = &database.reached()?.orders;
        let facts = |order_id: &OrderId| {
            let order = &there.get(order_id)?.order;
            let (item, size) = (order.details.item.clone(), order.details.size);
            Some((*order_id, OrderFacts { item, size, created_at: order.created_at }))
        };
        Ok(orders.iter().filter_map(facts).collect())
    }

    async fn holder(&self) -> Result<Option<Holder>, StoreError> {
        Ok(None)
    }

    async fn lease(&self, name: &str, lasting: Duration) -> Result<Option<Lease>, StoreError> {
        let (mut database, now) = self.lock();
        database.reached()?;
        let first = Lease { term: 0, cursor: Cursor::START };
        let place = database.log.places.entry(name.to_owned());
        let place = place.or_insert(HeldLease { lease: first, held_by: self.replica, held_until: now });
        if place.held_until > now && place.held_by != self.replica {
            return Ok(None);
        }
        place.lease.term += 1;
        (place.held_by, place.held_until) = (self.replica, now + lasting);
        Ok(Some(place.lease))
    }

    async fn move_on(
        &self,
        name: &str,
        lease: Lease,
        to: Cursor,
        lasting: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let (mut database, now) = self.lock();
        database.reached()?;
        let place = database.log.places.get_mut(name).filter(|place| place.lease == lease);
        Ok(place.map(|place| {
            place.lease.cursor = to;
            place.held_until = now + lasting;
            place.lease
        }))
    }

    async fn give_back(&self, name: &str, lease: Lease) -> Result<(), StoreError> {
        self.move_on(name, lease, lease.cursor, Duration::ZERO).await.map(|_| ())
    }

    async fn place_of(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        let (database, _) = self.lock();
        Ok(database.log.places.get(name).map(|place| place.lease.cursor))
    }
}
