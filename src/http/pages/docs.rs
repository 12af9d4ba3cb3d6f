//! `GET /docs`: the API document as a page for people. No script, nothing inline, nothing from elsewhere.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};
use serde_json::{Map, Value};

use super::super::{
    AppState,
    api::openapi::{self, Surface},
};

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const STYLE: &str = include_str!("docs.css");

/// One for each document.
static PAGES: [LazyLock<String>; Surface::COUNT] = [
    LazyLock::new(|| page(openapi::document(Surface::at(0))).into_string()),
    LazyLock::new(|| page(openapi::document(Surface::at(1))).into_string()),
    LazyLock::new(|| page(openapi::document(Surface::at(2))).into_string()),
    LazyLock::new(|| page(openapi::document(Surface::at(3))).into_string()),
];

/// Where the examples ask, until somebody does.
const EXAMPLE_HOST: &str = "http://localhost:8080";

/// The page; its examples ask the host that it was asked of.
pub(in crate::http) async fn serve(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Response {
    let whole = &PAGES[state.settings.surface().number()];
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| is_plain(host));
    let page = host.map(|host| whole.replace(EXAMPLE_HOST, &format!("http://{host}")));
    let page = page.map_or(Cow::Borrowed(whole.as_str()), Cow::Owned);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, page).into_response()
}

/// Whether a host may stand in the page and in a shell as it is.
fn is_plain(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte))
}

/// Its style.
pub(in crate::http) async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, STYLE).into_response()
}

fn page(document: &Value) -> Markup {
    let info = &document["info"];
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (text(&info["title"])) " API" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="stylesheet" href="/docs/style.css";
            }
            body {
                header {
                    h1 { (text(&info["title"])) " API " small { (text(&info["version"])) } }
                    @for part in text(&info["description"]).split("\n\n") { p { (marked(part)) } }
                    p { "For machines: " a href="/openapi.json" { "/openapi.json" } " (OpenAPI 3.1)." }
                }
                nav aria-label="Operations" {
                    ul {
                        @for (path, method, operation) in operations(document) {
                            li { a href=(format!("#{}", text(&operation["operationId"]))) { (name(path, method)) } }
                        }
                        li { a href="#schemas" { "Schemas" } }
                    }
                }
                main {
                    @for tag in list(&document["tags"]) {
                        h2 { (text(&tag["description"])) }
                        @for (path, method, operation) in operations(document) {
                            @if operation["tags"][0] == tag["name"] { (one(document, path, method, operation)) }
                        }
                    }
                    h2 #schemas { "Schemas" }
                    @for (name, schema) in fields(&document["components"]["schemas"]) { (described(name, schema)) }
                }
            }
        }
    }
}

fn one(document: &Value, path: &str, method: &str, operation: &Value) -> Markup {
    html! {
        article id=(text(&operation["operationId"])) {
            h3 { (name(path, method)) }
            p { strong { (text(&operation["summary"])) } ". " (marked(text(&operation["description"]))) }
            (code(&curl(document, path, method, operation)))
            @if !list(&operation["parameters"]).is_empty() {
                h4 { "Parameters" }
                dl {
                    @for parameter in list(&operation["parameters"]) {
                        dt {
                            code { (text(&parameter["name"])) } " "
                            small { (text(&parameter["in"])) @if parameter["required"] == true { ", required" } }
                        }
                        dd { (marked(text(&parameter["description"]))) " " (kind(&parameter["schema"])) }
                    }
                }
            }
            @for (_, content) in fields(&operation["requestBody"]["content"]) {
                h4 { "Body" }
                p { (kind(&content["schema"])) ". " (marked(text(&operation["requestBody"]["description"]))) }
            }
            h4 { "Answers" }
            @for (status, response) in fields(&operation["responses"]) { (answer(status, resolved(document, response))) }
        }
    }
}

