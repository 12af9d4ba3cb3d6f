//! A partition that is away holds up its own orders only.

use std::{collections::HashMap, sync::atomic::Ordering};

use super::{
    Broker, Kitchen, PARTITIONS, PATIENCE, TOPIC, doubles::Picky, ids, new_orders, step_until, texts,
};
use crate::{
    broker::{IN_FLIGHT, Publisher as _},
    order::OrderId,
    store::Outbox,
    telemetry::health::{self, Health, Issue, IssueKind, Issues},
};

const AWAY: i32 = 1;

/// Those of the partition that will be away, and the others.
fn split(broker: &Broker, all: &[OrderId]) -> (Vec<OrderId>, Vec<OrderId>) {
    let partitions = broker.publisher.partitions();
    assert_eq!(partitions.count, PARTITIONS);
    all.iter().partition(|id| partitions.of(**id) == Some(AWAY))
}

fn gauge(kitchen: &Kitchen) -> HashMap<String, String> {
    let text = String::from_utf8(kitchen.metrics.render().expect("renders")).expect("text");
    let line = |line: &str| {
        let (partition, value) =
            line.strip_prefix("partition_unavailable{partition=\"")?.split_once("\"} ")?;
        Some((partition.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Promise 2: everything accepted reaches the topic. One partition that is away holds up its own orders
/// only, and is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_holds_up_its_own_orders_only() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    broker.embedded.cluster().partition_leader(TOPIC, AWAY, None).expect("sets");
    broker.kafka.probe(&broker.publisher).await.expect("answers");
    assert!(broker.publisher.partitions().leaderless.contains(&AWAY));
    let mut all = kitchen.place(60).await;
    let more = new_orders(300);
    kitchen.store.place(&more, Outbox::Anyones).await.expect("places");
    all.extend(ids(&more));
    let (held_up, others) = split(&broker, &all);
    assert!(held_up.len() > 50 && others.len() > 100, "{held_up:?}");

    let (health, mut watcher) = health::channel();
    let relay = tokio::spawn(broker.relay(&mut kitchen).run(health));
    let sent = async { while kitchen.unsent().await > held_up.len() as u64 {} };
    tokio::time::timeout(PATIENCE, sent).await.expect("the others are sent");
    let says = Issue::new(IssueKind::Partition, format!("partition {AWAY} of topic {TOPIC} has no leader"));
    let says = Health::Degraded(Issues(vec![says]));
    tokio::time::timeout(PATIENCE, watcher.wait_for(|health| *health == says))
        .await
        .expect("in time")
        .expect("lives");
    let expected = [("0", "0"), ("1", "1"), ("2", "0")]
        .map(|(partition, value)| (partition.to_owned(), value.to_owned()));
    assert_eq!(gauge(&kitchen), HashMap::from(expected));

    broker.embedded.cluster().partition_leader(TOPIC, AWAY, Some(1)).expect("sets");
    broker.kafka.probe(&broker.publisher).await.expect("answers");
    let sent = async { while kitchen.unsent().await > 0 {} };
    tokio::time::timeout(PATIENCE, sent).await.expect("all are sent");
    assert_eq!(broker.keys(), texts(&all), "each once");
    tokio::time::timeout(PATIENCE, watcher.wait_for(|health| *health == Health::Up))
        .await
        .expect("in time")
        .expect("lives");
    assert_eq!(gauge(&kitchen)["1"], "0");
    relay.abort();
}

/// Promise 5: memory, queues and time are bounded. A partition that answers nothing takes half of the room at
/// most, though nobody has told that it has no leader; then it is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_never_takes_all_the_room() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    broker.embedded.cluster().partition_leader(TOPIC, AWAY, None).expect("sets");
    broker.kafka.probe(&broker.publisher).await.expect("answers");
    let half = IN_FLIGHT / 2;
    let mut mine = new_orders(18_000);
    mine.retain(|order| broker.publisher.partitions().of(order.order_id) == Some(AWAY));
    assert!(mine.len() > half + 100);
    kitchen.store.place(&mine, Outbox::Anyones).await.expect("places");
    let unseeing = Picky::new(broker.publisher.clone(), Box::new(|_| None));
    let asked = || unseeing.asked.load(Ordering::Relaxed);
    let mut relay = broker.relay_through(&mut kitchen, unseeing.clone());
    step_until(&mut relay, async || asked() >= half).await;

    let fresh = kitchen.place(90).await;
    let (held_up, others) = split(&broker, &fresh);
    assert!(others.len() > 20, "{others:?}");
    let waiting = (mine.len() + held_up.len()) as u64;
    step_until(&mut relay, async || kitchen.unsent().await == waiting).await;
    assert!(asked() <= half + fresh.len(), "the other half stays free");
    step_until(&mut relay, async || gauge(&kitchen)["1"] == "1").await;
}
