//! The listener on a real port: how many it serves, and for how long it waits.

use std::time::Duration;

use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::super::{RequestLog, Server};

const PATIENCE: Duration = Duration::from_secs(15);
const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// Serves `router` to at most two connections and answers the address.
async fn serve(router: Router) -> std::net::SocketAddr {
    let server = Server::bind(("127.0.0.1", 0), router, 2, RequestLog::new()).await.expect("binds");
    let address = server.address().expect("bound");
    tokio::spawn(server.run(CancellationToken::new(), CancellationToken::new()));
    address
}

/// Sends a request and answers what comes back at once.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(ASK).await.expect("sends");
    let mut answer = vec![0; 1_024];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time").expect("reads");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// Promise 5: memory, queues and time are bounded. One connection too many is told so.
#[tokio::test]
async fn a_connection_too_many_is_told_to_come_again() {
    let address = serve(Router::new().route("/", get(async || "hello"))).await;
    let mut seated = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
        seated.push(stream);
    }
    let mut refused = TcpStream::connect(address).await.expect("connects");
    let mut answer = String::new();
    timeout(PATIENCE, refused.read_to_string(&mut answer)).await.expect("in time").expect("reads");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");

    drop(seated.pop());
    let served = async {
        loop {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            if ask(&mut stream).await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    timeout(PATIENCE, served).await.expect("a permit is free again");
}

/// Promise 5: memory, queues and time are bounded. A client that does not read loses its permit.
#[tokio::test]
async fn a_client_that_does_not_read_is_left() {
    let large = "x".repeat(1024 * 1024);
    let address = serve(Router::new().route("/", get(async move || large.clone()))).await;
    let mut stalled = TcpStream::connect(address).await.expect("connects");
    for _ in 0..20 {
        stalled.write_all(ASK).await.expect("sends");
    }
    let left = async {
        // An error here is the server's reset: it is what is waited for.
        while stalled.write_all(ASK).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, left).await.expect("the server hangs up");
}
