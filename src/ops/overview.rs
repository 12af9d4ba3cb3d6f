//! What waits, read once for all who ask: board, gauges and `/readyz` show the same.
//!
//! Invariant: however many ask and however much waits, reading takes a small part of the time; who
//! asks meanwhile gets the last reading or waits for the one under way.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Mutex as Turn,
    time::{Instant, timeout},
};

use super::diagnosis::Figures;
use crate::{
    order::{
        AuditedOrder, Backlog, COUNTED_TO, LateOrders, LateSteps, OrderId, Status, Timestamp,
        promises::OVERDUE_AFTER,
    },
    store::{Counts, Insight, StoreError},
};

/// Most late orders that are listed.
const LOOKS: usize = 5;
/// How old a reading may be, whoever asks.
const FRESH_FOR: Duration = Duration::from_millis(500);
/// Reading takes at most this part of the time.
const SHARE: u32 = 20;
/// How long it may be before what could not be read is asked for again.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// How long the database may take to answer nothing, after it has not answered a question in time.
const PING_WITHIN: Duration = Duration::from_millis(250);
/// For each order counted, so long until orders are counted again: a thousand rows a second.
const FOR_EACH_COUNTED: Duration = Duration::from_millis(1);
/// A reading that is older says nothing of now.
const OLD_AFTER: Duration = Duration::from_secs(30);

/// What was read at one time; each figure may be there without the others.
#[derive(Debug, Clone)]
pub struct Reading {
    /// When it was complete.
    pub at: Instant,
    took: Duration,
    /// What reading costs: the less of this one and the last, for one alone may have waited for a database that came back.
    price: Duration,
    /// Why the database can't be asked at all.
    pub away: Option<StoreError>,
    /// What waits to be published.
    pub backlog: Result<Backlog, StoreError>,
    /// Which steps are late.
    pub overdue: Result<LateSteps, StoreError>,
    /// Which orders people have not moved in time.
    pub late: Result<LateOrders, StoreError>,
    /// Orders by status; with very many, they are counted now and then.
    pub counts: Result<Counts, StoreError>,
    count_again_at: Instant,
    /// Orders were not counted, since looking for late steps took too long: the next time they come first.
    counts_first: bool,
}

impl Reading {
    /// Whether it still tells how things are.
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < OLD_AFTER.max(self.took * SHARE * 2)
    }

    /// What it says, as the diagnosis takes it.
    pub fn figures(&self) -> Figures<'_> {
        Figures {
            stale: (!self.is_fresh()).then(|| self.at.elapsed()),
            away: self.away.as_ref(),
            backlog: self.backlog.as_ref(),
            overdue: self.overdue.as_ref(),
            unread: self.first_error(),
        }
    }

    /// The first figure that could not be read.
    pub fn first_error(&self) -> Option<&StoreError> {
        let backlog = self.backlog.as_ref().err();
        let late = self.late.as_ref().err();
        backlog.or(self.overdue.as_ref().err()).or(late).or(self.counts.as_ref().err())
    }

    /// Whether what is there need not be read again yet. What failed is asked for soon: the next time it may not
    /// cost what it has cost.
    fn is_enough(&self) -> bool {
        let rest = FRESH_FOR.max(self.price * SHARE);
        self.at.elapsed() < if self.first_error().is_some() { rest.min(FAILED_FOR) } else { rest }
    }
}

/// The readings of one store.
pub struct Overview {
    store: Arc<dyn Insight>,
    last: Mutex<Option<Arc<Reading>>>,
    turn: Turn<()>,
    audits: Turn<()>,
}

