//! Group commit of reports: all that wait at one moment are judged and stored together.

mod attempt;

use std::{collections::HashSet, ops::Range, sync::Arc, time::Duration};

use indexmap::IndexMap;
use tokio::{
    task::yield_now,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Outcome, pause};
use crate::{
    order::{EventKind, OrderId, Reason, Rules, Status, Timestamp, Transition},
    store::{OrderReport, OrderStore, Portion, ReportOutcome, Reported, StoreError, in_portions},
    telemetry::{
        RequestId,
        metrics::{Metrics, ReportResult, Step},
    },
    time::Backoff,
    tracker::{ReportBatch, ReportBatches, ReportError, Transitions},
};
use attempt::Attempt;

/// Most orders with reports in one transaction.
const REPORTED_AT_ONCE: usize = 512;
/// So many have paid for their commit: nobody else is waited for, or the database would have nothing to do meanwhile.
const ENOUGH: usize = 64;

/// How often a report is judged anew because somebody else was changing its order.
const ANEW: usize = 3;
/// Pauses before that.
const PAUSES: [Duration; ANEW] =
    [Duration::from_millis(5), Duration::from_millis(30), Duration::from_millis(150)];

/// Writes reports. Ends when every [`crate::tracker::ReportQueue`] is dropped and all are answered.
pub struct ReportWriter {
    batches: ReportBatches,
    store: Arc<dyn OrderStore>,
    rules: Rules,
    transitions: Arc<Transitions>,
    metrics: Arc<Metrics>,
    /// Cuts retries short.
    pub(super) hurry: CancellationToken,
    /// How many orders with reports the database takes in time.
    pub(super) portion: Portion,
    /// Those that are judged anew; nobody else waits for them.
    anew: Vec<OpenBatch>,
    /// What came last and had no place in the set any more: the first of the next one.
    next: Option<ReportBatch>,
}

/// Reports that are handed in together, some of which may have an answer already.
struct OpenBatch {
    batch: ReportBatch,
    answers: Vec<Option<Result<Reported, ReportError>>>,
    tries: usize,
    /// When they are judged again.
    due: Instant,
}

impl OpenBatch {
    fn new(batch: ReportBatch) -> Self {
        let answers = batch.reports.iter().map(|_| None).collect();
        Self { batch, answers, tries: 0, due: Instant::now() }
    }

    fn unanswered(&self) -> impl Iterator<Item = &OrderReport> {
        let both = self.batch.reports.iter().zip(&self.answers);
        both.filter(|(_, answer)| answer.is_none()).map(|(report, _)| report)
    }

    /// Takes the answers to those that have none. Those whose order somebody else was changing are asked again.
    fn answer(&mut self, answers: &mut impl Iterator<Item = Result<Reported, ReportError>>) {
        let contended = |answer: &Result<Reported, ReportError>| {
            answer.as_ref().is_ok_and(|reported| reported.outcome == ReportOutcome::Contended)
        };
        let again = self.tries < ANEW;
        for place in self.answers.iter_mut().filter(|answer| answer.is_none()) {
            *place = answers.next().filter(|answer| !(again && contended(answer)));
        }
        if let Some(pause) = PAUSES.get(self.tries) {
            self.due = Instant::now() + *pause;
        }
        self.tries += 1;
    }
}

impl ReportWriter {
    /// Judges what waits in `batches` by these rules and stores it; `hurry` cuts retries short.
    pub fn new(
        batches: ReportBatches,
        store: Arc<dyn OrderStore>,
        rules: Rules,
        transitions: Arc<Transitions>,
        metrics: Arc<Metrics>,
        hurry: CancellationToken,
    ) -> Self {
        let (portion, anew, next) = (Portion::new(REPORTED_AT_ONCE), Vec::new(), None);
        Self { batches, store, rules, transitions, metrics, hurry, portion, anew, next }
    }

    /// Works until there is nothing more to come.
    pub async fn run(mut self) {
        while self.step().await != Outcome::Finished {}
    }

    /// Waits for reports and stores all that wait.
    pub async fn step(&mut self) -> Outcome {
        let waiting = self.gather().await;
        if waiting.is_empty() {
            return Outcome::Finished;
        }
        // Whoever has given up waiting was told so; a report must not be applied after that.
        let awaited: Vec<OpenBatch> =
            waiting.into_iter().filter(|waiting| !waiting.batch.answer.is_closed()).collect();
        let reports: Vec<OrderReport> = awaited.iter().flat_map(OpenBatch::unanswered).cloned().collect();
        let asking = awaited.iter().filter_map(|waiting| waiting.batch.request).collect();
        let judging = self.report_until(&reports);
        let mut answers = RequestId::during_all(asking, judging).await.into_iter();
        for mut waiting in awaited {
            waiting.answer(&mut answers);
            if waiting.answers.iter().any(Option::is_none) {
                self.anew.push(waiting);
                continue;
            }
            self.metrics.step_done(Step::Report, waiting.batch.since.elapsed());
            // A caller that has left meanwhile finds what became of it by its report's id.
            drop(waiting.batch.answer.send(waiting.answers.into_iter().flatten().collect()));
        }
        Outcome::Worked(reports.len())
    }

