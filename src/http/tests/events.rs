//! Following an order.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, Request, StatusCode},
    response::Response,
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::Api;
use crate::order::Source;

const DELAYS: [u64; 4] = [3, 5, 7, 10];

/// An open stream, read frame by frame.
pub(super) struct Stream {
    headers: HeaderMap,
    body: BodyDataStream,
}

impl Stream {
    pub(super) async fn open(api: &Api, path: &str, seen: Option<&str>) -> Self {
        let mut request = Request::get(path);
        if let Some(seen) = seen {
            request = request.header("last-event-id", seen);
        }
        let response = api.router.clone().oneshot(request.body(Body::empty()).expect("valid")).await;
        let response = response.expect("never fails");
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers().clone();
        let mut stream = Self { headers, body: response.into_body().into_data_stream() };
        let retry = stream.next().await.expect("a first frame");
        let millis = retry.strip_prefix("retry: ").and_then(|text| text.parse().ok());
        assert!(millis.is_some_and(|millis: u64| (1_000..=3_000).contains(&millis)), "{retry}");
        stream
    }

    /// The next frame without its end.
    async fn next(&mut self) -> Option<String> {
        let bytes = self.body.next().await?.expect("no failure");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Some(text.strip_suffix("\n\n").expect("a whole frame").to_owned())
    }

    /// The position and the data of the next event.
    pub(super) async fn event(&mut self) -> (u64, Value) {
        let frame = self.next().await.expect("goes on");
        let field = |name: &str| {
            let value = frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.unwrap_or_else(|| panic!("no {name} in {frame}"))
        };
        assert_eq!(field("event"), "status");
        (field("id").parse().expect("a number"), serde_json::from_str(field("data")).expect("json"))
    }

    pub(super) async fn end(&mut self) {
        assert_eq!(self.next().await.as_deref(), Some("event: end\ndata: {}"));
        assert_eq!(self.next().await, None);
    }
}

/// Makes the next step of every order.
pub(super) async fn step(api: &Api, delay: u64) {
    api.clock.advance(Duration::from_secs(delay));
    let advance = api.store.advance(10).await.expect("advances");
    api.notifier.committed(&advance.transitions);
}

#[tokio::test]
async fn a_timeline_is_told_and_followed_to_its_end() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let path = format!("/orders/{id}/events");
    let mut stream = Stream::open(&api, &path, None).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(stream.headers[name], value);
    }
    let mut told = vec![stream.event().await, stream.event().await];
    for delay in DELAYS {
        step(&api, delay).await;
        told.push(stream.event().await);
    }
    stream.end().await;

    let found = api.get(&format!("/orders/{id}")).await.json();
    for ((seq, data), event) in told.iter().zip(found["events"].as_array().expect("events")) {
        let mut expected = event.clone();
        expected["seq"] = json!(seq);
        assert_eq!(*data, expected);
    }
    assert_eq!(told.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(api.notifier.subscribers(), 0, "its place is free again");

    let over = api.get(&format!("{path}?after=6")).await;
    assert_eq!((over.status, over.body.len()), (StatusCode::NO_CONTENT, 0));
    let mut stream = Stream::open(&api, &path, Some("4")).await;
    assert_eq!((stream.event().await.0, stream.event().await.0), (5, 6));
    stream.end().await;
}