impl Overview {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn Insight>) -> Arc<Self> {
        Arc::new(Self { store, last: Mutex::default(), turn: Turn::default(), audits: Turn::default() })
    }

    /// Asks the database for nothing.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }

    /// An order as an audit sees it, if there is one, and the moment that the store goes by.
    pub async fn audited(&self, order_id: OrderId) -> Result<(Option<AuditedOrder>, Timestamp), StoreError> {
        // One after the other, so that who asks often is in nobody's way.
        let _turn = self.audits.lock().await;
        let after = order_id.previous().map(|id| id.to_string());
        let page = self.store.audit(after.as_deref(), 1).await?;
        Ok((page.orders.into_iter().find(|order| order.order_id == order_id), page.now))
    }

    /// The last reading, if there was one; asks nobody.
    pub fn last(&self) -> Option<Arc<Reading>> {
        self.last.lock().expect("no holder panics").clone()
    }

    /// A reading of half a second ago at most, or of a little more where reading takes long.
    pub async fn read(&self) -> Arc<Reading> {
        let _turn = self.turn.lock().await;
        let last = self.last();
        if let Some(last) = last.as_ref().filter(|last| last.is_enough()) {
            return Arc::clone(last);
        }
        let reading = Arc::new(self.read_again(last.as_deref()).await);
        *self.last.lock().expect("no holder panics") = Some(Arc::clone(&reading));
        reading
    }

    /// Asks for each figure by itself, but not where asking would only be waiting: with the database silent one wait
    /// is enough, and with the orders locked another.
    async fn read_again(&self, last: Option<&Reading>) -> Reading {
        let started = Instant::now();
        let backlog = self.store.backlog().await;
        let away = self.away(&backlog).await;
        let (overdue, (counts, count_again_at), counts_first) = match &away {
            Some(error) => (Err(error.clone()), (Err(error.clone()), started), false),
            None if last.is_some_and(|last| last.counts_first) => {
                let counted = self.count(last).await;
                (unless_slow(&counted.0, self.overdue()).await, counted, false)
            }
            None => {
                let overdue = self.overdue().await;
                let counted = unless_slow(&overdue, async { Ok(self.count(last).await) }).await;
                let skipped = counted.is_err();
                (overdue, counted.unwrap_or_else(|error| (Err(error), started)), skipped)
            }
        };
        let late = match &away {
            Some(error) => Err(error.clone()),
            None => unless_slow(&overdue, async { self.store.late(LOOKS).await }).await,
        };
        let (at, took) = (Instant::now(), started.elapsed());
        let price = last.map_or(took, |last| took.min(last.took));
        Reading { at, took, price, away, backlog, overdue, late, counts, count_again_at, counts_first }
    }

    async fn overdue(&self) -> Result<LateSteps, StoreError> {
        self.store.overdue(OVERDUE_AFTER, LOOKS).await
    }

    /// Whether the others need not be asked, and why: a question that took too long may have been too much, or
    /// nobody answers.
    async fn away(&self, backlog: &Result<Backlog, StoreError>) -> Option<StoreError> {
        match backlog {
            Err(error @ StoreError::Unavailable(_)) => Some(error.clone()),
            Err(error @ StoreError::Timeout(_)) => match timeout(PING_WITHIN, self.store.ping()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(_) => Some(error.clone()),
            },
            _ => None,
        }
    }

    /// Counts unless that was done lately; and when to count again. Once more are at an end than are counted,
    /// that stays so.
    async fn count(&self, last: Option<&Reading>) -> (Result<Counts, StoreError>, Instant) {
        if let Some(last) = last
            && last.counts.is_ok()
            && Instant::now() < last.count_again_at
        {
            return (last.counts.clone(), last.count_again_at);
        }
        let most = COUNTED_TO.unsigned_abs();
        let known = last.and_then(|last| last.counts.as_ref().ok());
        let is_full =
            |status: Status| status.is_final() && known.is_some_and(|counts| counts.orders[status] >= most);
        let (full, asked): (Vec<Status>, Vec<Status>) = Status::ALL.into_iter().partition(|s| is_full(*s));
        let counted = self.store.count(&asked).await;
        let rows = counted.as_ref().map_or(0, |counts| counts.orders.iter().map(|(_, count)| count).sum());
        let again_at = Instant::now() + FOR_EACH_COUNTED * u32::try_from(rows).unwrap_or(u32::MAX);
        let counts = counted.map(|mut counts| {
            for status in full {
                counts.orders[status] = most;
            }
            counts
        });
        (counts, again_at)
    }
}

