//! What is answered stands on `/metrics` from the start: each test looks at its end whether it has seen something else.

use std::{collections::BTreeSet, sync::Arc, thread, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, StatusCode, request},
};
use futures::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tower::ServiceExt as _;

use super::{
    Api,
    keys::routed,
    order,
    service::{Database, Keys, Service},
};
use crate::{
    order::{Role, sample::plausible_order},
    telemetry::metrics::Metrics,
};

/// The answers that a router has declared before the first request.
pub(super) struct Declared {
    metrics: Arc<Metrics>,
    known: BTreeSet<String>,
}

impl Declared {
    /// Of a router that was just made.
    pub(super) fn on(metrics: Arc<Metrics>) -> Self {
        Self { known: answers(&metrics), metrics }
    }
}

impl Drop for Declared {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(undeclared(&self.metrics, &self.known), [] as [&str; 0]);
        }
    }
}

/// The series of answers that there are.
fn answers(metrics: &Metrics) -> BTreeSet<String> {
    let text = String::from_utf8(metrics.render().expect("renders")).expect("utf-8");
    let series = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series);
    series.filter(|series| series.starts_with("http_requests_total{")).map(str::to_owned).collect()
}

/// What was answered and is not known. Nobody expects that we fail, nor a method that a route does not take; and a HEAD is
/// answered as its GET is.
fn undeclared(metrics: &Metrics, known: &BTreeSet<String>) -> Vec<String> {
    let unforeseen = |answer: &str| {
        answer.ends_with("status=\"500\"}")
            || answer.contains("{method=\"OTHER\"") && answer.ends_with("status=\"405\"}")
    };
    let as_get = |answer: &str| answer.replace("{method=\"HEAD\"", "{method=\"GET\"");
    let answers = answers(metrics).into_iter();
    answers.filter(|answer| !unforeseen(answer) && !known.contains(&as_get(answer))).collect()
}

#[test]
fn an_answer_that_nobody_declared_is_found() {
    let metrics = Metrics::new();
    metrics.declare_http("/orders", "GET", "200");
    let known = answers(&metrics);
    let answer = |method, status| metrics.http_answered("/orders", method, status, Duration::ZERO);
    for (method, status) in [("GET", "200"), ("HEAD", "200"), ("OTHER", "405"), ("GET", "500")] {
        answer(method, status);
    }
    assert_eq!(undeclared(&metrics, &known), [] as [&str; 0]);
    answer("GET", "418");
    answer("HEAD", "404");
    let expected = [("GET", "418"), ("HEAD", "404")].map(|(method, status)| {
        format!("http_requests_total{{method=\"{method}\",route=\"/orders\",status=\"{status}\"}}")
    });
    assert_eq!(undeclared(&metrics, &known), expected);
}

const JSON: Option<&str> = Some("application/json");
const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
const QUERIES: [&str; 3] = ["", "?after=x&limit=x&limit=7&status=x&include=x&wait=x&event=x&id=x", "?id=%ff"];
const HEADERS: [&[(&str, &str)]; 7] = [
    &[],
    &[("origin", "https://elsewhere.example")],
    &[("if-match", "x")],
    &[("if-none-match", "*")],
    &[("last-event-id", "x")],
    &[("idempotency-key", "")],
    &[("accept", "text/event-stream")],
];

/// What a body may be, with its type.
#[derive(Clone)]
enum Sent {
    Whole(Option<&'static str>, String),
    /// It begins and never ends.
    Stuck(Option<&'static str>),
}

fn bodies() -> Vec<Sent> {
    let long = "x".repeat(300_000);
    let texts = [
        (None, String::new()),
        (JSON, "{".to_owned()),
        (JSON, order("Ada").to_string()),
        (JSON, "{\"event\": \"READY\"}".to_owned()),
        (JSON, "[{\"order_id\": \"x\", \"event\": \"READY\"}]".to_owned()),
        (JSON, long.clone()),
        (FORM, "id=x&seq=2&key=x&event=READY&order=x".to_owned()),
        (FORM, "seq=x&%ff=%ff".to_owned()),
        (FORM, format!("id={long}")),
    ];
    let whole = texts.map(|(kind, text)| Sent::Whole(kind, text));
    whole.into_iter().chain([JSON, FORM].map(Sent::Stuck)).collect()
}

/// Addresses of a route: as they should be, and as people and programs mistake them.
fn addresses(route: &str, order_id: &str) -> Vec<String> {
    if !route.contains('{') {
        return QUERIES.map(|query| format!("{route}{query}")).into();
    }
    let lower = order_id.to_lowercase();
    let ids = [order_id, &lower, "ORD-00000000000000000000000000", "x", "%ff"];
    let fill = |id: &str| {
        let name = if id == order_id { "page.css" } else { id };
        route.replace("{id}", id).replace("{version}", id).replace("{name}", name)
    };
    let queries = QUERIES[1..].iter().map(|query| format!("{}{query}", fill(order_id)));
    ids.into_iter().map(fill).chain(queries).collect()
}

async fn status(api: &Api, request: request::Builder, sent: Sent) -> StatusCode {
    let (kind, body) = match sent {
        Sent::Whole(kind, text) => (kind, Body::from(text)),
        Sent::Stuck(kind) => {
            let begun = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"{")))]);
            (kind, Body::new(StreamBody::new(begun.chain(stream::pending()))))
        }
    };
    let request = kind.into_iter().fold(request, |request, kind| request.header("content-type", kind));
    // Its head alone: a stream has no end.
    api.router.clone().oneshot(request.body(body).expect("valid")).await.expect("never fails").status()
}

/// Asks everything of all routes that clients ask, well and badly.
async fn ask_all(api: &Api, order_id: &str, authorization: Option<&str>) {
    for (method, route) in routed() {
        let method: Method = method.parse().expect("a method");
        let bodies = if method == Method::POST { bodies() } else { vec![bodies().remove(0)] };
        for (n, address) in addresses(&route, order_id).iter().enumerate() {
            for headers in &HEADERS[..if n == 0 { HEADERS.len() } else { 1 }] {
                for sent in &bodies {
                    let mut request = Request::builder().method(&method).uri(address);
                    let key = authorization.map(|authorization| ("authorization", authorization));
                    for (name, value) in headers.iter().copied().chain(key) {
                        request = request.header(name, value);
                    }
                    let status = status(api, request, sent.clone()).await;
                    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {address} {headers:?}");
                }
            }
        }
    }
}

/// Every route, asked well and badly, with keys and without, and with the database away.
#[tokio::test(start_paused = true)]
async fn whatever_a_route_answers_it_has_declared() {
    let (keys, unread, open) = (Keys::of_all_roles(), Keys::unread(), Service::on(Database::Sqlite));
    let [staff, reader] = [Role::Staff, Role::Reader].map(|role| Some(keys.bearer(role)));
    for (service, authorizations) in [
        (open.clone(), vec![None]),
        (open.without_demo(), vec![None]),
        (open.asking_for(&keys), vec![None, staff.clone(), reader]),
        (open.asking_for(&unread), vec![staff]),
    ] {
        let (api, database) = service.in_memory();
        let placed = api.tracker.place(plausible_order(), None, None).await;
        let order_id = placed.expect("is placed").order_id.to_string();
        for away in [false, true] {
            database.lock().expect("no panic").away = away;
            for authorization in &authorizations {
                ask_all(&api, &order_id, authorization.as_deref()).await;
            }
        }
    }
}
