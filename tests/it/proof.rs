//! `verify` and `dead-letters`: what an operator can prove, and mend, from a terminal.

use std::{path::Path, process::Output};

use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, sqlite::SqliteConnectOptions};

use crate::{
    harness::{Service, binary, ended, eventually, folder},
    kafka::{DLQ, Kafka, foreign},
};

pub(crate) const FOREIGN: &str = "ORD-01ARZ3NDEK0000000000000000";

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

async fn run(arguments: &[&str], brokers: &str, data: &Path) -> Output {
    let data = data.to_str().expect("text");
    ended(binary(arguments, &[("KAFKA_BROKERS", brokers), ("DATA_DIR", data)])).await
}

/// What [`broken`] says of one order each of an event gone at the start, gone later, doubled, with a stamp
/// that goes back, with another status, and not on the topic.
pub(crate) const TAMPERED: [(&str, u64); 7] = [
    ("every order has CREATED and PLACED", 1),
    ("no step is skipped", 1),
    ("no step is there twice unless it was taken back", 1),
    ("events stand at 1, 2, 3 and so on, and the order at the last of them", 4),
    ("stamps never go back", 1),
    ("status and stamps are those of the events", 1),
    ("every order that was sent is on the topic", 1),
];

/// The rules that a report calls broken, with how many orders break them.
pub(crate) fn broken(report: &Output) -> Vec<(String, u64)> {
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    let rules = report["rules"].as_array().expect("rules").iter();
    let count = |rule: &Value| rule["violations"].as_u64().expect("a count");
    let name = |rule: &Value| rule["rule"].as_str().expect("a rule").to_owned();
    rules.filter(|rule| count(rule) > 0).map(|rule| (name(rule), count(rule))).collect()
}

#[tokio::test]
async fn a_running_service_is_proved_whole() {
    let data = folder();
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "0s")]).await;
    for _ in 0..10 {
        service.place("pizza").await;
    }
    service.settled().await;
    let noted = |line: &str| line.starts_with("events written up to") && line.ends_with(" 60");
    // How far the topic is written is noted a moment after the acknowledgement.
    let proof = eventually("all events are noted", async || {
        let proof = run(&["verify"], &service.brokers, data.path()).await;
        out(&proof).lines().any(noted).then_some(proof)
    })
    .await;
    let text = out(&proof);
    assert_eq!(proof.status.code(), Some(0), "{text}");
    for line in [
        "orders 10",
        "events 60",
        "messages on the topic 10",
        "messages that are duplicates 0",
        "messages on the event topic 60",
        "messages that are events again 0",
        "every event that was written is on the event topic ok",
        "the event topic holds each order's events in order ok",
    ] {
        let found = text.lines().any(|told| told.split_whitespace().collect::<Vec<_>>().join(" ") == line);
        assert!(found, "{line} in\n{text}");
    }
    assert!(!text.contains("BROKEN"), "{text}");
    let data = data.path().to_str().expect("text");
    let settings = [("KAFKA_BROKERS", &*service.brokers), ("DATA_DIR", data), ("KAFKA_EVENTS_TOPIC", "off")];
    let proof = ended(binary(&["verify"], &settings)).await;
    assert!(out(&proof).contains("not read: KAFKA_EVENTS_TOPIC is off"), "{}", out(&proof));
}

/// Promise 3: an effect happens once. Events that are missing on their topic, out of order or there again are told apart.
#[tokio::test]
async fn the_event_topic_is_compared_with_the_table() {
    let data = folder();
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "0s")]).await;
    let kafka = Kafka::of(&service);
    let (whole, forged) = (service.place("pizza").await, "ORD-01ARZ3NDEK0000000000000001");
    service.settled().await;
    service.counted("events_produced_total", 6).await;
    // What somebody else has put there for an order that comes to be by hand.
    for seq in [1, 3, 2, 5, 6] {
        kafka.put_event(forged, seq).await;
    }
    kafka.put_event(&whole, 2).await;
    let options = SqliteConnectOptions::new().filename(data.path().join("orders.db"));
    let mut console = options.connect().await.expect("opens");
    let statements = format!(
        "INSERT INTO orders SELECT '{forged}', customer_name, address, item, size, status, seq, created_at, updated_at,
             due_at, expected_at, ready_at FROM orders WHERE order_id = '{whole}';
         INSERT INTO order_events SELECT 6 + id, '{forged}', event, seq, \"timestamp\", meta FROM order_events
             WHERE order_id = '{whole}';"
    );
    console.execute(sqlx::AssertSqlSafe(statements)).await.expect("forges");
    console.close().await.expect("closes");
    // The service writes them itself, in order; but 3 was there before 2.
    service.counted("events_produced_total", 12).await;
    eventually("the place is noted", async || {
        let proof = run(&["verify", "--json"], &service.brokers, data.path()).await;
        let report: Value = serde_json::from_slice(&proof.stdout).expect("JSON");
        (report["event_topic"]["written"] == "12").then_some(())
    })
    .await;
    let proof = run(&["verify", "--json"], &service.brokers, data.path()).await;
    let rules =
        ["every order that was sent is on the topic", "the event topic holds each order's events in order"];
    assert_eq!(broken(&proof), rules.map(|rule| (rule.to_owned(), 1)));
    let report: Value = serde_json::from_slice(&proof.stdout).expect("JSON");
    let told = &report["event_topic"];
    let counts = ["messages", "duplicates", "others"].map(|name| told[name].as_u64().expect("a count"));
    assert_eq!((counts, &told["truncated"]), ([18, 6, 0], &json!(false)));
}

