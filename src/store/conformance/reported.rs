//! What follows reports: notes beside events, the feed, timers, and orders that people move.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    DELAYS, Fixture, new_order,
    reports::{by_people, kitchen, named, noted, rules},
    seconds, start,
};
use crate::{
    order::{
        EventKind, OrderId,
        Status::{self, Cancelled, Cooking, Delivered, OutForDelivery, Placed, Preparing},
        Timestamp, Transition, not_accepted,
    },
    store::{Due, OrderReport, ReportOutcome},
    time::Clock as _,
};

const READY: EventKind = EventKind::Ready;
const DELAYED: EventKind = EventKind::Delayed;
const REVERTED: EventKind = EventKind::Reverted;

const fn reaches(status: Status) -> EventKind {
    EventKind::Reached(status)
}

fn at(second: i64) -> Timestamp {
    start() + TimeDelta::seconds(second)
}

impl Fixture {
    /// When the service acts next, and when people should have acted.
    async fn goes_on(&self, order_id: OrderId) -> (Option<Timestamp>, Option<Timestamp>) {
        let order = self.find(order_id).await.order;
        (order.due_at, order.expected_at)
    }

    fn passes(&self, count: i64) {
        self.clock.advance(seconds(count));
    }
}

/// A note can be erased, so it lies beside its event and is shown with the order alone; a row is there only for what an
/// event can't keep.
pub(crate) async fn notes_lie_beside_their_events(t: Fixture) {
    let order_id = t.place_one(new_order()).await;
    let rows = |count: u32| {
        format!("(SELECT count(*) FROM order_reports AS r WHERE r.order_id = orders.order_id) = {count}")
    };
    t.applied(order_id, READY).await;
    t.assert_row(order_id, &rows(0)).await;
    let soft = noted("soft \u{1f95a}", kitchen(order_id, READY));
    let ReportOutcome::Applied(events, _) = t.report_one(soft.clone()).await else { panic!("is applied") };
    let shown = |note: Value| Some(json!({"source": "kitchen", "status": "PLACED", "note": note}));
    assert_eq!(events[0].meta, shown(json!("soft \u{1f95a}")));
    t.assert_row(order_id, &rows(1)).await;
    let mut named = kitchen(order_id, READY);
    named.report.id = Some("named".to_owned());
    t.report_one(named).await;
    t.assert_row(order_id, &rows(2)).await;
    t.report_one(noted("burnt", kitchen(order_id, reaches(Cooking)))).await;
    t.assert_row(order_id, &rows(3)).await;

    let found = t.find(order_id).await;
    let notes: Vec<Option<&Value>> =
        found.events.iter().map(|event| event.meta.as_ref().and_then(|meta| meta.get("note"))).collect();
    let (soft, burnt) = (json!("soft \u{1f95a}"), json!("burnt"));
    assert_eq!(notes, [None, None, None, Some(&soft), None, None, Some(&burnt)]);
    let all = t.store.find_all(&[order_id]).await.expect("reads");
    assert_eq!(all.orders, [found], "wherever an order is read");
    for event in t.told(order_id).await {
        let text = serde_json::to_string(&event).expect("serialises");
        assert!(!text.contains("note") && !text.contains("soft"), "{text}");
    }
    t.assert_row(
        order_id,
        "NOT EXISTS (SELECT 1 FROM order_events AS e WHERE CAST(e.meta AS text) LIKE '%soft%')",
    )
    .await;
}

