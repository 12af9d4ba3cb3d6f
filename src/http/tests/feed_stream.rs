//! The feed as a stream, on the model of a database in virtual time.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, Method, Request, StatusCode},
    response::Response,
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

use super::{
    super::server::client::{Connection, Waiting},
    Api,
    feed::{DELAYS, STREAM, all, cursors, page, sent, step},
    order,
};
use crate::{
    order::OrderDetails,
    store::{Outbox, conformance::new_orders},
};

/// A frame of a stream, as far as its client needs it.
#[derive(Debug, Default, PartialEq)]
struct Frame {
    id: String,
    event: String,
    data: Value,
}

/// An open stream.
struct Stream {
    headers: HeaderMap,
    body: BodyDataStream,
    /// The cursor that it began with.
    begun_at: String,
}

impl Stream {
    async fn open(api: &Api, path: &str, headers: &[(&str, &str)]) -> Self {
        let response = asked(api, Method::GET, path, &[&[STREAM], headers].concat()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers().clone();
        let body = response.into_body().into_data_stream();
        let mut stream = Self { headers, body, begun_at: String::new() };
        let first = stream.text().await.expect("a first frame");
        let (retry, id) = first.split_once('\n').expect("two lines");
        let millis = retry.strip_prefix("retry: ").and_then(|text| text.parse().ok());
        assert!(millis.is_some_and(|millis: u64| (1_000..=3_000).contains(&millis)), "{first}");
        id.strip_prefix("id: ").expect("a cursor").clone_into(&mut stream.begun_at);
        stream
    }

    async fn text(&mut self) -> Option<String> {
        let bytes = self.body.next().await?.expect("no failure");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Some(text.strip_suffix("\n\n").expect("a whole frame").to_owned())
    }

    async fn next(&mut self) -> Option<Frame> {
        let text = self.text().await?;
        let mut frame = Frame::default();
        for line in text.lines() {
            match line.split_once(": ").expect("a field") {
                ("id", id) => id.clone_into(&mut frame.id),
                ("event", event) => event.clone_into(&mut frame.event),
                ("data", data) => frame.data = serde_json::from_str(data).expect("json"),
                other => panic!("{other:?}"),
            }
        }
        Some(frame)
    }

    /// The next event.
    async fn event(&mut self) -> Value {
        let frame = self.next().await.expect("goes on");
        assert_eq!((frame.event.as_str(), &frame.data["cursor"]), ("event", &json!(frame.id)));
        frame.data
    }
}

async fn asked(api: &Api, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("valid");
    api.router.clone().oneshot(request).await.expect("never fails")
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_wait_with_what_there_is() {
    let (api, _) = Api::in_memory();
    api.place("Ada").await;
    let asked = Instant::now();
    let stop = async {
        sleep(Duration::from_secs(3)).await;
        api.stop.cancel();
    };
    let mut stream = Stream::open(&api, "/events?after=2", &[]).await;
    let wait = api.get("/events?event=DELIVERED&wait=20s");
    let (told, next, ()) = tokio::join!(async { page(&wait.await) }, stream.next(), stop);
    assert_eq!((told.0.len(), told.1.as_str(), asked.elapsed().as_secs()), (0, "2", 3));
    assert_eq!(next, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_from_the_cursor_that_was_seen() {
    let (api, _) = Api::in_memory();
    api.place("Ada").await;
    let mut stream = Stream::open(&api, "/events", &[]).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(stream.headers[name], value);
    }
    assert_eq!(stream.begun_at, "0");
    let mut told = vec![stream.event().await, stream.event().await];
    for delay in DELAYS {
        step(&api, delay).await;
        told.push(stream.event().await);
    }
    assert_eq!(told, all(&api, "limit=100").await, "the same as by pages");
    drop(stream);
    assert_eq!(api.notifier.subscribers(), 0, "its place is free again");
    for (path, seen, first) in [
        ("/events?after=1", None, 2),
        ("/events?after=1", Some("4"), 5),
        ("/events?after=1", Some(""), 2),
        ("/events", Some("5"), 6),
        ("/events", Some("0"), 1),
        ("/events?limit=1&wait=1s&event=COOKING", Some("1"), 4),
    ] {
        let headers: Vec<_> = seen.map(|seen| ("last-event-id", seen)).into_iter().collect();
        let mut stream = Stream::open(&api, path, &headers).await;
        assert_eq!(cursors(&[stream.event().await]), [first], "{path} {seen:?}");
        assert_eq!(page(&sent(&api, path, &headers).await).0[0]["cursor"], first.to_string(), "by pages too");
    }
    let mut from_here = Stream::open(&api, "/events?after=now", &[]).await;
    assert_eq!(from_here.begun_at, "6", "who is cut off before the first event can come back");
    api.place("Grace").await;
    assert_eq!(cursors(&[from_here.event().await]), [7]);
}

/// More than is read at once.
#[tokio::test(start_paused = true)]
async fn a_stream_tells_everything_once() {
    let (api, _) = Api::in_memory();
    api.store.place(&new_orders(700), Outbox::Mine).await.expect("places");
    let mut stream = Stream::open(&api, "/events", &[]).await;
    for cursor in 1..=1_400 {
        assert_eq!(cursors(&[stream.event().await]), [cursor]);
    }
}

/// Promise 8: who was away misses nothing. A beat tells how far everything was told, or passed over by the filter.
#[tokio::test(start_paused = true)]
async fn beats_carry_the_cursor_and_a_stream_has_an_end() {
    let (api, _) = Api::in_memory();
    api.place("Ada").await;
    let opened = Instant::now();
    let mut stream = Stream::open(&api, "/events", &[]).await;
    let mut passed_over = Stream::open(&api, "/events?event=DELIVERED", &[]).await;
    assert_eq!(cursors(&[stream.event().await, stream.event().await]), [1, 2]);
    let beat = |cursor: &str| Frame { id: cursor.to_owned(), event: "beat".to_owned(), data: json!({}) };
    assert_eq!(stream.next().await, Some(beat("2")));
    assert_eq!(passed_over.next().await, Some(beat("2")));
    assert_eq!(opened.elapsed().as_secs(), 15);
    step(&api, 3).await;
    assert_eq!(cursors(&[stream.event().await]), [3]);
    assert_eq!(passed_over.next().await, Some(beat("3")));
    assert_eq!(opened.elapsed().as_secs(), 30);
    drop(passed_over);
    while let Some(frame) = stream.next().await {
        assert_eq!(frame, beat("3"));
    }
    assert_eq!(opened.elapsed().as_secs(), 15 * 60);
}

/// Promise 5: memory, queues and time are bounded. Whoever follows or waits has a place, like who follows an order.
#[tokio::test(start_paused = true)]
async fn places_are_limited() {
    let (api, _) = Api::in_memory();
    let path = format!("/orders/{}/events", api.place("Ada").await);
    let order = asked(&api, Method::GET, &path, &[]).await;
    let stream = Stream::open(&api, "/events?after=now", &[]).await;
    assert!(api.metric("http_event_streams 2").await);
    for (path, headers) in [("/events?after=now&wait=1s", &[][..]), ("/events", &[STREAM])] {
        let answer = sent(&api, path, headers).await;
        assert_eq!(
            (answer.problem(503).0, answer.header("retry-after")),
            ("unavailable".to_owned(), "1"),
            "{path}"
        );
    }
    assert_eq!(page(&api.get("/events").await).0.len(), 2, "who does not wait needs none");
    drop((order, stream));
    assert!(api.metric("http_event_streams 0").await);

    let ask = async |last: u8, path: &str, headers: &[(&str, &str)]| {
        let connection = Connection { peer: IpAddr::from([192, 0, 2, last]), waiting: Waiting::default() };
        let mut request = Request::get(path).extension(connection);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        api.router.clone().oneshot(request.body(Body::empty()).expect("valid")).await.expect("an answer")
    };
    let first = ask(1, "/events", &[STREAM]).await;
    assert_eq!(first.status(), StatusCode::OK);
    for (path, headers) in [("/events?after=now&wait=1s", &[][..]), ("/events", &[STREAM])] {
        let refused = ask(1, path, headers).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{path}");
        assert_eq!(refused.headers()["retry-after"], "1");
    }
    assert_eq!(ask(2, "/events", &[STREAM]).await.status(), StatusCode::OK, "others have theirs");
    drop(first);
    assert_eq!(ask(1, "/events?after=now&wait=1s", &[]).await.status(), StatusCode::OK);
}

/// Who came back would be refused, so a stream waits; who asks anew is told.
#[tokio::test(start_paused = true)]
async fn a_stream_outlives_a_database_that_is_away() {
    let (api, database) = Api::in_memory();
    api.store.place(&new_orders(700), Outbox::Mine).await.expect("places");
    let mut stream = Stream::open(&api, "/events", &[]).await;
    assert_eq!(cursors(&[stream.event().await]), [1]);
    database.lock().expect("no panic").away = true;
    let mut last = 1;
    let beat = loop {
        let frame = stream.next().await.expect("goes on");
        if frame.event != "event" {
            break frame;
        }
        last = frame.id.parse().expect("a number");
    };
    assert!(last < 1_400, "what was read before is told");
    assert_eq!((beat.event.as_str(), beat.id), ("beat", last.to_string()));
    for path in ["/events?after=now", "/events?wait=5s"] {
        sleep(Duration::from_secs(10)).await;
        let answer = api.get(path).await;
        assert_eq!(
            (answer.problem(503).0, answer.header("retry-after")),
            ("unavailable".to_owned(), "1"),
            "{path}"
        );
    }
    database.lock().expect("no panic").away = false;
    let next = loop {
        let frame = stream.next().await.expect("goes on");
        if frame.event == "event" {
            break frame;
        }
    };
    assert_eq!(next.id, (last + 1).to_string());
    assert_eq!(api.notifier.subscribers(), 1);
}

/// What a client takes decides, and JSON is what it gets if it does not say.
#[tokio::test(start_paused = true)]
async fn a_stream_is_for_those_who_ask_for_one() {
    let (api, _) = Api::in_memory();
    for (accept, kind) in [
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream;q=0", "application/json"),
        ("text/event-stream;q=0.5, application/json; q=0.9", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("TEXT/Event-Stream; charset=utf-8; Q=0.9, */*", "text/event-stream"),
        ("application/json;q=0.5, text/event-stream", "text/event-stream"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let response = asked(&api, method, "/events", &[("accept", accept)]).await;
            assert_eq!(response.headers()["content-type"], kind, "{accept}");
        }
    }
    assert_eq!(api.notifier.subscribers(), 0);
    let head = asked(&api, Method::HEAD, "/events", &[]).await;
    assert!(head.into_body().into_data_stream().next().await.is_none());
    for method in [Method::PUT, Method::DELETE] {
        assert_eq!(asked(&api, method, "/events", &[]).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}

/// Nothing that only some may know is told to who may know everything that happened.
#[tokio::test(start_paused = true)]
async fn no_name_address_or_note_is_told() {
    const MARK: &str = "Xanthippe";
    let (api, _) = Api::in_memory();
    let mut orders = new_orders(1);
    orders[0].details =
        OrderDetails::new(&format!("{MARK} of Athens"), &format!("{MARK} Street"), "pizza", "large")
            .expect("valid");
    orders[0].meta = Some(json!({"source": "http", "note": MARK, "by": {"name": MARK}, MARK: MARK}));
    api.store.place(&orders, Outbox::Mine).await.expect("places");
    api.post_json(order(MARK)).await;
    for delay in DELAYS {
        step(&api, delay).await;
    }
    let answer = api.get("/events").await;
    let (events, ..) = page(&answer);
    assert_eq!(events.len(), 12);
    assert_eq!(events[0]["meta"], json!({"source": "http"}));
    assert!(!answer.text().contains(MARK) && !format!("{:?}", answer.headers).contains(MARK));
    let mut stream = Stream::open(&api, "/events", &[]).await;
    for _ in 0..12 {
        let text = stream.text().await.expect("goes on");
        assert!(text.contains("event: event") && !text.contains(MARK), "{text}");
    }
}