/// What somebody did to the database by hand, past its triggers, does not go unseen.
#[tokio::test]
async fn every_tampering_is_found() {
    let data = folder();
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "0s")]).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(service.place("pizza").await);
    }
    service.settled().await;
    tamper(data.path(), &ids).await;
    let proof = run(&["verify", "--json"], &service.brokers, data.path()).await;
    assert_eq!(proof.status.code(), Some(1));
    assert_eq!(broken(&proof), TAMPERED.map(|(rule, count)| (rule.to_owned(), count)));
}

/// One fault for each of seven orders; the events' table is made anew without its constraint.
async fn tamper(data: &Path, ids: &[String]) {
    let options = SqliteConnectOptions::new().filename(data.join("orders.db")).foreign_keys(false);
    let mut console = options.connect().await.expect("opens");
    let [unbegun, gap, doubled, back, status, moved, unsent] = ids else { panic!("seven orders: {ids:?}") };
    let statements = format!(
        "CREATE TABLE copy AS SELECT * FROM order_events;
         DROP TABLE order_events;
         ALTER TABLE copy RENAME TO order_events;
         DELETE FROM order_events WHERE order_id = '{unbegun}' AND event = 'PLACED';
         DELETE FROM order_events WHERE order_id = '{gap}' AND event = 'COOKING';
         INSERT INTO order_events SELECT * FROM order_events WHERE order_id = '{doubled}' AND event = 'COOKING';
         UPDATE order_events SET \"timestamp\" = \"timestamp\" - 1 WHERE order_id = '{back}' AND event = 'COOKING';
         UPDATE orders SET status = 'COOKING', due_at = updated_at + 3600000 WHERE order_id = '{status}';
         UPDATE orders SET seq = 7 WHERE order_id = '{moved}';
         INSERT INTO orders SELECT '{FOREIGN}', customer_name, address, item, size, status, seq, created_at, updated_at,
             due_at, expected_at, ready_at FROM orders WHERE order_id = '{unsent}';
         INSERT INTO order_events SELECT 1000 + id, '{FOREIGN}', event, seq, \"timestamp\", meta FROM order_events
             WHERE order_id = '{unsent}';"
    );
    console.execute(sqlx::AssertSqlSafe(statements)).await.expect("tampers");
    console.close().await.expect("closes");
}