    /// All that wait, and those that requests bring which are here already; none if nothing comes any more.
    async fn gather(&mut self) -> Vec<OpenBatch> {
        let most = self.portion.size();
        let mut gathered = Vec::new();
        let next_due = self.anew.iter().map(|waiting| waiting.due).min();
        let first = match (self.next.take(), next_due) {
            (Some(next), _) => Some(next),
            (None, Some(due)) => {
                timeout_at(due, self.batches.recv()).await.unwrap_or_else(|_| self.batches.try_recv().ok())
            }
            (None, None) => self.batches.recv().await,
        };
        if first.is_none()
            && let Some(due) = next_due
        {
            // Nothing new may come, but these have no answer yet.
            sleep_until(due).await;
        }
        let now = Instant::now();
        gathered.extend(self.anew.extract_if(.., |waiting| waiting.due <= now));
        gathered.extend(first.map(OpenBatch::new));
        let (mut count, mut looked) =
            (gathered.iter().map(|waiting| waiting.unanswered().count()).sum::<usize>(), false);
        while !gathered.is_empty() {
            let before = count;
            while count < most
                && self.next.is_none()
                && let Ok(batch) = self.batches.try_recv()
            {
                // The rest of it would be a set of its own, for which all others had to wait.
                if count + batch.reports.len() > most {
                    self.next = Some(batch);
                } else {
                    count += batch.reports.len();
                    gathered.push(OpenBatch::new(batch));
                }
            }
            if self.next.is_some() || count >= ENOUGH.min(most) || count == before && looked {
                break;
            }
            // Every handler that can run does, after a look at the sockets.
            yield_now().await;
            looked = true;
        }
        gathered
    }

    /// Reports of one order stay together and in their order, whatever becomes of others.
    async fn in_portions(
        &self,
        reports: &[OrderReport],
        attempt: &Attempt,
    ) -> Vec<Result<Reported, StoreError>> {
        let mut orders: IndexMap<OrderId, Vec<usize>> = IndexMap::new();
        for (at, report) in reports.iter().enumerate() {
            orders.entry(report.order_id).or_default().push(at);
        }
        let orders: Vec<Vec<usize>> = orders.into_values().collect();
        let write = |part: Range<usize>| self.write_orders(reports, &orders[part], attempt);
        let written = in_portions(&self.portion, orders.len(), write).await;
        let mut answers: Vec<Option<Result<Reported, StoreError>>> = reports.iter().map(|_| None).collect();
        for (places, written) in orders.iter().zip(written) {
            let mut written = written.map(Vec::into_iter);
            for at in places {
                answers[*at] = match &mut written {
                    Ok(written) => written.next().map(Ok),
                    Err(error) => Some(Err(error.clone())),
                };
            }
        }
        let unanswered = || Err(StoreError::Failed("nothing was answered for it".to_owned()));
        answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }

    /// Answers for each order what became of its reports.
    async fn write_orders(
        &self,
        reports: &[OrderReport],
        orders: &[Vec<usize>],
        attempt: &Attempt,
    ) -> Result<Vec<Vec<Reported>>, StoreError> {
        let set: Vec<OrderReport> = orders.iter().flatten().map(|at| reports[*at].clone()).collect();
        let mut written = self.report_with_retries(&set, attempt).await?.into_iter();
        Ok(orders.iter().map(|places| written.by_ref().take(places.len()).collect()).collect())
    }

    async fn report_until(&self, reports: &[OrderReport]) -> Vec<Result<Reported, ReportError>> {
        let attempt = Attempt::new();
        let mut answers = self.in_portions(reports, &attempt).await;
        // Those with ids may be written again without those that had none, but for what is of the same order as one of these.
        let failed = |at: &usize| answers[*at].as_ref().is_err_and(StoreError::is_transient);
        let not_known: HashSet<OrderId> = reports
            .iter()
            .filter(|report| report.report.id.is_none())
            .map(|report| report.order_id)
            .collect();
        let may_come_again = |at: &usize| !not_known.contains(&reports[*at].order_id);
        let again: Vec<usize> = (0..reports.len()).filter(failed).filter(may_come_again).collect();
        if again.len() < reports.len() && !again.is_empty() && attempt.may_go_on() {
            let set: Vec<OrderReport> = again.iter().map(|at| reports[*at].clone()).collect();
            for (at, answer) in again.into_iter().zip(self.in_portions(&set, &attempt).await) {
                answers[at] = answer;
            }
        }
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
        attempt: &Attempt,
    ) -> Result<Vec<Reported>, StoreError> {
        let mut backoff = Backoff::default();
        let may_repeat = reports.iter().all(|report| report.report.id.is_some());
        loop {
            let written = self.store.report_again(reports, &self.rules, attempt.in_doubt_since()).await;
            if written.as_ref().is_err_and(StoreError::is_transient) {
                attempt.doubt(reports);
            }
            let written = written.and_then(|answers| {
                if attempt.is_open(reports, &answers) {
                    return Err(StoreError::Unavailable(
                        "a write has not ended whose answer got lost".to_owned(),
                    ));
                }
                Ok(answers)
            });
            match written {
                Ok(mut answers) => {
                    for (report, reported) in reports.iter().zip(&mut answers) {
                        attempt.resolve(report, reported);
                    }
                    self.tell(reports, &answers);
                    return Ok(answers);
                }
                Err(error @ StoreError::Timeout(_)) if may_repeat && attempt.may_go_on() => {
                    return Err(error);
                }
                Err(error)
                    if error.is_transient()
                        && may_repeat
                        && attempt.may_go_on()
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
            if let ReportOutcome::Odd(why) = outcome {
                error!(order_id = %report.order_id, "a report is not taken: {why}; `order-tracker verify` finds all such orders");
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
        ReportOutcome::Replayed(..) | ReportOutcome::Ignored(_) => Some(ReportResult::Ignored),
        ReportOutcome::Refused(_)
        | ReportOutcome::Moved
        | ReportOutcome::NotForRole
        | ReportOutcome::IdReused
        | ReportOutcome::Unknown => Some(ReportResult::Refused),
        ReportOutcome::Contended | ReportOutcome::Odd(_) => None,
    }
}
