//! What operators and their machines ask: `/healthz`, `/readyz`, `/metrics`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{AppState, Problem};
use crate::{
    ops::overview::{PROGRESS_MAY_LAG, Reading},
    order::{Backlog, LateSteps, Timestamp},
    telemetry::{
        health::{Health, Part, PartsHealth},
        metrics,
    },
    tracker::StoreError,
};

/// An unsent order older than this means that the relay is behind.
pub(in crate::http) const RELAY_MAY_LAG: Duration = Duration::from_secs(10);

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
    degraded: Vec<Degraded>,
}

/// A part that does not do all of its work.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Degraded {
    /// `database`, `broker`, `relay`, `consumer`, `dead_letters` or `scheduler`.
    part: &'static str,
    /// What is wrong.
    reason: String,
}

/// Says whether requests can be served here
///
/// 503 while the database can't be used, its schema is not there or the service is stopping. What else is wrong is
/// named in the body and does not make it 503: orders are taken and answered all the same.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "operation",
    responses(
        (status = 200, description = "Requests are served", body = Readiness),
        (status = 503, description = "No requests should be sent here", body = Readiness),
    )
)]
pub(in crate::http) async fn readyz(State(state): State<Arc<AppState>>) -> Response {
    let operations = &state.operations;
    let reason = operations.unavailable().await;
    let lines = report(operations.overview.last().as_deref(), &operations.parts.read());
    let degraded = lines.into_iter().filter_map(|(part, line)| match line {
        // What the ping says of the database is newer.
        Line::Down(_) if part == Part::Database => None,
        Line::Degraded(reason) | Line::Down(reason) => Some(Degraded { part: part.as_str(), reason }),
        Line::Ok(_) => None,
    });
    let (code, status) = match reason {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    (code, Json(Readiness { status, reason, degraded: degraded.collect() })).into_response()
}

/// What is to be said of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) enum Line {
    /// It does its work.
    Ok(String),
    /// It works, but not for all.
    Degraded(String),
    /// It can't do its work.
    Down(String),
}

/// Every part and its line.
pub(in crate::http) type Report = [(Part, Line); Part::ALL.len()];

/// Judges every part.
pub(in crate::http) fn report(reading: Option<&Reading>, conditions: &PartsHealth) -> Report {
    // Why there are none is told of the database, once.
    let figures = reading.filter(|reading| reading.away.is_none());
    Part::ALL.map(|part| {
        let line = match part {
            Part::Database => database(reading),
            Part::Broker => told(&conditions.broker, "not reached yet"),
            Part::Relay => judge(&conditions.relay, figures.map(|reading| &reading.backlog), relay),
            Part::Consumer => told(&conditions.consumer, "has not read the topic yet"),
            Part::DeadLetters => dead_letters(&conditions.dead_letters),
            Part::Scheduler => {
                judge(&conditions.scheduler, figures.map(|reading| &reading.overdue), scheduler)
            }
        };
        (part, line)
    })
}

/// What a part says of itself.
fn told(condition: &Health, not_yet: &str) -> Line {
    match condition {
        Health::Up => Line::Ok("ok".to_owned()),
        Health::Unknown => Line::Down(not_yet.to_owned()),
        Health::Degraded(reason) => Line::Degraded(reason.clone()),
        Health::Down(reason) => Line::Down(reason.clone()),
    }
}

fn dead_letters(condition: &Health) -> Line {
    match condition {
        // They are looked at while the broker is up, and it speaks for itself.
        Health::Unknown => Line::Ok("not looked at".to_owned()),
        condition => told(condition, ""),
    }
}

fn database(reading: Option<&Reading>) -> Line {
    match reading {
        None => Line::Degraded("not read yet".to_owned()),
        Some(reading) if !reading.is_fresh() => {
            Line::Degraded(format!("last read {} s ago", reading.at.elapsed().as_secs()))
        }
        Some(Reading { away: Some(error), .. }) => Line::Down(error.to_string()),
        Some(reading) => match reading.trouble() {
            Some(error) => Line::Degraded(format!("not all figures can be read: {error}")),
            None => Line::Ok("ok".to_owned()),
        },
    }
}

/// What its figures say of a part, unless it says something of itself.
fn judge<T>(condition: &Health, figures: Option<&Result<T, StoreError>>, line: impl Fn(&T) -> Line) -> Line {
    match (condition, figures) {
        (Health::Degraded(reason), _) => Line::Degraded(reason.clone()),
        (Health::Down(reason), _) => Line::Down(reason.clone()),
        (_, Some(Ok(figures))) => line(figures),
        (_, Some(Err(error))) => Line::Degraded(format!("not known: {error}")),
        (_, None) => Line::Degraded("not known without the database".to_owned()),
    }
}

fn relay(backlog: &Backlog) -> Line {
    let Backlog { unsent, oldest_unsent_age: age, since, .. } = backlog;
    let line = format!("{unsent} orders unsent, the oldest for {:.1} s", age.as_secs_f64());
    if let Some(since) = since {
        return Line::Degraded(format!(
            "{line}; of orders placed before {} that is not known",
            shown(*since)
        ));
    }
    if *age > RELAY_MAY_LAG { Line::Degraded(line) } else { Line::Ok(format!("ok, {line}")) }
}

fn scheduler(late: &LateSteps) -> Line {
    let line = format!("the most overdue step is {:.1} s late", late.most.as_secs_f64());
    match late.since {
        Some(since) if late.known().is_none() => {
            Line::Degraded(format!("whether steps due before {} are late is not known", shown(since)))
        }
        Some(since) => {
            Line::Degraded(format!("{line}; of steps due before {} that is not known", shown(since)))
        }
        None if late.most > PROGRESS_MAY_LAG => Line::Degraded(line),
        None => Line::Ok(format!("ok, {line}")),
    }
}

/// A moment in a line for people and machines.
pub(in crate::http) fn shown(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// All metrics, in the Prometheus text format
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operation",
    responses((status = 200, description = "All series", body = String, content_type = metrics::CONTENT_TYPE))
)]
pub(in crate::http) async fn metrics(State(state): State<Arc<AppState>>) -> Result<Response, Problem> {
    let metrics = &state.observers.metrics;
    metrics.event_streams(state.tracker.subscribers());
    let text = metrics.render().map_err(|error| {
        tracing::error!(%error, "metrics can't be rendered");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
