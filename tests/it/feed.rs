//! Everything that happened, read by pages and followed, by programs and by `order-tracker events`.

use std::{collections::BTreeMap, process::Stdio};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
};

use crate::{
    cli::run,
    double::{Double, answer, json as answered},
    harness::{SIX, Service, binary, ended, folder, within},
    stack::Stack,
};

/// Everything behind a cursor, page by page.
async fn all(service: &Service, mut after: String, limit: usize) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let page = service.json(&format!("/events?after={after}&limit={limit}")).await;
        all.extend(page["events"].as_array().expect("events").iter().cloned());
        page["next"].as_str().expect("a cursor").clone_into(&mut after);
        if page["caught_up"] == json!(true) {
            return all;
        }
    }
}

/// Insists that these are whole lives, each event once and in order.
fn are_whole(events: &[Value], orders: &[String]) {
    let cursor = |event: &Value| event["cursor"].as_str().expect("a text").parse::<u64>().expect("a number");
    assert!(events.iter().map(cursor).is_sorted_by(|before, after| before < after), "{events:?}");
    let mut lives = BTreeMap::<&str, Vec<&str>>::new();
    for event in events {
        let life = lives.entry(event["order_id"].as_str().expect("an id")).or_default();
        life.push(event["event"].as_str().expect("a name"));
        assert_eq!(event["seq"], json!(life.len()));
    }
    let mut expected: Vec<&str> = orders.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert!(lives.keys().copied().eq(expected), "{lives:?}");
    assert!(lives.values().all(|life| life == &SIX), "{lives:?}");
}

