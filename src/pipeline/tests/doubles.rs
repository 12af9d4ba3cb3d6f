//! Doubles that make trouble: a store that fails on demand, a subscription with a script, and a
//! publisher that keeps what it is given.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{MutexGuard, Notify},
    time::{Instant, sleep, timeout},
};

pub(super) use super::fate::{Fate, WriteFailure};
use super::stuck::{Stuck, narrowed};
use crate::{
    broker::{Blame, BrokerError, Partitions, Publisher, Record, Refusal, Subscription},
    order::{Order, OrderId, OrderPlaced, Reject, Rules, StageDelays},
    store::{
        Admission, Advance, Due, DueOrders, Found, Incoming, NewOrder, OrderReport, OrderStore, Outbox,
        OutboxStore, Page, Placement, Position, ReportOutcome, Reported, Republished, Store, StoreError,
        forwarded::{events_of_inner, insight_of_inner, maintenance_of_inner},
        written_within,
    },
    telemetry::health::Health,
    time::deadlines::{GUARD, STATEMENT},
};

/// A store whose writes meet their fate, and that refuses orders for "poison".
pub(super) struct Troubled {
    pub inner: Arc<dyn Store>,
    pub fate: Mutex<Fate>,
    /// A write of more than so many is too slow.
    pub most: usize,
    /// Orders that can't be moved.
    pub stuck: Stuck,
    /// Outbox rows that can't be written: no set with one of them is.
    pub bad: Mutex<HashSet<OrderId>>,
    /// Orders and outbox rows that another session holds.
    pub held: Mutex<HashSet<OrderId>>,
    /// How long clearing outbox rows takes.
    pub clearing_takes: Duration,
    /// How many signs of life were given.
    pub beats: AtomicUsize,
    /// Whether an order for "locked" can't be written in time, nor one for "slow", which takes all of it.
    pub locked: AtomicBool,
    /// Whether one connection makes all writes, and what is tried alone keeps it for a while.
    pub one_writer: Option<tokio::sync::Mutex<()>>,
    /// Whether the outbox can't be read from its beginning in time.
    pub dead: AtomicBool,
}

impl Troubled {
    pub(super) fn new(inner: Arc<dyn Store>, script: impl IntoIterator<Item = WriteFailure>) -> Self {
        Self::with(inner, Fate::Script(script.into_iter().collect()))
    }

    pub(super) fn with(inner: Arc<dyn Store>, fate: Fate) -> Self {
        Self {
            inner,
            fate: Mutex::new(fate),
            most: usize::MAX,
            stuck: Stuck::default(),
            bad: Mutex::default(),
            held: Mutex::default(),
            clearing_takes: Duration::ZERO,
            beats: AtomicUsize::new(0),
            locked: AtomicBool::new(true),
            one_writer: None,
            dead: AtomicBool::new(false),
        }
    }

    /// The only connection that writes, if there is but one.
    async fn writer(&self) -> Result<Option<MutexGuard<'_, ()>>, StoreError> {
        let Some(writer) = &self.one_writer else { return Ok(None) };
        timeout(GUARD, writer.lock()).await.map(Some).map_err(|_| StoreError::Timeout(GUARD))
    }

    /// A store that takes no more than `most` orders in time.
    pub(super) fn slow(inner: Arc<dyn Store>, most: usize) -> Self {
        Self { most, ..Self::new(inner, []) }
    }

    fn in_time(&self, orders: usize) -> Result<(), StoreError> {
        if orders > self.most { Err(StoreError::Timeout(Duration::from_millis(1))) } else { Ok(()) }
    }

    /// What happens to the writes from now on.
    pub(super) fn script(&self, script: impl IntoIterator<Item = WriteFailure>) {
        *self.fate.lock().expect("no panic") = Fate::Script(script.into_iter().collect());
    }

    fn refuse_bad(&self, rows: &[OrderId]) -> Result<(), StoreError> {
        let bad = self.bad.lock().expect("no panic");
        match rows.iter().find(|id| bad.contains(*id)) {
            Some(_) => Err(StoreError::Refused("a bad row".to_owned())),
            None => Ok(()),
        }
    }

    /// Fails if one of these is for "locked", or, after as long as a call may take, for "slow".
    async fn meet_locked(&self, names: &[&str], limit: Duration) -> Result<(), StoreError> {
        let meets = |name| self.locked.load(Ordering::Relaxed) && names.contains(&name);
        if meets("slow") {
            sleep(limit).await;
        }
        if meets("slow") || meets("locked") { Err(StoreError::Timeout(limit)) } else { Ok(()) }
    }

    async fn write<T>(&self, verb: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let (thinks, trouble) = {
            let mut fate = self.fate.lock().expect("no panic");
            (fate.thinks(), fate.next())
        };
        if thinks > 0 {
            sleep(Duration::from_millis(thinks)).await;
        }
        match trouble {
            None => verb.await,
            Some(WriteFailure::NotDone) => Err(StoreError::Unavailable("away".to_owned())),
            Some(WriteFailure::AnswerLost) => {
                verb.await?;
                Err(StoreError::Unavailable("the answer got lost".to_owned()))
            }
            Some(WriteFailure::Waits(time)) => {
                sleep(time).await;
                verb.await
            }
            Some(WriteFailure::AnswerLate) => {
                verb.await?;
                Err(StoreError::Timeout(Duration::from_millis(1)))
            }
        }
    }
}

