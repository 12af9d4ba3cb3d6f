//! Clients that never finish what they began.

use tokio::time::{Duration, Instant};

use crate::{
    harness::Service,
    raw::{answer, connect, rest},
};

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    (work.await, started.elapsed())
}

/// A head has 10 s, a body 5 s; a connection that says nothing just ends.
///
/// Promise 5: memory, queues and time are bounded.
#[tokio::test]
async fn what_is_half_sent_is_answered_in_time() {
    let service = Service::start(&[]).await;
    let body =
        b"POST /orders HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"item\":";
    let mut silent = connect(&service, b"").await;
    let mut head = connect(&service, b"GET /orders HTTP/1.1\r\nhost: x\r\nx-half: ").await;
    let mut line = connect(&service, b"GET /ord").await;
    let mut body = connect(&service, body).await;
    let (silent, (head, head_took), (line, line_took), (body, body_took)) = tokio::join!(
        rest(&mut silent),
        timed(answer(&mut head)),
        timed(answer(&mut line)),
        timed(answer(&mut body))
    );
    assert_eq!(silent, b"");
    for (answer, took, limit) in [(head, head_took, 12), (line, line_took, 12), (body, body_took, 7)] {
        answer.problem(408, "request-timeout");
        assert!(took < Duration::from_secs(limit), "{took:?}");
    }
    assert_eq!(service.get("/healthz").await.status(), 200);
}
