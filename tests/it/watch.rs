//! `order watch`, as a terminal, a pipe and a program see it.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use crate::{
    double::{Double, answer},
    harness::{BINARY, SIX, Service, binary, ended, folder, within},
};

/// What a finished watch printed, without a complaint.
async fn watched(service: &Service, id: &str, more: &[&str]) -> String {
    let output = ended(binary(&[&["order", "watch", id, "--url", &service.url], more].concat(), &[])).await;
    let (told, complaints) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    assert_eq!((output.status.code(), complaints.as_deref()), (Some(0), Ok("")));
    told.expect("text")
}

/// Insists that each event has one line of its own.
fn one_line_each(told: &str) {
    assert_eq!(told.lines().count(), 6, "{told}");
    for (line, name) in told.lines().zip(SIX) {
        assert!(line.contains(&format!(" {name}")), "{told}");
    }
}

#[tokio::test]
async fn a_pipe_gets_a_line_for_each_event() {
    let service = Service::start(&[("STAGE_DELAYS", "200ms")]).await;
    let id = service.place("pizza").await;
    let told = watched(&service, &id, &[]).await;
    one_line_each(&told);
    assert!(!told.contains('\x1b') && told.contains("  +0.2"), "{told}");
    assert_eq!(watched(&service, &id, &[]).await, told, "the same when all is over");

    let told = watched(&service, &id, &["--json"]).await;
    let mut told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (position, event) in (1..).zip(&mut told) {
        assert_eq!(event.as_object_mut().expect("an object").remove("seq"), Some(Value::from(position)));
    }
    assert_eq!(Value::from(told), service.json(&format!("/orders/{id}")).await["events"]);
    service.stop().await;
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_watch_that_sees_nothing_says_why() {
    let service = Service::start(&[]).await;
    let unknown = "ORD-00000000000000000000000000";
    for (url, reason) in
        [(service.url.as_str(), "no order has this id"), ("http://127.0.0.1:9", "is the service running?")]
    {
        let output = ended(binary(&["order", "watch", unknown, "--url", url], &[])).await;
        assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
        let line = String::from_utf8(output.stderr).expect("text");
        assert!(line.contains(reason) && line.lines().count() == 1, "{line}");
    }
}

/// The service is gone for a while: no line is missing and none comes twice.
#[tokio::test]
async fn a_watch_goes_on_after_a_restart() {
    let data = folder();
    let mut service = Service::start_in(data.path(), &[("STAGE_DELAYS", "1s")]).await;
    let id = service.place("pizza").await;
    let (url, port) = (service.url.clone(), service.url.rsplit(':').next().expect("a port").to_owned());
    let mut command = binary(&["order", "watch", &id, "--url", &url], &[]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(lines.next_line().await.expect("text").expect("goes on"));
    }
    service.terminate().await;
    assert_eq!(service.exit().await.code, Some(0));
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "1s"), ("APP_PORT", &port)]).await;
    while let Some(line) = lines.next_line().await.expect("text") {
        told.push(line);
    }
    one_line_each(&told.join("\n"));
    let output = watch.wait_with_output().await.expect("it ends");
    let complaint = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(0), "{complaint}");
    assert_eq!(complaint, "order-tracker: the connection is lost; trying again\n");
    service.stop().await;
}

/// A service that is busy is asked again, after as long as it wants, and that is said once.
#[tokio::test]
async fn a_watch_begins_again_where_it_is_told_to_come_back() {
    let id = "ORD-01ARZ3NDEK0000000000000000";
    let event = |name: &str, seq: u8| {
        let data = json!({"event": name, "timestamp": "2026-01-02T03:04:05.678Z", "meta": null, "seq": seq});
        format!("id: {seq}\nevent: status\ndata: {data}\n\n")
    };
    let busy = || answer("503 Service Unavailable", &["retry-after: 1"], "{}");
    let stream = |frames: &str| answer("200 OK", &["content-type: text/event-stream"], frames);
    let end = "event: end\ndata: {}\n\n";
    let (first, rest) = (event("CREATED", 1), format!("{}{}{end}", event("CREATED", 1), event("PLACED", 2)));
    let answers = vec![busy(), String::new(), busy(), stream(&first), busy(), stream(&rest)];
    let service = Double::start(answers).await;
    let begun = std::time::Instant::now();
    let output = ended(binary(&["order", "watch", id, "--url", &service.url], &[])).await;
    let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), told.lines().count()), (Some(0), 2), "{told}{said}");
    let busy = format!("order-tracker: {} answers 503 Service Unavailable; trying again\n", service.url);
    assert_eq!(said, format!("{busy}order-tracker: the connection is lost; trying again\n"));
    assert!(
        begun.elapsed() >= std::time::Duration::from_secs(3),
        "three pauses of a second: {:?}",
        begun.elapsed()
    );
    let asked = service.asked();
    assert_eq!(asked.len(), 6);
    assert!(!asked[3].contains("last-event-id") && asked[5].contains("last-event-id: 1\r\n"), "{asked:?}");
}

/// A bar moves through the steps, in colour unless that is not wanted.
#[tokio::test]
async fn a_terminal_gets_a_bar() {
    let service = Service::start(&[("STAGE_DELAYS", "200ms")]).await;
    for (no_color, painted) in [("", true), ("1", false)] {
        let id = service.place("pizza").await;
        let watch = format!("{} order watch {id} --url {}", BINARY, service.url);
        let mut command = Command::new("script");
        command.args(["-qec", &watch, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", no_color);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = ended(command).await;
        let told = String::from_utf8(output.stdout).expect("text");
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert_eq!(told.contains("\x1b[32m"), painted, "{told:?}");
        for state in ["PLACED for ", "COOKING for ", "DELIVERED for "] {
            assert!(told.contains(state), "{state} in {told:?}");
        }
        assert!(painted || told.contains("●━●━◉─○─○"), "{told:?}");
        let lines = told.lines().map(|line| line.rsplit("\x1b[2K").next().unwrap_or_default());
        one_line_each(&lines.collect::<Vec<_>>().join("\n"));
    }
    service.stop().await;
}

/// The bar is there while nothing happens, not only with the next event.
#[tokio::test]
async fn a_bar_is_shown_at_once() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let id = service.place("pizza").await;
    let watch = format!("{} order watch {id} --url {}", BINARY, service.url);
    let mut command = Command::new("script");
    command.args(["-qec", &watch, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut watch = command.spawn().expect("it starts");
    let (mut screen, mut out) = (Vec::new(), watch.stdout.take().expect("piped"));
    while !String::from_utf8_lossy(&screen).contains("◉─○─○─○─○  PLACED for ") {
        assert!(within(out.read_buf(&mut screen)).await.expect("read") > 0, "it ended");
    }
    service.stop().await;
}
