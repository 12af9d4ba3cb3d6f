//! Reports: each case of the contract, judged and stored.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{Fixture, new_order, new_orders, seconds, start};
use crate::{
    order::{
        Conflict, Cursor, Event, EventKind, FeedEvent, Ignored, MAX_EVENTS, Order, OrderId, Progression,
        Reason, Report, Rules, Source,
        Status::{self, Cancelled, Cooking, Delivered, OutForDelivery, Placed, Preparing},
        Transition, allowed,
    },
    store::{FeedQuery, NewOrder, OrderReport, ReportOutcome, Reported, Span},
    time::Clock as _,
};

const READY: EventKind = EventKind::Ready;
const DELAYED: EventKind = EventKind::Delayed;
const REVERTED: EventKind = EventKind::Reverted;
const MILESTONES: [EventKind; 5] = [
    READY,
    EventKind::CourierAssigned,
    EventKind::CourierAtPickup,
    EventKind::CourierAtDoor,
    EventKind::DeliveryFailed,
];

/// What the suite's reports are judged by.
pub(crate) fn rules() -> Rules {
    Rules { cancel_unaccepted_after: Some(seconds(600)), ..Rules::default() }
}

const fn reaches(status: Status) -> EventKind {
    EventKind::Reached(status)
}

/// What the kitchen says of an order, with what an event of its kind must have.
pub(crate) fn kitchen(order_id: OrderId, event: EventKind) -> OrderReport {
    let report = Report {
        reason: (event == reaches(Cancelled)).then_some(Reason::OutOfStock),
        minutes: (event == DELAYED).then_some(10),
        ..Report::of(event, Source::Kitchen)
    };
    OrderReport { order_id, report, if_match: None }
}

/// An order that people move.
pub(crate) fn by_people() -> NewOrder {
    NewOrder { start: rules().start(Progression::Reported), ..new_order() }
}

pub(crate) fn named(id: &str, mut report: OrderReport) -> OrderReport {
    report.report.id = Some(id.to_owned());
    report
}

pub(crate) fn noted(note: &str, mut report: OrderReport) -> OrderReport {
    report.report.note = Some(note.to_owned());
    report
}

fn if_match(positions: &[u32], report: OrderReport) -> OrderReport {
    OrderReport { if_match: Some(positions.to_vec()), ..report }
}

fn reverts(seq: u32, mut report: OrderReport) -> OrderReport {
    report.report.reverts = Some(seq);
    report
}

impl Fixture {
    /// Reports, and holds what is answered to what is stored.
    pub(super) async fn report(&self, reports: &[OrderReport]) -> Vec<ReportOutcome> {
        let answers = self.store.report(reports, &rules()).await.expect("reports");
        assert_eq!(answers.len(), reports.len());
        let now = self.clock.now();
        for (at, (report, Reported { outcome, standing })) in reports.iter().zip(&answers).enumerate() {
            let Some(standing) = standing else {
                assert_eq!(outcome, &ReportOutcome::Unknown);
                continue;
            };
            assert_eq!(standing.now, now);
            if reports[at + 1..].iter().all(|later| later.order_id != report.order_id) {
                let found = self.find(report.order_id).await;
                assert_eq!(found.order, standing.order, "{report:?}");
                assert_eq!(found.events.last().map(|last| last.seq), Some(standing.seq), "{report:?}");
                assert_eq!(allowed(&found, None, &rules(), now), standing.allowed, "{report:?}");
            }
        }
        self.assert_audited().await;
        answers.into_iter().map(|answer| answer.outcome).collect()
    }

    pub(super) async fn report_one(&self, report: OrderReport) -> ReportOutcome {
        self.report(&[report]).await.remove(0)
    }

    /// What the kitchen says now, which happens.
    pub(super) async fn applied(&self, order_id: OrderId, event: EventKind) -> Vec<Event> {
        let ReportOutcome::Applied(events, _) = self.report_one(kitchen(order_id, event)).await else {
            panic!("{event} is applied")
        };
        events
    }

    /// Every stored order tells a story that can have happened; that a step is late may be the case's own doing.
    pub(crate) async fn assert_audited(&self) {
        let page = self.replica.audit(None, 1_000).await.expect("reads");
        assert!(page.unreadable.is_empty(), "{page:?}");
        for order in &page.orders {
            assert_eq!(order.violations(start() - TimeDelta::days(1)), [], "{order:?}");
        }
    }

    pub(crate) async fn place_one(&self, order: NewOrder) -> OrderId {
        self.place(std::slice::from_ref(&order)).await;
        order.order_id
    }