/// `order-tracker events` that goes on.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(url: &str, more: &[&str]) -> Self {
        let mut command = binary(&[&["events", "--follow", "--url", url], more].concat(), &[]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    async fn event(&mut self) -> Value {
        let line = within(self.lines.next_line()).await.expect("text").expect("goes on");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Presses Ctrl-C; answers its exit code and what it complained of.
    async fn interrupt(self) -> (Option<i32>, String) {
        let pid = self.child.id().expect("it runs").to_string();
        let done = tokio::process::Command::new("kill").args(["-INT", &pid]).status().await;
        assert!(done.is_ok_and(|status| status.success()));
        let output = within(self.child.wait_with_output()).await.expect("it ends");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    }
}

/// The service is killed and started again while somebody follows: nothing is missing and nothing comes twice.
///
/// Promise 8: who was away misses nothing.
#[tokio::test]
async fn a_follower_goes_on_after_a_crash() {
    let (data, delays) = (folder(), ("STAGE_DELAYS", "300ms"));
    let service = Service::start_in(data.path(), &[delays]).await;
    let (url, port) = (service.url.clone(), service.url.rsplit(':').next().expect("a port").to_owned());
    let mut orders = join_all((0..5).map(|_| service.place("pizza"))).await;
    let mut follower = Follower::start(&url, &["--json"]);
    let mut told = Vec::new();
    while told.len() < 12 {
        told.push(follower.event().await);
    }
    orders.extend(join_all((0..5).map(|_| service.place("ramen"))).await);
    while told.len() < 25 {
        told.push(follower.event().await);
    }
    service.kill().await;

    let service = Service::start_in(data.path(), &[delays, ("APP_PORT", &port)]).await;
    orders.extend(join_all((0..5).map(|_| service.place("soup"))).await);
    while told.len() < 15 * SIX.len() {
        told.push(follower.event().await);
    }
    are_whole(&told, &orders);
    for limit in [7, 1_000] {
        assert_eq!(all(&service, "0".to_owned(), limit).await, told, "by pages of {limit}");
    }
    let (code, complaints) = follower.interrupt().await;
    assert_eq!(code, Some(130));
    let lines: Vec<&str> = complaints.lines().collect();
    assert!(lines.len() <= 1, "said once at most: {complaints}");
    let note: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(
        note.iter().all(|note| note["note"].as_str().is_some_and(|note| note.ends_with("; trying again")))
    );
    service.stop().await;
}

#[tokio::test]
async fn what_happened_is_printed_to_its_end() {
    let service = Service::start(&[("STAGE_DELAYS", "0s")]).await;
    let id = service.place("pizza").await;
    service.reached(&id, "DELIVERED").await;
    let said = async |arguments: &[&str]| {
        let output = run(&[&["events", "--url", &service.url], arguments].concat(), &[]).await;
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let table = said(&[]).await;
    assert_eq!(table.lines().count(), 6, "{table}");
    for ((line, name), seq) in table.lines().zip(SIX).zip(1..) {
        let status = if seq == 1 { "PLACED" } else { name };
        assert!(line[19..].starts_with('.') && line[23..].starts_with(" UTC  "), "{line}");
        let words: Vec<&str> = line[27..].split_whitespace().collect();
        let source: &[&str] = if seq == 1 { &["from", "http"] } else { &[] };
        assert_eq!(words, [&[id.as_str(), &seq.to_string(), name, status][..], source].concat(), "{line}");
    }
    let lines = said(&["--json"]).await;
    let told: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(told, all(&service, "0".to_owned(), 100).await);
    for (arguments, seqs) in [
        (&["--limit", "2"][..], &[1, 2][..]),
        (&["--after", "4"], &[5, 6]),
        (&["--after", "now"], &[]),
        (&["--after", "NOW", "--limit", "3"], &[]),
        (&["--event", "cooking"], &[4]),
        (&["--event", "out-for-delivery", "--after", "0"], &[5]),
        (&["--after", "", "--event=", "--limit", ""], &[1, 2, 3, 4, 5, 6]),
        (&["--follow", "--limit", "4"], &[1, 2, 3, 4]),
    ] {
        let told = said(&[arguments, &["--json"]].concat()).await;
        let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(told.iter().map(|event| event["seq"].clone()).collect::<Vec<_>>(), seqs, "{arguments:?}");
    }
    service.stop().await;
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn events_that_can_not_be_read_say_why() {
    let service = Service::start(&[]).await;
    for (arguments, code, reason) in [
        (&["--after", "x"][..], 2, "--after: \"x\" is not valid: must be a cursor of the feed, or now"),
        (&["--limit", "0"], 2, "must be a whole number from 1"),
        (&["--event", "BURNT"], 2, "PLACED"),
        (&["--after", "99"], 2, "after must be a cursor that was given out: the last one is 0"),
        (&["--follow", "--url", "http://127.0.0.1:9"], 1, "is the service running?"),
    ] {
        let url = [("ORDER_TRACKER_URL", service.url.as_str())];
        let output = run(&[&["events"], arguments].concat(), &url).await;
        let line = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{line}");
        assert!(line.contains(reason) && line.lines().count() == 1, "{line}");
    }
    service.stop().await;
}

/// A stream that breaks off is asked for again with the last cursor, be it of an event or of a beat.
#[tokio::test]
async fn a_follower_comes_back_with_the_last_cursor() {
    let event = |cursor: u8| {
        json!({
            "cursor": cursor.to_string(), "order_id": "ORD-\u{1b}[31m", "seq": cursor, "event": "PLACED\n",
            "status": "PLACED", "timestamp": "2026-01-02T03:04:05.678Z", "meta": null,
        })
    };
    let frame = |cursor| format!("id: {cursor}\nevent: event\ndata: {}\n\n", event(cursor));
    let stream = |frames: &str| answer("200 OK", &["content-type: text/event-stream"], frames);
    let page = json!({"events": [event(1)], "next": "3", "caught_up": true});
    let beat = "id: 9\nevent: beat\ndata: {}\n\n";
    let answers = vec![
        answered(&page),
        stream(&format!("retry: 2000\nid: 3\n\n{}{}", frame(3), frame(5))),
        stream(beat),
        answer("503 Service Unavailable", &["retry-after: 1"], "{}"),
        stream(&format!("{}{}", frame(9), frame(10))),
    ];
    let service = Double::start(answers).await;
    let told = ended(binary(&["events", "--follow", "--limit", "3", "--url", &service.url], &[])).await;
    let (lines, said) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert_eq!((told.status.code(), lines.lines().count()), (Some(0), 3), "{lines}{said}");
    assert!(!lines.contains('\x1b') && lines.contains("\\u{1b}"), "foreign text is cleaned: {lines:?}");
    assert_eq!(
        said,
        format!("order-tracker: {} answers 503 Service Unavailable; trying again\n", service.url)
    );
    let asked = service.asked();
    let seen: Vec<Option<&str>> = asked
        .iter()
        .map(|request| request.lines().find_map(|line| line.strip_prefix("last-event-id: ")))
        .collect();
    assert_eq!(seen, [None, Some("3"), Some("5"), Some("9"), Some("9")]);
    assert!(asked[0].starts_with("GET /events?limit=3 ") && asked[1].contains("accept: text/event-stream"));
}

/// Whichever replica is asked, and whichever made the step.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn replicas_tell_the_same() {
    let stack = Stack::make().await;
    let (one, other) = tokio::join!(stack.replica("200ms"), stack.replica("200ms"));
    let mut follower = Follower::start(&other.url, &["--json"]);
    let places = (0..20).map(|n| if n % 2 == 0 { one.place("pizza") } else { other.place("ramen") });
    let orders = join_all(places).await;
    let mut told = Vec::new();
    while told.len() < orders.len() * SIX.len() {
        told.push(follower.event().await);
    }
    are_whole(&told, &orders);
    for replica in [&one, &other] {
        assert_eq!(all(replica, "0".to_owned(), 33).await, told);
    }
    assert_eq!(follower.interrupt().await, (Some(130), String::new()));
    one.stop().await;
    other.stop().await;
}

/// Promise 8: who was away misses nothing. A connection that is lost while much is still to be told is made anew.
#[tokio::test]
async fn who_follows_comes_back_before_all_is_told() {
    let item = |cursor: u32| {
        json!({"cursor": cursor.to_string(), "order_id": "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV", "seq": cursor,
            "event": "CREATED", "status": "PLACED", "timestamp": "2026-01-02T03:04:05.678Z", "meta": null})
    };
    let page = json!({"events": [item(1)], "next": "1", "caught_up": false});
    let frame = format!("id: 2\nevent: event\ndata: {}\n\n", item(2));
    let service = Double::start(vec![
        answered(&page),
        String::new(),
        answer("200 OK", &["content-type: text/event-stream"], &frame),
    ])
    .await;
    let told = run(&["events", "--follow", "--limit", "2", "--json", "--url", &service.url], &[]).await;
    let lines = String::from_utf8(told.stdout).expect("text");
    let cursors: Vec<&str> = lines.lines().filter_map(|line| line.split('"').nth(3)).collect();
    assert_eq!(cursors, ["1", "2"], "{lines}");
    assert!(service.asked().last().expect("asked").contains("last-event-id: 1"), "{:?}", service.asked());
}
