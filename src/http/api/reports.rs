//! `POST /orders/{id}/events`: what somebody reports of an order.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{AppState, Problem},
    body::JsonBytes,
    events::TimelineEvent,
    orders::{self, IDEMPOTENCY_REPLAYED},
    tags,
};
use crate::{
    keys::Caller,
    order::{EventKind, Ignored, Order, OrderId, Report, ReportErrors, ReportRequest, Role, Shown, Sight},
    tracker::{OrderReport, ReportOutcome, Reported},
};

/// What became of a report that contradicts nothing.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ReportOutcome)]
pub(super) enum Outcome {
    /// It happened.
    Applied,
    /// It says nothing new: nothing was written.
    Ignored,
}

/// What became of a report, and how its order is since.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct ReportAnswer {
    pub(super) outcome: Outcome,
    /// Why it was ignored: `same`, it was so already; `late`, the order is beyond it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Ignored, required = false)]
    pub(super) why: Option<Ignored>,
    /// What was added: the reported event last, before it what was skipped.
    events: Vec<TimelineEvent>,
    #[schema(value_type = Order)]
    order: Shown<Order>,
    /// What may be reported now and would be applied.
    allowed: Vec<EventKind>,
}

/// A report that was taken, now or before.
pub(super) struct Taken {
    pub(super) answer: ReportAnswer,
    /// Its id had been applied before.
    pub(super) replayed: bool,
}

impl Taken {
    pub(super) fn status(&self) -> StatusCode {
        match self.answer.outcome {
            Outcome::Applied => StatusCode::CREATED,
            Outcome::Ignored => StatusCode::OK,
        }
    }
}

impl Taken {
    /// What is answered whom sees so much of people.
    pub(super) fn new(Reported { outcome, standing }: Reported, sight: Sight) -> Result<Self, Problem> {
        // How the order is now is not known of every outcome.
        let standing = standing.ok_or_else(Problem::internal);
        let (outcome, why, events, replayed) = match outcome {
            ReportOutcome::Applied(events, _) => (Outcome::Applied, None, events, false),
            ReportOutcome::Replayed(events, _) => (Outcome::Applied, None, events, true),
            ReportOutcome::Ignored(why) => (Outcome::Ignored, Some(why), Vec::new(), false),
            ReportOutcome::Refused(conflict) => return Err(Problem::conflict(conflict, standing?.allowed)),
            ReportOutcome::Moved => return Err(Problem::moved(standing?.seq)),
            ReportOutcome::NotForRole => {
                let detail =
                    "this key's role may not report that of this order: others have made the step, or begun";
                return Err(Problem::not_for_this_role(detail));
            }
            ReportOutcome::IdReused => return Err(Problem::report_id_reused()),
            ReportOutcome::Unknown => return Err(orders::unknown()),
            ReportOutcome::Odd(_) => return Err(Problem::internal()),
            ReportOutcome::Contended => {
                let detail = "others change the order at this moment, again and again; try again shortly";
                return Err(Problem::unavailable(detail));
            }
        };
        let (events, standing) = (events.into_iter(), standing?);
        let events = events.map(|event| TimelineEvent::new(event, sight)).collect();
        let (order, allowed) = (Shown::new(standing.order, sight), standing.allowed);
        let answer = ReportAnswer { outcome, why, events, order, allowed };
        Ok(Self { answer, replayed })
    }
}

/// Reports what happened to an order
///
/// Adds an event to its timeline. What is known already, or came too late, is ignored and answered 200; what contradicts
/// the order is refused, with what may be reported instead. Safe to repeat with an `id`.
#[utoipa::path(
    post, path = "/orders/{id}/events", operation_id = "report_event", tag = "orders",
    params(
        ("id" = OrderId, Path, description = "The id that the order was given"),
        ("If-Match" = String, Header,
            description = "`ETag`s of the order, weak or strong: report only if it is still at one of them; `*` is any",
            pattern = r#"^(?:\*|(?:W/)?"[!#-~]*"(?:[ \t]*,[ \t]*(?:W/)?"[!#-~]*")*)$"#),
    ),
    request_body(content = ReportRequest,
        description = "Up to 16 KiB; fields that the event has no use for, and unknown ones, are ignored."),
    responses(
        (status = 200, description = "Nothing new: nothing was written", body = ReportAnswer),
        (status = 201, description = "It is in the timeline", body = ReportAnswer,
            headers(("Idempotency-Replayed" = String,
                description = "`true` if this `id` was applied before: `outcome` and `events` as then, all else as it is now"))),
        (status = 400, description = "The body or `If-Match` is not valid"),
        (status = 404, description = "No order has this id"),
        (status = 409, description = "It contradicts the order; `allowed` tells what would be applied now"),
        (status = 412, description = "The order is not where `If-Match` says"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The content type is not JSON, or the body is compressed"),
        (status = 422, description = "This `id` stands for another report of the order"),
    )
)]
pub(in crate::http) async fn report(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    order_id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let request =
        ReportRequest::parse(&body).map_err(|error| Problem::malformed(format!("the body: {error}")))?;
    let report = request.check(caller.reporter().as_ref(), state.settings.clock.now());
    let (if_match, report) = match (tags::if_match(&headers), report) {
        (Ok(if_match), Ok(report)) => (if_match, report),
        (if_match, checked) => {
            let others = checked.err().map(|ReportErrors(errors)| errors).unwrap_or_default();
            return Err(Problem::invalid(if_match.err().into_iter().chain(others).collect()));
        }
    };
    let report = for_its_role(report)?;
    let order_id = orders::order_id(order_id)?;
    let answers = state.tracker.report(vec![OrderReport { order_id, report, if_match }]).await?;
    let reported = answers.into_iter().next().ok_or_else(Problem::internal)??;
    let taken = Taken::new(reported, caller.sight())?;
    let (status, replayed) = (taken.status(), taken.replayed);
    let mut response = (status, Json(taken.answer)).into_response();
    if replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A report that its role may make; whatever the order, so it is not even looked for.
pub(super) fn for_its_role(report: Report) -> Result<Report, Problem> {
    if report.is_for_its_role() {
        return Ok(report);
    }
    let role = report.role.map_or("", Role::as_str);
    let reason = report.reason.map(|reason| format!(" as {reason}")).unwrap_or_default();
    Err(Problem::not_for_this_role(format!("a key of role {role} may not report {}{reason}", report.event)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of an order that others change nothing is known, and that is no reason to say that there is none.
    #[test]
    fn what_is_not_decided_may_be_tried_again() {
        let reported = |outcome| Taken::new(Reported { outcome, standing: None }, Sight::WHOLE);
        for (outcome, status) in [
            (ReportOutcome::Contended, StatusCode::SERVICE_UNAVAILABLE),
            (ReportOutcome::Unknown, StatusCode::NOT_FOUND),
            (ReportOutcome::IdReused, StatusCode::UNPROCESSABLE_ENTITY),
        ] {
            let problem = reported(outcome).err().expect("a problem");
            assert_eq!(problem.into_response().status(), status);
        }
    }
}
