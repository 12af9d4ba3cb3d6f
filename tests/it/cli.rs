//! What people type and what they read.

use std::{
    io::{Read as _, Write as _},
    process::Output,
};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::harness::{SIX, Service, binary, ended, eventually, folder, names, within};

/// A port where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";
/// An order that nobody has placed.
const FOREIGN: &str = "ORD-01ARZ3NDEK0000000000000000";

pub(crate) async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = binary(arguments, settings);
    command.env("COLUMNS", "100");
    ended(command).await
}

fn text(bytes: &[u8]) -> String {
    let lines: Vec<&str> = std::str::from_utf8(bytes).expect("text").lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// The stdout of a command that must end well and complain about nothing.
pub(crate) async fn said(arguments: &[&str]) -> String {
    let output = run(arguments, &[]).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    text(&output.stdout)
}

/// The one line of a command that must fail with this exit code and print no result.
pub(crate) async fn complaint(arguments: &[&str], settings: &[(&str, &str)], code: i32) -> String {
    let output = run(arguments, settings).await;
    let line = text(&output.stderr);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(code), String::new()),
        "{settings:?}: {line}"
    );
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

/// The release and the commit in brackets.
#[tokio::test]
async fn the_version_names_release_and_commit() {
    let version = said(&["--version"]).await;
    let commit = version.strip_prefix(concat!("order-tracker ", env!("CARGO_PKG_VERSION"), " ("));
    let commit = commit.and_then(|rest| rest.strip_suffix(')')).unwrap_or_else(|| panic!("{version}"));
    assert!(!commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{version}");
}

/// Results on stdout, for people or as JSON; nothing else there.
#[tokio::test]
async fn orders_are_placed_and_found_by_command() {
    let service = Service::start(&[("STAGE_DELAYS", "0s")]).await;
    let order = async |arguments: &[&str]| {
        let arguments = [&["order"], arguments, &["--url", &service.url]].concat();
        said(&arguments).await
    };
    let json =
        |text: String| serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("not JSON: {text}"));
    let create =
        ["create", "--customer-name", "Ada", "--address", "1 High St", "--item", "pizza", "--size", "small"];

    let none = run(&["order", "list", "--url", &service.url], &[]).await;
    assert_eq!((none.status.code(), none.stdout), (Some(0), Vec::new()), "no line, not an empty one");
    assert_eq!(json(order(&["list", "--json"]).await), json!([]));
    let id = order(&create).await;
    service.reached(&id, "DELIVERED").await;

    let keyed = [&create[..], &["--idempotency-key", "k", "--json"]].concat();
    let placed = json(order(&keyed).await);
    assert_eq!(json(order(&keyed).await), placed, "the same key places one order");
    service.reached(placed["order_id"].as_str().expect("an id"), "DELIVERED").await;

    let tracked = json(order(&["get", &id, "--json"]).await);
    assert_eq!(tracked, service.json(&format!("/orders/{id}")).await);
    assert_eq!(names(&tracked), SIX);
    let timeline = order(&["get", &id]).await;
    for word in SIX.into_iter().chain([id.as_str(), "small pizza for Ada, 1 High St"]) {
        assert!(timeline.contains(word), "no {word} in\n{timeline}");
    }

    let listed = json(order(&["list", "--status", "DELIVERED", "--json"]).await);
    assert_eq!(listed, service.json("/orders").await);
    let table = order(&["list", "--limit", "1"]).await;
    assert_eq!(table.lines().count(), 1, "{table}");
    assert!(table.starts_with(placed["order_id"].as_str().expect("an id")), "{table}");

    let unknown = ["order", "get", FOREIGN, "--url", &service.url];
    assert_eq!(complaint(&unknown, &[], 1).await, "order-tracker: no order has this id");
    let empty =
        ["order", "create", "--customer-name", " ", "--address", "x", "--item", "x", "--url", &service.url];
    let line = complaint(&empty, &[], 2).await;
    assert!(line.contains("customer_name must be 1 to 100 characters"), "{line}");
}