/// Promise 8: who was away misses nothing. The feed says of each where its order was, and what may be told.
pub(crate) async fn reports_are_in_the_feed(t: Fixture) {
    let order_id = t.place_one(new_order()).await;
    for event in [READY, reaches(Cooking), DELAYED, REVERTED, reaches(Cancelled)] {
        t.passes(1);
        t.applied(order_id, event).await;
    }
    let told: Vec<(u32, &str, &str, Value)> = t
        .told(order_id)
        .await
        .iter()
        .map(|event| {
            let meta = serde_json::to_value(&event.meta).expect("serialises");
            (event.seq, event.event.as_str(), event.status.as_str(), meta)
        })
        .collect();
    let kitchen = json!({"source": "kitchen"});
    let with = |more: Value| {
        let mut meta = kitchen.clone();
        meta.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        meta
    };
    assert_eq!(
        told[2..],
        [
            (3, "READY", "PLACED", with(json!({"status": "PLACED"}))),
            (4, "PREPARING", "PREPARING", with(json!({"inferred": true}))),
            (5, "COOKING", "COOKING", kitchen.clone()),
            (6, "DELAYED", "COOKING", with(json!({"status": "COOKING", "minutes": 10}))),
            (7, "REVERTED", "PLACED", with(json!({"reverts": 5, "from": "COOKING", "to": "PLACED"}))),
            (8, "CANCELLED", "CANCELLED", with(json!({"reason": "out_of_stock"}))),
        ]
    );
    let found = t.find(order_id).await;
    let stamps = found.events.iter().map(|event| event.timestamp);
    assert!(t.told(order_id).await.iter().map(|event| event.timestamp).eq(stamps));
}

/// Promise 3: an effect happens once. Asked again, since the answer got lost, what was not applied is answered as it was, not
/// by what came behind it.
pub(crate) async fn a_set_is_answered_again_as_it_was(t: Fixture) {
    let (one, other) = (t.place_one(new_order()).await, t.place_one(new_order()).await);
    t.report_one(kitchen(one, reaches(Cooking))).await;
    t.passes(1);
    let set = [
        kitchen(one, reaches(Preparing)),
        kitchen(one, reaches(Cooking)),
        kitchen(one, REVERTED),
        kitchen(one, REVERTED),
        kitchen(other, REVERTED),
        kitchen(one, reaches(OutForDelivery)),
        kitchen(one, reaches(Preparing)),
        kitchen(one, reaches(Cancelled)),
        kitchen(one, READY),
        OrderReport { if_match: Some(vec![4]), ..kitchen(one, REVERTED) },
    ];
    let set: Vec<OrderReport> =
        set.into_iter().enumerate().map(|(nth, report)| named(&nth.to_string(), report)).collect();
    let first = t.report(&set).await;
    let kinds = t.kinds(one).await;
    let words: Vec<String> = first.iter().map(|outcome| format!("{outcome:?}")).collect();
    let begins = [
        "Ignored(Late)",
        "Ignored(Same)",
        "Applied",
        "Refused(NothingToRevert)",
        "Refused(NothingToRevert)",
        "Applied",
        "Ignored(Late)",
        "Applied",
        "Refused(OrderFinished)",
        "Moved",
    ];
    for (word, begin) in words.iter().zip(begins) {
        assert!(word.starts_with(begin), "{words:#?}");
    }
    t.passes(1);
    let again =
        t.store.report_again(&set, &rules(), Instant::now().checked_sub(seconds(2))).await.expect("reports");
    let expected = first.into_iter().map(|outcome| match outcome {
        ReportOutcome::Applied(events, steps) => ReportOutcome::Replayed(events, steps),
        outcome => outcome,
    });
    let again: Vec<ReportOutcome> = again.into_iter().map(|answer| answer.outcome).collect();
    assert_eq!(again, expected.collect::<Vec<_>>());
    assert_eq!((t.kinds(one).await, t.kinds(other).await.len()), (kinds, 2));

    // Of what was written before that call nothing is told.
    let undone = t.store.report_again(&set[3..], &rules(), Some(Instant::now())).await.expect("reports");
    assert!(matches!(undone[0].outcome, ReportOutcome::Applied(..)), "{undone:?}");
}

