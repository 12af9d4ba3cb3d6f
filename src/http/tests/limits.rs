//! What is too large, too slow, unknown or away.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, StatusCode},
};
use futures::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::{Api, order};

/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn bodies_are_limited_in_type_and_size() {
    let api = Api::open().await;
    let good = order("Ada").to_string();
    for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        api.post(&[("content-type", bad)], good.clone()).await.problem(415);
    }
    api.post(&[], good.clone()).await.problem(415);
    for fine in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.order+json"] {
        assert_eq!(
            api.post(&[("content-type", fine)], good.clone()).await.status,
            StatusCode::CREATED,
            "{fine}"
        );
    }
    let padded = |length: usize| format!("{good}{}", " ".repeat(length - good.len()));
    assert_eq!(
        api.post(&[("content-type", "application/json")], padded(16 * 1024)).await.status,
        StatusCode::CREATED
    );
    api.post(&[("content-type", "application/json")], padded(16 * 1024 + 1)).await.problem(413);
    let announced = [("content-type", "application/json"), ("content-length", "1048576")];
    api.post(&announced, "").await.problem(413);
    // No length is announced here: the limit is met while reading.
    let endless =
        stream::repeat_with(|| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[b' '; 1024]))));
    api.post(&[("content-type", "application/json")], Body::new(StreamBody::new(endless))).await.problem(413);
}

/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let api = Api::open().await;
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    let begun = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"{")))]);
    let stuck = Body::new(StreamBody::new(begun.chain(stream::pending())));
    let (code, _) = api.post(&[("content-type", "application/json")], stuck).await.problem(408);
    assert_eq!(code, "request-timeout");
    assert!(started.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn unknown_paths_ids_and_methods_are_problems() {
    let api = Api::open().await;
    let unknown = "/orders/ORD-01ARZ3NDEK0000000000000000";
    for path in [
        "/board",
        "/order",
        "/orders/",
        "/orders/x/y",
        unknown,
        "/orders/7",
        "/orders/%00",
        "/orders/ORD-%ff",
    ] {
        api.get(path).await.problem(404);
    }
    for (method, path, allow) in [
        (Method::DELETE, "/orders", "GET,HEAD,POST"),
        (Method::POST, unknown, "GET,HEAD"),
        (Method::PUT, "/healthz", "GET,HEAD"),
        (Method::from_bytes(b"BREW").expect("a method"), "/metrics", "GET,HEAD"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("valid");
        let answer = api.send(request).await;
        assert_eq!(answer.problem(405).0, "method-not-allowed");
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
}

/// Promise 6: it says what is wrong, and nothing about the inside.
#[tokio::test]
async fn a_database_that_is_away_is_a_503() {
    let api = Api::open().await;
    api.store.close().await;
    for answer in [api.get("/orders").await, api.post_json(order("Ada")).await] {
        assert_eq!(answer.problem(503).0, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(!answer.text().to_lowercase().contains("pool"), "{}", answer.text());
    }
}
