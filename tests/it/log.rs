//! What the log tells of requests.

use std::process::Stdio;

use reqwest::{Method, Response};
use serde_json::Value;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, sqlite::SqliteConnectOptions};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    abuse::problem,
    harness::{Service, binary, details, eventually, folder, within},
};

async fn ask(service: &Service, method: Method, path: &str, id: &str) -> Response {
    let request = service.request(method, path).header("x-request-id", id).json(&details("pizza"));
    request.send().await.expect("an answer")
}

/// The lines that hold this id, once there is one of this message.
async fn lines(service: &Service, id: &str, message: &str) -> Vec<Value> {
    eventually(message, async || {
        let lines = service.logged();
        let lines = lines.lines().filter(|line| line.contains(id));
        let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
        lines.iter().any(|line| line["message"] == message).then_some(lines)
    })
    .await
}

/// Promise 6: it says what is wrong. Whoever has the id of a failure finds its cause.
#[tokio::test]
async fn the_id_of_an_answer_leads_to_its_lines() {
    let data = folder();
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "1h")]).await;
    assert_eq!(ask(&service, Method::POST, "/orders?secret=7", "my-req-41").await.status(), 201);
    let told = lines(&service, "my-req-41", "answered").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["method"], &told[0]["route"]), (&"POST".into(), &"/orders".into()));
    assert!(told[0]["status"] == 201 && told[0]["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{told:?}");
    assert!(
        !service.logged().contains("secret") && !service.logged().contains("Ada"),
        "{}",
        service.logged()
    );

    let file = SqliteConnectOptions::new().filename(data.path().join("orders.db"));
    let mut console = file.connect().await.expect("opens");
    let trigger = "CREATE TRIGGER broken BEFORE INSERT ON orders WHEN NEW.customer_name LIKE 'Ada%'
        BEGIN SELECT RAISE(ABORT, 'broken'); END";
    console.execute(trigger).await.expect("made");
    let answer = ask(&service, Method::POST, "/orders", "my-req-42").await;
    assert_eq!(problem(answer, 500, "internal-error").await["request_id"], "my-req-42");
    let told = lines(&service, "my-req-42", "answered").await;
    let cause = told.iter().find(|line| line["level"] == "ERROR").expect("a cause");
    assert!(cause["error"].as_str().is_some_and(|error| error.contains("broken")), "{told:?}");

    console.execute("DROP TRIGGER broken; BEGIN IMMEDIATE").await.expect("locked");
    let answer = ask(&service, Method::POST, "/orders", "my-req-43").await;
    problem(answer, 503, "unavailable").await;
    // The writer may try longer than a client waits.
    let told = lines(&service, "my-req-43", "orders are not accepted").await;
    assert!(told.iter().any(|line| line["message"] == "answered"), "{told:?}");
    console.close().await.expect("closed");
    service.stop().await;
}

/// Promise 5: memory, queues and time are bounded. A pipe that nobody reads takes no more lines, and holds up no request.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_nobody() {
    let data = folder();
    let mut command = binary(&["serve"], &[("APP_PORT", "0"), ("LOG_FORMAT", "json")]);
    let mut service = command.env("DATA_DIR", data.path()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut log = BufReader::new(service.stderr.take().expect("piped")).lines();
    let mut field = async |name: &str| loop {
        let line = log.next_line().await.expect("reads").expect("a line");
        let mut line: Value = serde_json::from_str(&line).expect(&line);
        if !line[name].is_null() {
            break line[name].take();
        }
    };
    let url = within(field("url")).await;
    let url = format!("{}/healthz", url.as_str().expect("text"));
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let ask = async || http.get(&url).send().await.expect("an answer").status();
    // Far more than a pipe holds.
    for _ in 0..1_500 {
        assert_eq!(within(ask()).await, 200);
    }
    // Whoever reads on is told.
    let asking = async {
        loop {
            ask().await;
        }
    };
    let missing = within(async {
        tokio::select! {
            missing = field("missing") => missing,
            () = asking => Value::Null,
        }
    });
    assert!(missing.await.as_u64().is_some_and(|lines| lines > 0));
    service.kill().await.expect("killed");
}