#[tokio::test]
async fn a_stream_goes_on_where_the_client_stopped() {
    let api = Api::open().await;
    let path = format!("/orders/{}/events", api.place("Ada").await);
    step(&api, DELAYS[0]).await;
    let after = format!("{path}?after=2");
    for (path, seen, first) in
        [(&path, None, 1), (&path, Some("0"), 1), (&after, None, 3), (&after, Some("1"), 2)]
    {
        assert_eq!(Stream::open(&api, path, seen).await.event().await.0, first, "{path} {seen:?}");
    }
    let nothing = format!("{path}?after=");
    for (path, seen, first) in [(&nothing, None, 1), (&path, Some(""), 1), (&after, Some(""), 3)] {
        assert_eq!(Stream::open(&api, path, seen).await.event().await.0, first, "{path} {seen:?}");
    }
    // Nobody can have seen more than there is.
    let mut boaster = Stream::open(&api, &path, Some("6")).await;
    step(&api, DELAYS[1]).await;
    assert_eq!(boaster.event().await.0, 4);
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn wrong_positions_and_ids_are_problems() {
    let api = Api::open().await;
    let path = format!("/orders/{}/events", api.place("Ada").await);
    let beyond = 1_000_000_000.to_string();
    for bad in ["x", beyond.as_str(), "-1", "1.5", "00", "99999999999999999999", "%00"] {
        let (code, fields) = api.get(&format!("{path}?after={bad}")).await.problem(400);
        assert_eq!((code.as_str(), fields), ("validation-error", vec!["after".to_owned()]), "{bad}");
    }
    for (bad, query, named) in [
        ("x", "", vec!["Last-Event-ID"]),
        (beyond.as_str(), "?after=x", vec!["Last-Event-ID", "after"]),
        ("1", "?after=x", vec!["after"]),
    ] {
        let request = Request::get(format!("{path}{query}")).header("last-event-id", bad);
        let answer = api.send(request.body(Body::empty()).expect("valid")).await;
        assert_eq!(answer.problem(400).1, named);
    }
    let twice = Request::get(&path).header("last-event-id", "1").header("last-event-id", "2");
    let answer = api.send(twice.body(Body::empty()).expect("valid")).await;
    assert_eq!(answer.problem(400).1, ["Last-Event-ID"]);
    for unknown in ["ORD-01ARZ3NDEK0000000000000000", "7", "%ff"] {
        api.get(&format!("/orders/{unknown}/events")).await.problem(404);
    }
    assert_eq!(api.notifier.subscribers(), 0);
}

/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn a_follower_too_many_is_told_to_come_again() {
    let api = Api::open().await;
    let path = format!("/orders/{}/events", api.place("Ada").await);
    let streams = [Stream::open(&api, &path, None).await, Stream::open(&api, &path, None).await];
    let answer = api.get(&path).await;
    assert_eq!((answer.problem(503).0, answer.header("retry-after")), ("unavailable".to_owned(), "1"));
    assert!(api.metric("http_event_streams 2").await);
    drop(streams);
    assert!(api.metric("http_event_streams 0").await);
    Stream::open(&api, &path, None).await;
}

/// Promise 5: memory, queues and time are bounded. An idle stream shows that it lives, but not for ever.
#[tokio::test]
async fn an_idle_stream_has_a_heartbeat_and_an_end() {
    let api = Api::open().await;
    let path = format!("/orders/{}/events", api.place("Ada").await);
    let mut stream = Stream::open(&api, &path, Some("2")).await;
    tokio::time::pause();
    let opened = tokio::time::Instant::now();
    let beat = "event: beat\ndata: {}";
    assert_eq!(stream.next().await.as_deref(), Some(beat));
    assert_eq!(opened.elapsed().as_secs(), 15);
    while let Some(frame) = stream.next().await {
        assert_eq!(frame, beat, "no step, and no word of an end");
    }
    assert_eq!(opened.elapsed().as_secs(), 15 * 60);
}

#[tokio::test]
async fn a_stop_ends_streams() {
    let api = Api::open().await;
    let path = format!("/orders/{}/events", api.place("Ada").await);
    let mut stream = Stream::open(&api, &path, Some("2")).await;
    let (next, ()) = tokio::join!(stream.next(), async { api.stop.cancel() });
    assert_eq!(next, None);
}

/// The customer's page asks for itself again; what was said on the way is none of its business.
#[tokio::test]
async fn the_customer_s_stream_tells_positions_and_nothing_else() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    api.say(&id, "READY", Source::Kitchen, json!({"note": "by the back door"})).await;
    let mut stream = Stream::open(&api, &format!("/track/{id}/events"), Some("2")).await;
    assert_eq!(stream.next().await.as_deref(), Some("id: 3\nevent: status\ndata: {}"));
    let unknown = api.get("/track/ORD-00000000000000000000000000/events").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

/// The data of the first events of a stream.
pub(super) async fn first_events(response: Response, count: usize) -> Vec<Value> {
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    let mut stream = Stream { headers, body: response.into_body().into_data_stream() };
    stream.next().await.expect("a first frame");
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(stream.event().await.1);
    }
    told
}