fn answer(status: &str, response: &Value) -> Markup {
    let (headers, contents) = (fields(&response["headers"]), fields(&response["content"]));
    html! {
        details {
            summary { code class=(format!("s{}", &status[..1])) { (status) } " " (marked(text(&response["description"]))) }
            @for (content_type, content) in contents.clone() {
                p { code { (content_type) } " " (kind(&content["schema"])) }
            }
            dl {
                @for (name, header) in headers {
                    dt { code { (name) } }
                    dd {
                        (marked(text(&header["description"])))
                        @if let Some(example) = header["example"].as_str() { ": " code { (example) } }
                    }
                }
            }
            @for (_, content) in contents {
                @match &content["example"] {
                    Value::Null => {}
                    Value::String(text) => (code(text)),
                    example => (code(&serde_json::to_string_pretty(example).unwrap_or_default())),
                }
            }
        }
    }
}

fn described(name: &str, schema: &Value) -> Markup {
    let parts = list(&schema["allOf"]).iter().chain([schema]);
    html! {
        article id=(format!("schema-{name}")) {
            h3 { (name) }
            p { (marked(text(&schema["description"]))) " " (choices(schema)) }
            @for one in list(&schema["oneOf"]) { p { "Or " (kind(one)) } }
            @for part in parts {
                @if part["$ref"].is_string() { p { "All of " (kind(part)) ", and:" } }
                dl {
                    @for (field, of) in fields(&part["properties"]) {
                        dt {
                            code { (field) }
                            @if !list(&part["required"]).contains(&Value::from(field.as_str())) { small { " optional" } }
                        }
                        dd { (kind(of)) " " (marked(text(&of["description"]))) }
                    }
                }
            }
        }
    }
}

/// A schema in a few words, with a link if it has a name.
fn kind(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return html! { a href=(format!("#schema-{name}")) { (name) } };
    }
    if schema["type"] == "array" {
        return html! { "list of " (kind(&schema["items"])) };
    }
    if let [first, ..] = list(&schema["oneOf"]) {
        return kind(first);
    }
    let types = list(&schema["type"]).iter().map(text).collect::<Vec<_>>().join(" or ");
    html! {
        small { (text(&schema["type"])) (types) }
        @for bound in ["minimum", "maximum", "minLength", "maxLength", "default"] {
            @if !schema[bound].is_null() { small { ", " (bound) " " (schema[bound]) } }
        }
        " " (choices(schema))
    }
}

fn choices(schema: &Value) -> Markup {
    html! { @for choice in list(&schema["enum"]) { code { (text(choice)) } " " } }
}

/// A line for the terminal that asks for the example.
fn curl(document: &Value, path: &str, method: &str, operation: &Value) -> String {
    let found = &document["paths"]["/orders/{id}"]["get"]["responses"]["200"]["content"]["application/json"];
    let path = path.replace("{id}", text(&found["example"]["order"]["order_id"]));
    // A stream is shown as it comes.
    let stream = operation["responses"]["200"]["content"]["text/event-stream"].is_object();
    let line = format!("curl -i{} {EXAMPLE_HOST}{path}", if stream { "N" } else { "" });
    if method == "get" {
        return line;
    }
    let body = &operation["requestBody"]["content"]["application/json"]["example"];
    format!("{line} -H 'content-type: application/json' \\\n  -d '{body}'")
}

fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    fields(&document["paths"])
        .flat_map(|(path, methods)| fields(methods).map(move |(method, of)| (path, method, of)))
}

fn name(path: &str, method: &str) -> Markup {
    html! { code { b { (method.to_uppercase()) } " " (path) } }
}

/// What stands at the end of a `$ref`.
fn resolved<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    let path = part["$ref"].as_str().map(|path| path.trim_start_matches('#'));
    path.and_then(|path| document.pointer(path)).unwrap_or(part)
}

/// Text with `code` in it.
fn marked(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn code(text: &str) -> Markup {
    html! { pre tabindex="0" { code { (text) } } }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn fields(value: &Value) -> serde_json::map::Iter<'_> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE).iter()
}