/// A mistake is told without asking anybody, with the names that there are.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_wrong_argument_is_one_line_and_exit_code_2() {
    for (arguments, says) in [
        (
            &["order", "list", "--limit", "0"][..],
            "--limit: \"0\" is not valid: must be a whole number from 1",
        ),
        (
            &["simulate", "--rate", "no"],
            "--rate: \"no\" is not valid: must be a number from 0.0001 to 100000",
        ),
        (
            &["simulate", "--url", "no"],
            "ORDER_TRACKER_URL (--url): \"no\" is not valid: must be the service's",
        ),
        (&["order", "get", "7"], "<ORDER_ID>: \"7\" is not valid: "),
        (
            &["order", "list", "--status", "eaten"],
            "--status: \"eaten\" is not valid: must be one of PLACED, ",
        ),
        (&["order", "list", "--cursor", "x"], "--cursor: \"x\" is not valid: "),
        (&["dead-letters", "show", "7"], "<PARTITION:OFFSET>: \"7\" is not valid: must be a partition and"),
        (&["dead-letters", "list"], "KAFKA_BROKERS is not set"),
        (&["healthcheck", "--app-port", "no"], "APP_PORT (--app-port): \"no\" is not valid: "),
    ] {
        let line = complaint(arguments, &[], 2).await;
        assert!(line.starts_with(&format!("order-tracker: {says}")), "{line}");
    }
}

/// `| head`: nobody is left to go on for, and that is no failure.
#[tokio::test]
async fn a_reader_that_leaves_ends_the_command_quietly() {
    let service = Service::start(&[("STAGE_DELAYS", "100ms,100ms,1h,1h")]).await;
    let id = service.place("pizza").await;
    let url = ["--url", &service.url];
    let watch = [&["order", "watch", &id], &url[..]].concat();
    let commands: [&[&str]; 4] = [&watch, &["man"], &["completions", "bash"], &["--help"]];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = binary(arguments, &[]);
        command.stdout(writer).stderr(std::process::Stdio::piped());
        let child = command.spawn().expect("it starts");
        let output = within(child.wait_with_output()).await.expect("it ends");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    }

    // One that has read a line, too.
    let mut child = binary(&watch, &[]).stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.next_line().await.expect("read").expect("a line").contains("CREATED"));
    drop(lines);
    assert_eq!(within(child.wait()).await.expect("it ends").code(), Some(0));
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn nobody_at_the_url_is_one_line_that_says_what_to_do() {
    let expected = "no answer from http://127.0.0.1:9 (connection refused): is the service running? \
        --url or ORDER_TRACKER_URL says where it listens";
    for command in [&["order", "list"][..], &["order", "watch", FOREIGN], &["simulate", "--count", "1"]] {
        let line = complaint(command, &[("ORDER_TRACKER_URL", NOBODY)], 1).await;
        assert_eq!(line, format!("order-tracker: {expected}"), "{command:?}");
    }
    let unknown = [("ORDER_TRACKER_URL", "http://nowhere.invalid")];
    let line = complaint(&["order", "list"], &unknown, 1).await;
    let (head, tail) =
        ("order-tracker: no answer from http://nowhere.invalid (", "): is the service running?");
    let why =
        line.strip_prefix(head).and_then(|rest| rest.split_once(tail)).unwrap_or_else(|| panic!("{line}")).0;
    assert!(!why.contains("client error") && !why.contains("os error"), "{line}");

    let strange = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", strange.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let (mut connection, _) = strange.accept().expect("a client");
        assert!(connection.read(&mut [0; 1024]).expect("a request") > 0);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        connection.write_all(answer).expect("sent");
    });
    let line = complaint(&["order", "list", "--url", &url], &[], 1).await;
    assert_eq!(line, format!("order-tracker: {url} answered something else: is this an order-tracker?"));
}