    async fn order(&self, order_id: OrderId) -> Order {
        self.find(order_id).await.order
    }

    pub(super) async fn kinds(&self, order_id: OrderId) -> Vec<&'static str> {
        self.find(order_id).await.events.iter().map(|event| event.event.as_str()).collect()
    }

    /// Every event of an order as the feed tells it.
    pub(super) async fn told(&self, order_id: OrderId) -> Vec<FeedEvent> {
        let span = Span { after: Cursor::START, upto: Cursor(i64::MAX) };
        let query = FeedQuery { span, event: None, limit: 100_000 };
        let mut events = self.replica.events(&query).await.expect("reads").events;
        events.retain(|event| event.order_id == order_id);
        events
    }

    /// Holds a row to a condition as the database sees it, where there is a console: its own check refuses a row without.
    pub(super) async fn assert_row(&self, order_id: OrderId, condition: &str) {
        let Some(dialect) = &self.dialect else { return };
        let statement = format!(
            "{}UPDATE orders SET seq = CASE WHEN {condition} THEN seq ELSE 0 END WHERE order_id = '{order_id}'",
            dialect.checked
        );
        (self.by_hand)(&statement).await.expect(condition);
    }
}

/// Promise 1: accepted means durable. Each kind that a report may have, with what it says.
pub(crate) async fn every_kind_of_report_is_stored(t: Fixture) {
    let order_id = t.place_one(new_order()).await;
    t.clock.advance(seconds(1));
    let at = start() + TimeDelta::seconds(1);
    let mut seq = 2;
    for event in MILESTONES.into_iter().chain([DELAYED]) {
        seq += 1;
        let mut meta = json!({"source": "kitchen", "status": "PLACED"});
        if event == DELAYED {
            meta["minutes"] = json!(10);
        }
        let expected = Event { seq, event, timestamp: at, meta: Some(meta) };
        assert_eq!(t.applied(order_id, event).await, [expected]);
    }
    for status in [Preparing, Cooking, OutForDelivery, Delivered] {
        let events = t.applied(order_id, reaches(status)).await;
        seq += 1;
        assert_eq!((events[0].seq, events[0].event, events.len()), (seq, reaches(status), 1));
        assert_eq!(events[0].meta, Some(json!({"source": "kitchen"})));
    }
    let reverted = t.applied(order_id, REVERTED).await;
    let meta = json!({"source": "kitchen", "reverts": seq, "from": "DELIVERED", "to": "OUT_FOR_DELIVERY"});
    assert_eq!(reverted[0].meta, Some(meta));
    let said = OrderReport {
        report: Report {
            id: Some("a".to_owned()),
            occurred_at: Some(start()),
            reason: Some(Reason::Undeliverable),
            station: Some("bike".to_owned()),
            by: Some("Bo".to_owned()),
            ..Report::of(reaches(Cancelled), Source::Courier)
        },
        ..kitchen(order_id, READY)
    };
    let ReportOutcome::Applied(events, transitions) = t.report_one(said).await else { panic!("is applied") };
    let meta = json!({
        "source": "courier", "by": "Bo", "occurred_at": "2026-01-02T03:04:05.000Z", "reason": "undeliverable",
        "station": "bike",
    });
    assert_eq!(events[0].meta, Some(meta));
    let (from, seq) = (OutForDelivery, seq + 2);
    assert_eq!(transitions, [Transition { order_id, from, to: Cancelled, seq }]);
    let order = t.order(order_id).await;
    assert_eq!((order.status, order.updated_at, order.due_at), (Cancelled, at, None));
}

/// Promise 7: the story is true. What was skipped is marked and counts as its steps.
pub(crate) async fn a_skip_infers_what_lies_between(t: Fixture) {
    let order_id = t.place_one(new_order()).await;
    let report = kitchen(order_id, reaches(OutForDelivery));
    let ReportOutcome::Applied(events, transitions) = t.report_one(report).await else {
        panic!("is applied")
    };
    let metas: Vec<Option<Value>> = events.into_iter().map(|event| event.meta).collect();
    let (said, inferred) = (json!({"source": "kitchen"}), json!({"source": "kitchen", "inferred": true}));
    assert_eq!(metas, [Some(inferred.clone()), Some(inferred), Some(said)]);
    let way = [Placed, Preparing, Cooking, OutForDelivery];
    let step = |(seq, way): (u32, &[Status])| Transition { order_id, from: way[0], to: way[1], seq };
    assert_eq!(transitions, (3..).zip(way.windows(2)).map(step).collect::<Vec<_>>());
    assert_eq!(t.applied(order_id, REVERTED).await[0].seq, 6);
    assert_eq!(t.order(order_id).await.status, Placed, "with what it inferred");
}

