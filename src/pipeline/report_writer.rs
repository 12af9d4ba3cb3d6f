//! Group commit of reports: all that wait at one moment are judged and stored together.

use std::{ops::Range, sync::Arc, time::Duration};

use tokio::{task::yield_now, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Outcome, pause};
use crate::{
    order::{EventKind, OrderId, Reason, Rules, Status, Timestamp, Transition},
    store::{OrderReport, Portion, ReportOutcome, Reported, Store, StoreError, in_portions},
    telemetry::{
        RequestId,
        metrics::{Metrics, ReportResult, Step},
    },
    time::{Backoff, deadlines::RETRY as RETRY_FOR},
    tracker::{ReportBatch, ReportBatches, ReportError, Transitions},
};

/// Most reports in one transaction.
pub const REPORTED_AT_ONCE: usize = 512;
/// So many have paid for their commit: nobody else is waited for, or the database would have nothing to do meanwhile.
const ENOUGH: usize = 64;

/// Writes reports. Ends when every [`crate::tracker::ReportQueue`] is dropped and all are answered.
pub struct ReportWriter {
    /// Where reports wait.
    pub batches: ReportBatches,
    /// Where they are stored.
    pub store: Arc<dyn Store>,
    /// What they are judged by.
    pub rules: Rules,
    /// Told what changed.
    pub transitions: Arc<Transitions>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Cuts retries short.
    pub hurry: CancellationToken,
    /// How many reports the database takes in time.
    pub portion: Portion,
}

impl ReportWriter {
    /// Works until there is nothing more to come.
    pub async fn run(mut self) {
        while self.step().await != Outcome::Finished {}
    }

    /// Waits for reports and stores all that wait.
    pub async fn step(&mut self) -> Outcome {
        let batches = self.gather().await;
        if batches.is_empty() {
            return Outcome::Finished;
        }
        // Whoever has given up waiting was told so; a report must not be applied after that.
        let awaited: Vec<ReportBatch> =
            batches.into_iter().filter(|batch| !batch.answer.is_closed()).collect();
        let reports: Vec<OrderReport> =
            awaited.iter().flat_map(|batch| batch.reports.iter().cloned()).collect();
        let asking = awaited.iter().filter_map(|batch| batch.request).collect();
        let writing = self.report_until(&reports, Instant::now() + RETRY_FOR);
        let mut answers = RequestId::during_all(asking, writing).await.into_iter();
        for ReportBatch { reports, since, answer, .. } in awaited {
            self.metrics.step_done(Step::Report, since.elapsed());
            // A caller that has left meanwhile finds what became of it by its report's id.
            drop(answer.send(answers.by_ref().take(reports.len()).collect()));
        }
        Outcome::Worked(reports.len())
    }

    /// All that wait, and those that requests bring which are here already; none if nothing comes any more.
    async fn gather(&mut self) -> Vec<ReportBatch> {
        let most = self.portion.size();
        let Some(first) = self.batches.recv().await else { return Vec::new() };
        let (mut count, mut batches, mut looked) = (first.reports.len(), vec![first], false);
        loop {
            let before = count;
            while count < most
                && let Ok(batch) = self.batches.try_recv()
            {
                count += batch.reports.len();
                batches.push(batch);
            }
            if count >= ENOUGH.min(most) || count == before && looked {
                return batches;
            }
            // Every handler that can run does, after a look at the sockets.
            yield_now().await;
            looked = true;
        }
    }

    async fn report_until(
        &self,
        reports: &[OrderReport],
        give_up: Instant,
    ) -> Vec<Result<Reported, ReportError>> {
        let write = |part: Range<usize>| self.report_with_retries(&reports[part], give_up);
        let answers = in_portions(&self.portion, reports.len(), write).await;
        let unavailable = answers.iter().filter_map(|answer| answer.as_ref().err());
        let mut unavailable = unavailable.filter(|error| error.is_transient());
        if let Some(error) = unavailable.next() {
            warn!(%error, reports = 1 + unavailable.count(), "reports are not taken");
        }
        let answer = |(answer, report): (Result<Reported, StoreError>, &OrderReport)| {
            answer.map_err(|error| {
                if !error.is_transient() {
                    error!(order_id = %report.order_id, %error, "a report is not taken");
                }
                ReportError::from(&error)
            })
        };
        answers.into_iter().zip(reports).map(answer).collect()
    }

    /// Only a set whose reports all have ids is written again after an answer got lost: of others nobody could tell
    /// whether they were applied.
    async fn report_with_retries(
        &self,
        reports: &[OrderReport],
        give_up: Instant,
    ) -> Result<Vec<Reported>, StoreError> {
        let mut backoff = Backoff::default();
        let may_repeat = reports.iter().all(|report| report.report.id.is_some());
        loop {
            match self.store.report(reports, &self.rules).await {
                Ok(answers) => {
                    self.tell(reports, &answers);
                    return Ok(answers);
                }
                Err(error @ StoreError::Timeout(_)) if may_repeat && Instant::now() < give_up => {
                    return Err(error);
                }
                Err(error)
                    if error.is_transient()
                        && may_repeat
                        && Instant::now() < give_up
                        && !self.hurry.is_cancelled() =>
                {
                    let pause = pause("writing reports", &mut backoff, &error);
                    self.hurry.run_until_cancelled(pause).await;
                }
                // Behind this one others wait, and it may have been written.
                Err(StoreError::Timeout(limit)) => {
                    self.portion.too_much(reports.len());
                    return Err(StoreError::Unavailable(StoreError::Timeout(limit).to_string()));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Followers, metrics and the scheduler's alarm hear of what was committed.
    fn tell(&self, reports: &[OrderReport], answers: &[Reported]) {
        let (mut changed, mut steps, mut next): (Vec<(OrderId, u32)>, Vec<Transition>, Option<Duration>) =
            Default::default();
        for (report, Reported { outcome, standing }) in reports.iter().zip(answers) {
            if let Some(result) = counted(outcome) {
                self.metrics.reported(report.report.event, result);
            }
            let (ReportOutcome::Applied(events, transitions), Some(standing)) = (outcome, standing) else {
                continue;
            };
            if let Some(reason) = cancelled_for(report) {
                self.metrics.cancelled(reason);
            }
            changed.extend(events.last().map(|last| (report.order_id, last.seq)));
            steps.extend(transitions);
            let wait = |due: Timestamp| (due - standing.now).to_std().unwrap_or_default();
            next = [next, standing.order.due_at.map(wait)].into_iter().flatten().min();
        }
        if !changed.is_empty() {
            self.transitions.reported(&changed, &steps, next);
        }
    }
}

/// Why this report cancels its order, if it does.
fn cancelled_for(OrderReport { report, .. }: &OrderReport) -> Option<Reason> {
    report.reason.filter(|_| report.event == EventKind::Reached(Status::Cancelled))
}

/// As what it is counted; not at all as long as nothing is decided.
fn counted(outcome: &ReportOutcome) -> Option<ReportResult> {
    match outcome {
        ReportOutcome::Applied(..) => Some(ReportResult::Applied),
        ReportOutcome::Replayed(_) | ReportOutcome::Ignored(_) => Some(ReportResult::Ignored),
        ReportOutcome::Refused(_)
        | ReportOutcome::Moved
        | ReportOutcome::IdReused
        | ReportOutcome::Unknown => Some(ReportResult::Refused),
        ReportOutcome::Contended => None,
    }
}
