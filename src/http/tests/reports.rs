//! Reports of one order: every line of the contract's table.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Api};

const ALL: [&str; 12] = [
    "PREPARING",
    "COOKING",
    "OUT_FOR_DELIVERY",
    "DELIVERED",
    "CANCELLED",
    "READY",
    "COURIER_ASSIGNED",
    "COURIER_AT_PICKUP",
    "COURIER_AT_DOOR",
    "DELIVERY_FAILED",
    "DELAYED",
    "REVERTED",
];

impl Api {
    /// A report that must be answered so, with what it added.
    async fn says(&self, order_id: &str, body: Value, status: u16) -> Value {
        let answer = self.report_of(order_id, &[], &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        answer.json()
    }
}

/// The statuses of what was added.
fn events(answer: &Value) -> Vec<(u64, &str)> {
    let events = answer["events"].as_array().expect("events").iter();
    events
        .map(|event| (event["seq"].as_u64().expect("seq"), event["event"].as_str().expect("kind")))
        .collect()
}

#[tokio::test]
async fn what_happened_is_answered_with_the_order_and_what_may_follow() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    api.clock.advance(Duration::from_secs(1));
    let answer = api.says(&id, json!({"event": "PREPARING", "source": "kitchen"}), 201).await;
    let order = api.get(&format!("/orders/{id}")).await.json()["order"].clone();
    assert_eq!(order["status"], "PREPARING");
    let event = json!({"event": "PREPARING", "meta": {"source": "kitchen"}, "seq": 3, "timestamp": "2026-01-02T03:04:06.678Z"});
    let allowed = [&ALL[1..]].concat();
    let expected = json!({"outcome": "applied", "events": [event], "order": order, "allowed": allowed});
    assert_eq!(answer, expected);
}
