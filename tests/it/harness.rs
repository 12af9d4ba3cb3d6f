//! Starts the real binary and talks to it.

use std::{
    path::Path,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use order_tracker::order::Status;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Looks until there is something to see.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(POLL).await;
    }
}

/// The binary with these settings and no others, whatever the environment of the tests holds.
pub(crate) fn binary(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    program(env!("CARGO_BIN_EXE_order-tracker"), arguments, settings)
}

fn program(path: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).env_clear();
    for kept in ["PATH", "HOME", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.envs(settings.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    command
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

/// A whole timeline.
pub(crate) const SIX: [&str; 6] =
    ["CREATED", "PLACED", "PREPARING", "COOKING", "OUT_FOR_DELIVERY", "DELIVERED"];

/// How an ended process ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
}

/// A running service; killed when dropped.
pub(crate) struct Service {
    child: Child,
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
        let shell = program("sh", &["-c", &limited, env!("CARGO_BIN_EXE_order-tracker")], &[]);
        let service = Self::launch(shell, data.path(), settings).await;
        Self { _own_data: Some(data), ..service }
    }

    /// A service on a given database.
    pub(crate) async fn start_in(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::launch(binary(&["serve"], &[]), data, settings).await
    }

    async fn launch(mut command: Command, data: &Path, settings: &[(&str, &str)]) -> Self {
        let mut child = command
            .envs([("APP_PORT", "0"), ("LOG_FORMAT", "json")])
            .env("DATA_DIR", data)
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Log::read(child.stderr.take().expect("piped"));
        let url = eventually("the service listens", async || {
            let ended = child.try_wait().expect("waited");
            assert!(ended.is_none(), "it did not start:\n{}", log.text());
            log.field("url")
        })
        .await;
        // Logged before the address, if the broker is the embedded one.
        let brokers = log.field("brokers").unwrap_or_default();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Self { child, log, url, brokers, http, _own_data: None }
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
        self.log.text()
    }

    /// Ends the process as a power cut would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Asks the process to end.
    pub(crate) async fn terminate(&self) {
        let pid = self.child.id().expect("it runs").to_string();
        let done = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill is there");
        assert!(done.success());
    }

    /// Asks the process to end again and again, as an impatient person does.
    pub(crate) async fn insist(&mut self) -> Exit {
        let started = Instant::now();
        let pid = self.child.id().expect("it runs").to_string();
        let ended = async {
            loop {
                Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill is there");
                if let Ok(status) = timeout(5 * POLL, self.child.wait()).await {
                    break status.expect("waited");
                }
            }
        };
        let status = timeout(PATIENCE, ended).await.expect("it ends");
        Exit { code: status.code(), took: started.elapsed() }
    }

    /// Waits for the process to end.
    pub(crate) async fn exit(&mut self) -> Exit {
        let started = Instant::now();
        let Ok(status) = timeout(PATIENCE, self.child.wait()).await else {
            panic!("still running:\n{}", self.logged())
        };
        Exit { code: status.expect("waited").code(), took: started.elapsed() }
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

/// What a process writes to stderr, read as it comes so that the process never waits for us.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn read(stderr: tokio::process::ChildStderr) -> Self {
        let log = Self::default();
        let written = log.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                written.0.lock().expect("no panic").push(line);
            }
        });
        log
    }

    fn text(&self) -> String {
        self.0.lock().expect("no panic").join("\n")
    }

    /// The first value of this field.
    fn field(&self, name: &str) -> Option<String> {
        let lines = self.0.lock().expect("no panic");
        let mut objects = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects.find_map(|line| line[name].as_str().map(str::to_owned))
    }
}
