//! What requests leave in the log: their line, and their id in every other line that they cause.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{RequestLog, Server, middleware::request_log::Answered},
    Answer, Api, order,
};
use crate::telemetry::{RequestId, captured::Captured};

impl Api {
    /// Sends a request under this id.
    async fn ask(&self, id: &str, method: &str, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(path).header("x-request-id", id);
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.header("content-type", "application/json").body(body).expect("valid")).await
    }

    /// Does to the database what only somebody with a console could, and keeps the console.
    async fn by_hand(&self, statements: &'static str) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("orders.db"));
        let mut console = options.connect().await.expect("opens");
        console.execute(statements).await.expect("done");
        console
    }
}

/// The lines of requests.
fn told(captured: &Captured) -> Vec<Value> {
    let mut lines = captured.saying("answered");
    for line in &mut lines {
        let line = line.as_object_mut().expect("an object");
        let ms = line.remove("ms").and_then(|ms| ms.as_f64());
        assert!(ms.is_some_and(|ms| (0.0..60_000.0).contains(&ms)), "{ms:?}");
        line.retain(|name, _| !["timestamp", "level", "message", "target"].contains(&name.as_str()));
    }
    lines
}

#[tokio::test]
async fn a_request_has_one_line_without_what_is_private() {
    let api = Api::open().await;
    let (captured, _guard) = Captured::start();
    let placed = api.ask("r-1", "POST", "/orders", order("Ada Lovelace")).await;
    let id = placed.json()["order_id"].as_str().expect("an id").to_owned();
    api.ask("r-2", "GET", &format!("/orders/{id}?secret=1"), Value::Null).await;
    api.ask("r-3", "GET", "/secret/path?secret=1", Value::Null).await;
    api.ask("r-4", "SECRET", "/orders", Value::Null).await;
    api.ask("r-5", "GET", "/orders?status=secret", Value::Null).await;
    api.ask("r-6", "DELETE", "/orders", Value::Null).await;
    let line = |id: &str, method: &str, route: &str, status: u16| json!({"request_id": id, "method": method, "route": route, "status": status});
    let expected = [
        line("r-1", "POST", "/orders", 201),
        line("r-2", "GET", "/orders/{id}", 200),
        line("r-3", "GET", "unmatched", 404),
        line("r-4", "OTHER", "/orders", 405),
        line("r-5", "GET", "/orders", 400),
        line("r-6", "DELETE", "/orders", 405),
    ];
    assert_eq!(told(&captured), expected);
    let text = captured.text();
    assert!(
        !text.to_lowercase().contains("secret") && !text.contains("Ada") && !text.contains(&id),
        "{text}"
    );
}

