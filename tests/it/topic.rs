//! What goes out to the topic and what comes in from it.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use serde_json::{Value, json};
use testkit::Message;

use crate::{
    harness::{SIX, Service, eventually, names},
    kafka::{DLQ, EVENTS, Kafka, TOPIC, foreign},
    stack::Stack,
};

const FOREIGN: &str = "ORD-01ARZ3NDEK0000000000000000";

fn consumed(result: &str) -> String {
    format!("consumer_messages_total{{result=\"{result}\"}}")
}

/// Promise 2: everything accepted reaches the topic.
#[tokio::test]
async fn every_order_is_on_the_topic_once() {
    let service = Service::start(&[("STAGE_DELAYS", "0s")]).await;
    let kafka = Kafka::of(&service);
    let placed: BTreeSet<String> =
        join_all((0..30).map(|_| service.place("pizza"))).await.into_iter().collect();
    service.settled().await;
    service.counted("orders_consumed_total", 30).await;
    assert_eq!(service.metric("orders_produced_total").await, 30);
    assert_eq!(service.metric("orders_consumed_total").await, 30);
    assert_eq!(service.metric(&consumed("known")).await, 30);

    let messages = kafka.all(TOPIC).await;
    assert_eq!(messages.len(), 30, "no order twice");
    for message in &messages {
        looks_right(&service, message).await;
    }
    assert_eq!(messages.into_iter().filter_map(|message| message.key).collect::<BTreeSet<_>>(), placed);
    assert_eq!(kafka.all(DLQ).await.len(), 0);
}

async fn looks_right(service: &Service, message: &Message) {
    let id = message.key.as_deref().expect("a key");
    let order = &service.json(&format!("/orders/{id}")).await["order"];
    let mut expected = order.clone();
    expected.as_object_mut().expect("an object").remove("updated_at");
    expected["status"] = json!("PLACED");
    expected["seq"] = json!(1);
    assert_eq!(message.json(), expected);

    let header =
        |name: &str| message.headers.get(name).unwrap_or_else(|| panic!("no {name}: {message:?}")).as_str();
    assert_eq!(header("ce_specversion"), "1.0");
    assert_eq!(header("ce_id"), format!("{id}:1"));
    assert_eq!(header("ce_subject"), id);
    assert_eq!(header("ce_time"), order["created_at"].as_str().expect("a moment"));
    assert!(!header("ce_type").is_empty() && !header("ce_source").is_empty());
    assert_eq!(header("content-type"), "application/json");
}

/// Another system may put orders on the topic; they live like any other.
///
/// Promise 3: an effect happens once.
#[tokio::test]
async fn an_order_of_another_system_is_admitted_and_delivered() {
    let service = Service::start(&[("STAGE_DELAYS", "100ms")]).await;
    let kafka = Kafka::of(&service);
    let message = foreign(FOREIGN).to_string();
    for _ in 0..2 {
        kafka.put(Some(FOREIGN), Some(message.as_bytes())).await;
    }
    service.counted("orders_consumed_total", 2).await;
    assert_eq!(service.metric(&consumed("admitted")).await, 1);
    assert_eq!(service.metric(&consumed("known")).await, 1);

    let tracked = service.reached(FOREIGN, "DELIVERED").await;
    assert_eq!(names(&tracked), SIX);
    assert_eq!(tracked["order"]["item"], "ramen");
    // It is there already; to publish it again would be a duplicate of our own making.
    assert_eq!(service.metric("orders_produced_total").await, 0);
    assert_eq!(kafka.all(TOPIC).await.len(), 2);
}

/// Late, twice, forged or a tombstone: a known order stays as it is.
///
/// Promise 3: an effect happens once.
#[tokio::test]
async fn a_late_message_changes_nothing() {
    let service = Service::start(&[("STAGE_DELAYS", "0s")]).await;
    let kafka = Kafka::of(&service);
    let id = service.place("pizza").await;
    let before = service.reached(&id, "DELIVERED").await;
    let original = kafka.read(TOPIC, 1).await.pop().expect("a message");
    service.counted(&consumed("known"), 1).await;

    kafka.put(Some(&id), original.value.as_deref()).await;
    kafka.put(Some(&id), Some(foreign(&id).to_string().as_bytes())).await;
    kafka.put(Some(&id), None).await;
    service.counted(&consumed("known"), 3).await;
    service.counted(&consumed("tombstone"), 1).await;

    assert_eq!(service.json(&format!("/orders/{id}")).await, before);
    assert_eq!(service.metric("orders_consumed_total").await, 4);
    assert_eq!(service.json("/orders").await.as_array().map(Vec::len), Some(1));
}

