//! The API document, OpenAPI 3.1: put together from what stands at the handlers and types, with
//! answers that a test has seen (`examples.json`).
//!
//! HTML pages and their assets are left out: they are for people, not an API.

use std::sync::{Arc, LazyLock};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::{
    super::{AppState, problem, routes},
    events::TimelineEvent,
    openapi_keys,
};
use crate::order::{Event, FeedMeta, ID_CHARACTERS, Reason, promises::MAX_BATCH};

/// What is said of the service as a whole.
#[derive(OpenApi)]
#[openapi(
    info(title = "Order Tracker", license(name = "MIT", identifier = "MIT"), description = ABOUT),
    servers((url = "/")),
    tags((name = "orders", description = "What customers and kitchens do"),
         (name = "operation", description = "What operators and their machines ask")),
    components(schemas(problem::ProblemBody, Event, FeedMeta, Reason, TimelineEvent)),
)]
struct Described;

const ABOUT: &str = "Takes food orders, walks each one to its delivery, and shows where it is.\n\n\
    Every error is a problem (RFC 9457). A path that is not here answers 404, a method that is not here 405 \
    with `Allow`. Send `x-request-id` (1 to 64 letters, digits, `-_.`) to find a request in the logs.";

/// What any request may meet: status, name, description.
const ANYWHERE: [(&str, &str, &str); 4] = [
    ("408", "TooSlow", "Head or body did not arrive in time"),
    ("431", "HeadTooLarge", "The request line and headers are too long or too many"),
    ("500", "Internal", "Our fault; the request id leads to the cause"),
    ("503", "Unavailable", "Busy, stopping, or without its database; try again shortly"),
];

/// The tag of what works with orders.
pub(in crate::http) const ORDERS: &str = "orders";

/// What a test saw: by operation the request, and by status headers and body.
const EXAMPLES: &str = include_str!("examples.json");

/// One for each [`Surface`].
static DOCUMENTS: [LazyLock<Document>; Surface::COUNT] = [
    LazyLock::new(|| Document::of(Surface::at(0))),
    LazyLock::new(|| Document::of(Surface::at(1))),
    LazyLock::new(|| Document::of(Surface::at(2))),
    LazyLock::new(|| Document::of(Surface::at(3))),
];

/// What hangs on settings of what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Surface {
    /// Whether who asks must have a key.
    pub(in crate::http) keys: bool,
    /// Whether `/metrics` is somewhere else.
    pub(in crate::http) metrics_elsewhere: bool,
}

impl Surface {
    /// How many there are.
    pub(in crate::http) const COUNT: usize = 4;

    /// With all settings left as they are.
    #[cfg(test)]
    pub(in crate::http) const DEFAULT: Self = Self::at(0);

    /// Each, by its number.
    pub(in crate::http) const fn at(number: usize) -> Self {
        Self { keys: number % 2 == 1, metrics_elsewhere: number >= 2 }
    }

    /// Its number.
    pub(in crate::http) fn number(self) -> usize {
        usize::from(self.keys) + 2 * usize::from(self.metrics_elsewhere)
    }
}

/// The document, and as it goes out.
struct Document {
    value: Value,
    text: String,
}

impl Document {
    fn of(surface: Surface) -> Self {
        let mut value = build(surface);
        if surface.keys {
            openapi_keys::ask_for_keys(&mut value);
        }
        Self { text: value.to_string(), value }
    }
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(in crate::http) async fn serve(State(state): State<Arc<AppState>>) -> Response {
    let document = &DOCUMENTS[state.settings.surface().number()];
    ([(header::CONTENT_TYPE, "application/json")], document.text.as_str()).into_response()
}

/// The document without routes.
pub(in crate::http) fn frame() -> utoipa::openapi::OpenApi {
    Described::openapi()
}

/// The document of a service that is set like this.
pub(in crate::http) fn document(surface: Surface) -> &'static Value {
    &DOCUMENTS[surface.number()].value
}