/// A balancer asks several times a second; whoever does not want to see that still sees all else, and what fails.
#[tokio::test]
async fn what_probes_ask_has_a_line_that_can_be_switched_off() {
    let api = Api::open().await;
    let probes = ["/healthz", "/readyz", "/metrics"];
    let told_with = async |filter: &str| {
        let (captured, _guard) = Captured::start_filtered(filter);
        for (id, path) in probes.iter().chain(&["/orders"]).enumerate() {
            assert_eq!(api.ask(&format!("r-{id}"), "GET", path, Value::Null).await.status, StatusCode::OK);
        }
        told(&captured)
            .iter()
            .map(|line| line["route"].as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(told_with("info").await, ["/healthz", "/readyz", "/metrics", "/orders"]);
    assert_eq!(told_with("info,order_tracker::http::probes=warn").await, ["/orders"]);
    assert_eq!(told_with("info,order_tracker::http::request_log=warn").await, probes);
    assert_eq!(told_with("info,order_tracker::http=warn").await, [] as [&str; 0]);

    api.leaving.cancel();
    let (captured, _guard) = Captured::start_filtered("info,order_tracker::http::probes=warn");
    api.ask("r-1", "GET", "/readyz", Value::Null).await;
    let statuses: Vec<_> = told(&captured).iter().map(|line| line["status"].clone()).collect();
    assert_eq!(statuses, [503]);
}

/// Promise 6: it says what is wrong. The id in an answer leads to the cause, whoever met it.
#[tokio::test]
async fn the_id_of_a_failure_leads_to_its_cause() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let trigger = "CREATE TRIGGER broken BEFORE INSERT ON orders WHEN NEW.customer_name = 'Bob'
        BEGIN SELECT RAISE(ABORT, 'broken'); END";
    drop(api.by_hand(trigger).await);
    let (captured, _guard) = Captured::start();
    // The writer meets this one; many at once come in one batch.
    assert_eq!(api.ask("alone", "POST", "/orders", order("Bob")).await.status, 500);
    let together = ["many-1", "many-2", "many-3"].map(|id| api.ask(id, "POST", "/orders", order("Bob")));
    for answer in futures::future::join_all(together).await {
        assert_eq!(answer.status, 500);
    }
    for id in ["alone", "many-1", "many-2", "many-3"] {
        let causes = captured.saying("an order is not accepted");
        let cause = causes.iter().filter(|line| line["request_id"] == id).collect::<Vec<_>>();
        assert_eq!(cause.len(), 1, "{id} in {}", captured.text());
        assert!(cause[0]["error"].as_str().is_some_and(|error| error.contains("broken")), "{cause:?}");
    }

    // A handler meets this one.
    drop(api.by_hand("PRAGMA ignore_check_constraints = ON; UPDATE orders SET size = 'huge'").await);
    assert_eq!(api.ask("reader", "GET", &format!("/orders/{id}"), Value::Null).await.status, 500);
    assert_eq!(captured.saying("a request failed")[0]["request_id"], "reader");
}

/// What befalls a whole batch is told once, with all who were in it.
#[tokio::test]
async fn a_line_about_many_requests_names_them_all() {
    let api = Api::open().await;
    let locked = api.by_hand("BEGIN IMMEDIATE").await;
    let (captured, _guard) = Captured::start();
    let ids = ["many-1", "many-2", "many-3"];
    let asked = ids.map(|id| api.ask(id, "POST", "/orders", order("Bob")));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.status, 503);
    }
    // The writer may try longer than they wait.
    let told = async {
        while captured.saying("orders are not accepted").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("told");
    drop(locked);
    assert_eq!(captured.saying("orders are not accepted")[0]["request_ids"], json!(ids));
}

/// What a stream meets long after its head.
#[tokio::test]
async fn a_stream_has_its_id_to_its_end() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let (captured, _guard) = Captured::start();
    let request = Request::get(format!("/orders/{id}/events?after=2")).header("x-request-id", "stream-1");
    let response =
        tower::ServiceExt::oneshot(api.router.clone(), request.body(Body::empty()).expect("valid"));
    let mut body = response.await.expect("an answer").into_body().into_data_stream();
    assert_eq!(told(&captured).len(), 1, "its line comes with its head");
    api.clock.advance(Duration::from_secs(3));
    let transitions = api.store.advance(10).await.expect("advances").transitions;
    drop(api.by_hand("PRAGMA ignore_check_constraints = ON; UPDATE orders SET size = 'huge'").await);
    api.notifier.committed(&transitions);
    while futures::StreamExt::next(&mut body).await.is_some() {}
    assert_eq!(captured.saying("a follower can't read its order")[0]["request_id"], "stream-1");
}

/// Sends these bytes to a server with room for so many connections, behind one who has taken one; answers what comes back.
async fn told_by(max_connections: usize, sent: &[u8]) -> String {
    let server =
        Server::bind(("127.0.0.1", 0), axum::Router::new(), max_connections, RequestLog::new()).await;
    let server = server.expect("binds");
    let address = server.address().expect("bound");
    tokio::spawn(server.run(CancellationToken::new(), CancellationToken::new()));
    let mut seated = TcpStream::connect(address).await.expect("connects");
    seated.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sends");
    assert!(seated.read(&mut [0; 64]).await.expect("reads") > 0);
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(sent).await.expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    answer
}

/// What is answered before there is a request has its line too.
#[tokio::test]
async fn who_is_refused_without_a_request_finds_the_id_in_the_log() {
    let (captured, _guard) = Captured::start();
    for (max_connections, sent, status) in [(1, "", 503), (2, "nonsense\r\n\r\n", 400)] {
        let answer = told_by(max_connections, sent.as_bytes()).await;
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("an id");
        let line = told(&captured).into_iter().find(|line| line["request_id"] == id).expect("a line");
        assert_eq!((&line["status"], &line["route"]), (&status.into(), &"unmatched".into()), "{answer}");
    }
}