fn refuse_poison<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), StoreError> {
    if names.any(|name| name == "poison") {
        return Err(StoreError::Refused("poison".to_owned()));
    }
    Ok(())
}

#[async_trait]
impl OrderStore for Troubled {
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError> {
        self.in_time(orders.len())?;
        refuse_poison(orders.iter().map(|order| order.details.customer_name.as_str()))?;
        self.write(self.inner.place(orders, outbox)).await
    }

    async fn admit(&self, incoming: &[Incoming]) -> Result<Vec<Admission>, StoreError> {
        let _writer = self.writer().await?;
        let names = incoming.iter().map(|order| order.placed.details.customer_name.as_str());
        refuse_poison(names.clone())?;
        let (names, limit): (Vec<&str>, _) = (names.collect(), written_within(incoming.len()));
        self.meet_locked(&names, limit).await?;
        if names.contains(&"once") {
            return Err(StoreError::Timeout(limit));
        }
        self.write(self.inner.admit(incoming)).await
    }

    async fn admit_alone(&self, incoming: &Incoming) -> Result<Admission, StoreError> {
        if let Some(_writer) = self.writer().await? {
            sleep(Duration::from_millis(30)).await;
            return self.inner.admit_alone(incoming).await;
        }
        self.meet_locked(&[&incoming.placed.details.customer_name], STATEMENT).await?;
        self.write(self.inner.admit_alone(incoming)).await
    }

    async fn report_again(
        &self,
        reports: &[OrderReport],
        rules: &Rules,
        earlier: Option<Instant>,
    ) -> Result<Vec<Reported>, StoreError> {
        self.in_time(reports.len())?;
        let held = self.held.lock().expect("no panic").clone();
        let free: Vec<_> = reports.iter().filter(|r| !held.contains(&r.order_id)).cloned().collect();
        let mut answers = self.write(self.inner.report_again(&free, rules, earlier)).await?;
        answers.resize(reports.len(), Reported { outcome: ReportOutcome::Contended, standing: None });
        Ok(answers)
    }

    async fn advance_due(&self, due: Due<'_>, delays: &StageDelays) -> Result<Advance, StoreError> {
        let free = self.stuck.note(due);
        let taken = self.inner.due(narrowed(due, &free)).await?.order_ids;
        self.in_time(taken.len())?;
        self.stuck.meet(due, &taken).await?;
        self.write(self.inner.advance_due(narrowed(due, &free), delays)).await
    }

    async fn due(&self, due: Due<'_>) -> Result<DueOrders, StoreError> {
        self.inner.due(due).await
    }

    async fn positions(&self, orders: &[OrderId]) -> Result<Vec<Position>, StoreError> {
        self.inner.positions(orders).await
    }

    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Found, StoreError> {
        self.inner.find_all(order_ids).await
    }

    async fn list(&self, page: &Page) -> Result<Vec<Order>, StoreError> {
        self.inner.list(page).await
    }
}

#[async_trait]
impl OutboxStore for Troubled {
    async fn heartbeat(&self) -> Result<(), StoreError> {
        self.beats.fetch_add(1, Ordering::Relaxed);
        self.inner.heartbeat().await
    }

