//! Transactions of the model: they draw the ids of their events, and what they write is seen once they commit.

use std::{collections::HashSet, sync::Arc};

use tokio::{
    sync::oneshot,
    time::{Duration, Instant, sleep, timeout},
};

use super::{
    super::{IdempotencyKey, reports::SaidRow},
    Database, MemoryStore, StoreError,
};
use crate::{
    order::{
        Event, EventKind, FeedEvent, Order, OrderDetails, OrderId, Start, Status, Timestamp, TrackedOrder,
    },
    time::deadlines::CALL,
};

/// How long a row that another transaction holds is waited for, and how often it is looked at.
const LOCK_TIMEOUT: Duration = Duration::from_millis(900);
const AGAIN: Duration = Duration::from_millis(1);

/// How a transaction goes that writes events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Course {
    /// How long it stays open once it has drawn its ids.
    pub(crate) open: Duration,
    /// Whether it is rolled back then.
    pub(crate) in_vain: bool,
}

/// Says of each how it goes.
pub(super) type Courses = Box<dyn FnMut() -> Course + Send>;

/// Tells how one that stays open has ended.
type Ended = oneshot::Receiver<Result<(), StoreError>>;

/// Rows that open transactions write.
#[derive(Default)]
pub(super) struct Locks {
    orders: HashSet<OrderId>,
    keys: HashSet<IdempotencyKey>,
}

impl Locks {
    /// Whether an open transaction writes this order.
    pub(super) fn hold(&self, order_id: &OrderId) -> bool {
        self.orders.contains(order_id)
    }

    /// Whether one has taken this idempotency key.
    pub(super) fn hold_key(&self, key: &IdempotencyKey) -> bool {
        self.keys.contains(key)
    }

    fn take(&mut self, transaction: &Transaction) {
        self.orders.extend(transaction.orders.iter().map(|tracked| tracked.order.order_id));
        self.keys.extend(transaction.keys.iter().map(|(key, _)| key.clone()));
    }

    fn free(&mut self, transaction: &Transaction) {
        for tracked in &transaction.orders {
            self.orders.remove(&tracked.order.order_id);
        }
        for (key, _) in &transaction.keys {
            self.keys.remove(key);
        }
    }
}

/// What is written and not seen yet.
pub(super) struct Transaction {
    pub(super) now: Timestamp,
    orders: Vec<TrackedOrder>,
    events: Vec<FeedEvent>,
    pub(super) outbox: Vec<(OrderId, Option<u64>)>,
    pub(super) keys: Vec<(IdempotencyKey, OrderId)>,
    pub(super) said: Vec<((OrderId, u32), SaidRow)>,
}

impl Transaction {
    fn new(now: Timestamp) -> Self {
        Self {
            now,
            orders: Vec::new(),
            events: Vec::new(),
            outbox: Vec::new(),
            keys: Vec::new(),
            said: Vec::new(),
        }
    }

    /// What it has written of this order.
    pub(super) fn order(&self, order_id: OrderId) -> Option<&TrackedOrder> {
        self.orders.iter().find(|tracked| tracked.order.order_id == order_id)
    }

    /// Everything it has written.
    pub(super) fn orders(&self) -> impl Iterator<Item = &Order> {
        self.orders.iter().map(|tracked| &tracked.order)
    }

    /// Writes an order whose events after the first `known` are new.
    pub(super) fn write(&mut self, database: &mut Database, tracked: TrackedOrder, known: usize) {
        let order_id = tracked.order.order_id;
        self.events.extend(database.log.draw_for(order_id, known + 1, &tracked.events[known..]));
        self.orders.push(tracked);
    }