/// What can't be an order, with the word for why.
fn poison() -> Vec<(Option<&'static str>, Vec<u8>, &'static str)> {
    let with = |field: &str, value: Value| {
        let mut message = foreign(FOREIGN);
        message[field] = value;
        message.to_string().into_bytes()
    };
    let mut incomplete = foreign(FOREIGN);
    incomplete.as_object_mut().expect("an object").remove("address");
    let good = foreign(FOREIGN).to_string().into_bytes();
    vec![
        (Some(FOREIGN), b"{\"order_id\": ".to_vec(), "not_json"),
        (Some(FOREIGN), vec![0xff, 0xfe, 0x00], "not_json"),
        (Some("ORD-01ARZ3NDEK0000000000000009"), good.clone(), "key_mismatch"),
        (Some("7"), with("order_id", json!("7")), "invalid_id"),
        (Some(FOREIGN), incomplete.to_string().into_bytes(), "invalid_field"),
        (Some(FOREIGN), with("size", json!("huge")), "invalid_field"),
        (Some(FOREIGN), with("item", json!("x".repeat(16 * 1024))), "too_large"),
        (None, good, "no_key"),
    ]
}

/// Bad messages become dead letters with their reason and origin; good ones among them are admitted.
///
/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn a_poison_message_holds_nobody_up() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let kafka = Kafka::of(&service);
    let (mut expected, mut good) = (BTreeSet::new(), Vec::new());
    for (n, (key, value, reason)) in poison().into_iter().enumerate() {
        let (partition, offset) = kafka.put(key, Some(&value)).await;
        expected.insert((reason.to_owned(), TOPIC.to_owned(), partition.to_string(), offset.to_string()));
        let id = format!("ORD-01ARZ3NDEK00000000000000{n}A");
        kafka.put(Some(&id), Some(foreign(&id).to_string().as_bytes())).await;
        good.push(id);
    }
    let bad = expected.len() as u64;
    service.counted("orders_consumed_total", bad + good.len() as u64).await;
    for id in &good {
        assert_eq!(names(&service.json(&format!("/orders/{id}")).await), SIX[..2]);
    }
    assert_eq!(service.get(&format!("/orders/{FOREIGN}")).await.status(), 404);

    let dead_letters = kafka.all(DLQ).await;
    let origin = |dead_letter: &Message| {
        let header = |name: &str| dead_letter.headers.get(name).cloned().unwrap_or_default();
        (header("dlq_reason"), header("dlq_topic"), header("dlq_partition"), header("dlq_offset"))
    };
    assert_eq!(dead_letters.iter().map(origin).collect::<BTreeSet<_>>(), expected);
    assert_eq!(dead_letters.len(), expected.len(), "no dead letter twice");
    assert!(
        dead_letters.iter().any(|dead_letter| dead_letter.value.as_deref() == Some(b"{\"order_id\": ")),
        "kept as it came"
    );

    assert_eq!(service.metric(&consumed("rejected")).await, bad);
    assert_eq!(service.metric("dead_letters_total{reason=\"not_json\"}").await, 2);
    assert_eq!(service.logged().matches("becomes a dead letter").count() as u64, bad, "each is logged once");
}

/// The events on a topic by their order, as they lie there, without those that come again.
fn by_order(messages: &[Message]) -> BTreeMap<String, Vec<Value>> {
    let mut found = BTreeMap::<String, Vec<Value>>::new();
    for message in messages {
        let event = message.json();
        let key = message.key.clone().expect("a key");
        assert_eq!(
            (event["order_id"].as_str(), message.headers["ce_subject"].as_str()),
            (Some(&*key), &*key)
        );
        assert_eq!(message.headers["ce_id"], format!("{key}:{}", event["seq"]));
        let events = found.entry(key).or_default();
        let again = events.iter().any(|known| known["seq"] == event["seq"]);
        events.extend((!again).then_some(event));
    }
    found
}

