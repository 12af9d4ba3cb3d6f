//! Reports of one order: every line of the contract's table.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::{
    Answer, Api, order,
    service::{Service, on_both_databases},
};
use crate::order::Status;

on_both_databases!(
    what_happened_is_answered_with_the_order_and_what_may_follow,
    hostile_texts_stay_texts_or_are_refused;
    in both modes:
    every_kind_is_taken_and_shown_with_what_was_said,
    what_is_skipped_has_its_events_too,
    what_is_known_is_ignored_and_leaves_no_trace,
    what_contradicts_is_refused_with_what_may_be_reported_instead,
    a_full_timeline_takes_only_what_moves_the_order,
    what_is_allowed_is_exactly_what_would_be_applied,
);

/// All that can be reported, in the order of the contract.
pub(super) const ALL: [&str; 12] = [
    "PREPARING",
    "COOKING",
    "OUT_FOR_DELIVERY",
    "DELIVERED",
    "CANCELLED",
    "READY",
    "COURIER_ASSIGNED",
    "COURIER_AT_PICKUP",
    "COURIER_AT_DOOR",
    "DELIVERY_FAILED",
    "DELAYED",
    "REVERTED",
];

impl Api {
    /// A report that must be answered so.
    pub(super) async fn says(&self, order_id: &str, body: &Value, status: u16) -> Value {
        let answer = self.report_of(order_id, &[], body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        answer.json()
    }

    /// All of these are applied, one after the other.
    pub(super) async fn applies(&self, order_id: &str, kinds: &[&str]) {
        for kind in kinds {
            self.says(order_id, &of(kind), 201).await;
        }
    }

    pub(super) async fn found(&self, order_id: &str) -> Value {
        self.get(&format!("/orders/{order_id}")).await.json()
    }

    pub(super) async fn allowed(&self, order_id: &str) -> Value {
        self.get(&format!("/orders/{order_id}?include=allowed")).await.json()["allowed"].clone()
    }
}

/// A report of this kind that says what it must.
pub(super) fn of(kind: &str) -> Value {
    match kind {
        "CANCELLED" => json!({"event": kind, "reason": "too_busy"}),
        "DELAYED" => json!({"event": kind, "minutes": 10}),
        _ => json!({"event": kind}),
    }
}

/// The positions and kinds of what was added.
fn added(answer: &Value) -> Vec<(u64, &str)> {
    let events = answer["events"].as_array().expect("events").iter();
    events
        .map(|event| (event["seq"].as_u64().expect("seq"), event["event"].as_str().expect("kind")))
        .collect()
}

/// The code of a conflict, and what it says that may be reported.
fn conflict(answer: &Answer) -> (String, Value) {
    (answer.problem(409).0, answer.json()["allowed"].clone())
}

async fn what_happened_is_answered_with_the_order_and_what_may_follow(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    api.clock.advance(Duration::from_secs(1));
    let report = json!({"event": "PREPARING", "source": "kitchen"});
    let answer = api.report_of(&id, &[], &report).await;
    assert_eq!((answer.status.as_u16(), answer.header("idempotency-replayed")), (201, ""));
    let order = api.found(&id).await["order"].clone();
    let at = "2026-01-02T03:04:06.678Z";
    assert_eq!((&order["status"], &order["updated_at"]), (&json!("PREPARING"), &json!(at)));
    let event = json!({"event": "PREPARING", "meta": {"source": "kitchen"}, "seq": 3, "timestamp": at});
    let expected = json!({"outcome": "applied", "events": [event], "order": order, "allowed": ALL[1..]});
    assert_eq!(answer.json(), expected);
    assert!(api.metric("reports_total{event=\"PREPARING\",outcome=\"applied\"} 1").await);
    // The timer of the new stage begins at the report.
    api.clock.advance(Duration::from_secs(4));
    assert_eq!(api.store.advance(10).await.expect("advances").transitions, []);
    api.clock.advance(Duration::from_secs(1));
    api.store.advance(10).await.expect("advances");
    assert_eq!(api.found(&id).await["order"]["status"], "COOKING");
}

async fn every_kind_is_taken_and_shown_with_what_was_said(service: Service) {
    let api = service.open().await;
    for kind in ALL {
        let id = api.place("Ada").await;
        if kind == "REVERTED" {
            api.applies(&id, &["PREPARING"]).await;
        }
        let mut body = of(kind);
        let (note, occurred_at) = ("ring twice", "2026-01-02T05:04:05+02:00");
        for (field, value) in [("station", "grill"), ("note", note), ("source", "courier"), ("by", "x")] {
            body[field] = value.into();
        }
        body["occurred_at"] = occurred_at.into();
        let answer = api.says(&id, &body, 201).await;
        let last = answer["events"].as_array().and_then(|events| events.last()).expect("an event");
        assert_eq!(last["event"], kind);
        let meta = &last["meta"];
        assert_eq!(
            (&meta["source"], &meta["note"], &meta["station"], &meta["occurred_at"]),
            (&json!("courier"), &json!(note), &json!("grill"), &json!("2026-01-02T03:04:05.000Z"))
        );
        assert_eq!(meta.get("by"), None, "nobody may name himself");
        let said = |name: &str| body.get(name) == meta.get(name);
        assert!(said("reason") && said("minutes"), "{meta}");
        let found = api.found(&id).await;
        let mut shown = found["events"].as_array().and_then(|events| events.last()).expect("one").clone();
        shown["seq"] = last["seq"].clone();
        assert_eq!((&shown, &found["order"]), (last, &answer["order"]));
        let status = kind.parse::<Status>().map_or("PLACED", Status::as_str);
        assert_eq!(found["order"]["status"], status);
        assert_eq!(api.allowed(&id).await, answer["allowed"]);
        let feed = api.get("/events?after=0&limit=1000").await;
        assert!(!feed.text().contains(note), "a note is for those who work on the order");
    }
}

/// Promise 7: the story is true. What was skipped says so.
async fn what_is_skipped_has_its_events_too(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let body = json!({"event": "OUT_FOR_DELIVERY", "source": "courier", "note": "n", "station": "s"});
    let answer = api.says(&id, &body, 201).await;
    assert_eq!(added(&answer), [(3, "PREPARING"), (4, "COOKING"), (5, "OUT_FOR_DELIVERY")]);
    let metas = [0, 1, 2].map(|n| answer["events"][n]["meta"].clone());
    let inferred = json!({"source": "courier", "inferred": true});
    let said = json!({"source": "courier", "note": "n", "station": "s"});
    assert_eq!(metas, [inferred.clone(), inferred, said]);
    let series = "status_transitions_total{from=\"PLACED\",to=\"PREPARING\"}";
    assert!(api.metric(&format!("{series} 1")).await);
}

async fn what_is_known_is_ignored_and_leaves_no_trace(service: Service) {
    let api = service.open().await;
    for (before, kind, why) in [
        (&["COOKING"][..], "COOKING", "same"),
        (&["COOKING"], "PREPARING", "late"),
        (&["DELIVERED"], "DELIVERED", "same"),
        (&["DELIVERED"], "OUT_FOR_DELIVERY", "late"),
        (&["CANCELLED"], "CANCELLED", "same"),
        (&["COOKING", "CANCELLED"], "COOKING", "late"),
        (&["COOKING", "CANCELLED"], "PREPARING", "late"),
    ] {
        let id = api.place("Ada").await;
        api.applies(&id, before).await;
        let known = api.found(&id).await;
        api.clock.advance(Duration::from_secs(1));
        let mut body = of(kind);
        (body["id"], body["note"]) = ("a".into(), "again".into());
        let answer = api.says(&id, &body, 200).await;
        let allowed = api.allowed(&id).await;
        let expected = json!({"outcome": "ignored", "why": why, "events": [], "order": known["order"], "allowed": allowed});
        assert_eq!(answer, expected);
        assert_eq!(api.found(&id).await, known, "{before:?} {kind}");
        // Its id stands for nothing: it is judged anew.
        let again = api.report_of(&id, &[], &body).await;
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (200, ""));
    }
    assert!(api.metric("reports_total{event=\"COOKING\",outcome=\"ignored\"} 4").await);
}