    /// Writes a new order; answers whether it was unknown.
    pub(super) fn insert(
        &mut self,
        database: &mut Database,
        (order_id, details): (OrderId, &OrderDetails),
        created_at: Timestamp,
        meta: Option<&serde_json::Value>,
        start: Start,
    ) -> bool {
        if database.orders.contains_key(&order_id) || self.order(order_id).is_some() {
            return false;
        }
        let (now, status) = (self.now, Status::Placed);
        let [due_at, expected_at] = [start.due_in, start.expected_in].map(|after| Some(now + after?));
        let details = details.clone();
        let order = Order { order_id, details, status, created_at, updated_at: now, due_at, expected_at };
        let events = vec![
            Event { seq: 1, event: EventKind::Created, timestamp: created_at, meta: meta.cloned() },
            Event { seq: 2, event: EventKind::Reached(status), timestamp: now, meta: None },
        ];
        self.write(database, TrackedOrder { order, events }, 0);
        true
    }

    fn commit(self, database: &mut Database) {
        database.orders.extend(self.orders.into_iter().map(|tracked| (tracked.order.order_id, tracked)));
        let now = self.now;
        database
            .outbox
            .extend(self.outbox.into_iter().map(|(order_id, claimed_by)| (order_id, (now, claimed_by))));
        database.said.extend(self.said);
        database.keys.extend(self.keys.into_iter().map(|(key, order_id)| (key, (order_id, now))));
        for event in self.events {
            database.log.end(event.cursor.0, Some(event));
        }
    }

    fn end(self, database: &mut Database, in_vain: bool) -> Result<(), StoreError> {
        if !in_vain {
            self.commit(database);
            return Ok(());
        }
        for event in &self.events {
            database.log.end(event.cursor.0, None);
        }
        Err(StoreError::Unavailable("rolled back".to_owned()))
    }
}

impl MemoryStore {
    /// Runs a transaction once no row that it needs is `held`. One that stays open goes on by itself, though its
    /// caller be gone: a server commits for a client that was killed, too.
    pub(super) async fn transact<T>(
        &self,
        held: impl Fn(&Locks) -> bool,
        work: impl FnOnce(&mut Database, &mut Transaction) -> T,
    ) -> Result<T, StoreError> {
        let until = Instant::now() + LOCK_TIMEOUT;
        while held(&self.lock().0.locks) {
            if Instant::now() >= until {
                return Err(StoreError::Timeout(LOCK_TIMEOUT));
            }
            sleep(AGAIN).await;
        }
        let (answer, ended) = self.begin(work)?;
        if let Some(ended) = ended {
            let outcome = timeout(CALL, ended).await.map_err(|_| StoreError::Timeout(CALL))?;
            outcome.expect("it ends")?;
        }
        Ok(answer)
    }

