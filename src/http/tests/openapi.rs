//! The API document says what the service does, and shows what it answered.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use super::{Answer, Api, order};
use crate::{
    http::{
        api::{body, feed, openapi, orders},
        middleware::{observe, request_log},
        problem, routes,
    },
    order::OrderDetails,
    telemetry::health::{Health, Part},
};

/// Written by `UPDATE_EXAMPLES=1 cargo test examples_are`.
const EXAMPLES: &str = "src/http/api/examples.json";

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            found.push((method.to_uppercase(), path.clone(), operation));
        }
    }
    found
}

#[tokio::test]
async fn the_document_holds_every_route_and_no_other() {
    let api = Api::open().await;
    let document = openapi::document();
    let mut routed = BTreeSet::new();
    for path in document["paths"].as_object().expect("paths").keys() {
        let method = Method::from_bytes(b"NONE").expect("a method");
        let answer =
            api.send(Request::builder().method(method).uri(path).body(Body::empty()).expect("valid")).await;
        answer.problem(405);
        let methods = answer.header("allow").split(',').filter(|method| *method != "HEAD");
        routed.extend(methods.map(|method| (method.to_owned(), path.clone())));
    }
    let told: BTreeSet<_> =
        operations(document).into_iter().map(|(method, path, _)| (method, path)).collect();
    assert_eq!(told, routed, "each method that is taken is described");
    for page in routes::pages() {
        assert!(document["paths"].get(page.path).is_none(), "{} is for people", page.path);
    }
    assert_eq!(api.get("/openapi.json").await.json(), *document);
    assert!(!document.to_string().contains("\"content\":null"), "an index makes what is not there");
    assert!(!document.to_string().contains("\"parameters\":null"), "an index makes what is not there");
}

/// What the metrics declare from the start is in the document too, or a page's; and no route is left out.
#[tokio::test]
async fn known_answers_are_in_the_document() {
    let (api, document, mut seen) = (Api::open().await, openapi::document(), BTreeSet::new());
    let metrics = api.get("/metrics").await;
    let declared = metrics.text().lines().filter_map(|line| line.strip_prefix("http_requests_total{"));
    for line in declared {
        let label =
            |name: &str| line.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        let label = |name| label(name).expect("a label");
        let (route, method, status) = (label("route"), label("method"), label("status"));
        let pages = || routes::pages().into_iter().filter(|page| page.path == route);
        let known = |page: routes::PageRoute| page.method == method && page.answers.contains(&status);
        let known = pages().next().map(|_| pages().any(known));
        let operation = &document["paths"][route][method.to_lowercase()];
        let described = operation["responses"].get(status).is_some();
        let unmatched = (route, method, status) == (observe::UNMATCHED, observe::OTHER, "404");
        assert!(unmatched || known.unwrap_or(described), "{method} {route} {status} is nowhere");
        seen.insert((method.to_owned(), route.to_owned()));
    }
    let pages = routes::pages().map(|page| (page.method.to_owned(), page.path.to_owned()));
    let described = operations(document).into_iter().map(|(method, path, _)| (method, path));
    let unmatched = (observe::OTHER.to_owned(), observe::UNMATCHED.to_owned());
    assert_eq!(seen, described.chain(pages).chain([unmatched]).collect());
    let probes = request_log::PROBED.iter().map(|route| &document["paths"][route]["get"]["tags"][0]);
    assert!(probes.into_iter().all(|tag| tag == "operation"), "{:?} are routes", request_log::PROBED);
}

