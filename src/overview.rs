//! What waits, read once for all who ask: board, gauges and `/readyz` show the same.
//!
//! Invariant: however many ask and however much waits, reading takes a small part of the time; who
//! asks meanwhile gets the last reading or waits for the one under way.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Mutex as Turn, time::Instant};

use crate::{
    order::Status,
    store::{Attention, Backlog, COUNTED_TO, Store, StoreError},
};

/// A step later than this means that the progress loop is behind; promised are 2 s.
pub const PROGRESS_MAY_LAG: Duration = Duration::from_secs(2);
/// Most rows in each list of what should be looked at.
const LOOKS: usize = 5;
/// How old a reading may be, whoever asks.
const FRESH_FOR: Duration = Duration::from_millis(500);
/// Reading takes at most this part of the time.
const SHARE: u32 = 20;
/// For each order counted, so long until orders are counted again: a thousand rows a second.
const FOR_EACH_COUNTED: Duration = Duration::from_millis(1);
/// A reading that is older says nothing of now.
const OLD_AFTER: Duration = Duration::from_secs(30);

/// What was read at one time; each part may be there without the others.
#[derive(Debug, Clone)]
pub struct Reading {
    /// When it was complete.
    pub at: Instant,
    took: Duration,
    /// What waits.
    pub backlog: Result<Backlog, StoreError>,
    /// What needs a look.
    pub attention: Result<Attention, StoreError>,
    /// Orders by status; with very many, they are counted now and then.
    pub counts: Result<[u64; 5], StoreError>,
    count_again_at: Instant,
}

impl Reading {
    /// Whether it still tells how things are.
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < OLD_AFTER.max(self.took * SHARE * 2)
    }
}

/// The readings of one store.
pub struct Overview {
    store: Arc<dyn Store>,
    last: Mutex<Option<Arc<Reading>>>,
    turn: Turn<()>,
}

impl Overview {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, last: Mutex::default(), turn: Turn::default() })
    }

    /// The last reading, if there was one; asks nobody.
    pub fn last(&self) -> Option<Arc<Reading>> {
        self.last.lock().expect("no holder panics").clone()
    }

    /// A reading of half a second ago at most, or of a little more where reading takes long.
    pub async fn read(&self) -> Arc<Reading> {
        let _turn = self.turn.lock().await;
        if let Some(last) = self.last()
            && last.at.elapsed() < FRESH_FOR.max(last.took * SHARE)
        {
            return last;
        }
        let started = Instant::now();
        let backlog = self.store.backlog().await;
        // With the database away one wait is enough.
        let attention = match &backlog {
            Err(error @ StoreError::Unavailable(_)) => Err(error.clone()),
            _ => self.store.attention(PROGRESS_MAY_LAG, LOOKS).await,
        };
        let (counts, count_again_at) = match self.last() {
            Some(last) if last.counts.is_ok() && Instant::now() < last.count_again_at => {
                (last.counts.clone(), last.count_again_at)
            }
            last => self.count(last.as_deref(), &backlog).await,
        };
        let (at, took) = (Instant::now(), started.elapsed());
        let reading = Arc::new(Reading { at, took, backlog, attention, counts, count_again_at });
        *self.last.lock().expect("no holder panics") = Some(Arc::clone(&reading));
        reading
    }

    /// Counts, and when to count again. Once more are delivered than are counted, that stays so.
    async fn count(
        &self,
        last: Option<&Reading>,
        backlog: &Result<Backlog, StoreError>,
    ) -> (Result<[u64; 5], StoreError>, Instant) {
        if let Err(error @ StoreError::Unavailable(_)) = backlog {
            return (Err(error.clone()), Instant::now());
        }
        let most = COUNTED_TO.unsigned_abs();
        let delivered = last.and_then(|last| last.counts.as_ref().ok()).map_or(0, |counts| counts[4]);
        let statuses = if delivered < most { &Status::ALL[..] } else { &Status::ALL[..4] };
        let counted = self.store.count(statuses).await;
        let rows = counted.as_ref().map_or(0, |counts| counts.iter().sum::<u64>());
        let again_at = Instant::now() + FOR_EACH_COUNTED * u32::try_from(rows).unwrap_or(u32::MAX);
        let counts = counted.map(|mut counts| {
            if delivered >= most {
                counts[4] = most;
            }
            counts
        });
        (counts, again_at)
    }
}