    async fn unclaimed(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, StoreError> {
        if after.is_none() && self.dead.load(Ordering::Relaxed) {
            return Err(StoreError::Timeout(Duration::from_secs(2)));
        }
        self.inner.unclaimed(after, limit).await
    }

    async fn claim(&self, unsent: &[OrderId]) -> Result<Vec<OrderPlaced>, StoreError> {
        self.refuse_bad(unsent)?;
        self.write(self.inner.claim(unsent)).await
    }

    async fn lost(&self, held: &[OrderId], limit: usize) -> Result<Vec<OrderId>, StoreError> {
        self.inner.lost(held, limit).await
    }

    async fn mark_sent(&self, sent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        self.refuse_bad(sent)?;
        sleep(self.clearing_takes).await;
        let held = self.held.lock().expect("no panic").clone();
        let (held, free): (Vec<OrderId>, Vec<OrderId>) = sent.iter().partition(|id| held.contains(*id));
        self.write(self.inner.mark_sent(&free)).await.map(|_| held)
    }

    async fn release(&self, unsent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        self.refuse_bad(unsent)?;
        self.write(self.inner.release(unsent)).await
    }

    async fn republish(&self, orders: &[OrderId]) -> Result<Vec<Republished>, StoreError> {
        self.write(self.inner.republish(orders)).await
    }
}

events_of_inner!(Troubled);

insight_of_inner!(Troubled);
maintenance_of_inner!(Troubled);

/// What a scripted subscription was told, and what it tells.
#[derive(Default)]
pub(super) struct Told {
    pub handled: Mutex<Vec<Record>>,
    pub held_back: Mutex<BTreeSet<i32>>,
    /// Partitions that another member has now.
    pub lost: Mutex<BTreeSet<i32>>,
}

/// Hands out prepared batches, then waits for ever.
pub(super) struct Scripted {
    pub batches: VecDeque<Vec<Record>>,
    pub told: Arc<Told>,
}

#[async_trait]
impl Subscription for Scripted {
    async fn next_batch(&mut self, _: usize) -> Result<Vec<Record>, BrokerError> {
        match self.batches.pop_front() {
            Some(batch) => Ok(batch),
            None => std::future::pending().await,
        }
    }

    fn handled(&mut self, records: &[Record]) -> Result<(), BrokerError> {
        self.told.handled.lock().expect("no panic").extend_from_slice(records);
        Ok(())
    }

    fn hold_back(&mut self, partitions: &BTreeSet<i32>) -> Result<(), BrokerError> {
        self.told.held_back.lock().expect("no panic").clone_from(partitions);
        Ok(())
    }

    fn lost(&mut self) -> BTreeSet<i32> {
        std::mem::take(&mut *self.told.lost.lock().expect("no panic"))
    }

    fn health(&self) -> Health {
        Health::Up
    }

    async fn close(self: Box<Self>) {}
}

/// A dead-letter topic; the first `failures` meet a broker that is away.
#[derive(Default)]
pub(super) struct DeadLetters {
    pub failures: Mutex<usize>,
    pub kept: Mutex<Vec<(Record, Reject)>>,
    /// Answers wait until they are let go.
    pub silent: AtomicBool,
    pub let_go: Notify,
}

#[async_trait]
impl Publisher for DeadLetters {
    fn partitions(&self) -> Arc<Partitions> {
        Arc::default()
    }

    fn publish(&self, _: &OrderPlaced, _: Option<i32>) -> Result<(), Refusal> {
        Err(Refusal { blame: Blame::Everything, reason: "dead letters only".to_owned() })
    }

    async fn dead_letter(&self, record: &Record, reject: &Reject) -> Result<(), BrokerError> {
        {
            let mut failures = self.failures.lock().expect("no panic");
            if let Some(left) = failures.checked_sub(1) {
                *failures = left;
                return Err(BrokerError("away".to_owned()));
            }
        }
        self.kept.lock().expect("no panic").push((record.clone(), reject.clone()));
        if self.silent.load(Ordering::Relaxed) {
            self.let_go.notified().await;
        }
        Ok(())
    }
}

/// Whom a [`Picky`] publisher refuses, and whose fault it is.
pub(super) type Taste = Box<dyn Fn(OrderId) -> Option<Blame> + Send>;

/// Refuses what it likes and hands the rest on; counts what it was asked, and has every partition led.
pub(super) struct Picky {
    pub inner: Arc<dyn Publisher>,
    pub taste: Mutex<Taste>,
    pub asked: AtomicUsize,
}

impl Picky {
    pub(super) fn new(inner: Arc<dyn Publisher>, taste: Taste) -> Arc<Self> {
        Arc::new(Self { inner, taste: Mutex::new(taste), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Publisher for Picky {
    fn partitions(&self) -> Arc<Partitions> {
        let known = (*self.inner.partitions()).clone();
        Arc::new(Partitions { leaderless: BTreeSet::new(), ..known })
    }

    fn publish(&self, message: &OrderPlaced, partition: Option<i32>) -> Result<(), Refusal> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let blame = (self.taste.lock().expect("no panic"))(message.order_id);
        match blame {
            Some(blame) => Err(Refusal { blame, reason: "not to my taste".to_owned() }),
            None => self.inner.publish(message, partition),
        }
    }

    async fn dead_letter(&self, record: &Record, reject: &Reject) -> Result<(), BrokerError> {
        self.inner.dead_letter(record, reject).await
    }
}
