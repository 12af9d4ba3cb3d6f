//! What people type, in the ways in which they type it, and what they are told when it can't be done.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    cli::{complaint, run},
    double::{Double, answer, json as answered},
    harness::{Service, binary, ended, folder},
};

const NOBODY: [(&str, &str); 1] = [("ORDER_TRACKER_URL", "http://127.0.0.1:9")];
const CREATE: [&str; 8] =
    ["order", "create", "--customer-name", "Ada", "--address", "1 High St", "--item", "pizza"];
const ID: &str = "ORD-01ARZ3NDEK0000000000000000";

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// A key that can't be sent is told before anything is.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_key_that_can_not_be_sent_is_named() {
    let long = "k".repeat(300);
    for (key, shown) in [("a\nb", "a\\nb"), ("", ""), (" k", " k"), ("é", "é"), (&long, &long)] {
        let line = complaint(&[&CREATE[..], &["--idempotency-key", key]].concat(), &NOBODY, 2).await;
        let expected = format!(
            "order-tracker: --idempotency-key: \"{shown}\" is not valid: must be 1 to 255 printable ASCII characters \
             without spaces around"
        );
        assert_eq!(line, expected);
    }
}

#[tokio::test]
async fn ids_statuses_and_sizes_are_taken_in_any_case() {
    let service = Service::start(&[("STAGE_DELAYS", "0s,0s,1h,1h")]).await;
    let said = async |arguments: &[&str]| {
        let output = run(&[arguments, &["--url", &service.url]].concat(), &[]).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let id = said(&[&CREATE[..], &["--size", "LARGE"]].concat()).await.trim().to_owned();
    service.reached(&id, "COOKING").await;
    let (lower, bare) = (id.to_lowercase(), id.trim_start_matches("ORD-"));
    for typed in [&lower, bare, &bare.to_lowercase(), &id] {
        assert!(said(&["order", "get", typed]).await.starts_with(&id), "{typed}");
    }
    for (status, found) in
        [("cooking", true), ("Cooking", true), ("out_for_delivery", false), ("out-for-delivery", false)]
    {
        assert_eq!(said(&["order", "list", "--status", status]).await.contains(&id), found, "{status}");
    }
    // What a script leaves empty is not there.
    let empty = ["order", "list", "--status", "", "--limit=", "--cursor", ""];
    assert!(said(&empty).await.contains(&id));
    service.stop().await;
}

/// Page after page, each order once, and from any place on.
#[tokio::test]
async fn a_list_can_be_read_to_its_end() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let placed = run(&["simulate", "--count", "430", "--url", &service.url], &[]).await;
    assert_eq!(placed.status.code(), Some(0), "{placed:?}");
    let list = async |arguments: &[&str]| {
        let output = run(&[&["order", "list", "--url", &service.url], arguments].concat(), &[]).await;
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{arguments:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let ids = |table: &str| table.lines().map(|line| line[..30].to_owned()).collect::<Vec<String>>();
    let all = ids(&list(&["--all"]).await);
    assert_eq!(all.len(), 430);
    assert!(all.is_sorted_by(|newer, older| newer > older), "each once, the newest first");
    assert_eq!(ids(&list(&[]).await), all[..20]);
    assert_eq!(ids(&list(&["--limit", "250"]).await), all[..250], "more than a page");
    assert_eq!(ids(&list(&["--all", "--cursor", &all[399]]).await), all[400..]);
    let told: Value =
        serde_json::from_str(&list(&["--all", "--json", "--status", "placed"]).await).expect("JSON");
    let told: Vec<&str> =
        told.as_array().expect("a list").iter().filter_map(|order| order["order_id"].as_str()).collect();
    assert_eq!(told, all);
    assert_eq!(list(&["--all", "--cursor", &all[429]]).await, "");
    assert_eq!(list(&["--all", "--json", "--cursor", &all[429]]).await, "[]\n");
    service.stop().await;
}

/// A question is asked again, and so is an order with a key; one without could be placed twice.
#[tokio::test]
async fn what_is_busy_is_asked_again_where_that_does_no_harm() {
    let busy = || {
        let problem = json!({"code": "unavailable", "detail": "the database is away; try again shortly"});
        answer("503 Service Unavailable", &["retry-after: 0"], &problem.to_string())
    };
    let good = answered(&json!({"order_id": ID}));
    let keyed = [&CREATE[..], &["--idempotency-key", "k"]].concat();
    for (command, good) in [(&["order", "list"][..], answered(&json!([]))), (&keyed, good.clone())] {
        let service = Double::start(vec![busy(), String::new(), busy(), good]).await;
        let told = run(command, &[("ORDER_TRACKER_URL", &service.url)]).await;
        let note = format!("order-tracker: {} answers 503 Service Unavailable; trying again\n", service.url);
        assert_eq!((told.status.code(), text(&told.stderr)), (Some(0), note.as_str()), "said once");
        assert_eq!(service.asked().len(), 4);
    }
    let service = Double::start(vec![busy(), good]).await;
    let line = complaint(&CREATE, &[("ORDER_TRACKER_URL", &service.url)], 1).await;
    assert_eq!(line, "order-tracker: the database is away; try again shortly");
    assert_eq!(service.asked().len(), 1);

    let patient = Double::start(vec![answer("503 Service Unavailable", &["retry-after: 3600"], "{}")]).await;
    let begun = Instant::now();
    let line = complaint(&["order", "list", "--url", &patient.url], &[], 1).await;
    assert!(line.contains("503 Service Unavailable") && begun.elapsed() < Duration::from_secs(5), "{line}");
}

/// A program that asks for JSON gets nothing else, whatever goes wrong.
#[tokio::test]
async fn complaints_are_json_where_results_are() {
    let service = Service::start(&[]).await;
    let told = async |arguments: &[&str], settings: &[(&str, &str)], code| {
        let output = run(&[arguments, &["--json"]].concat(), settings).await;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{arguments:?}: {output:?}");
        serde_json::from_slice::<Value>(&output.stderr)
            .unwrap_or_else(|_| panic!("{arguments:?}: {output:?}"))
    };
    let url = [("ORDER_TRACKER_URL", service.url.as_str())];
    let unknown = told(&["order", "get", ID], &url, 1).await;
    assert_eq!((&unknown["code"], &unknown["status"]), (&json!("not-found"), &json!(404)));
    assert!(unknown["request_id"].is_string(), "{unknown}");
    let invalid =
        told(&["order", "create", "--customer-name", " ", "--address", "x", "--item", "x"], &url, 2).await;
    assert_eq!(invalid["errors"][0]["field"], "customer_name");
    let data = folder();
    let nowhere = ("DATA_DIR", data.path().join("none").to_str().expect("text").to_owned());
    let dead = ("KAFKA_BROKERS", "127.0.0.1:9");
    for (arguments, settings, code, part) in [
        (&["order", "list"][..], &NOBODY[..], 1, "connection refused"),
        (&["order", "watch", ID], &NOBODY, 1, "connection refused"),
        (&["simulate", "--count", "1"], &NOBODY, 1, "connection refused"),
        (&["healthcheck"], &[("APP_PORT", "9")], 1, "connection refused"),
        (&["dead-letters", "list"], &[], 2, "KAFKA_BROKERS is not set"),
        (&["dead-letters", "show", "0:1"], &[dead], 1, "127.0.0.1:9 (connection refused)"),
        (&["dead-letters", "requeue", "--all"], &[dead], 1, "127.0.0.1:9 (connection refused)"),
        (&["verify"], &[dead], 1, "127.0.0.1:9 (connection refused)"),
        (&["verify"], &[(nowhere.0, &nowhere.1)], 1, "can't read the database"),
        (&["migrate"], &[("DATA_DIR", "/proc/none")], 1, "/proc/none"),
        (&["order", "get", "7"], &[], 2, "<ORDER_ID>"),
        (&["order", "list", "--limit", "x"], &[], 2, "--limit"),
        (&["order", "list", "--what"], &[], 2, "--what"),
    ] {
        let error = told(arguments, settings, code).await;
        assert!(error["error"].as_str().expect("a sentence").contains(part), "{arguments:?}: {error}");
    }
    service.stop().await;
}

/// Nobody waits ten seconds to be told nothing.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_dead_broker_is_named_at_once_and_once() {
    let data = folder();
    let path = data.path().to_str().expect("text");
    assert_eq!(run(&["migrate"], &[("DATA_DIR", path)]).await.status.code(), Some(0));
    for command in [&["dead-letters", "list"][..], &["dead-letters", "requeue", "0:1"], &["verify"]] {
        let begun = Instant::now();
        let mut process = binary(command, &[("DATA_DIR", path), ("KAFKA_BROKERS", "127.0.0.1:9,[::1]:9")]);
        process.env("RUST_LOG", "debug");
        let output = ended(process).await;
        let expected = "order-tracker: no broker at 127.0.0.1:9 (connection refused), [::1]:9 (";
        let line = text(&output.stderr);
        assert!(
            line.starts_with(expected) && line.ends_with("): KAFKA_BROKERS says where it is\n"),
            "{line}"
        );
        assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