/// It is ready from when the kitchen says so until a delay or a step, whoever makes that.
pub(crate) async fn an_order_is_ready_until_it_goes_on(t: Fixture) {
    let order_id = t.place_one(new_order()).await;
    let Some(stamp) = t.dialect.as_ref().map(|dialect| dialect.stamp) else { return };
    let since = |at: Timestamp| format!("ready_at = {}", stamp(at));
    t.applied(order_id, reaches(Cooking)).await;
    for (event, ready) in [
        (EventKind::CourierAssigned, "ready_at IS NULL".to_owned()),
        (READY, since(at(2))),
        (EventKind::CourierAtPickup, since(at(2))),
        (DELAYED, "ready_at IS NULL".to_owned()),
        (READY, since(at(5))),
        (reaches(OutForDelivery), "ready_at IS NULL".to_owned()),
        (REVERTED, "ready_at IS NULL".to_owned()),
        (READY, since(at(8))),
    ] {
        t.passes(1);
        t.applied(order_id, event).await;
        t.assert_row(order_id, &ready).await;
    }
    // In one set, too.
    t.report(&[READY, EventKind::CourierAtPickup].map(|event| kitchen(order_id, event))).await;
    t.assert_row(order_id, &since(at(8))).await;
    t.passes(DELAYS[2]);
    assert_eq!(t.advance().await.len(), 1);
    t.assert_row(order_id, "ready_at IS NULL").await;
}

/// Promise 4: timers are rows. A timer goes on from where a report has led, and what is said twice happens once.
pub(crate) async fn a_timer_goes_on_from_a_report(t: Fixture) {
    let order_id = t.place_one(new_order()).await;
    t.passes(1);
    t.applied(order_id, reaches(Cooking)).await;
    assert_eq!(t.goes_on(order_id).await, (Some(at(1 + DELAYS[2])), None));
    t.passes(DELAYS[2] - 1);
    assert_eq!(t.advance().await, []);
    t.applied(order_id, DELAYED).await;
    t.passes(600);
    assert_eq!(t.advance().await, [], "put off");
    t.passes(1);
    let (from, to, seq) = (Cooking, OutForDelivery, 6);
    assert_eq!(t.advance().await, [Transition { order_id, from, to, seq }]);
    let late = t.report_one(kitchen(order_id, reaches(OutForDelivery))).await;
    assert!(matches!(late, ReportOutcome::Ignored(_)), "{late:?}");
    // A timer's step can be taken back, too, and the timer starts anew.
    let reverted = t.applied(order_id, REVERTED).await;
    assert_eq!(reverted[0].meta.as_ref().expect("some")["reverts"], 6);
    assert_eq!(t.goes_on(order_id).await.0, Some(t.clock.now() + seconds(DELAYS[2])));
    t.passes(DELAYS[2]);
    assert_eq!(t.advance().await.len(), 1);
    t.passes(DELAYS[3]);
    let (from, to, seq) = (OutForDelivery, Delivered, 9);
    assert_eq!(t.advance().await, [Transition { order_id, from, to, seq }]);
    t.applied(order_id, REVERTED).await;
    assert_eq!(t.goes_on(order_id).await.0, Some(t.clock.now() + seconds(DELAYS[3])), "ends too");
    t.applied(order_id, reaches(Cancelled)).await;
    t.passes(3_600);
    assert_eq!(t.advance().await, [], "a cancelled order rests");
    t.assert_audited().await;
}

/// What is late already when something is said of it goes on at once, and never before what was said.
pub(crate) async fn a_late_step_is_stamped_after_what_was_said(t: Fixture) {
    let order_id = t.place_one(new_order()).await;
    t.passes(60);
    t.applied(order_id, READY).await;
    t.clock.set(at(30));
    t.advance().await;
    t.assert_audited().await;
    t.clock.set(at(60));
    t.advance().await;
    assert_eq!(t.find(order_id).await.order.status, Preparing);
    t.assert_audited().await;
}

