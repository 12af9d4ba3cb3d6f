//! `simulate` against the real service, and against one that refuses.

use std::process::Output;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    double::{Double, answer},
    harness::{Service, binary, ended, eventually, within},
};

async fn simulate(url: &str, arguments: &[&str]) -> Output {
    ended(binary(&[&["simulate", "--url", url], arguments].concat(), &[])).await
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("not JSON: {output:?}"))
}

/// As fast as it goes, each order is placed once and followed until it is delivered; only the result is printed.
#[tokio::test]
async fn orders_are_placed_measured_and_followed() {
    let service = Service::start(&[("STAGE_DELAYS", "0s")]).await;
    let output = simulate(&service.url, &["--count", "40", "--concurrency", "4", "--wait", "--json"]).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let report = json(&output);
    assert_eq!((&report["good"], &report["failed"]), (&40.into(), &0.into()));
    assert_eq!((&report["concurrency"], &report["asked_rate"]), (&4.into(), &Value::Null));
    assert_eq!(report["errors"], serde_json::json!({}));
    assert_eq!(
        (&report["delivery"]["delivered"], &report["delivery"]["undelivered"]),
        (&40.into(), &0.into())
    );
    for part in [&report["latency_ms"], &report["delivery"]["life_ms"]] {
        let at = |name: &str| part[name].as_f64().unwrap_or_else(|| panic!("{name} in {report}"));
        let rising = ["min", "p50", "p90", "p99", "p99.9", "max"].map(at);
        assert!(rising.is_sorted() && at("mean") >= at("min"), "{report}");
    }
    assert_eq!(service.json("/orders?limit=200").await.as_array().map(Vec::len), Some(40));
    service.stop().await;
}

/// In a pipe there is no bar and no escape sequence, and the words are for people.
#[tokio::test]
async fn a_rate_is_kept_and_told_in_plain_words() {
    let service = Service::start(&[]).await;
    let output = simulate(&service.url, &["--rate", "50", "--duration", "400ms"]).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let told = text(&output.stdout);
    assert!(told.starts_with("20 orders placed in 0."), "{told}");
    assert!(told.contains("asked for: 50 a second") && told.contains("p99.9"), "{told}");
    assert!(!told.contains(['\x1b', '\r']), "{told}");
    assert_eq!(service.json("/orders").await.as_array().map(Vec::len), Some(20));
    service.stop().await;
}

/// Nobody there: one line, before anything is counted.
#[tokio::test]
async fn a_service_that_is_not_there_is_told_at_once() {
    let output = simulate("http://127.0.0.1:9", &["--count", "5"]).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    let line = text(&output.stderr);
    assert!(line.contains("(connection refused): is the service running?"), "{line}");
    let output = simulate("http://127.0.0.1:9", &["--rate", "0"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// A service without its database: every answer is counted by its kind, and the exit code tells.
#[tokio::test]
async fn refusals_are_counted_by_kind() {
    let nowhere = [("PG_DSN", "postgres://nobody@127.0.0.1:9/none"), ("KAFKA_BROKERS", "127.0.0.1:9")];
    let service = Service::start(&nowhere).await;
    let output = simulate(&service.url, &["--count", "8", "--concurrency", "8", "--json"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("8 of 8 orders were not placed"), "{output:?}");
    let report = json(&output);
    assert_eq!((&report["good"], &report["failed"]), (&0.into(), &8.into()));
    assert_eq!(report["errors"], serde_json::json!({"503 Service Unavailable": 8}));
    service.stop().await;
}

/// A server that answers one request in three and then closes without a word.
async fn moody(listener: TcpListener) {
    let mut asked = 0;
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 4096];
        // The body may come in a packet of its own; any part of it will do.
        while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
            asked += 1;
            if asked % 3 > 0 {
                break;
            }
            let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}";
            drop(stream.write_all(answer).await);
        }
    }
}

/// Lost connections are counted and made again.
#[tokio::test]
async fn lost_connections_are_counted_and_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(moody(listener));
    let output = simulate(&url, &["--count", "9", "--concurrency", "1", "--json"]).await;
    server.abort();
    let report = json(&output);
    assert_eq!((&report["good"], &report["errors"]["connection lost"]), (&3.into(), &6.into()), "{report}");
    assert_eq!(output.status.code(), Some(1));
}

