//! On a real PostgreSQL and a real Kafka, where `PG_DSN` and `KAFKA_BROKERS` name them
//! (`tools/stack run cargo test`); elsewhere each test says that it was left out.

use std::{collections::BTreeSet, process::Output, time::Duration};

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};

use crate::{
    events::{LATE, age, next, open},
    harness::{SIX, Service, binary, details, ended, eventually, names},
    kafka::Kafka,
    proof::{FOREIGN, TAMPERED, broken},
};

pub(crate) fn variable(name: &str) -> String {
    testkit::variable(name).unwrap_or_else(|| panic!("{name} is not set any more"))
}

/// A database and a topic of the test's own, for any number of replicas.
pub(crate) struct Stack {
    pub(crate) dsn: String,
    pub(crate) topic: String,
    pub(crate) events: String,
}

impl Stack {
    pub(crate) async fn make() -> Self {
        let stack = testkit::Stack::make("it").await.expect("a database");
        let events = format!("{}.events", stack.name);
        Self { dsn: stack.dsn().expect("PG_DSN is set"), topic: stack.name, events }
    }

    pub(crate) fn settings<'a>(&'a self, brokers: &'a str, delays: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("PG_DSN", &self.dsn),
            ("KAFKA_BROKERS", brokers),
            ("KAFKA_TOPIC", &self.topic),
            ("KAFKA_EVENTS_TOPIC", &self.events),
            ("KAFKA_GROUP", &self.topic),
            ("KAFKA_TOPIC_PARTITIONS", "4"),
            ("STAGE_DELAYS", delays),
        ]
    }

    pub(crate) async fn replica(&self, delays: &str) -> Service {
        let brokers = variable("KAFKA_BROKERS");
        let service = Service::start(&self.settings(&brokers, delays)).await;
        eventually("the replica is ready", async || {
            let ready = service.get("/readyz").await;
            let well = ready.status() == 200;
            let ready: Value = ready.json().await.expect("json");
            // Orders are taken without a broker too, but then its topics are not there yet.
            (well && ready["degraded"] == json!([])).then_some(())
        })
        .await;
        service
    }

    async fn prove(&self, arguments: &[&str]) -> Output {
        let brokers = variable("KAFKA_BROKERS");
        let mut settings = self.settings(&brokers, "0s");
        settings.retain(|(name, _)| *name != "STAGE_DELAYS");
        ended(binary(arguments, &settings)).await
    }

    /// What `verify` says, and how it exits.
    pub(crate) async fn verify(&self) -> (String, Option<i32>) {
        let output = self.prove(&["verify"]).await;
        (String::from_utf8(output.stdout).expect("text"), output.status.code())
    }

    /// Waits until nothing waits to be sent, and `verify` finds so many messages twice, and nothing wrong.
    async fn counts_duplicates(&self, expected: &str) {
        let counted = async || {
            let (report, code) = self.verify().await;
            let count = |name| report.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let counts = ["messages that are duplicates", "orders unsent"].map(count);
            (code == Some(0) && counts == [Some(expected), Some("0")]).then_some(())
        };
        eventually(&format!("{expected} duplicates"), counted).await;
    }
}

/// Two equal replicas: an order placed at one is seen at the other, and everything is done once.
///
/// Promise 3: an effect happens once.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn replicas_share_the_work() {
    let stack = Stack::make().await;
    let (one, other) = tokio::join!(stack.replica("100ms"), stack.replica("100ms"));
    let places = (0..40).map(|n| if n % 2 == 0 { one.place("pizza") } else { other.place("ramen") });
    let ids: BTreeSet<String> = join_all(places).await.into_iter().collect();
    for id in &ids {
        assert_eq!(names(&other.reached(id, "DELIVERED").await), SIX);
    }
    one.settled().await;
    let series = "status_transitions_total{from=\"PLACED\",to=\"PREPARING\"}";
    assert_eq!(one.metric(series).await + other.metric(series).await, 40, "each step once");
    let produced = "orders_produced_total";
    assert_eq!(one.metric(produced).await + other.metric(produced).await, 40, "each order sent once");
    let consumed = "orders_consumed_total";
    eventually("all are consumed", async || {
        (one.metric(consumed).await + other.metric(consumed).await >= 40).then_some(())
    })
    .await;
    let (report, code) = stack.verify().await;
    assert_eq!(code, Some(0), "{report}");
    one.stop().await;
    other.stop().await;
}

