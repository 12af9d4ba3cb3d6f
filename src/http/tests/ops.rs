//! Health, metrics and request ids.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::json;

use super::Api;
use crate::health::Condition;

#[tokio::test]
async fn liveness_needs_nothing_and_readiness_names_the_part() {
    let api = Api::open().await;
    let answer = api.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().contains("broker: DOWN, not reached yet\n"), "{}", answer.text());

    api.broker.send_replace(Condition::Up);
    let answer = api.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.text(),
        "database: ok\nbroker: ok\nrelay: ok, 0 orders unsent, the oldest for 0.0 s\n\
         progress: ok, the most overdue step is 0.0 s late\n"
    );

    api.broker.send_replace(Condition::Down("connection refused".to_owned()));
    api.place("Ada").await;
    api.clock.advance(Duration::from_mins(1));
    let answer = api.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        answer.text(),
        "database: ok\nbroker: DOWN, connection refused\nrelay: DOWN, 1 orders unsent, the oldest for 60.0 s\n\
         progress: DOWN, the most overdue step is 57.0 s late\n"
    );

    api.store.close().await;
    let answer = api.get("/readyz").await;
    assert!(answer.text().starts_with("database: DOWN, "), "{}", answer.text());
    let answer = api.get("/healthz").await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({"status": "ok"})));
}

#[tokio::test]
async fn requests_are_counted_under_their_route() {
    let api = Api::open().await;
    let zero = "http_requests_total{method=\"POST\",route=\"/orders\",status=\"201\"} 0";
    assert!(api.metric(zero).await, "known answers stand at 0 from the start");
    assert_eq!(api.get("/metrics").await.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let id = api.place("Ada").await;
    api.get(&format!("/orders/{id}")).await;
    let series = async || {
        let text = api.get("/metrics").await;
        text.text().lines().filter(|line| !line.starts_with('#')).count()
    };
    api.send(Request::delete("/orders").body(Body::empty()).expect("valid")).await;
    let before = series().await;
    for n in 0..50 {
        api.get(&format!("/{n}")).await;
        let method = Method::from_bytes(format!("M{n}").as_bytes()).expect("a method");
        api.send(Request::builder().method(method).uri("/orders").body(Body::empty()).expect("valid")).await;
    }
    assert_eq!(series().await, before, "strangers can't make series");
    for series in [
        "http_requests_total{method=\"POST\",route=\"/orders\",status=\"201\"} 1",
        "http_requests_total{method=\"GET\",route=\"/orders/{id}\",status=\"200\"} 1",
        "http_requests_total{method=\"OTHER\",route=\"/orders\",status=\"405\"} 51",
        "http_requests_total{method=\"OTHER\",route=\"unmatched\",status=\"404\"} 50",
        "http_request_duration_seconds_count{method=\"POST\",route=\"/orders\",status=\"201\"} 1",
        "pipeline_step_duration_seconds_count{step=\"place\"} 1",
    ] {
        assert!(api.metric(series).await, "{series}");
    }
}

#[tokio::test]
async fn request_ids_are_echoed_if_they_are_safe() {
    let api = Api::open().await;
    for (given, echoed) in [("abc-1.2_3", true), ("a b", false), (&*"x".repeat(65), false), ("<x>", false)] {
        let request = Request::get("/nowhere").header("x-request-id", given).body(Body::empty());
        let answer = api.send(request.expect("valid")).await;
        answer.problem(404);
        assert_eq!(answer.header("x-request-id") == given, echoed, "{given:?}");
    }
}
