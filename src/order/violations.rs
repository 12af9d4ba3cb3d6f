//! Whether a stored order tells a story that can have happened.

use super::{EventKind, OrderId, Status, Timestamp, promises::OVERDUE_AFTER};

/// An order as an auditor reads it: nothing about it is taken for granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedOrder {
    /// Which order.
    pub order_id: OrderId,
    /// The status that its row claims.
    pub status: Status,
    /// The position of the last event that its row claims.
    pub seq: i64,
    /// When its row says that it was created.
    pub created_at: Timestamp,
    /// When its row says that the status last changed.
    pub updated_at: Timestamp,
    /// When the next step is due; `None` where none is.
    pub due_at: Option<Timestamp>,
    /// Whether its outbox row is still there.
    pub unsent: bool,
    /// Its events in the order in which they were written.
    pub events: Vec<AuditedEvent>,
}

/// An event as an auditor reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditedEvent {
    /// The position that its row claims.
    pub seq: i64,
    /// What happened.
    pub event: EventKind,
    /// When.
    pub timestamp: Timestamp,
}

/// What may be wrong with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Violation {
    /// CREATED or PLACED is missing.
    NoBeginning,
    /// An event between the first and the last is missing.
    Gap,
    /// An event is there more than once.
    Doubled,
    /// The positions are not 1, 2, 3 and so on in the order of events, or the row's is not the last of them.
    PositionDiffers,
    /// An event is earlier than the one before it.
    StampGoesBack,
    /// The row's status is not that of the last event, or its stamps are not those of the events.
    RowDiffers,
    /// A step is later than promised, or an unfinished order waits for none.
    Overdue,
}

impl Violation {
    /// All violations.
    pub const ALL: [Self; 7] = [
        Self::NoBeginning,
        Self::Gap,
        Self::Doubled,
        Self::PositionDiffers,
        Self::StampGoesBack,
        Self::RowDiffers,
        Self::Overdue,
    ];

    /// The rule that was broken, in words.
    pub fn rule(self) -> &'static str {
        match self {
            Self::NoBeginning => "every order has CREATED and PLACED",
            Self::Gap => "no step is skipped",
            Self::Doubled => "no event is there twice",
            Self::PositionDiffers => "events stand at 1, 2, 3 and so on, and the order at the last of them",
            Self::StampGoesBack => "stamps never go back",
            Self::RowDiffers => "status and stamps are those of the events",
            Self::Overdue => "no step is more than 2 s late",
        }
    }
}

impl AuditedOrder {
    /// Every violation at `now`, each once.
    pub fn violations(&self, now: Timestamp) -> Vec<Violation> {
        let mut kinds: Vec<EventKind> = self.events.iter().map(|event| event.event).collect();
        kinds.sort_unstable();
        let all = kinds.len();
        kinds.dedup();
        let beginning = EventKind::ALL[..2].iter().all(|kind| kinds.contains(kind));
        // Without PLACED the beginning is missing, and the rest is judged all the same.
        let mut path = vec![Status::FIRST];
        path.extend(kinds.iter().filter_map(|kind| kind.status()));
        path.dedup();
        let holds = |violation| match violation {
            Violation::NoBeginning => beginning,
            Violation::Gap => path.is_sorted_by(|from, to| from.may_become(*to)),
            Violation::Doubled => kinds.len() == all,
            Violation::PositionDiffers => self.positions_fit(),
            Violation::StampGoesBack => self.stamps_rise(),
            Violation::RowDiffers => self.row_agrees(),
            Violation::Overdue => match self.due_at {
                Some(due) => now - due <= chrono::TimeDelta::from_std(OVERDUE_AFTER).unwrap_or_default(),
                None => self.status.is_final(),
            },
        };
        Violation::ALL.into_iter().filter(|violation| !holds(*violation)).collect()
    }

    fn in_order(&self) -> Vec<AuditedEvent> {
        let mut events = self.events.clone();
        events.sort_by_key(|event| event.event);
        events
    }

