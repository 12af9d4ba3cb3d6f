//! Orders followed over server-sent events: live, through restarts, and by clients that do not listen.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use futures::future::join_all;
use order_tracker::{
    order::promises::LIVE_WITHIN,
    time::{Clock as _, SystemClock},
};
use reqwest::Response;
use serde_json::Value;
use testkit::{EventStream, Frame};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpSocket,
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    abuse::problem,
    harness::{SIX, Service, eventually, folder},
    journey::at,
};

/// How late a step may be seen.
pub(crate) const LATE: TimeDelta = TimeDelta::new(0, LIVE_WITHIN.subsec_nanos()).expect("under a second");

/// Asks for a stream after the position `seen`; `None` if nobody answers.
async fn ask(http: &reqwest::Client, url: &str, order_id: &str, seen: u8) -> Option<Response> {
    let request = http.get(format!("{url}/orders/{order_id}/events"));
    let request = if seen > 0 { request.header("last-event-id", seen.to_string()) } else { request };
    request.send().await.ok()
}

pub(crate) async fn open(service: &Service, order_id: &str, seen: u8) -> EventStream {
    stream(ask(&service.http, &service.url, order_id, seen).await.expect("an answer"))
}

fn stream(response: Response) -> EventStream {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    EventStream::of(response)
}

/// The next frame that says something; `None` when the stream is over, well or broken.
pub(crate) async fn next(stream: &mut EventStream) -> Option<Frame> {
    stream.next().await.ok()?
}

/// How long ago the event of this frame happened.
pub(crate) fn age(frame: &Frame) -> TimeDelta {
    let data: Value = serde_json::from_str(&frame.data).expect("JSON");
    SystemClock.now() - at(&data["timestamp"])
}

#[tokio::test]
async fn an_order_is_followed_to_its_delivery() {
    let service = Service::start(&[("STAGE_DELAYS", "300ms")]).await;
    let id = service.place("pizza").await;
    let mut stream = open(&service, &id, 0).await;
    let (mut told, mut ages) = (Vec::new(), Vec::new());
    for (position, name) in (1..).zip(SIX) {
        let frame = next(&mut stream).await.expect("goes on");
        assert_eq!((frame.id, frame.event.as_str()), (Some(position), "status"));
        ages.push(age(&frame));
        let mut data: Value = serde_json::from_str(&frame.data).expect("JSON");
        assert_eq!(data["event"], name);
        assert_eq!(data.as_object_mut().expect("an object").remove("seq"), Some(Value::from(position)));
        told.push(data);
    }
    // One may be late where other tests run at the same moment.
    let mut steps = ages.split_off(2);
    steps.sort_unstable();
    assert!(steps[steps.len() / 2] < LATE, "{steps:?}");
    assert_eq!(next(&mut stream).await.expect("goes on").event, "end");
    assert_eq!(next(&mut stream).await, None);
    assert_eq!(Value::from(told), service.json(&format!("/orders/{id}")).await["events"]);

    let mut rest = open(&service, &id, 4).await;
    for position in [5, 6] {
        assert_eq!(next(&mut rest).await.and_then(|frame| frame.id), Some(position));
    }
    assert_eq!(next(&mut rest).await.expect("goes on").event, "end");
    let over = ask(&service.http, &service.url, &id, 6).await.expect("an answer");
    assert_eq!(over.status(), 204);
    problem(service.get(&format!("/orders/{id}/events?after=x")).await, 400, "validation-error").await;
    problem(service.get("/orders/ORD-00000000000000000000000000/events").await, 404, "not-found").await;
    service.stop().await;
}

/// What a browser does: connects again, wherever the service is now, until it is told the end. Answers the
/// positions that it was told.
async fn faithful(http: reqwest::Client, mut url: watch::Receiver<String>, id: String) -> Vec<u8> {
    let mut told = Vec::new();
    loop {
        let address = url.borrow_and_update().clone();
        let seen = told.last().copied().unwrap_or(0);
        // A service that has just begun may say 503 for a moment; one that is gone says nothing.
        let answer = eventually("an answer that is no 503", async || {
            let answer = ask(&http, &address, &id, seen).await;
            let busy = answer.as_ref().is_some_and(|answer| answer.status() == 503);
            (!busy).then_some(answer)
        });
        if let Some(answer) = answer.await {
            let mut stream = stream(answer);
            while let Some(frame) = next(&mut stream).await {
                match frame.id {
                    Some(position) => told.push(position),
                    None => return told,
                }
            }
        }
        url.changed().await.expect("the service comes back");
    }
}

/// A shutdown, then kill -9: nobody misses a step, and nobody is told one twice.
#[tokio::test]
async fn five_hundred_followers_survive_restarts() {
    let (data, settings) = (folder(), [("STAGE_DELAYS", "2s")]);
    let mut service = Service::start_in(data.path(), &settings).await;
    let ids = join_all((0..500).map(|_| service.place("pizza"))).await;
    let (url, urls) = watch::channel(service.url.clone());
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let followers = join_all(ids.into_iter().map(|id| faithful(http.clone(), urls.clone(), id)));
    let restarts = async {
        for restart in 0..2 {
            eventually("all follow", async || {
                (service.metric("http_event_streams").await == 500).then_some(())
            })
            .await;
            if restart == 0 {
                service.stop().await;
            } else {
                service.kill().await;
            }
            service = Service::start_in(data.path(), &settings).await;
            url.send_replace(service.url.clone());
        }
        service
    };
    let (told, service) = tokio::join!(followers, restarts);
    for told in told {
        assert_eq!(told, [1, 2, 3, 4, 5, 6]);
    }
    eventually("all places are free", async || {
        (service.metric("http_event_streams").await == 0).then_some(())
    })
    .await;
    service.stop().await;
}

/// A shutdown does not wait for the long stages of those who follow.
#[tokio::test]
async fn a_shutdown_ends_streams() {
    let service = Arc::new(Service::start(&[("STAGE_DELAYS", "1h")]).await);
    let id = service.place("pizza").await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = open(&service, &id, 0).await;
        assert_eq!(next(&mut stream).await.and_then(|frame| frame.id), Some(1));
        assert_eq!(next(&mut stream).await.and_then(|frame| frame.id), Some(2));
        streams.push(stream);
    }
    let asked = Instant::now();
    service.terminate().await;
    for mut stream in streams {
        assert_eq!(next(&mut stream).await, None, "no word of an end: the client connects again");
    }
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let mut service = Arc::into_inner(service).expect("no other");
    assert_eq!(service.exit().await.code, Some(0));
}

/// Promise 5: memory, queues and time are bounded. Who does not read loses the connection.
#[tokio::test]
async fn a_follower_that_never_reads_is_dropped() {
    let service = Service::start(&[("STAGE_DELAYS", "0s")]).await;
    let id = service.place("pizza").await;
    service.reached(&id, "DELIVERED").await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("set");
    let mut stalled = socket.connect(service.address().parse().expect("an address")).await.expect("connects");
    let request = format!("GET /orders/{id}/events HTTP/1.1\r\nhost: x\r\n\r\n");
    let left = async {
        // An error here is the service's reset: it is what is waited for.
        while stalled.write_all(request.as_bytes()).await.is_ok() {}
    };
    timeout(Duration::from_secs(25), left).await.expect("the service hangs up");
    assert_eq!(service.metric("http_event_streams").await, 0);
    service.stop().await;
}
