//! The consumer: what is admitted, what becomes a dead letter, and in which order offsets follow.

use std::sync::{Arc, atomic::Ordering};

use serde_json::{Value, json};

use super::{
    FIRST_DELAY, Kitchen, Outcome,
    doubles::{DeadLetters, Scripted, Told, Troubled, WriteFailure},
};
use crate::{
    broker::Record,
    order::{OrderId, RejectReason, Start, Status},
    pipeline::Consumer,
    telemetry::health::Health,
};

const ID: &str = "ORD-01ARZ3NDEK000000000000000";

pub(super) fn value(id: &str, name: &str) -> Value {
    json!({"order_id": id, "customer_name": name, "address": "1 High St", "item": "pizza", "size": "small",
        "status": "PLACED", "created_at": "2026-01-02T03:04:00Z"})
}

pub(super) fn record(offset: i64, key: &str, value: Option<&str>) -> Record {
    let (key, value) = (Some(key.as_bytes().to_vec()), value.map(|value| value.as_bytes().to_vec()));
    Record { topic: super::TOPIC.to_owned(), partition: 1, offset, key, value, ..Record::default() }
}

fn order(offset: i64, digit: u8, name: &str) -> Record {
    let id = format!("{ID}{digit}");
    record(offset, &id, Some(&value(&id, name).to_string()))
}

pub(super) fn on(partition: i32, record: Record) -> Record {
    Record { partition, ..record }
}

struct Bench {
    kitchen: Kitchen,
    troubled: Arc<Troubled>,
    consumer: Consumer,
    dead_letters: Arc<DeadLetters>,
    told: Arc<Told>,
}

async fn bench(
    batches: impl IntoIterator<Item = Vec<Record>>,
    script: &[WriteFailure],
    failures: usize,
) -> Bench {
    let (kitchen, troubled) = Kitchen::troubled().await;
    troubled.script(script.to_vec());
    let (dead_letters, told) = (Arc::new(DeadLetters::default()), Arc::new(Told::default()));
    *dead_letters.failures.lock().expect("no panic") = failures;
    let subscription = Scripted { batches: batches.into_iter().collect(), told: Arc::clone(&told) };
    let consumer = Consumer::new(
        Box::new(subscription),
        Arc::clone(&kitchen.store),
        dead_letters.clone(),
        Arc::clone(&kitchen.transitions),
        Arc::clone(&kitchen.metrics),
        Start::timer(FIRST_DELAY),
    );
    Bench { kitchen, troubled, consumer, dead_letters, told }
}

impl Bench {
    async fn status(&self, digit: u8) -> Option<Status> {
        let id: OrderId = format!("{ID}{digit}").parse().expect("an id");
        self.kitchen.store.find(id).await.expect("reads").map(|found| found.order.status)
    }

    fn handled(&self) -> Vec<i64> {
        self.told.handled.lock().expect("no panic").iter().map(|record| record.offset).collect()
    }

    fn held_back(&self) -> Vec<i32> {
        self.told.held_back.lock().expect("no panic").iter().copied().collect()
    }

    /// Steps until so many messages are handled in all.
    async fn handles(&mut self, count: usize) {
        let work = async {
            while self.handled().len() < count {
                self.consumer.step().await.expect("works");
            }
        };
        tokio::time::timeout(super::PATIENCE, work).await.expect("in time");
    }

    fn degraded(&self) -> String {
        let health = self.consumer.health();
        health.reason().unwrap_or_else(|| format!("{health:?}"))
    }

    fn dead_letters(&self) -> Vec<(i64, RejectReason)> {
        let dead_letters = self.dead_letters.kept.lock().expect("no panic");
        dead_letters.iter().map(|(record, reject)| (record.offset, reject.reason)).collect()
    }

    fn counted(&self, series: &str) -> bool {
        let text = String::from_utf8(self.kitchen.metrics.render().expect("renders")).expect("text");
        text.lines().any(|line| line == series)
    }
}

/// Promise 5: memory, queues and time are bounded. A consumer is never stuck on one message.
#[tokio::test]
async fn good_messages_are_admitted_around_bad_ones() {
    let batch = vec![
        order(0, 1, "Ada"),
        record(1, "x", Some("not json")),
        record(2, "x", None),
        order(3, 2, "Grace"),
        order(4, 1, "Ada"),
    ];
    let mut bench = bench([batch], &[], 0).await;
    assert_eq!(bench.consumer.step().await.expect("works"), Outcome::Worked(5));
    assert_eq!((bench.status(1).await, bench.status(2).await), (Some(Status::Placed), Some(Status::Placed)));
    assert_eq!(bench.dead_letters(), [(1, RejectReason::NotJson)]);
    assert_eq!(bench.handled(), [0, 1, 2, 3, 4]);
    for series in [
        "orders_consumed_total 5",
        "consumer_messages_total{result=\"admitted\"} 2",
        "consumer_messages_total{result=\"known\"} 1",
        "consumer_messages_total{result=\"rejected\"} 1",
        "consumer_messages_total{result=\"tombstone\"} 1",
        "dead_letters_total{reason=\"not_json\"} 1",
    ] {
        assert!(bench.counted(series), "{series}");
    }
}

