//! How others reach the service: settings that are wrong, metrics at an address of their own, pages of other sites.

use std::net::TcpListener;

use serde_json::Value;

use crate::{
    cli::complaint,
    harness::{Service, folder},
};

#[tokio::test]
async fn wrong_addresses_and_origins_stop_the_start() {
    for (name, value, allowed) in [
        ("CORS_ORIGINS", "*", "must be origins"),
        ("CORS_ORIGINS", "https://shop.example/", "must be origins"),
        ("CORS_ORIGINS", "https://shop.example,null", "must be origins"),
        ("PUBLIC_URL", "https://shop.example/track", "must be an origin"),
        ("PUBLIC_URL", "shop.example", "must be an origin"),
        ("METRICS_ADDR", "9100", "must be a host and a port"),
        ("METRICS_ADDR", "127.0.0.1:http", "must be a host and a port"),
    ] {
        let line = complaint(&["serve"], &[(name, value)], 2).await;
        assert!(line.contains(name) && line.contains(allowed), "{line}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let data = folder();
    let path = data.path().to_str().expect("text");
    let settings =
        [("METRICS_ADDR", taken.as_str()), ("DATA_DIR", path), ("APP_PORT", "0"), ("RUST_LOG", "off")];
    let line = complaint(&["serve"], &settings, 1).await;
    assert!(line.contains("METRICS_ADDR") && line.contains(&taken), "{line}");
}

#[tokio::test]
async fn metrics_may_have_an_address_of_their_own() {
    let settings = [("METRICS_ADDR", "127.0.0.1:0"), ("CORS_ORIGINS", "https://shop.example")];
    let service = Service::start(&settings).await;
    let logged = service.logged();
    let line = logged.lines().find(|line| line.contains("metrics are served")).expect("its line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    let address = line["address"].as_str().expect("an address");
    assert_eq!(service.get("/metrics").await.status(), 404);
    let metrics = reqwest::get(format!("http://{address}/metrics")).await.expect("an answer");
    assert_eq!(metrics.status(), 200);
    assert!(metrics.text().await.expect("text").contains("http_event_streams 0"));
    let other = reqwest::get(format!("http://{address}/orders")).await.expect("an answer");
    assert_eq!(other.status(), 404);
    let asked = service.request(reqwest::Method::OPTIONS, "/orders");
    let asked =
        asked.header("origin", "https://shop.example").header("access-control-request-method", "POST");
    assert_eq!(asked.send().await.expect("an answer").status(), 204);
    service.stop().await;
}

/// Promise 9: who may not, can't. Nobody leaves it open without knowing.
#[tokio::test]
async fn an_open_service_says_so_where_others_reach_it() {
    for (host, auth, said) in
        [("0.0.0.0", "open", true), ("0.0.0.0", "keys", false), ("127.0.0.1", "open", false)]
    {
        let service = Service::start(&[("APP_HOST", host), ("AUTH", auth)]).await;
        let logged = service.logged();
        assert_eq!(logged.contains("AUTH=keys asks who they are"), said, "{host} {auth}: {logged}");
        service.stop().await;
    }
}
