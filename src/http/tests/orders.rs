//! Placing, finding and listing.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::json;

use super::{Answer, Api, order};

#[tokio::test]
async fn an_order_is_placed_and_found() {
    let api = Api::open().await;
    let placed = api.post_json(order(" Ada ")).await;
    assert_eq!(placed.status, StatusCode::CREATED);
    let id = placed.json()["order_id"].as_str().expect("an id").to_owned();
    assert_eq!(placed.json(), json!({"order_id": id}), "and nothing else");
    assert_eq!(placed.header("location"), format!("/orders/{id}"));

    let found = api.get(&format!("/orders/{id}")).await;
    let at = "2026-01-02T03:04:05.678Z";
    let expected = json!({
        "order": {"order_id": id, "customer_name": "Ada", "address": "1 High St", "item": "pizza", "size": "large",
            "status": "PLACED", "created_at": at, "updated_at": at},
        "events": [
            {"event": "CREATED", "timestamp": at, "meta": {"source": "http"}},
            {"event": "PLACED", "timestamp": at, "meta": null},
        ],
    });
    assert_eq!((found.status, found.json()), (StatusCode::OK, expected));
    assert_eq!((found.header("etag"), found.header("cache-control")), ("W/\"2\"", "private, no-cache"));
    assert_eq!(found.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn a_timeline_that_was_seen_is_not_sent_again() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let ask = async |seen: &str| {
        let request = Request::get(format!("/orders/{id}")).header("if-none-match", seen);
        api.send(request.body(Body::empty()).expect("valid")).await
    };
    for seen in ["W/\"2\"", "\"2\"", "\"9\", W/\"2\"", "*"] {
        let answer = ask(seen).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_MODIFIED, 0), "{seen}");
        assert_eq!(answer.header("etag"), "W/\"2\"");
    }
    api.clock.advance(Duration::from_secs(3));
    api.store.advance(10).await.expect("advances");
    let moved = ask("W/\"2\"").await;
    assert_eq!((moved.status, moved.header("etag")), (StatusCode::OK, "W/\"3\""));
}

#[tokio::test]
async fn lists_are_paged_by_link() {
    let api = Api::open().await;
    let mut newest = Vec::new();
    for n in 0..5 {
        newest.insert(0, api.place(&format!("customer {n}")).await);
    }
    let ids = |answer: &Answer| -> Vec<String> {
        let orders = answer.json();
        let ids = orders
            .as_array()
            .expect("an array")
            .iter()
            .map(|order| order["order_id"].as_str().expect("an id").to_owned());
        ids.collect()
    };
    let mut seen = Vec::new();
    let mut path = "/orders?limit=2&status=PLACED".to_owned();
    for pages_left in [2, 1, 0] {
        let page = api.get(&path).await;
        assert_eq!(page.status, StatusCode::OK);
        seen.extend(ids(&page));
        let link = page.header("link");
        assert_eq!(link.is_empty(), pages_left == 0, "{link}");
        let next = link.strip_suffix(">; rel=\"next\"").and_then(|link| link.strip_prefix('<'));
        path = next.unwrap_or_default().to_owned();
    }
    assert_eq!(seen, newest);

    let first = &api.get("/orders?limit=1").await.json()[0];
    assert_eq!(first.as_object().expect("an object").len(), 8, "the eight columns and no events: {first}");
    assert_eq!(api.get("/orders?limit=5").await.header("link"), "", "a full last page has no next");
    assert_eq!(ids(&api.get("/orders?status=DELIVERED").await), [""; 0]);
    assert_eq!(ids(&api.get("/orders?limit=99999999999999999999999&colour=blue").await), newest);
}

#[tokio::test]
async fn wrong_queries_name_the_parameter() {
    let api = Api::open().await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.5", "limit"),
        ("limit=%2B5", "limit"),
        ("status=placed", "status"),
        ("status=EATEN", "status"),
        ("cursor=x", "cursor"),
        ("cursor=%00", "cursor"),
    ] {
        let answer = api.get(&format!("/orders?{query}")).await;
        assert_eq!(answer.problem(400), ("validation-error".to_owned(), vec![field.to_owned()]), "{query}");
    }
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn wrong_bodies_name_every_field() {
    let api = Api::open().await;
    let answer = api.post_json(json!({"customer_name": "", "item": 7, "size": "huge"})).await;
    let fields = ["customer_name", "address", "item", "size"].map(str::to_owned).to_vec();
    assert_eq!(answer.problem(400), ("validation-error".to_owned(), fields));
    assert_eq!(
        answer.json()["errors"][3],
        json!({"field": "size", "code": "choice", "message": "must be one of small, medium, large"})
    );
    assert_eq!(answer.json()["instance"], "/orders");

    let json_type = [("content-type", "application/json")];
    for body in ["", "{", "[]", "null", "\"x\"", "{\"item\": \"\u{0}\"}", "[[[[[[[["] {
        let (code, _) = api.post(&json_type, body).await.problem(400);
        assert_eq!(code, "malformed-request", "{body:?}");
    }
    let (code, _) = api.post(&json_type, vec![b'"', 0xff, b'"']).await.problem(400);
    assert_eq!(code, "malformed-request");
    assert_eq!(api.get("/orders").await.json(), json!([]), "nothing was stored");
}

/// Promise 3: an effect happens once. The same key and body place one order.
#[tokio::test]
async fn idempotency_keys_replay_or_refuse() {
    let api = Api::open().await;
    let post = async |key: &str, name: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        api.post(&headers, order(name).to_string()).await
    };
    let first = post("k1", "Ada").await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (StatusCode::CREATED, ""));
    // The IETF draft quotes the key; it is the same one.
    for key in ["k1", "\"k1\""] {
        let again = post(key, " Ada ").await;
        assert_eq!((again.status, again.json()), (StatusCode::CREATED, first.json()));
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_eq!(again.header("location"), first.header("location"));
    }
    assert_eq!(post("k1", "Grace").await.problem(422).0, "idempotency-key-reused");
    assert_ne!(post("k2", "Ada").await.json(), first.json());
    for bad in ["", "\"\"", "\"k", &"x".repeat(256), "a\tb"] {
        assert_eq!(post(bad, "Ada").await.problem(400).1, ["Idempotency-Key"], "{bad:?}");
    }
    let twice = [("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "b")];
    api.post(&twice, order("Ada").to_string()).await.problem(400);
    assert_eq!(api.get("/orders").await.json().as_array().expect("an array").len(), 2);
}