/// What stands in attributes, which take no constants.
#[test]
fn limits_in_the_document_are_those_of_the_code() {
    let document = openapi::document();
    let schemas = &document["components"]["schemas"];
    let parameter = |path: &str, method: &str, name: &str| {
        let all = document["paths"][path][method]["parameters"].as_array().expect("parameters");
        all.iter().find(|parameter| parameter["name"] == name).expect("it").clone()
    };
    let limit = parameter("/orders", "get", "limit");
    assert_eq!(limit["schema"]["default"], orders::DEFAULT_LIMIT);
    assert!(
        limit["description"].as_str().expect("text").contains(&format!("more than {}", orders::MAX_LIMIT))
    );
    let limit = parameter("/events", "get", "limit");
    assert_eq!(limit["schema"]["default"], feed::DEFAULT_LIMIT);
    assert_eq!(limit["schema"]["maximum"], feed::MAX_LIMIT);
    let wait = parameter("/events", "get", "wait");
    let most = format!("up to {} s", feed::MAX_WAIT.as_secs());
    assert!(wait["description"].as_str().expect("text").contains(&most));
    let key = parameter("/orders", "post", "Idempotency-Key");
    assert!(
        key["schema"]["pattern"].as_str().expect("text").contains(&format!("1,{}", orders::MAX_KEY_CHARS))
    );
    let body = &document["paths"]["/orders"]["post"]["requestBody"]["description"];
    let kib = body::MAX_BYTES / 1024;
    assert!(body.as_str().expect("text").contains(&format!("{kib} KiB")));
    for (field, max) in [("customer_name", 100), ("address", 300), ("item", 100)] {
        assert_eq!(schemas["OrderDetails"]["properties"][field]["maxLength"], max);
        let text = schemas["NewOrder"]["properties"][field]["description"].as_str().expect("text");
        assert!(text.contains(&format!("1 to {max} ")), "{text}");
    }
    assert_eq!(schemas["Status"]["enum"], json!(crate::order::Status::ALL));
    assert_eq!(schemas["Size"]["enum"], json!(crate::order::Size::ALL));
    let kind = parameter("/events", "get", "event");
    assert_eq!(kind["schema"]["enum"], json!(crate::order::EventKind::ALL));
}

/// The document refuses what the service refuses.
#[test]
fn the_pattern_of_a_name_is_that_of_the_code() {
    let schema = &openapi::document()["components"]["schemas"]["NewOrder"]["properties"]["customer_name"];
    let validator = jsonschema::validator_for(schema).expect("a schema");
    let (long, longer) = ("x".repeat(100), "x".repeat(101));
    let joined = ["می\u{200c}خواهم", "\u{200b}x\u{200b}", "👩\u{200d}🍳"];
    let unseen = ["", " ", "\u{200b}", "\u{301}", "\u{2800}\u{3164}", "\u{feff} \u{ad}", "\u{fe0f}"];
    for text in joined.into_iter().chain(unseen).chain([long.as_str(), &longer, " x\u{3000}", "a\u{7}b"]) {
        let accepted = OrderDetails::new(text, "x", "x", "small").is_ok();
        assert_eq!(validator.is_valid(&text.into()), accepted, "{}", text.escape_unicode());
    }
}

/// Each request is wrong in its own way; together they meet every code that there is.
#[tokio::test]
async fn codes_in_the_document_are_those_of_the_answers() {
    let api = Api::open().await;
    let long = "x".repeat(101);
    let body = json!({"customer_name": 7, "address": "a\u{7}b", "item": long, "size": "huge"});
    let json = ("content-type", "application/json");
    let answers = [
        api.post(&[json], body.to_string()).await,
        api.post(&[json], "{}").await,
        api.post(&[json], order("\u{200b}").to_string()).await,
        api.get("/orders?limit=0").await,
        api.get("/orders?cursor=x").await,
        api.post(&[json, ("idempotency-key", "\"")], order("Ada").to_string()).await,
    ];
    let mut met = BTreeSet::new();
    for answer in answers {
        let problem = answer.json();
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("{problem}"));
        met.extend(errors.iter().map(|error| error["code"].as_str().expect("a code").to_owned()));
    }
    let schemas = &openapi::document()["components"]["schemas"];
    assert_eq!(schemas["FieldError"]["properties"]["code"]["$ref"], "#/components/schemas/FieldCode");
    let told = schemas["FieldCode"]["enum"].as_array().expect("codes");
    let told: BTreeSet<_> = told.iter().map(|code| code.as_str().expect("a code").to_owned()).collect();
    assert_eq!(met, told);
    let description = schemas["FieldCode"]["description"].as_str().expect("text");
    assert!(told.iter().all(|code| description.contains(&format!("`{code}`: "))), "{description}");
}

/// Whoever is told a code finds it in the runbook.
#[test]
fn every_cause_is_in_the_runbook() {
    let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md");
    let runbook = fs::read_to_string(runbook).expect("text");
    let codes = &openapi::document()["components"]["schemas"]["CauseCode"]["enum"];
    let codes = codes.as_array().expect("codes");
    assert!(codes.len() > 10, "{codes:?}");
    for code in codes.iter().filter_map(Value::as_str) {
        assert!(runbook.contains(&format!("`{code}`")), "docs/runbook.md says nothing of {code}");
    }
}

