//! What a report may say: every reason and source, the longest texts, and nothing that its event has no use for.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Api,
    reports::{ALL, of},
    service::{Service, on_both_databases},
};
use crate::order::{Reason, Source};

on_both_databases!(
    every_reason_and_every_source_is_kept,
    the_most_that_may_be_said_is_kept,
    what_an_event_has_no_use_for_is_not_kept;
    in both modes:
    every_open_order_may_be_cancelled,
    milestones_leave_the_status_alone,
);

impl Api {
    /// The event that a report of an order added last.
    async fn adds(&self, order_id: &str, body: &Value) -> Value {
        let answer = self.says(order_id, body, 201).await;
        answer["events"].as_array().and_then(|events| events.last()).expect("an event").clone()
    }
}

async fn every_reason_and_every_source_is_kept(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    for kind in ["CANCELLED", "DELIVERY_FAILED", "DELAYED"] {
        for reason in Reason::ALL {
            let mut body = of(kind);
            body["reason"] = reason.as_str().into();
            assert_eq!(api.adds(&id, &body).await["meta"]["reason"], reason.as_str(), "{kind}");
            if kind == "CANCELLED" {
                api.applies(&id, &["REVERTED"]).await;
            }
        }
        let without = api.report_of(&id, &[], &json!({"event": kind, "minutes": 1})).await;
        assert_eq!(without.status == 400, kind == "CANCELLED", "{kind}: {}", without.text());
    }
    for source in ["kitchen", "courier", "pos", "staff", "customer"] {
        let event = api.adds(&id, &json!({"event": "READY", "source": source})).await;
        assert_eq!(event["meta"], json!({"source": source, "status": "PLACED"}));
    }
    assert_eq!(api.adds(&id, &of("READY")).await["meta"]["source"], Source::Api.as_str());
}

/// What is counted in characters holds as many whatever their bytes.
async fn the_most_that_may_be_said_is_kept(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let (note, station) = ("\u{1f355}".repeat(256), "\u{1f355}".repeat(64));
    for (minutes, report_id) in [(1, "!".to_owned()), (240, "~".repeat(64))] {
        let body = json!({"event": "DELAYED", "minutes": minutes, "id": report_id, "note": note,
            "station": station, "occurred_at": "1970-01-01T00:00:00Z"});
        let event = api.adds(&id, &body).await;
        let expected = json!({"source": "api", "minutes": minutes, "note": note, "station": station,
            "occurred_at": "1970-01-01T00:00:00.000Z", "status": "PLACED"});
        assert_eq!(event["meta"], expected);
        let again = api.report_of(&id, &[], &body).await;
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"));
        let found = api.found(&id).await;
        assert_eq!(found["events"].as_array().and_then(|e| e.last()).expect("one")["meta"], expected);
    }
    for (field, value) in [
        ("note", json!(format!("{note}x"))),
        ("station", json!(format!("{station}x"))),
        ("id", json!("~".repeat(65))),
        ("id", json!("\u{1f355}")),
        ("minutes", json!(0)),
        ("minutes", json!(241)),
    ] {
        let mut body = of("DELAYED");
        body[field] = value;
        assert_eq!(api.report_of(&id, &[], &body).await.problem(400).1, [field]);
    }
}

async fn what_an_event_has_no_use_for_is_not_kept(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    for kind in ALL {
        let mut body = json!({"event": kind, "reason": "other", "minutes": 5, "colour": "red", "by": "me",
            "inferred": true, "from": "DELIVERED", "to": "PLACED", "status": "DELIVERED"});
        if kind != "REVERTED" {
            body["reverts"] = 3.into();
        }
        if matches!(kind, "CANCELLED" | "READY") {
            // What is left of the list would come too late.
            api.applies(&id, &["REVERTED"]).await;
        }
        let event = api.adds(&id, &body).await;
        let meta = event["meta"].as_object().expect("a meta");
        assert!(meta.get("colour").is_none() && meta.get("by").is_none() && meta.get("inferred").is_none());
        assert_eq!(meta.contains_key("reason"), matches!(kind, "CANCELLED" | "DELIVERY_FAILED" | "DELAYED"));
        assert_eq!(meta.contains_key("minutes"), kind == "DELAYED", "{kind}");
        for field in ["reverts", "from", "to"] {
            assert_eq!(meta.contains_key(field), kind == "REVERTED", "{field} of {kind}");
        }
    }
}

async fn every_open_order_may_be_cancelled(service: Service) {
    let api = service.open().await;
    for (before, from) in
        [(None, "PLACED"), (Some("PREPARING"), ""), (Some("COOKING"), ""), (Some("OUT_FOR_DELIVERY"), "")]
    {
        let (id, from) = (api.place("Ada").await, before.unwrap_or(from));
        api.applies(&id, before.as_slice()).await;
        let answer = api.says(&id, &of("CANCELLED"), 201).await;
        assert_eq!(
            (&answer["order"]["status"], &answer["allowed"]),
            (&json!("CANCELLED"), &json!(["REVERTED"]))
        );
        let series = |from, to| format!("status_transitions_total{{from=\"{from}\",to=\"{to}\"}} 1");
        assert!(api.metric(&series(from, "CANCELLED")).await, "{from}");
        let back = api.says(&id, &of("REVERTED"), 201).await;
        assert_eq!(back["order"]["status"], from);
        assert!(api.metric(&series("CANCELLED", from)).await, "{from}");
    }
}

async fn milestones_leave_the_status_alone(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    for (status, step) in [("PLACED", None), ("PREPARING", Some("PREPARING")), ("COOKING", Some("COOKING"))] {
        api.applies(&id, step.as_slice()).await;
        let before = api.found(&id).await["order"].clone();
        assert_eq!(before["status"], status);
        api.clock.advance(Duration::from_millis(1));
        for kind in &ALL[5..11] {
            let answer = api.says(&id, &of(kind), 201).await;
            assert_eq!(answer["order"], before, "{kind}: when it was updated moves with the status only");
            assert_eq!(answer["events"][0]["meta"]["status"], status, "{kind}");
        }
    }
}
