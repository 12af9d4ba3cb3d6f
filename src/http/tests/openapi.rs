//! The API document says what the service does, and shows what it answered.

use std::{collections::BTreeSet, fs, path::Path};

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Value, json};

use super::{Api, order};
use crate::{
    http::{
        api::{body, feed, openapi, orders},
        middleware::{observe, request_log},
        routes,
    },
    order::{
        EventKind, OrderDetails,
        promises::{MAX_BATCH, MAX_BATCH_BYTES},
    },
};

pub(super) fn operations(document: &Value) -> Vec<(String, String, &Value)> {
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
    let document = openapi::document(openapi::Surface::DEFAULT);
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
    let (api, document, mut seen) =
        (Api::open().await, openapi::document(openapi::Surface::DEFAULT), BTreeSet::new());
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
    let document = openapi::document(openapi::Surface::DEFAULT);
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
    let batch = &document["paths"]["/events"]["post"]["requestBody"];
    let kib = format!("1 to {MAX_BATCH} reports, up to {} KiB", MAX_BATCH_BYTES / 1024);
    assert!(batch["description"].as_str().expect("text").contains(&kib), "{batch}");
    let items = &batch["content"]["application/json"]["schema"];
    assert_eq!((&items["minItems"], &items["maxItems"]), (&json!(1), &json!(MAX_BATCH)));
    assert_eq!(schemas["NewReport"]["properties"]["event"]["enum"], json!(crate::order::Report::KINDS));
    assert_eq!(schemas["Reason"]["enum"], json!(crate::order::Reason::ALL));
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
    let schema = &openapi::document(openapi::Surface::DEFAULT)["components"]["schemas"]["NewOrder"]["properties"]
        ["customer_name"];
    let validator = jsonschema::validator_for(schema).expect("a schema");
    let (long, longer) = ("x".repeat(100), "x".repeat(101));
    let joined = ["می\u{200c}خواهم", "\u{200b}x\u{200b}", "👩\u{200d}🍳"];
    let unseen = ["", " ", "\u{200b}", "\u{301}", "\u{2800}\u{3164}", "\u{feff} \u{ad}", "\u{fe0f}"];
    for text in joined.into_iter().chain(unseen).chain([long.as_str(), &longer, " x\u{3000}", "a\u{7}b"]) {
        let accepted = OrderDetails::new(text, "x", "x", "small").is_ok();
        assert_eq!(validator.is_valid(&text.into()), accepted, "{}", text.escape_unicode());
    }
}

/// What the document says that a header or parameter may be is taken, in the order's words or in those of others.
#[tokio::test]
async fn examples_of_tags_are_those_of_the_pattern() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let parameters =
        &openapi::document(openapi::Surface::DEFAULT)["paths"]["/orders/{id}/events"]["post"]["parameters"];
    let tags = parameters.as_array().expect("parameters").iter().find(|one| one["name"] == "If-Match");
    let validator = jsonschema::validator_for(&tags.expect("it")["schema"]).expect("a schema");
    for tags in [
        "*",
        "\"2\"",
        "W/\"2\"",
        "\"\", W/\"x\"",
        "\"a,b\"",
        "2",
        "",
        "W/2",
        "\"2",
        "*, \"2\"",
        "\"2\" \"3\"",
    ] {
        let answer = api.report_of(&id, &[("if-match", tags)], &json!({"event": "READY"})).await;
        assert_eq!(validator.is_valid(&tags.into()), answer.status != 400, "{tags}");
    }
}

/// Each kind of problem has one word, which the document knows.
#[test]
fn the_document_lists_each_kind_of_problem() {
    let schemas = &openapi::document(openapi::Surface::DEFAULT)["components"]["schemas"];
    assert_eq!(schemas["Problem"]["properties"]["code"]["$ref"], "#/components/schemas/ProblemCode");
    let told = schemas["ProblemCode"]["enum"].as_array().expect("codes");
    let words: BTreeSet<&str> = told.iter().map(|code| code.as_str().expect("a code")).collect();
    assert_eq!(words.len(), told.len(), "{told:?}");
    let kinds = schemas["EventKind"]["description"].as_str().expect("text");
    for kind in EventKind::ALL.into_iter().filter(|kind| kind.status().is_none()) {
        assert!(kinds.contains(&format!("`{kind}`: ")), "{kinds}");
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
        api.get("/orders?cursor=&cursor=").await,
        api.post(&[json, ("idempotency-key", "\"")], order("Ada").to_string()).await,
    ];
    let mut met = BTreeSet::new();
    for answer in answers {
        let problem = answer.json();
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("{problem}"));
        met.extend(errors.iter().map(|error| error["code"].as_str().expect("a code").to_owned()));
    }
    let schemas = &openapi::document(openapi::Surface::DEFAULT)["components"]["schemas"];
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
    let codes = &openapi::document(openapi::Surface::DEFAULT)["components"]["schemas"]["CauseCode"]["enum"];
    let codes = codes.as_array().expect("codes");
    assert!(codes.len() > 10, "{codes:?}");
    for code in codes.iter().filter_map(Value::as_str) {
        assert!(runbook.contains(&format!("`{code}`")), "docs/runbook.md says nothing of {code}");
    }
}

#[tokio::test]
async fn the_page_shows_the_whole_document_and_needs_nobody() {
    let api = Api::open().await;
    let page = api.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'self';"));
    let document = openapi::document(openapi::Surface::DEFAULT);
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
