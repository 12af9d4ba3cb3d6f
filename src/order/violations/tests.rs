use std::time::Duration;

use chrono::TimeDelta;

use super::{
    super::{
        Order, OrderDetails, Reason, Report, Rules, Source,
        Status::{Cancelled, Cooking, Delivered, OutForDelivery, Placed, Preparing},
        TrackedOrder, Verdict, judge,
    },
    *,
};

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + TimeDelta::seconds(second)
}

fn id() -> OrderId {
    "ORD-01ARZ3NDEK0000000000000000".parse().expect("an id")
}

fn events(seconds: &[i64]) -> Vec<AuditedEvent> {
    let facts = EventFacts::default();
    let event = |((seq, event), second)| AuditedEvent { seq, event, timestamp: at(second), facts };
    (1..).zip(EventKind::ALL).zip(seconds.iter().copied()).map(event).collect()
}

fn cooking() -> AuditedOrder {
    AuditedOrder {
        order_id: id(),
        status: Cooking,
        seq: 4,
        created_at: at(0),
        updated_at: at(8),
        due_at: Some(at(15)),
        expected_at: None,
        unsent: false,
        events: events(&[0, 0, 3, 8]),
    }
}

#[test]
fn a_good_story_has_no_fault() {
    assert_eq!(cooking().violations(at(17)), []);
    let delivered = AuditedOrder {
        status: Delivered,
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
    let late = [Violation::NoBeginning, moved];
    assert_eq!(found(|order| order.events.swap(0, 1)), late);
    assert_eq!(found(|order| order.events.push(order.events[3])), [Violation::Doubled, moved]);
    assert_eq!(
        found(|order| order.events.insert(1, order.events[0])),
        [Violation::NoBeginning, Violation::Doubled, moved]
    );
    assert_eq!(found(|order| order.seq = 5), [moved]);
    assert_eq!(found(|order| order.events[3].seq = 5), [moved]);
    assert_eq!(found(|order| order.events.iter_mut().for_each(|event| event.seq -= 1)), [moved]);
    let swapped = found(|order| (order.events[2].seq, order.events[3].seq) = (4, 3));
    assert_eq!(swapped, [moved]);
    assert_eq!(found(|order| order.events[2].timestamp = at(9)), [Violation::StampGoesBack]);
    assert_eq!(found(|order| order.status = Preparing), [Violation::RowDiffers]);
    assert_eq!(found(|order| order.updated_at = at(9)), [Violation::RowDiffers]);
    assert_eq!(found(|order| order.created_at = at(1)), [Violation::RowDiffers]);
    assert_eq!(found(|order| order.due_at = Some(at(7))), [Violation::Overdue]);
    assert_eq!(found(|order| order.due_at = None), [Violation::Overdue]);
}

#[test]
fn a_note_is_asked_for_until_it_is_erased() {
    let mut order = cooking();
    order.events[3].facts.noted = true;
    assert_eq!(order.noted().collect::<Vec<_>>(), [4]);
    order.events.push(AuditedEvent { seq: 5, event: EventKind::Erased, ..order.events[3] });
    assert_eq!(order.noted().count(), 0);
    let noted = |meta| EventFacts::of(Some(&meta)).noted;
    assert!(noted(serde_json::json!({"note": true})));
    assert!(!noted(serde_json::json!({"note": "true"})) && !noted(serde_json::json!({})));
}

/// An order as what was reported of it left it, told second by second.
fn told(mut tracked: TrackedOrder, reports: &[(i64, EventKind)]) -> AuditedOrder {
    let rules = Rules { cancel_unaccepted_after: Some(Duration::from_mins(10)), ..Rules::default() };
    for (second, event) in reports {
        let report =
            Report { reason: Some(Reason::Other), minutes: Some(10), ..Report::of(*event, Source::Kitchen) };
        let Verdict::Applied(change) = judge(&tracked, &report, &rules, at(*second)) else {
            panic!("{event} at {second}")
        };
        tracked.order = change.order;
        tracked.events.extend(change.events);
    }
    let TrackedOrder { order, events } = tracked;
    AuditedOrder {
        order_id: order.order_id,
        status: order.status,
        seq: i64::try_from(events.len()).expect("few"),
        created_at: order.created_at,
        updated_at: order.updated_at,
        due_at: order.due_at,
        expected_at: order.expected_at,
        unsent: false,
        events: events.iter().map(AuditedEvent::from).collect(),
    }
}

fn placed(by_people: bool) -> TrackedOrder {
    let first = |(seq, event)| Event { seq, event, timestamp: at(0), meta: None };
    let order = Order {
        order_id: id(),
        details: OrderDetails::new("Ada", "1 High St", "pizza", "large").expect("valid"),
        status: Placed,
        created_at: at(0),
        updated_at: at(0),
        due_at: Some(at(if by_people { 600 } else { 3 })),
        expected_at: by_people.then(|| at(3)),
    };
    TrackedOrder {
        order,
        events: (1..).zip([EventKind::Created, EventKind::Reached(Placed)]).map(first).collect(),
    }
}

const STORY: [(i64, EventKind); 9] = [
    (1, EventKind::Reached(Preparing)),
    (1, EventKind::CourierAssigned),
    (2, EventKind::Delayed),
    // Infers COOKING at 6.
    (3, EventKind::Reached(OutForDelivery)),
    (4, EventKind::Reverted),
    (5, EventKind::Reached(Cooking)),
    (6, EventKind::Reached(Cancelled)),
    (7, EventKind::Reverted),
    (8, EventKind::Ready),
];

#[test]
fn skips_delays_cancels_and_what_was_taken_back_are_no_fault() {
    for by_people in [false, true] {
        for length in 0..=STORY.len() {
            let order = told(placed(by_people), &STORY[..length]);
            let second = STORY[..length].last().map_or(0, |(second, _)| *second);
            assert_eq!(order.violations(at(second)), [], "{order:?}");
        }
    }
}

/// What people move waits for them, however long; but for the moment at which it is cancelled.
#[test]
fn only_what_the_service_does_can_be_overdue() {
    let cooking = told(placed(true), &STORY[..6]);
    assert_eq!((cooking.due_at, cooking.violations(at(9_999_999))), (None, vec![]));
    let forgotten = told(placed(true), &[]);
    assert_eq!(forgotten.violations(at(602)), []);
    assert_eq!(forgotten.violations(at(603)), [Violation::Overdue]);
    assert_eq!(told(placed(false), &[]).violations(at(6)), [Violation::Overdue]);
}

/// As [`every_tampering_is_found`], of an order of which much was reported.
#[test]
fn every_tampering_with_what_was_reported_is_found() {
    // 3 PREPARING, 4 COURIER_ASSIGNED, 5 DELAYED, 6 COOKING (inferred), 7 OUT_FOR_DELIVERY, 8 REVERTED (7), 9 COOKING,
    // 10 CANCELLED, 11 REVERTED (10), 12 READY.
    let found = |tamper: &dyn Fn(&mut AuditedOrder)| {
        let mut order = told(placed(false), &STORY);
        assert_eq!(order.seq, 12);
        tamper(&mut order);
        order.violations(at(9))
    };
    let alone = |violation, tamper: &dyn Fn(&mut AuditedOrder)| assert_eq!(found(tamper), [violation]);
    let facts = |seq: usize, change: fn(&mut EventFacts)| {
        move |order: &mut AuditedOrder| change(&mut order.events[seq - 1].facts)
    };
    for seq in [4, 5, 12] {
        alone(Violation::PositionDiffers, &|order| _ = order.events.remove(seq - 1));
    }
    alone(Violation::PositionDiffers, &|order| order.seq = 13);
    alone(Violation::PositionDiffers, &|order| order.events[5].seq = 13);
    alone(Violation::RowDiffers, &|order| order.updated_at = at(8));
    alone(Violation::RowDiffers, &|order| order.status = Cancelled);
    alone(Violation::StampGoesBack, &|order| order.events[9].timestamp = at(4));
    alone(Violation::InferredAlone, &|order| order.events[5].timestamp = at(2));
    alone(Violation::InferredAlone, &facts(4, |facts| facts.inferred = true));
    alone(Violation::InferredAlone, &facts(12, |facts| facts.inferred = true));
    for change in [
        |facts: &mut EventFacts| facts.reverts = Some(6),
        |facts: &mut EventFacts| facts.reverts = None,
        |facts: &mut EventFacts| facts.from = Some(Delivered),
        |facts: &mut EventFacts| facts.to = Some(Cooking),
    ] {
        alone(Violation::RevertDiffers, &facts(8, change));
    }
    for change in
        [|facts: &mut EventFacts| facts.status = None, |facts: &mut EventFacts| facts.status = Some(Cooking)]
    {
        alone(Violation::StatusDiffers, &facts(4, change));
    }
    let inserted = |seq: i64, event| {
        move |order: &mut AuditedOrder| {
            let place = usize::try_from(seq).expect("positive") - 1;
            let facts = EventFacts { status: Some(Cancelled), ..EventFacts::default() };
            let timestamp = order.events[place - 1].timestamp;
            order.events.insert(place, AuditedEvent { seq, event, timestamp, facts });
            (seq + 1..).zip(&mut order.events[place + 1..]).for_each(|(seq, event)| event.seq = seq);
            order.seq += 1;
        }
    };
    alone(Violation::AfterEnd, &inserted(11, EventKind::CourierAtDoor));
    alone(Violation::AfterEnd, &inserted(11, EventKind::Delayed));
    alone(Violation::AfterEnd, &inserted(11, EventKind::Reached(OutForDelivery)));
    alone(Violation::Doubled, &inserted(11, EventKind::Reached(Cooking)));
    alone(Violation::Doubled, &inserted(12, EventKind::Created));
    let several = |violations: &[Violation], tamper: &dyn Fn(&mut AuditedOrder)| {
        let found = found(tamper);
        assert!(violations.iter().all(|violation| found.contains(violation)), "{found:?}");
    };
    // What follows from it is told too.
    several(&[Violation::Gap, Violation::PositionDiffers], &|order| _ = order.events.remove(5));
    several(&[Violation::InferredAlone, Violation::RevertDiffers], &|order| _ = order.events.remove(6));
    several(&[Violation::RevertDiffers, Violation::RowDiffers], &|order| _ = order.events.remove(9));
    several(&[Violation::AfterEnd, Violation::RowDiffers], &|order| _ = order.events.remove(10));
    several(&[Violation::RevertDiffers], &facts(6, |facts| facts.inferred = false));
    several(&[Violation::RevertDiffers, Violation::RowDiffers], &inserted(12, EventKind::Reverted));
}
