//! What the API document shows is what the service answers, and keeps to what the document says of it.

use std::{fs, path::Path, time::Duration};

use axum::{body::Body, http::Request};
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use super::{
    Answer, Api,
    openapi::operations,
    order,
    reports::{ALL, of},
};
use crate::{
    http::{api::openapi, problem},
    telemetry::health::{Health, Part},
};

/// Written by `UPDATE_EXAMPLES=1 cargo test examples_are`.
const EXAMPLES: &str = "src/http/api/examples.json";

/// What is kept of an answer: the same at each run.
fn kept(answer: &Answer) -> Value {
    let names = ["etag", "idempotency-replayed", "link", "location", "retry-after", "x-request-id"];
    let headers: Map<String, Value> = names
        .into_iter()
        .filter(|name| answer.headers.contains_key(*name))
        .map(|name| (name.to_owned(), answer.header(name).into()))
        .collect();
    let body = match answer.header("content-type") {
        "" => Value::Null,
        kind if kind.contains("json") => answer.json(),
        _ => answer.text().into(),
    };
    json!({"headers": headers, "body": body})
}

async fn seen() -> Value {
    let api = Api::open().await;
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
        let mut request = Request::builder().method(method).uri(path).header("x-request-id", "example-1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        kept(&api.send(request.body(body).expect("valid")).await)
    };
    let json = ("content-type", "application/json");
    let key = ("idempotency-key", "basket-7");
    let place = async |body: Value| ask("POST", "/orders", &[json, key], body).await;
    let (ada, mut grace) = (order("Ada"), order("Grace"));
    grace["size"] = "small".into();

    let mut seen = json!({});
    let created = place(ada.clone()).await;
    seen["place_order"] = json!({
        "request": {"body": ada},
        "400": ask("POST", "/orders", &[json], json!({"customer_name": "Ada", "size": "huge"})).await,
        "413": ask("POST", "/orders", &[json], json!("x".repeat(17_000))).await,
        "415": ask("POST", "/orders", &[], ada.clone()).await,
        "422": place(grace.clone()).await,
    });
    let path = created["headers"]["location"].as_str().expect("a path").to_owned();
    seen["place_order"]["201"] = created;
    api.clock.advance(Duration::from_secs(3));
    api.store.advance(10).await.expect("advances");
    seen["find_order"] = json!({
        "200": ask("GET", &path, &[], Value::Null).await,
        "304": ask("GET", &path, &[("if-none-match", "W/\"3\"")], Value::Null).await,
        "404": ask("GET", "/orders/ORD-00000000000000000000000000", &[], Value::Null).await,
    });
    api.overview.read().await;
    seen["explain_order"] = json!({
        "200": ask("GET", &format!("{path}/explain"), &[], Value::Null).await,
        "404": ask("GET", "/orders/ORD-00000000000000000000000000/explain", &[], Value::Null).await,
    });
    assert_eq!(ask("POST", "/orders", &[json], grace).await["headers"]["x-request-id"], "example-1");
    seen["list_orders"] = json!({
        "200": ask("GET", "/orders?limit=1", &[], Value::Null).await,
        "400": ask("GET", "/orders?limit=0", &[], Value::Null).await,
    });
    seen["healthz"] = json!({"200": ask("GET", "/healthz", &[], Value::Null).await});
    api.report(Part::Broker, Health::Down("127.0.0.1:9092: connection refused".to_owned()));
    api.overview.read().await;
    let degraded = ask("GET", "/readyz", &[], Value::Null).await;
    api.report(Part::Broker, Health::Up);
    api.leaving.cancel();
    seen["readyz"] = json!({"200": degraded, "503": ask("GET", "/readyz", &[], Value::Null).await});
    for _ in 0..3 {
        api.clock.advance(Duration::from_mins(1));
        api.store.advance(10).await.expect("advances");
    }
    let stream = ask("GET", &format!("{path}/events?after=4"), &[], Value::Null).await;
    seen["follow_order"] = json!({
        "200": with_plain_retry(stream),
        "204": ask("GET", &format!("{path}/events"), &[("last-event-id", "6")], Value::Null).await,
        "400": ask("GET", &format!("{path}/events?after=x"), &[], Value::Null).await,
    });
    seen["read_feed"] = json!({
        "200": ask("GET", "/events?after=0&limit=2", &[], Value::Null).await,
        "400": ask("GET", "/events?after=99", &[], Value::Null).await,
    });
    let stream = Request::get("/events?after=9").header("accept", "text/event-stream");
    let stream = stream.header("x-request-id", "example-1").body(Body::empty()).expect("valid");
    let stream = api.router.clone().oneshot(stream).await.expect("never fails");
    // It has no end but that of the service.
    api.stop.cancel();
    seen["read_feed"]["200"]["text/event-stream"] = with_plain_retry(kept(&Answer::of(stream).await));
    let placed = ask("POST", "/orders", &[json], ada).await;
    let id = placed["body"]["order_id"].as_str().expect("an id").to_owned();
    api.clock.advance(Duration::from_secs(1));
    (seen["report_event"], seen["report_events"]) = reports(&id, ask).await;
    seen
}

