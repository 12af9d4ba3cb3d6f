//! Those who place orders, and those who follow one.

use std::time::Duration;

use chrono::TimeDelta;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

use super::{
    super::details,
    world::{Replicas, TROUBLE},
};
use crate::{
    order::OrderId,
    store::{OrderStore as _, memory::MemoryStore},
    tracker::PlaceError,
};

/// Places one order, again with the same key until it is told an id, at whichever replica lives.
pub(super) async fn customer(n: usize, replicas: Replicas, seed: u64) -> (usize, OrderId, Replicas) {
    let mut random = StdRng::seed_from_u64(seed);
    sleep(Duration::from_millis(random.random_range(0..TROUBLE))).await;
    loop {
        let queue = {
            let replicas = replicas.lock().expect("no panic");
            let chosen = random.random_range(0..replicas.len());
            replicas[chosen].as_ref().map(|replica| replica.queue.clone())
        };
        let details = details(&format!("customer {n}"));
        let outcome = match queue {
            Some(queue) => queue.place(details, Some(format!("key {n}")), None).await,
            None => Err(PlaceError::Closed),
        };
        match outcome {
            Ok(accepted) => return (n, accepted.order_id, replicas),
            Err(error) => {
                assert!(!matches!(error, PlaceError::KeyReused | PlaceError::Refused(_)), "{error}");
            }
        }
        sleep(Duration::from_millis(random.random_range(50..500))).await;
    }
}

/// Follows an order to its end, at another replica when one dies: each event once, in order and in time.
pub(super) async fn follow(
    order_id: OrderId,
    replicas: Replicas,
    luck: u64,
    view: MemoryStore,
    late: Option<TimeDelta>,
) {
    let mut random = StdRng::seed_from_u64(luck);
    let mut seen = 0;
    while seen < 6 {
        let notifier = {
            let replicas = replicas.lock().expect("no panic");
            let chosen = random.random_range(0..replicas.len());
            replicas[chosen].as_ref().map(|replica| replica.notifier.clone())
        };
        let Some(notifier) = notifier else {
            sleep(Duration::from_millis(random.random_range(50..500))).await;
            continue;
        };
        let mut subscriber = notifier.subscribe(order_id, None).expect("a place");
        let mut news = Some(view.find(order_id).await.expect("reads").expect("is stored").events);
        news.as_mut().expect("just read").retain(|event| event.seq > seen);
        let mut first = true;
        while let Some(events) = news {
            for event in events {
                assert_eq!(event.seq, seen + 1, "{order_id}");
                seen += 1;
                let age = view.now() - event.timestamp;
                assert!(
                    first || late.is_none_or(|late| age <= late),
                    "{order_id}: {seen} is seen after {age}"
                );
            }
            first = false;
            let next = if seen < 6 { subscriber.news(seen).await } else { None };
            news = next.map(|news| news.expect("reads"));
        }
    }
}
