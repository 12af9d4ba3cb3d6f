//! What the service tells where it asks for keys: streams that end, readiness, log and document.

use std::time::Duration;

use axum::{body::Body, http::Request};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{
    Answer, Api,
    keys::{FOR, FOR_EVERYBODY},
    openapi::operations,
    order,
    service::{Database, Keys, Service},
};
use crate::{
    http::api::openapi::{Surface, document},
    order::Role::{self, Admin, Courier, Kitchen, Reader, Shop, Staff},
    telemetry::{
        captured::Captured,
        health::{Health, Part},
    },
};

fn request(path: &str, bearer: &str) -> Request<Body> {
    Request::get(path).header("authorization", bearer).body(Body::empty()).expect("valid")
}

async fn placed(api: &Api, keys: &Keys) -> String {
    let bearer = keys.bearer(Shop);
    let placed = api.send_json("/orders", &[("authorization", &bearer)], &order("Ada Lovelace")).await;
    placed.json()["order_id"].as_str().expect("an id").to_owned()
}

/// Promise 9: who may not, can't: what was begun with a key ends with it, and others go on.
#[tokio::test]
async fn a_stream_ends_with_its_key() {
    let keys = Keys::of_all_roles();
    let api = Service::on(Database::Sqlite).asking_for(&keys).open().await;
    let order_id = placed(&api, &keys).await;
    let path = format!("/orders/{order_id}/events");
    let open = async |path: &str, role: Role| {
        let mut request = request(path, &keys.bearer(role));
        request.headers_mut().insert("accept", "text/event-stream".parse().expect("a value"));
        let response = api.router.clone().oneshot(request).await.expect("never fails");
        assert_eq!(response.status(), 200, "{path} as {role}");
        response.into_body().into_data_stream()
    };
    for (path, revoked, stays) in [(path.as_str(), Courier, Kitchen), ("/events", Reader, Staff)] {
        let (mut ends, mut other) = (open(path, revoked).await, open(path, stays).await);
        for stream in [&mut ends, &mut other] {
            stream.next().await.expect("goes on").expect("a first frame");
        }
        keys.revoke(revoked);
        // What was read already is not sent any more either.
        assert!(ends.next().await.is_none(), "{path}");
        other.next().await.expect("goes on").expect("a frame");
        keys.restore();
    }
}

/// The same where nothing is there to be told.
#[tokio::test]
async fn an_answer_that_is_held_back_ends_with_its_key() {
    let keys = Keys::of_all_roles();
    let api = Service::on(Database::Sqlite).asking_for(&keys).open().await;
    let held_back = api.send(request("/events?after=now&wait=20s", &keys.bearer(Reader)));
    let revoked = async {
        // It waits once its place is taken.
        while !api.get_as(&keys, "/metrics").await.text().lines().any(|line| line == "http_event_streams 1") {
            tokio::task::yield_now().await;
        }
        keys.revoke(Reader);
    };
    let begun = std::time::Instant::now();
    let (answer, ()) = tokio::join!(held_back, revoked);
    assert_eq!(answer.problem(401).0, "key-not-valid");
    assert!(begun.elapsed() < Duration::from_secs(15), "it waited for nothing");
}

impl Api {
    /// As the staff.
    async fn get_as(&self, keys: &Keys, path: &str) -> Answer {
        self.send(request(path, &keys.bearer(Staff))).await
    }
}

