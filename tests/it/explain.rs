//! Why an order stands where it stands: what `order explain` says of orders that somebody's trigger holds.

use serde_json::{Value, json};
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, postgres::PgConnectOptions,
    sqlite::SqliteConnectOptions,
};

use crate::{
    cli::{complaint, said},
    harness::{Service, eventually, folder},
    stack::Stack,
};

/// Asks by command, for programs, until the first cause has this code.
async fn explained(service: &Service, id: &str, code: &str) -> Value {
    eventually(&format!("{id}: {code}"), async || {
        let told = said(&["order", "explain", id, "--json", "--url", &service.url]).await;
        let told: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("not JSON: {told}"));
        (told["causes"][0]["code"] == code).then_some(told)
    })
    .await
}

/// An order that can't be cooked says so everywhere in the same words.
async fn is_held(service: &Service) {
    let id = service.place("pizza").await;
    let told = explained(service, &id, "order_held").await;
    assert_eq!((&told["status"], &told["waits_for"]), (&json!("PREPARING"), &json!("COOKING")), "{told}");
    // A report needs the same rows, but nothing says that it may not be made.
    assert_eq!((&told["allowed"][0], &told["allowed"][3]), (&json!("COOKING"), &json!("CANCELLED")));
    let tracked = service.json(&format!("/orders/{id}")).await;
    assert_eq!(told["since"], tracked["order"]["updated_at"]);
    let text = told["causes"][0]["text"].as_str().expect("a text");
    assert!(text.starts_with(&format!("{id} can't be moved: ")) && text.contains("no cook"), "{text}");
    assert!(text.contains("COOKING was due at ") && text.contains("mend what the reason names"), "{text}");

    let shown = said(&["order", "explain", &id, "--url", &service.url]).await;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with(&format!("{id}  PREPARING  since 20")), "{shown}");
    assert!(lines[0].ends_with(" UTC  waits for COOKING"), "{shown}");
    assert!(lines[1].starts_with(&format!("- {id} can't be moved: ")), "{shown}");
    assert!(lines.last().is_some_and(|line| line.starts_with("may be reported: COOKING, ")), "{shown}");
    // The reason as it stands in `/readyz`, on the board and in the explanation.
    let ready = service.json("/readyz").await;
    let reason = ready["degraded"].as_array().expect("a list").iter().find(|one| one["part"] == "scheduler");
    let reason = reason.unwrap_or_else(|| panic!("{ready}"))["reason"].as_str().expect("a reason");
    assert!(text.starts_with(reason), "{reason}: {text}");
}

/// Promise 6: it says what is wrong. In time, delivered, held and unknown.
#[tokio::test]
async fn an_order_is_explained_by_command() {
    let data = folder();
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "0s,0s,0s,1h")]).await;
    let id = service.place("pizza").await;
    service.reached(&id, "OUT_FOR_DELIVERY").await;
    let told = explained(&service, &id, "stage_not_over").await;
    assert_eq!(told, service.json(&format!("/orders/{id}/explain")).await);
    assert_eq!(told["waits_for"], "DELIVERED");
    // Without the prefix and in any case, as ids may be typed.
    let typed = id.trim_start_matches("ORD-").to_lowercase();
    let shown = said(&["order", "explain", &typed, "--url", &service.url]).await;
    assert!(shown.contains("\n- its stage is not over yet: DELIVERED is due at 20"), "{shown}");

    let unknown = ["order", "explain", "ORD-00000000000000000000000000", "--url", &service.url];
    assert_eq!(complaint(&unknown, &[], 1).await, "order-tracker: no order has this id");
    let wrong = ["order", "explain", "ORD-x", "--url", &service.url];
    assert!(!complaint(&wrong, &[], 2).await.is_empty());

    let mut console =
        SqliteConnectOptions::new().filename(data.path().join("orders.db")).connect().await.expect("opens");
    let trigger = "CREATE TRIGGER held BEFORE INSERT ON order_events WHEN NEW.event = 'COOKING'
        BEGIN SELECT RAISE(ABORT, 'no cook'); END";
    console.execute(trigger).await.expect("made");
    service.stop().await;
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "0s,1s,0s,0s")]).await;
    is_held(&service).await;
    console.execute("DROP TRIGGER held").await.expect("dropped");
    let told = explained_at_last(&service).await;
    assert_eq!((&told["status"], &told["waits_for"]), (&json!("DELIVERED"), &Value::Null), "{told}");
    console.close().await.expect("closes");
    service.stop().await;
}

/// An order that nothing holds goes on to its end, and says that too.
async fn explained_at_last(service: &Service) -> Value {
    let id = service.place("pizza").await;
    service.reached(&id, "DELIVERED").await;
    explained(service, &id, "finished").await
}

/// Promise 6: it says what is wrong, on PostgreSQL as well.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn an_order_is_explained_on_postgres() {
    let stack = Stack::make().await;
    let service = stack.replica("0s,1s,0s,0s").await;
    let server: PgConnectOptions = stack.dsn.parse().expect("a DSN");
    let mut console = server.connect().await.expect("connects");
    for statement in [
        "CREATE FUNCTION no_cook() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.event = 'COOKING' THEN RAISE EXCEPTION 'no cook'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER no_cook BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION no_cook()",
    ] {
        console.execute(statement).await.expect("made");
    }
    is_held(&service).await;
    console.execute("DROP TRIGGER no_cook ON order_events").await.expect("dropped");
    let told = explained_at_last(&service).await;
    assert_eq!(told["waits_for"], Value::Null, "{told}");
    console.close().await.expect("closes");
    service.stop().await;
}