/// Logs so many requests that ended like this.
fn answered(log: &std::sync::Arc<RequestLog>, count: usize, status: u16) {
    let (id, status) = (RequestId::random(), StatusCode::from_u16(status).expect("valid"));
    for _ in 0..count {
        let took = Duration::ZERO;
        log.write(&Answered { id: &id, method: "GET", route: "/orders", status, took, key: None });
    }
}

/// Promise 5: memory, queues and time are bounded. A flood of requests is no flood of lines; failures come first.
#[tokio::test(start_paused = true)]
async fn at_most_500_lines_a_second_and_failures_first() {
    let (captured, _guard) = Captured::start();
    let log = RequestLog::new();
    let lines = |status: u16| told(&captured).iter().filter(|line| line["status"] == status).count();
    let left_out = || {
        let told = captured.saying("lines of requests are left out");
        told.iter()
            .map(|line| [&line["left_out"], &line["failed"]].map(|n| n.as_u64().expect("a number")))
            .collect()
    };
    let tick = async || tokio::time::sleep(Duration::from_millis(1_001)).await;

    answered(&log, 400, 200);
    assert_eq!((lines(200), left_out()), (400, Vec::<[u64; 2]>::new()));
    answered(&log, 1_000, 200);
    answered(&log, 150, 503);
    assert_eq!((lines(200), lines(503)), (400, 100), "room for failures is kept");
    tick().await;
    assert_eq!(left_out(), [[1_050, 50]]);
    // Where even failures found no room they have all of it next.
    answered(&log, 1_000, 200);
    answered(&log, 450, 503);
    assert_eq!((lines(200), lines(503)), (400, 550));
    tick().await;
    assert_eq!(left_out(), [[1_050, 50], [1_000, 0]]);
    // As many as failed a second ago are expected.
    answered(&log, 1_000, 200);
    answered(&log, 450, 503);
    assert_eq!((lines(200), lines(503)), (450, 1_000));
    tick().await;
    tick().await;
    assert_eq!(left_out(), [[1_050, 50], [1_000, 0], [950, 0]], "one line a second, and none of nothing");
    answered(&log, 1_000, 200);
    assert_eq!(lines(200), 850);
}

/// Promise 5: memory, queues and time are bounded. A client that asks for a broken row in a loop writes no more than
/// others.
#[tokio::test]
async fn causes_of_failures_share_the_room_for_lines() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    drop(api.by_hand("PRAGMA ignore_check_constraints = ON; UPDATE orders SET size = 'huge'").await);
    let (captured, _guard) = Captured::start();
    let paths = [format!("/orders/{id}"), format!("/track/{id}"), format!("/orders/{id}/events")];
    for (n, path) in paths.iter().enumerate() {
        assert_eq!(api.ask("r-1", "GET", path, Value::Null).await.status, 500, "{path}");
        assert_eq!(captured.saying("a request failed").len(), n + 1, "{path}");
    }
    for path in &paths {
        let causes = || captured.saying("a request failed").len();
        // A second may end in between.
        let mut left_out = false;
        for _ in 0..20 {
            let before = causes();
            answered(&api.log, 1_000, 503);
            assert_eq!(api.ask("r-1", "GET", path, Value::Null).await.status, 500, "{path}");
            left_out |= causes() == before;
        }
        assert!(left_out, "{path}");
    }
}

/// The same of streams, which fail long after they were answered.
#[tokio::test]
async fn causes_of_broken_streams_share_the_room_for_lines() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let (captured, _guard) = Captured::start();
    let path = format!("/orders/{id}/events?after=2");
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let request = Request::get(&path).body(Body::empty()).expect("valid");
        let response = tower::ServiceExt::oneshot(api.router.clone(), request).await.expect("an answer");
        bodies.push(response.into_body().into_data_stream());
    }
    api.clock.advance(Duration::from_secs(3));
    let transitions = api.store.advance(10).await.expect("advances").transitions;
    drop(api.by_hand("PRAGMA ignore_check_constraints = ON; UPDATE orders SET size = 'huge'").await);
    api.notifier.committed(&transitions);
    for mut body in bodies {
        answered(&api.log, 1_000, 503);
        while futures::StreamExt::next(&mut body).await.is_some() {}
    }
    let told = captured.saying("a follower can't read its order").len();
    assert!(told < 2, "a second may have ended once");
}
