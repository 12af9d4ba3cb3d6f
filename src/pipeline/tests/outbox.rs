//! The relay and its table: rows that can't go or can't be written stand in nobody's way.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, Kitchen, PATIENCE,
    doubles::{Picky, Troubled},
    ids, new_orders, start, step_until, texts,
};
use crate::{
    broker::{Blame, BrokerError, IN_FLIGHT, Partitions, Publisher, Receipt, Record, Refusal},
    order::{OrderDetails, OrderId, OrderPlaced, Reject},
    pipeline::{Outcome, Relay},
    store::{Insight as _, NewOrder, OrderStore as _, Outbox, Placement, memory::MemoryStore},
    telemetry::{
        health::{self, Health, IssueKind},
        metrics::Metrics,
    },
    time::VirtualClock,
};

/// Lets a relay work by itself until its health is as wanted; it goes on after that.
async fn until(watcher: &mut watch::Receiver<Health>, wanted: impl FnMut(&Health) -> bool) -> Health {
    let seen = tokio::time::timeout(PATIENCE, watcher.wait_for(wanted)).await;
    seen.expect("in time").expect("it lives").clone()
}

fn run(relay: Relay) -> (tokio::task::JoinHandle<()>, watch::Receiver<Health>) {
    let (health, watcher) = health::channel();
    (tokio::spawn(relay.run(health)), watcher)
}

/// An order whose message is larger than 1,000 bytes.
fn large(order: NewOrder) -> NewOrder {
    let address = "🍕".repeat(200);
    NewOrder {
        details: OrderDetails::new("Ada", &address, &"🍕".repeat(50), "large").expect("valid"),
        ..order
    }
}

/// Promise 2: everything accepted reaches the topic. However many rows before it are refused.
#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_hide_no_others() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::with(&[("message.max.bytes", "1000")]));
    let orders = new_orders(1_503);
    let (first, last) = orders.split_at(1_500);
    let too_large: Vec<NewOrder> = first.iter().cloned().map(large).collect();
    kitchen.store.place(&too_large, Outbox::Anyones).await.expect("places");
    kitchen.store.place(last, Outbox::Anyones).await.expect("places");
    let store = Arc::clone(&kitchen.store);
    let (relay, mut watcher) = run(broker.relay(&mut kitchen));
    let named = |health: &Health| {
        matches!(health, Health::Degraded(why) if why.0[0].kind == IssueKind::Refused
            && why.0[0].text.contains("the broker refuses 1500 orders")
            && why.0[0].text.contains("message.max.bytes in KAFKA_PROPERTIES"))
    };
    until(&mut watcher, named).await;
    let cleared = async { while store.backlog().await.expect("reads").unsent > 1_500 {} };
    tokio::time::timeout(PATIENCE, cleared).await.expect("in time");
    assert_eq!(broker.keys(), texts(&ids(last)));
    relay.abort();
}

/// A refused order steps aside: the same one is not handed over again with every sweep.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_order_is_tried_again_later_and_goes_when_it_may() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    let all = kitchen.place(20).await;
    let bad = all[3];
    let picky = Picky::new(
        broker.publisher.clone(),
        Box::new(move |order_id| (order_id == bad).then_some(Blame::Message)),
    );
    let mut relay = broker.relay_through(&mut kitchen, picky.clone());
    step_until(&mut relay, async || kitchen.unsent().await == 1).await;
    assert_eq!(picky.asked.load(Ordering::Relaxed), 20, "each once");

    *picky.taste.lock().expect("no panic") = Box::new(|_| None);
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;
    assert_eq!(broker.keys(), texts(&all));
    assert_eq!(picky.asked.load(Ordering::Relaxed), 21, "once more, after its pause");
}

