//! Those who report on orders that are there: one report at once, a hundred, or what is known already.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Result, ensure};
use order_tracker::{
    client::{Answer, ClientRequest, load::Scenario},
    order::{EventKind, OrderId, Status},
};

use crate::report::Row;

/// What is reported of all orders, one after the other; the last one from then on.
const LIFE: [EventKind; 6] = [
    EventKind::Reached(Status::Preparing),
    EventKind::CourierAssigned,
    EventKind::Reached(Status::Cooking),
    EventKind::Ready,
    EventKind::Reached(Status::OutForDelivery),
    EventKind::CourierAtDoor,
];
/// Reports of a batch.
const BATCH: u64 = 100;

/// How they report.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Way {
    /// One at once.
    Single,
    /// The same with an id of its own.
    WithId,
    /// A hundred at once.
    Batch,
    /// The first step again and again.
    Known,
}

/// Reports on orders that were placed before and go on by themselves much later.
pub(crate) struct Reporters {
    way: Way,
    ids: Vec<OrderId>,
    answers: AtomicU64,
    counted: AtomicU64,
}

impl Reporters {
    pub(crate) fn new(way: Way, ids: Vec<OrderId>) -> Self {
        Self { way, ids, answers: AtomicU64::new(0), counted: AtomicU64::new(0) }
    }

    /// On how many orders something was reported.
    pub(crate) fn reached(&self) -> usize {
        let reports = self.answers.load(Ordering::Relaxed) * self.reports();
        usize::try_from(reports).map_or(self.ids.len(), |reports| reports.min(self.ids.len()))
    }

    fn reports(&self) -> u64 {
        if self.way == Way::Batch { BATCH } else { 1 }
    }

    /// The fields of the n-th report.
    fn report(&self, n: u64, body: &mut String) {
        let round = usize::try_from(n / self.ids.len() as u64).unwrap_or(usize::MAX);
        let event = if self.way == Way::Known { LIFE[0] } else { LIFE[round.min(LIFE.len() - 1)] };
        // Writing to a string never fails.
        let _ = write!(body, "{{\"event\":\"{event}\",\"source\":\"kitchen\"");
        if self.way == Way::WithId {
            let _ = write!(body, ",\"id\":\"bench-{n}\"");
        }
    }

    fn id(&self, n: u64) -> OrderId {
        let at = n % self.ids.len() as u64;
        self.ids[usize::try_from(at).expect("an index")]
    }

    /// Makes the row one of reports with the fate that was asked for: whatever else they met is not counted.
    pub(crate) fn settle(&self, row: &mut Row, quick: bool) -> Result<()> {
        let (answers, counted) = (self.answers.load(Ordering::Relaxed), self.counted.load(Ordering::Relaxed));
        let all = answers * self.reports();
        ensure!(counted > 0, "{}: none of {all} reports met what it should", row.name);
        // With few orders one report overtakes another; else that hardly ever happens.
        ensure!(quick || counted * 100 >= all * 99, "{}: only {counted} of {all} reports count", row.name);
        let each = counted as f64 / answers as f64;
        row.rate *= each;
        for cpu in [&mut row.service_cpu, &mut row.database_cpu] {
            *cpu = cpu.map(|seconds| seconds / each);
        }
        Ok(())
    }
}

impl Scenario for Reporters {
    fn ask(&self, n: u64) -> ClientRequest {
        let mut body = String::new();
        if self.way != Way::Batch {
            self.report(n, &mut body);
            body.push('}');
            return ClientRequest::post(format!("/orders/{}/events", self.id(n)), body);
        }
        for n in n * BATCH..(n + 1) * BATCH {
            body.push(if body.is_empty() { '[' } else { ',' });
            self.report(n, &mut body);
            let _ = write!(body, ",\"order_id\":\"{}\"}}", self.id(n));
        }
        body.push(']');
        ClientRequest::post("/events", body)
    }

    fn answered(&self, _due: Instant, answer: &Answer) {
        let fate = if self.way == Way::Known { "\"outcome\":\"ignored\"" } else { "\"outcome\":\"applied\"" };
        let met = std::str::from_utf8(&answer.body).map_or(0, |body| body.matches(fate).count());
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.counted.fetch_add(met as u64, Ordering::Relaxed);
    }
}
