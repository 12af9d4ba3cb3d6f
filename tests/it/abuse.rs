//! Clients that are wrong, rude or large. Every error they get is a whole RFC 9457 problem.

use futures::future::join_all;
use reqwest::{Method, Response, header};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    harness::{Service, details},
    raw::exchange,
};

const POST_HEAD: &str = "POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

/// Holds an error's body to RFC 9457 and to our additions.
pub(crate) fn whole(
    body: &[u8],
    content_type: Option<&str>,
    request_id: Option<&str>,
    status: u16,
    code: &str,
) {
    let text = String::from_utf8_lossy(body);
    assert_eq!(content_type, Some("application/problem+json"), "{text}");
    let problem: Value = serde_json::from_slice(body).unwrap_or_else(|_| panic!("not JSON: {text}"));
    assert_eq!(
        (problem["status"].as_u64(), problem["code"].as_str()),
        (Some(status.into()), Some(code)),
        "{text}"
    );
    for name in ["type", "title", "detail", "code", "request_id"] {
        assert!(problem[name].as_str().is_some_and(|text| !text.is_empty()), "{name} in {text}");
    }
    assert_eq!(request_id, problem["request_id"].as_str());
    if code == "validation-error" {
        let named = |error: &Value| {
            ["field", "code", "message"]
                .iter()
                .all(|name| error[name].as_str().is_some_and(|text| !text.is_empty()))
        };
        assert!(
            problem["errors"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(named)),
            "{text}"
        );
    }
}

/// Insists on a whole problem and answers its body.
pub(crate) async fn problem(response: Response, status: u16, code: &str) -> Value {
    let headers = response.headers().clone();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let answered = response.status().as_u16();
    let body = response.bytes().await.expect("a body");
    assert_eq!(answered, status, "{}", String::from_utf8_lossy(&body));
    whole(&body, header("content-type"), header("x-request-id"), status, code);
    serde_json::from_slice(&body).expect("JSON")
}

