//! The newest settled events in memory, so that those who follow closely share one reading.

use std::collections::VecDeque;

use crate::{
    order::{Cursor, EventKind, FeedEvent},
    store::FeedPage,
};

/// Most events that are kept.
pub(super) const KEPT: usize = 4_096;

/// Every event between two places.
#[derive(Debug, Default)]
pub(super) struct Tail {
    start: Cursor,
    end: Cursor,
    events: VecDeque<FeedEvent>,
}

impl Tail {
    /// Empty, and of all that comes behind this place.
    pub(super) fn behind(start: Cursor) -> Self {
        Self { start, end: start, events: VecDeque::new() }
    }

    /// Up to where it reaches.
    pub(super) fn end(&self) -> Cursor {
        self.end
    }

    /// Whether nothing is known that stands behind a place, though that may be far before the end: ids are drawn in
    /// vain, too.
    pub(super) fn is_empty_behind(&self, after: Cursor) -> bool {
        self.start <= after && self.events.back().is_none_or(|last| last.cursor <= after)
    }

    /// These come next, up to a place.
    pub(super) fn extend(&mut self, events: Vec<FeedEvent>, end: Cursor) {
        self.events.extend(events);
        self.end = end;
        let surplus = self.events.len().saturating_sub(KEPT);
        if let Some(last) = self.events.drain(..surplus).next_back() {
            self.start = last.cursor;
        }
    }

    /// What stands behind a place, if that is known from here.
    pub(super) fn page(&self, after: Cursor, event: Option<EventKind>, limit: usize) -> Option<FeedPage> {
        if after < self.start {
            return None;
        }
        let mut page = FeedPage::default();
        let first = self.events.partition_point(|told| told.cursor <= after);
        for told in self.events.range(first..) {
            page.more = page.events.len() == limit;
            if page.more {
                break;
            }
            page.events.extend(event.is_none_or(|event| told.event == event).then(|| told.clone()));
            page.examined = Some(told.cursor);
        }
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Status, Timestamp};

    fn event(id: i64) -> FeedEvent {
        let order_id = "ORD-01J00000000000000000000000".parse().expect("an id");
        let kind = if id % 2 == 0 { EventKind::Created } else { EventKind::Reached(Status::Placed) };
        FeedEvent::new((Cursor(id), order_id, 1), kind, Timestamp::UNIX_EPOCH, None)
    }

    fn ids(page: Option<FeedPage>) -> Option<(Vec<i64>, Option<i64>, bool)> {
        let FeedPage { events, examined, more } = page?;
        Some((events.iter().map(|event| event.cursor.0).collect(), examined.map(|id| id.0), more))
    }

    #[test]
    fn a_page_is_what_stands_behind_a_place() {
        let mut tail = Tail::behind(Cursor(5));
        tail.extend([6, 7, 9, 12].map(event).to_vec(), Cursor(14));
        assert_eq!(ids(tail.page(Cursor(4), None, 9)), None, "nobody knows what 5 was");
        assert_eq!(ids(tail.page(Cursor(5), None, 9)), Some((vec![6, 7, 9, 12], Some(12), false)));
        assert_eq!(ids(tail.page(Cursor(5), None, 2)), Some((vec![6, 7], Some(7), true)));
        assert_eq!(ids(tail.page(Cursor(8), Some(EventKind::Created), 1)), Some((vec![12], Some(12), false)));
        assert_eq!(ids(tail.page(Cursor(14), None, 9)), Some((vec![], None, false)));
    }

    /// Promise 5: memory, queues and time are bounded.
    #[test]
    fn only_the_newest_are_kept() {
        let mut tail = Tail::behind(Cursor(0));
        let many = i64::try_from(KEPT).expect("small") + 10;
        tail.extend((1..=many).map(event).collect(), Cursor(many));
        assert_eq!(tail.page(Cursor(9), None, 1), None);
        assert_eq!(ids(tail.page(Cursor(10), None, 1)), Some((vec![11], Some(11), true)));
    }
}
