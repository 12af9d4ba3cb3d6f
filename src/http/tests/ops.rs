//! Health, metrics and request ids.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::json;

use super::Api;
use crate::telemetry::health::{Health, Part};

#[tokio::test]
async fn liveness_needs_nothing_and_readiness_names_what_is_degraded() {
    let api = Api::open().await;
    let ready = async || {
        tokio::time::pause();
        // However dear the reading before was on a busy machine.
        tokio::time::advance(Duration::from_mins(2)).await;
        tokio::time::resume();
        api.overview.read().await;
        api.get("/readyz").await
    };
    let answer = ready().await;
    assert_eq!(answer.status, StatusCode::OK, "orders are taken without a broker");
    let unreached = json!({"status": "ok", "degraded": [{"part": "broker", "reason": "not reached yet"}]});
    assert_eq!(answer.json(), unreached);

    api.report(Part::Broker, Health::Up);
    assert_eq!(ready().await.json(), json!({"status": "ok", "degraded": []}));

    api.report(Part::Broker, Health::Down("connection refused".to_owned()));
    api.place("Ada").await;
    api.clock.advance(Duration::from_mins(1));
    let answer = ready().await;
    assert_eq!(answer.status, StatusCode::OK);
    let degraded = |scheduler: &str| {
        json!({"status": "ok", "degraded": [
            {"part": "broker", "reason": "connection refused"},
            {"part": "relay", "reason": "1 orders unsent, the oldest for 60.0 s"},
            {"part": "scheduler", "reason": scheduler},
        ]})
    };
    assert_eq!(answer.json(), degraded("the most overdue step is 57.0 s late"));

    api.report(Part::Consumer, Health::Down("messages wait".to_owned()));
    let waits = ready().await.json();
    assert_eq!(waits["degraded"][2], json!({"part": "consumer", "reason": "messages wait"}), "{waits}");
    api.report(Part::Consumer, Health::Up);
    api.report(Part::DeadLetters, Health::Down("no such topic".to_owned()));
    let missing = ready().await.json();
    assert_eq!(
        missing["degraded"][2],
        json!({"part": "dead_letters", "reason": "no such topic"}),
        "{missing}"
    );
    api.report(Part::DeadLetters, Health::Up);

    api.report(Part::Scheduler, Health::Degraded("ORD-1 can't be moved".into()));
    assert_eq!(ready().await.json(), degraded("ORD-1 can't be moved"));

    api.store.close().await;
    let answer = ready().await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["status"], "unavailable");
    assert!(
        answer.json()["reason"].as_str().is_some_and(|why| why.contains("database")),
        "{}",
        answer.text()
    );
    let answer = api.get("/healthz").await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({"status": "ok"})));
}

/// Balancers must hear of it before the listener closes.
#[tokio::test]
async fn a_service_that_is_told_to_stop_is_not_ready_and_serves() {
    let api = Api::open().await;
    api.leaving.cancel();
    let answer = api.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["reason"], "the service is stopping");
    api.place("Ada").await;
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
    assert_eq!(series().await, before, "clients can't make series");
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