/// The embedded broker forgets everything at exit, as a real one does whose disk is lost.
///
/// Promise 2: everything accepted reaches the topic, again if the topic has lost it.
#[tokio::test]
async fn orders_that_a_broker_has_lost_are_published_again() {
    let data = folder();
    let start = async || Service::start_in(data.path(), &[("STAGE_DELAYS", "0s")]).await;
    let republish = async |arguments: &[&str]| {
        let output = run(&[&["republish"], arguments].concat(), "", data.path()).await;
        (output.status.code(), out(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let nowhere = republish(&["--since", "1h"]).await;
    assert!(nowhere.0 == Some(1) && nowhere.2.contains("there is no orders.db"), "{nowhere:?}");

    let service = start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(service.place("pizza").await);
    }
    service.settled().await;
    service.counted("events_produced_total", 30).await;
    let beside = republish(&["--since", "1h"]).await;
    assert_eq!((beside.0, beside.1.as_str()), (Some(1), ""));
    assert!(
        beside.2.contains("while the service is stopped only") && beside.2.contains("in use"),
        "{beside:?}"
    );
    service.stop().await;

    let service = start().await;
    let proof = run(&["verify", "--json"], &service.brokers, data.path()).await;
    let lost =
        ["every order that was sent is on the topic", "every event that was written is on the event topic"];
    assert_eq!(broken(&proof), lost.map(|rule| (rule.to_owned(), 5)));
    service.stop().await;
    // As the runbook says.
    let mut console =
        SqliteConnectOptions::new().filename(data.path().join("orders.db")).connect().await.expect("opens");
    console.execute("UPDATE feed_cursors SET cursor = 0").await.expect("sets back");
    console.close().await.expect("closes");

    let (code, told, complaint) = republish(&[&ids[0], FOREIGN]).await;
    assert_eq!(complaint, format!("order-tracker: no order has the id {FOREIGN}\n"));
    assert_eq!(
        (code, told.as_str()),
        (Some(1), "1 order is published again by the service that runs, or that starts next\n")
    );
    let (code, told, _) = republish(&["--until", "1h", "--json"]).await;
    let nothing = json!({"queued": 0, "waiting": 0, "unknown": [], "unreadable": [], "refused": []});
    assert_eq!((code, serde_json::from_str::<Value>(&told).expect("JSON")), (Some(0), nothing));
    let (code, told, _) = republish(&["--since", "1h"]).await;
    assert_eq!(code, Some(0));
    assert!(told.starts_with("4 orders are published again") && told.contains("; 1 waited"), "{told}");

    let service = start().await;
    service.settled().await;
    service.counted("events_produced_total", 30).await;
    let proof = run(&["verify"], &service.brokers, data.path()).await;
    assert_eq!(proof.status.code(), Some(0), "{}", out(&proof));
    for (wrong, says) in [
        (&["--since", "yesterday"][..], "must be a moment"),
        (&["--since", "1h", "--until", "2h"], "is not before --until"),
        (&["--since", "1h", &ids[0]], "cannot be used with"),
        (&[], "required"),
    ] {
        let (code, _, complaint) = republish(wrong).await;
        assert!(code == Some(2) && complaint.contains(says), "{wrong:?}: {complaint}");
    }
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_requeued() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let (kafka, data) = (Kafka::of(&service), folder());
    kafka.put(Some(FOREIGN), Some(b"{\"\x1b[31m")).await;
    service.counted("dead_letters_total{reason=\"not_json\"}", 1).await;
    assert_eq!(kafka.all(DLQ).await.len(), 1);

    let run = async |arguments: &[&str]| run(arguments, &service.brokers, data.path()).await;
    let listed = out(&run(&["dead-letters", "list"]).await);
    assert!(listed.contains("not_json") && listed.lines().count() == 1, "{listed}");
    let place = listed.split_whitespace().next().expect("a place").to_owned();

    let shown = out(&run(&["dead-letters", "show", &place]).await);
    assert!(shown.contains("dlq_reason: not_json") && shown.contains(FOREIGN), "{shown}");
    assert!(!shown.contains('\u{1b}'), "a dead letter can't command the terminal: {shown:?}");

    let requeued = run(&["dead-letters", "requeue", &place, "--json"]).await;
    assert_eq!(requeued.status.code(), Some(0));
    assert_eq!(serde_json::from_str::<Value>(&out(&requeued)).expect("JSON"), json!({"requeued": [place]}));
    // It is as bad as before: it comes back as a new dead letter, and the old one is done with.
    service.counted("dead_letters_total{reason=\"not_json\"}", 2).await;
    let listed = out(&run(&["dead-letters", "list"]).await);
    assert!(listed.lines().count() == 1 && !listed.starts_with(&format!("{place} ")), "{listed}");
    assert_eq!(out(&run(&["dead-letters", "list", "--all"]).await).lines().count(), 2);

    // The board tells the same: one waits, however many there ever were.
    eventually("one dead letter on the board", async || {
        let board = service.get("/").await.text().await.expect("text");
        board.contains("1 × not_json").then_some(())
    })
    .await;
    assert_eq!(service.metric("dead_letters_waiting{reason=\"not_json\"}").await, 1);

    let unknown = run(&["dead-letters", "show", "0:999"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    let nowhere = ended(binary(&["dead-letters", "list"], &[])).await;
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("KAFKA_BROKERS"));
}

/// What was too large to copy is fetched from where it came from.
#[tokio::test]
async fn a_large_dead_letter_is_requeued_whole() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let (kafka, data) = (Kafka::of(&service), folder());
    let mut large = foreign(FOREIGN);
    large["note"] = "x".repeat(20_000).into();
    kafka.put(Some(FOREIGN), Some(large.to_string().as_bytes())).await;
    service.counted("dead_letters_total{reason=\"too_large\"}", 1).await;
    let requeued = run(&["dead-letters", "requeue", "--all"], &service.brokers, data.path()).await;
    assert_eq!(requeued.status.code(), Some(0), "{}", String::from_utf8_lossy(&requeued.stderr));
    let messages = kafka.read(crate::kafka::TOPIC, 2).await;
    assert!(messages.iter().all(|message| message.json() == large));
}
