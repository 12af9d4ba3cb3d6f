//! Messages with which no others could be admitted, or only too slowly. Each is tried alone, beside all others and after
//! growing pauses, so that nobody waits for it but its own partition.

use std::{future::pending, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::Instant;

use super::{
    Consumer, PartitionOffset,
    queue::{MessageState, Queue, Why},
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
    under_way: Option<BoxFuture<'static, AdmissionAnswer>>,
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
        let answer = trial.await;
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

    /// Begins to try the one that has waited longest.
    pub(super) fn try_alone(&mut self) {
        let now = Instant::now();
        if self.trial.next_at().is_none_or(|at| at > now) {
            return;
        }
        let waiting = self.queues.iter_mut().flat_map(|(partition, queue)| {
            let partition = *partition;
            queue.pending.iter_mut().filter_map(move |pending| match &mut pending.state {
                MessageState::Alone(alone) => {
                    Some((alone.again_at?, (partition, pending.record.offset), alone))
                }
                _ => None,
            })
        });
        let due = waiting.filter(|(at, ..)| *at <= now).min_by_key(|(at, place, _)| (*at, *place));
        let Some((_, place, alone)) = due else { return };
        alone.again_at = None;
        let (incoming, store) = (alone.incoming.clone(), Arc::clone(&self.store));
        let trial = async move { (place, store.admit_alone(&incoming).await) };
        (self.trial.under_way, self.trial.began) = (Some(trial.boxed()), now);
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
