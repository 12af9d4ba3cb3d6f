//! Ends the service in every way there is, in the middle of its work, and looks at what is left.

use std::{path::Path, sync::Arc, time::Duration};

use chrono::TimeDelta;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{io::AsyncReadExt as _, sync::Mutex, task::JoinSet, time::Instant};

use crate::{
    abuse::problem,
    harness::{SIX, Service, binary, details, ended, eventually, folder, names},
    journey::stamps,
    kafka::{Kafka, TOPIC},
    raw::connect,
};

/// The database file of a service that has ended.
async fn database(data: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(data.join("orders.db"));
    SqliteConnection::connect_with(&options).await.expect("a database")
}

async fn number(database: &mut SqliteConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(database).await.expect(sql)
}

/// Whatever happened, this holds once all orders are delivered: every event once, in order, and
/// nothing left to publish.
async fn is_whole(database: &mut SqliteConnection, accepted: &[String]) {
    assert_eq!(number(database, "SELECT count(*) FROM outbox").await, 0, "orders that were not published");
    let twice =
        "SELECT count(*) FROM (SELECT 1 FROM order_events GROUP BY order_id, event HAVING count(*) > 1)";
    assert_eq!(number(database, twice).await, 0, "events that happened twice");
    let timelines = "SELECT order_id, status,
            (SELECT group_concat(event) FROM (SELECT event FROM order_events e WHERE e.order_id = o.order_id ORDER BY id))
        FROM orders o ORDER BY order_id";
    let timelines: Vec<(String, String, String)> =
        sqlx::query_as(timelines).fetch_all(database).await.expect("timelines");
    for (order_id, status, events) in &timelines {
        assert_eq!((status.as_str(), events.as_str()), ("DELIVERED", SIX.join(",").as_str()), "{order_id}");
    }
    for order_id in accepted {
        let found = timelines.binary_search_by(|(found, ..)| found.cmp(order_id));
        assert!(found.is_ok(), "{order_id} was answered with 201 and is lost");
    }
}

/// What clients have been told.
#[derive(Debug, Default)]
struct Told {
    accepted: Vec<String>,
    /// Complete answers other than 201.
    refused: Vec<(StatusCode, String)>,
    /// Requests that were sent and got no answer.
    unanswered: usize,
}

/// Twenty clients that post until nobody listens any more.
struct Crowd {
    told: Arc<Mutex<Told>>,
    clients: JoinSet<()>,
}

impl Crowd {
    fn at(service: &Service) -> Self {
        let (told, mut clients) = (Arc::<Mutex<Told>>::default(), JoinSet::new());
        for _ in 0..20 {
            // A connection per request: one that is closed while it is idle would look like a lost request.
            let client =
                reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
            clients.spawn(post_until_refused(client, format!("{}/orders", service.url), Arc::clone(&told)));
        }
        Self { told, clients }
    }

    async fn accepted(&self, count: usize) {
        eventually("accepted orders", async || {
            (self.told.lock().await.accepted.len() >= count).then_some(())
        })
        .await;
    }

    async fn told(self) -> Told {
        self.clients.join_all().await;
        Arc::into_inner(self.told).expect("all have left").into_inner()
    }
}

async fn post_until_refused(client: reqwest::Client, url: String, told: Arc<Mutex<Told>>) {
    loop {
        let answer = async {
            let response = client.post(&url).json(&details("pizza")).send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.text().await?))
        };
        let outcome = answer.await;
        let mut told = told.lock().await;
        match outcome {
            Ok((StatusCode::CREATED, body)) => {
                let id = body.split('"').nth(3).unwrap_or_else(|| panic!("no id in {body}"));
                told.accepted.push(id.to_owned());
            }
            Ok(refused) => told.refused.push(refused),
            Err(error) if error.is_connect() => return,
            Err(_) => told.unanswered += 1,
        }
    }
}

/// Promise 4: timers are rows.
#[tokio::test]
async fn an_order_goes_on_where_a_crash_left_it() {
    let (data, settings) = (folder(), [("STAGE_DELAYS", "700ms")]);
    let service = Service::start_in(data.path(), &settings).await;
    let id = service.place("pizza").await;
    let before = service.reached(&id, "PREPARING").await;
    service.kill().await;

    let service = Service::start_in(data.path(), &settings).await;
    let back = Instant::now();
    service.reached(&id, "COOKING").await;
    // At worst the step was not due at all yet; when it is, 2 s are allowed.
    assert!(back.elapsed() < Duration::from_millis(2_700), "{:?}", back.elapsed());
    let tracked = service.reached(&id, "DELIVERED").await;
    assert_eq!(names(&tracked), SIX);
    assert_eq!(
        tracked["events"].as_array().expect("events")[..3],
        before["events"].as_array().expect("events")[..]
    );
    let early = |pair: &[chrono::DateTime<chrono::Utc>]| pair[1] - pair[0] < TimeDelta::milliseconds(700);
    assert!(!stamps(&tracked)[1..].windows(2).any(early), "a step was early: {tracked}");
}

