//! An order over HTTP: from the POST to its delivery, and how it is found again.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use order_tracker::order::promises::OVERDUE_AFTER;
use reqwest::{Method, Response, header};
use serde_json::{Value, json};

use crate::{
    abuse::problem,
    harness::{SIX, Service, details, folder, names},
};

/// How late a step may be.
const LATE: TimeDelta = TimeDelta::seconds(OVERDUE_AFTER.as_secs().cast_signed());

pub(crate) fn at(text: &Value) -> DateTime<Utc> {
    text.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no moment: {text}"))
}

/// The moments of a timeline.
pub(crate) fn stamps(tracked: &Value) -> Vec<DateTime<Utc>> {
    tracked["events"].as_array().expect("events").iter().map(|event| at(&event["timestamp"])).collect()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn ids(orders: &[Value]) -> Vec<&str> {
    orders.iter().map(|order| order["order_id"].as_str().expect("an id")).collect()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("text"))
}

/// The specification's main job, word for word.
///
/// Promise 4: timers are rows.
#[tokio::test]
async fn an_order_is_delivered_in_six_events() {
    let service = Service::start(&[("STAGE_DELAYS", "300ms,400ms,200ms,500ms")]).await;
    let response = service.post(&details("pizza")).await;
    assert_eq!(response.status(), 201);
    let location = header(&response, "location").expect("a location").to_owned();
    let placed: Value = response.json().await.expect("JSON");
    let id = placed["order_id"].as_str().expect("an id");
    assert_eq!(placed, json!({"order_id": id}));
    assert_eq!(location, format!("/orders/{id}"));
    assert!(id.starts_with("ORD-") && id.len() == 30, "{id}");

    let first = service.json(&location).await;
    assert_eq!(names(&first)[..2], SIX[..2]);

    let tracked = service.reached(id, "DELIVERED").await;
    assert_eq!(keys(&tracked), BTreeSet::from(["order", "events"]));
    assert_eq!(names(&tracked), SIX);
    let stamps = stamps(&tracked);
    assert!(stamps.is_sorted(), "{tracked}");
    for (gap, delay) in stamps[1..].windows(2).map(|pair| pair[1] - pair[0]).zip([300, 400, 200, 500]) {
        let delay = TimeDelta::milliseconds(delay);
        assert!(gap >= delay && gap <= delay + LATE, "{gap} after a delay of {delay}: {tracked}");
    }
    for event in tracked["events"].as_array().expect("events") {
        assert_eq!(keys(event), BTreeSet::from(["event", "timestamp", "meta"]));
    }

    let order = &tracked["order"];
    assert_eq!(
        keys(order),
        BTreeSet::from([
            "order_id",
            "customer_name",
            "address",
            "item",
            "size",
            "status",
            "created_at",
            "updated_at"
        ])
    );
    assert_eq!(order["order_id"], id);
    assert_eq!(order["customer_name"], "Ada Lovelace");
    assert_eq!((at(&order["created_at"]), at(&order["updated_at"])), (stamps[0], stamps[5]));
}

/// The list knows every status, and an order is in one of them.
#[tokio::test]
async fn a_list_can_be_filtered_by_status() {
    let data = folder();
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "0s")]).await;
    let delivered = [service.place("pizza").await, service.place("ramen").await];
    for id in &delivered {
        service.reached(id, "DELIVERED").await;
    }
    service.stop().await;
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "1h")]).await;
    let waiting = [service.place("burger").await];

    let list = async |query: &str| service.json(&format!("/orders{query}")).await;
    let newest_first = [&waiting[0], &delivered[1], &delivered[0]];
    assert_eq!(ids(list("").await.as_array().expect("a list")), newest_first);
    let expected = [("PLACED", &newest_first[..1]), ("COOKING", &[]), ("DELIVERED", &newest_first[1..])];
    for (status, expected) in expected {
        let found = list(&format!("?status={status}")).await;
        assert_eq!(ids(found.as_array().expect("a list")), expected, "{status}");
    }
    let one = list("?limit=1").await;
    assert_eq!(ids(one.as_array().expect("a list")), newest_first[..1]);
    assert_eq!(one[0]["status"], "PLACED");
    assert_eq!(keys(&one[0]).len(), 8, "a list has the eight columns and no events: {one}");
}

/// Follows `Link` from `path` to the end and answers the pages.
async fn pages(service: &Service, path: &str, mut between: impl AsyncFnMut()) -> Vec<Vec<Value>> {
    let (mut pages, mut next) = (Vec::new(), Some(path.to_owned()));
    while let Some(path) = next {
        let response = service.get(&path).await;
        assert_eq!(response.status(), 200, "{path}");
        next = header(&response, "link").map(|link| {
            let target = link.strip_suffix(">; rel=\"next\"").and_then(|link| link.strip_prefix('<'));
            target.unwrap_or_else(|| panic!("no next page in {link}")).to_owned()
        });
        pages.push(response.json().await.expect("a list"));
        between().await;
    }
    pages
}

