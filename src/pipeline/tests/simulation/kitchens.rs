//! Those who report what happens to an order, again where they are not answered.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

use super::world::Replicas;
use crate::{
    order::{Event, EventKind, OrderId, Reason, Report, Source, Status},
    tracker::{OrderReport, ReportError, ReportOutcome, ReportQueue},
};

/// Most reports of one order.
const REPORTS: u32 = 6;

/// Reports of one order, some of them under ids, each at whichever replica lives.
pub(super) struct Reporter {
    order_id: OrderId,
    replicas: Replicas,
    random: StdRng,
    told: Vec<Vec<Event>>,
}

impl Reporter {
    pub(super) fn new(order_id: OrderId, replicas: Replicas, luck: u64) -> Self {
        Self { order_id, replicas, random: StdRng::seed_from_u64(luck), told: Vec::new() }
    }

    /// Says what happens, and answers the events of everything that was told to have happened.
    pub(super) async fn run(mut self) -> Vec<Vec<Event>> {
        for n in 0..self.random.random_range(1..=REPORTS) {
            self.pause(3_000).await;
            let report = self.report(n);
            if let Some(events) = self.decided(&report).await {
                if report.report.id.is_some() && self.random.random_ratio(1, 3) {
                    self.pause(500).await;
                    let again = self.decided(&report).await;
                    assert_eq!(again.as_ref(), Some(&events), "the same answer: {report:?}");
                }
                self.told.push(events);
            }
        }
        self.told
    }

    async fn pause(&mut self, most: u64) {
        sleep(Duration::from_millis(self.random.random_range(0..most))).await;
    }

    /// Where it is said tells this report from every other.
    fn report(&mut self, n: u32) -> OrderReport {
        let event = match self.random.random_range(0..10) {
            0 => EventKind::Reached(Status::Cancelled),
            1 => EventKind::Delayed,
            2 | 3 => EventKind::Reverted,
            _ => Report::KINDS[self.random.random_range(0..Report::KINDS.len() - 1)],
        };
        let station = format!("station {n}");
        let report = Report {
            id: self.random.random_ratio(3, 4).then(|| station.clone()),
            station: Some(station),
            reason: (event == EventKind::Reached(Status::Cancelled)).then_some(Reason::TooBusy),
            minutes: (event == EventKind::Delayed).then_some(1),
            ..Report::of(event, Source::Kitchen)
        };
        OrderReport { order_id: self.order_id, report, if_match: None }
    }

    fn queue(&mut self) -> Option<ReportQueue> {
        let replicas = self.replicas.lock().expect("no panic");
        let chosen = self.random.random_range(0..replicas.len());
        replicas[chosen].as_ref().map(|replica| replica.reports.clone())
    }

    /// The events of a report that happened; asked again until that is known, but without an id once.
    async fn decided(&mut self, report: &OrderReport) -> Option<Vec<Event>> {
        loop {
            let answer = match self.queue() {
                Some(queue) => queue.report(vec![report.clone()]).await.and_then(|mut all| all.remove(0)),
                None => Err(ReportError::Closed),
            };
            match answer.map(|reported| reported.outcome) {
                Ok(ReportOutcome::Applied(events, _) | ReportOutcome::Replayed(events, _)) => {
                    return Some(events);
                }
                Ok(ReportOutcome::Ignored(_) | ReportOutcome::Refused(_)) => return None,
                Ok(ReportOutcome::Contended) => {}
                Ok(outcome) => panic!("{outcome:?}: {report:?}"),
                Err(error) => {
                    assert!(!matches!(error, ReportError::Refused(_)), "{error}");
                    report.report.id.as_ref()?;
                }
            }
            self.pause(500).await;
        }
    }
}