/// One line with the setting and what is allowed. What a variable holds may be a secret in the wrong place.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_wrong_setting_stops_the_start_with_one_line() {
    for (name, given, allowed) in [
        ("APP_PORT", "70000", "from 0 to 65535"),
        ("APP_PORT", "http", "from 0 to 65535"),
        ("KAFKA_BROKERS", " ,", "host:port"),
        ("KAFKA_BROKERS", "http://kafka:9092", "host:port"),
        ("KAFKA_TOPIC", "a b", "letters, digits"),
        ("STAGE_DELAYS", "abc", "3s,5s,7s,10s"),
        ("STAGE_DELAYS", "1s,2s", "3s,5s,7s,10s"),
        ("STAGE_DELAYS", "-1s", "3s,5s,7s,10s"),
        ("SIMULATE_RATE", "-1", "0 or a number from 0.0001 to 1000"),
        ("SIMULATE_RATE", "NaN", "0 or a number from 0.0001 to 1000"),
        ("SIMULATE_RATE", "1e-20", "0 or a number from 0.0001 to 1000"),
        ("PG_MAX_CONNECTIONS", "0", "a whole number from 6 to 1000"),
        ("PG_MAX_CONNECTIONS", "many", "a whole number from 6 to 1000"),
        ("SHUTDOWN_TIMEOUT", "0s", "from 1s to 1h"),
        ("KAFKA_TOPIC_PARTITIONS", "0", "a whole number from 1 to 1000"),
        ("KAFKA_TOPIC_PARTITIONS", "-6", "a whole number from 1 to 1000"),
        ("KAFKA_TOPIC_REPLICATION", "6.5", "a whole number from 1 to 32767"),
        ("LOG_FORMAT", "xml", "text, json"),
        ("RUST_LOG", "order_tracker=loud", "info"),
    ] {
        for command in [&["serve"][..], &[]] {
            let line = complaint(command, &[(name, given)], 2).await;
            assert!(line.starts_with(&format!("order-tracker: {name} ")), "{line}");
            assert!(line.contains(": what was given is not valid: ") && line.contains(allowed), "{line}");
        }
    }
    let secret = complaint(&["serve"], &[("KAFKA_PROPERTIES", "hunter2")], 2).await;
    assert!(secret.contains("KAFKA_PROPERTIES") && secret.contains("name=value"), "{secret}");
    assert!(!secret.contains("hunter2"), "{secret}");
}

/// Compose files write `PG_DSN=${PG_DSN:-}`.
#[tokio::test]
async fn an_empty_variable_is_an_unset_one() {
    let names = [
        "APP_HOST",
        "PG_DSN",
        "KAFKA_BROKERS",
        "KAFKA_TOPIC",
        "KAFKA_DLQ_TOPIC",
        "KAFKA_EVENTS_TOPIC",
        "KAFKA_TOPIC_PARTITIONS",
        "KAFKA_PROPERTIES",
        "STAGE_DELAYS",
        "SIMULATE_RATE",
        "SHUTDOWN_TIMEOUT",
        "RUST_LOG",
    ];
    let service = Service::start(&names.map(|name| (name, ""))).await;
    assert!(!service.brokers.is_empty(), "the embedded broker");
    service.place("pizza").await;
    service.stop().await;
}

/// Passwords are neither printed at the start nor told when something is wrong with them.
#[tokio::test]
async fn secrets_stay_out_of_the_log() {
    let away = [("KAFKA_BROKERS", "127.0.0.1:9"), ("RUST_LOG", "debug")];
    let properties = ("KAFKA_PROPERTIES", "sasl.username=tom,sasl.password=hunter2");
    let service = Service::start(&[away[0], away[1], properties]).await;
    eventually("the broker is missed", async || {
        service.logged().contains("no order can be published").then_some(())
    })
    .await;
    assert!(service.logged().contains("sasl.password=***"));
    assert!(!service.logged().contains("hunter2"));

    let data = folder();
    let path = data.path().to_str().expect("text");
    let dsn = ("PG_DSN", "postgres://tom:hunter2@127.0.0.1:9/orders");
    let mut child = binary(&["serve"], &[dsn, ("DATA_DIR", path), ("APP_PORT", "0")])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    // The settings and the first thing that is said about the database.
    for n in 0..2 {
        let line = lines.next_line().await.expect("read").expect("a line");
        assert!(!line.contains("hunter2"), "{line}");
        assert!(n > 0 || line.contains("***"), "{line}");
    }
}

/// A property that the client does not know may hold a password with a typing error in its name.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn an_unknown_kafka_property_is_named_without_its_value() {
    let data = folder();
    let settings = [
        ("DATA_DIR", data.path().to_str().expect("text")),
        ("APP_PORT", "0"),
        ("KAFKA_BROKERS", "127.0.0.1:9"),
        ("KAFKA_PROPERTIES", "sasl.pasword=hunter2"),
        ("RUST_LOG", "off"),
    ];
    let line = complaint(&["serve"], &settings, 2).await;
    assert!(line.contains("sasl.pasword") && line.contains("KAFKA_PROPERTIES"), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
}