/// Adds what holds everywhere, so that it need not stand at each handler.
fn build(surface: Surface) -> Value {
    let mut document = serde_json::to_value(routes::api(surface).into_openapi()).unwrap_or_default();
    let examples: Value = serde_json::from_str(EXAMPLES).unwrap_or_default();
    let paths = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    for operation in paths.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let seen = examples.get(operation["operationId"].as_str().unwrap_or_default());
        complete(operation, seen.unwrap_or(&Value::Null));
    }
    let anywhere =
        ANYWHERE.map(|(status, name, description)| (name.to_owned(), problem(status, description)));
    document["components"]["responses"] = Map::from_iter(anywhere).into();
    document
}

fn complete(operation: &mut Value, seen: &Value) {
    if let Some(body) = operation.pointer_mut("/requestBody/content/application~1json") {
        illustrate_content(body, &seen["request"]);
        // An attribute takes no constant.
        if body["schema"]["type"] == "array" {
            (body["schema"]["minItems"], body["schema"]["maxItems"]) = (1.into(), MAX_BATCH.into());
        }
    }
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        // An attribute can't say it: no header of ours must be sent.
        if parameter["in"] == "header" {
            parameter["required"] = false.into();
        }
        // An attribute takes no constant.
        if parameter["name"] == "cursor" {
            parameter["schema"]["pattern"] = format!("^{ID_CHARACTERS}$").into();
        }
        // An empty one is as good as none.
        if parameter["in"] == "query" {
            parameter["allowEmptyValue"] = true.into();
        }
        // A number may be of any size here; the format of an integer would be a maximum.
        if let Some(schema) = parameter["schema"].as_object_mut() {
            schema.remove("format");
        }
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, response) in responses.iter_mut() {
        if status.starts_with('4') {
            *response = problem(status, response["description"].as_str().unwrap_or_default());
        }
        common_headers(response);
        illustrate(response, &seen[status]);
    }
    for (status, name, _) in ANYWHERE {
        let shared = json!({"$ref": format!("#/components/responses/{name}")});
        responses.entry(status).or_insert(shared);
    }
}

pub(super) fn problem(status: &str, description: &str) -> Value {
    let schema = json!({"$ref": "#/components/schemas/Problem"});
    let content = json!({problem::CONTENT_TYPE: {"schema": schema}});
    let mut response = json!({"description": description, "content": content});
    if ["429", "503"].contains(&status) {
        let schema = json!({"type": "integer", "minimum": 1});
        response["headers"]["Retry-After"] =
            json!({"description": "Seconds", "required": true, "schema": schema});
    }
    response
}

/// Headers of ours are there whenever they are described, but for those that say "if".
pub(super) fn common_headers(response: &mut Value) {
    let id = json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"});
    response["headers"]["X-Request-Id"] = json!({"description": "Also in the logs", "schema": id});
    for (name, header) in response["headers"].as_object_mut().into_iter().flatten() {
        let pattern = match name.as_str() {
            "Location" => format!("^/orders/ORD-{ID_CHARACTERS}$"),
            "ETag" => "^W/\"[1-9][0-9]*\"$".to_owned(),
            "Idempotency-Replayed" => "^true$".to_owned(),
            "Link" => "^</orders\\?[^>]+>; rel=\"next\"$".to_owned(),
            _ => String::new(),
        };
        if !pattern.is_empty() {
            header["schema"]["pattern"] = pattern.into();
        }
        header["required"] = Value::from(!matches!(name.as_str(), "Idempotency-Replayed" | "Link"));
    }
}

/// Puts in what a test saw.
fn illustrate(response: &mut Value, seen: &Value) {
    for (kind, content) in response.get_mut("content").and_then(Value::as_object_mut).into_iter().flatten() {
        // Where there are several kinds, a test has seen each.
        illustrate_content(content, seen.get(kind).unwrap_or(seen));
    }
    for (name, header) in response["headers"].as_object_mut().into_iter().flatten() {
        if let Some(value) = seen["headers"].get(name.to_lowercase()) {
            header["example"] = value.clone();
        }
    }
}

fn illustrate_content(content: &mut Value, seen: &Value) {
    if !seen["body"].is_null() {
        content["example"] = seen["body"].clone();
    }
}
