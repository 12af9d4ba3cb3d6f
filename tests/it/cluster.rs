//! What happens to topics and rights of a real Kafka while the service runs.

use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};

use crate::{
    harness::{Service, eventually},
    kafka::{Kafka, foreign},
    stack::{Stack, variable},
};

/// What `/readyz` says of a part; nothing if it is well.
pub(crate) async fn degraded(service: &Service, part: &str) -> Option<String> {
    let ready: Value = service.get("/readyz").await.json().await.expect("JSON");
    let parts = ready["degraded"].as_array().expect("a list").iter();
    let mut reasons = parts.filter(|one| one["part"] == part).filter_map(|one| one["reason"].as_str());
    reasons.next().map(str::to_owned)
}

pub(crate) async fn well(service: &Service) {
    eventually("nothing is degraded", async || {
        let ready: Value = service.get("/readyz").await.json().await.expect("JSON");
        (ready == json!({"status": "ok", "degraded": []})).then_some(())
    })
    .await;
}

pub(crate) fn order(n: u8) -> (String, String) {
    let id = format!("ORD-01ARZ3NDEK000000000000000{n}");
    let message: Value = foreign(&id);
    (id, message.to_string())
}

/// "Created if missing" holds at any time, and a bad message waits for it without holding up good ones.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn topics_that_are_deleted_are_made_again() {
    let (stack, kafka) = (Stack::make().await, Kafka::of_stack());
    let service = stack.replica("0s").await;
    let dead_letters = format!("{}.dlq", stack.topic);
    let (before, good) = order(0);
    kafka.put_on(&stack.topic, 0, &before, &good).await;
    service.reached(&before, "DELIVERED").await;

    kafka.delete(&[&dead_letters]).await;
    kafka.put_on(&stack.topic, 1, "x", "not json").await;
    for (partition, n) in [(1, 1), (2, 2)] {
        let (id, good) = order(n);
        kafka.put_on(&stack.topic, partition, &id, &good).await;
        service.reached(&id, "DELIVERED").await;
    }
    service.counted("dead_letters_total{reason=\"not_json\"}", 1).await;
    well(&service).await;
    assert_eq!(kafka.counts(&dead_letters).await.iter().sum::<i64>(), 1);

    kafka.delete(&[&stack.topic]).await;
    let id = service.place("pizza").await;
    service.reached(&id, "DELIVERED").await;
    service.settled().await;
    well(&service).await;
    assert!(kafka.counts(&stack.topic).await.iter().sum::<i64>() >= 1);
    let (after, good) = order(3);
    kafka.put_on(&stack.topic, 0, &after, &good).await;
    service.reached(&after, "DELIVERED").await;
    assert_eq!(service.metric("dead_letters_total{reason=\"not_json\"}").await, 1);
    service.stop().await;
}

/// Where a reader was in the old topic says nothing of the new one: nobody may begin there.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn a_topic_that_is_made_again_is_read_from_its_beginning() {
    let (stack, kafka) = (Stack::make().await, Kafka::of_stack());
    let service = stack.replica("0s").await;
    for n in 0..5 {
        if n > 0 {
            kafka.delete(&[&stack.topic]).await;
        }
        eventually("the topic is there", async || {
            (kafka.counts(&stack.topic).await.len() == 4).then_some(())
        })
        .await;
        let (id, good) = order(n);
        kafka.put_on(&stack.topic, 0, &id, &good).await;
        service.reached(&id, "DELIVERED").await;
    }
    service.stop().await;
}

/// How far behind is not known while nothing is taken: then no alert may trust it, and another says so.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn a_consumer_that_stands_still_says_so() {
    let (stack, kafka) = (Stack::make().await, Kafka::of_stack());
    let service = stack.replica("0s").await;
    eventually("the lag is known", async || {
        service.metrics().await.contains("\nconsumer_lag 0\n").then_some(())
    })
    .await;
    assert_eq!(service.metric("consumer_up").await, 1);
    let server: PgConnectOptions = variable("PG_DSN").parse().expect("a DSN");
    let mut console = server.connect().await.expect("connects");
    let mut run = async |statement: String| {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut console).await.expect("works");
    };
    let database = &stack.topic;
    run(format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false")).await;
    run(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")).await;
    let (id, good) = order(4);
    kafka.put_on(&stack.topic, 0, &id, &good).await;
    let reason = eventually("the consumer is down", async || degraded(&service, "consumer").await).await;
    assert!(reason.contains("database"), "{reason}");
    let metrics = service.metrics().await;
    for line in ["\nconsumer_up 0\n", "\nconsumer_lag NaN\n"] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    run(format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true")).await;
    service.reached(&id, "DELIVERED").await;
    well(&service).await;
    assert_eq!(service.metric("consumer_up").await, 1);
    eventually("the lag is known", async || {
        service.metrics().await.contains("\nconsumer_lag 0\n").then_some(())
    })
    .await;
    let told = service.logged().matches("the consumer stands still").count();
    assert!((1..=2).contains(&told), "once a series, not {told} times");
    let dead_letters: u64 = service.metric("dead_letters_total{reason=\"refused\"}").await;
    assert_eq!(dead_letters, 0, "trouble of the database is no fault of a message");
    service.stop().await;
    console.close().await.expect("closes");
}

/// The group protocol of Kafka 4: the cluster decides who reads what.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn the_new_group_protocol_works() {
    let (stack, kafka) = (Stack::make().await, Kafka::of_stack());
    let brokers = variable("KAFKA_BROKERS");
    let mut settings = stack.settings(&brokers, "0s");
    settings.push(("KAFKA_PROPERTIES", "group.protocol=consumer"));
    let (one, other) = tokio::join!(Service::start(&settings), Service::start(&settings));
    tokio::join!(well(&one), well(&other));
    for partition in 0..4 {
        let (id, good) = order(5 + u8::try_from(partition).expect("small"));
        kafka.put_on(&stack.topic, partition, &id, &good).await;
        one.reached(&id, "DELIVERED").await;
    }
    one.stop().await;
    other.stop().await;
}
