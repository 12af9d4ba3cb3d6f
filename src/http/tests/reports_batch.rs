//! Several reports at once: each has a fate of its own.

use std::pin::pin;

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use futures::{FutureExt as _, StreamExt as _, future::join_all, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{
    Answer, Api,
    reports::of,
    service::{Service, on_both_databases},
};
use crate::order::promises::{BATCHES_AT_ONCE, BATCHES_READ_AT_ONCE, MAX_BATCH, MAX_BATCH_BYTES};

on_both_databases!(
    a_batch_is_an_array_of_1_to_100,
    only_so_many_batches_are_under_way_at_once;
    in both modes:
    each_report_has_the_fate_that_it_would_have_alone,
    many_who_say_the_same_make_one_row_each,
);

const UNKNOWN: &str = "ORD-01ARZ3NDEK0000000000000000";
const JSON: (&str, &str) = ("content-type", "application/json");

impl Api {
    /// The fates of a batch that was taken as a whole.
    async fn fates(&self, items: &Value) -> Vec<Value> {
        let answer = self.send_json("/events", &[], items).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json");
        answer.json().as_array().expect("fates").clone()
    }

    async fn batch(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::post("/events");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).expect("valid")).await
    }
}

/// A report of an order, under an id.
fn item(order_id: &str, id: &str, mut report: Value) -> Value {
    (report["order_id"], report["id"]) = (order_id.into(), id.into());
    report
}

/// Whatever a report alone is answered, in a batch it is told the same, and in the order given.
async fn each_report_has_the_fate_that_it_would_have_alone(service: Service) {
    let api = service.open().await;
    let [open, done] = [api.place("Ada").await, api.place("Grace").await];
    api.applies(&done, &["DELIVERED"]).await;
    let items = json!([
        item(&open, "a", json!({"event": "COOKING", "note": "n"})),
        item(&open, "a", json!({"event": "COOKING", "note": "n"})),
        item(&open, "a", json!({"event": "COOKING", "note": "m"})),
        item(&open, "b", of("PREPARING")),
        {"order_id": open, "event": "COOKING"},
        item(&done, "c", of("READY")),
        item(UNKNOWN, "d", of("READY")),
        item("7", "e", of("READY")),
        item(&open, "f", json!({"event": "PLACED", "station": "a\nb"})),
        {"id": "g", "event": "READY"},
        {"order_id": 7, "id": "", "event": "READY"},
        ["READY"],
        null,
        item(&open, "h", json!({"event": "REVERTED", "reverts": 3})),
        item(&open, "i", of("DELIVERED")),
    ]);
    let fates = api.fates(&items).await;
    let taken = |order_id: &str, id: Value, status: u16, more: Value| {
        let mut taken = json!({"order_id": order_id, "id": id, "status": status});
        let fields = more.as_object().expect("an object").clone();
        taken.as_object_mut().expect("an object").extend(fields);
        taken
    };
    let (applied, late) = (json!({"outcome": "applied"}), json!({"outcome": "ignored", "why": "late"}));
    assert_eq!(fates[0], taken(&open, "a".into(), 201, applied.clone()));
    assert_eq!(fates[1], taken(&open, "a".into(), 201, json!({"outcome": "applied", "replayed": true})));
    assert_eq!(fates[3], taken(&open, "b".into(), 200, late));
    let same = json!({"outcome": "ignored", "why": "same"});
    assert_eq!(fates[4], taken(&open, Value::Null, 200, same));
    assert_eq!(fates[14], taken(&open, "i".into(), 201, applied));
    let validation = "validation-error";
    for (at, order_id, id, status, code, fields) in [
        (2, json!(open), json!("a"), 422, "report-id-reused", &[][..]),
        (5, json!(done), json!("c"), 409, "order-finished", &[]),
        (6, json!(UNKNOWN), json!("d"), 404, "not-found", &[]),
        (7, json!("7"), json!("e"), 404, "not-found", &[]),
        (8, json!(open), json!("f"), 400, validation, &["event", "station"]),
        (9, Value::Null, json!("g"), 400, validation, &["order_id"]),
        (10, Value::Null, json!(""), 400, validation, &["order_id", "id"]),
        (11, Value::Null, Value::Null, 400, "malformed-request", &[]),
        (12, Value::Null, Value::Null, 400, "malformed-request", &[]),
        (13, json!(open), json!("h"), 409, "changed-meanwhile", &[]),
    ] {
        let fate = &fates[at];
        let (problem, expected) = (&fate["problem"], json!([order_id, id, status]));
        assert_eq!(json!([fate["order_id"], fate["id"], fate["status"]]), expected, "{at}");
        assert_eq!(json!([problem["status"], problem["code"]]), json!([status, code]), "{at}");
        assert_eq!(problem["type"], format!("/problems/{code}"));
        assert_eq!(problem["instance"], "/events");
        assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()));
        let errors = problem["errors"].as_array().into_iter().flatten();
        assert_eq!(errors.map(|error| &error["field"]).collect::<Vec<_>>(), *fields, "{at}");
        assert_eq!(problem.get("allowed").is_some(), status == 409, "every 409 tells what is allowed");
        assert!(fate.get("outcome").is_none() && fate.as_object().is_some_and(|fate| fate.len() == 4));
    }
    assert_eq!(fates[5]["problem"]["allowed"], json!(["REVERTED"]));
    let found = api.get(&format!("/orders/{open}")).await.json();
    let kinds: Vec<&Value> =
        found["events"].as_array().expect("events")[2..].iter().map(|e| &e["event"]).collect();
    assert_eq!(kinds, ["PREPARING", "COOKING", "OUT_FOR_DELIVERY", "DELIVERED"]);
    assert!(api.metric("reports_total{event=\"COOKING\",outcome=\"applied\"} 1").await);

    // Sent again as a whole, nothing is written, and what was applied says so.
    let again = api.fates(&items).await;
    assert_eq!(again[0], fates[1]);
    assert_eq!(again[14]["replayed"], true);
    assert_eq!(api.get(&format!("/orders/{open}")).await.json(), found);
}

