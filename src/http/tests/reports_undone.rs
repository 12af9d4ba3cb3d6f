//! Steps that are taken back, and reports that come twice or too late for their sender's picture of the order.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Api,
    reports::of,
    service::{Service, on_both_databases},
};
use crate::order::{Progression, Rules};

on_both_databases!(
    a_timer_s_step_is_taken_back_too,
    without_a_window_nothing_is_taken_back;
    in both modes:
    the_latest_step_is_taken_back_whoever_made_it,
    what_can_t_be_taken_back_says_why,
    the_same_id_is_the_same_report,
    a_report_may_depend_on_where_the_order_is,
);

fn statuses(found: &Value) -> (String, Vec<String>) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let events = found["events"].as_array().expect("events").iter().map(|event| text(&event["event"]));
    (text(&found["order"]["status"]), events.collect())
}

async fn the_latest_step_is_taken_back_whoever_made_it(service: Service) {
    let api = service.open().await;
    for (before, reverts, from, to) in [
        (&["PREPARING"][..], 3, "PREPARING", "PLACED"),
        (&["COOKING"], 4, "COOKING", "PLACED"),
        (&["PREPARING", "OUT_FOR_DELIVERY", "READY"], 5, "OUT_FOR_DELIVERY", "PREPARING"),
        (&["DELIVERED"], 6, "DELIVERED", "PLACED"),
        (&["COOKING", "CANCELLED"], 5, "CANCELLED", "COOKING"),
        (&["PREPARING", "COOKING", "REVERTED"], 3, "PREPARING", "PLACED"),
    ] {
        let id = api.place("Ada").await;
        api.applies(&id, before).await;
        let mut body = of("REVERTED");
        (body["reverts"], body["note"]) = (reverts.into(), "a slip".into());
        let answer = api.says(&id, &body, 201).await;
        let expected = json!({"source": "api", "note": "a slip", "reverts": reverts, "from": from, "to": to});
        assert_eq!(answer["events"][0]["meta"], expected, "{before:?}");
        assert_eq!(answer["order"]["status"], to);
        // Its timer starts anew, where there is one.
        api.clock.advance(Duration::from_mins(1));
        api.store.advance(100).await.expect("advances");
        let (status, _) = statuses(&api.get(&format!("/orders/{id}")).await.json());
        assert_eq!(status != to, service.mode == Progression::Timer, "{before:?}");
    }
}

async fn a_timer_s_step_is_taken_back_too(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    api.clock.advance(Duration::from_secs(3));
    api.store.advance(100).await.expect("advances");
    assert_eq!(api.says(&id, &of("REVERTED"), 201).await["events"][0]["meta"]["reverts"], 3);
}

async fn what_can_t_be_taken_back_says_why(service: Service) {
    let api = service.open().await;
    let revert = |reverts: u32| json!({"event": "REVERTED", "reverts": reverts});
    let id = api.place("Ada").await;
    let refused = async |body: &Value| {
        let answer = api.report_of(&id, &[], body).await;
        (
            answer.problem(409).0,
            answer.json()["allowed"].as_array().expect("allowed").contains(&json!("REVERTED")),
        )
    };
    assert_eq!(refused(&of("REVERTED")).await, ("nothing-to-revert".to_owned(), false));
    assert_eq!(refused(&revert(2)).await, ("nothing-to-revert".to_owned(), false), "PLACED is no step");
    api.applies(&id, &["PREPARING", "COOKING"]).await;
    assert_eq!(refused(&revert(3)).await, ("changed-meanwhile".to_owned(), true), "not the latest");
    assert_eq!(refused(&revert(99)).await, ("changed-meanwhile".to_owned(), true));
    api.says(&id, &revert(4), 201).await;
    let again = api.says(&id, &revert(4), 200).await;
    assert_eq!((&again["outcome"], &again["why"]), (&json!("ignored"), &json!("same")), "taken back already");
    // The window counts from the step.
    api.clock.advance(Duration::from_millis(299_999));
    api.applies(&id, &["READY"]).await;
    assert!(api.allowed_of(&id).await.contains(&json!("REVERTED")));
    api.clock.advance(Duration::from_millis(1));
    assert_eq!(refused(&revert(3)).await, ("too-late-to-revert".to_owned(), false));
    assert!(!api.allowed_of(&id).await.contains(&json!("REVERTED")));
}

