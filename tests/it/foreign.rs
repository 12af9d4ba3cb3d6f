//! What others wrote, on its way to an operator's terminal.

use serde_json::{Value, json};

use crate::{
    cli::{complaint, run},
    double::{Double, answer, json as answered},
    harness::{Service, eventually},
    kafka::{DLQ, Kafka},
};

/// A title for the window, colours, a cleared screen, a line of its own, an eight-bit command and a turn.
const HOSTILE: &str = "x\u{1b}]0;mine\u{7}\u{1b}[2J\r\norder-tracker: all is well\u{9b}31m\u{202e}y";
const ID: &str = "ORD-01ARZ3NDEK0000000000000000";

/// Insists that nothing in a text commands a terminal.
fn harmless(text: &[u8]) -> String {
    let text = String::from_utf8(text.to_vec()).expect("text");
    let harmful = |char: char| char.is_control() && char != '\n' || ('\u{202a}'..='\u{202e}').contains(&char);
    assert!(!text.contains(harmful), "{}", text.escape_debug());
    text
}

fn order() -> Value {
    json!({"order_id": ID, "customer_name": HOSTILE, "address": HOSTILE, "item": HOSTILE, "size": "small",
        "status": "PLACED", "created_at": "2026-01-02T03:04:05.678Z", "updated_at": "2026-01-02T03:04:05.678Z"})
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_problem_of_others_is_one_harmless_line() {
    let problem = json!({"code": "not-found", "detail": HOSTILE,
        "errors": [{"field": HOSTILE, "code": "x", "message": HOSTILE}], "allowed": [HOSTILE]});
    let service = Double::start(vec![answer("404 Not Found", &[], &problem.to_string())]).await;
    for command in [
        &["order", "get", ID][..],
        &["order", "list"],
        &["order", "watch", ID],
        &["order", "report", ID, "READY"],
        &["order", "cancel", ID, "--reason", "other"],
    ] {
        let line = complaint(command, &[("ORDER_TRACKER_URL", &service.url)], 1).await;
        assert!(harmless(line.as_bytes()).contains("\\u{1b}[2J\\r\\norder-tracker: all"), "{line}");
        let told = run(&[command, &["--json"]].concat(), &[("ORDER_TRACKER_URL", &service.url)]).await;
        let told: Value = serde_json::from_str(&harmless(&told.stderr)).expect("JSON");
        assert_eq!(told, problem, "escaped, it says the same");
    }
}

#[tokio::test]
async fn orders_of_others_are_shown_harmless() {
    let order = order();
    let event =
        json!({"event": "CREATED", "timestamp": "2026-01-02T03:04:05.678Z", "meta": {"source": HOSTILE}});
    let tracked = json!({"order": order, "events": [event]});
    for (body, command) in [(json!([order]), &["order", "list"][..]), (tracked, &["order", "get", ID])] {
        let service = Double::start(vec![answered(&body)]).await;
        let settings = [("ORDER_TRACKER_URL", service.url.as_str())];
        let told = run(command, &settings).await;
        let text = harmless(&told.stdout);
        assert!(text.contains("small x\\u{1b}]0;mine\\u{7}\\u{1b}[2J\\r\\norder"), "{text}");
        let told = run(&[command, &["--json"]].concat(), &settings).await;
        assert_eq!(serde_json::from_str::<Value>(&harmless(&told.stdout)).expect("JSON"), body);
    }
    let meta =
        json!({"source": HOSTILE, "by": HOSTILE, "note": HOSTILE, "station": HOSTILE, "reason": HOSTILE});
    let event = json!({"event": "READY", "timestamp": "2026-01-02T03:04:05.678Z", "meta": meta, "seq": 1});
    let answered = json!({"outcome": "applied", "order": order, "events": [event], "allowed": [HOSTILE]});
    let service = Double::start(vec![crate::double::json(&answered)]).await;
    let told = run(&["order", "report", ID, "READY", "--url", &service.url], &[]).await;
    assert_eq!(harmless(&told.stdout).lines().count(), 2, "{told:?}");
    let frame = format!("id: 1\nevent: status\ndata: {event}\n\nevent: end\ndata: {{}}\n\n");
    let service = Double::start(vec![answer("200 OK", &["content-type: text/event-stream"], &frame)]).await;
    let told = run(&["order", "watch", ID, "--json", "--url", &service.url], &[]).await;
    assert_eq!(serde_json::from_str::<Value>(&harmless(&told.stdout)).expect("JSON"), event);
}

/// Whoever may write to the topic writes to those who look at its dead letters.
#[tokio::test]
async fn dead_letters_are_shown_harmless() {
    let service = Service::start(&[]).await;
    let kafka = Kafka::of(&service);
    let mut bad = order();
    bad["status"] = HOSTILE.into();
    let value = bad.to_string();
    kafka.put(Some(HOSTILE), Some(value.as_bytes())).await;
    kafka.put(Some(HOSTILE), Some(HOSTILE.as_bytes())).await;
    eventually("both become dead letters", async || (kafka.all(DLQ).await.len() == 2).then_some(())).await;
    let settings = [("KAFKA_BROKERS", service.brokers.as_str())];
    let listed = run(&["dead-letters", "list"], &settings).await;
    let listed = harmless(&listed.stdout);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("unknown variant `x\\u{1b}]0;mine"), "{listed}");
    for line in listed.lines() {
        let place = line.split_whitespace().next().expect("a place");
        let shown = harmless(&run(&["dead-letters", "show", place], &settings).await.stdout);
        assert!(shown.contains("key: x\\u{1b}]0;mine"), "{shown}");
        let told = run(&["dead-letters", "show", place, "--json"], &settings).await;
        let told: Value = serde_json::from_str(&harmless(&told.stdout)).expect("JSON");
        assert_eq!(told["key"], HOSTILE);
        assert!(told["value"] == HOSTILE || told["value"] == value.as_str(), "{told}");
    }
    service.stop().await;
}

/// What was typed may have been copied from anywhere.
#[tokio::test]
async fn a_wrong_argument_is_shown_harmless() {
    for arguments in [
        &["order", "get", HOSTILE][..],
        &["order", HOSTILE],
        &[HOSTILE],
        &["order", "list", "--status", HOSTILE],
    ] {
        let told = run(arguments, &[]).await;
        assert_eq!(told.status.code(), Some(2));
        assert!(harmless(&told.stderr).contains("\\u{1b}[2J"), "{told:?}");
    }
}