async fn what_contradicts_is_refused_with_what_may_be_reported_instead(service: Service) {
    let api = service.open().await;
    let milestones = &ALL[5..11];
    for (before, refused) in [
        ("DELIVERED", [&["CANCELLED"], milestones].concat()),
        ("CANCELLED", [&["PREPARING", "COOKING", "OUT_FOR_DELIVERY", "DELIVERED"], milestones].concat()),
    ] {
        let id = api.place("Ada").await;
        api.applies(&id, &[before]).await;
        for kind in refused {
            let answer = api.report_of(&id, &[], &of(kind)).await;
            assert_eq!(
                conflict(&answer),
                ("order-finished".to_owned(), json!(["REVERTED"])),
                "{before} {kind}"
            );
        }
    }
    assert!(api.metric("reports_total{event=\"CANCELLED\",outcome=\"refused\"} 1").await);
}

async fn a_full_timeline_takes_only_what_moves_the_order(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let ready: Vec<Value> = (0..100).map(|_| json!({"order_id": id, "event": "READY"})).collect();
    for count in [100, 100, 54] {
        assert_eq!(api.send_json("/events", &[], &json!(ready[..count])).await.status, 200);
    }
    let open: Vec<&str> = ALL.into_iter().filter(|kind| !ALL[5..].contains(kind)).collect();
    for kind in &ALL[5..11] {
        let (code, allowed) = conflict(&api.report_of(&id, &[], &of(kind)).await);
        assert_eq!((code.as_str(), allowed), ("timeline-full", json!(open)), "{kind}");
    }
    api.applies(&id, &["COOKING", "REVERTED", "CANCELLED", "REVERTED"]).await;
    assert_eq!(api.found(&id).await["events"].as_array().map(Vec::len), Some(261));
}