/// Promise 3: an effect happens once. An offset follows only after the commit, and a retry counts once.
#[tokio::test]
async fn trouble_keeps_the_batch_until_it_is_done() {
    let bad = |offset| record(offset, "x", Some("{"));
    let batch = vec![order(0, 1, "Ada"), bad(1), order(2, 2, "Grace"), bad(3), bad(4)];
    let mut bench = bench([batch], &[WriteFailure::NotDone, WriteFailure::AnswerLost], 1).await;
    for reason in ["the database is away", "the answer got lost"] {
        bench.consumer.step().await.expect("nobody's fault");
        assert!(bench.handled().is_empty(), "{reason}");
        let told = bench.degraded();
        assert!(told.contains(reason.trim_start_matches("the database is ")), "{told}");
    }
    bench.handles(5).await;
    assert_eq!(bench.handled(), [0, 1, 2, 3, 4]);
    // The first failed and was sent again; the others were not.
    assert_eq!(bench.dead_letters(), [3, 4, 1].map(|offset| (offset, RejectReason::NotJson)));
    assert_eq!((bench.status(1).await, bench.status(2).await), (Some(Status::Placed), Some(Status::Placed)));
    assert!(bench.counted("orders_consumed_total 5"));
    assert_eq!(bench.consumer.health(), Health::Up);
}

/// Promise 5: memory, queues and time are bounded. Whatever holds up a message holds up its partition only.
#[tokio::test]
async fn a_message_that_cant_be_set_aside_holds_up_its_partition_only() {
    let first = vec![record(7, "x", Some("{")), order(8, 1, "Ada"), on(2, order(20, 2, "Grace"))];
    let second = vec![on(2, order(21, 3, "Edsger"))];
    let mut bench = bench([first, second], &[], usize::MAX).await;
    bench.handles(2).await;
    assert_eq!((bench.handled(), bench.held_back()), (vec![20, 21], vec![1]));
    // What came with it is admitted, but its offset waits.
    assert_eq!((bench.status(1).await, bench.status(3).await), (Some(Status::Placed), Some(Status::Placed)));
    assert_eq!(
        bench.degraded(),
        "partition 1: a message that is no order can't be written to the dead-letter topic: away"
    );

    *bench.dead_letters.failures.lock().expect("no panic") = 0;
    bench.handles(4).await;
    assert_eq!((bench.handled(), bench.held_back()), (vec![20, 21, 7, 8], vec![]));
    assert_eq!((bench.dead_letters().len(), bench.consumer.health()), (1, Health::Up));
}

/// The client never gives up a message by itself, so its answer may not come for hours.
#[tokio::test]
async fn an_answer_that_does_not_come_holds_up_its_partition_only() {
    let first = vec![record(7, "x", Some("{")), on(2, record(20, "x", None))];
    let second = vec![on(2, record(21, "x", None))];
    let mut bench = bench([first, second], &[], 0).await;
    bench.dead_letters.silent.store(true, Ordering::Relaxed);
    tokio::time::pause();
    bench.handles(2).await;
    assert_eq!((bench.handled(), bench.held_back()), (vec![20, 21], vec![1]));
    assert!(bench.degraded().contains("has not acknowledged"), "{}", bench.degraded());
    for _ in 0..100 {
        bench.consumer.step().await.expect("works");
    }
    assert_eq!(bench.dead_letters().len(), 1, "it is not sent again");
    bench.dead_letters.let_go.notify_one();
    bench.handles(3).await;
    assert_eq!((bench.handled(), bench.held_back()), (vec![20, 21, 7], vec![]));
}

/// Trouble of the database is no fault of a message: it is no dead letter.
#[tokio::test]
async fn a_message_that_the_database_cant_take_alone_holds_up_its_partition_only() {
    let batch = vec![order(7, 1, "locked"), order(8, 2, "Ada"), on(2, order(20, 3, "Grace"))];
    let mut bench = bench([batch], &[], 0).await;
    bench.handles(1).await;
    assert_eq!((bench.handled(), bench.held_back()), (vec![20], vec![1]));
    assert_eq!(bench.consumer.health(), Health::Up, "nothing is said before it was tried alone");
    bench.consumer.step().await.expect("works");
    assert!(bench.degraded().starts_with("partition 1: a message waits: "), "{}", bench.degraded());
    bench.troubled.locked.store(false, Ordering::Relaxed);
    bench.handles(3).await;
    assert_eq!((bench.handled(), bench.held_back()), (vec![20, 7, 8], vec![]));
    assert_eq!(bench.dead_letters(), []);
}

/// Whoever has the partition now sets the message aside.
#[tokio::test]
async fn what_is_held_of_a_lost_partition_is_forgotten() {
    let again = || record(7, "x", Some("{"));
    let mut bench = bench([vec![again()], vec![again(), order(8, 1, "Ada")]], &[], 2).await;
    bench.consumer.step().await.expect("works");
    assert_eq!(bench.held_back(), [1]);
    bench.told.lost.lock().expect("no panic").insert(1);
    // This member has it again, from where the last one has committed.
    bench.handles(2).await;
    assert_eq!((bench.handled(), bench.held_back()), (vec![7, 8], vec![]));
    assert_eq!(bench.dead_letters().len(), 1);
}

#[tokio::test]
async fn what_the_database_refuses_is_set_aside_alone() {
    let batch = vec![order(0, 1, "Ada"), order(1, 2, "poison"), order(2, 3, "Grace")];
    let mut bench = bench([batch], &[], 0).await;
    bench.consumer.step().await.expect("works");
    assert_eq!(bench.dead_letters(), [(1, RejectReason::Refused)]);
    assert_eq!((bench.status(1).await, bench.status(2).await), (Some(Status::Placed), None));
    assert_eq!(bench.handled(), [0, 1, 2]);
}