/// Asks, unless another question about the same table took too long just now.
async fn unless_slow<T, U>(
    before: &Result<T, StoreError>,
    question: impl Future<Output = Result<U, StoreError>>,
) -> Result<U, StoreError> {
    match before {
        Err(error @ (StoreError::Timeout(_) | StoreError::Unavailable(_))) => Err(error.clone()),
        _ => question.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::{
        store::{conformance::start, flaky::Flaky, memory::MemoryStore},
        time::ManualClock,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn open() -> (Arc<Overview>, Arc<Flaky>) {
        let clock = Arc::new(ManualClock::new(start()));
        let store = Arc::new(Flaky::new(Arc::new(MemoryStore::new(Arc::default(), clock, 1))));
        (Overview::new(store.clone()), store)
    }

    impl Flaky {
        fn make_slow(&self, verbs: &[&'static str]) {
            *self.slow.lock().expect("no panic") = verbs.iter().copied().collect();
            self.asked.lock().expect("no panic").clear();
        }

        fn asked(&self) -> Vec<&'static str> {
            std::mem::take(&mut self.asked.lock().expect("no panic"))
        }
    }

    /// Promise 6: it says what is wrong. What is over is not said any more.
    #[tokio::test(start_paused = true)]
    async fn a_failure_is_forgotten_a_second_after_it_is_over() {
        let (overview, store) = open();
        store.make_slow(&["ping", "backlog", "overdue", "count"]);
        let begun = Instant::now();
        let silent = overview.read().await;
        assert!(silent.away.is_some() && silent.first_error().is_some());
        assert!(silent.backlog.is_err() && silent.overdue.is_err() && silent.counts.is_err());
        assert!(begun.elapsed() < 3 * SECOND, "one wait is enough: {:?}", begun.elapsed());
        assert_eq!(store.asked(), ["backlog", "ping"]);
        store.make_slow(&[]);
        advance(SECOND).await;
        let well = overview.read().await;
        assert!(well.away.is_none() && well.first_error().is_none());
    }

    /// One reading alone may have waited for a database that came back; two in a row are dear.
    #[tokio::test(start_paused = true)]
    async fn a_reading_is_dear_when_the_one_before_was_too() {
        let (overview, store) = open();
        let last = overview.read().await;
        *store.answers_after.lock().expect("no panic") = SECOND;
        advance(SECOND).await;
        let waited = overview.read().await;
        assert!(waited.at > last.at + 3 * SECOND && waited.first_error().is_none());
        advance(FRESH_FOR).await;
        let dear = overview.read().await;
        assert!(dear.at > waited.at, "the last was not dear");
        advance(SECOND * 30).await;
        assert_eq!(overview.read().await.at, dear.at, "reading takes a small part of the time");
        advance(SECOND * 31).await;
        assert!(overview.read().await.at > dear.at);
    }

    /// One figure that can't be read leaves the others, whichever it is.
    #[tokio::test(start_paused = true)]
    async fn each_figure_fails_by_itself() {
        let (overview, store) = open();
        store.make_slow(&["backlog"]);
        let reading = overview.read().await;
        assert!(reading.away.is_none() && reading.backlog.is_err(), "{reading:?}");
        assert!(reading.overdue.is_ok() && reading.counts.is_ok(), "{reading:?}");
        store.make_slow(&["count"]);
        advance(SECOND).await;
        let reading = overview.read().await;
        assert!(reading.counts.is_err() && reading.backlog.is_ok() && reading.overdue.is_ok(), "{reading:?}");
    }

    /// Both are read from the same table: if it is locked, one wait is enough. If it is not, one that never ends in
    /// time does not take the other with it.
    #[tokio::test(start_paused = true)]
    async fn late_steps_and_counts_take_turns_while_one_is_too_slow() {
        let (overview, store) = open();
        store.make_slow(&["overdue"]);
        let first = overview.read().await;
        assert!(first.backlog.is_ok() && first.overdue.is_err() && first.counts.is_err());
        assert_eq!(store.asked(), ["backlog", "overdue"]);
        advance(SECOND).await;
        let second = overview.read().await;
        assert!(second.overdue.is_err() && second.counts.is_ok());
        store.asked();
        store.make_slow(&["overdue", "count"]);
        for _ in 0..4 {
            advance(SECOND).await;
            let begun = Instant::now();
            assert!(overview.read().await.backlog.is_ok());
            assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
        }
    }
}
