//! What operators and their machines ask: `/healthz`, `/readyz`, `/metrics`.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{AppState, Problem};
use crate::{health::Condition, metrics, store::Backlog};

/// An unsent order older than this means that the relay is behind.
pub(super) const RELAY_MAY_LAG: Duration = Duration::from_secs(10);
/// A step later than this means that the progress loop is behind; promised are 2 s.
pub(super) const PROGRESS_MAY_LAG: Duration = Duration::from_secs(2);

/// The answer of a process that lives.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(pattern = "^ok$")]
    status: &'static str,
}

/// Says that the process lives
///
/// Touches nothing else.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "operation",
    responses((status = 200, description = "It lives", body = Health))
)]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Says which part is up
///
/// A line per part: database, broker, relay, progress.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "operation",
    responses(
        (status = 200, description = "All parts do their work", body = String),
        (status = 503, description = "A part can't do its work", body = String),
    )
)]
pub(super) async fn readyz(State(state): State<Arc<AppState>>) -> Response {
    let backlog = state.store.backlog().await.map_err(|error| error.to_string());
    let lines = report(&backlog, &state.broker.borrow());
    let status = if lines.iter().all(|(_, line)| line.is_ok()) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let text = lines.iter().fold(String::new(), |mut text, (part, line)| {
        let _ = match line {
            Ok(line) => writeln!(text, "{part}: {line}"),
            Err(line) => writeln!(text, "{part}: DOWN, {}", line.lines().next().unwrap_or_default()),
        };
        text
    });
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// What is to be said of a part; an error if it can't do its work.
type Line = Result<String, String>;

/// Every part and its line.
pub(super) type Report = [(&'static str, Line); 4];

/// Judges every part.
pub(super) fn report(backlog: &Result<Backlog, String>, broker: &Condition) -> Report {
    let broker = match broker {
        Condition::Up => Ok("ok".to_owned()),
        Condition::Unknown => Err("not reached yet".to_owned()),
        Condition::Down(reason) => Err(reason.clone()),
    };
    [
        ("database", backlog.as_ref().map(|_| "ok".to_owned()).map_err(Clone::clone)),
        ("broker", broker),
        ("relay", judge(backlog, relay)),
        ("progress", judge(backlog, progress)),
    ]
}

fn judge(backlog: &Result<Backlog, String>, line: impl Fn(&Backlog) -> Line) -> Line {
    backlog.as_ref().map_err(|_| "not known without the database".to_owned()).and_then(line)
}

fn relay(backlog: &Backlog) -> Line {
    let Backlog { unsent, oldest_unsent_age: age, .. } = backlog;
    let line = format!("{unsent} orders unsent, the oldest for {:.1} s", age.as_secs_f64());
    if *age > RELAY_MAY_LAG { Err(line) } else { Ok(format!("ok, {line}")) }
}

fn progress(backlog: &Backlog) -> Line {
    let line = format!("the most overdue step is {:.1} s late", backlog.overdue.as_secs_f64());
    if backlog.overdue > PROGRESS_MAY_LAG { Err(line) } else { Ok(format!("ok, {line}")) }
}

/// All metrics, in the Prometheus text format
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operation",
    responses((status = 200, description = "All series", body = String, content_type = metrics::CONTENT_TYPE))
)]
pub(super) async fn metrics(State(state): State<Arc<AppState>>) -> Result<Response, Problem> {
    state.metrics.event_streams(state.live.followers());
    let text = state.metrics.render().map_err(|error| {
        tracing::error!(%error, "metrics can't be rendered");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
