//! Why things stand as they do, and what a person may do about it: one pure function of the figures, of what the
//! parts say of themselves, and of one order's row. Board, `/readyz` and `order explain` show what is said here.

mod order;
mod parts;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    order::{Backlog, EventKind, LateSteps, Status, Timestamp, rfc3339_millis, schema},
    store::StoreError,
    telemetry::health::PartsHealth,
};

pub use order::{ON_ITS_WAY, explain};
pub use parts::{PartLine, State, diagnose, late, unread, unsent};

/// What is wrong, or why nothing happens yet. The words are stable; more may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CauseCode {
    /// The database can't be asked at all.
    DatabaseUnreachable,
    /// A figure can't be read, or not all of it.
    FiguresUnknown,
    /// The service has only just started, and this part has not been heard of.
    NotKnownYet,
    /// The broker does not answer.
    BrokerAway,
    /// Partitions of the topic take no orders.
    PartitionAway,
    /// The broker refuses orders.
    OrderRefused,
    /// The relay can't publish, or an outbox row can't be cleared.
    RelayDegraded,
    /// Orders wait to be published for too long, and this replica knows of nothing that holds them up.
    RelayBehind,
    /// This replica can't make steps.
    SchedulerDown,
    /// More steps are due than are made.
    SchedulerBehind,
    /// An order can't be moved.
    OrderHeld,
    /// A step is late, and this replica passes over it.
    OrderPassedOver,
    /// The topic is not read, or not all of it.
    ConsumerDown,
    /// The dead-letter topic can't be used.
    DeadLettersUnusable,
    /// Events wait for their topic.
    EventsBehind,
    /// Which keys are good can't be read, or when they were last used can't be noted.
    KeysNotRead,
    /// What is stored of the order can't have happened.
    TimelineBroken,
    /// The order's stage is not over yet.
    StageNotOver,
    /// People move the order, and its stage is not over yet.
    ReportAwaited,
    /// People move the order, and nobody has reported the next step in time.
    ReportLate,
    /// The step is due and is being made.
    StepDue,
    /// The order is in a status that nothing follows.
    Finished,
}

/// One cause: what was seen, and what a person may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// A stable word for programs.
    pub code: CauseCode,
    /// What was seen, without a full stop.
    pub what: String,
    /// The person's next step, in whole sentences.
    pub remedy: String,
}

impl Cause {
    fn new(code: CauseCode, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, what: what.into(), remedy: remedy.into() }
    }

    /// What was seen and what to do, in whole sentences.
    pub fn text(&self) -> String {
        sentences(std::slice::from_ref(self))
    }
}

/// All causes in whole sentences: first what was seen, then what to do, each thing once.
pub fn sentences(causes: &[Cause]) -> String {
    let seen: Vec<&str> = causes.iter().map(|cause| first_line(&cause.what)).collect();
    let mut text = format!("{}.", seen.join(", and "));
    for (n, cause) in causes.iter().enumerate() {
        if causes[..n].iter().all(|before| before.remedy != cause.remedy) {
            text.push(' ');
            text.push_str(&cause.remedy);
        }
    }
    text
}

/// The first line: whoever is quoted may say more than fits.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_end_matches('.')
}

/// What was read of the whole database.
#[derive(Debug, Clone)]
pub struct Figures<'a> {
    /// How long ago, if that is too long to say anything of now.
    pub stale: Option<Duration>,
    /// Why the database can't be asked at all.
    pub away: Option<&'a StoreError>,
    /// What waits to be published.
    pub backlog: Result<&'a Backlog, &'a StoreError>,
    /// Which steps are late.
    pub overdue: Result<&'a LateSteps, &'a StoreError>,
    /// The first figure that could not be read.
    pub unread: Option<&'a StoreError>,
}

/// Why one order stands where it stands, and what may be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Explanation {
    /// Where the order is.
    pub status: Status,
    /// Since when.
    #[serde(serialize_with = "rfc3339_millis")]
    #[schema(schema_with = schema::timestamp)]
    pub since: Timestamp,
    /// What has to happen next; null once nothing follows.
    #[schema(required)]
    pub waits_for: Option<Status>,
    /// Why that has not happened, and what else is wrong with this order; there is at least one.
    #[schema(min_items = 1)]
    pub causes: Vec<ExplainedCause>,
    /// What may be reported now and would be applied.
    pub allowed: Vec<EventKind>,
}

/// A cause for programs and people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExplainedCause {
    /// A stable word for programs.
    pub code: CauseCode,
    /// What it is and what to do, for people.
    pub text: String,
}

impl From<Cause> for ExplainedCause {
    fn from(cause: Cause) -> Self {
        Self { code: cause.code, text: cause.text() }
    }
}

/// A moment in a line for people and machines.
pub fn shown(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
