//! Group read: all who ask at one moment are answered by one query.
//!
//! What group commit is to writing. There is no timer here either: whoever comes first asks the
//! database at once, with all whose requests have reached the process; those who come meanwhile share
//! the next query. A query begins after each question that it answers was asked, so a client always
//! reads what it has written.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use indexmap::IndexMap;
use tokio::{sync::oneshot, task::yield_now, time::timeout};

use crate::{
    order::{Order, OrderId, Sight, Timestamp, TrackedOrder},
    store::{Found, OrderStore, Page, Portion, StoreError, in_portions},
    telemetry::RequestId,
};

/// Most orders in one query.
const BATCH: usize = 256;
/// So many are worth a query: nobody else is waited for, or the database would have nothing to do meanwhile.
const ENOUGH: usize = 24;
/// Queries of a kind at once: one is being answered while the other's rows are read.
const AT_ONCE: usize = 2;
/// How long a question may wait for its answer, all queries before it included.
const PATIENCE: Duration = crate::time::deadlines::QUEUE;

/// Reads orders for many at once. Cheap to clone.
#[derive(Clone)]
pub struct OrderLoader {
    orders: Arc<Batcher<OrderId, Option<CurrentOrder>>>,
    pages: Arc<Batcher<Page, Listing>>,
}

/// An order as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentOrder {
    /// The order with its timeline.
    pub tracked: TrackedOrder,
    /// When that was, by the database's clock, which stamps its events.
    pub now: Timestamp,
}

/// A page of orders that several may have asked for.
pub struct Listing {
    /// The orders, newest first.
    pub orders: Vec<Order>,
    rendered: [OnceLock<Bytes>; 4],
}

impl Listing {
    /// These orders, newest first.
    fn new(orders: Vec<Order>) -> Self {
        Self { orders, rendered: Default::default() }
    }

    /// How they look on the wire to whom sees so much, made by the first who needs it. No list holds notes.
    pub fn rendered(&self, sight: Sight) -> &OnceLock<Bytes> {
        &self.rendered[usize::from(sight.names) + 2 * usize::from(sight.addresses)]
    }
}

impl OrderLoader {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn OrderStore>) -> Self {
        let for_pages = Arc::clone(&store);
        let portion = Arc::new(Portion::new(BATCH));
        let orders = Batcher::new(BATCH, move |ids: Vec<OrderId>| -> BoxFuture<'static, _> {
            let (store, portion) = (Arc::clone(&store), Arc::clone(&portion));
            Box::pin(async move {
                // One that can't be read leaves the others theirs.
                let answers = in_portions(&portion, ids.len(), |part| find_all(&*store, &ids[part])).await;
                ids.iter().copied().zip(answers).collect()
            })
        });
        let pages = Batcher::new(1, move |pages: Vec<Page>| -> BoxFuture<'static, _> {
            let store = Arc::clone(&for_pages);
            Box::pin(async move {
                let mut answers = HashMap::with_capacity(pages.len());
                for page in pages {
                    answers.insert(page, store.list(&page).await.map(Listing::new));
                }
                answers
            })
        });
        Self { orders: Arc::new(orders), pages: Arc::new(pages) }
    }

    /// One order with its timeline.
    pub async fn find(&self, order_id: OrderId) -> Result<Arc<Option<CurrentOrder>>, StoreError> {
        self.orders.ask(order_id).await
    }

    /// A page of orders, newest first.
    pub async fn list(&self, page: Page) -> Result<Arc<Listing>, StoreError> {
        self.pages.ask(page).await
    }
}

/// In the order asked for; `None` for an order that is not there.
async fn find_all(store: &dyn OrderStore, ids: &[OrderId]) -> Result<Vec<Option<CurrentOrder>>, StoreError> {
    let Found { now, orders } = store.find_all(ids).await?;
    let current = |tracked: TrackedOrder| (tracked.order.order_id, CurrentOrder { tracked, now });
    let mut found: HashMap<_, _> = orders.into_iter().map(current).collect();
    Ok(ids.iter().map(|id| found.remove(id)).collect())
}

type Answer<V> = Result<Arc<V>, StoreError>;
type Answers<K, V> = HashMap<K, Result<V, StoreError>>;
type Query<K, V> = dyn Fn(Vec<K>) -> BoxFuture<'static, Answers<K, V>> + Send + Sync;
/// First come, first served.
type Questions<K, V> = IndexMap<K, Vec<Asker<V>>>;

struct Asker<V> {
    answer: oneshot::Sender<Answer<V>>,
    /// The request that asks, if one does.
    request: Option<RequestId>,
}