/// Promise 1: accepted means durable.
/// Promise 2: everything accepted reaches the topic.
/// Promise 3: an effect happens once.
#[tokio::test]
async fn nothing_accepted_is_lost_by_kill_9() {
    let (data, settings) = (folder(), [("STAGE_DELAYS", "100ms")]);
    let service = Service::start_in(data.path(), &settings).await;
    let crowd = Crowd::at(&service);
    crowd.accepted(300).await;
    service.kill().await;
    let told = crowd.told().await;
    assert_eq!(told.refused, []);

    let service = Service::start_in(data.path(), &settings).await;
    service.settled().await;
    let last = told.accepted.last().expect("an order");
    assert_eq!(names(&service.json(&format!("/orders/{last}")).await), SIX);
    service.stop().await;
    is_whole(&mut database(data.path()).await, &told.accepted).await;
}

/// An order that no broker could take before the crash is published after it.
///
/// Promise 2: everything accepted reaches the topic.
#[tokio::test]
async fn what_was_not_published_is_published_in_the_next_life() {
    let data = folder();
    // Port 9 is `discard`: nobody listens there, so this life never reaches a broker.
    let away = [("STAGE_DELAYS", "0s"), ("KAFKA_BROKERS", "127.0.0.1:9")];
    let service = Service::start_in(data.path(), &away).await;
    let mut placed = Vec::new();
    for _ in 0..20 {
        placed.push(service.place("pizza").await);
    }
    let degraded = eventually("it says that the broker is away", async || {
        let ready = service.get("/readyz").await;
        assert_eq!(ready.status(), 200, "orders are taken all the same");
        let ready: Value = ready.json().await.expect("json");
        let degraded = ready["degraded"].as_array().expect("a list").clone();
        degraded.into_iter().find(|one| one["part"] == "broker" && one["reason"] != "not reached yet")
    });
    assert!(degraded.await["reason"].as_str().is_some_and(|reason| reason.contains("127.0.0.1:9")));
    service.kill().await;

    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "0s")]).await;
    let kafka = Kafka::of(&service);
    service.counted("orders_produced_total", 20).await;
    let mut published: Vec<_> =
        kafka.all(TOPIC).await.into_iter().filter_map(|message| message.key).collect();
    published.sort_unstable();
    assert_eq!(published, placed, "each once, ids rise as they were placed");
    service.settled().await;
    service.stop().await;
    is_whole(&mut database(data.path()).await, &placed).await;
}

/// Promise 1: accepted means durable.
#[tokio::test]
async fn a_polite_stop_under_load_leaves_nobody_in_doubt() {
    let (data, settings) = (folder(), [("STAGE_DELAYS", "100ms"), ("SHUTDOWN_TIMEOUT", "5s")]);
    let mut service = Service::start_in(data.path(), &settings).await;
    let crowd = Crowd::at(&service);
    crowd.accepted(300).await;
    service.terminate().await;
    let exit = service.exit().await;
    assert_eq!(exit.code, Some(0), "{}", service.logged());
    assert!(exit.took < Duration::from_secs(5), "{exit:?}");
    let told = crowd.told().await;
    for (status, body) in &told.refused {
        assert!(
            *status == StatusCode::SERVICE_UNAVAILABLE && body.contains("\"code\":\"unavailable\""),
            "{body}"
        );
    }

    let mut file = database(data.path()).await;
    let stored = number(&mut file, "SELECT count(*) FROM orders").await;
    assert_eq!(
        usize::try_from(stored).ok(),
        Some(told.accepted.len()),
        "an order that nobody was told of: {told:?}"
    );
    assert_eq!(number(&mut file, "SELECT count(*) FROM outbox").await, 0, "the relay was drained");
    drop(file);

    let service = Service::start_in(data.path(), &settings).await;
    service.settled().await;
    service.stop().await;
    is_whole(&mut database(data.path()).await, &told.accepted).await;
}

/// A request that is still coming holds the first signal up; the second one waits for nothing.
#[tokio::test]
async fn a_second_signal_ends_the_service_at_once() {
    let mut service = Service::start(&[("SHUTDOWN_TIMEOUT", "30s")]).await;
    let half = "POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\
        expect: 100-continue\r\n\r\n";
    let mut client = connect(&service, half.as_bytes()).await;
    // It says this once a handler waits for the body.
    let mut go_on = [0; 12];
    client.read_exact(&mut go_on).await.expect("an answer");
    assert_eq!(&go_on, b"HTTP/1.1 100");

    service.terminate().await;
    eventually("the first signal", async || service.logged().contains("stopping").then_some(())).await;
    // A signal that follows within a moment repeats the first; what comes after is a second one.
    let exit = service.insist().await;
    assert_eq!(exit.code, Some(130), "{}", service.logged());
    assert!(exit.took < Duration::from_secs(2), "{exit:?}");
}