fn with(field: &str, value: Value) -> String {
    let mut body = details("pizza");
    body[field] = value;
    body.to_string()
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_wrong_body_is_told_which_field_is_wrong() {
    let service = Service::start(&[]).await;
    let post = async |body: String| {
        let request =
            service.request(Method::POST, "/orders").header(header::CONTENT_TYPE, "application/json");
        request.body(body).send().await.expect("an answer")
    };
    for body in
        ["", "{", "null", "7", "[]", "[\"Ada\", \"1 High St\", \"pizza\", \"small\"]", "{\"item\": 'x'}"]
    {
        problem(post(body.to_owned()).await, 400, "malformed-request").await;
    }
    for (field, value, code) in [
        ("size", json!("huge"), "choice"),
        ("size", json!("Large"), "choice"),
        ("size", json!(null), "required"),
        ("item", json!(7), "type"),
        ("item", json!(" "), "length"),
        ("item", json!("x".repeat(101)), "length"),
        ("address", json!("x".repeat(301)), "length"),
        ("address", json!("1 High St\u{7}"), "control_character"),
        ("address", json!("\u{200b}\u{2800}\u{3164}"), "blank"),
        ("item", json!("\u{ad}"), "blank"),
        ("customer_name", json!("\u{feff} \u{301}"), "blank"),
        ("customer_name", json!(["Ada"]), "type"),
    ] {
        let answer = problem(post(with(field, value)).await, 400, "validation-error").await;
        let errors = answer["errors"].as_array().expect("errors");
        assert_eq!((&errors[0]["field"], &errors[0]["code"]), (&json!(field), &json!(code)), "{answer}");
        assert_eq!(errors.len(), 1, "{answer}");
    }
    let answer = problem(post("{}".to_owned()).await, 400, "validation-error").await;
    assert_eq!(answer["errors"].as_array().map(Vec::len), Some(4), "every fault at once");
    assert_eq!(answer["instance"], "/orders");
    assert_eq!(service.json("/orders").await, json!([]), "nothing of this was stored");

    let unknown = service.post(&serde_json::from_str(&with("tip", json!(5))).expect("JSON")).await;
    assert_eq!(unknown.status(), 201, "unknown fields are ignored");
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_wrong_query_path_or_header_is_told_so() {
    let service = Service::start(&[]).await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=abc", "limit"),
        ("limit=1.5", "limit"),
        ("status=EATEN", "status"),
        ("status=placed", "status"),
        ("cursor=7", "cursor"),
    ] {
        let answer = problem(service.get(&format!("/orders?{query}")).await, 400, "validation-error").await;
        assert_eq!(answer["errors"][0]["field"], field, "{query}");
    }
    problem(service.get("/orders?limit=1&limit=2").await, 400, "validation-error").await;
    for query in ["status=", "limit=", "cursor=", "status=&limit=&cursor=", "limit", "status=&limit=1"] {
        assert_eq!(service.json(&format!("/orders?{query}")).await, json!([]), "{query}");
    }
    for limit in ["99999", "200", "99999999999999999999999999"] {
        assert_eq!(service.json(&format!("/orders?limit={limit}")).await, json!([]));
    }
    for path in
        ["/nowhere", "/orders/", "/orders/7", "/orders/ORD-01ARZ3NDEK0000000000000000", "/orders/%00", "/%ff"]
    {
        problem(service.get(path).await, 404, "not-found").await;
    }
    for (path, method) in
        [("/orders", "DELETE"), ("/orders/7", "PUT"), ("/healthz", "POST"), ("/orders", "BREW")]
    {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let response = service.request(method, path).send().await.expect("an answer");
        let allow = response.headers().get(header::ALLOW).expect("Allow").to_str().expect("text").to_owned();
        assert!(allow.contains("GET"), "{allow}");
        problem(response, 405, "method-not-allowed").await;
    }
    for kind in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx")]
    {
        let request = service.request(Method::POST, "/orders").body(details("pizza").to_string());
        let request =
            kind.into_iter().fold(request, |request, kind| request.header(header::CONTENT_TYPE, kind));
        problem(request.send().await.expect("an answer"), 415, "unsupported-media-type").await;
    }
    for key in ["", "é", &"k".repeat(256)] {
        let request =
            service.request(Method::POST, "/orders").json(&details("pizza")).header("idempotency-key", key);
        problem(request.send().await.expect("an answer"), 400, "validation-error").await;
    }
    assert_eq!(service.json("/orders").await, json!([]), "nothing of this was stored");
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_coded_body_is_told_so_and_a_marked_one_is_read() {
    let service = Service::start(&[]).await;
    let post = async |coding: &str, body: Vec<u8>| {
        let request =
            service.request(Method::POST, "/orders").header(header::CONTENT_TYPE, "application/json");
        request.header(header::CONTENT_ENCODING, coding).body(body).send().await.expect("an answer")
    };
    let plain = || details("pizza").to_string().into_bytes();
    for coding in ["gzip", "br", "identity, gzip", "GZIP"] {
        let refused = post(coding, plain()).await;
        assert_eq!(refused.headers().get(header::ACCEPT_ENCODING).expect("told"), "identity");
        let told = problem(refused, 415, "unsupported-media-type").await;
        assert!(told["detail"].as_str().expect("text").contains("content-encoding"), "{told}");
    }
    let kind = service.request(Method::POST, "/orders").body(plain()).send().await.expect("an answer");
    assert_eq!(kind.headers().get(header::ACCEPT_ENCODING), None, "it is not what was wrong");
    problem(kind, 415, "unsupported-media-type").await;
    for coding in ["identity", "Identity", ""] {
        assert_eq!(post(coding, [b"\xef\xbb\xbf".to_vec(), plain()].concat()).await.status(), 201);
    }
    let wide = details("pizza").to_string().encode_utf16().flat_map(u16::to_be_bytes).collect();
    let told = problem(post("", wide).await, 400, "malformed-request").await;
    assert_eq!(told["detail"], "the body: must be UTF-8, and is UTF-16");
    let latin = plain().into_iter().map(|byte| if byte == b'z' { 0xe9 } else { byte }).collect();
    let told = problem(post("", latin).await, 400, "malformed-request").await;
    assert!(told["detail"].as_str().expect("text").contains("must be UTF-8"), "{told}");
}

/// An id in the path that is no UTF-8 is an id that nobody has.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn an_id_of_strange_bytes_is_not_found() {
    let service = Service::start(&[]).await;
    problem(service.get("/orders/%ff").await, 404, "not-found").await;
}

/// The client can read the answer although it is still sending.
///
/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn a_large_body_is_refused_in_a_way_that_the_client_sees() {
    let service = Service::start(&[]).await;
    for length in [17 * 1024, 1024 * 1024] {
        let request =
            service.request(Method::POST, "/orders").header(header::CONTENT_TYPE, "application/json");
        let response = request.body("x".repeat(length)).send().await.expect("an answer");
        problem(response, 413, "body-too-large").await;

        let chunks = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(length.div_ceil(0x10000));
        let chunked = format!("{POST_HEAD}transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
        exchange(&service, chunked.as_bytes()).await.problem(413, "body-too-large");
    }
    let largest = format!("{:1$}", details("pizza").to_string(), 16 * 1024);
    let request = service.request(Method::POST, "/orders").header(header::CONTENT_TYPE, "application/json");
    assert_eq!(request.body(largest).send().await.expect("an answer").status(), 201, "16 KiB are allowed");
}

/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn a_head_that_is_not_http_or_too_large_is_refused() {
    let service = Service::start(&[]).await;
    let head = |lines: &str| format!("GET /orders HTTP/1.1\r\nhost: x\r\n{lines}\r\n");
    let many = "x-many: y\r\n".repeat(200);
    for (sent, status, code) in [
        ("complete garbage\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("GET /orders HTTP/9.9\r\n\r\n".to_owned(), 400, "malformed-request"),
        (head("no colon here\r\n"), 400, "malformed-request"),
        (head("content-length: x\r\n"), 400, "malformed-request"),
        (head("content-length: 1\r\ncontent-length: 2\r\n"), 400, "malformed-request"),
        (head(&format!("x-large: {}\r\n", "x".repeat(100 * 1024))), 431, "head-too-large"),
        (head(&many), 431, "head-too-large"),
        (format!("{POST_HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n"), 400, "malformed-request"),
    ] {
        exchange(&service, sent.as_bytes()).await.problem(status, code);
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(70 * 1024));
    let answer = exchange(&service, long.as_bytes()).await;
    assert!([414, 431].contains(&answer.status), "{answer:?}");
    let code = if answer.status == 414 { "path-too-long" } else { "head-too-large" };
    answer.problem(answer.status, code);
    assert_eq!(service.get("/healthz").await.status(), 200);
}

/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn idle_connections_keep_nobody_waiting() {
    let service = Service::start(&[]).await;
    let idle = join_all((0..300).map(|_| TcpStream::connect(service.address()))).await;
    assert!(idle.iter().all(Result::is_ok));
    let started = Instant::now();
    service.place("pizza").await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    drop(idle);
}

/// Whatever clients send, they can't make series.
///
/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn clients_make_no_series() {
    let service = Service::start(&[]).await;
    let ask = async |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        service.request(method, path).send().await.expect("an answer").status().as_u16()
    };
    // One of each kind first: an answer that nobody expects has its series from the first time on.
    for path in ["/orders", "/orders/7", "/healthz"] {
        assert_eq!(ask("BREW", path).await, 405);
    }
    let series = async || service.metrics().await.lines().filter(|line| !line.starts_with('#')).count();
    let before = series().await;
    for n in 0..1_000_u32 {
        let (word, method) = (format!("{:x}", n.wrapping_mul(2_654_435_761)), format!("BREW{n}"));
        match n % 4 {
            0 => assert_eq!(ask("GET", &format!("/{word}?{word}={n}")).await, 404),
            1 => assert_eq!(ask("GET", &format!("/orders/{word}")).await, 404),
            2 => assert_eq!(ask(&method, &format!("/{word}/{n}")).await, 404),
            _ => assert_eq!(ask(&method, "/orders").await, 405),
        }
    }
    assert_eq!(series().await, before);
    assert!(before <= 2_000, "{before}");
    let failed = |line: &&str| line.starts_with("http_requests_total") && line.contains("status=\"500\"");
    assert_eq!(service.metrics().await.lines().find(failed), None);
}