struct Batcher<K, V> {
    batch: usize,
    query: Box<Query<K, V>>,
    waiting: Mutex<Pending<K, V>>,
}

struct Pending<K, V> {
    /// Bounded by the number of connections: each asks one question at a time.
    questions: Questions<K, V>,
    /// Queries under way.
    busy: usize,
}

impl<K, V> Batcher<K, V>
where
    K: Copy + Eq + Hash + Send + 'static,
    V: Send + Sync + 'static,
{
    fn new<F>(batch: usize, query: F) -> Self
    where
        F: Fn(Vec<K>) -> BoxFuture<'static, Answers<K, V>> + Send + Sync + 'static,
    {
        let waiting = Pending { questions: IndexMap::new(), busy: 0 };
        Self { batch, query: Box::new(query), waiting: Mutex::new(waiting) }
    }

    fn lock(&self) -> MutexGuard<'_, Pending<K, V>> {
        self.waiting.lock().expect("no holder panics")
    }

    async fn ask(self: &Arc<Self>, key: K) -> Answer<V> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.lock();
            let asker = Asker { answer, request: RequestId::current() };
            waiting.questions.entry(key).or_default().push(asker);
            if waiting.busy < AT_ONCE {
                waiting.busy += 1;
                // A task of its own: the one who asked first may leave before the answer.
                tokio::spawn(Permit { batcher: Arc::clone(self), taken: true }.work());
            }
        }
        match timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Unavailable("the query was dropped".to_owned())),
            Err(_) => Err(StoreError::Timeout(PATIENCE)),
        }
    }

    /// Lets every handler that can run ask its question, then takes what has come together.
    async fn gather(&self) -> Option<Questions<K, V>> {
        let (mut before, mut waiting) = (0, self.lock().questions.len());
        while waiting > before && waiting < self.batch.min(ENOUGH) {
            yield_now().await;
            (before, waiting) = (waiting, self.lock().questions.len());
        }
        self.take()
    }

    /// Up to a batch of questions that somebody still waits for; `None`, and a permit less, if there
    /// are none. Both under one lock, or a question could come in between and find nobody.
    fn take(&self) -> Option<Questions<K, V>> {
        let mut waiting = self.lock();
        waiting.questions.retain(|_, askers| {
            askers.retain(|asker| !asker.answer.is_closed());
            !askers.is_empty()
        });
        if waiting.questions.len() <= self.batch {
            let taken = std::mem::take(&mut waiting.questions);
            waiting.busy -= usize::from(taken.is_empty());
            return Some(taken).filter(|taken| !taken.is_empty());
        }
        Some(waiting.questions.drain(..self.batch).collect())
    }
}

/// Whom a query is for: whatever is logged meanwhile is about these requests.
fn asking<K, V>(questions: &Questions<K, V>) -> Vec<RequestId> {
    questions.values().flatten().filter_map(|asker| asker.request).collect()
}

/// The right to have a query under way; given back by the last look, or by a panic.
struct Permit<K, V> {
    batcher: Arc<Batcher<K, V>>,
    taken: bool,
}

impl<K, V> Drop for Permit<K, V> {
    fn drop(&mut self) {
        if self.taken {
            self.batcher.waiting.lock().expect("no holder panics").busy -= 1;
        }
    }
}

