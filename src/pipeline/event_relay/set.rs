//! Events that are written together, in rounds in which each order appears once.

use std::collections::{HashMap, HashSet};

use crate::order::{Cursor, EventKind, EventMessage, FeedEvent, OrderFacts, OrderId, Timestamp};

/// The settled events that come next.
pub(super) struct Set {
    items: Vec<Item>,
    /// The place before them.
    from: Cursor,
    /// The place behind them.
    upto: Cursor,
}

struct Item {
    cursor: Cursor,
    /// `None` if its order can't be told.
    message: Option<EventMessage>,
    /// It is on the topic, or was passed over.
    done: bool,
}

impl Set {
    /// These events between two places, oldest first, of which some are done already; and the others whose order can't be
    /// told, which are passed over.
    pub(super) fn new(
        events: Vec<FeedEvent>,
        facts: &HashMap<OrderId, OrderFacts>,
        done: &HashSet<Cursor>,
        (from, upto): (Cursor, Cursor),
    ) -> (Self, Vec<FeedEvent>) {
        let (mut items, mut untold) = (Vec::with_capacity(events.len()), Vec::new());
        for event in events {
            let (cursor, done) = (event.cursor, done.contains(&event.cursor));
            if let Some(order) = facts.get(&event.order_id) {
                let message = EventMessage { event, order: order.clone() };
                items.push(Item { cursor, message: Some(message), done });
            } else {
                untold.extend((!done).then_some(event));
                items.push(Item { cursor, message: None, done: true });
            }
        }
        (Self { items, from, upto }, untold)
    }

    /// The first event of each order that is not done, without these orders.
    pub(super) fn round(&self, without: &HashSet<OrderId>) -> Vec<usize> {
        let mut met = without.clone();
        let mut first = |event: &FeedEvent| met.insert(event.order_id);
        self.waiting().filter(|(_, message)| first(&message.event)).map(|(at, _)| at).collect()
    }

    fn waiting(&self) -> impl Iterator<Item = (usize, &EventMessage)> {
        let waiting = self.items.iter().enumerate().filter(|(_, item)| !item.done);
        waiting.filter_map(|(at, item)| Some((at, item.message.as_ref()?)))
    }

    pub(super) fn message(&self, at: usize) -> Option<&EventMessage> {
        self.items.get(at)?.message.as_ref()
    }

    pub(super) fn done(&mut self, at: usize) {
        self.items[at].done = true;
    }

    /// The last place up to which all are done.
    pub(super) fn reached(&self) -> Cursor {
        match self.items.iter().position(|item| !item.done) {
            None => self.upto,
            Some(0) => self.from,
            Some(first) => self.items[first - 1].cursor,
        }
    }

    /// Those that are done behind the first that is not.
    pub(super) fn done_beyond(&self) -> HashSet<Cursor> {
        let first = self.items.iter().position(|item| !item.done).unwrap_or(self.items.len());
        let behind = self.items[first..].iter().filter(|item| item.done);
        behind.map(|item| item.cursor).collect()
    }

    /// Since when the first waits that is not done. CREATED may bear a foreign moment of long ago, and PLACED was written
    /// with it; `now` if only such ones wait.
    pub(super) fn waits_since(&self, now: Timestamp) -> Option<Timestamp> {
        let mut waiting = self.waiting().map(|(_, message)| &message.event).peekable();
        waiting.peek()?;
        Some(waiting.find(|event| event.event != EventKind::Created).map_or(now, |event| event.timestamp))
    }
}