/// What is answered to reports of a new order, alone and together.
async fn reports(id: &str, ask: impl AsyncFn(&str, &str, &[(&str, &str)], Value) -> Value) -> (Value, Value) {
    let (json, path) = (("content-type", "application/json"), format!("/orders/{id}/events"));
    let post = async |headers: &[(&str, &str)], body: Value| ask("POST", &path, headers, body).await;
    let cooking = json!({"event": "COOKING", "id": "grill-2:118", "source": "kitchen", "station": "grill",
        "note": "no onions", "occurred_at": "2026-01-02T03:04:05.123Z"});
    let mut other = cooking.clone();
    other["event"] = "READY".into();
    let large = "x".repeat(17_000);
    let mut single = json!({
        "request": {"body": cooking},
        "201": post(&[json], cooking.clone()).await,
        "200": post(&[json], json!({"event": "PREPARING"})).await,
        "400": post(&[json, ("if-match", "4")], json!({"event": "CANCELLED"})).await,
        "404": ask("POST", "/orders/ORD-00000000000000000000000000/events", &[json], cooking).await,
        "412": post(&[json, ("if-match", "W/\"2\"")], json!({"event": "READY"})).await,
        "413": post(&[json], json!(large)).await,
        "415": post(&[], json!({"event": "READY"})).await,
        "422": post(&[json], other).await,
    });
    let several = json!([
        {"order_id": id, "event": "DELIVERED", "id": "bike-7:1", "source": "courier"},
        {"order_id": id, "event": "READY", "id": "bike-7:2", "source": "courier"},
    ]);
    let post = async |headers: &[(&str, &str)], body: Value| ask("POST", "/events", headers, body).await;
    let several = json!({
        "request": {"body": several},
        "200": post(&[json], several).await,
        "400": post(&[json], json!([])).await,
        "413": post(&[json], json!("x".repeat(270_000))).await,
        "415": post(&[], json!([{"order_id": id, "event": "READY"}])).await,
    });
    single["409"] = ask("POST", &path, &[json], json!({"event": "READY"})).await;
    (single, several)
}

/// The pause before a new connection is spread at random.
fn with_plain_retry(mut stream: Value) -> Value {
    let text = stream["body"].as_str().expect("a stream");
    let lines = text
        .split_inclusive('\n')
        .map(|line| if line.starts_with("retry:") { "retry: 2000\n" } else { line });
    stream["body"] = lines.collect::<String>().into();
    stream
}