    fn positions_fit(&self) -> bool {
        let mut events = self.events.clone();
        events.sort_by_key(|event| event.seq);
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        self.seq == count
            && events.iter().map(|event| event.seq).eq(1..=count)
            && events.is_sorted_by_key(|event| event.event)
    }

    fn stamps_rise(&self) -> bool {
        self.in_order().is_sorted_by_key(|event| event.timestamp)
    }

    fn row_agrees(&self) -> bool {
        let events = self.in_order();
        let last = events.last().is_some_and(|last| {
            (last.event, last.timestamp) == (EventKind::Reached(self.status), self.updated_at)
        });
        // A missing CREATED is a violation of its own.
        let first = events.iter().find(|event| event.event == EventKind::Created);
        last && first.is_none_or(|first| first.timestamp == self.created_at)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + TimeDelta::seconds(second)
    }

    fn events(seconds: &[i64]) -> Vec<AuditedEvent> {
        let event = |((seq, event), second)| AuditedEvent { seq, event, timestamp: at(second) };
        (1..).zip(EventKind::ALL).zip(seconds.iter().copied()).map(event).collect()
    }

    fn cooking() -> AuditedOrder {
        AuditedOrder {
            order_id: "ORD-01ARZ3NDEK0000000000000000".parse().expect("an id"),
            status: Status::Cooking,
            seq: 4,
            created_at: at(0),
            updated_at: at(8),
            due_at: Some(at(15)),
            unsent: false,
            events: events(&[0, 0, 3, 8]),
        }
    }

    #[test]
    fn a_good_story_has_no_fault() {
        assert_eq!(cooking().violations(at(17)), []);
        let delivered = AuditedOrder {
            status: Status::Delivered,
            seq: 6,
            updated_at: at(25),
            due_at: None,
            events: events(&[0, 0, 3, 8, 15, 25]),
            ..cooking()
        };
        assert_eq!(delivered.violations(at(1_000)), []);
    }

    #[test]
    fn every_tampering_is_found() {
        let found = |tamper: fn(&mut AuditedOrder)| {
            let mut order = cooking();
            tamper(&mut order);
            order.violations(at(10))
        };
        let moved = Violation::PositionDiffers;
        assert_eq!(found(|order| _ = order.events.remove(0)), [Violation::NoBeginning, moved]);
        assert_eq!(found(|order| _ = order.events.remove(1)), [Violation::NoBeginning, moved]);
        assert_eq!(found(|order| _ = order.events.remove(2)), [Violation::Gap, moved]);
        assert_eq!(found(|order| _ = order.events.remove(3)), [moved, Violation::RowDiffers]);
        let none = [Violation::NoBeginning, moved, Violation::RowDiffers];
        assert_eq!(found(|order| order.events.clear()), none);
        assert_eq!(found(|order| order.events.push(order.events[2])), [Violation::Doubled, moved]);
        assert_eq!(found(|order| order.seq = 5), [moved]);
        assert_eq!(found(|order| order.events[3].seq = 5), [moved]);
        assert_eq!(found(|order| order.events.iter_mut().for_each(|event| event.seq -= 1)), [moved]);
        let swapped = found(|order| (order.events[2].seq, order.events[3].seq) = (4, 3));
        assert_eq!(swapped, [moved]);
        assert_eq!(found(|order| order.events[2].timestamp = at(9)), [Violation::StampGoesBack]);
        assert_eq!(found(|order| order.status = Status::Preparing), [Violation::RowDiffers]);
        assert_eq!(found(|order| order.updated_at = at(9)), [Violation::RowDiffers]);
        assert_eq!(found(|order| order.created_at = at(1)), [Violation::RowDiffers]);
        assert_eq!(found(|order| order.due_at = Some(at(7))), [Violation::Overdue]);
        assert_eq!(found(|order| order.due_at = None), [Violation::Overdue]);
    }
}