/// What says nothing new, contradicts or means another moment writes nothing.
pub(crate) async fn what_is_ignored_or_refused_is_not_written(t: Fixture) {
    let orders = new_orders(2);
    let [order_id, unknown] = [0, 1].map(|n| orders[n].order_id);
    t.place(&orders[..1]).await;
    let of = |event| kitchen(order_id, event);
    let ignored = ReportOutcome::Ignored;
    let refused = ReportOutcome::Refused;
    assert_eq!(t.report_one(kitchen(unknown, READY)).await, ReportOutcome::Unknown);
    assert_eq!(t.report_one(of(REVERTED)).await, refused(Conflict::NothingToRevert));
    t.applied(order_id, reaches(Cooking)).await;
    let (before, rows) = (t.find(order_id).await, t.told(order_id).await.len());
    for (report, outcome) in [
        (of(reaches(Cooking)), ignored(Ignored::Same)),
        (of(reaches(Preparing)), ignored(Ignored::Late)),
        (named("x", noted("n", of(reaches(Preparing)))), ignored(Ignored::Late)),
        (reverts(3, of(REVERTED)), refused(Conflict::ChangedMeanwhile)),
        (if_match(&[3, 5], of(READY)), ReportOutcome::Moved),
        (if_match(&[], of(reaches(Delivered))), ReportOutcome::Moved),
        // Judged before it is looked at what it says.
        (if_match(&[3], of(reaches(Cooking))), ReportOutcome::Moved),
        (kitchen(unknown, reaches(Cooking)), ReportOutcome::Unknown),
    ] {
        assert_eq!(t.report_one(report.clone()).await, outcome, "{report:?}");
        assert_eq!(t.find(order_id).await, before);
    }
    t.clock.advance(seconds(300));
    assert_eq!(t.report_one(of(REVERTED)).await, refused(Conflict::TooLateToRevert));
    assert_eq!(t.find(order_id).await, before);
    assert_eq!(t.told(order_id).await.len(), rows);
    t.assert_row(order_id, "NOT EXISTS (SELECT 1 FROM order_reports)").await;

    assert!(matches!(
        t.report_one(if_match(&[9, 4], of(reaches(Cancelled)))).await,
        ReportOutcome::Applied(..)
    ));
    for event in MILESTONES.into_iter().chain([DELAYED, reaches(Delivered)]) {
        assert_eq!(t.report_one(of(event)).await, refused(Conflict::OrderFinished), "{event}");
    }
    assert_eq!(t.report_one(of(reaches(Cancelled))).await, ignored(Ignored::Same));
    assert_eq!(t.report_one(of(reaches(Cooking))).await, ignored(Ignored::Late));
    let again = reverts(5, of(REVERTED));
    assert!(matches!(t.report_one(again.clone()).await, ReportOutcome::Applied(..)));
    assert_eq!(t.report_one(again).await, ignored(Ignored::Same), "taken back already");
}

/// Promise 5: memory, queues and time are bounded. So is a timeline.
pub(crate) async fn a_full_timeline_takes_what_moves_it(t: Fixture) {
    let order_id = t.place_one(by_people()).await;
    let many: Vec<OrderReport> = (2..MAX_EVENTS).map(|_| kitchen(order_id, READY)).collect();
    for part in many.chunks(100) {
        assert!(t.report(part).await.iter().all(|outcome| matches!(outcome, ReportOutcome::Applied(..))));
    }
    for event in [READY, DELAYED] {
        let outcome = t.report_one(kitchen(order_id, event)).await;
        assert_eq!(outcome, ReportOutcome::Refused(Conflict::TimelineFull));
    }
    for event in [reaches(Delivered), REVERTED, reaches(Cancelled)] {
        t.applied(order_id, event).await;
    }
    assert_eq!(t.find(order_id).await.events.len(), MAX_EVENTS + 4 + 2);
}

