//! What the relay has the database do, beside publishing: nobody waits for it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    order::{OrderId, OrderPlaced},
    store::{Portion, Store, StoreError, in_portions},
};

/// Most rows in one write.
const WRITTEN_AT_ONCE: usize = 2_000;
/// Most rows claimed in one write.
const CLAIMED_AT_ONCE: usize = 1_000;

/// How many rows the database takes in time.
#[derive(Debug)]
pub(super) struct Portions {
    clear: Portion,
    release: Portion,
    claim: Portion,
}

impl Default for Portions {
    fn default() -> Self {
        let [clear, release] = [WRITTEN_AT_ONCE; 2].map(Portion::new);
        Self { clear, release, claim: Portion::new(CLAIMED_AT_ONCE) }
    }
}

impl Portions {
    /// For rows that have failed before.
    pub(super) fn alone() -> Self {
        let [clear, release, claim] = [1; 3].map(Portion::new);
        Self { clear, release, claim }
    }
}

/// What became of a row; of several, each for itself.
pub(super) type Fates<T> = Vec<(OrderId, Result<T, StoreError>)>;

/// What the database has done.
pub(super) enum Done {
    /// Rows were cleared and given back.
    /// Whether each went: one that another session holds did not.
    Settled { sent: Fates<bool>, unsent: Fates<bool> },
    /// Rows of nobody were read.
    Read { outcome: Result<Vec<OrderId>, StoreError>, took: Duration },
    /// Own rows were looked for that nobody holds.
    Searched(Result<Vec<OrderId>, StoreError>),
    /// Rows became ours; `None` are somebody else's or gone.
    Claimed { fates: Fates<Option<OrderPlaced>>, took: Duration },
}

/// Clears the rows of acknowledged orders and gives the others back.
pub(super) async fn settle(
    store: Arc<dyn Store>,
    portions: Arc<Portions>,
    sent: Vec<OrderId>,
    unsent: Vec<OrderId>,
) -> Done {
    let clear = async |ids: &[OrderId]| store.mark_sent(ids).await.map(|held| went(ids, &held));
    let cleared = in_portions(&portions.clear, sent.len(), |part| clear(&sent[part])).await;
    let release = async |ids: &[OrderId]| store.release(ids).await.map(|held| went(ids, &held));
    let released = in_portions(&portions.release, unsent.len(), |part| release(&unsent[part])).await;
    Done::Settled { sent: pairs(sent, cleared), unsent: pairs(unsent, released) }
}

fn went(ids: &[OrderId], held: &[OrderId]) -> Vec<bool> {
    let held: HashSet<&OrderId> = held.iter().collect();
    ids.iter().map(|id| !held.contains(id)).collect()
}

fn pairs<T>(ids: Vec<OrderId>, answers: Vec<Result<T, StoreError>>) -> Fates<T> {
    ids.into_iter().zip(answers).collect()
}

pub(super) async fn read(store: Arc<dyn Store>, after: Option<OrderId>, limit: usize) -> Done {
    let started = Instant::now();
    let outcome = store.unclaimed(after, limit).await;
    Done::Read { outcome, took: started.elapsed() }
}

pub(super) async fn search(store: Arc<dyn Store>, held: Vec<OrderId>, limit: usize) -> Done {
    Done::Searched(store.lost(&held, limit).await)
}

pub(super) async fn claim(store: Arc<dyn Store>, portions: Arc<Portions>, ids: Vec<OrderId>) -> Done {
    let started = Instant::now();
    let claim = async |ids: &[OrderId]| {
        let claimed = store.claim(ids).await?;
        let mut claimed: HashMap<OrderId, OrderPlaced> =
            claimed.into_iter().map(|message| (message.order_id, message)).collect();
        Ok(ids.iter().map(|id| claimed.remove(id)).collect())
    };
    let answers = in_portions(&portions.claim, ids.len(), |part| claim(&ids[part])).await;
    Done::Claimed { fates: pairs(ids, answers), took: started.elapsed() }
}
