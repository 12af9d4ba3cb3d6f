//! What follows a commit that made steps, or orders that will make some: one place, whoever made them.

use std::{sync::Arc, time::Duration};

#[cfg(test)]
use tokio_util::sync::CancellationToken;

#[cfg(test)]
use super::Places;
use crate::{
    order::{OrderId, Reason, Status, Transition},
    telemetry::metrics::Metrics,
    time::Alarm,
    tracker::Notifier,
};

/// Tells of what was committed: those who follow an order, the reader of events, the metrics, and the scheduler's alarm.
pub struct Transitions {
    notifier: Arc<Notifier>,
    metrics: Arc<Metrics>,
    alarm: Arc<Alarm>,
}

impl Transitions {
    /// Tells these.
    pub fn new(notifier: Arc<Notifier>, metrics: Arc<Metrics>, alarm: Arc<Alarm>) -> Arc<Self> {
        Arc::new(Self { notifier, metrics, alarm })
    }

    /// These steps are committed, and the next of any order is due after so long; `None` if that is not known to
    /// whoever made them, or none waits.
    pub fn committed(&self, transitions: &[Transition], next_due_in: Option<Duration>) {
        if let Some(wait) = next_due_in {
            self.alarm.wake_in(wait);
        }
        if !transitions.is_empty() {
            self.notifier.committed(transitions);
            self.metrics.transitioned(transitions);
            for _ in transitions.iter().filter(|step| step.to == Status::Cancelled) {
                // Nobody but people has another reason.
                self.metrics.cancelled(Reason::NotAccepted);
            }
            self.notifier.wake_reader();
        }
    }

    /// These reports are committed: orders with the positions that they have reached, the steps among them, and the time
    /// until the first of these orders is due.
    pub fn reported(&self, changed: &[(OrderId, u32)], steps: &[Transition], next_due_in: Option<Duration>) {
        if let Some(wait) = next_due_in {
            self.alarm.wake_in(wait);
        }
        self.notifier.reached(changed.iter().copied());
        self.metrics.transitioned(steps);
        self.notifier.wake_reader();
    }

    /// New orders are committed, whose first step is due after so long, if one is. Nobody can follow them yet.
    pub fn placed(&self, first_due_in: Option<Duration>) {
        if let Some(wait) = first_due_in {
            self.alarm.wake_in(wait);
        }
        self.notifier.wake_reader();
    }
}

#[cfg(test)]
impl Transitions {
    /// Those of a store where nobody follows an order.
    pub(crate) fn unfollowed(
        store: &Arc<dyn crate::store::Store>,
        metrics: Arc<Metrics>,
        alarm: Arc<Alarm>,
    ) -> Arc<Self> {
        let loader = super::OrderLoader::new(store.clone());
        Self::new(Notifier::new(loader, Places::new(1, CancellationToken::new())), metrics, alarm)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::{
        order::Status,
        store::{
            Outbox, Store,
            conformance::{new_orders, start},
            memory::MemoryStore,
        },
        time::VirtualClock,
        tracker::OrderLoader,
    };

    /// Whoever made a step: followers hear of it at once, it is counted, and the scheduler wakes for the next.
    #[tokio::test(start_paused = true)]
    async fn a_committed_step_reaches_followers_metrics_and_alarm() {
        let clock = Arc::new(VirtualClock::new(start()));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::default(), clock, 1));
        let orders = new_orders(1);
        let order_id = orders[0].order_id;
        store.place(&orders, Outbox::Mine).await.expect("places");
        tokio::time::advance(Duration::from_secs(3)).await;
        let advance = store.advance(10).await.expect("advances");

        let (metrics, alarm) = (Arc::new(Metrics::new()), Arc::new(Alarm::default()));
        let stop = CancellationToken::new();
        let notifier = Notifier::new(OrderLoader::new(store), Places::new(1, stop));
        // Nobody reads: what the subscriber hears of is what it is told.
        let mut subscriber = notifier.subscribe(order_id, None).expect("a place");
        let transitions = Transitions::new(notifier, Arc::clone(&metrics), Arc::clone(&alarm));
        transitions.committed(&advance.transitions, advance.next_due_in);

        let news = timeout(Duration::from_secs(1), subscriber.news(2)).await.expect("told at once");
        let news = news.expect("goes on").expect("reads");
        assert_eq!(news.len(), 1);
        let text = String::from_utf8(metrics.render().expect("renders")).expect("text");
        let (from, to) = (Status::Placed, Status::Preparing);
        let series = format!("status_transitions_total{{from=\"{from}\",to=\"{to}\"}} 1");
        assert!(text.lines().any(|line| line == series), "{text}");
        let asked = Instant::now();
        alarm.wait(Duration::from_mins(1)).await;
        assert_eq!(asked.elapsed(), advance.next_due_in.expect("it goes on"));
    }
}
