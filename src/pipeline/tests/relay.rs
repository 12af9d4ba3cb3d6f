//! The relay, with the real client and a broker that goes away.

use std::{sync::Arc, time::Duration};

use rdkafka::Message as _;
use rdkafka::message::Headers as _;

use super::{Broker, Kitchen, Outcome, PATIENCE, TOPIC, doubles::WriteFailure, step_until, texts};
use crate::{
    order::Start,
    store::{LOST_AFTER, NewOrder, Outbox, Page},
    telemetry::health::{self, Health},
    tracker::PlaceError,
};

/// Promise 2: everything accepted reaches the topic, once without faults.
#[tokio::test(flavor = "multi_thread")]
async fn fresh_orders_are_published_once_and_their_rows_cleared() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    let mut relay = broker.relay(&mut kitchen);
    let ids = kitchen.place(20).await;
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;
    assert_eq!(broker.keys(), texts(&ids));

    let message = &broker.read(TOPIC)[0];
    let value: serde_json::Value = serde_json::from_slice(message.payload().expect("a value")).expect("json");
    let key = std::str::from_utf8(message.key().expect("a key")).expect("text");
    assert_eq!((&value["order_id"], &value["status"]), (&key.into(), &"PLACED".into()));
    let headers = message.headers().expect("headers");
    let header = |name: &str| {
        let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
        String::from_utf8(found.expect("a header").to_vec()).expect("text")
    };
    assert_eq!(header("ce_specversion"), "1.0");
    assert_eq!(header("ce_id"), format!("{key}:1"));
    assert_eq!(header("ce_subject"), key);
    assert_eq!(header("ce_time"), "2026-01-02T03:04:05.000Z");
    assert_eq!(header("content-type"), "application/json");
}

/// Promise 2: everything accepted reaches the topic, after the broker's return.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_away_gets_everything_once() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    let mut relay = broker.relay(&mut kitchen);
    let mut ids = kitchen.place(3).await;
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;

    broker.embedded.cluster().broker_down(1).expect("goes down");
    ids.extend(kitchen.place(10).await);
    while relay.step().await.expect("works") != Outcome::Worked(10) {}
    assert_eq!(kitchen.unsent().await, 10, "no row is cleared before the acknowledgement");

    broker.embedded.cluster().broker_up(1).expect("comes back");
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;
    assert_eq!(broker.keys(), texts(&ids));
}

/// Promise 5: memory, queues and time are bounded. What has no place in memory waits in the table.
#[tokio::test(flavor = "multi_thread")]
async fn orders_beyond_the_queue_are_swept_from_the_table() {
    let (mut kitchen, mut broker) = (Kitchen::with(|store| store, 5).await, Broker::start());
    let mut ids = kitchen.place(4).await;
    ids.extend(kitchen.place(30).await);
    assert_eq!(kitchen.fresh.as_ref().expect("not taken").len(), 4);
    let mut relay = broker.relay(&mut kitchen);
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;
    assert_eq!(broker.keys(), texts(&ids));
}

/// Promise 2: everything accepted reaches the topic. A database that fails after the
/// acknowledgement is asked again; the order is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_clearing_is_repeated_without_publishing_again() {
    let mut broker = Broker::start();
    let script = [WriteFailure::NotDone, WriteFailure::AnswerLost];
    let (mut kitchen, store) = Kitchen::troubled().await;
    let ids = kitchen.place(5).await;
    store.script(script);
    let mut relay = broker.relay(&mut kitchen);
    let mut failures = 0;
    let work = async {
        while kitchen.unsent().await > 0 || failures < script.len() {
            failures += usize::from(relay.step().await.is_err());
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("in time");
    assert_eq!(broker.keys(), texts(&ids));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_relay_drains_first() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    let ids = kitchen.place(10).await;
    let relay = broker.relay(&mut kitchen);
    let store = Arc::clone(&kitchen.store);
    drop(kitchen.writer);
    tokio::time::timeout(PATIENCE, relay.run(health::channel().0)).await.expect("ends by itself");
    assert_eq!(store.backlog().await.expect("reads").unsent, 0);
    assert_eq!(broker.keys(), texts(&ids));
}

/// Promise 6: it says what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_says_that_the_database_holds_it_up() {
    let mut broker = Broker::start();
    let (mut kitchen, store) = Kitchen::troubled().await;
    kitchen.place(1).await;
    store.script([WriteFailure::NotDone; 2]);
    let (health, mut watcher) = health::channel();
    let relay = broker.relay(&mut kitchen);
    drop(kitchen.writer);
    let work = tokio::spawn(relay.run(health));
    let watch = async {
        let says = |health: &Health| matches!(health, Health::Down(why) if why.starts_with("the database"));
        watcher.wait_for(says).await.expect("says so");
        watcher.wait_for(|health| *health == Health::Up).await.expect("says that it is over");
    };
    tokio::time::timeout(PATIENCE, watch).await.expect("in time");
    work.await.expect("ends by itself");
}

/// What another life left unclaimed is published as well.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_nobody_are_swept() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    let order = new_order();
    kitchen.store.place(std::slice::from_ref(&order), Outbox::Anyones).await.expect("places");
    let mut relay = broker.relay(&mut kitchen);
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;
    assert_eq!(broker.keys(), texts(&[order.order_id]));
}

/// Promise 2: everything accepted reaches the topic. A row that became ours by a write whose answer
/// got lost is in nobody's memory; the relay finds it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_claimed_by_a_lost_answer_are_published() {
    let mut broker = Broker::start();
    let (mut kitchen, store) = Kitchen::troubled().await;
    kitchen.place(1).await;
    let mut relay = broker.relay(&mut kitchen);
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;

    // The writer commits, hears nothing, and gives up.
    kitchen.writer.hurry.cancel();
    store.script([WriteFailure::AnswerLost]);
    let (answer, _) =
        tokio::join!(kitchen.queue.place(super::details("Ada"), None, None), kitchen.writer.step());
    assert_eq!(answer, Err(PlaceError::Unavailable));
    // A sweep claims a row, and hears nothing.
    kitchen.store.place(&[new_order()], Outbox::Anyones).await.expect("places");
    store.script([WriteFailure::AnswerLost]);
    let work = async { while relay.step().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, work).await.expect("the claim fails");

    kitchen.clock.advance(LOST_AFTER + Duration::from_secs(1));
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;
    let stored = kitchen.store.list(&Page { status: None, before: None, limit: 10 }).await.expect("lists");
    let ids: Vec<_> = stored.iter().map(|order| order.order_id).collect();
    assert_eq!((ids.len(), broker.keys()), (3, texts(&ids)));
}

fn new_order() -> NewOrder {
    let order_id = "ORD-01ARZ3NDEK0000000000000000".parse().expect("an id");
    NewOrder { order_id, details: super::details("Ada"), key: None, meta: None, start: Start::default() }
}