/// A click on the board of a real kitchen must not make somebody cook.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn the_board_of_a_real_database_places_no_demo_orders() {
    let stack = Stack::make().await;
    let service = stack.replica("1h").await;
    let board = service.get("/").await.text().await.expect("text");
    assert!(board.contains("None yet.") && !board.contains("demo"), "{board}");
    let pressed = service.request(Method::POST, "/demo-orders").send().await.expect("an answer");
    assert_eq!(pressed.status(), 403);
    assert_eq!(service.json("/orders").await, json!([]));
    service.stop().await;
}

/// Beside a running service, which publishes them; whoever counts finds a duplicate each, and nothing wrong.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn orders_are_published_again_beside_the_service() {
    let stack = Stack::make().await;
    let service = stack.replica("0s").await;
    let ids = join_all((0..30).map(|_| service.place("pizza"))).await;
    service.settled().await;
    let output = stack.prove(&["republish", "--since", "5m", "--json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report, json!({"queued": 30, "waiting": 0, "unknown": [], "unreadable": [], "refused": []}));
    stack.counts_duplicates("30").await;
    let output = stack.prove(&["republish", &ids[0], &ids[1]]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    stack.counts_duplicates("32").await;
    service.stop().await;
}

/// A step is seen by those who follow at either replica, whichever of them made it.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn steps_are_seen_from_every_replica() {
    let stack = Stack::make().await;
    let (one, other) = tokio::join!(stack.replica("500ms"), stack.replica("500ms"));
    let ids = join_all((0..20).map(|_| one.place("pizza"))).await;
    let follow = async |service: &Service, id: &str| {
        let mut stream = open(service, id, 2).await;
        let mut ages = Vec::new();
        for position in 3..=6 {
            let frame = next(&mut stream).await.expect("goes on");
            assert_eq!(frame.id, Some(position));
            ages.push(age(&frame));
        }
        assert_eq!(next(&mut stream).await.expect("goes on").event, "end");
        ages
    };
    let here = ids.iter().map(|id| follow(&one, id));
    let there = ids.iter().map(|id| follow(&other, id));
    let (here, there) = tokio::join!(join_all(here), join_all(there));
    let mut ages = [here, there].concat().concat();
    ages.sort_unstable();
    // On a busy machine a few may be late; an alarm that never goes off would make them all late.
    let [most, last] = [9, 10].map(|tenths| ages[(ages.len() * tenths / 10).min(ages.len() - 1)]);
    assert!(most <= LATE && last <= LATE * 4, "{ages:?}");
    one.stop().await;
    other.stop().await;
}

/// Promise 4: timers are rows. A killed replica's orders are another's within 5 s.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn a_killed_replica_is_replaced() {
    let stack = Stack::make().await;
    let (victim, heir) = tokio::join!(stack.replica("300ms"), stack.replica("300ms"));
    let ids = join_all((0..20).map(|_| victim.place("pizza"))).await;
    victim.kill().await;
    let killed = tokio::time::Instant::now();
    for id in &ids {
        assert_eq!(names(&heir.reached(id, "DELIVERED").await), SIX);
    }
    heir.settled().await;
    assert!(
        killed.elapsed() < Duration::from_secs(5) + 4 * Duration::from_millis(300),
        "{:?}",
        killed.elapsed()
    );
    let (report, code) = stack.verify().await;
    assert_eq!(code, Some(0), "{report}");
}

