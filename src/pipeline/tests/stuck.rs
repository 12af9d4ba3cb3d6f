//! Orders that can't be moved, in a store that makes trouble.

use std::{collections::HashSet, sync::Mutex, time::Duration};

use tokio::time::sleep;

use crate::{
    order::OrderId,
    store::{Due, SOON, StoreError},
};

/// Which orders can't be moved: no set with one of them is.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    pub refused: Mutex<HashSet<OrderId>>,
    /// How long it takes to refuse one.
    pub refusing_takes: Duration,
    /// Not in time.
    pub slow: Mutex<HashSet<OrderId>>,
    /// What was to be moved: which kind, and how many at most.
    pub asked: Mutex<Vec<(&'static str, usize)>>,
}

impl Stuck {
    pub(super) fn note(&self, due: Due<'_>) {
        let asked = match due {
            Due::Soonest { limit, .. } => ("soonest", limit),
            Due::Overlooked { limit, .. } => ("overlooked", limit),
            Due::These(orders) => ("these", orders.len()),
            Due::Alone(_) => ("alone", 1),
        };
        self.asked.lock().expect("no panic").push(asked);
    }

    /// Fails if one of those taken can't be moved.
    pub(super) async fn meet(&self, due: Due<'_>, taken: &[OrderId]) -> Result<(), StoreError> {
        let any = |bad: &Mutex<HashSet<OrderId>>| {
            let bad = bad.lock().expect("no panic");
            taken.iter().any(|order_id| bad.contains(order_id))
        };
        if any(&self.slow) {
            let limit = if matches!(due, Due::These(_)) { SOON } else { Duration::from_secs(2) };
            sleep(limit).await;
            return Err(StoreError::Timeout(limit));
        }
        if any(&self.refused) {
            sleep(self.refusing_takes).await;
            return Err(StoreError::Refused("its event is there already".to_owned()));
        }
        Ok(())
    }
}