/// A database that can't be written makes the answer 503, in time; reading goes on, and the same
/// key places the order once it is back.
///
/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn a_locked_database_is_a_503_and_not_a_hang() {
    let data = folder();
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "1h")]).await;
    let first = service.place("pizza").await;
    let post = async || {
        let request = service.request(Method::POST, "/orders").header("idempotency-key", "k");
        request.json(&details("ramen")).send().await.expect("an answer")
    };
    let mut locked = database(data.path()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut locked).await.expect("locked");

    let started = Instant::now();
    let refused = post().await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(refused.headers().contains_key("retry-after"), "{refused:?}");
    problem(refused, 503, "unavailable").await;
    assert_eq!(names(&service.json(&format!("/orders/{first}")).await), SIX[..2]);

    locked.close().await.expect("unlocked");
    eventually("the order is accepted", async || (post().await.status() == 201).then_some(())).await;
    assert_eq!(service.json("/orders").await.as_array().map(Vec::len), Some(2));
    service.stop().await;
}

/// One database, one process; the second one says what to do.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused() {
    let data = folder();
    let service = Service::start_in(data.path(), &[]).await;
    let path = data.path().to_str().expect("text");
    let settings = [("APP_PORT", "0"), ("LOG_FORMAT", "json"), ("DATA_DIR", path)];
    for command in ["serve", "migrate"] {
        let second = ended(binary(&[command], &settings)).await;
        assert_eq!(second.status.code(), Some(1));
        let said = String::from_utf8(second.stderr).expect("text");
        let plain: Vec<&str> = said.lines().filter(|line| !line.starts_with('{')).collect();
        assert_eq!(
            plain,
            [format!(
                "order-tracker: the data folder {path} is in use by another process: \
                 stop that one, or set DATA_DIR to another folder"
            )]
        );
    }
    service.place("pizza").await;
    service.stop().await;
}

/// History can't be changed by hand either.
///
/// Promise 3: an effect happens once.
#[tokio::test]
async fn events_cannot_be_changed_by_hand() {
    let data = folder();
    let service = Service::start_in(data.path(), &[("STAGE_DELAYS", "0s")]).await;
    let id = service.place("pizza").await;
    service.reached(&id, "DELIVERED").await;
    service.stop().await;

    let mut file = database(data.path()).await;
    let rows = "SELECT id, order_id, event, \"timestamp\", meta FROM order_events ORDER BY id";
    let before: Vec<(i64, String, String, i64, Option<String>)> =
        sqlx::query_as(rows).fetch_all(&mut file).await.expect("rows");
    assert_eq!(before.len(), 6);
    for sql in [
        "UPDATE order_events SET event = 'DELIVERED' WHERE event = 'PLACED'",
        "UPDATE order_events SET \"timestamp\" = 0",
        "UPDATE OR REPLACE order_events SET id = id + 1",
        "DELETE FROM order_events",
        "DELETE FROM order_events WHERE event = 'CREATED'",
    ] {
        let refused = sqlx::query(sql).execute(&mut file).await.expect_err(sql).to_string();
        assert!(refused.contains("immutable"), "{sql}: {refused}");
    }
    let replace = "INSERT OR REPLACE INTO order_events (id, order_id, event, seq, \"timestamp\")
        SELECT id, order_id, event, seq, 0 FROM order_events";
    let refused = sqlx::query(replace).execute(&mut file).await.expect_err(replace).to_string();
    assert!(refused.contains("immutable"), "{refused}");
    let orphan = "DELETE FROM orders";
    assert!(sqlx::query(orphan).execute(&mut file).await.is_err(), "an order with events can't go");
    let after: Vec<_> = sqlx::query_as(rows).fetch_all(&mut file).await.expect("rows");
    assert_eq!(before, after);
}

/// A log that nobody reads any more is no reason to stop: stderr is a closed pipe here.
#[tokio::test]
async fn a_log_that_breaks_off_stops_nothing() {
    let data = folder();
    let settings =
        [("DATA_DIR", data.path().to_str().expect("text")), ("APP_PORT", "0"), ("SIMULATE_RATE", "50")];
    let mut service = binary(&["serve"], &settings);
    let mut child = service.stderr(std::process::Stdio::piped()).spawn().expect("starts");
    drop(child.stderr.take());
    let ended = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
    assert!(ended.is_err(), "it ended: {ended:?}");
}
