//! Customers call their orders off, or are told that it is too late.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::json;

use super::{
    Api,
    board::words,
    pages::{attributes, protected},
    pages_reports::{HERE, fields, track},
    service::{Service, on_both_databases},
};
use crate::order::Source;

on_both_databases!(
    a_customer_calls_an_order_off_before_the_kitchen_has_started,
    a_cancel_that_comes_too_late_changes_nothing_and_says_so,
    a_cancel_of_an_order_that_changed_meanwhile_is_asked_again,
);

async fn a_customer_calls_an_order_off_before_the_kitchen_has_started(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let link = format!("/track/{id}/cancel");
    assert!(attributes(track(&api, &id).await.text(), "href").contains(&link.as_str()));
    let ask = api.get(&link).await;
    protected(&ask, StatusCode::OK);
    assert_eq!(ask.header("referrer-policy"), "same-origin", "or a browser hides where the form comes from");
    assert!(words(&ask).contains("Cancel it? The kitchen has not started."), "{}", words(&ask));
    let form = fields(&ask, "method");
    assert_eq!(form[1], ("seq".to_owned(), "2".to_owned()));
    assert_ne!(fields(&api.get(&link).await, "method")[0], form[0], "each form has a name of its own");
    // Twice is once.
    for _ in 0..2 {
        let answer = api.submit(&link, &HERE, &form).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        assert_eq!(answer.header("location"), format!("/track/{id}"));
    }
    let story = api.story(&id).await;
    assert_eq!((story.len(), &story[2]["event"]), (3, &json!("CANCELLED")), "{story:?}");
    assert_eq!(story[2]["meta"]["source"], "customer");
    assert_eq!(story[2]["meta"]["reason"], "customer_request");
    let text = words(&track(&api, &id).await);
    assert!(text.contains("You cancelled it.you, 03:04 UTC"), "{text}");
    assert_eq!(api.get(&link).await.status, StatusCode::SEE_OTHER, "it tells that itself");
}

async fn a_cancel_that_comes_too_late_changes_nothing_and_says_so(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let link = format!("/track/{id}/cancel");
    let form = fields(&api.get(&link).await, "method");
    api.clock.advance(Duration::from_mins(5));
    api.say(&id, "PREPARING", Source::Kitchen, json!({})).await;
    let late = "The kitchen started at 03:09 UTC, so it can't be cancelled here. Please call the shop.";
    // A form that was made by hand, of the order as it is now, does no more.
    let by_hand = [form[0].clone(), ("seq".to_owned(), "3".to_owned())];
    for form in [&form[..], &by_hand] {
        let answer = api.submit(&link, &HERE, form).await;
        protected(&answer, StatusCode::CONFLICT);
        assert!(words(&answer).contains(late), "{}", words(&answer));
    }
    let page = api.get(&link).await;
    protected(&page, StatusCode::OK);
    assert!(words(&page).contains(late) && !page.text().contains("<form"), "{}", page.text());
    assert!(!track(&api, &id).await.text().contains("Cancel my order"));
    assert_eq!(api.story(&id).await.len(), 3);
    for event in ["COOKING", "OUT_FOR_DELIVERY", "DELIVERED"] {
        api.say(&id, event, Source::Courier, json!({})).await;
        let late =
            if event == "DELIVERED" { "It was delivered, so it can't be cancelled here" } else { late };
        assert!(words(&api.submit(&link, &HERE, &form).await).contains(late), "{event}");
    }
}

/// Promise 7: the story is true. Nobody says when the kitchen started that nobody has seen start.
#[tokio::test]
async fn a_step_that_was_skipped_is_no_reason_with_a_time() {
    let api = Api::open().await;
    let id = api.place_for_people().await;
    api.say(&id, "OUT_FOR_DELIVERY", Source::Courier, json!({})).await;
    let page = words(&api.get(&format!("/track/{id}/cancel")).await);
    assert!(page.contains("The kitchen has started, so it can't be cancelled here"), "{page}");
}

async fn a_cancel_of_an_order_that_changed_meanwhile_is_asked_again(service: Service) {
    let api = service.open().await;
    let id = api.place_for_people().await;
    let link = format!("/track/{id}/cancel");
    let form = fields(&api.get(&link).await, "method");
    api.say(&id, "DELAYED", Source::Kitchen, json!({"minutes": 10})).await;
    let again = api.submit(&link, &HERE, &form).await;
    protected(&again, StatusCode::CONFLICT);
    assert!(words(&again).contains("Your order has changed while you looked"), "{}", words(&again));
    let answer = api.submit(&link, &HERE, &fields(&again, "method")).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    assert_eq!(api.story(&id).await.len(), 4);
}

#[tokio::test]
async fn a_cancel_from_elsewhere_or_of_nonsense_does_nothing() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let link = format!("/track/{id}/cancel");
    let form = fields(&api.get(&link).await, "method");
    for headers in [
        [("sec-fetch-site", "cross-site"), ("host", "shop.example")],
        [("origin", "https://elsewhere.example"), ("host", "shop.example")],
        [("origin", "null"), ("host", "shop.example")],
    ] {
        protected(&api.submit(&link, &headers, &form).await, StatusCode::FORBIDDEN);
    }
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for nonsense in [
        vec![],
        vec![field("id", "x")],
        vec![field("id", "x"), field("seq", "two")],
        vec![field("id", ""), field("seq", "2")],
        vec![field("id", "é"), field("seq", "2")],
    ] {
        protected(&api.submit(&link, &HERE, &nonsense).await, StatusCode::BAD_REQUEST);
    }
    let long = [field("id", &"x".repeat(20_000)), field("seq", "2")];
    protected(&api.submit(&link, &HERE, &long).await, StatusCode::PAYLOAD_TOO_LARGE);
    let json = Request::post(&link).header("content-type", "application/json").body(Body::from("{}"));
    protected(&api.send(json.expect("valid")).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let nobody = "/track/ORD-00000000000000000000000000/cancel";
    protected(&api.submit(nobody, &HERE, &form).await, StatusCode::NOT_FOUND);
    protected(&api.get(nobody).await, StatusCode::NOT_FOUND);
    protected(&api.get("/track/x/cancel").await, StatusCode::NOT_FOUND);
    let moved = api.get(&link.to_lowercase()).await;
    assert_eq!((moved.status, moved.header("location")), (StatusCode::PERMANENT_REDIRECT, link.as_str()));
    assert_eq!(api.story(&id).await.len(), 2);
    // Not to know whether it was done is said.
    let form = fields(&api.get(&link).await, "method");
    api.store.close().await;
    protected(&api.submit(&link, &HERE, &form).await, StatusCode::SERVICE_UNAVAILABLE);
}