/// Whatever has happened, `allowed` is what would be answered 201, and everywhere the same.
async fn what_is_allowed_is_exactly_what_would_be_applied(service: Service) {
    let api = service.open().await;
    for life in [
        &[][..],
        &["READY"],
        &["PREPARING"],
        &["COOKING", "DELAYED"],
        &["OUT_FOR_DELIVERY", "DELIVERY_FAILED"],
        &["DELIVERED"],
        &["CANCELLED"],
        &["COOKING", "CANCELLED", "REVERTED"],
        &["PREPARING", "REVERTED"],
        &["DELIVERED", "REVERTED"],
    ] {
        let answers = join_all(ALL.map(async |kind| {
            let id = api.place("Ada").await;
            api.applies(&id, life).await;
            (kind, api.allowed(&id).await, api.report_of(&id, &[], &of(kind)).await)
        }));
        let answers = answers.await;
        let taken = answers.iter().filter(|(_, _, answer)| answer.status == 201);
        let applied = json!(taken.map(|(kind, ..)| kind).collect::<Vec<_>>());
        for (kind, told, answer) in &answers {
            assert_eq!(*told, applied, "{life:?}");
            match answer.status.as_u16() {
                409 => assert_eq!(answer.json()["allowed"], applied, "{life:?} {kind}"),
                status => assert!(matches!(status, 200 | 201), "{kind}: {}", answer.text()),
            }
        }
    }
}

/// What is kept as it was sent is no markup where people read it, and commands nobody's terminal.
async fn hostile_texts_stay_texts_or_are_refused(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let texts =
        ["<script>alert(1)</script>", "\u{202e}dlrow", "'; DROP TABLE orders; --", "{{7*7}}", "\u{200b}"];
    for text in texts {
        let body = json!({"event": "READY", "note": text, "station": text});
        let meta = api.says(&id, &body, 201).await["events"][0]["meta"].clone();
        assert_eq!((&meta["note"], &meta["station"]), (&json!(text), &json!(text)));
    }
    let found = api.found(&id).await;
    let notes: Vec<&Value> =
        found["events"].as_array().expect("events")[2..].iter().map(|event| &event["meta"]["note"]).collect();
    assert_eq!(notes, texts.map(Value::from).iter().collect::<Vec<_>>());
    for path in [format!("/track/{id}"), format!("/?id={id}"), "/".to_owned()] {
        let page = api.get(&path).await;
        assert_eq!(page.status, 200);
        assert!(!page.text().contains("<script>alert"), "{path}");
    }
    for text in ["a\nb", "\u{1b}[31m", "\0", "\u{85}"] {
        let answer = api.report_of(&id, &[], &json!({"event": "READY", "note": text, "station": text})).await;
        assert_eq!(answer.problem(400).1, ["note", "station"], "{text:?}");
    }
    assert_eq!(order("Ada")["customer_name"], found["order"]["customer_name"]);
}
