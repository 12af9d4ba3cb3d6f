//! Pages of other sites, and metrics at an address of their own.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Method, Request},
};
use tower::ServiceExt as _;

use super::{
    Answer, Api, order,
    service::{Database, Keys, Service},
};
use crate::{
    http::{
        Observers, RequestLog,
        api::openapi::{Surface, document},
        metrics_router,
    },
    order::Role::{Reader, Shop, Staff},
    telemetry::metrics::Metrics,
};

const OURS: &str = "https://shop.example";

async fn ask(api: &Api, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.send(request.body(Body::empty()).expect("valid")).await
}

/// What of CORS an answer tells.
fn told(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(axum::http::HeaderName::as_str);
    names.filter(|name| name.starts_with("access-control-")).collect()
}

#[tokio::test]
async fn a_browser_asks_first_without_a_key() {
    let keys = Keys::of_all_roles();
    let service = Service::on(Database::Sqlite).asking_for(&keys);
    let api = service.cors_origins(&[OURS, "http://localhost:3000"]).open().await;
    let asks = ("access-control-request-method", "POST");
    for path in ["/orders", "/orders/ORD-01ARZ3NDEK0000000000000000/events", "/nothing"] {
        let answer = ask(&api, Method::OPTIONS, path, &[("origin", OURS), asks]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), OURS);
        assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, x-request-id"
        );
        assert_eq!(answer.header("vary"), "origin");
        assert!(!answer.header("x-request-id").is_empty());
        assert!(answer.headers.get("access-control-allow-credentials").is_none());
    }
    let counted = ask(&api, Method::GET, "/metrics", &[("authorization", &keys.bearer(Staff))]).await;
    let series = r#"http_requests_total{method="OTHER",route="unmatched",status="204"} 3"#;
    assert!(counted.text().lines().any(|line| line == series), "{}", counted.text());
    for (headers, status) in [
        (&[("origin", "https://evil.example"), asks][..], 405),
        (&[("origin", "https://shop.example:8443"), asks], 405),
        (&[("origin", "null"), asks], 405),
        (&[("origin", OURS), ("origin", OURS), asks], 405),
        (&[asks], 405),
        (&[("origin", OURS)], 405),
    ] {
        let answer = ask(&api, Method::OPTIONS, "/orders", headers).await;
        assert_eq!((answer.status.as_u16(), answer.header("vary")), (status, "origin"), "{headers:?}");
        assert!(answer.headers.get("access-control-allow-methods").is_none(), "{headers:?}");
    }
}

#[tokio::test]
async fn a_page_of_that_site_may_read_what_it_is_told() {
    let keys = Keys::of_all_roles();
    let service = Service::on(Database::Sqlite).asking_for(&keys);
    let api = service.cors_origins(&[OURS]).open().await;
    let shop = keys.bearer(Shop);
    let headers = [("origin", OURS), ("authorization", shop.as_str())];
    let placed = api.send_json("/orders", &headers, &order("Ada")).await;
    let listed = ask(&api, Method::GET, "/orders", &headers).await;
    let refused = ask(&api, Method::GET, "/orders", &[("origin", OURS)]).await;
    let reader = keys.bearer(Reader);
    let kept_out =
        api.send_json("/orders", &[("origin", OURS), ("authorization", &reader)], &order("Ada")).await;
    for (answer, status) in [(&placed, 201), (&listed, 200), (&refused, 401), (&kept_out, 403)] {
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), OURS, "{status}");
        assert_eq!(
            answer.header("access-control-expose-headers"),
            "etag, location, link, idempotency-replayed, retry-after, x-request-id, www-authenticate"
        );
        assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "origin"), "{status}");
    }
    let other = [("origin", "https://evil.example"), ("authorization", shop.as_str())];
    for answer in [
        ask(&api, Method::GET, "/orders", &other).await,
        ask(&api, Method::GET, "/orders", &headers[1..]).await,
    ] {
        assert_eq!(answer.status, 200);
        assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "origin"));
        assert_eq!(told(&answer), [] as [&str; 0]);
    }
    let open = Service::on(Database::Sqlite).open().await;
    let asked = ask(&open, Method::GET, "/orders", &[("origin", OURS)]).await;
    assert_eq!((told(&asked), asked.header("vary")), (Vec::new(), ""), "unless it is set");
}

#[tokio::test]
async fn metrics_are_at_one_address_only() {
    let api = Service::on(Database::Sqlite).metrics_elsewhere().open().await;
    assert_eq!(api.get("/metrics").await.problem(404).0, "not-found");
    let told = api.get("/openapi.json").await.json();
    assert_eq!(told, *document(Surface { metrics_elsewhere: true, ..Surface::DEFAULT }));
    assert!(told["paths"].get("/metrics").is_none() && told["paths"].get("/readyz").is_some());
    assert!(!api.get("/docs").await.text().contains("id=\"metrics\""));

    let observers = Observers { metrics: Arc::new(Metrics::new()), log: RequestLog::new() };
    let router = metrics_router(Arc::new(observers), api.tracker.clone());
    let ask = async |method: Method, path: &str| {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("valid");
        Answer::of(router.clone().oneshot(request).await.expect("never fails")).await
    };
    let metrics = ask(Method::GET, "/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("http_event_streams 0"), "{}", metrics.text());
    assert_eq!(ask(Method::GET, "/orders").await.problem(404).0, "not-found");
    assert_eq!(ask(Method::POST, "/metrics").await.problem(405).0, "method-not-allowed");
    assert!(
        ask(Method::GET, "/metrics")
            .await
            .text()
            .contains(r#"http_requests_total{method="GET",route="/metrics",status="200"} 1"#)
    );
}
