//! Handlers through the router in the process: status codes, headers and whole bodies.

mod board;
mod board_finds;
mod board_reports;
mod compressed;
mod cors;
mod declared;
mod events;
mod events_reported;
mod explain;
mod feed;
mod feed_stream;
mod included;
mod keys;
mod keys_shown;
mod keys_told;
mod lifecycle;
mod limits;
mod log;
mod openapi;
mod openapi_examples;
mod ops;
mod orders;
mod pages;
mod pages_cancel;
mod pages_reports;
mod parameters;
mod reports;
mod reports_batch;
mod reports_refused;
mod reports_said;
mod reports_timed;
mod reports_undone;
mod server;
mod service;
mod sign_in;
mod streams;

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode},
    response::Response,
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::{
    declared::Declared,
    service::{Database, Service},
};
use super::RequestLog;
use crate::{
    ops::overview::Overview,
    order::dead_letter::DeadLetterBacklog,
    store::{PgDatabase, Store, memory},
    telemetry::health::{Health, HealthRegistry, Part},
    time::ManualClock,
    tracker::{Notifier, Tracker},
};

/// The router on a real store, with the real writer behind the queue.
struct Api {
    router: Router,
    tracker: Tracker,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    notifier: Arc<Notifier>,
    stop: CancellationToken,
    overview: Arc<Overview>,
    leaving: CancellationToken,
    parts: HealthRegistry,
    dead_letter_backlog: watch::Sender<Option<DeadLetterBacklog>>,
    log: Arc<RequestLog>,
    folder: TempDir,
    _database: Option<PgDatabase>,
    _declared: Declared,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// All of it.
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("json")
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ascii"))
    }

    /// Checks that this is a whole problem and answers its code and wrong fields.
    fn problem(&self, status: u16) -> (String, Vec<String>) {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], format!("/problems/{}", body["code"].as_str().expect("a code")));
        assert_eq!(body["request_id"], self.header("x-request-id"));
        for field in ["title", "detail", "instance"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {body}");
        }
        let fields = body["errors"].as_array().map(|errors| {
            errors.iter().map(|error| error["field"].as_str().expect("a field").to_owned()).collect()
        });
        (body["code"].as_str().expect("a code").to_owned(), fields.unwrap_or_default())
    }
}

impl Api {
    /// With the defaults, on the embedded database.
    async fn open() -> Self {
        Service::on(Database::Sqlite).open().await
    }

    /// On the model of a database, for virtual time.
    fn in_memory() -> (Self, Arc<Mutex<memory::Database>>) {
        Service::on(Database::Sqlite).in_memory()
    }

    /// A part says how it is.
    fn report(&self, part: Part, health: Health) {
        self.parts.reporter(part).send_replace(health);
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("never fails");
        Answer::of(response).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).expect("valid")).await
    }

    async fn post(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::post("/orders");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).expect("valid")).await
    }

    async fn post_json(&self, body: Value) -> Answer {
        self.post(&[("content-type", "application/json")], body.to_string()).await
    }

    /// Reports something of an order.
    async fn report_of(&self, order_id: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.send_json(&format!("/orders/{order_id}/events"), headers, body).await
    }

    async fn send_json(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.to_string().into()).expect("valid")).await
    }

    async fn place(&self, name: &str) -> String {
        let answer = self.post_json(order(name)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()["order_id"].as_str().expect("an id").to_owned()
    }

    async fn metric(&self, series: &str) -> bool {
        self.get("/metrics").await.text().lines().any(|line| line == series)
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new("2026-01-02T03:04:05.678Z".parse().expect("a moment")))
}

fn order(name: &str) -> Value {
    json!({"customer_name": name, "address": "1 High St", "item": "pizza", "size": "large"})
}
