//! Why an order stands where it stands, through the router.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Api, board::words};
use crate::{
    order::OrderId,
    telemetry::health::{Health, Issue, IssueKind, Issues, Part},
};

impl Api {
    async fn explain(&self, id: &str) -> Value {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(15)).await;
        tokio::time::resume();
        let answer = self.get(&format!("/orders/{id}/explain")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }
}

/// Promise 6: it says what is wrong. Of one order, from its first moment to its last.
#[tokio::test]
async fn an_order_says_why_it_stands_where_it_stands() {
    let api = Api::open().await;
    api.report(Part::Broker, Health::Up);
    api.report(Part::Relay, Health::Up);
    api.report(Part::Scheduler, Health::Up);
    let id = api.place("Ada").await;
    let waits =
        "its stage is not over yet: PREPARING is due at 2026-01-02T03:04:08.678Z. Nothing is to be done.";
    assert_eq!(
        api.explain(&id).await,
        json!({
            "status": "PLACED", "since": "2026-01-02T03:04:05.678Z", "waits_for": "PREPARING",
            "causes": [{"code": "stage_not_over", "text": waits}],
            "allowed": ["PREPARING", "COOKING", "OUT_FOR_DELIVERY", "DELIVERED", "CANCELLED", "READY", "COURIER_ASSIGNED",
                "COURIER_AT_PICKUP", "COURIER_AT_DOOR", "DELIVERY_FAILED", "DELAYED"],
        })
    );

    api.clock.advance(Duration::from_secs(15));
    let order_id: OrderId = id.parse().expect("an id");
    let held = Issue::about(IssueKind::Held, order_id, format!("{id} can't be moved: a trigger"));
    api.report(Part::Scheduler, Health::Degraded(Issues(vec![held])));
    let late = api.explain(&id).await;
    let causes = [&late["causes"][0]["code"], &late["causes"][1]["code"]];
    assert_eq!(causes, ["order_held", "relay_behind"], "{late}");
    let text = late["causes"][0]["text"].as_str().expect("a text");
    assert!(text.starts_with(&format!("{id} can't be moved: a trigger (PREPARING was due at")), "{text}");

    // The board shows the same words.
    let board = words(&api.board(&format!("/?id={id}")).await);
    assert!(board.contains(&format!("12 s late. Why: {text}")), "{board}");
    let unsent = late["causes"][1]["text"].as_str().expect("a text");
    assert!(board.contains(&format!("Why: {unsent}")), "{board}");

    for _ in 0..4 {
        api.clock.advance(Duration::from_mins(1));
        api.store.advance(10).await.expect("advances");
    }
    let done = api.explain(&id).await;
    assert_eq!((&done["status"], &done["waits_for"]), (&json!("DELIVERED"), &Value::Null), "{done}");
    assert_eq!(done["causes"][0]["code"], "finished");
}

#[tokio::test]
async fn an_order_that_is_not_there_is_a_problem() {
    let api = Api::open().await;
    api.place("Ada").await;
    for id in ["ORD-00000000000000000000000000", "ORD-7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "nonsense", "%FF"] {
        let answer = api.get(&format!("/orders/{id}/explain")).await;
        assert_eq!(answer.problem(404).0, "not-found", "{id}");
    }
    api.store.close().await;
    let answer = api.get("/orders/ORD-00000000000000000000000000/explain").await;
    assert_eq!(answer.problem(503).0, "unavailable");
}
