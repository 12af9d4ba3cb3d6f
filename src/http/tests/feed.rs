//! The feed by pages, on the model of a database in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Answer, Api};
use crate::order::EventKind;

pub(super) const STREAM: (&str, &str) = ("accept", "text/event-stream");
pub(super) const DELAYS: [u64; 4] = [3, 5, 7, 10];

/// A page: its events, where the next begins, and whether there was nothing more.
pub(super) fn page(answer: &Answer) -> (Vec<Value>, String, bool) {
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    let body = answer.json();
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(3), "{body}");
    let events = body["events"].as_array().expect("events").clone();
    (events, body["next"].as_str().expect("a text").to_owned(), body["caught_up"].as_bool().expect("a bool"))
}

pub(super) fn cursors(events: &[Value]) -> Vec<u64> {
    let cursor = |event: &Value| event["cursor"].as_str().expect("a text").parse().expect("a number");
    events.iter().map(cursor).collect()
}

/// Makes the next step of every order.
pub(super) async fn step(api: &Api, delay: u64) {
    api.clock.advance(Duration::from_secs(delay));
    let advance = api.store.advance(100).await.expect("advances");
    api.notifier.committed(&advance.transitions);
}

/// Everything, page by page.
pub(super) async fn all(api: &Api, query: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::from("0"));
    loop {
        let (events, next, caught_up) = page(&api.get(&format!("/events?after={after}&{query}")).await);
        all.extend(events);
        after = next;
        if caught_up {
            return all;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pages_tell_everything_once_and_in_order() {
    let (api, _) = Api::in_memory();
    let (events, next, caught_up) = page(&api.get("/events").await);
    assert_eq!((events.len(), next.as_str(), caught_up), (0, "0", true), "nothing has happened yet");
    let mut ids = BTreeSet::new();
    for n in 0..7 {
        ids.insert(api.place(&format!("customer {n}")).await);
    }
    for delay in DELAYS {
        step(&api, delay).await;
    }
    for limit in [1, 4, 41, 42, 1_000] {
        let all = all(&api, &format!("limit={limit}")).await;
        assert_eq!(cursors(&all), (1..=42).collect::<Vec<_>>(), "{limit}");
        let mut told = BTreeMap::<String, Vec<Value>>::new();
        for mut event in all {
            let order_id = event["order_id"].as_str().expect("an id").to_owned();
            let told = told.entry(order_id).or_default();
            let fields = event.as_object_mut().expect("an object");
            assert_eq!(fields.remove("seq"), Some(json!(told.len() + 1)));
            let status = fields.remove("status").expect("a status");
            assert_eq!(status, if told.is_empty() { json!("PLACED") } else { fields["event"].clone() });
            assert!(fields.remove("order_id").is_some() && fields.remove("cursor").is_some());
            told.push(event);
        }
        assert!(told.keys().eq(&ids));
        for (id, told) in told {
            let found = api.get(&format!("/orders/{id}")).await.json();
            assert_eq!(found["events"], Value::from(told), "{id}");
        }
    }
    assert_eq!(page(&api.get("/events?event=&limit=").await).0.len(), 42, "an empty parameter is none");
    // But for a cursor that got lost: who sends it would read everything once more.
    api.get("/events?after=").await.problem(400);
    let (events, next, caught_up) = page(&api.get("/events?after=40&limit=2&colour=red").await);
    assert_eq!((cursors(&events), next.as_str(), caught_up), (vec![41, 42], "42", true));
    let (events, next, caught_up) = page(&api.get("/events?after=42").await);
    assert_eq!((events.len(), next.as_str(), caught_up), (0, "42", true));
}

#[tokio::test(start_paused = true)]
async fn a_page_can_be_of_one_kind() {
    let (api, _) = Api::in_memory();
    for n in 0..5 {
        api.place(&format!("customer {n}")).await;
    }
    let created = all(&api, "event=CREATED&limit=2").await;
    assert_eq!(cursors(&created), [1, 3, 5, 7, 9]);
    assert!(created.iter().all(|event| event["event"] == "CREATED" && event["status"] == "PLACED"));
    let (events, next, caught_up) = page(&api.get("/events?event=DELIVERED").await);
    assert_eq!((events.len(), next.as_str(), caught_up), (0, "10", true), "all was looked at");
    for kind in EventKind::ALL {
        assert_eq!(api.get(&format!("/events?event={kind}")).await.status, StatusCode::OK, "{kind}");
    }
}

/// Promise 6: it says what is wrong. All of it at once.
#[tokio::test(start_paused = true)]
async fn every_wrong_field_is_named() {
    let (api, _) = Api::in_memory();
    api.place("Ada").await;
    for (field, bad) in [
        ("after", &["x", "-1", "%2B1", "01", "1.0", "Now", "9223372036854775808", "%00"][..]),
        ("limit", &["0", "1001", "-1", "x", "1.5", "%2B5", "99999999999999999999999"]),
        ("event", &["placed", "x", "PLACED,COOKING", "SERVED"]),
        ("wait", &["x", "5", "-1s", "21s", "20001ms", "1m", "99999999999999999999s"]),
    ] {
        for bad in bad {
            for headers in [&[][..], &[STREAM]] {
                let answer = sent(&api, &format!("/events?{field}={bad}"), headers).await;
                assert_eq!(
                    answer.problem(400),
                    ("validation-error".to_owned(), vec![field.to_owned()]),
                    "{bad}"
                );
            }
        }
    }
    let wrong = "/events?after=x&limit=0&event=x&wait=1h";
    let fields = sent(&api, wrong, &[("last-event-id", "now")]).await.problem(400).1;
    assert_eq!(fields, ["Last-Event-ID", "after", "limit", "event", "wait"]);
    let twice = [("last-event-id", "1"), ("last-event-id", "1")];
    assert_eq!(sent(&api, "/events", &twice).await.problem(400).1, ["Last-Event-ID"]);
    // What never happened: two events are there.
    for (path, headers, field) in [
        ("/events?after=3", &[][..], "after"),
        ("/events?after=3&wait=20s", &[], "after"),
        ("/events?after=3", &[STREAM], "after"),
        ("/events?after=1", &[STREAM, ("last-event-id", "3")], "Last-Event-ID"),
    ] {
        let answer = sent(&api, path, headers).await;
        assert_eq!(answer.problem(400).1, [field], "{path}");
        assert!(
            answer.json()["errors"][0]["message"]
                .as_str()
                .is_some_and(|text| text.contains("the last one is 2"))
        );
    }
    assert_eq!(api.notifier.subscribers(), 0);
}

pub(super) async fn sent(api: &Api, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.send(request.body(Body::empty()).expect("valid")).await
}

#[tokio::test(start_paused = true)]
async fn now_is_where_everything_that_follows_begins() {
    let (api, _) = Api::in_memory();
    api.place("Ada").await;
    let (events, next, caught_up) = page(&api.get("/events?after=now").await);
    assert_eq!((events.len(), next.as_str(), caught_up), (0, "2", true));
    api.place("Grace").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cursors(&page(&api.get("/events?after=2").await).0), [3, 4]);
}

/// Promise 8: who was away misses nothing. What an open transaction holds back is waited for, and that is said.
#[tokio::test(start_paused = true)]
async fn what_commits_late_is_not_passed_over() {
    let (api, database) = Api::in_memory();
    let late = database.lock().expect("no panic").log.draw();
    api.place("Ada").await;
    let answer = api.get("/events?after=now").await;
    assert_eq!((answer.problem(503).0, answer.header("retry-after")), ("unavailable".to_owned(), "1"));
    let detail = answer.json()["detail"].as_str().expect("text").to_owned();
    assert!(detail.contains("a transaction is open in the database"), "{detail}");
    let (events, next, caught_up) = page(&api.get("/events").await);
    assert_eq!((events.len(), next.as_str(), caught_up), (0, "0", false));
    let (events, ()) = tokio::join!(async { page(&api.get("/events?wait=5s").await) }, async {
        sleep(Duration::from_secs(1)).await;
        database.lock().expect("no panic").log.end(late, None);
    });
    assert_eq!((cursors(&events.0), events.1.as_str(), events.2), (vec![2, 3], "3", true));
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_something_to_tell() {
    let (api, _) = Api::in_memory();
    api.place("Ada").await;
    let asked = Instant::now();
    let told = page(&api.get("/events?wait=20s").await);
    assert_eq!(cursors(&told.0), [1, 2]);
    assert!(asked.elapsed() < Duration::from_millis(100), "it is there already: {:?}", asked.elapsed());

    let delivered = async {
        for (delay, places) in DELAYS.into_iter().zip([2, 1, 1, 1]) {
            sleep(Duration::from_secs(2)).await;
            assert_eq!(api.notifier.subscribers(), places, "who waits holds a place");
            step(&api, delay).await;
        }
    };
    let any = async { (page(&api.get("/events?after=2&wait=10s").await), asked.elapsed()) };
    let last =
        async { (page(&api.get("/events?after=now&event=DELIVERED&wait=20s").await), asked.elapsed()) };
    let (any, last, ()) = tokio::join!(any, last, delivered);
    let ((events, next, caught_up), took) = any;
    assert_eq!((cursors(&events), next.as_str(), caught_up), (vec![3], "3", true));
    assert!(took < Duration::from_millis(2_300), "{took:?}");
    let ((events, next, caught_up), took) = last;
    assert_eq!((cursors(&events), next.as_str(), caught_up), (vec![6], "6", true));
    assert!(took >= Duration::from_secs(8) && took < Duration::from_millis(8_300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_does_not_wait_for_ever() {
    let (api, _) = Api::in_memory();
    for wait in ["500ms", "20s"] {
        let asked = Instant::now();
        let (events, next, caught_up) = page(&api.get(&format!("/events?wait={wait}")).await);
        assert_eq!((events.len(), next.as_str(), caught_up), (0, "0", true));
        assert_eq!(asked.elapsed().as_millis(), humantime::parse_duration(wait).expect("a time").as_millis());
    }
    // Two events of other kinds meanwhile, which are not looked at again.
    let (told, ()) = tokio::join!(async { page(&api.get("/events?event=DELIVERED&wait=5s").await) }, async {
        sleep(Duration::from_secs(1)).await;
        api.place("Ada").await;
    });
    assert_eq!((told.0.len(), told.1.as_str(), told.2), (0, "2", true));
    assert_eq!(api.notifier.subscribers(), 0);
    // What clients want to wait is no part of how long answers take.
    let series =
        "http_request_duration_seconds_bucket{method=\"GET\",route=\"/events\",status=\"200\",le=\"0.25\"} 3";
    assert!(api.metric(series).await, "{}", api.get("/metrics").await.text());
}
