//! Reports that can't be read, are too large, or come while the database is away.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use super::{
    Answer, Api,
    reports::of,
    service::{Service, on_both_databases},
};

on_both_databases!(without_the_database_a_report_may_come_again);

const UNKNOWN: &str = "ORD-01ARZ3NDEK0000000000000000";

impl Api {
    async fn raw(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::post(format!("/orders/{UNKNOWN}/events"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).expect("valid")).await
    }
}

/// Promise 6: it says what is wrong. All of it at once, and before anybody looks for the order.
#[tokio::test]
async fn every_wrong_field_of_a_report_is_named() {
    let api = Api::open().await;
    let wrong = json!({"event": "PLACED", "id": "", "occurred_at": "2026-01-02T03:05:05.679Z", "note": "a\nb",
        "station": "x".repeat(65), "source": "timer"});
    let all = ["event", "id", "occurred_at", "note", "station", "source"];
    for id in [UNKNOWN, "7", "%00"] {
        let (code, fields) = api.report_of(id, &[], &wrong).await.problem(400);
        assert_eq!((code.as_str(), fields), ("validation-error", all.map(str::to_owned).to_vec()), "{id}");
    }
    let (_, fields) = api.report_of(UNKNOWN, &[("if-match", "3")], &wrong).await.problem(400);
    assert_eq!(fields, [&["If-Match"], &all[..]].concat());
    for tags in ["3", "", "W/3", "\"3", "\"3\" \"4\"", "*, \"3\"", "caf\u{e9}"] {
        let (_, fields) = api.report_of(UNKNOWN, &[("if-match", tags)], &of("READY")).await.problem(400);
        assert_eq!(fields, ["If-Match"], "{tags}");
    }
    for (body, fields) in [
        (json!({}), &["event"][..]),
        (json!({"event": "CREATED"}), &["event"]),
        (json!({"event": "ERASED"}), &["event"]),
        (json!({"event": "ready"}), &["event"]),
        (json!({"event": "CANCELLED"}), &["reason"]),
        (json!({"event": "CANCELLED", "reason": "bored"}), &["reason"]),
        (json!({"event": "DELIVERY_FAILED", "reason": 7}), &["reason"]),
        (json!({"event": "DELAYED"}), &["minutes"]),
        (json!({"event": "DELAYED", "minutes": 241, "reason": ""}), &["reason", "minutes"]),
        (json!({"event": "REVERTED", "reverts": 0}), &["reverts"]),
        (json!({"event": "REVERTED", "reverts": 2_147_483_648_u32}), &["reverts"]),
        (json!({"event": "READY", "source": "api"}), &["source"]),
        (json!({"event": "READY", "occurred_at": "1969-12-31T23:59:59.999Z"}), &["occurred_at"]),
    ] {
        assert_eq!(api.report_of(UNKNOWN, &[], &body).await.problem(400).1, fields, "{body}");
    }
    // A minute ahead of our clock is not too far; and nobody was looked for until now.
    let ahead = json!({"event": "READY", "occurred_at": "2026-01-02T03:05:05.678Z"});
    assert_eq!(api.report_of(UNKNOWN, &[], &ahead).await.problem(404).0, "not-found");
    for id in ["7", "ORD-", "%00", "ORD-%ff"] {
        api.report_of(id, &[], &of("READY")).await.problem(404);
    }
    // Only what was judged is counted, and that is what the series says of itself.
    let answer = api.get("/metrics").await;
    let metrics = answer.text();
    let of_reports =
        |start: &str| -> Vec<&str> { metrics.lines().filter(|line| line.starts_with(start)).collect() };
    let counted: Vec<&str> =
        of_reports("reports_total{").into_iter().filter(|line| !line.ends_with(" 0")).collect();
    assert_eq!(counted, ["reports_total{event=\"READY\",outcome=\"refused\"} 1"]);
    let help = of_reports("# HELP reports_total ");
    assert!(help.len() == 1 && help[0].contains("judged") && help[0].ends_with("not counted"), "{help:?}");
}

/// Promise 5: memory, queues and time are bounded. And a body is what it says that it is.
#[tokio::test]
async fn a_report_is_json_of_a_moderate_size() {
    let api = Api::open().await;
    let json = ("content-type", "application/json");
    let ready = of("READY").to_string();
    for bad in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        assert_eq!(
            api.raw(&[("content-type", bad)], ready.clone()).await.problem(415).0,
            "unsupported-media-type"
        );
    }
    api.raw(&[], ready.clone()).await.problem(415);
    api.raw(&[json, ("content-encoding", "gzip")], ready.clone()).await.problem(415);
    let padded = |length: usize| format!("{ready}{}", " ".repeat(length - ready.len()));
    api.raw(&[json], padded(16 * 1024)).await.problem(404);
    assert_eq!(api.raw(&[json], padded(16 * 1024 + 1)).await.problem(413).0, "body-too-large");
    for bad in ["", "{", "[]", "null", "7", "\"READY\"", "{\"event\":\"READY\",\"event\":\"READY\"}", "{} {}"]
    {
        assert_eq!(api.raw(&[json], bad).await.problem(400).0, "malformed-request", "{bad}");
    }
    assert_eq!(api.raw(&[json], b"{\"event\":\"\xff\"}".to_vec()).await.problem(400).0, "malformed-request");
    assert_eq!(api.raw(&[json], format!("\u{feff}{ready}")).await.problem(404).0, "not-found");
}

/// Promise 6: it says what is wrong, and nothing about the inside.
async fn without_the_database_a_report_may_come_again(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    api.store.close().await;
    let item = json!([{"order_id": id, "event": "READY", "id": "a"}]);
    for answer in [api.report_of(&id, &[], &of("READY")).await, api.send_json("/events", &[], &item).await] {
        assert_eq!(answer.problem(503).0, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(!answer.text().to_lowercase().contains("pool"), "{}", answer.text());
    }
    // What needs no database is told all the same.
    api.report_of(&id, &[], &json!({})).await.problem(400);
    let items = json!([{"order_id": id}, {"order_id": "7", "event": "READY"}, 5]);
    let answer = api.send_json("/events", &[], &items).await;
    let statuses = [0, 1, 2].map(|n| answer.json()[n]["status"].clone());
    assert_eq!(statuses, [400, 404, 400].map(Value::from));
}
