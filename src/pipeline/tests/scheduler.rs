//! The scheduler over simulated time.

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;

use super::{
    Kitchen, Outcome,
    doubles::{Troubled, WriteFailure},
};
use crate::{
    order::{StageDelays, Status},
    pipeline::{Scheduler, pause},
    telemetry::health::{Health, IssueKind},
    time::Backoff,
};

fn scheduler(kitchen: &Kitchen) -> Scheduler {
    Scheduler::new(
        kitchen.store.clone(),
        Arc::clone(&kitchen.alarm),
        Arc::clone(&kitchen.transitions),
        Arc::clone(&kitchen.metrics),
        StageDelays::default(),
    )
}

/// Promise 4: timers are rows. A whole life takes 25 s of the store's clock and not one more.
#[tokio::test]
async fn an_order_walks_to_its_delivery() {
    let mut kitchen = Kitchen::open().await;
    let id = kitchen.place(1).await[0];
    let scheduler = scheduler(&kitchen);
    let mut story = Vec::new();
    for second in 0..=25 {
        while scheduler.step().await.expect("works") != Outcome::Idle {}
        let found = kitchen.store.find(id).await.expect("reads").expect("stored");
        if story.last().is_none_or(|(_, status)| *status != found.order.status) {
            story.push((second, found.order.status));
        }
        kitchen.clock.advance(Duration::from_secs(1));
    }
    let expected = [0, 3, 8, 15, 25].into_iter().zip(Status::plain_life());
    assert_eq!(story, expected.collect::<Vec<_>>());
    let text = String::from_utf8(kitchen.metrics.render().expect("renders")).expect("text");
    for (from, to) in Status::plain_life().zip(Status::FIRST.onwards()) {
        let series = format!("status_transitions_total{{from=\"{from}\",to=\"{to}\"}} 1");
        assert!(text.contains(&series), "{series}");
    }
}

/// Promise 4: timers are rows. Issue delays a step and repeats nothing.
#[tokio::test]
async fn a_lost_answer_moves_nothing_twice() {
    let (mut kitchen, store) = Kitchen::troubled().await;
    let id = kitchen.place(1).await[0];
    store.script([WriteFailure::NotDone, WriteFailure::AnswerLost]);
    let scheduler = scheduler(&kitchen);
    kitchen.clock.advance(Duration::from_secs(3));
    scheduler.step().await.expect_err("the database is away");
    scheduler.step().await.expect_err("its answer got lost");
    assert_eq!(scheduler.step().await.expect("works"), Outcome::Idle);
    let found = kitchen.store.find(id).await.expect("reads").expect("stored");
    assert_eq!((found.order.status, found.events.len()), (Status::Preparing, 3));
}

/// How many orders are at PREPARING and COOKING.
async fn reached(kitchen: &Kitchen) -> [u64; 2] {
    let counts = kitchen.store.count(&Status::ALL).await.expect("counts").orders;
    [Status::Preparing, Status::Cooking].map(|status| counts[status])
}

/// Promise 4: timers are rows. One that can't be moved is named and put off, and all others go on.
#[tokio::test]
async fn an_order_that_can_not_be_moved_holds_up_no_other() {
    let (mut kitchen, store) = Kitchen::troubled().await;
    let ids = kitchen.place(50).await;
    let (scheduler, stuck) = (scheduler(&kitchen), ids[17]);
    *store.stuck.refused.lock().expect("no panic") = [stuck].into();
    kitchen.clock.advance(Duration::from_secs(3));
    scheduler.step().await.expect("goes on");
    assert_eq!(scheduler.health(), Health::Up, "nobody is blamed for the company that he was in");
    scheduler.sort().await.expect("sorts");
    assert_eq!(reached(&kitchen).await, [49, 0]);
    let Health::Degraded(why) = scheduler.health() else { panic!("{:?}", scheduler.health()) };
    assert_eq!((why.0[0].kind, why.0[0].order_id), (IssueKind::Held, Some(stuck)));
    let reason = why.to_string();
    assert!(reason.contains(&stuck.to_string()) && reason.contains("its event is there already"), "{reason}");

    kitchen.clock.advance(Duration::from_secs(5));
    scheduler.step().await.expect("does not meet it again");
    assert_eq!(reached(&kitchen).await, [0, 49]);
    scheduler.sort().await.expect("leaves it alone for a while");

    store.stuck.refused.lock().expect("no panic").clear();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    scheduler.try_again().await.expect("moves it");
    assert_eq!((reached(&kitchen).await, scheduler.health()), ([1, 49], Health::Up));
}

/// Promise 4: timers are rows. What is too much for the database at once is done in parts.
#[tokio::test]
async fn a_batch_that_is_too_slow_is_made_in_parts() {
    let mut kitchen = Kitchen::with(|store| Arc::new(Troubled::slow(store, 60)), 100).await;
    kitchen.place(50).await;
    kitchen.place(50).await;
    let scheduler = scheduler(&kitchen);
    kitchen.clock.advance(Duration::from_secs(3));
    scheduler.step().await.expect("goes on");
    scheduler.sort().await.expect("sorts");
    assert_eq!(reached(&kitchen).await, [100, 0]);
    assert_eq!(scheduler.health(), Health::Up, "no order is to blame");
}

/// The loop sleeps until the next step is due, and no longer.
#[tokio::test]
async fn the_bell_is_set_for_the_next_due_step() {
    let mut kitchen = Kitchen::open().await;
    kitchen.place(1).await;
    kitchen.clock.advance(Duration::from_millis(2_600));
    assert_eq!(scheduler(&kitchen).step().await.expect("works"), Outcome::Idle);
    // The database is real, so time is; from here on it is only waited for.
    tokio::time::pause();
    let asleep = tokio::time::Instant::now();
    kitchen.alarm.wait(Duration::from_mins(1)).await;
    assert!((300..=401).contains(&asleep.elapsed().as_millis()), "{:?}", asleep.elapsed());
}

/// Steps that fail at once must leave others a turn, or nobody sees that it is time to stop.
#[tokio::test]
async fn a_pause_lets_others_run() {
    assert_eq!(pause("a test", &mut Backoff::default(), &"away").now_or_never(), None);
}
