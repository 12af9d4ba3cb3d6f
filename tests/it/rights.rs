//! On a Kafka that gives rights one by one: what is missing is said, nothing is lost, and all goes on by itself.

use testkit::tool;

use crate::{
    cluster::{degraded, order, well},
    harness::{Service, eventually},
    kafka::Kafka,
    stack::{Stack, variable},
};

/// The user who may do only what is said here.
const GUEST: &str =
    "security.protocol=SASL_PLAINTEXT,sasl.mechanism=PLAIN,sasl.username=guest,sasl.password=guest";

/// Gives rights to the guest, or takes them.
async fn rights(arguments: &[&str]) {
    let stack = variable("STACK_DIR");
    tool(&[&["rights", &*stack], arguments].concat()).await.expect("given");
}

async fn guest(stack: &Stack) -> Service {
    let brokers = variable("KAFKA_GUEST_BROKERS");
    let mut settings = stack.settings(&brokers, "0s");
    settings.push(("KAFKA_PROPERTIES", GUEST));
    let service = Service::start(&settings).await;
    let taken = async || (service.get("/readyz").await.status() == 200).then_some(());
    eventually("orders are taken", taken).await;
    service
}

async fn says(service: &Service, part: &str, words: &[&str]) {
    eventually(&format!("{part} says {words:?}"), async || {
        let reason = degraded(service, part).await?;
        words.iter().all(|word| reason.contains(word)).then_some(())
    })
    .await;
}

/// All topics are there and nobody may create any: so it is where others run the kafka.
#[tokio::test]
#[cfg_attr(
    not(all(with_postgres, with_kafka_guest)),
    ignore = "left out: needs PG_DSN and KAFKA_GUEST_BROKERS"
)]
async fn no_right_to_create_is_needed_where_topics_are() {
    let (stack, kafka) = (Stack::make().await, Kafka::of_stack());
    let dead_letters = format!("{}.dlq", stack.topic);
    kafka.create(&[&stack.topic, &dead_letters, &stack.events]).await;
    for topic in [&stack.topic, &dead_letters] {
        rights(&["--add", "--operation", "Read", "--operation", "Write", "--topic", topic]).await;
    }
    rights(&["--add", "--operation", "Write", "--topic", &stack.events]).await;
    rights(&["--add", "--operation", "Read", "--group", &stack.topic]).await;
    let service = guest(&stack).await;
    well(&service).await;
    let id = service.place("pizza").await;
    service.reached(&id, "DELIVERED").await;
    service.settled().await;
    assert!(!service.logged().contains("can't be"), "{}", service.logged());

    // One that goes missing can't be made by this user.
    kafka.delete(&[&dead_letters]).await;
    let words = [&*dead_letters, "KAFKA_DLQ_TOPIC", "right"];
    says(&service, "dead_letters", &words).await;
    kafka.create(&[&dead_letters]).await;
    well(&service).await;
    service.stop().await;
}

/// Promise 6: it says what is wrong. Right by right, until nothing is missing.
#[tokio::test]
#[cfg_attr(
    not(all(with_postgres, with_kafka_guest)),
    ignore = "left out: needs PG_DSN and KAFKA_GUEST_BROKERS"
)]
async fn every_right_that_is_missing_is_named_until_it_comes() {
    let (stack, kafka) = (Stack::make().await, Kafka::of_stack());
    let (topic, dead_letters) = (stack.topic.as_str(), format!("{}.dlq", stack.topic));
    let service = guest(&stack).await;
    let placed = service.place("pizza").await;
    service.reached(&placed, "DELIVERED").await;
    says(&service, "broker", &[topic, "KAFKA_TOPIC", "right"]).await;

    for topic in [topic, &dead_letters] {
        rights(&["--add", "--operation", "Describe", "--topic", topic]).await;
    }
    says(&service, "broker", &[topic, "missing", "right Create"]).await;
    kafka.create(&[topic, &dead_letters]).await;
    says(&service, "consumer", &["right Read", "KAFKA_GROUP", topic]).await;
    says(&service, "relay", &["right Write", topic]).await;

    rights(&["--add", "--operation", "Read", "--group", topic]).await;
    says(&service, "consumer", &["right Read", "KAFKA_TOPIC", topic]).await;
    rights(&["--add", "--operation", "Read", "--operation", "Write", "--topic", topic]).await;
    service.settled().await;
    let (id, good) = order(1);
    kafka.put_on(topic, 0, &id, &good).await;
    service.reached(&id, "DELIVERED").await;

    // The dead-letter topic may be read by now and not be written to.
    rights(&["--add", "--operation", "Read", "--topic", &dead_letters]).await;
    kafka.put_on(topic, 0, "x", "not json").await;
    says(&service, "consumer", &["partition 0", "right Write", &dead_letters]).await;
    let (id, good) = order(2);
    kafka.put_on(topic, 1, &id, &good).await;
    service.reached(&id, "DELIVERED").await;
    rights(&["--add", "--operation", "Write", "--topic", &dead_letters]).await;

    // Nothing but events waits for theirs.
    says(&service, "events", &[&stack.events, "KAFKA_EVENTS_TOPIC", "right"]).await;
    rights(&["--add", "--operation", "Describe", "--topic", &stack.events]).await;
    says(&service, "events", &[&stack.events, "missing", "right Create"]).await;
    kafka.create(&[&stack.events]).await;
    says(&service, "events", &["right Write", &stack.events]).await;
    rights(&["--add", "--operation", "Write", "--topic", &stack.events]).await;
    well(&service).await;
    let told = async || (kafka.counts(&stack.events).await.iter().sum::<i64>() >= 18).then_some(());
    eventually("every event is told", told).await;
    assert_eq!(
        kafka.counts(&dead_letters).await.iter().sum::<i64>(),
        1,
        "nothing good among the dead letters"
    );
    service.stop().await;
}