/// What a superuser did to the tables by hand, past the triggers, does not go unseen.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn every_tampering_of_the_tables_is_found() {
    let stack = Stack::make().await;
    let service = stack.replica("0s").await;
    let ids = join_all((0..7).map(|_| service.place("pizza"))).await;
    service.settled().await;
    assert_eq!(stack.verify().await.1, Some(0));
    let [unbegun, gap, doubled, back, status, moved, unsent] = &ids[..] else {
        panic!("seven orders: {ids:?}")
    };
    let options: PgConnectOptions = stack.dsn.parse().expect("a DSN");
    let mut console = options.connect().await.expect("connects");
    for statement in [
        "ALTER TABLE order_events DISABLE TRIGGER ALL".to_owned(),
        "ALTER TABLE order_events DROP CONSTRAINT order_events_order_id_seq_key".to_owned(),
        format!("DELETE FROM order_events WHERE order_id = '{unbegun}' AND event = 'PLACED'"),
        format!("DELETE FROM order_events WHERE order_id = '{gap}' AND event = 'COOKING'"),
        format!(
            "INSERT INTO order_events (order_id, event, seq, \"timestamp\", meta) SELECT order_id, event, seq, \"timestamp\", meta FROM order_events WHERE order_id = '{doubled}' AND event = 'COOKING'"
        ),
        format!(
            "UPDATE order_events SET \"timestamp\" = \"timestamp\" - interval '1 ms' WHERE order_id = '{back}' AND event = 'COOKING'"
        ),
        format!(
            "UPDATE orders SET status = 'COOKING', due_at = updated_at + interval '1 hour' WHERE order_id = '{status}'"
        ),
        format!("UPDATE orders SET seq = 7 WHERE order_id = '{moved}'"),
        format!(
            "INSERT INTO orders SELECT '{FOREIGN}', customer_name, address, item, size, status, seq, created_at, updated_at, due_at FROM orders WHERE order_id = '{unsent}'"
        ),
        format!(
            "INSERT INTO order_events (order_id, event, seq, \"timestamp\") SELECT '{FOREIGN}', event, seq, \"timestamp\" FROM order_events WHERE order_id = '{unsent}' ORDER BY id"
        ),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut console).await.expect("tampers");
    }
    console.close().await.expect("closes");
    let proof = stack.prove(&["verify", "--json"]).await;
    assert_eq!(proof.status.code(), Some(1));
    assert_eq!(broken(&proof), TAMPERED.map(|(rule, count)| (rule.to_owned(), count)));
    service.stop().await;
}

#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn topics_are_created_as_asked() {
    let stack = Stack::make().await;
    let service = stack.replica("1h").await;
    for topic in [stack.topic.clone(), format!("{}.dlq", stack.topic)] {
        assert_eq!(Kafka::of_stack().counts(&topic).await.len(), 4, "{topic}");
    }
    service.stop().await;
}

/// `KAFKA_PROPERTIES` reach the client: TLS with a CA of our own, and a user with a password.
#[tokio::test]
#[cfg_attr(
    not(all(feature = "tls", with_postgres, with_kafka_tls)),
    ignore = "left out: needs the feature tls, PG_DSN and KAFKA_TLS_BROKERS"
)]
async fn kafka_is_reached_with_tls_and_sasl() {
    let stack = Stack::make().await;
    let (brokers, folder) = (variable("KAFKA_TLS_BROKERS"), variable("STACK_DIR"));
    let properties = |password: &str| {
        format!(
            "security.protocol=SASL_SSL,sasl.mechanism=PLAIN,sasl.username=tracker,sasl.password={password},\
             ssl.ca.location={folder}/kafka/ca.pem"
        )
    };
    let start = async |properties: &str| {
        let mut settings = stack.settings(&brokers, "0s");
        settings.push(("KAFKA_PROPERTIES", properties));
        Service::start(&settings).await
    };
    let service = start(&properties("secret")).await;
    let id = service.place("pizza").await;
    service.reached(&id, "DELIVERED").await;
    service.settled().await;
    service.counted("orders_consumed_total", 1).await;
    service.stop().await;

    let wrong = start(&properties("guess")).await;
    let line = eventually("the broker refuses the password", async || {
        let ready = wrong.json("/readyz").await;
        let degraded = ready["degraded"].as_array().expect("a list").iter();
        let mut reasons = degraded.filter_map(|one| one["reason"].as_str());
        reasons.find(|reason| reason.contains("uthent")).map(str::to_owned)
    });
    assert!(!line.await.contains("guess"));
    assert!(!wrong.logged().contains("guess"));
}

/// Neither the database nor the broker is there: the service lives, says so, and stops when asked.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_service_starts_without_its_stack() {
    let nowhere = [("PG_DSN", "postgres://nobody@127.0.0.1:9/none"), ("KAFKA_BROKERS", "127.0.0.1:9")];
    let service = Service::start(&nowhere).await;
    assert_eq!(service.json("/healthz").await, json!({"status": "ok"}));
    let ready = service.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    let ready: Value = ready.json().await.expect("json");
    assert_eq!(ready["status"], "unavailable");
    assert!(ready["reason"].as_str().is_some_and(|reason| reason.contains("database")), "{ready}");
    let asked = tokio::time::Instant::now();
    let refused = service.post(&details("pizza")).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(asked.elapsed() < Duration::from_millis(2_500), "{:?}", asked.elapsed());
    service.stop().await;
}
