//! Where reports are handed in, one or up to a hundred at once, and wait for the report writer. Bounded; when it is full
//! the answer is "busy", at once.

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{
    order::promises::REPORT_QUEUE as CAPACITY,
    store::{OrderReport, Reported, StoreError},
    telemetry::RequestId,
    time::deadlines::QUEUE as PATIENCE,
};

/// Reports handed in together.
#[derive(Debug)]
pub struct ReportBatch {
    /// What is reported, each with a fate of its own.
    pub reports: Vec<OrderReport>,
    /// The request that handed them in, if one did.
    pub request: Option<RequestId>,
    /// When they were handed in.
    pub since: Instant,
    /// Where the answers go, in the order of the reports; closed when nobody waits for them any more.
    pub answer: oneshot::Sender<ReportAnswers>,
}

/// What became of each report.
pub type ReportAnswers = Vec<Result<Reported, ReportError>>;

/// Why nothing is known to have become of a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Too many wait already; nothing was written.
    #[error("too many reports are waiting to be written")]
    Busy,
    /// The service is stopping; nothing was written.
    #[error("the service is stopping")]
    Closed,
    /// The database is away; nothing was written, as far as can be known.
    #[error("the database is unavailable")]
    Unavailable,
    /// No answer in time; the report may still be written.
    #[error("the report was not written in time")]
    TooSlow,
    /// The database refuses this report.
    #[error("the database refused the report: {0}")]
    Refused(String),
}

impl From<&StoreError> for ReportError {
    fn from(error: &StoreError) -> Self {
        if error.is_transient() { Self::Unavailable } else { Self::Refused(error.to_string()) }
    }
}

/// The writer's end of the queue.
pub type ReportBatches = mpsc::Receiver<ReportBatch>;

/// Makes a queue and the writer's end of it.
pub fn report_queue() -> (ReportQueue, ReportBatches) {
    let (batches, waiting) = mpsc::channel(CAPACITY);
    (ReportQueue { batches }, waiting)
}

/// The reporters' side. The writer ends when the last copy is dropped.
#[derive(Debug, Clone)]
pub struct ReportQueue {
    batches: mpsc::Sender<ReportBatch>,
}

impl ReportQueue {
    /// Hands reports in and waits until each has its fate; an error is that of all.
    pub async fn report(&self, reports: Vec<OrderReport>) -> Result<ReportAnswers, ReportError> {
        let (answer, answers) = oneshot::channel();
        let batch = ReportBatch { reports, request: RequestId::current(), since: Instant::now(), answer };
        self.batches.try_send(batch).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReportError::Busy,
            mpsc::error::TrySendError::Closed(_) => ReportError::Closed,
        })?;
        match timeout(PATIENCE, answers).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(_)) => Err(ReportError::Closed),
            Err(_) => Err(ReportError::TooSlow),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_come_in_the_order_of_the_reports() {
        let (queue, mut waiting) = report_queue();
        let work = async {
            let batch = waiting.recv().await.expect("one");
            assert!(batch.reports.is_empty() && batch.request.is_none());
            let answers = vec![Err(ReportError::Unavailable), Err(ReportError::Refused("no".to_owned()))];
            batch.answer.send(answers).expect("is waited for");
        };
        let (answers, ()) = tokio::join!(queue.report(Vec::new()), work);
        let answers = answers.expect("answers");
        assert_eq!(answers[0], Err(ReportError::Unavailable));
        assert_eq!(answers[1], Err(ReportError::Refused("no".to_owned())));
    }

    /// Promise 5: memory, queues and time are bounded.
    #[tokio::test(start_paused = true)]
    async fn a_full_queue_is_busy_at_once() {
        let (queue, mut waiting) = report_queue();
        let mut handed_in: Vec<_> = (0..CAPACITY).map(|_| Box::pin(queue.report(Vec::new()))).collect();
        for report in &mut handed_in {
            assert!(report.as_mut().now_or_never().is_none());
        }
        assert_eq!(queue.report(Vec::new()).await, Err(ReportError::Busy));
        waiting.recv().await.expect("one");
        assert!(queue.report(Vec::new()).now_or_never().is_none(), "there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_answered_in_time_is_told_so() {
        let (queue, mut waiting) = report_queue();
        let begun = Instant::now();
        assert_eq!(queue.report(Vec::new()).await, Err(ReportError::TooSlow));
        assert_eq!(begun.elapsed(), PATIENCE);
        assert!(waiting.recv().await.expect("one").answer.is_closed(), "and the writer that nobody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_has_gone_is_told() {
        let (queue, mut waiting) = report_queue();
        let leave = async { drop(waiting.recv().await) };
        let (answer, ()) = tokio::join!(queue.report(Vec::new()), leave);
        assert_eq!(answer, Err(ReportError::Closed), "it went without an answer");
        drop(waiting);
        assert_eq!(queue.report(Vec::new()).await, Err(ReportError::Closed));
    }
}
