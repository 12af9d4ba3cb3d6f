//! What time does to orders of which people report.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Api,
    reports::of,
    service::{Service, on_both_databases},
};
use crate::order::{Progression, Rules};

on_both_databases!(
    a_delay_puts_off_the_next_step,
    what_nobody_takes_is_cancelled;
    in both modes:
    only_what_the_mode_says_moves_an_order,
);

impl Api {
    /// The status after so many milliseconds.
    async fn after(&self, millis: u64, order_id: &str) -> Value {
        self.clock.advance(Duration::from_millis(millis));
        self.store.advance(100).await.expect("advances");
        self.found(order_id).await["order"]["status"].clone()
    }
}

async fn only_what_the_mode_says_moves_an_order(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let timed = service.mode == Progression::Timer;
    for (next, delay) in [("PREPARING", 3), ("COOKING", 5), ("OUT_FOR_DELIVERY", 7), ("DELIVERED", 10)] {
        let before = api.found(&id).await["order"]["status"].clone();
        assert_eq!(api.after(delay * 1_000 - 1, &id).await, before);
        let status = api.after(1, &id).await;
        assert_eq!(status, if timed { json!(next) } else { before });
        api.says(&id, &of(next), if timed { 200 } else { 201 }).await;
    }
    let found = api.found(&id).await;
    let meta = if timed { Value::Null } else { json!({"source": "api"}) };
    let events = found["events"].as_array().expect("events");
    assert_eq!(events.iter().skip(2).map(|event| &event["meta"]).collect::<Vec<_>>(), [&meta; 4]);
}

/// Several add up, and one that comes when the step is overdue counts from then.
async fn a_delay_puts_off_the_next_step(service: Service) {
    let api = service.open().await;
    let late = json!({"event": "DELAYED", "minutes": 1});
    let id = api.place("Ada").await;
    api.says(&id, &late, 201).await;
    api.says(&id, &late, 201).await;
    assert_eq!(api.after(122_999, &id).await, "PLACED");
    api.clock.advance(Duration::from_mins(1));
    api.says(&id, &late, 201).await;
    assert_eq!(api.after(59_999, &id).await, "PLACED");
    assert_eq!(api.after(1, &id).await, "PREPARING");
    // It holds for that stage only.
    assert_eq!(api.after(5_000, &id).await, "COOKING");
}

async fn what_nobody_takes_is_cancelled(service: Service) {
    let rules = Rules { cancel_unaccepted_after: Some(Duration::from_mins(10)), ..Rules::default() };
    let api = service.mode(Progression::Reported).rules(rules).open().await;
    let (id, taken) = (api.place("Ada").await, api.place("Grace").await);
    api.applies(&taken, &["PREPARING"]).await;
    api.applies(&id, &["DELAYED"]).await;
    assert_eq!(api.after(600_000, &id).await, "PLACED", "a delay puts this off too");
    assert_eq!(api.after(600_000, &id).await, "CANCELLED");
    let found = api.found(&id).await;
    assert_eq!(
        found["events"][3],
        json!({"event": "CANCELLED", "timestamp": "2026-01-02T03:24:05.678Z",
            "meta": {"source": "timer", "reason": "not_accepted"}})
    );
    assert_eq!(api.allowed(&id).await, json!(["REVERTED"]));
    // Its clock starts anew when it comes back.
    let back = api.says(&id, &json!({"event": "REVERTED", "reverts": 4}), 201).await;
    assert_eq!(back["order"]["status"], "PLACED");
    assert_eq!(api.after(599_999, &id).await, "PLACED");
    assert_eq!(api.after(1, &id).await, "CANCELLED");
    assert_eq!(api.found(&taken).await["order"]["status"], "PREPARING");
}