/// A password with a comma in it looks like another property.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_comma_in_a_password_is_told_and_the_password_is_not() {
    let data = folder();
    let line = async |properties: &str| {
        let settings = [
            ("DATA_DIR", data.path().to_str().expect("text")),
            ("APP_PORT", "0"),
            ("KAFKA_BROKERS", "127.0.0.1:9"),
            ("KAFKA_PROPERTIES", properties),
        ];
        complaint(&["serve"], &settings, 2).await
    };
    for properties in ["sasl.password=hunter2,swordfish=x", "sasl.password=hunter2,swordfish"] {
        let line = line(properties).await;
        assert!(line.contains("KAFKA_PROPERTIES") && line.contains("is written \\,"), "{line}");
        assert!(!line.contains("hunter2") && !line.contains("swordfish"), "{line}");
    }
    let line = line("group.protocol=consumer,heartbeat.interval.ms=77").await;
    assert!(line.contains("heartbeat.interval.ms") && !line.contains("77"), "{line}");
}

/// Dead letters on the orders' own topic would come back as orders, for ever.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn dead_letters_need_a_topic_of_their_own() {
    let data = folder();
    let settings = [("DATA_DIR", data.path().to_str().expect("text")), ("KAFKA_TOPIC", "food")];
    for (name, taken) in
        [("KAFKA_DLQ_TOPIC", "food"), ("KAFKA_EVENTS_TOPIC", "food"), ("KAFKA_EVENTS_TOPIC", "food.dlq")]
    {
        let line = complaint(&["serve"], &[settings[0], settings[1], (name, taken)], 2).await;
        assert!(line.contains(name) && line.contains(taken), "{line}");
    }
}

/// What a container asks of itself.
#[tokio::test]
async fn a_healthcheck_is_an_exit_code() {
    let service = Service::start(&[]).await;
    let port = service.address().rsplit(':').next().expect("a port");
    for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        let output = run(&["healthcheck"], &[("APP_HOST", host), ("APP_PORT", port)]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let asked = run(&["healthcheck", "--json"], &[("APP_PORT", port)]).await;
    assert_eq!(serde_json::from_slice::<Value>(&asked.stdout).expect("JSON"), json!({"status": "ok"}));
    let line = complaint(&["healthcheck"], &[("APP_PORT", "9")], 1).await;
    let expected = "no answer from http://127.0.0.1:9 (connection refused): is the service running? \
        APP_HOST and APP_PORT say where it listens";
    assert_eq!(line, format!("order-tracker: {expected}"));
}

/// A schema that is up to date stays so.
#[tokio::test]
async fn migrate_can_be_repeated() {
    let data = folder();
    for _ in 0..2 {
        let output = run(&["migrate"], &[("DATA_DIR", data.path().to_str().expect("text"))]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "the database is up to date");
    }
    let output = run(&["migrate", "--json"], &[("DATA_DIR", data.path().to_str().expect("text"))]).await;
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).expect("JSON"), json!({"up_to_date": true}));
    assert!(data.path().join("orders.db").is_file());
    Service::start_in(data.path(), &[]).await.stop().await;
}

/// A shell can be taught the commands.
#[tokio::test]
async fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&["completions", shell]).await;
        assert!(
            ["order-tracker", "healthcheck", "migrate"].iter().all(|word| script.contains(word)),
            "{script}"
        );
    }
}

/// Every command has a manual page, and the exit codes stand where people look for them.
#[tokio::test]
async fn manual_pages_name_commands_and_exit_codes() {
    let plain = |page: String| page.replace("\\-", "-");
    let page = plain(said(&["man"]).await);
    let words = [".TH order-tracker 1", ".SH SYNOPSIS", "STAGE_DELAYS", ".SH \"EXIT STATUS\"", ".B 130"];
    for word in words {
        assert!(page.contains(word), "no {word} in\n{page}");
    }
    let pages = folder();
    said(&["man", pages.path().to_str().expect("text")]).await;
    for name in ["order-tracker", "order-tracker-order-create", "order-tracker-simulate"] {
        let page = plain(std::fs::read_to_string(pages.path().join(format!("{name}.1"))).expect("a page"));
        assert!(page.contains(&format!(".TH {name} 1")) && page.contains(".SH \"EXIT STATUS\""), "{page}");
    }
}
