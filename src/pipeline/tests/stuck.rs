//! Orders that can't be moved, in a store that makes trouble.

use std::{collections::HashSet, sync::Mutex, time::Duration};

use tokio::time::sleep;

use crate::{
    order::OrderId,
    store::{Due, SOON, StoreError, moved_within},
};

/// Which orders can't be moved: no set with one of them is.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    pub refused: Mutex<HashSet<OrderId>>,
    /// How long it takes to refuse one.
    pub refusing_takes: Duration,
    /// Not in time.
    pub slow: Mutex<HashSet<OrderId>>,
    /// Those that calls under way have taken: others pass them over.
    pub taken: Mutex<HashSet<OrderId>>,
    /// What was to be moved: which kind, and how many at most.
    pub asked: Mutex<Vec<(&'static str, usize)>>,
}

impl Stuck {
    /// Answers whom the look is for but for those that others have taken, or whom it leaves out with them.
    pub(super) fn note(&self, due: Due<'_>) -> Vec<OrderId> {
        let asked = match due {
            Due::Soonest { limit, .. } => ("soonest", limit),
            Due::Overlooked { limit, .. } => ("overlooked", limit),
            Due::Part(orders) => ("part", orders.len()),
            Due::SecondChance(orders) => ("second chance", orders.len()),
            Due::Alone(_) => ("alone", 1),
        };
        self.asked.lock().expect("no panic").push(asked);
        let taken: Vec<OrderId> = self.taken.lock().expect("no panic").iter().copied().collect();
        match due {
            Due::Soonest { .. } => taken,
            Due::Overlooked { except, .. } => [&taken, except].concat(),
            Due::Part(orders) | Due::SecondChance(orders) => but_for(&taken, orders),
            Due::Alone(order_id) => but_for(&taken, &[order_id]),
        }
    }

    /// Fails if one of those taken can't be moved.
    pub(super) async fn meet(&self, due: Due<'_>, taken: &[OrderId]) -> Result<(), StoreError> {
        let any = |bad: &Mutex<HashSet<OrderId>>| {
            let bad = bad.lock().expect("no panic");
            taken.iter().any(|order_id| bad.contains(order_id))
        };
        let (limit, error) = if any(&self.slow) {
            let limit = match due {
                Due::Soonest { limit, .. } | Due::Overlooked { limit, .. } => moved_within(limit),
                Due::Part(orders) => moved_within(orders.len()),
                Due::SecondChance(_) => SOON,
                Due::Alone(_) => Duration::from_secs(2),
            };
            (limit, StoreError::Timeout(limit))
        } else if any(&self.refused) {
            (self.refusing_takes, StoreError::Refused("its event is there already".to_owned()))
        } else {
            return Ok(());
        };
        let _taken = Taken::new(self, taken);
        sleep(limit).await;
        Err(error)
    }
}

/// What one call has taken, until it is dropped.
struct Taken<'a> {
    stuck: &'a Stuck,
    orders: &'a [OrderId],
}

impl<'a> Taken<'a> {
    fn new(stuck: &'a Stuck, orders: &'a [OrderId]) -> Self {
        stuck.taken.lock().expect("no panic").extend(orders);
        Self { stuck, orders }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut taken = self.stuck.taken.lock().expect("no panic");
        for order_id in self.orders {
            taken.remove(order_id);
        }
    }
}

fn but_for(these: &[OrderId], orders: &[OrderId]) -> Vec<OrderId> {
    orders.iter().copied().filter(|order_id| !these.contains(order_id)).collect()
}

/// The same look for, or without, what [`Stuck::note`] answers.
pub(super) fn narrowed<'a>(due: Due<'_>, orders: &'a [OrderId]) -> Due<'a> {
    match due {
        Due::Soonest { limit, after } | Due::Overlooked { limit, after, .. } => {
            Due::Overlooked { limit, after, except: orders }
        }
        Due::Part(_) => Due::Part(orders),
        Due::SecondChance(_) | Due::Alone(_) => Due::SecondChance(orders),
    }
}
