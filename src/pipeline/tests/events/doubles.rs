//! A topic of events whose clients answer late, out of order, wrongly or never, and a database that can be cut off.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::sleep,
};

use crate::{
    broker::{Blame, EventPublisher, Refusal},
    order::{Cursor, EventMessage, FeedEvent, OrderFacts, OrderId},
    store::{Arrival, EventLog, FeedPage, FeedQuery, Holder, Horizon, Lease, Span, Store, StoreError},
    time::deadlines::{EVENT_TRY, GUARD},
};

/// What becomes of a message that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there after so many milliseconds, and that is said.
    Taken(u64),
    /// It never is.
    Refused(Blame),
    /// It is given up, and there all the same so many milliseconds later.
    Late(u64),
}

/// Who decides that.
pub(super) type Judge = Box<dyn FnMut(&FeedEvent) -> Fate + Send>;

/// What lies on the topic, in the order in which it came.
pub(super) struct EventTopic {
    pub(super) log: Mutex<Vec<(OrderId, u32)>>,
    pub(super) judge: Mutex<Judge>,
    /// Whether it can't be looked at.
    pub(super) missing: AtomicBool,
}

impl EventTopic {
    pub(super) fn new() -> Arc<Self> {
        let judge: Judge = Box::new(|_| Fate::Taken(2));
        Arc::new(Self { log: Mutex::default(), judge: Mutex::new(judge), missing: AtomicBool::new(false) })
    }

    pub(super) fn judged(&self, judge: impl FnMut(&FeedEvent) -> Fate + Send + 'static) {
        *self.judge.lock().expect("no panic") = Box::new(judge);
    }

    pub(super) fn messages(&self) -> Vec<(OrderId, u32)> {
        self.log.lock().expect("no panic").clone()
    }

    /// How many came more than once. Each order's first appearances are 1, 2, 3 and so on up to what is expected.
    pub(super) fn repeats(&self, expected: &HashMap<OrderId, u32>) -> usize {
        let (mut reached, mut repeats) = (HashMap::<OrderId, u32>::new(), 0);
        for (order_id, seq) in self.messages() {
            let reached = reached.entry(order_id).or_default();
            if seq <= *reached {
                repeats += 1;
                continue;
            }
            assert_eq!(seq, *reached + 1, "{order_id} is out of order");
            *reached = seq;
        }
        assert_eq!(reached, *expected);
        repeats
    }
}

/// One replica's client.
pub(super) struct Client {
    pub(super) topic: Arc<EventTopic>,
    /// Whether its process stands still.
    pub(super) frozen: watch::Receiver<bool>,
    /// What is under way; gone with the process.
    pub(super) deliveries: Mutex<JoinSet<()>>,
}

impl Client {
    fn hand_over(&self, message: &EventMessage) -> oneshot::Receiver<Result<(), Refusal>> {
        let (answer, outcome) = oneshot::channel();
        let fate = (self.topic.judge.lock().expect("no panic"))(&message.event);
        let (topic, mut frozen) = (Arc::clone(&self.topic), self.frozen.clone());
        let what = (message.event.order_id, message.event.seq);
        let delivery = async move {
            let refused = |blame| Err(Refusal { blame, reason: format!("not {}", what.1) });
            let (before, after, outcome) = match fate {
                Fate::Taken(millis) => (millis, None, Ok(())),
                Fate::Refused(Blame::Partition) => (2_000, None, refused(Blame::Partition)),
                Fate::Refused(blame) => (1, None, refused(blame)),
                Fate::Late(millis) => (2_000, Some(millis), refused(Blame::Partition)),
            };
            sleep(Duration::from_millis(before)).await;
            drop(frozen.wait_for(|frozen| !frozen).await);
            let there = || topic.log.lock().expect("no panic").push(what);
            if outcome.is_ok() {
                there();
            }
            drop(answer.send(outcome));
            if let Some(after) = after {
                sleep(Duration::from_millis(after)).await;
                drop(frozen.wait_for(|frozen| !frozen).await);
                there();
            }
        };
        self.deliveries.lock().expect("no panic").spawn(delivery);
        outcome
    }
}

#[async_trait]
impl EventPublisher for Client {
    async fn look(&self) -> Result<(), Refusal> {
        if self.topic.missing.load(Ordering::Relaxed) {
            sleep(EVENT_TRY).await;
            return Err(Refusal { blame: Blame::Everything, reason: "no topic".to_owned() });
        }
        Ok(())
    }

    async fn publish(&self, messages: &[&EventMessage]) -> Vec<Result<(), Refusal>> {
        let orders: BTreeSet<OrderId> = messages.iter().map(|message| message.event.order_id).collect();
        assert_eq!(orders.len(), messages.len(), "an order appears once in what is handed over together");
        let sent: Vec<_> = messages.iter().map(|message| self.hand_over(message)).collect();
        let mut outcomes = Vec::new();
        for outcome in sent {
            outcomes.push(outcome.await.expect("answers"));
        }
        outcomes
    }

    /// The worst of clients: what it has goes out all the same.
    fn close(&self) {}
}

/// A replica's way to the database.
pub(super) struct Link {
    pub(super) inner: Arc<dyn Store>,
    /// Whether it leads nowhere.
    pub(super) cut: Arc<AtomicBool>,
    /// Orders that can't be read.
    pub(super) unreadable: Arc<Mutex<HashSet<OrderId>>>,
}

impl Link {
    async fn there(&self) -> Result<&dyn Store, StoreError> {
        if self.cut.load(Ordering::Relaxed) {
            sleep(GUARD).await;
            return Err(StoreError::Timeout(GUARD));
        }
        Ok(&*self.inner)
    }
}

#[async_trait]
impl EventLog for Link {
    async fn horizon(&self) -> Result<Horizon, StoreError> {
        self.there().await?.horizon().await
    }

    async fn arrivals(&self, spans: &[Span], limit: usize) -> Result<Vec<Arrival>, StoreError> {
        self.there().await?.arrivals(spans, limit).await
    }

    async fn events(&self, query: &FeedQuery) -> Result<FeedPage, StoreError> {
        self.there().await?.events(query).await
    }

    async fn facts(&self, orders: &[OrderId]) -> Result<Vec<(OrderId, OrderFacts)>, StoreError> {
        let mut facts = self.there().await?.facts(orders).await?;
        let unreadable = self.unreadable.lock().expect("no panic");
        facts.retain(|(order_id, _)| !unreadable.contains(order_id));
        Ok(facts)
    }

    async fn holder(&self) -> Result<Option<Holder>, StoreError> {
        self.there().await?.holder().await
    }

    async fn lease(&self, name: &str, lasting: Duration) -> Result<Option<Lease>, StoreError> {
        self.there().await?.lease(name, lasting).await
    }

    async fn move_on(
        &self,
        name: &str,
        lease: Lease,
        to: Cursor,
        lasting: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        self.there().await?.move_on(name, lease, to, lasting).await
    }

    async fn give_back(&self, name: &str, lease: Lease) -> Result<(), StoreError> {
        self.there().await?.give_back(name, lease).await
    }

    async fn place_of(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        self.there().await?.place_of(name).await
    }
}
