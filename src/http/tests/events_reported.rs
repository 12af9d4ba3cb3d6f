//! Following an order of which people report.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    events::{Stream, step},
    reports::of,
    service::{Service, on_both_databases},
};
use crate::{
    order::{EventKind, Report, Rules, Source, Status},
    store::{OrderReport, ReportOutcome},
};

on_both_databases!(
    a_report_made_elsewhere_is_seen,
    steps_of_timers_and_reports_are_told_in_one_order;
    in both modes:
    every_event_is_followed_to_the_end,
    a_stream_goes_on_after_an_end_was_taken_back,
);

/// What a follower has been told, as the timeline tells it.
fn told(found: &Value) -> Vec<(u64, Value)> {
    let with_position = |(seq, event): (u64, &Value)| {
        let mut event = event.clone();
        event["seq"] = seq.into();
        (seq, event)
    };
    (1..).zip(found["events"].as_array().expect("events")).map(with_position).collect()
}

/// Every kind of event goes to followers, with its note and its position, as it stands in the timeline.
async fn every_event_is_followed_to_the_end(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let mut stream = Stream::open(&api, &format!("/orders/{id}/events"), None).await;
    let mut heard = vec![stream.event().await, stream.event().await];
    for (kind, added) in [
        ("COURIER_ASSIGNED", 1),
        ("DELAYED", 1),
        ("COOKING", 2),
        ("READY", 1),
        ("COURIER_AT_PICKUP", 1),
        ("OUT_FOR_DELIVERY", 1),
        ("COURIER_AT_DOOR", 1),
        ("DELIVERY_FAILED", 1),
        ("REVERTED", 1),
        ("CANCELLED", 1),
    ] {
        let mut body = of(kind);
        (body["note"], body["source"]) = (format!("note on {kind}").into(), "courier".into());
        api.says(&id, &body, 201).await;
        for _ in 0..added {
            heard.push(stream.event().await);
        }
    }
    stream.end().await;
    let found = api.get(&format!("/orders/{id}")).await.json();
    assert_eq!(heard, told(&found));
    assert_eq!(heard.len(), 13);
    assert_eq!(
        heard[2].1["meta"],
        json!({"source": "courier", "note": "note on COURIER_ASSIGNED", "status": "PLACED"})
    );
    assert_eq!(api.notifier.subscribers(), 0, "its place is free again");
}

/// An end that is taken back is none: whoever asks again gets what came after it, and follows on.
async fn a_stream_goes_on_after_an_end_was_taken_back(service: Service) {
    let api = service.open().await;
    for end in ["DELIVERED", "CANCELLED"] {
        let id = api.place("Ada").await;
        let path = format!("/orders/{id}/events");
        api.applies(&id, &["COOKING", end]).await;
        let last = api.get(&format!("/orders/{id}")).await.json()["events"].as_array().map_or(0, Vec::len);
        let over = api.get(&format!("{path}?after={last}")).await;
        assert_eq!((over.status.as_u16(), over.body.len()), (204, 0), "{end}");
        let mut whole = Stream::open(&api, &path, None).await;
        for _ in 0..last {
            whole.event().await;
        }
        whole.end().await;
        let mut rest = Stream::open(&api, &format!("{path}?after={}", last - 1), None).await;
        assert_eq!(rest.event().await.1["event"], end);
        rest.end().await;

        api.applies(&id, &["REVERTED"]).await;
        // An end in the middle of what was not seen is none either.
        let mut early = Stream::open(&api, &path, Some("2")).await;
        while early.event().await.1["event"] != "REVERTED" {}
        let mut stream = Stream::open(&api, &path, Some(&last.to_string())).await;
        let (seq, event) = stream.event().await;
        assert_eq!((usize::try_from(seq).ok(), &event["event"]), (Some(last + 1), &json!("REVERTED")));
        // It has no end until there is one.
        api.applies(&id, &["READY"]).await;
        for stream in [&mut stream, &mut early] {
            assert_eq!(stream.event().await.1["event"], "READY");
        }
        drop(early);
        api.applies(&id, &["DELIVERED"]).await;
        while stream.event().await.1["event"] != "DELIVERED" {}
        stream.end().await;
        // Read from the start, the first end is passed over.
        let mut whole = Stream::open(&api, &path, None).await;
        let found = api.get(&format!("/orders/{id}")).await.json();
        for expected in told(&found) {
            assert_eq!(whole.event().await, expected);
        }
        whole.end().await;
    }
}

/// Promise 8: who was away misses nothing. What another replica writes is seen without a word from it.
async fn a_report_made_elsewhere_is_seen(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let path = format!("/orders/{id}/events");
    let mut streams = [Stream::open(&api, &path, None).await, Stream::open(&api, &path, Some("2")).await];
    for _ in 0..2 {
        streams[0].event().await;
    }
    let order_id = id.parse().expect("an id");
    let elsewhere = async |event: EventKind| {
        let report = Report { note: Some("from afar".to_owned()), ..Report::of(event, Source::Kitchen) };
        let report = OrderReport { order_id, report, if_match: None };
        let reported = api.store.report(&[report], &Rules::default()).await.expect("reports");
        assert!(matches!(reported[0].outcome, ReportOutcome::Applied(..)), "{reported:?}");
    };
    for (event, added) in [
        (EventKind::Ready, 1),
        (EventKind::Reached(Status::OutForDelivery), 3),
        (EventKind::Reverted, 1),
        (EventKind::Reached(Status::Delivered), 4),
    ] {
        elsewhere(event).await;
        for stream in &mut streams {
            for n in 1..=added {
                let (_, heard) = stream.event().await;
                if n == added {
                    assert_eq!(
                        (&heard["event"], &heard["meta"]["note"]),
                        (&json!(event), &json!("from afar"))
                    );
                }
            }
        }
    }
    for stream in &mut streams {
        stream.end().await;
    }
}

/// Timers and people take turns, and the stream tells it in the order in which it happened.
async fn steps_of_timers_and_reports_are_told_in_one_order(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let mut stream = Stream::open(&api, &format!("/orders/{id}/events?after=2"), None).await;
    step(&api, 3).await;
    api.applies(&id, &["READY", "REVERTED", "DELAYED"]).await;
    step(&api, 604).await;
    api.clock.advance(Duration::from_secs(1));
    api.applies(&id, &["DELIVERED"]).await;
    let mut kinds = Vec::new();
    while kinds.last() != Some(&json!("DELIVERED")) {
        kinds.push(stream.event().await.1["event"].clone());
    }
    stream.end().await;
    let expected = [
        "PREPARING",
        "READY",
        "REVERTED",
        "DELAYED",
        "PREPARING",
        "COOKING",
        "OUT_FOR_DELIVERY",
        "DELIVERED",
    ];
    assert_eq!(kinds, expected);
}