/// Each order's events are those of its timeline, in order; `GET /events` tells the same.
async fn tells_the_same(service: &Service, found: &BTreeMap<String, Vec<Value>>) {
    for (id, events) in found {
        let tracked = service.json(&format!("/orders/{id}")).await;
        let told: Vec<Value> = events
            .iter()
            .map(|event| json!({"event": event["event"], "timestamp": event["timestamp"], "meta": event["meta"]}))
            .collect();
        assert_eq!(json!(told), tracked["events"], "{id}");
        let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().expect("a number")).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
        for event in events {
            let order = &tracked["order"];
            let facts =
                json!({"item": order["item"], "size": order["size"], "created_at": order["created_at"]});
            assert_eq!(event["order"], facts);
        }
    }
    let mut written: Vec<Value> = found.values().flatten().cloned().collect();
    for event in &mut written {
        event.as_object_mut().expect("an object").remove("order");
    }
    let cursor = |event: &Value| event["cursor"].as_str().and_then(|text| text.parse::<i64>().ok());
    written.sort_by_key(cursor);
    assert_eq!(feed(service).await, written);
}

/// All that `GET /events` tells, page by page.
async fn feed(service: &Service) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let mut page = service.json(&format!("/events?after={after}&limit=50")).await;
        if let Value::Array(more) = page["events"].take() {
            events.extend(more);
        }
        page["next"].as_str().expect("a cursor").clone_into(&mut after);
        if page["caught_up"] == true {
            return events;
        }
    }
}

/// Promise 2: everything accepted reaches the topic, and so does everything that happens to it.
#[tokio::test]
async fn every_event_is_on_its_topic_once() {
    let service = Service::start(&[("STAGE_DELAYS", "0s")]).await;
    let kafka = Kafka::of(&service);
    join_all((0..20).map(|_| service.place("pizza"))).await;
    service.settled().await;
    service.counted("events_produced_total", 120).await;
    let messages = kafka.all(EVENTS).await;
    assert_eq!(messages.len(), 120, "no event twice");
    assert!(
        messages.iter().all(|message| !message.json().to_string().contains("Ada")),
        "no name leaves the house"
    );
    let found = by_order(&messages);
    assert_eq!(found.len(), 20);
    tells_the_same(&service, &found).await;
    assert_eq!(service.metric("events_left_out_total").await, 0);
}

/// What is off costs nothing: no topic, no client, no series that an alert could miss.
#[tokio::test]
async fn without_a_topic_no_event_is_written() {
    let service = Service::start(&[("STAGE_DELAYS", "0s"), ("KAFKA_EVENTS_TOPIC", "off")]).await;
    service.place("pizza").await;
    service.settled().await;
    assert_eq!(Kafka::of(&service).counts(EVENTS).await, Vec::<i64>::new());
    assert!(!service.metrics().await.contains("\nevents_behind_seconds "));
    let degraded = service.json("/readyz").await["degraded"].take();
    assert!(degraded.as_array().expect("parts").iter().all(|part| part["part"] != "events"), "{degraded}");
}

/// On a real cluster, where one of two replicas writes and is killed: the other goes on where it was.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn another_replica_writes_the_events_of_one_that_was_killed() {
    let (stack, kafka) = (Stack::make().await, Kafka::of_stack());
    let (one, other) = tokio::join!(stack.replica("0s"), stack.replica("0s"));
    let produced = "events_produced_total";
    join_all((0..20).map(|n| if n % 2 == 0 { one.place("pizza") } else { other.place("ramen") })).await;
    one.settled().await;
    eventually("all are written", async || {
        (one.metric(produced).await + other.metric(produced).await == 120).then_some(())
    })
    .await;
    assert_eq!(kafka.all(&stack.events).await.len(), 120, "no event twice");
    let (killed, left) = if one.metric(produced).await == 0 { (other, one) } else { (one, other) };
    assert_eq!(left.metric(produced).await, 0, "one of them writes");
    killed.kill().await;
    join_all((0..20).map(|_| left.place("pizza"))).await;
    left.settled().await;
    left.counted(produced, 120).await;
    let found = by_order(&kafka.all(&stack.events).await);
    assert_eq!(found.len(), 40);
    tells_the_same(&left, &found).await;
    let (report, code) = stack.verify().await;
    assert_eq!(code, Some(0), "{report}");
    let rule = "the event topic holds each order's events in order";
    assert!(report.lines().any(|line| line.starts_with(rule) && line.ends_with(" ok")), "{report}");
    left.stop().await;
}