/// An order that people move waits for them alone, but for the moment until which somebody must have taken it.
pub(crate) async fn people_move_what_is_expected_of_them(t: Fixture) {
    let order_id = t.place_one(by_people()).await;
    assert_eq!(t.goes_on(order_id).await, (Some(at(600)), Some(at(3))));
    t.passes(599);
    assert_eq!(t.advance().await, []);
    t.applied(order_id, DELAYED).await;
    assert_eq!(t.goes_on(order_id).await, (Some(at(1_200)), Some(at(1_199))), "DELAYED moves both");
    t.applied(order_id, reaches(Preparing)).await;
    assert_eq!(t.goes_on(order_id).await, (None, Some(at(599 + DELAYS[1]))));
    t.passes(99_999);
    assert_eq!(t.advance().await, [], "however late");
    assert_eq!(t.store.advance(9).await.expect("advances").next_due_in, None);
    t.applied(order_id, reaches(Cooking)).await;
    t.applied(order_id, REVERTED).await;
    let now = t.clock.now();
    assert_eq!(t.goes_on(order_id).await, (None, Some(now + seconds(DELAYS[1]))), "anew");
    t.applied(order_id, reaches(Delivered)).await;
    let (due_at, expected_at) = t.goes_on(order_id).await;
    assert!(due_at.is_none() && expected_at.is_some(), "an order's mode is for ever");
    t.applied(order_id, REVERTED).await;
    assert_eq!(t.goes_on(order_id).await, (None, Some(now + seconds(DELAYS[1]))));
}

/// What nobody takes is cancelled, once, by whichever look finds it; taken back, its clock starts anew.
pub(crate) async fn what_nobody_takes_is_cancelled(t: Fixture) {
    let mut cancelled = Vec::new();
    let orders: Vec<_> = (0..3).map(|_| by_people()).collect();
    let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
    let timed = new_order();
    t.place(&orders).await;
    t.passes(597);
    let timed = t.place_one(timed).await;
    assert_eq!(t.store.advance(9).await.expect("advances").next_due_in, Some(seconds(3)));
    t.passes(3);
    for due in [Due::Alone(ids[0]), Due::SecondChance(&ids[..2]), Due::Soonest { limit: 9, after: None }] {
        let advance = t.store.advance_due(due, &rules().delays).await.expect("advances");
        cancelled.extend(advance.transitions);
    }
    let (from, seq) = (Placed, 3);
    let step = Transition { order_id: timed, from, to: Preparing, seq };
    assert!(cancelled.contains(&step), "each in its own way: {cancelled:?}");
    cancelled.retain(|cancel| *cancel != step);
    let cancel = |order_id: &OrderId| Transition { order_id: *order_id, from, to: Cancelled, seq };
    assert_eq!(cancelled, ids.iter().map(cancel).collect::<Vec<_>>());
    t.assert_audited().await;
    for order_id in &ids {
        let found = t.find(*order_id).await;
        let last = found.events.last().expect("three");
        assert_eq!((last.seq, last.event, last.timestamp), (3, reaches(Cancelled), at(600)));
        assert_eq!(last.meta, Some(not_accepted()));
        assert_eq!((found.order.status, found.order.updated_at), (Cancelled, at(600)));
        assert_eq!((found.order.due_at, found.order.expected_at), (None, Some(at(3))));
    }
    let told = t.told(ids[0]).await;
    let meta = serde_json::to_value(&told[2].meta).expect("serialises");
    assert_eq!((told[2].status, meta), (Cancelled, json!({"source": "timer", "reason": "not_accepted"})));
    t.applied(ids[0], REVERTED).await;
    assert_eq!(t.goes_on(ids[0]).await, (Some(at(1_200)), Some(at(603))));
    t.passes(600);
    let (order_id, to, seq) = (ids[0], Cancelled, 5);
    assert!(t.advance().await.contains(&Transition { order_id, from, to, seq }));
}