    /// Answers what tells its end, if it stays open.
    fn begin<T>(
        &self,
        work: impl FnOnce(&mut Database, &mut Transaction) -> T,
    ) -> Result<(T, Option<Ended>), StoreError> {
        let (mut database, now) = self.lock();
        let mut transaction = Transaction::new(now);
        let answer = work(&mut database, &mut transaction);
        let mut courses = self.courses.lock().expect("no panic");
        let writes = !transaction.events.is_empty();
        let Course { open, in_vain } =
            courses.as_mut().filter(|_| writes).map(|next| next()).unwrap_or_default();
        if open.is_zero() {
            return transaction.end(&mut database, in_vain).map(|()| (answer, None));
        }
        database.locks.take(&transaction);
        let (tell, ended) = oneshot::channel();
        let shared = Arc::clone(&self.database);
        tokio::spawn(async move {
            sleep(open).await;
            let mut database = shared.lock().expect("no panic");
            database.locks.free(&transaction);
            // Who asked may be gone.
            drop(tell.send(transaction.end(&mut database, in_vain)));
        });
        Ok((answer, Some(ended)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        order::Cursor,
        store::{
            Due, EventLog as _, Horizon, NewOrder, OrderStore as _, Outbox, OutboxStore as _, Placement,
            conformance::new_orders,
        },
        time::VirtualClock,
    };

    const OPEN: Duration = Duration::from_millis(500);

    fn replicas(mut courses: Vec<Course>) -> [MemoryStore; 2] {
        let at = "2026-01-02T03:04:05Z".parse().expect("a moment");
        let (database, clock) = (Arc::default(), Arc::new(VirtualClock::new(at)));
        let replica = |n| MemoryStore::new(Arc::clone(&database), clock.clone(), n);
        courses.reverse();
        [replica(1).with_courses(move || courses.pop().unwrap_or_default()), replica(2)]
    }

    fn open(open: Duration, in_vain: bool) -> Course {
        Course { open, in_vain }
    }

    async fn horizon(store: &MemoryStore) -> (Cursor, Cursor) {
        let Horizon { settled, last, .. } = store.horizon().await.expect("looks");
        (settled, last)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_open_is_not_seen_and_holds_its_rows() {
        let [late, other] = replicas(vec![open(OPEN, false)]);
        let orders: Vec<NewOrder> = new_orders(2);
        let keyed = [NewOrder { key: Some(IdempotencyKey::open("key")), ..orders[0].clone() }];
        let again = NewOrder { order_id: new_orders(1)[0].order_id, ..keyed[0].clone() };
        let beside = async {
            sleep(OPEN / 2).await;
            assert_eq!(other.find(orders[0].order_id).await, Ok(None));
            assert_eq!(horizon(&other).await, (Cursor(0), Cursor(2)));
            other.place(&orders[1..], Outbox::Mine).await.expect("has nothing to do with it");
            assert_eq!(horizon(&other).await, (Cursor(0), Cursor(4)));
            let waited = Instant::now();
            let again = other.place(&[again], Outbox::Mine).await.expect("places");
            assert_eq!(again, [Placement::Replayed(orders[0].order_id)]);
            assert!(waited.elapsed() >= OPEN / 2, "{:?}", waited.elapsed());
        };
        let (placed, ()) = tokio::join!(late.place(&keyed, Outbox::Mine), beside);
        assert!(matches!(placed.expect("places")[0], Placement::Placed(_)));
        assert_eq!(horizon(&other).await, (Cursor(4), Cursor(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_rolled_back_never_was() {
        let [late, other] =
            replicas(vec![open(Duration::ZERO, false), open(OPEN, true), open(Duration::ZERO, true)]);
        let orders = new_orders(1);
        late.place(&orders, Outbox::Anyones).await.expect("places");
        sleep(Duration::from_secs(3)).await;
        let alone = Due::Alone(orders[0].order_id);
        let delays = crate::order::StageDelays::default();
        let beside = async {
            sleep(OPEN / 2).await;
            let passed_over = other.advance_due(alone, &delays).await.expect("looks");
            assert_eq!(passed_over.transitions, []);
        };
        let (moved, ()) = tokio::join!(late.advance_due(alone, &delays), beside);
        moved.expect_err("rolled back");
        late.advance_due(alone, &delays).await.expect_err("rolled back");
        assert_eq!(horizon(&other).await, (Cursor(4), Cursor(4)));
        assert_eq!(other.find(orders[0].order_id).await.expect("reads").expect("is there").events.len(), 2);
        assert_eq!(late.advance_due(alone, &delays).await.expect("advances").transitions.len(), 1);
        assert_eq!(other.unclaimed(None, 9).await.expect("reads").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_ends_without_who_began_it() {
        let [late, other] = replicas(vec![open(2 * CALL, false), open(OPEN, false)]);
        let orders = new_orders(2);
        assert_eq!(late.place(&orders[..1], Outbox::Mine).await, Err(StoreError::Timeout(CALL)));
        timeout(OPEN / 2, late.place(&orders[1..], Outbox::Mine)).await.expect_err("is killed");
        let locked = other.place(&orders, Outbox::Mine).await;
        assert_eq!(locked, Err(StoreError::Timeout(LOCK_TIMEOUT)));
        sleep(CALL).await;
        assert_eq!(
            other.find_all(&[orders[0].order_id, orders[1].order_id]).await.expect("reads").orders.len(),
            2
        );
        assert_eq!(horizon(&other).await, (Cursor(4), Cursor(4)));
    }
}
