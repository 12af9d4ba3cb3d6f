//! Messages with which no others could be admitted, or only too slowly. Each is tried alone, beside all others and after
//! growing pauses, so that nobody waits for it but its own partition.

use std::{collections::HashSet, future::pending, panic::resume_unwind, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Consumer, PartitionOffset,
    queue::{MessageState, Pending, Queue, Why},
};
use crate::store::{Admission, Incoming, StoreError};

/// The first pause; each failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// One may take as long as a statement may, and other loops need the connection: such tries take a third of the time.
const REST: u32 = 2;

/// What became of one that was tried.
pub(super) type AdmissionAnswer = (PartitionOffset, Result<Admission, StoreError>);

/// An order that goes alone.
pub(super) struct Alone {
    pub(super) incoming: Incoming,
    pause: Duration,
    /// When it may be tried; `None` while it is.
    again_at: Option<Instant>,
}

impl Alone {
    /// One that has failed among others may be tried at once.
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { incoming, pause: Duration::ZERO, again_at: Some(Instant::now()) }
    }

    /// It has failed again.
    pub(super) fn put_off(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.again_at = Some(Instant::now() + self.pause);
    }

    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }
}

/// The one that is tried now; there is no other meanwhile.
pub(super) struct Trial {
    /// A task of its own: nobody else looks at it while a batch is written, and it may have what that needs.
    under_way: Option<AbortOnDropHandle<AdmissionAnswer>>,
    began: Instant,
    /// None before.
    next_at: Instant,
}

impl Trial {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { under_way: None, began: now, next_at: now }
    }

    /// Waits until it has ended; for ever if there is none.
    pub(super) async fn end(&mut self) -> AdmissionAnswer {
        let Some(trial) = &mut self.under_way else { return pending().await };
        // A panic in it is one of the consumer.
        let answer = trial.await.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        self.under_way = None;
        self.next_at = Instant::now() + self.began.elapsed() * REST;
        answer
    }

    /// When the next may be begun, unless one is under way.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.under_way.is_none().then_some(self.next_at)
    }
}

impl Consumer {
    /// When one of those that go alone is to be tried.
    pub(super) fn try_alone_at(&self) -> Option<Instant> {
        let next_at = self.trial.next_at()?;
        let waiting = self.queues.values().filter_map(Queue::alone_at).min()?;
        Some(waiting.max(next_at))
    }

    /// Begins to try one: of the partition that was tried longest ago that which has waited longest.
    pub(super) fn try_alone(&mut self) {
        let now = Instant::now();
        if self.trial.next_at().is_none_or(|at| at > now) {
            return;
        }
        let due = self.queues.iter_mut().filter(|(_, queue)| queue.alone_at().is_some_and(|at| at <= now));
        let Some((partition, queue)) = due.min_by_key(|(_, queue)| queue.tried_alone_at) else { return };
        queue.tried_alone_at = Some(now);
        // Of copies of one order the first that came counts.
        let mut orders = HashSet::new();
        let waiting = queue.pending.iter_mut().filter_map(|Pending { record, state }| match state {
            MessageState::Alone(alone) if orders.insert(alone.incoming.placed.order_id) => {
                Some((alone.again_at?, record.offset, alone))
            }
            _ => None,
        });
        let Some((_, offset, alone)) = waiting.min_by_key(|(at, offset, _)| (*at, *offset)) else { return };
        alone.again_at = None;
        let (place, incoming, store) =
            ((*partition, offset), alone.incoming.clone(), Arc::clone(&self.store));
        let trial = async move { (place, store.admit_alone(&incoming).await) };
        (self.trial.under_way, self.trial.began) = (Some(AbortOnDropHandle::new(tokio::spawn(trial))), now);
    }

    /// One that was tried alone has its answer.
    pub(super) fn note_alone(&mut self, ((partition, offset), answer): AdmissionAnswer) {
        let transitions = Arc::clone(&self.transitions);
        let Some(queue) = self.queues.get_mut(&partition) else { return };
        let Some(pending) = queue.pending.iter_mut().find(|pending| pending.record.offset == offset) else {
            return;
        };
        // Read anew meanwhile, it is no more the one that was tried.
        if !matches!(&pending.state, MessageState::Alone(alone) if alone.again_at.is_none()) {
            return;
        }
        if let Some(error) = pending.answered(answer, &transitions) {
            queue.failed(Why::from(&error));
        }
    }
}