/// Promise 3: an effect happens once. The same id again changes nothing and is answered as first.
pub(crate) async fn a_report_is_known_by_its_id(t: Fixture) {
    let orders = new_orders(2);
    t.place(&orders).await;
    let [order_id, other] = [0, 1].map(|n| orders[n].order_id);
    let skip = named("skip", noted("for Ada", kitchen(order_id, reaches(Cooking))));
    let ready = named("ready", kitchen(order_id, READY));
    let ReportOutcome::Applied(events, steps) = t.report_one(skip.clone()).await else {
        panic!("is applied")
    };
    assert_eq!((events.len(), steps.len()), (2, 2), "what was skipped is one of its steps");
    let skipped = ReportOutcome::Replayed(events.clone(), steps);
    assert_eq!(events.last().and_then(|last| last.meta.clone()).expect("some")["note"], "for Ada");
    let ReportOutcome::Applied(events, steps) = t.report_one(ready.clone()).await else {
        panic!("is applied")
    };
    let readied = ReportOutcome::Replayed(events, steps);
    let before = t.find(order_id).await;
    for set in [vec![skip.clone()], vec![ready.clone(), skip.clone(), ready.clone()]] {
        let expected = set.iter().map(|report| if *report == skip { &skipped } else { &readied });
        let expected: Vec<ReportOutcome> = expected.cloned().collect();
        assert_eq!(t.report(&set).await, expected);
    }
    // Before 412, and though it would be refused now.
    assert_eq!(t.report_one(if_match(&[1], ready.clone())).await, readied.clone());
    for other in [
        named("skip", noted("for Bo", kitchen(order_id, reaches(Cooking)))),
        named("skip", kitchen(order_id, reaches(Cooking))),
        named("skip", noted("for Ada", kitchen(order_id, reaches(Delivered)))),
        named("ready", noted("for Ada", kitchen(order_id, READY))),
    ] {
        assert_eq!(t.report_one(other.clone()).await, ReportOutcome::IdReused, "{other:?}");
    }
    assert_eq!(t.find(order_id).await, before);
    let end = named("end", kitchen(order_id, reaches(Cancelled)));
    let back = named("back", kitchen(order_id, REVERTED));
    let mut all = vec![ready, skip];
    let mut expected = vec![readied, skipped];
    for report in [end, back] {
        let ReportOutcome::Applied(events, steps) = t.report_one(report.clone()).await else {
            panic!("is applied")
        };
        assert_eq!(steps.len(), 1);
        all.push(report);
        expected.push(ReportOutcome::Replayed(events, steps));
    }
    assert_eq!(t.report(&all).await, expected);
    let others = named("ready", kitchen(other, READY));
    assert!(matches!(t.report_one(others).await, ReportOutcome::Applied(..)), "an id is an order's own");
    // What was not applied is judged anew.
    let late = named("late", kitchen(order_id, reaches(Preparing)));
    assert_eq!(t.report_one(late.clone()).await, ReportOutcome::Ignored(Ignored::Late));
    t.applied(order_id, REVERTED).await;
    assert!(matches!(t.report_one(late).await, ReportOutcome::Applied(..)));
}

/// Each sees what those before it did, whatever else is in the set.
pub(crate) async fn reports_of_one_set_see_each_other(t: Fixture) {
    let orders = new_orders(3);
    let [one, other, unknown] = [0, 1, 2].map(|n| orders[n].order_id);
    t.place(&orders[..2]).await;
    let set = [
        kitchen(other, READY),
        named("a", kitchen(one, reaches(Cooking))),
        kitchen(unknown, READY),
        named("a", kitchen(one, reaches(Cooking))),
        named("a", kitchen(one, READY)),
        if_match(&[2], kitchen(one, reaches(Delivered))),
        if_match(&[4], noted("soft", kitchen(one, DELAYED))),
        kitchen(one, reaches(Preparing)),
        kitchen(one, REVERTED),
        kitchen(one, reaches(Cancelled)),
        kitchen(one, READY),
        kitchen(other, reaches(Preparing)),
    ];
    let outcomes = t.report(&set).await;
    let words: Vec<String> = outcomes.iter().map(|outcome| format!("{outcome:?}")).collect();
    let begins = [
        "Applied",
        "Applied",
        "Unknown",
        "Replayed",
        "IdReused",
        "Moved",
        "Applied",
        "Ignored(Late)",
        "Applied",
        "Applied",
        "Refused(OrderFinished)",
        "Applied",
    ];
    for (word, begin) in words.iter().zip(begins) {
        assert!(word.starts_with(begin), "{words:#?}");
    }
    let expected = ["CREATED", "PLACED", "PREPARING", "COOKING", "DELAYED", "REVERTED", "CANCELLED"];
    assert_eq!(t.kinds(one).await, expected);
    assert_eq!(t.kinds(other).await, ["CREATED", "PLACED", "READY", "PREPARING"]);
    assert_eq!(t.report(&[]).await, []);
}
