//! Whether a stored order tells a story that can have happened.

use super::{EventKind, OrderId, Status, Timestamp, promises::OVERDUE_AFTER};

/// An order as an auditor reads it: nothing about it is taken for granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedOrder {
    /// Which order.
    pub order_id: OrderId,
    /// The status that its row claims.
    pub status: Status,
    /// When its row says that it was created.
    pub created_at: Timestamp,
    /// When its row says that the status last changed.
    pub updated_at: Timestamp,
    /// When the next step is due; `None` where none is.
    pub due_at: Option<Timestamp>,
    /// Whether its outbox row is still there.
    pub unsent: bool,
    /// Its events in the order in which they were written.
    pub events: Vec<(EventKind, Timestamp)>,
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
    /// An event is earlier than the one before it.
    StampGoesBack,
    /// The row's status is not that of the last event, or its stamps are not those of the events.
    RowDiffers,
    /// A step is later than promised, or an unfinished order waits for none.
    Overdue,
}

impl Violation {
    /// All faults.
    pub const ALL: [Self; 6] =
        [Self::NoBeginning, Self::Gap, Self::Doubled, Self::StampGoesBack, Self::RowDiffers, Self::Overdue];

    /// The rule that was broken, in words.
    pub fn rule(self) -> &'static str {
        match self {
            Self::NoBeginning => "every order has CREATED and PLACED",
            Self::Gap => "no step is skipped",
            Self::Doubled => "no event is there twice",
            Self::StampGoesBack => "stamps never go back",
            Self::RowDiffers => "status and stamps are those of the events",
            Self::Overdue => "no step is more than 2 s late",
        }
    }
}

impl AuditedOrder {
    /// Every fault at `now`, each once.
    pub fn violations(&self, now: Timestamp) -> Vec<Violation> {
        let mut kinds: Vec<EventKind> = self.events.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        let all = kinds.len();
        kinds.dedup();
        let beginning = EventKind::ALL[..2].iter().all(|kind| kinds.contains(kind));
        // Without PLACED the beginning is missing, and the rest is a story all the same.
        let mut path = vec![Status::FIRST];
        path.extend(kinds.iter().filter_map(|kind| kind.status()));
        path.dedup();
        let holds = |fault| match fault {
            Violation::NoBeginning => beginning,
            Violation::Gap => path.is_sorted_by(|from, to| from.may_become(*to)),
            Violation::Doubled => kinds.len() == all,
            Violation::StampGoesBack => self.stamps_rise(),
            Violation::RowDiffers => self.row_agrees(),
            Violation::Overdue => match self.due_at {
                Some(due) => now - due <= chrono::TimeDelta::from_std(OVERDUE_AFTER).unwrap_or_default(),
                None => self.status.is_final(),
            },
        };
        Violation::ALL.into_iter().filter(|fault| !holds(*fault)).collect()
    }

    fn in_story_order(&self) -> Vec<(EventKind, Timestamp)> {
        let mut events = self.events.clone();
        events.sort_by_key(|(kind, _)| *kind);
        events
    }

    fn stamps_rise(&self) -> bool {
        self.in_story_order().is_sorted_by_key(|(_, at)| *at)
    }

    fn row_agrees(&self) -> bool {
        let events = self.in_story_order();
        let last =
            events.last().is_some_and(|last| *last == (EventKind::Reached(self.status), self.updated_at));
        // A missing CREATED is a fault of its own.
        let first = events.iter().find(|(kind, _)| *kind == EventKind::Created);
        last && first.is_none_or(|(_, at)| *at == self.created_at)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + TimeDelta::seconds(second)
    }

    fn cooking() -> AuditedOrder {
        AuditedOrder {
            order_id: "ORD-01ARZ3NDEK0000000000000000".parse().expect("an id"),
            status: Status::Cooking,
            created_at: at(0),
            updated_at: at(8),
            due_at: Some(at(15)),
            unsent: false,
            events: EventKind::ALL.into_iter().zip([0, 0, 3, 8].map(at)).collect(),
        }
    }

    #[test]
    fn a_good_story_has_no_fault() {
        assert_eq!(cooking().violations(at(17)), []);
        let delivered = AuditedOrder {
            status: Status::Delivered,
            updated_at: at(25),
            due_at: None,
            events: EventKind::ALL.into_iter().zip([0, 0, 3, 8, 15, 25].map(at)).collect(),
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
        assert_eq!(found(|order| _ = order.events.remove(0)), [Violation::NoBeginning]);
        assert_eq!(found(|order| _ = order.events.remove(1)), [Violation::NoBeginning]);
        assert_eq!(found(|order| _ = order.events.remove(2)), [Violation::Gap]);
        assert_eq!(found(|order| _ = order.events.remove(3)), [Violation::RowDiffers]);
        assert_eq!(found(|order| order.events.clear()), [Violation::NoBeginning, Violation::RowDiffers]);
        assert_eq!(found(|order| order.events.push(order.events[2])), [Violation::Doubled]);
        assert_eq!(found(|order| order.events[2].1 = at(9)), [Violation::StampGoesBack]);
        assert_eq!(found(|order| order.status = Status::Preparing), [Violation::RowDiffers]);
        assert_eq!(found(|order| order.updated_at = at(9)), [Violation::RowDiffers]);
        assert_eq!(found(|order| order.created_at = at(1)), [Violation::RowDiffers]);
        assert_eq!(found(|order| order.due_at = Some(at(7))), [Violation::Overdue]);
        assert_eq!(found(|order| order.due_at = None), [Violation::Overdue]);
    }
}
