//! Starts the real binary and talks to it.

use std::{
    path::Path,
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use order_tracker::order::Status;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
pub(crate) use testkit::SIX;
use testkit::{POLL, Process, command, until};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);
/// The service.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_order-tracker");

/// Looks until there is something to see.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    until(PATIENCE, what, async || Ok(look().await)).await.expect("it comes")
}

/// The binary with these settings and no others, whatever the environment of the tests holds.
pub(crate) fn binary(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    command(BINARY, arguments, settings.iter().copied())
}

/// Runs a command that must end by itself.
pub(crate) async fn ended(mut command: Command) -> Output {
    let output = timeout(PATIENCE, command.output()).await;
    output.unwrap_or_else(|_| panic!("still running: {command:?}")).expect("it starts")
}

/// What must happen by itself.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it happens in time")
}

/// A valid order for this item.
pub(crate) fn details(item: &str) -> Value {
    json!({"customer_name": "Ada Lovelace", "address": "12 St James's Square", "item": item, "size": "large"})
}

/// The names of a timeline's events.
pub(crate) fn names(tracked: &Value) -> Vec<&str> {
    let events = tracked["events"].as_array().expect("events");
    events.iter().map(|event| event["event"].as_str().expect("a name")).collect()
}

/// How an ended process ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
}

/// A running service; killed when dropped.
pub(crate) struct Service {
    process: Process,
    log: Log,
    /// `http://127.0.0.1:port`.
    pub(crate) url: String,
    /// Where its embedded broker listens.
    pub(crate) brokers: String,
    pub(crate) http: reqwest::Client,
    _own_data: Option<TempDir>,
}

impl Service {
    /// A service with an empty database of its own.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let data = folder();
        let service = Self::start_in(data.path(), settings).await;
        Self { _own_data: Some(data), ..service }
    }

    /// A service with an empty database that may have so many files and connections open.
    pub(crate) async fn start_small(descriptors: u32, settings: &[(&str, &str)]) -> Self {
        let data = folder();
        let limited = format!("ulimit -n {descriptors} && exec \"$0\" serve");
        let shell = command("sh", &["-c", &limited, BINARY], settings.iter().copied());
        let service = Self::launch(shell, data.path()).await;
        Self { _own_data: Some(data), ..service }
    }

    /// A service on a given database.
    pub(crate) async fn start_in(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::launch(binary(&["serve"], settings), data).await
    }

    async fn launch(mut command: Command, data: &Path) -> Self {
        let log = Log::default();
        let written = Arc::clone(&log);
        command.env("DATA_DIR", data);
        let process = Process::start(command, move |line| written.lock().expect("no panic").push(line)).await;
        let mut process = process.unwrap_or_else(|error| panic!("{error:#}\n{}", text(&log)));
        let (url, brokers) = (process.url.clone(), process.brokers.take().unwrap_or_default());
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Self { process, log, url, brokers, http, _own_data: None }
    }

    /// `host:port`, for connections without a client.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.expect("an answer")
    }

    pub(crate) async fn post(&self, body: &Value) -> Response {
        self.request(Method::POST, "/orders").json(body).send().await.expect("an answer")
    }

    /// The body of a 200.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "GET {path}");
        response.json().await.expect("JSON")
    }

    /// Places an order and answers its id.
    pub(crate) async fn place(&self, item: &str) -> String {
        let response = self.post(&details(item)).await;
        assert_eq!(response.status(), 201);
        let body: Value = response.json().await.expect("JSON");
        body["order_id"].as_str().expect("an id").to_owned()
    }

    /// Waits until an order has this status and answers it with its timeline.
    pub(crate) async fn reached(&self, order_id: &str, status: &str) -> Value {
        let path = format!("/orders/{order_id}");
        eventually(&format!("{order_id} is {status}"), async || {
            let response = self.get(&path).await;
            let tracked: Value = response.json().await.expect("JSON");
            (tracked["order"]["status"] == status).then_some(tracked)
        })
        .await
    }

    /// Waits until no order is on its way and none waits to be published.
    pub(crate) async fn settled(&self) {
        for status in Status::open() {
            let path = format!("/orders?limit=1&status={status}");
            eventually(&path, async || (self.json(&path).await == json!([])).then_some(())).await;
        }
        // The board's figures are up to half a second old.
        let asked = tokio::time::Instant::now();
        eventually("an empty outbox", async || {
            let board = self.get("/").await.text().await.expect("text");
            let empty = board.contains("Unsent <span class=\"number\">0<");
            (empty && asked.elapsed() > Duration::from_millis(600)).then_some(())
        })
        .await;
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        self.get("/metrics").await.text().await.expect("text")
    }

    /// The value of one series, named with its labels.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let text = self.metrics().await;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().expect("a whole number")
    }

    /// Waits until a series has at least this value.
    pub(crate) async fn counted(&self, series: &str, least: u64) {
        eventually(&format!("{series} is {least}"), async || {
            (self.metric(series).await >= least).then_some(())
        })
        .await;
    }

    /// All that was logged, as it was written.
    pub(crate) fn logged(&self) -> String {
        text(&self.log)
    }

    /// Ends the process as a power cut would.
    pub(crate) async fn kill(self) {
        self.process.kill().await.expect("killed");
    }

    /// Asks the process to end.
    pub(crate) async fn terminate(&self) {
        self.process.signal("TERM").await.expect("it runs");
    }

    /// Asks the process to end again and again, as an impatient person does.
    pub(crate) async fn insist(&mut self) -> Exit {
        let started = Instant::now();
        let ended = async {
            loop {
                drop(self.process.signal("TERM").await);
                if let Ok(status) = timeout(5 * POLL, self.process.wait()).await {
                    break status.expect("waited");
                }
            }
        };
        let status = timeout(PATIENCE, ended).await.expect("it ends");
        Exit { code: status.code(), took: started.elapsed() }
    }

    /// Waits for the process to end.
    pub(crate) async fn exit(&mut self) -> Exit {
        let exit = self.process.exit().await;
        let (status, took) = exit.unwrap_or_else(|error| panic!("{error:#}\n{}", text(&self.log)));
        Exit { code: status.code(), took }
    }

    /// Asks the process to end and insists that it ends well.
    pub(crate) async fn stop(mut self) {
        self.terminate().await;
        let exit = self.exit().await;
        assert_eq!(exit.code, Some(0), "{}", self.logged());
    }
}

/// A folder that is gone after the test.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// What a process wrote to stderr.
type Log = Arc<Mutex<Vec<String>>>;

fn text(log: &Log) -> String {
    log.lock().expect("no panic").join("\n")
}