/// Promise 6: it says what is wrong. A right that is missing is nobody's fault: all wait, and one order at a
/// time asks whether that is over.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_order_can_go_all_wait() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    let picky = Picky::new(broker.publisher.clone(), Box::new(|_| Some(Blame::Everything)));
    let all = kitchen.place(50).await;
    let (relay, mut watcher) = run(broker.relay_through(&mut kitchen, picky.clone()));
    until(&mut watcher, |health| matches!(health, Health::Down(why) if why.contains("not to my taste")))
        .await;
    let asked_again = async {
        while picky.asked.load(Ordering::Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked_again).await.expect("in time");
    assert!(picky.asked.load(Ordering::Relaxed) < 10, "not all of them each time");
    *picky.taste.lock().expect("no panic") = Box::new(|_| None);
    until(&mut watcher, |health| *health == Health::Up).await;
    let store = Arc::clone(&kitchen.store);
    let cleared = async { while store.backlog().await.expect("reads").unsent > 0 {} };
    tokio::time::timeout(PATIENCE, cleared).await.expect("in time");
    assert_eq!(broker.keys(), texts(&all));
    relay.abort();
}

/// Stopping takes no longer where no order can go: they are left to the outbox.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_may_publish_nothing_ends_soon() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    let picky = Picky::new(broker.publisher.clone(), Box::new(|_| Some(Blame::Everything)));
    kitchen.place(50).await;
    let relay = broker.relay_through(&mut kitchen, picky);
    let store = Arc::clone(&kitchen.store);
    drop(kitchen.writer);
    tokio::time::timeout(PATIENCE, relay.run(health::channel().0)).await.expect("ends by itself");
    assert_eq!(store.unclaimed(None, 100).await.expect("reads").len(), 50, "for anybody to take");
}

/// Rows that somebody holds are cleared when he lets them go. They stop nobody, and cost what they are.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_session_holds_are_cleared_later() {
    let ((mut kitchen, store), mut broker) = (Kitchen::troubled().await, Broker::start());
    let all = kitchen.place(50).await;
    store.held.lock().expect("no panic").extend(&all[3..5]);
    let (relay, mut watcher) = run(broker.relay(&mut kitchen));
    let named = |health: &Health| {
        matches!(health, Health::Degraded(why) if why.0[0].text.contains("holds 2 outbox rows")
            && why.0[0].text.contains(&all[3].to_string()))
    };
    until(&mut watcher, named).await;
    assert_eq!((kitchen.unsent().await, broker.keys()), (2, texts(&all)));
    kitchen.place(50).await;
    let others = async { while kitchen.unsent().await > 2 {} };
    tokio::time::timeout(PATIENCE, others).await.expect("in time");
    store.held.lock().expect("no panic").clear();
    until(&mut watcher, |health| *health == Health::Up).await;
    let cleared = async { while kitchen.unsent().await > 0 {} };
    tokio::time::timeout(PATIENCE, cleared).await.expect("in time");
    assert_eq!(broker.keys().len(), 100, "each once");
    relay.abort();
}

async fn bad_rows(kitchen: &Kitchen, store: &Troubled, order_ids: &[OrderId]) {
    store.bad.lock().expect("no panic").extend(order_ids);
    assert!(kitchen.store.mark_sent(order_ids).await.is_err());
}

/// One row that can't be cleared or given back is named; the rows of all others are cleared meanwhile, and
/// its order is not published again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cant_be_cleared_holds_up_no_other() {
    let mut broker = Broker::start();
    let (mut kitchen, store) = Kitchen::troubled().await;
    let all = kitchen.place(64).await;
    bad_rows(&kitchen, &store, &all[17..18]).await;
    let (relay, mut watcher) = run(broker.relay(&mut kitchen));
    let named = format!("the outbox row of {} can't be cleared", all[17]);
    until(&mut watcher, |health| {
        matches!(health, Health::Degraded(why) if why.0[0].order_id == Some(all[17])
            && why.0[0].text.starts_with(&named))
    })
    .await;
    assert_eq!(kitchen.unsent().await, 1);

    // It goes with a later try, and nothing was sent twice.
    kitchen.clock.advance(Duration::from_mins(1));
    store.bad.lock().expect("no panic").clear();
    until(&mut watcher, |health| *health == Health::Up).await;
    assert_eq!(kitchen.unsent().await, 0);
    assert_eq!(broker.keys(), texts(&all));
    relay.abort();
}