/// Promise 6: it says what is wrong, to whom it is for.
#[tokio::test]
async fn readiness_says_why_to_those_who_run_it() {
    let keys = Keys::of_all_roles();
    let api = Service::on(Database::Sqlite).asking_for(&keys).open().await;
    api.report(Part::Broker, Health::Down("connection refused".to_owned()));
    let ready = async |authorization: Option<String>| {
        let mut request = Request::get("/readyz");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        api.send(request.body(Body::empty()).expect("valid")).await
    };
    let nobody = [None, Some("Bearer nonsense".to_owned()), Some("Basic x".to_owned())];
    let others = [Shop, Kitchen, Courier, Reader].map(|role| Some(keys.bearer(role)));
    for authorization in nobody.into_iter().chain(others) {
        let answer = ready(authorization.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, r#"{"status":"ok"}"#), "{authorization:?}");
    }
    for role in [Staff, Admin] {
        let told = ready(Some(keys.bearer(role))).await.json();
        let broker = json!({"part": "broker", "reason": "connection refused"});
        assert!(told["degraded"].as_array().is_some_and(|parts| parts.contains(&broker)), "{role}: {told}");
    }
    api.leaving.cancel();
    let leaving = ready(None).await;
    assert_eq!((leaving.status.as_u16(), leaving.text()), (503, r#"{"status":"unavailable"}"#));
    assert!(ready(Some(keys.bearer(Staff))).await.json()["reason"].is_string());
}

/// Promise 6: it says what is wrong; never a secret. The name of a key is none, the key is.
#[tokio::test]
async fn a_line_of_the_log_names_the_key_and_shows_none() {
    let keys = Keys::of_all_roles();
    let api = Service::on(Database::Sqlite).asking_for(&keys).open().await;
    let (captured, _guard) = Captured::start_filtered("trace,hyper=off,sqlx=off");
    let order_id = placed(&api, &keys).await;
    for (path, authorization) in [
        (format!("/orders/{order_id}"), keys.bearer(Reader)),
        ("/orders".to_owned(), keys.bearer(Courier)),
        ("/orders?limit=0".to_owned(), keys.bearer(Kitchen)),
        ("/orders".to_owned(), "Bearer otk_secret".to_owned()),
        ("/healthz".to_owned(), keys.bearer(Staff)),
        ("/readyz".to_owned(), keys.bearer(Staff)),
    ] {
        api.send(request(&path, &authorization)).await;
    }
    let told: Vec<(Value, Value)> = captured
        .saying("answered")
        .into_iter()
        .map(|line| (line["status"].clone(), line.get("key").cloned().unwrap_or_default()))
        .collect();
    let expected = [
        (201, json!("the shop")),
        (200, json!("the reader")),
        (403, json!("the courier")),
        (400, json!("the kitchen")),
        (401, Value::Null),
        (200, Value::Null),
        (200, json!("the staff")),
    ];
    assert_eq!(told, expected.map(|(status, key)| (json!(status), key)));
    let text = captured.text();
    for hidden in ["otk_", "Bearer", "authorization", "Lovelace", "High St"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
}

/// Tools check that what is declared is asked for, so it is told only where it is.
#[tokio::test]
async fn the_document_tells_whose_key_each_operation_needs() {
    let guarded = document(Surface { keys: true, ..Surface::DEFAULT });
    for (method, path, operation) in operations(guarded) {
        let line = FOR.iter().find(|(of, at, _)| (*of, *at) == (method.as_str(), path.as_str()));
        let Some((_, _, roles)) = line else {
            assert!(FOR_EVERYBODY.contains(&(&method, &path)), "{method} {path}");
            let optional = json!([{}, {"key": ["staff", "admin"]}]);
            let expected = if path == "/readyz" { optional } else { json!([]) };
            assert_eq!(operation["security"], expected, "{method} {path}");
            continue;
        };
        let names: Vec<&str> = roles.iter().copied().map(Role::as_str).collect();
        assert_eq!(operation["security"], json!([{"key": names}]), "{method} {path}");
        let told = operation["description"].as_str().expect("text");
        assert!(told.contains("For keys of ") && names.iter().all(|name| told.contains(name)), "{told}");
        for status in ["401", "403"] {
            let schema = &operation["responses"][status]["content"]["application/problem+json"]["schema"];
            assert_eq!(schema["$ref"], "#/components/schemas/Problem", "{method} {path} {status}");
        }
    }
    let scheme = &guarded["components"]["securitySchemes"]["key"];
    assert_eq!((&scheme["type"], &scheme["scheme"]), (&json!("http"), &json!("bearer")));
    let field = |schema: &str, field: &str| &guarded["components"]["schemas"][schema]["properties"][field];
    for people in ["customer_name", "address"] {
        assert_eq!(field("OrderDetails", people)["type"], json!(["string", "null"]));
    }
    let source = field("NewReport", "source")["description"].as_str().expect("text");
    assert!(source.contains("Ignored"), "{source}");

    let keys = Keys::of_all_roles();
    let api = Service::on(Database::Sqlite).asking_for(&keys).open().await;
    assert_eq!(api.get("/openapi.json").await.json(), *guarded);
    let open = document(Surface::DEFAULT).to_string();
    for word in ["securitySchemes", "\"security\"", "For keys of", "\"401\"", "\"403\""] {
        assert!(!open.contains(word), "{word}");
    }
    assert!(api.get("/docs").await.text().contains("For keys of"));
}

/// What is answered keeps to the document, null names too.
#[tokio::test]
async fn answers_to_each_role_keep_to_the_document() {
    let keys = Keys::of_all_roles();
    let api = Service::on(Database::Sqlite).asking_for(&keys).open().await;
    let order_id = placed(&api, &keys).await;
    let guarded = document(Surface { keys: true, ..Surface::DEFAULT });
    for role in Role::ALL {
        let bearer = keys.bearer(role);
        for (path, schema) in [
            (format!("/orders/{order_id}?include=allowed,eta"), "TrackedOrder"),
            ("/readyz".to_owned(), "Readiness"),
        ] {
            let answer = api.send(request(&path, &bearer)).await.json();
            let mut whole = guarded.clone();
            whole["$ref"] = format!("#/components/schemas/{schema}").into();
            let validator = jsonschema::validator_for(&whole).expect("a schema");
            assert!(validator.is_valid(&answer), "{role} {answer}");
        }
    }
}

/// What may be answered is counted from 0.
#[tokio::test]
async fn refusals_are_declared_where_keys_are_asked_for() {
    let keys = Keys::of_all_roles();
    let guarded = Service::on(Database::Sqlite).asking_for(&keys).open().await;
    let metrics = guarded.get_as(&keys, "/metrics").await;
    for (method, route, _) in FOR {
        for status in [401, 403] {
            let series =
                format!(r#"http_requests_total{{method="{method}",route="{route}",status="{status}"}} 0"#);
            assert!(metrics.text().lines().any(|line| line == series), "{series}");
        }
    }
    let open = Service::on(Database::Sqlite).open().await;
    assert!(!open.get("/metrics").await.text().contains(r#"route="/orders",status="401""#));
}

/// Whose key a report comes with is no part of what was sent.
#[tokio::test]
async fn the_same_report_is_the_same_whichever_key_it_comes_with() {
    let keys = Keys::of_all_roles();
    let api = Service::on(Database::Sqlite).asking_for(&keys).open().await;
    let order_id = placed(&api, &keys).await;
    for (role, event, status, replayed) in [
        (Role::Kitchen, "READY", 201, ""),
        (Role::Staff, "READY", 201, "true"),
        (Role::Staff, "DELAYED", 422, ""),
        (Role::Courier, "READY", 403, ""),
    ] {
        let bearer = keys.bearer(role);
        let body = json!({"event": event, "id": "q7", "minutes": 5});
        let answer = api.report_of(&order_id, &[("authorization", &bearer)], &body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("idempotency-replayed")),
            (status, replayed),
            "{role}"
        );
    }
}
