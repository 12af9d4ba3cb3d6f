//! Orders that looks for due steps leave alone, and where they go on: past all of them, so that they need not
//! know each. What is remembered is bounded; whatever is not is found again by looks at what was overlooked.

use std::time::Duration;

use tokio::time::Instant;

use super::{super::postponed::Postponements, suspects::Suspects};
use crate::{
    order::OrderId,
    store::{DueKey, DueOrders},
};

/// What comes of bad orders again and again may take a third of the time.
const REST: u32 = 2;

/// Orders that looks leave alone.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Members of sets that failed: one of each may be the reason.
    pub suspects: Suspects,
    /// Those that failed alone.
    pub postponed: Postponements,
    /// Where looks at what has become due begin.
    passed: Option<DueKey>,
    /// The same of looks at what was overlooked.
    passed_below: Option<DueKey>,
    /// No look at what was overlooked until then.
    overlooked_at: Option<Instant>,
    /// None of those put off is tried until then.
    again_at: Option<Instant>,
    /// When it was last asked whether they are due still.
    asked_at: Option<Instant>,
}

impl Held {
    /// After which place to look for what has become due.
    pub(super) fn passed(&mut self) -> Option<DueKey> {
        if self.suspects.is_empty() && self.postponed.is_empty() {
            self.passed = None;
        }
        self.passed
    }

    /// A look at what has become due failed: its orders are suspects, and the next begins after them.
    pub(super) fn suspect(&mut self, due: DueOrders, since: u64) {
        self.passed = self.passed.max(due.last);
        self.suspects.add(due.order_ids, since);
    }

    /// The same of a look at what was overlooked.
    pub(super) fn suspect_below(&mut self, due: DueOrders, since: u64) {
        self.passed_below = due.last;
        self.suspects.add(due.order_ids, since);
    }

    /// How many of up to `limit` a look at what was overlooked may take, after which place, and which it leaves
    /// out; none if there is to be no look now.
    pub(super) fn overlooked(&self, limit: usize) -> Option<(usize, Option<DueKey>, Vec<OrderId>)> {
        let limit = limit.min(self.suspects.room());
        if limit == 0 || self.overlooked_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        let except = self.suspects.ids().chain(self.postponed.ids()).collect();
        Some((limit, self.passed_below, except))
    }

    /// A look at what was overlooked has seen all there is.
    pub(super) fn seen_below(&mut self) {
        self.passed_below = None;
    }

    /// What a look at what was overlooked brought took so long to sort.
    pub(super) fn rest_below(&mut self, took: Duration) {
        self.overlooked_at = Some(Instant::now() + took * REST);
    }

    /// Up to `most` of those put off that are to be tried now.
    pub(super) fn again(&self, most: usize) -> Vec<OrderId> {
        if self.again_at.is_some_and(|at| at > Instant::now()) {
            return Vec::new();
        }
        self.postponed.due(most)
    }

    /// Trying some of those put off took so long.
    pub(super) fn tried_again(&mut self, took: Duration) {
        self.again_at = Some(Instant::now() + took * REST);
    }

    /// All that are put off, if it was not asked within so long whether they are due still.
    pub(super) fn ask_about(&mut self, every: Duration) -> Vec<OrderId> {
        let asked = self.asked_at.is_some_and(|at| at.elapsed() < every);
        if asked || self.postponed.is_empty() {
            return Vec::new();
        }
        self.asked_at = Some(Instant::now());
        self.postponed.ids()
    }

    /// These have gone, or are somebody else's.
    pub(super) fn forget(&mut self, orders: impl IntoIterator<Item = OrderId>) {
        for order_id in orders {
            self.suspects.forget(order_id);
            self.postponed.remove(order_id);
        }
    }

    /// Puts one off that failed alone; answers for how long, if that is to be said.
    pub(super) fn put_off(&mut self, order_id: OrderId, reason: String) -> Option<Duration> {
        self.suspects.forget(order_id);
        self.postponed.add(order_id, reason)
    }
}