/// The same of a row that can't be claimed.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cant_be_claimed_holds_up_no_other() {
    let mut broker = Broker::start();
    let (mut kitchen, store) = Kitchen::troubled().await;
    let orders = new_orders(40);
    kitchen.store.place(&orders, Outbox::Anyones).await.expect("places");
    bad_rows(&kitchen, &store, &[orders[11].order_id]).await;
    let mut relay = broker.relay(&mut kitchen);
    step_until(&mut relay, async || kitchen.unsent().await == 1).await;
    store.bad.lock().expect("no panic").clear();
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;
    assert_eq!(broker.keys(), texts(&ids(&orders)));
}

/// An outbox whose beginning can't be read in time (dead rows that an open transaction keeps) is read from
/// later on, so that what is new goes.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_cant_be_read_from_its_beginning_is_read_from_later_on() {
    let mut broker = Broker::start();
    let (mut kitchen, store) = Kitchen::troubled().await;
    let orders = new_orders(5);
    kitchen.store.place(&orders, Outbox::Anyones).await.expect("places");
    store.dead.store(true, Ordering::Relaxed);
    let mut relay = broker.relay(&mut kitchen);
    step_until(&mut relay, async || kitchen.unsent().await == 0).await;
    assert_eq!(broker.keys(), texts(&ids(&orders)));
}

/// A draining relay begins nothing new.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_relay_claims_nothing() {
    let (mut kitchen, mut broker) = (Kitchen::open().await, Broker::start());
    kitchen.store.place(&new_orders(3), Outbox::Anyones).await.expect("places");
    let mut relay = broker.relay(&mut kitchen);
    drop(kitchen.writer);
    let ended = async { while relay.step().await.expect("works") != Outcome::Finished {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("in time");
    assert_eq!(kitchen.store.unclaimed(None, 10).await.expect("reads").len(), 3);
}

/// Acknowledges everything at once.
struct Prompt(mpsc::Sender<Receipt>);

#[async_trait]
impl Publisher for Prompt {
    fn partitions(&self) -> Arc<Partitions> {
        Arc::default()
    }

    fn publish(&self, message: &OrderPlaced, _: Option<i32>) -> Result<(), Refusal> {
        let receipt = Receipt { order_id: message.order_id, outcome: Ok(()), took: Duration::ZERO };
        self.0.try_send(receipt).expect("room");
        Ok(())
    }

    async fn dead_letter(&self, _: &Record, _: &Reject) -> Result<(), BrokerError> {
        Ok(())
    }
}

/// Promise 2: everything accepted reaches the topic, once without faults. A database that takes its time with
/// one answer keeps neither the sign of life from being given, without which others would publish our rows again,
/// nor new orders from being published.
#[tokio::test(start_paused = true)]
async fn a_slow_answer_holds_up_neither_orders_nor_the_sign_of_life() {
    let clock = Arc::new(VirtualClock::new(start()));
    let inner = MemoryStore::new(Arc::default(), clock.clone(), 1);
    let store =
        Arc::new(Troubled { clearing_takes: Duration::from_secs(30), ..Troubled::new(Arc::new(inner), []) });
    let (receipts_in, receipts) = mpsc::channel(IN_FLIGHT);
    let (fresh, fresh_out) = mpsc::channel(9);
    let metrics = Arc::new(Metrics::new());
    let publisher = Arc::new(Prompt(receipts_in));
    let stop = CancellationToken::new();
    let relay = Relay::new(store.clone(), publisher, fresh_out, receipts, metrics.clone(), clock, stop);
    let (relay, _) = run(relay);
    for (n, order) in new_orders(2).into_iter().enumerate() {
        let placed = store.place(&[order], Outbox::Mine).await.expect("places").remove(0);
        let Placement::Placed(message) = placed else { panic!("{placed:?}") };
        fresh.send(message).await.expect("it lives");
        // The first answer of the database is awaited when the second order comes.
        sleep(Duration::from_secs(5)).await;
        let text = String::from_utf8(metrics.render().expect("renders")).expect("text");
        assert!(text.contains(&format!("orders_produced_total {}\n", n + 1)), "{text}");
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(store.backlog().await.expect("reads").unsent, 2, "no answer yet");
    assert!(store.beats.load(Ordering::Relaxed) >= 20, "{:?}", store.beats);
    sleep(Duration::from_secs(50)).await;
    assert_eq!(store.backlog().await.expect("reads").unsent, 0);
    relay.abort();
}