async fn the_same_id_is_the_same_report(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let body =
        json!({"event": "COOKING", "id": "till 7", "note": "n", "occurred_at": "2026-01-02T03:04:05Z"});
    let first = api.says(&id, &body, 201).await;
    api.clock.advance(Duration::from_secs(1));
    api.applies(&id, &["DELIVERED"]).await;
    let now = api.get(&format!("/orders/{id}?include=allowed")).await.json();

    // The same values, not the same bytes; and before anything else is judged.
    let spelled = json!({"id": "till 7", "occurred_at": "2026-01-02T04:04:05.000+01:00", "minutes": 5, "note": "n",
        "event": "COOKING", "colour": "red"});
    for (headers, body) in [(&[][..], &body), (&[("if-match", "\"2\"")], &spelled)] {
        let again = api.report_of(&id, headers, body).await;
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"));
        let expected = json!({"outcome": "applied", "events": first["events"], "order": now["order"], "allowed": now["allowed"]});
        assert_eq!(again.json(), expected);
    }
    assert_eq!(
        api.get(&format!("/orders/{id}")).await.json()["events"],
        now["events"],
        "nothing was written"
    );

    for (field, value) in [("event", "READY"), ("note", "m"), ("station", "s"), ("source", "kitchen")] {
        let mut other = body.clone();
        other[field] = value.into();
        let answer = api.report_of(&id, &[("if-match", "\"2\"")], &other).await;
        assert_eq!(answer.problem(422).0, "report-id-reused", "{field}");
    }
    // Of another order it is another report.
    let other = api.place("Grace").await;
    let answer = api.report_of(&other, &[], &body).await;
    assert_eq!((answer.status.as_u16(), answer.header("idempotency-replayed")), (201, ""));
    // What was refused stands for nothing.
    let late = json!({"event": "READY", "id": "till 8"});
    assert_eq!(api.report_of(&id, &[], &late).await.problem(409).0, "order-finished");
    api.applies(&id, &["REVERTED"]).await;
    let judged = api.report_of(&id, &[], &late).await;
    assert_eq!((judged.status.as_u16(), judged.header("idempotency-replayed")), (201, ""));
}

async fn a_report_may_depend_on_where_the_order_is(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    for (tags, status) in [
        ("\"1\"", 412),
        ("W/\"3\"", 412),
        ("\"02\"", 412),
        ("\"x\", \"1\"", 412),
        ("\"2\"", 201),
        ("W/\"3\"", 201),
        ("\"9\", W/\"4\" , \"x\"", 201),
        ("*", 201),
        (" * ", 201),
    ] {
        let answer = api.report_of(&id, &[("if-match", tags)], &of("READY")).await;
        assert_eq!(answer.status, status, "{tags}: {}", answer.text());
        if status == 412 {
            assert_eq!(answer.problem(412).0, "changed-meanwhile");
            assert!(answer.json().get("allowed").is_none());
        }
    }
    // The tag of the order is one of them.
    let tag = api.get(&format!("/orders/{id}")).await.header("etag").to_owned();
    assert_eq!(api.report_of(&id, &[("if-match", &tag)], &of("READY")).await.status, 201);
    // It is judged before what the report says.
    api.applies(&id, &["DELIVERED"]).await;
    for kind in ["READY", "DELIVERED"] {
        api.report_of(&id, &[("if-match", &tag)], &of(kind)).await.problem(412);
    }
    // And after the order is found.
    let unknown = "ORD-01ARZ3NDEK0000000000000000";
    api.report_of(unknown, &[("if-match", "\"1\"")], &of("READY")).await.problem(404);
}

async fn without_a_window_nothing_is_taken_back(service: Service) {
    let api = service.rules(Rules { undo_window: Duration::ZERO, ..Rules::default() }).open().await;
    let id = api.place("Ada").await;
    for kind in ["PREPARING", "CANCELLED"] {
        let answer = api.says(&id, &of(kind), 201).await;
        let refused = api.report_of(&id, &[], &of("REVERTED")).await;
        assert_eq!(refused.problem(409).0, "too-late-to-revert", "{kind}");
        assert_eq!(refused.json()["allowed"], answer["allowed"]);
        assert!(!api.allowed_of(&id).await.contains(&json!("REVERTED")));
    }
}

impl Api {
    async fn allowed_of(&self, order_id: &str) -> Vec<Value> {
        let found = self.get(&format!("/orders/{order_id}?include=allowed")).await.json();
        found["allowed"].as_array().expect("a list").clone()
    }
}
