//! What clients see: routes, and the layers around them.
//!
//! A handler parses, asks the tracker or the store, and shapes the answer. Errors are [`Problem`]s.
//!
//! Invariant: nothing here waits without a limit, and nothing here knows SQL or Kafka.

mod body;
mod client;
mod docs;
mod events;
mod explain;
mod gzip;
mod observe;
mod openapi;
mod ops;
mod orders;
mod pages;
mod problem;
mod request_log;
mod server;
mod wire;

#[cfg(test)]
mod tests;

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub use client::TrustedProxies;
pub use problem::{Problem, ProblemBody};
pub use request_log::RequestLog;
pub use server::Server;

use crate::{
    ops::overview::Overview,
    order::{StageDelays, dead_letter},
    store::Store,
    telemetry::{health, metrics::Metrics},
    time::{Clock, deadlines::REQUEST as REQUEST_TIMEOUT},
    tracker::{Notifier, OrderLoader, PlaceQueue, Search},
};

/// What handlers work with.
pub struct AppState {
    /// For what is read rarely.
    pub store: Arc<dyn Store>,
    /// For reading orders.
    pub loader: OrderLoader,
    /// For following.
    pub notifier: Arc<Notifier>,
    /// For placing.
    pub queue: PlaceQueue,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`.
    pub broker: health::Watcher,
    /// For the board: why steps are late.
    pub scheduler: health::Watcher,
    /// For the board: why orders are unsent.
    pub relay: health::Watcher,
    /// For the board and `/readyz`: whether the topic is read.
    pub consumer: health::Watcher,
    /// For the board and `/readyz`: whether the dead-letter topic can be used.
    pub dead_letters: health::Watcher,
    /// For the board: what lies on the dead-letter topic.
    pub dead_letter_backlog: dead_letter::Watcher,
    /// For the board and `/readyz`: what waits.
    pub overview: Arc<Overview>,
    /// Cancelled as soon as the service is told to stop, while requests are still served.
    pub leaving: CancellationToken,
    /// For estimates on pages.
    pub delays: StageDelays,
    /// For pages: what is late now.
    pub clock: Arc<dyn Clock>,
    /// For telling clients apart.
    pub proxies: TrustedProxies,
    /// For the line of each request.
    pub log: Arc<RequestLog>,
    /// For the board: orders that nobody wants may be placed.
    pub demo: bool,
    /// For the board.
    pub search: Search,
}

/// All routes with all layers.
pub fn router(state: AppState) -> Router {
    observe::declare(&state.metrics);
    let observers = observe::Observers { metrics: Arc::clone(&state.metrics), log: Arc::clone(&state.log) };
    // What is long and made of words.
    let pages = Router::new()
        .route("/", get(pages::board))
        .route("/track/{id}", get(pages::track))
        .route("/assets/{version}/{name}", get(pages::asset))
        .route("/openapi.json", get(openapi::serve))
        .route("/docs", get(docs::serve))
        .route("/docs/style.css", get(docs::style))
        .layer(middleware::from_fn(gzip::compress));
    Router::new()
        .route("/orders", get(orders::list).post(orders::place))
        .route("/orders/{id}", get(orders::find))
        .route("/orders/{id}/events", get(events::follow))
        .route("/orders/{id}/explain", get(explain::explain))
        .route("/demo-orders", post(pages::place_demo))
        .route("/track/{id}/", get(pages::track_slash))
        .route("/robots.txt", get(pages::robots))
        .route("/favicon.ico", get(pages::favicon))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .merge(pages)
        .fallback(pages::not_found)
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(middleware::from_fn(within_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::new(observers), observe::observe))
        .with_state(Arc::new(state))
}

async fn within_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("the request took too long").into_response(),
    }
}

/// The panic itself is logged by the panic hook; the client learns only that it was our fault.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::internal().into_response()
}