/// What is kept of an answer: the same at each run.
fn kept(answer: &Answer) -> Value {
    let names = ["etag", "idempotency-replayed", "link", "location", "retry-after", "x-request-id"];
    let headers: Map<String, Value> = names
        .into_iter()
        .filter(|name| answer.headers.contains_key(*name))
        .map(|name| (name.to_owned(), answer.header(name).into()))
        .collect();
    let body = match answer.header("content-type") {
        "" => Value::Null,
        kind if kind.contains("json") => answer.json(),
        _ => answer.text().into(),
    };
    json!({"headers": headers, "body": body})
}

async fn seen() -> Value {
    let api = Api::open().await;
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
        let mut request = Request::builder().method(method).uri(path).header("x-request-id", "example-1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        kept(&api.send(request.body(body).expect("valid")).await)
    };
    let json = ("content-type", "application/json");
    let key = ("idempotency-key", "basket-7");
    let place = async |body: Value| ask("POST", "/orders", &[json, key], body).await;
    let (ada, mut grace) = (order("Ada"), order("Grace"));
    grace["size"] = "small".into();

    let mut seen = json!({});
    let created = place(ada.clone()).await;
    seen["place_order"] = json!({
        "request": {"body": ada},
        "400": ask("POST", "/orders", &[json], json!({"customer_name": "Ada", "size": "huge"})).await,
        "413": ask("POST", "/orders", &[json], json!("x".repeat(17_000))).await,
        "415": ask("POST", "/orders", &[], ada.clone()).await,
        "422": place(grace.clone()).await,
    });
    let path = created["headers"]["location"].as_str().expect("a path").to_owned();
    seen["place_order"]["201"] = created;
    api.clock.advance(Duration::from_secs(3));
    api.store.advance(10).await.expect("advances");
    seen["find_order"] = json!({
        "200": ask("GET", &path, &[], Value::Null).await,
        "304": ask("GET", &path, &[("if-none-match", "W/\"3\"")], Value::Null).await,
        "404": ask("GET", "/orders/ORD-00000000000000000000000000", &[], Value::Null).await,
    });
    api.overview.read().await;
    seen["explain_order"] = json!({
        "200": ask("GET", &format!("{path}/explain"), &[], Value::Null).await,
        "404": ask("GET", "/orders/ORD-00000000000000000000000000/explain", &[], Value::Null).await,
    });
    assert_eq!(ask("POST", "/orders", &[json], grace).await["headers"]["x-request-id"], "example-1");
    seen["list_orders"] = json!({
        "200": ask("GET", "/orders?limit=1", &[], Value::Null).await,
        "400": ask("GET", "/orders?limit=0", &[], Value::Null).await,
    });
    seen["healthz"] = json!({"200": ask("GET", "/healthz", &[], Value::Null).await});
    api.report(Part::Broker, Health::Down("127.0.0.1:9092: connection refused".to_owned()));
    api.overview.read().await;
    let degraded = ask("GET", "/readyz", &[], Value::Null).await;
    api.report(Part::Broker, Health::Up);
    api.leaving.cancel();
    seen["readyz"] = json!({"200": degraded, "503": ask("GET", "/readyz", &[], Value::Null).await});
    for _ in 0..3 {
        api.clock.advance(Duration::from_mins(1));
        api.store.advance(10).await.expect("advances");
    }
    let stream = ask("GET", &format!("{path}/events?after=4"), &[], Value::Null).await;
    seen["follow_order"] = json!({
        "200": with_plain_retry(stream),
        "204": ask("GET", &format!("{path}/events"), &[("last-event-id", "6")], Value::Null).await,
        "400": ask("GET", &format!("{path}/events?after=x"), &[], Value::Null).await,
    });
    seen["read_feed"] = json!({
        "200": ask("GET", "/events?after=0&limit=2", &[], Value::Null).await,
        "400": ask("GET", "/events?after=99", &[], Value::Null).await,
    });
    let stream = Request::get("/events?after=9").header("accept", "text/event-stream");
    let stream = stream.header("x-request-id", "example-1").body(Body::empty()).expect("valid");
    let stream = api.router.clone().oneshot(stream).await.expect("never fails");
    // It has no end but that of the service.
    api.stop.cancel();
    seen["read_feed"]["200"]["text/event-stream"] = with_plain_retry(kept(&Answer::of(stream).await));
    seen
}