/// Pages by keyset: complete, without repetition, and not moved by what is placed meanwhile.
#[tokio::test]
async fn pages_follow_their_link_over_more_than_200_orders() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let placed: HashSet<String> =
        join_all((0..205).map(|_| service.place("pizza"))).await.into_iter().collect();
    let lengths = |pages: &[Vec<Value>]| pages.iter().map(Vec::len).collect::<Vec<_>>();

    for (path, expected) in [
        ("/orders", vec![50, 50, 50, 50, 5]),
        ("/orders?limit=99999&status=PLACED", vec![200, 5]),
        ("/orders?limit=205", vec![200, 5]),
        ("/orders?limit=41", vec![41; 5]),
    ] {
        assert_eq!(lengths(&pages(&service, path, async || {}).await), expected, "{path}");
    }

    let disturbed = pages(&service, "/orders", async || drop(service.place("late").await)).await.concat();
    let listed = ids(&disturbed);
    assert!(listed.is_sorted_by(|newer, older| newer > older), "newest first, none twice");
    assert_eq!(listed.into_iter().map(str::to_owned).collect::<HashSet<_>>(), placed);
}

/// A timeline that a client has seen is not sent again; one that has grown is.
#[tokio::test]
async fn an_etag_lasts_until_the_next_event() {
    let service = Service::start(&[("STAGE_DELAYS", "300ms,1h,1h,1h")]).await;
    let id = service.place("pizza").await;
    let path = format!("/orders/{id}");
    let asked = async |tag: &str| {
        let request = service.request(Method::GET, &path).header(header::IF_NONE_MATCH, tag);
        request.send().await.expect("an answer")
    };
    service.reached(&id, "PREPARING").await;
    let response = service.get(&path).await;
    let tag = header(&response, "etag").expect("a tag").to_owned();
    assert!(tag.starts_with("W/\""), "{tag}");

    let unchanged = asked(&tag).await;
    assert_eq!((unchanged.status().as_u16(), header(&unchanged, "etag")), (304, Some(tag.as_str())));
    assert_eq!(unchanged.bytes().await.expect("a body").len(), 0);
    assert_eq!(asked(&format!("\"other\", {tag}")).await.status(), 304);
    assert_eq!(asked("W/\"other\"").await.status(), 200);

    let younger = service.place("ramen").await;
    let response = service.get(&format!("/orders/{younger}")).await;
    let seen = header(&response, "etag").expect("a tag").to_owned();
    service.reached(&younger, "PREPARING").await;
    let path = format!("/orders/{younger}");
    let grown = service.request(Method::GET, &path).header(header::IF_NONE_MATCH, &seen).send().await;
    let grown = grown.expect("an answer");
    assert_eq!(grown.status(), 200);
    assert_ne!(header(&grown, "etag"), Some(seen.as_str()));
}

/// Promise 3: an effect happens once.
#[tokio::test]
async fn an_idempotency_key_places_one_order() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let post = async |item: &str, key: &str| {
        let request =
            service.request(Method::POST, "/orders").header("idempotency-key", key).json(&details(item));
        request.send().await.expect("an answer")
    };
    let first = post("pizza", "k-1").await;
    assert_eq!((first.status().as_u16(), header(&first, "idempotency-replayed")), (201, None));
    let location = header(&first, "location").map(str::to_owned);
    let first: Value = first.json().await.expect("JSON");

    let again = post("pizza", "k-1").await;
    assert_eq!((again.status().as_u16(), header(&again, "idempotency-replayed")), (201, Some("true")));
    assert_eq!(header(&again, "location").map(str::to_owned), location);
    assert_eq!(again.json::<Value>().await.expect("JSON"), first);

    problem(post("ramen", "k-1").await, 422, "idempotency-key-reused").await;

    let racing = join_all((0..10).map(|_| post("burger", "k-2"))).await;
    let bodies = join_all(racing.into_iter().map(Response::json::<Value>)).await;
    let ids: HashSet<String> =
        bodies.into_iter().map(|body| body.expect("JSON")["order_id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(service.json("/orders").await.as_array().map(Vec::len), Some(2));
}

/// The simulator's orders look as if people had placed them.
#[tokio::test]
async fn simulated_orders_are_plausible() {
    let service = Service::start(&[("SIMULATE_RATE", "50"), ("STAGE_DELAYS", "1h")]).await;
    service.counted("pipeline_step_duration_seconds_count{step=\"place\"}", 10).await;
    let list = service.json("/orders").await;
    let orders = list.as_array().expect("a list");
    assert!(orders.len() >= 10, "{list}");
    for order in orders {
        let text = |name: &str| order[name].as_str().expect("text");
        assert!(text("customer_name").contains(' ') && text("address").contains(' '), "{order}");
        assert!(["small", "medium", "large"].contains(&text("size")), "{order}");
    }
    let items: HashSet<String> = orders.iter().map(|order| order["item"].to_string()).collect();
    assert!(items.len() > 1, "always the same item: {items:?}");
}
