//! The writer: batches, retries, and the neighbours of a bad order.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;

use super::{
    Kitchen, Outcome, details,
    doubles::{Troubled, WriteFailure},
};
use crate::{
    store::Page,
    tracker::{Accepted, IdempotencyKey, PlaceError},
};

const ALL: Page = Page { status: None, before: None, limit: 200 };

#[tokio::test]
async fn all_that_wait_are_written_in_one_step() {
    let mut kitchen = Kitchen::open().await;
    let ids = kitchen.place(50).await;
    assert!(ids.is_sorted_by(|a, b| a < b), "ids rise in the order of the queue");
    assert_eq!(kitchen.store.list(&ALL).await.expect("lists").len(), 50);
    let fresh = kitchen.fresh.as_mut().expect("not taken");
    let handed_over: Vec<_> =
        std::iter::from_fn(|| fresh.try_recv().ok()).map(|message| message.order_id).collect();
    assert_eq!(handed_over, ids, "and go to the relay from memory");
}

/// One who is about to hand in when the writer wakes up shares its commit.
#[tokio::test]
async fn what_handlers_are_about_to_hand_in_comes_along() {
    let mut kitchen = Kitchen::open().await;
    let Kitchen { queue, writer, .. } = &mut kitchen;
    let about_to = async {
        tokio::task::yield_now().await;
        queue.place(details("Grace"), None, None).await
    };
    let (ada, grace, outcome) =
        tokio::join!(queue.place(details("Ada"), None, None), about_to, writer.step());
    assert!(ada.is_ok() && grace.is_ok());
    assert_eq!(outcome, Outcome::Worked(2));
}

/// Promise 1: accepted means durable. A lost answer is asked for again, with the same ids.
#[tokio::test]
async fn trouble_is_retried_and_makes_no_second_order() {
    let script = [WriteFailure::NotDone, WriteFailure::AnswerLost, WriteFailure::AnswerLost];
    let mut kitchen = Kitchen::with(|store| Arc::new(Troubled::new(store, script)), 100).await;
    let ids = kitchen.place(3).await;
    let stored = kitchen.store.list(&ALL).await.expect("lists");
    assert_eq!(stored.iter().rev().map(|order| order.order_id).collect::<Vec<_>>(), ids);
    assert_eq!(kitchen.unsent().await, 3);
    assert_eq!(kitchen.fresh.as_mut().expect("not taken").len(), 3, "each is published from memory, once");
}

/// Promise 5: memory, queues and time are bounded. Callers are told while the database is away.
#[tokio::test]
async fn trouble_that_lasts_is_answered_in_time() {
    let script = [WriteFailure::NotDone; 100];
    let mut kitchen = Kitchen::with(|store| Arc::new(Troubled::new(store, script)), 100).await;
    let (answer, _) = tokio::join!(kitchen.queue.place(details("Ada"), None, None), kitchen.writer.step());
    assert_eq!(answer, Err(PlaceError::Unavailable));
    assert_eq!(kitchen.store.list(&ALL).await.expect("lists"), []);
}

#[tokio::test]
async fn a_refused_order_does_not_take_its_neighbours_along() {
    let mut kitchen = Kitchen::with(|store| Arc::new(Troubled::new(store, [])), 100).await;
    let places = ["Ada", "poison", "Grace"].map(|name| kitchen.queue.place(details(name), None, None));
    let (answers, _) = tokio::join!(join_all(places), kitchen.writer.step());
    assert!(matches!(
        answers[..],
        [
            Ok(Accepted { replayed: false, .. }),
            Err(PlaceError::Refused(_)),
            Ok(Accepted { replayed: false, .. })
        ]
    ));
    assert_eq!(kitchen.store.list(&ALL).await.expect("lists").len(), 2);
}

#[tokio::test]
async fn idempotency_keys_are_answered_through_the_desk() {
    let mut kitchen = Kitchen::open().await;
    kitchen.writer.requests = kitchen.keyed.take().expect("not taken");
    let key = || Some(IdempotencyKey::open("key"));
    let places = ["Ada", "Ada", "Grace"].map(|name| kitchen.queue.place(details(name), key(), None));
    let (answers, _) = tokio::join!(join_all(places), kitchen.writer.step());
    let first = answers[0].clone().expect("accepted");
    assert_eq!(answers[1], Ok(Accepted { replayed: true, ..first }));
    assert_eq!(answers[2], Err(PlaceError::KeyReused));
}

/// A database that is slow at each row takes smaller batches, and the size that works is remembered.
#[tokio::test]
async fn a_batch_that_is_too_slow_is_followed_by_a_smaller_one() {
    let mut kitchen = Kitchen::with(|store| Arc::new(Troubled::slow(store, 40)), 1_000).await;
    let mut accepted = Vec::new();
    for _ in 0..3 {
        let places = (0..100).map(|n| kitchen.queue.place(details(&n.to_string()), None, None));
        let (answers, _) = tokio::join!(join_all(places), kitchen.writer.step());
        accepted.push(answers.iter().filter(|answer| answer.is_ok()).count());
        while kitchen.writer.requests.try_recv().is_ok() {}
    }
    assert!(kitchen.writer.portion.size() <= 50, "{}", kitchen.writer.portion.size());
    assert_eq!(accepted[0], 100, "several smaller ones within the callers' patience");
    assert!(accepted[2] >= 25, "{accepted:?}");
}

/// An order must not appear after its customer was told that it did not work.
#[tokio::test]
async fn a_caller_that_has_left_is_not_served() {
    let mut kitchen = Kitchen::open().await;
    let left = tokio::time::timeout(Duration::ZERO, kitchen.queue.place(details("Ada"), None, None));
    assert!(left.await.is_err());
    assert_eq!(kitchen.writer.step().await, Outcome::Worked(0));
    assert_eq!(kitchen.store.list(&ALL).await.expect("lists"), []);
}

#[tokio::test]
async fn the_writer_ends_when_the_last_desk_is_gone() {
    let mut kitchen = Kitchen::open().await;
    drop(kitchen.queue);
    assert_eq!(kitchen.writer.step().await, Outcome::Finished);
}
