//! Which answers are compressed, for whom, and what stays true of them.

use std::io::Read as _;

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, StatusCode},
};
use flate2::read::GzDecoder;
use futures::StreamExt as _;
use tower::ServiceExt as _;

use super::{Answer, Api, pages::attributes};

impl Api {
    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).expect("valid")).await
    }
}

const BROWSER: (&str, &str) = ("accept-encoding", "gzip, deflate, br, zstd");

fn unpacked(body: &Bytes) -> String {
    let mut text = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut text).expect("gzip");
    text
}

#[tokio::test]
async fn what_is_long_is_sent_in_fewer_bytes_to_who_takes_them() {
    let api = Api::open().await;
    for n in 0..30 {
        api.place(&format!("customer {n}")).await;
    }
    let board = api.get("/").await;
    let style = attributes(board.text(), "href").into_iter().find(|path| path.ends_with("board.css"));
    for path in ["/", "/docs", "/openapi.json", style.expect("a style")] {
        let plain = api.get(path).await;
        assert!(plain.body.len() > 4 * 1024, "{path}");
        assert_eq!(
            (plain.header("vary"), plain.header("content-encoding")),
            ("Accept-Encoding", ""),
            "{path}"
        );
        let packed = api.get_with(path, &[BROWSER]).await;
        assert_eq!(packed.status, StatusCode::OK, "{path}");
        assert_eq!(
            (packed.header("vary"), packed.header("content-encoding")),
            ("Accept-Encoding", "gzip"),
            "{path}"
        );
        assert_eq!(packed.header("content-type"), plain.header("content-type"), "{path}");
        assert_eq!(unpacked(&packed.body), plain.text(), "{path}");
        assert!(
            packed.body.len() * 2 < plain.body.len(),
            "{path}: {} of {}",
            packed.body.len(),
            plain.body.len()
        );
        let refused = api.get_with(path, &[("accept-encoding", "gzip;q=0")]).await;
        assert_eq!(refused.header("content-encoding"), "", "{path}");
    }
}

#[tokio::test]
async fn what_is_short_or_no_page_goes_as_it_is() {
    let api = Api::open().await;
    let mut id = String::new();
    for _ in 0..30 {
        id = api.place(&"Ada".repeat(30)).await;
    }
    for path in ["/track/x", "/robots.txt", "/healthz", "/orders", &format!("/orders/{id}"), "/metrics"] {
        let answer = api.get_with(path, &[BROWSER]).await;
        assert_eq!(answer.header("content-encoding"), "", "{path}");
        assert!(!answer.text().is_empty(), "{path}");
    }
    let request = Request::get(format!("/orders/{id}/events")).header(BROWSER.0, BROWSER.1);
    let stream =
        api.router.clone().oneshot(request.body(Body::empty()).expect("valid")).await.expect("an answer");
    assert!(!stream.headers().contains_key("content-encoding"));
    let first = stream.into_body().into_data_stream().next().await.expect("a frame").expect("no failure");
    assert!(first.starts_with(b"retry: "), "{first:?}");
}

#[tokio::test]
async fn what_a_browser_has_kept_stays_good() {
    let api = Api::open().await;
    let board = api.get("/").await;
    let style = attributes(board.text(), "href").into_iter().find(|path| path.ends_with("board.css"));
    let style = style.expect("a style");
    let (plain, packed) = (api.get(style).await, api.get_with(style, &[BROWSER]).await);
    assert!(plain.header("etag").starts_with("W/"), "two forms have it: {}", plain.header("etag"));
    assert_eq!(packed.header("etag"), plain.header("etag"));
    let strong = plain.header("etag").trim_start_matches("W/");
    for seen in [plain.header("etag"), strong, &format!("\"old\", {strong}"), "*"] {
        let answer = api.get_with(style, &[BROWSER, ("if-none-match", seen)]).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_MODIFIED, 0), "{seen}");
        assert_eq!((answer.header("vary"), answer.header("content-encoding")), ("Accept-Encoding", ""));
    }
    let other = api.get_with(style, &[BROWSER, ("if-none-match", "\"old\"")]).await;
    assert_eq!(other.status, StatusCode::OK);
    let head = Request::builder().method(Method::HEAD).uri(style).header(BROWSER.0, BROWSER.1);
    let head = api.send(head.body(Body::empty()).expect("valid")).await;
    assert_eq!((head.status, head.body.len(), head.header("content-encoding")), (StatusCode::OK, 0, "gzip"));
    assert_eq!(head.header("content-length"), packed.body.len().to_string());
}
