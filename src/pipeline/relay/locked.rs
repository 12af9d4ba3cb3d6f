//! Outbox rows that another session of the database holds: a console, somebody's repair.
//!
//! They can't be cleared or given back until it lets them go. All others are, and these are tried together from
//! time to time; they take up room, so that memory is bounded.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::order::OrderId;

/// How often they are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The rows that are held.
#[derive(Debug, Default)]
pub(super) struct Locked {
    /// Acknowledged.
    sent: Vec<OrderId>,
    /// To be given back.
    unsent: Vec<OrderId>,
    again_at: Option<Instant>,
    /// Whether it was said.
    told: bool,
}

impl Locked {
    pub(super) fn len(&self) -> usize {
        self.sent.len() + self.unsent.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = OrderId> {
        self.sent.iter().chain(&self.unsent).copied()
    }

    /// These turned out to be held.
    pub(super) fn add(&mut self, sent: Vec<OrderId>, unsent: Vec<OrderId>) {
        let (first, orders) = (sent.first().or(unsent.first()).copied(), sent.len() + unsent.len());
        self.sent.extend(sent);
        self.unsent.extend(unsent);
        if let Some(order_id) = first {
            self.again_at.get_or_insert_with(|| Instant::now() + AGAIN);
            if !std::mem::replace(&mut self.told, true) {
                warn!(%order_id, orders, "another session of the database holds outbox rows; they are cleared \
                    when it lets them go, and all others are");
            }
        } else if self.len() == 0 && std::mem::take(&mut self.told) {
            info!("no outbox row is held by another session any more");
        }
    }

    /// When they are to be tried again.
    pub(super) fn at(&self) -> Option<Instant> {
        self.again_at
    }

    /// Those to be tried again now: acknowledged, and to be given back.
    pub(super) fn take(&mut self) -> (Vec<OrderId>, Vec<OrderId>) {
        self.again_at = None;
        (std::mem::take(&mut self.sent), std::mem::take(&mut self.unsent))
    }

    /// What is to be said of them.
    pub(super) fn trouble(&self) -> Option<String> {
        let first = self.ids().min()?;
        Some(format!("another session of the database holds {} outbox rows, such as {first}", self.len()))
    }
}