impl<K, V> Permit<K, V>
where
    K: Copy + Eq + Hash + Send + 'static,
    V: Send + Sync + 'static,
{
    async fn work(mut self) {
        while let Some(questions) = self.batcher.gather().await {
            let query = (self.batcher.query)(questions.keys().copied().collect());
            let mut answers = RequestId::during_all(asking(&questions), query).await;
            for (key, askers) in questions {
                // A query answers every question that it is given.
                let Some(answer) = answers.remove(&key) else { continue };
                let answer = answer.map(Arc::new);
                for asker in askers {
                    drop(asker.answer.send(answer.clone()));
                }
            }
        }
        self.taken = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::telemetry::captured::Captured;

    /// A batcher whose queries wait for permits and answer how many were made before.
    fn batcher(batch: usize) -> (Arc<Batcher<u32, usize>>, Arc<Semaphore>, Arc<AtomicUsize>) {
        let (permits, queries) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (wait, count) = (Arc::clone(&permits), Arc::clone(&queries));
        let batcher = Batcher::new(batch, move |keys: Vec<u32>| -> BoxFuture<'static, _> {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let wait = Arc::clone(&wait);
            Box::pin(async move {
                wait.acquire().await.expect("open").forget();
                let answer = |key| match key {
                    13 => Err(StoreError::Unavailable("thirteen".to_owned())),
                    _ => Ok(number),
                };
                keys.into_iter().map(|key| (key, answer(key))).collect()
            })
        });
        (Arc::new(batcher), permits, queries)
    }

    type Asked = tokio::task::JoinHandle<Answer<usize>>;

    fn ask(batcher: &Arc<Batcher<u32, usize>>, key: u32) -> Asked {
        let batcher = Arc::clone(batcher);
        tokio::spawn(async move { batcher.ask(key).await })
    }

    async fn answer(asked: Asked) -> usize {
        *asked.await.expect("ends").expect("answered")
    }

    /// Lets the tasks run until so many queries have begun.
    async fn begun(queries: &AtomicUsize, count: usize) {
        while queries.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }

    /// What comes while both queries are under way shares the next, even if it is the same question:
    /// an answer must not be older than its question.
    #[tokio::test(start_paused = true)]
    async fn those_who_wait_share_the_next_query() {
        let (batcher, permits, queries) = batcher(256);
        let mut early = Vec::new();
        for count in 1..=AT_ONCE {
            early.push(ask(&batcher, 7));
            begun(&queries, count).await;
        }
        let late: Vec<Asked> = [7, 1, 2, 1, 2, 7].map(|key| ask(&batcher, key)).into();
        while batcher.lock().questions.values().flatten().count() < late.len() {
            tokio::task::yield_now().await;
        }
        permits.add_permits(10);
        for (number, asked) in early.into_iter().enumerate() {
            assert_eq!(answer(asked).await, number);
        }
        for asked in late {
            assert_eq!(answer(asked).await, AT_ONCE);
        }
        // Nobody is left behind: a permit that was given back is taken again.
        assert_eq!(batcher.lock().busy, 0);
        assert_eq!(answer(ask(&batcher, 1)).await, AT_ONCE + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_about_to_ask_share_the_first_query() {
        let (batcher, permits, queries) = batcher(256);
        permits.add_permits(10);
        let about_to = async {
            yield_now().await;
            batcher.ask(2).await
        };
        let (first, second) = tokio::join!(batcher.ask(1), about_to);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(queries.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_has_a_limit_and_a_failure_reaches_its_askers_only() {
        let (batcher, permits, queries) = batcher(1);
        permits.add_permits(10);
        let asked = [13, 1, 2, 13, 3].map(|key| batcher.ask(key));
        let answers = futures::future::join_all(asked).await;
        let failed: Vec<bool> = answers.iter().map(Result::is_err).collect();
        assert_eq!(failed, [true, false, false, true, false]);
        assert_eq!(queries.load(Ordering::SeqCst), 4);
    }

    /// Whoever came first is in the next query, whatever the key; else some would wait for ever.
    #[tokio::test(start_paused = true)]
    async fn first_come_is_first_served() {
        let (batcher, permits, queries) = batcher(1);
        let mut asked = Vec::new();
        for key in 20..60 {
            asked.push(ask(&batcher, key));
            yield_now().await;
        }
        begun(&queries, AT_ONCE).await;
        permits.add_permits(100);
        let mut numbers = Vec::new();
        for one in asked {
            numbers.push(answer(one).await);
        }
        assert!(numbers.is_sorted(), "{numbers:?}");
    }

    #[tokio::test]
    async fn what_a_query_logs_names_those_who_ask() {
        let (captured, _guard) = Captured::start();
        let query = |keys: Vec<u32>| -> BoxFuture<'static, _> {
            Box::pin(async move {
                tracing::warn!("slow");
                keys.into_iter().map(|key| (key, Ok(key))).collect()
            })
        };
        let batcher = Arc::new(Batcher::new(256, query));
        let asked = [("req-1", 1), ("req-2", 1), ("req-3", 2)]
            .map(|(id, key)| RequestId::given(id.as_bytes()).expect("valid").during(batcher.ask(key)));
        futures::future::join_all(asked).await;
        let expected = serde_json::json!(["req-1", "req-2", "req-3"]);
        assert_eq!(captured.saying("slow")[0]["request_ids"], expected);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let (batcher, permits, queries) = batcher(256);
        let given_up = batcher.ask(1).await;
        assert!(matches!(given_up, Err(StoreError::Timeout(PATIENCE))), "{given_up:?}");
        // Whoever has left is not asked for again.
        permits.add_permits(10);
        assert_eq!(answer(ask(&batcher, 2)).await, 1);
        assert_eq!(queries.load(Ordering::SeqCst), 2);
    }
}
