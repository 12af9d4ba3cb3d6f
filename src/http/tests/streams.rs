//! Event streams on real connections: whose place is whose, and when it is free again.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::yield_now,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    super::{
        RequestLog, Server,
        server::client::{Connection, Waiting},
    },
    Api,
};

/// Far less than the time between two heartbeats.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The service on a real port, with one order, and a request for its stream.
async fn served() -> (Api, std::net::SocketAddr, String) {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let server = Server::bind(("127.0.0.1", 0), api.router.clone(), 100, RequestLog::new()).await;
    let server = server.expect("binds");
    let address = server.address().expect("bound");
    tokio::spawn(server.run(CancellationToken::new(), CancellationToken::new()));
    (api, address, format!("GET /orders/{id}/events HTTP/1.1\r\nhost: test\r\n\r\n"))
}

/// Reads until all of this was said.
async fn hear(stream: &mut TcpStream, expected: &str) {
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(expected) {
        let mut part = [0; 1_024];
        let read = timeout(AT_ONCE, stream.read(&mut part)).await.expect("in time").expect("reads");
        assert!(read > 0, "{expected} is missing in {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&part[..read]);
    }
}

async fn follow(address: std::net::SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("sends");
    hear(&mut stream, "\"event\":\"PLACED\"").await;
    stream
}

/// Waits until so many follow.
async fn subscribers(api: &Api, count: usize) {
    let counted = async {
        while api.notifier.subscribers() != count {
            yield_now().await;
        }
    };
    timeout(AT_ONCE, counted).await.unwrap_or_else(|_| panic!("{} follow", api.notifier.subscribers()));
}

/// Promise 5: memory, queues and time are bounded. However a client goes, its place is free at once.
#[tokio::test]
async fn a_closed_stream_frees_its_place_at_once() {
    let (api, address, request) = served().await;
    for _ in 0..3 {
        // A plain close.
        let stream = follow(address, &request).await;
        subscribers(&api, 1).await;
        drop(stream);
        subscribers(&api, 0).await;
        // With a word behind the request, read by nobody.
        let mut stream = follow(address, &request).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sends");
        drop(stream);
        subscribers(&api, 0).await;
        // A reset.
        let stream = follow(address, &request).await;
        stream.set_zero_linger().expect("set");
        drop(stream);
        subscribers(&api, 0).await;
        // One side only.
        let mut stream = follow(address, &request).await;
        stream.shutdown().await.expect("closed");
        subscribers(&api, 0).await;
    }
}

/// Promise 5: memory, queues and time are bounded. The same for who waits for the feed, by a page or as a stream.
#[tokio::test]
async fn whoever_leaves_the_feed_frees_a_place_at_once() {
    let (api, address, _) = served().await;
    for request in [
        "GET /events?after=now&wait=20s HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /events?after=now HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n\r\n",
    ] {
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            stream.write_all(request.as_bytes()).await.expect("sends");
            subscribers(&api, 1).await;
            drop(stream);
            subscribers(&api, 0).await;
            let mut stream = TcpStream::connect(address).await.expect("connects");
            stream.write_all(request.as_bytes()).await.expect("sends");
            subscribers(&api, 1).await;
            stream.set_zero_linger().expect("set");
            drop(stream);
            subscribers(&api, 0).await;
        }
    }
    // What is sent behind a question that waits is answered after it.
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let wait = "GET /events?after=now&wait=500ms HTTP/1.1\r\nhost: test\r\n\r\n";
    stream.write_all(wait.as_bytes()).await.expect("sends");
    subscribers(&api, 1).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sends");
    hear(&mut stream, "{\"status\":\"ok\"}").await;
    subscribers(&api, 0).await;
}

/// Promise 5: memory, queues and time are bounded. Behind endless words the end would not be seen.
#[tokio::test]
async fn a_follower_that_never_stops_talking_is_left() {
    let (api, address, request) = served().await;
    let mut stream = follow(address, &request).await;
    let left = async { while stream.write_all(&[b'x'; 1_024]).await.is_ok() {} };
    timeout(AT_ONCE, left).await.expect("the server hangs up");
    subscribers(&api, 0).await;
}

/// What is sent behind a request is not lost, and who has closed one side still gets what is there.
#[tokio::test]
async fn what_comes_behind_a_stream_is_answered_after_it() {
    let (api, address, request) = served().await;
    let mut stream = follow(address, &request).await;
    let head = "x-long: y\r\n".repeat(40);
    let next = format!("GET /healthz HTTP/1.1\r\nhost: test\r\n{head}\r\n");
    stream.write_all(next.as_bytes()).await.expect("sends");
    for delay in [3, 5, 7, 10] {
        api.clock.advance(Duration::from_secs(delay));
        api.notifier.committed(&api.store.advance(10).await.expect("advances").transitions);
        yield_now().await;
    }
    hear(&mut stream, "{\"status\":\"ok\"}").await;
    subscribers(&api, 0).await;

    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("sends");
    stream.shutdown().await.expect("closed");
    hear(&mut stream, "event: end").await;
}

/// Promise 5: memory, queues and time are bounded. One client leaves the others their places.
#[tokio::test]
async fn one_address_has_at_most_half_of_the_places() {
    let api = Api::open().await;
    let path = format!("/orders/{}/events", api.place("Ada").await);
    let ask = async |peer: [u8; 4], forwarded: &str| {
        let connection = Connection { peer: IpAddr::from(peer), waiting: Waiting::default() };
        let mut request = Request::get(&path).extension(connection);
        if !forwarded.is_empty() {
            request = request.header("x-forwarded-for", forwarded);
        }
        api.router.clone().oneshot(request.body(Body::empty()).expect("valid")).await.expect("an answer")
    };
    let (proxy, untrusted) = ([10, 0, 0, 1], [192, 0, 2, 1]);
    let first = ask(untrusted, "").await;
    assert_eq!(first.status(), StatusCode::OK);
    // What an untrusted client says of its address counts for nothing.
    for forwarded in ["", "192.0.2.9"] {
        let refused = ask(untrusted, forwarded).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{forwarded}");
        assert_eq!(refused.headers()["retry-after"], "1");
    }
    let refused = ask(proxy, "192.0.2.1").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "the same client by way of the proxy");
    let other = ask(proxy, "192.0.2.2").await;
    assert_eq!(other.status(), StatusCode::OK, "another client by way of the proxy");
    assert_eq!(ask(proxy, "192.0.2.3").await.status(), StatusCode::SERVICE_UNAVAILABLE, "none is left");
    drop((first, other));
    assert_eq!(ask(untrusted, "").await.status(), StatusCode::OK);
    let counted = "http_requests_total{method=\"GET\",route=\"/orders/{id}/events\",status=\"429\"} 3";
    assert!(api.metric(counted).await);
}
