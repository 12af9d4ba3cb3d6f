//! The intake: what is admitted, what is set aside, and in which order offsets follow.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Kitchen, Outcome,
    doubles::{Drawer, Handled, Scripted, Trouble, Troubled},
};
use crate::{
    broker::Record,
    order::{OrderId, RejectReason, Status},
    pipeline::Intake,
};

const ID: &str = "ORD-01ARZ3NDEK000000000000000";

fn value(id: &str, name: &str) -> Value {
    json!({"order_id": id, "customer_name": name, "address": "1 High St", "item": "pizza", "size": "small",
        "status": "PLACED", "created_at": "2026-01-02T03:04:00Z"})
}

fn record(offset: i64, key: &str, value: Option<&str>) -> Record {
    let (key, value) = (Some(key.as_bytes().to_vec()), value.map(|value| value.as_bytes().to_vec()));
    Record { topic: super::TOPIC.to_owned(), partition: 1, offset, key, value }
}

fn order(offset: i64, digit: u8, name: &str) -> Record {
    let id = format!("{ID}{digit}");
    record(offset, &id, Some(&value(&id, name).to_string()))
}

struct Bench {
    kitchen: Kitchen,
    intake: Intake,
    drawer: Arc<Drawer>,
    handled: Arc<Handled>,
}

async fn bench(batches: impl IntoIterator<Item = Vec<Record>>, script: &[Trouble], failures: usize) -> Bench {
    let kitchen = Kitchen::with(|store| Arc::new(Troubled::new(store, script.to_vec())), 10).await;
    let (drawer, handled) = (Arc::new(Drawer::default()), Arc::new(Handled::default()));
    *drawer.failures.lock().expect("no panic") = failures;
    let subscription = Scripted { batches: batches.into_iter().collect(), handled: Arc::clone(&handled) };
    let intake = Intake::new(
        Box::new(subscription),
        Arc::clone(&kitchen.store),
        drawer.clone(),
        Arc::clone(&kitchen.bell),
        Arc::clone(&kitchen.metrics),
    );
    Bench { kitchen, intake, drawer, handled }
}

impl Bench {
    async fn status(&self, digit: u8) -> Option<Status> {
        let id: OrderId = format!("{ID}{digit}").parse().expect("an id");
        self.kitchen.store.find(id).await.expect("reads").map(|found| found.order.status)
    }

    fn handled(&self) -> Vec<i64> {
        self.handled.0.lock().expect("no panic").iter().map(|record| record.offset).collect()
    }

    fn letters(&self) -> Vec<(i64, RejectReason)> {
        let letters = self.drawer.letters.lock().expect("no panic");
        letters.iter().map(|(record, reject)| (record.offset, reject.reason)).collect()
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
    assert_eq!(bench.intake.step().await.expect("works"), Outcome::Worked(5));
    assert_eq!((bench.status(1).await, bench.status(2).await), (Some(Status::Placed), Some(Status::Placed)));
    assert_eq!(bench.letters(), [(1, RejectReason::NotJson)]);
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
    let mut bench = bench([batch], &[Trouble::NotDone, Trouble::AnswerLost], 1).await;
    for reason in ["the database is away", "its answer got lost", "the broker takes no letter"] {
        bench.intake.step().await.expect_err(reason);
        assert!(bench.handled().is_empty(), "{reason}");
    }
    assert_eq!(bench.intake.step().await.expect("works"), Outcome::Worked(5));
    assert_eq!(bench.handled(), [0, 1, 2, 3, 4]);
    // The first failed and was sent again; the others were not.
    assert_eq!(bench.letters(), [3, 4, 1].map(|offset| (offset, RejectReason::NotJson)));
    assert_eq!((bench.status(1).await, bench.status(2).await), (Some(Status::Placed), Some(Status::Placed)));
    assert!(bench.counted("orders_consumed_total 5"));
}

#[tokio::test]
async fn what_the_database_refuses_is_set_aside_alone() {
    let batch = vec![order(0, 1, "Ada"), order(1, 2, "poison"), order(2, 3, "Grace")];
    let mut bench = bench([batch], &[], 0).await;
    bench.intake.step().await.expect("works");
    assert_eq!(bench.letters(), [(1, RejectReason::Refused)]);
    assert_eq!((bench.status(1).await, bench.status(2).await), (Some(Status::Placed), None));
    assert_eq!(bench.handled(), [0, 1, 2]);
}