async fn a_batch_is_an_array_of_1_to_100(service: Service) {
    assert_eq!((MAX_BATCH, MAX_BATCH_BYTES, BATCHES_AT_ONCE), (100, 256 * 1024, 16));
    let api = service.open().await;
    let id = api.place("Ada").await;
    let many =
        |count: usize| json!((0..count).map(|n| item(&id, &n.to_string(), of("READY"))).collect::<Vec<_>>());
    assert_eq!(api.fates(&many(MAX_BATCH)).await.len(), 100);
    for count in [0, MAX_BATCH + 1] {
        let answer = api.send_json("/events", &[], &many(count)).await;
        let detail = answer.json()["detail"].as_str().expect("text").to_owned();
        assert_eq!(answer.problem(400).0, "malformed-request");
        assert!(detail.contains("1 to 100") && detail.ends_with(&count.to_string()), "{detail}");
    }
    for bad in ["", "{}", "null", "7", "[{]", "[{}", "[] []", "{\"events\": []}"] {
        assert_eq!(api.batch(&[JSON], bad).await.problem(400).0, "malformed-request", "{bad}");
    }
    for tags in ["\"2\"", "*", "3"] {
        let answer = api.send_json("/events", &[("if-match", tags)], &many(1)).await;
        assert_eq!(answer.problem(400).1, ["If-Match"]);
    }
    let one = many(1).to_string();
    api.batch(&[("content-type", "text/plain")], one.clone()).await.problem(415);
    api.batch(&[], one.clone()).await.problem(415);
    let padded = |length: usize| format!("{one}{}", " ".repeat(length - one.len()));
    assert_eq!(api.batch(&[JSON], padded(MAX_BATCH_BYTES)).await.status, 200);
    let too_large = api.batch(&[JSON], padded(MAX_BATCH_BYTES + 1)).await;
    assert_eq!(too_large.problem(413).0, "body-too-large");
    assert!(too_large.text().contains("262144"), "{}", too_large.text());
    // Long ids of orders are not there, and told as they were sent.
    let long = "x".repeat(1_000);
    assert_eq!(api.fates(&json!([item(&long, "a", of("READY"))])).await[0]["order_id"], long);
}

/// Promise 5: memory, queues and time are bounded.
async fn only_so_many_batches_are_under_way_at_once(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let items = json!([item(&id, "a", of("READY"))]);
    let send = || {
        let begun = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"[")))]);
        let body = Body::new(StreamBody::new(begun.chain(stream::pending())));
        let request = Request::post("/events").header(JSON.0, JSON.1).body(body).expect("valid");
        Box::pin(api.router.clone().oneshot(request))
    };
    let mut under_way = Vec::new();
    for count in 0..BATCHES_READ_AT_ONCE {
        if count == BATCHES_AT_ONCE {
            // Who sends slowly takes no place from those who have sent.
            assert_eq!(api.fates(&items).await[0]["status"], 201);
        }
        let mut batch = send();
        assert!((&mut batch).now_or_never().is_none(), "its body has no end");
        under_way.push(batch);
    }
    let busy = api.send_json("/events", &[], &items).await;
    assert_eq!((busy.problem(503).0, busy.header("retry-after")), ("unavailable".to_owned(), "1"));
    // Whoever reports alone is not held up.
    assert_eq!(api.report_of(&id, &[], &of("READY")).await.status, 201);
    // A place is free again however its batch ended.
    drop(under_way.pop());
    assert_eq!(api.fates(&items).await[0]["replayed"], true);
    api.batch(&[JSON], "x").await.problem(400);
    assert_eq!(api.fates(&items).await[0]["replayed"], true);
}

/// Promise 3: an effect happens once. Whoever says the same at the same moment, alone or with others.
async fn many_who_say_the_same_make_one_row_each(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let both = json!([item(&id, "x", of("COOKING")), item(&id, "y", of("READY"))]);
    let alone = item(&id, "x", of("COOKING"));
    let batches = join_all((0..8).map(|_| api.send_json("/events", &[], &both)));
    let single = join_all((0..8).map(|_| api.report_of(&id, &[], &alone)));
    let (batches, single) = pin!(futures::future::join(batches, single)).await;
    assert!(single.iter().all(|answer| answer.status == 201));
    assert!(
        batches.iter().all(|answer| answer
            .json()
            .as_array()
            .expect("fates")
            .iter()
            .all(|f| f["status"] == 201))
    );
    let new = |answer: &&Answer| answer.header("idempotency-replayed").is_empty();
    let first = single.iter().filter(new).count();
    let fates = batches.iter().flat_map(|answer| answer.json().as_array().expect("fates").clone());
    let fates: Vec<Value> = fates.filter(|fate| fate.get("replayed").is_none()).collect();
    assert_eq!(first + fates.iter().filter(|fate| fate["id"] == "x").count(), 1);
    assert_eq!(fates.iter().filter(|fate| fate["id"] == "y").count(), 1);
    let found = api.get(&format!("/orders/{id}")).await.json();
    assert_eq!(found["events"].as_array().map(Vec::len), Some(2 + 2 + 1));
}