/// The pause before a new connection is spread at random.
fn with_plain_retry(mut stream: Value) -> Value {
    let text = stream["body"].as_str().expect("a stream");
    let lines = text
        .split_inclusive('\n')
        .map(|line| if line.starts_with("retry:") { "retry: 2000\n" } else { line });
    stream["body"] = lines.collect::<String>().into();
    stream
}

#[tokio::test]
async fn examples_are_what_the_service_answers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLES);
    let seen = seen().await;
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        let text = serde_json::to_string_pretty(&seen).expect("json");
        fs::write(&path, text + "\n").expect("written");
    }
    let told: Value = serde_json::from_str(&fs::read_to_string(&path).expect("text")).expect("json");
    assert_eq!(told, seen, "UPDATE_EXAMPLES=1 cargo test examples_are writes {EXAMPLES} anew");
}

/// Whatever schema the document gives an example, the example keeps to it, and nothing is in an
/// answer that the schema does not name.
#[test]
fn examples_keep_to_their_schemas() {
    let document = openapi::document();
    let mut checked = 0;
    for (method, path, operation) in operations(document) {
        let responses = operation["responses"].as_object().expect("responses").values();
        for part in responses.chain(operation.get("requestBody")) {
            for content in part["content"].as_object().into_iter().flat_map(Map::values) {
                let Some(example) = content.get("example") else { continue };
                let mut schema = content["schema"].clone();
                schema["components"] = document["components"].clone();
                close(&mut schema["components"]["schemas"]);
                let validator = jsonschema::validator_for(&schema).expect("a schema");
                let errors: Vec<String> =
                    validator.iter_errors(example).map(|error| error.to_string()).collect();
                assert_eq!(errors, Vec::<String>::new(), "{method} {path}: {example}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 12, "only {checked} examples");
    assert!(problem::CONTENT_TYPE.ends_with("problem+json"));
}

/// Lets no schema take a field that it does not name.
fn close(schemas: &mut Value) {
    for (name, schema) in schemas.as_object_mut().expect("schemas") {
        if schema["properties"].is_object() || schema["allOf"].is_array() {
            // What others are made of stays open.
            if name != "OrderDetails" {
                schema["unevaluatedProperties"] = json!(false);
            }
        }
    }
}

#[tokio::test]
async fn the_page_shows_the_whole_document_and_needs_nobody() {
    let api = Api::open().await;
    let page = api.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'self';"));
    let document = openapi::document();
    for (_, _, operation) in operations(document) {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(page.text().contains(&format!("<article id=\"{id}\">")), "{id}");
    }
    for name in document["components"]["schemas"].as_object().expect("schemas").keys() {
        assert!(page.text().contains(&format!("id=\"schema-{name}\"")), "{name}");
    }
    for foreign in ["<script", "style=", "src=", "href=\"http"] {
        assert!(!page.text().contains(foreign), "{foreign}");
    }
    // Every link leads to a place on the page or to a path of ours.
    for link in page.text().split("href=\"").skip(1).map(|rest| rest.split('"').next().expect("a link")) {
        match link.strip_prefix('#') {
            Some(place) => assert!(page.text().contains(&format!("id=\"{place}\"")), "{link}"),
            None => assert_eq!(api.get(link).await.status, 200, "{link}"),
        }
    }
    // What can be copied into a shell works there, whatever host and port the page came from.
    let asked = async |host: &str| {
        let request = Request::builder().uri("/docs").header("host", host).body(Body::empty());
        api.send(request.expect("a request")).await.text().to_owned()
    };
    let at = |host: &str| format!("curl -iN http://{host}/orders/ORD-");
    assert!(asked("orders.example:8090").await.contains(&at("orders.example:8090")));
    for host in ["x;rm", ""] {
        assert!(asked(host).await.contains(&at("localhost:8080")), "{host:?}");
    }
    assert!(!page.text().contains("{id}/events</code></pre>"));
    assert_eq!(api.get("/docs/style.css").await.header("content-type"), "text/css; charset=utf-8");
}
