//! `POST /events`: up to a hundred reports at once, each with a fate of its own.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{FromRequestParts, OriginalUri, State},
    http::{HeaderMap, header, request::Parts},
};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

use super::{
    super::{AppState, Problem, ProblemBody},
    body::JsonBytes,
    orders,
    reports::{Outcome, Taken, for_its_role},
};
use crate::{
    keys::Caller,
    order::{
        FieldCode, Ignored, ReportItem,
        promises::{BATCHES_AT_ONCE, BATCHES_READ_AT_ONCE, MAX_BATCH, MAX_BATCH_BYTES},
    },
    telemetry::RequestId,
    tracker::{OrderReport, ReportError},
};

/// How many batches may be under way at once: a batch is large, and so is what is made of it.
#[derive(Debug)]
pub struct BatchPlaces {
    /// More may be read: who sends slowly takes no place from those who have sent.
    read: Arc<Semaphore>,
    taken: Semaphore,
}

impl Default for BatchPlaces {
    fn default() -> Self {
        Self { read: Arc::new(Semaphore::new(BATCHES_READ_AT_ONCE)), taken: Semaphore::new(BATCHES_AT_ONCE) }
    }
}

/// A batch is read until this is dropped.
pub(in crate::http) struct ReadingPlace {
    _held: OwnedSemaphorePermit,
}

fn too_many<T>(_: T) -> Problem {
    Problem::unavailable("too many batches are under way; try again shortly")
}

impl FromRequestParts<Arc<AppState>> for ReadingPlace {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        let held = Arc::clone(&state.batches.read).try_acquire_owned().map_err(too_many)?;
        Ok(Self { _held: held })
    }
}

/// What became of one report of a batch.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum ReportFate {
    /// It was taken.
    Taken(TakenReport),
    /// It was not.
    Refused(RefusedReport),
}

/// A report of a batch that contradicts nothing.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct TakenReport {
    /// As it was sent.
    #[schema(required)]
    order_id: Option<String>,
    /// As it was sent.
    #[schema(required)]
    id: Option<String>,
    /// What it would have been answered alone: 201 if it was applied, 200 if it was ignored.
    #[schema(minimum = 200, maximum = 201)]
    status: u16,
    outcome: Outcome,
    /// Why it was ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Ignored, required = false)]
    why: Option<Ignored>,
    /// There, and `true`, if its `id` was applied before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    replayed: bool,
}

/// A report of a batch that was refused.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct RefusedReport {
    /// As it was sent.
    #[schema(required)]
    order_id: Option<String>,
    /// As it was sent.
    #[schema(required)]
    id: Option<String>,
    /// What it would have been answered alone.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    problem: ProblemBody,
}

/// An item that was read, under the names that it was sent with.
struct Item {
    order_id: Option<String>,
    id: Option<String>,
    /// What is to be handed in; `None` once it is.
    report: Result<Option<OrderReport>, Problem>,
}

/// Reports what happened to several orders
///
/// Each report has a fate of its own, in the order given: a later one of the same order sees what those before it have
/// done. If the whole is answered 503 some may be written all the same: send each with an `id`, and repeat.
#[utoipa::path(
    post, path = "/events", operation_id = "report_events", tag = "orders",
    request_body(content = Vec<ReportItem>, description = "1 to 100 reports, up to 256 KiB."),
    responses(
        (status = 200, description = "What became of each, in the same order", body = Vec<ReportFate>),
        (status = 400, description = "It is no array of 1 to 100, or there is an `If-Match`"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The content type is not JSON, or the body is compressed"),
    )
)]
pub(in crate::http) async fn report(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    _reading: ReadingPlace,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes<MAX_BATCH_BYTES>,
) -> Result<Json<Vec<ReportFate>>, Problem> {
    let mut items = read(&state, &caller, &headers, &body)?;
    let _taken = state.batches.taken.try_acquire().map_err(too_many)?;
    let reports: Vec<OrderReport> =
        items.iter_mut().filter_map(|item| item.report.as_mut().ok()?.take()).collect();
    let answers = if reports.is_empty() { Vec::new() } else { state.tracker.report(reports).await? };
    // Who repeats the whole learns what is written from the ids.
    if answers.iter().any(|answer| answer.as_ref().is_err_and(|error| *error == ReportError::Unavailable)) {
        return Err(ReportError::Unavailable.into());
    }
    let mut answers = answers.into_iter();
    let fate = |Item { order_id, id, report }: Item| {
        let taken = report.and_then(|_| {
            let reported = answers.next().ok_or_else(Problem::internal)??;
            Taken::new(reported, caller.sight())
        });
        match taken {
            Ok(taken) => ReportFate::Taken(TakenReport {
                order_id,
                id,
                status: taken.status().as_u16(),
                outcome: taken.answer.outcome,
                why: taken.answer.why,
                replayed: taken.replayed,
            }),
            Err(problem) => {
                let request = RequestId::current().unwrap_or_else(RequestId::random);
                let problem = problem.told(uri.path(), &request);
                ReportFate::Refused(RefusedReport { order_id, id, status: problem.status, problem })
            }
        }
    };
    Ok(Json(items.into_iter().map(fate).collect()))
}

fn read(state: &AppState, caller: &Caller, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Item>, Problem> {
    if headers.contains_key(header::IF_MATCH) {
        let message = "must not be sent with several reports: each order has positions of its own";
        return Err(Problem::invalid_value("If-Match", FieldCode::Header, message));
    }
    let items =
        ReportItem::parse_all(body).map_err(|error| Problem::malformed(format!("the body: {error}")))?;
    if !(1..=MAX_BATCH).contains(&items.len()) {
        let detail =
            format!("the body must be an array of 1 to {MAX_BATCH} reports, and has {}", items.len());
        return Err(Problem::malformed(detail));
    }
    let (now, reporter) = (state.settings.clock.now(), caller.reporter());
    let read = |item: Result<ReportItem, serde_json::Error>| {
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                let report = Err(Problem::malformed(format!("the report: {error}")));
                return Item { order_id: None, id: None, report };
            }
        };
        let [order_id, id] = [item.order_id(), item.id()].map(|text| text.map(str::to_owned));
        let report =
            item.check(reporter.as_ref(), now).map_err(Problem::from).and_then(|(order_id, report)| {
                let report = for_its_role(report)?;
                let order_id = order_id.map_err(|_| orders::unknown())?;
                Ok(Some(OrderReport { order_id, report, if_match: None }))
            });
        Item { order_id, id, report }
    };
    Ok(items.into_iter().map(read).collect())
}