/// Ctrl-C ends the load, and what was measured until then is shown; nobody waits for reports that are due much later.
#[tokio::test]
async fn ctrl_c_shows_what_was_measured() {
    for more in [&[][..], &["--reports", "--speed", "0.01"]] {
        let service = Service::start(&[]).await;
        let load = ["simulate", "--url", &service.url, "--rate", "200", "--duration", "1h", "--json"];
        let child = binary(&[&load, more].concat(), &[])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("it starts");
        eventually("orders come in", async || {
            (service.json("/orders?limit=5").await.as_array().map(Vec::len) == Some(5)).then_some(())
        })
        .await;
        let pid = child.id().expect("it runs").to_string();
        let done = tokio::process::Command::new("kill").args(["-INT", &pid]).status().await;
        assert!(done.expect("kill is there").success());
        let output = within(child.wait_with_output()).await.expect("it ends");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
        let report = json(&output);
        assert!(report["good"].as_u64() >= Some(5), "{report}");
        assert!(report["seconds"].as_f64() < Some(60.0), "{report}");
        let worked_on = (!more.is_empty()).then(|| report["good"].as_u64().expect("a count"));
        assert_eq!(report["reports"]["orders"].as_u64(), worked_on, "{report}");
        service.stop().await;
    }
}

/// Kitchens and couriers move orders that nothing else moves, to the end of each; what became of their reports is counted,
/// and what the service has counted is the same.
#[tokio::test]
async fn reports_move_orders_to_their_ends() {
    let service = Service::start(&[("PROGRESSION", "reported"), ("STAGE_DELAYS", "1h")]).await;
    let fast = ["--reports", "--speed", "200", "--seed", "7", "--rate", "100", "--wait", "--json"];
    let output = simulate(&service.url, &[&["--count", "120"], &fast[..]].concat()).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let report = json(&output);
    let count = |name: &str| report["reports"][name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"));
    assert_eq!(
        (count("seed"), count("orders"), count("left_out"), count("failed")),
        (7, 120, 0, 0),
        "{report}"
    );
    let parts = count("applied") + count("replayed") + count("ignored") + count("refused");
    assert_eq!(count("reported"), parts, "{report}");
    assert!(count("applied") > 120 * 5 && count("ignored") > 0 && count("replayed") > 0, "{report}");
    let ends = ["delivered", "cancelled"].map(|end| report["delivery"][end].as_u64().expect("a count"));
    assert_eq!((ends.iter().sum::<u64>(), &report["delivery"]["undelivered"]), (120, &0.into()), "{report}");
    assert!(ends[0] > 90 && ends[1] > 0, "{report}");

    let metrics = service.metrics().await;
    let counted = |outcome: &str| {
        let label = format!("outcome=\"{outcome}\"");
        let lines =
            metrics.lines().filter(|line| line.starts_with("reports_total{") && line.contains(&label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    for outcome in ["applied", "ignored", "refused"] {
        // What is answered as before changes nothing, and the service counts it so.
        let replayed = if outcome == "ignored" { count("replayed") } else { 0 };
        assert_eq!(counted(outcome), count(outcome) + replayed, "{outcome}: {report}");
    }
    service.stop().await;
}

/// Where timers move orders too, a report may come earlier and wins; the table is for people.
#[tokio::test]
async fn reports_go_along_with_timers() {
    let service = Service::start(&[("STAGE_DELAYS", "30ms,50ms,70ms,100ms")]).await;
    let arguments = ["--reports", "--speed", "100", "--rate", "40", "--duration", "1s", "--wait"];
    let output = simulate(&service.url, &arguments).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{output:?}");
    let told = text(&output.stdout);
    for part in [" reports on 40 orders (--seed ", " applied\n", " ignored, since they said nothing new\n"] {
        assert!(told.contains(part), "{told}");
    }
    let output = simulate(&service.url, &["--seed", "7"]).await;
    assert_eq!(output.status.code(), Some(2), "of what? {output:?}");
    service.stop().await;
}

/// Nobody answers reports: that is told with the reasons, and the exit code tells.
#[tokio::test]
async fn reports_without_an_answer_are_counted_by_kind() {
    let placed = answer("201 Created", &[], "{\"order_id\": \"ORD-01ARZ3NDEK0000000000000000\"}");
    let service = Double::start(vec![placed, answer("404 Not Found", &[], "{}")]).await;
    let arguments = ["--reports", "--speed", "10000", "--count", "1", "--concurrency", "1", "--json"];
    let output = simulate(&service.url, &arguments).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("1 of 1 reports were not answered"), "{output:?}");
    let report = json(&output);
    assert_eq!(report["reports"]["errors"], serde_json::json!({"404 Not Found": 1}), "{report}");
}
