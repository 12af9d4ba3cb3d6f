//! Clients that take much: others keep their places.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::harness::{Service, eventually, within};

/// Asks for a stream for a client behind a proxy; answers the connection and what was said first.
async fn follow(address: &str, id: &str, client: &str) -> (TcpStream, String) {
    let request = format!("GET /orders/{id}/events HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {client}\r\n\r\n");
    let asked = async {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut said = vec![0; 4_096];
        let read = stream.read(&mut said).await.expect("an answer");
        said.truncate(read);
        (stream, String::from_utf8(said).expect("text"))
    };
    within(asked).await
}

fn status(said: &str) -> &str {
    said.get(9..12).unwrap_or(said)
}

async fn all_places_are_free(service: &Service) {
    let free = async || (service.metric("http_event_streams").await == 0).then_some(());
    eventually("all places are free", free).await;
}

/// Promise 5: memory, queues and time are bounded. More streams than there are places, one after the other.
#[tokio::test]
async fn streams_that_were_closed_take_no_place() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let id = service.place("pizza").await;
    let started = Instant::now();
    for n in 0..6_600 {
        let (_, said) = follow(service.address(), &id, "").await;
        assert_eq!(status(&said), "200", "stream {n} after {:?}: {said}", started.elapsed());
    }
    let closed = Instant::now();
    all_places_are_free(&service).await;
    assert!(closed.elapsed() < Duration::from_secs(5), "{:?}", closed.elapsed());
    service.stop().await;
}

/// Promise 5: memory, queues and time are bounded. Half of the places is the most for one address.
#[tokio::test]
async fn one_client_leaves_the_others_their_places() {
    let settings = [("STAGE_DELAYS", "1h"), ("TRUSTED_PROXIES", "127.0.0.0/8, ::1")];
    let service = Service::start_small(512, &settings).await;
    let id = service.place("pizza").await;
    let mut held = Vec::new();
    let refused = loop {
        let (stream, said) = follow(service.address(), &id, "192.0.2.1").await;
        if status(&said) != "200" {
            break said;
        }
        held.push(stream);
    };
    assert_eq!((held.len(), status(&refused)), (512 / 4 * 3 / 4 * 3 / 2, "429"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    let problem: Value =
        refused.split("\r\n\r\n").nth(1).and_then(|body| serde_json::from_str(body).ok()).expect("JSON");
    assert_eq!(problem["code"], "too-many-streams");
    for n in 0..held.len() {
        let (stream, said) = follow(service.address(), &id, "192.0.2.1, 198.51.100.2").await;
        assert_eq!(status(&said), "200", "{n}: {said}");
        held.push(stream);
    }
    assert_eq!(status(&follow(service.address(), &id, "192.0.2.3").await.1), "503");
    drop(held);
    all_places_are_free(&service).await;
    service.stop().await;
}
