//! Every route, written once: what stands here is served, described, counted and logged.

use std::sync::Arc;

use axum::{
    Router,
    http::Method,
    middleware::from_fn,
    routing::{MethodRouter, get, post},
};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState,
    api::{
        events, explain, feed, health,
        openapi::{self, Surface},
        orders, report_batch, reports,
    },
    middleware::gzip,
    pages::{self, docs},
};
use crate::order::Action;

type Handler = MethodRouter<Arc<AppState>>;

/// The API. Path, method and answers stand at each handler.
pub(super) fn api(surface: Surface) -> OpenApiRouter<Arc<AppState>> {
    let long = OpenApiRouter::default().routes(routes!(openapi::serve));
    let router = OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(orders::list, orders::place))
        .routes(routes!(orders::find))
        .routes(routes!(events::follow, reports::report))
        .routes(routes!(feed::read, report_batch::report))
        .routes(routes!(explain::explain))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz));
    let router = if surface.metrics_elsewhere { router } else { router.routes(routes!(health::metrics)) };
    router.merge(long.layer(from_fn(gzip::compress)))
}

/// What a request must bring to be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: health, documents, the customer's page.
    Nothing,
    /// Nothing, but who shows a key may be told more.
    Optional,
    /// A key whose role may do that.
    Key(Action),
    /// The same on a page, where a browser's session will do too.
    Page(Action),
}

/// What each route of the API needs that does not answer everybody.
const API_NEEDS: [(&str, &str, Action); 9] = [
    ("POST", "/orders", Action::PlaceOrders),
    ("GET", "/orders", Action::ListOrders),
    ("GET", "/orders/{id}", Action::ReadOrder),
    ("GET", "/orders/{id}/events", Action::ReadOrder),
    ("POST", "/orders/{id}/events", Action::Report),
    ("GET", "/orders/{id}/explain", Action::Explain),
    ("GET", "/events", Action::ReadFeed),
    ("POST", "/events", Action::Report),
    ("GET", "/metrics", Action::Operate),
];

/// What tells more to whose key may do [`TOLD_MORE`].
const MORE_WITH_A_KEY: (&str, &str) = ("GET", "/readyz");
/// For whom it is.
pub(super) const TOLD_MORE: Action = Action::Operate;

/// What each page needs that does not answer everybody.
const PAGE_NEEDS: [(&str, &str, Action); 3] = [
    ("GET", "/", Action::ListOrders),
    ("POST", "/demo-orders", Action::PlaceOrders),
    ("POST", "/report", Action::Report),
];

/// What a request of this method to this route must bring.
pub(super) fn need(method: &Method, route: &str) -> Need {
    // A HEAD is a GET without its body.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let action = |needs: &[(&str, &str, Action)]| {
        needs.iter().find(|(of, at, _)| (*of, *at) == (method, route)).map(|(_, _, action)| *action)
    };
    let of_a_page = || action(&PAGE_NEEDS).map(Need::Page);
    let otherwise = if (method, route) == MORE_WITH_A_KEY { Need::Optional } else { Need::Nothing };
    action(&API_NEEDS).map(Need::Key).or_else(of_a_page).unwrap_or(otherwise)
}

/// A page for people, something that one loads, or a form of a page: no API, so not described.
pub(super) struct PageRoute {
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    /// The answers that happen on good and bad days.
    pub(super) answers: &'static [&'static str],
    handler: Handler,
}

impl PageRoute {
    fn get(path: &'static str, answers: &'static [&'static str], handler: Handler) -> Self {
        Self { path, method: "GET", answers, handler }
    }

    /// A form.
    fn post(path: &'static str, answers: &'static [&'static str], handler: Handler) -> Self {
        Self { path, method: "POST", answers, handler: handler.layer(pages::form_limit()) }
    }

    /// The same, for what is long and made of words.
    fn compressed(self) -> Self {
        Self { handler: self.handler.layer(from_fn(gzip::compress)), ..self }
    }
}

/// Every page.
pub(super) fn pages() -> [PageRoute; 16] {
    [
        PageRoute::get("/", &["200", "401", "403", "503"], get(pages::board)).compressed(),
        PageRoute::post("/demo-orders", &["303", "401", "403", "503"], post(pages::place_demo)),
        PageRoute::post(
            "/report",
            &["303", "400", "401", "403", "404", "408", "409", "413", "415", "503"],
            post(pages::report),
        ),
        PageRoute::get("/sign-in", &["200", "303"], get(pages::ask_for_key)),
        PageRoute::post(
            "/sign-in",
            &["303", "400", "401", "403", "408", "413", "415", "503"],
            post(pages::sign_in),
        ),
        PageRoute::post("/sign-out", &["303", "400", "403", "408", "413", "415"], post(pages::sign_out_now)),
        PageRoute::get("/track/{id}", &["200", "308", "404", "503"], get(pages::track)).compressed(),
        PageRoute::get(
            "/track/{id}/events",
            &["200", "204", "400", "404", "429", "503"],
            get(events::follow_positions),
        ),
        PageRoute::get(
            "/track/{id}/cancel",
            &["200", "303", "308", "403", "404", "503"],
            get(pages::ask_to_cancel),
        ),
        PageRoute::post(
            "/track/{id}/cancel",
            &["303", "400", "403", "404", "408", "409", "413", "415", "503"],
            post(pages::cancel),
        ),
        PageRoute::get("/track/{id}/", &["308", "404"], get(pages::track_slash)),
        PageRoute::get("/assets/{version}/{name}", &["200", "304", "404"], get(pages::asset)).compressed(),
        PageRoute::get("/robots.txt", &["200"], get(pages::robots)),
        PageRoute::get("/favicon.ico", &["200"], get(pages::favicon)),
        PageRoute::get("/docs", &["200"], get(docs::serve)).compressed(),
        PageRoute::get("/docs/style.css", &["200"], get(docs::style)).compressed(),
    ]
}

/// All routes; `declare` is told of each answer of each that happens on good and bad days: route, method, status.
pub(super) fn routes(surface: Surface, mut declare: impl FnMut(&str, &str, &str)) -> Router<Arc<AppState>> {
    let (mut router, document) = api(surface).split_for_parts();
    for (path, item) in &document.paths.paths {
        for (method, operation) in operations(item) {
            for status in answers(operation) {
                declare(path, method, status);
            }
            let asks_for_key =
                surface.keys && API_NEEDS.iter().any(|(of, at, _)| (*of, *at) == (method, path));
            // And as long as no keys were read nobody can be answered.
            for status in ["401", "403", "503"].into_iter().filter(|_| asks_for_key) {
                declare(path, method, status);
            }
        }
    }
    for PageRoute { path, method, answers, handler } in pages() {
        router = router.route(path, handler);
        for status in answers {
            declare(path, method, status);
        }
    }
    router
}

/// What an operation says of itself; and on a bad day whoever works with orders is without them, and a body does not arrive.
fn answers(operation: &Operation) -> impl Iterator<Item = &str> {
    let described = operation.responses.responses.keys().map(String::as_str);
    let needs_orders = operation.tags.iter().flatten().any(|tag| tag == openapi::ORDERS);
    let reads_body = operation.request_body.is_some();
    described.chain(needs_orders.then_some("503")).chain(reads_body.then_some("408"))
}

fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    let all = [
        ("GET", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}
