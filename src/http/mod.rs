//! What clients see: routes, and the layers around them.
//!
//! A handler parses, asks the tracker or the operations, and shapes the answer. Errors are [`Problem`]s.
//!
//! Invariant: nothing here waits without a limit, and nothing here knows SQL or Kafka.

mod api;
mod middleware;
mod pages;
mod problem;
mod problem_code;
mod routes;
mod server;

#[cfg(test)]
mod tests;

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_http::catch_panic::CatchPanicLayer;
use url::Url;

pub use api::report_batch::BatchPlaces;
pub use middleware::{observe::Observers, request_log::RequestLog};
pub use problem::{Problem, ProblemBody};
pub use problem_code::ProblemCode;
pub use server::{Server, client::TrustedProxies};

use api::{feed, health, openapi::Surface};
use middleware::{access::access, cors::cors, observe, observe::observe};

use crate::{
    keys::Auth,
    ops::Operations,
    order::Rules,
    time::{Clock, deadlines::REQUEST as REQUEST_TIMEOUT},
    tracker::Tracker,
};

/// What handlers work with.
pub struct AppState {
    /// For all that is done with orders.
    pub tracker: Tracker,
    /// For what operators ask.
    pub operations: Operations,
    /// Where requests leave a trace.
    pub observers: Arc<Observers>,
    /// What is set once.
    pub settings: HttpSettings,
    /// For batches of reports.
    pub batches: BatchPlaces,
}

/// What does not change while the service runs.
pub struct HttpSettings {
    /// For telling clients apart.
    pub proxies: TrustedProxies,
    /// For what may be reported now, and for estimates.
    pub rules: Rules,
    /// What is late now, and what senders' clocks are held to.
    pub clock: Arc<dyn Clock>,
    /// Whether who asks must say who he is.
    pub auth: Auth,
    /// Where clients reach the service, if that was said.
    pub public_url: Option<Url>,
    /// Whether others than this machine reach it, and nobody asks who they are.
    pub exposed: bool,
    /// For the board: orders that nobody wants may be placed.
    pub demo: bool,
    /// Whether `/metrics` is served somewhere else.
    pub metrics_elsewhere: bool,
    /// Other sites whose pages may use the API, each as a browser writes it.
    pub cors_origins: Vec<String>,
}

impl HttpSettings {
    /// What of that shows in routes and documents.
    fn surface(&self) -> Surface {
        Surface { keys: matches!(self.auth, Auth::Keys(_)), metrics_elsewhere: self.metrics_elsewhere }
    }
}

/// All routes with all layers.
pub fn router(state: AppState) -> Router {
    let state = Arc::new(state);
    let metrics = &state.observers.metrics;
    observe::declare_unmatched(metrics);
    let declare = |route: &str, method: &str, status: &str| metrics.declare_http(route, method, status);
    if !state.settings.cors_origins.is_empty() {
        observe::declare_preflights(metrics);
    }
    routes::routes(state.settings.surface(), declare)
        .fallback(pages::not_found)
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        // Inside of who asks, so that the line of a request that panicked names its key too.
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(&state), front))
        .with_state(state)
}

/// All that stands in front of every handler, from outside to inside. One layer, since each costs every request a
/// microsecond.
async fn front(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let AppState { observers, settings, .. } = &*state;
    // A browser asks first whether it may, without a key.
    let answer = |request| cors(&settings.cors_origins, request, |request| access(&state, request, next));
    observe(observers, request, answer).await
}

/// `/metrics` alone, without a key: for an address that only those can reach who may read it.
pub fn metrics_router(observers: Arc<Observers>, tracker: Tracker) -> Router {
    observers.metrics.declare_http(health::METRICS, "GET", "200");
    let shown = Arc::clone(&observers);
    let read = move || {
        let rendered = health::rendered(&shown.metrics, &tracker);
        async { rendered }
    };
    Router::new()
        .route(health::METRICS, get(read))
        .fallback(async || Problem::not_found("only /metrics is here"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(observers, metrics_front))
}

async fn metrics_front(State(observers): State<Arc<Observers>>, request: Request, next: Next) -> Response {
    observe(&observers, request, async |request| within_time(request, next).await.into()).await
}

async fn within_time(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    // The time that a client wants to wait comes on top.
    let held_back = if route == Some(feed::ROUTE) { feed::MAX_WAIT } else { Duration::ZERO };
    match tokio::time::timeout(REQUEST_TIMEOUT + held_back, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("the request took too long").into_response(),
    }
}

/// The panic itself is logged by the panic hook; the client learns only that it was our fault.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::internal().into_response()
}