#[tokio::test]
async fn examples_are_what_the_service_answers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLES);
    let seen = seen().await;
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        let text = serde_json::to_string_pretty(&seen).expect("json");
        fs::write(&path, text + "\n").expect("written");
    }
    let told: Value = serde_json::from_str(&fs::read_to_string(&path).expect("text")).expect("json");
    assert_eq!(told, seen, "UPDATE_EXAMPLES=1 cargo test examples_are writes {EXAMPLES} anew");
}

/// Whatever schema the document gives an example, the example keeps to it, and nothing is in an
/// answer that the schema does not name.
#[test]
fn examples_keep_to_their_schemas() {
    let document = openapi::document(openapi::Surface::DEFAULT);
    let mut checked = 0;
    for (_, _, operation) in operations(document) {
        let responses = operation["responses"].as_object().expect("responses").values();
        for part in responses.chain(operation.get("requestBody")) {
            for content in part["content"].as_object().into_iter().flat_map(Map::values) {
                let Some(example) = content.get("example") else { continue };
                match content.get("schema") {
                    Some(schema) => assert_keeps_to(example, schema.clone()),
                    None => frames(example).for_each(|(name, data)| assert_keeps_to(&data, named(name))),
                }
                checked += 1;
            }
        }
    }
    assert!(checked >= 12, "only {checked} examples");
    assert!(problem::CONTENT_TYPE.ends_with("problem+json"));
}

/// The schema of this name.
fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Fails unless the value is of this schema of the document, down to its last field.
fn assert_keeps_to(value: &Value, mut schema: Value) {
    schema["components"] = openapi::document(openapi::Surface::DEFAULT)["components"].clone();
    close(&mut schema["components"]["schemas"]);
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new(), "{value}");
}

/// The events of a stream: the schema that the document says they have, and their data.
fn frames(stream: &Value) -> impl Iterator<Item = (&'static str, Value)> {
    let frames = stream.as_str().expect("a stream").split("\n\n");
    frames.filter_map(|frame| {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let name = match field("event")? {
            "status" => "TimelineEvent",
            "event" => "FeedEvent",
            _ => return None,
        };
        Some((name, serde_json::from_str(field("data")?).expect("json")))
    })
}

/// What is only told if somebody asks keeps to its schema too; and so does every kind of event.
#[tokio::test]
async fn what_is_reported_keeps_to_its_schema() {
    let api = Api::open().await;
    for end in ["DELIVERED", "CANCELLED"] {
        let id = api.place("Ada").await;
        let mut told = Vec::new();
        for kind in ALL.into_iter().filter(|kind| !["DELIVERED", "CANCELLED"].contains(kind)).chain([end]) {
            let mut body = of(kind);
            (body["note"], body["id"]) = ("n".into(), kind.into());
            assert_keeps_to(&body, named("NewReport"));
            told.push(api.says(&id, &body, 201).await);
            let again = api.report_of(&id, &[], &of(kind)).await;
            let schema = if again.status.is_success() { "ReportAnswer" } else { "Problem" };
            assert_keeps_to(&again.json(), named(schema));
        }
        for answer in told {
            assert_keeps_to(&answer, named("ReportAnswer"));
        }
        let found = api.get(&format!("/orders/{id}?include=allowed,eta")).await.json();
        assert_keeps_to(&found, named("TrackedOrder"));
        let stream = api.get(&format!("/orders/{id}/events")).await;
        frames(&stream.text().into()).for_each(|(name, data)| assert_keeps_to(&data, named(name)));
    }
}

/// Lets no schema take a field that it does not name, itself or by what it is made of.
fn close(schemas: &mut Value) {
    let all = schemas.clone();
    for schema in schemas.as_object_mut().expect("schemas").values_mut() {
        for part in schema.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
            // The part of a whole stays open, wherever it is closed by itself.
            if let Some(name) = part["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
                *part = all[name].clone();
            }
        }
        if schema["properties"].is_object() || schema["allOf"].is_array() {
            schema["unevaluatedProperties"] = json!(false);
        }
    }
}
