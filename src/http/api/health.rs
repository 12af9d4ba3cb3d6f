//! What operators and their machines ask: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{AppState, Problem, routes::TOLD_MORE};
use crate::{
    keys::{Auth, Caller},
    ops::{
        Operations,
        diagnosis::{State as PartState, diagnose},
    },
    telemetry::{
        health::Part,
        metrics::{self, Metrics},
    },
    tracker::Tracker,
};

/// The route of the metrics.
pub(in crate::http) const METRICS: &str = "/metrics";

/// The answer of a process that lives.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Liveness {
    #[schema(pattern = "^ok$")]
    status: &'static str,
}

/// Says that the process lives
///
/// Touches nothing else.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "operation",
    responses((status = 200, description = "It lives", body = Liveness))
)]
pub(in crate::http) async fn healthz() -> Json<Liveness> {
    Json(Liveness { status: "ok" })
}

/// Whether requests can be served here.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Readiness {
    /// `ok`, or `unavailable` while orders can't be placed or read here.
    #[schema(pattern = "^(ok|unavailable)$")]
    status: &'static str,
    /// Why requests can't be served here.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What else is wrong; orders are taken and answered all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = true, value_type = Vec<Degraded>)]
    degraded: Option<Vec<Degraded>>,
}

/// A part that does not do all of its work.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Degraded {
    /// `database`, `broker`, `relay`, `consumer`, `dead_letters`, `scheduler`, `events` or `keys`.
    part: &'static str,
    /// What is wrong.
    reason: String,
}

/// Says whether requests can be served here
///
/// 503 while the database can't be used, its schema is not there, no keys were read where they are asked for, or the service is
/// stopping. What else is wrong is
/// named in the body and does not make it 503: orders are taken and answered all the same.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "operation",
    responses(
        (status = 200, description = "Requests are served", body = Readiness),
        (status = 503, description = "No requests should be sent here", body = Readiness),
    )
)]
pub(in crate::http) async fn readyz(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let reason = state.operations.unavailable().await.or_else(|| unread(&state.settings.auth));
    let (code, status) = match reason {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let readiness = if caller.may(TOLD_MORE) {
        Readiness { status, reason, degraded: Some(degraded(&state.operations)) }
    } else {
        Readiness { status, reason: None, degraded: None }
    };
    (code, Json(readiness)).into_response()
}

/// As long as nobody's key is known nobody is served. Once they were read, not to read them again is degraded.
fn unread(auth: &Auth) -> Option<String> {
    match auth {
        Auth::Keys(ring) if !ring.is_read() => Some("the keys are not read yet".to_owned()),
        Auth::Open | Auth::Keys(_) => None,
    }
}

fn degraded(operations: &Operations) -> Vec<Degraded> {
    let reading = operations.overview.last();
    let figures = reading.as_ref().map(|reading| reading.figures());
    let lines = diagnose(figures.as_ref(), &operations.parts.read()).into_iter();
    let degraded = lines
        // What the ping says of the database is newer.
        .filter(|line| {
            line.state != PartState::Ok
                && (line.state, line.part) != (PartState::Down, Part::Database.as_str())
        })
        .map(|line| Degraded { part: line.part, reason: line.reason() });
    degraded.collect()
}

/// All metrics, in the Prometheus text format
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operation",
    responses((status = 200, description = "All series", body = String, content_type = metrics::CONTENT_TYPE))
)]
pub(in crate::http) async fn metrics(State(state): State<Arc<AppState>>) -> Result<Response, Problem> {
    rendered(&state.observers.metrics, &state.tracker)
}

/// The same wherever they are asked for.
pub(in crate::http) fn rendered(metrics: &Metrics, tracker: &Tracker) -> Result<Response, Problem> {
    metrics.event_streams(tracker.subscribers());
    let text = metrics.render().map_err(|error| {
        tracing::error!(%error, "metrics can't be rendered");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
