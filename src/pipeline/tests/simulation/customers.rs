//! Those who place orders, and those who follow one.

use std::time::Duration;

use chrono::TimeDelta;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::watch, time::sleep};

use super::{
    super::details,
    world::{Replicas, TROUBLE},
};
use crate::{
    order::{Event, OrderId},
    store::{OrderStore as _, memory::MemoryStore},
    tracker::{IdempotencyKey, PlaceError},
};

/// Places one order, again with the same key until it is told an id, at whichever replica lives.
pub(super) async fn customer(n: usize, replicas: Replicas, seed: u64) -> (OrderId, Replicas) {
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
            Some(queue) => queue.place(details, Some(IdempotencyKey::open(format!("key {n}"))), None).await,
            None => Err(PlaceError::Closed),
        };
        match outcome {
            Ok(accepted) => return (accepted.order_id, replicas),
            Err(error) => {
                assert!(!matches!(error, PlaceError::KeyReused | PlaceError::Refused(_)), "{error}");
            }
        }
        sleep(Duration::from_millis(random.random_range(50..500))).await;
    }
}

/// Who follows an order to its end.
pub(super) struct Following {
    order_id: OrderId,
    replicas: Replicas,
    random: StdRng,
    view: MemoryStore,
    late: Option<TimeDelta>,
    /// Whether all was reported that will be.
    over: watch::Receiver<bool>,
    seen: u32,
}

impl Following {
    /// And where is told that nobody reports any more: only then an end is the last.
    pub(super) fn new(
        order_id: OrderId,
        replicas: Replicas,
        luck: u64,
        view: MemoryStore,
        late: Option<TimeDelta>,
    ) -> (Self, watch::Sender<bool>) {
        let (end, over) = watch::channel(false);
        let random = StdRng::seed_from_u64(luck);
        (Self { order_id, replicas, random, view, late, over, seen: 0 }, end)
    }

    /// Each event once, in order and in time, at another replica when one dies.
    pub(super) async fn run(mut self) {
        while !self.has_seen_all().await {
            let notifier = {
                let replicas = self.replicas.lock().expect("no panic");
                let chosen = self.random.random_range(0..replicas.len());
                replicas[chosen].as_ref().map(|replica| replica.notifier.clone())
            };
            let Some(notifier) = notifier else {
                sleep(Duration::from_millis(self.random.random_range(50..500))).await;
                continue;
            };
            let mut subscriber = notifier.subscribe(self.order_id, None).expect("a place");
            let mut news = self.events().await;
            news.retain(|event| event.seq > self.seen);
            self.note(news, true);
            while !self.has_seen_all().await {
                let mut over = self.over.clone();
                let ended = async {
                    if over.wait_for(|over| *over).await.is_err() || self.has_seen_all().await {
                        return;
                    }
                    std::future::pending::<()>().await;
                };
                let news = tokio::select! {
                    news = subscriber.news(self.seen) => news,
                    () = ended => return,
                };
                let Some(news) = news else { break };
                self.note(news.expect("reads"), false);
            }
        }
    }

    async fn events(&self) -> Vec<Event> {
        self.view.find(self.order_id).await.expect("reads").expect("is stored").events
    }

    async fn has_seen_all(&self) -> bool {
        let is_over = *self.over.borrow();
        let found = self.view.find(self.order_id).await.expect("reads").expect("is stored");
        let last = found.events.last().map_or(0, |last| last.seq);
        is_over && found.order.status.is_final() && last == self.seen
    }

    fn note(&mut self, events: Vec<Event>, first: bool) {
        for event in events {
            assert_eq!(event.seq, self.seen + 1, "{}", self.order_id);
            self.seen += 1;
            let age = self.view.now() - event.timestamp;
            let in_time = first || self.late.is_none_or(|late| age <= late);
            assert!(in_time, "{}: {} is seen after {age}", self.order_id, self.seen);
        }
    }
}
