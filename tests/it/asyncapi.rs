//! `docs/asyncapi.yaml` says what is on the topics, and shows what was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use order_tracker::order::{
    Cursor, EventKind, EventMessage, FeedEvent, FeedMeta, OrderFacts, RejectReason, Size, Status, Timestamp,
};
use serde_json::{Value, json};
use testkit::Message;

use crate::{
    harness::{Service, binary, ended},
    kafka::{DLQ, EVENTS, Kafka, TOPIC, foreign},
};

const FOREIGN: &str = "ORD-01ARZ3NDEK0000000000000000";

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("text")
}

/// With the schemas that lie beside it in their places.
fn document() -> Value {
    fn bring_in(part: &mut Value) {
        let file = part.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("./"));
        if let Some(file) = file {
            *part = serde_json::from_str(&read(&format!("docs/{file}"))).expect("JSON");
        }
        match part {
            Value::Object(fields) => fields.values_mut().for_each(bring_in),
            Value::Array(parts) => parts.iter_mut().for_each(bring_in),
            _ => {}
        }
    }
    let mut document = yaml_serde::from_str(&read("docs/asyncapi.yaml")).expect("YAML");
    bring_in(&mut document);
    document
}

/// Checks a part of a message against the schema at a path.
fn keeps_to(document: &Value, schema: &str, part: &Value) {
    let schema = json!({"$ref": format!("#{schema}"), "components": document["components"]});
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator.iter_errors(part).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new(), "{part}");
}

fn is_described(document: &Value, name: &str, message: &Message) {
    let place = format!("/components/messages/{name}");
    let told = &document["components"]["messages"][name];
    keeps_to(document, &format!("{place}/headers"), &json!(message.headers));
    let headers = |value: &Value| value.as_object().expect("headers").keys().cloned().collect::<Vec<_>>();
    let sent: BTreeMap<_, _> = message.headers.iter().collect();
    assert!(headers(&told["headers"]["properties"]).iter().eq(sent.into_keys()), "{message:?}");
    assert!(told["examples"][0]["headers"].is_object(), "{name} has an example");
    for example in told["examples"].as_array().expect("examples") {
        keeps_to(document, &format!("{place}/headers"), &example["headers"]);
        if let Some(payload) = example.get("payload") {
            keeps_to(document, &format!("{place}/payload"), payload);
        }
    }
}

/// An example with this message's own id and moments.
fn example_of(example: &Value, moments: &[&str], message: &Message) -> Value {
    let (told, sent) = (&example["payload"], message.json());
    let text = json!({"headers": example["headers"], "payload": told}).to_string();
    let own = |text: String, field: &&str| {
        let [told, sent] =
            [told, &sent].map(|from| from.pointer(field).and_then(Value::as_str).expect("text"));
        text.replace(told, sent)
    };
    serde_json::from_str(&["/order_id"].iter().chain(moments).fold(text, own)).expect("JSON")
}

fn whole(message: &Message) -> Value {
    json!({"headers": message.headers, "payload": message.json()})
}

#[tokio::test]
async fn the_topics_are_as_their_document_says() {
    let document = document();
    let service = Service::start(&[("STAGE_DELAYS", "0s")]).await;
    let kafka = Kafka::of(&service);
    service.place("pizza").await;
    let order = kafka.read(TOPIC, 1).await.pop().expect("a message");
    is_described(&document, "orderPlaced", &order);
    let payload = "/components/messages/orderPlaced/payload";
    keeps_to(&document, payload, &order.json());
    keeps_to(&document, payload, &foreign(FOREIGN));
    let example = &document["components"]["messages"]["orderPlaced"]["examples"][0];
    assert_eq!(whole(&order), example_of(example, &["/created_at"], &order));
    let told = document["components"]["schemas"]["order"]["properties"].as_object().expect("fields");
    assert!(told.keys().eq(order.json().as_object().expect("fields").keys()), "{told:?}");

    for event in kafka.read(EVENTS, 6).await {
        is_described(&document, "orderEvent", &event);
        keeps_to(&document, "/components/messages/orderEvent/payload", &event.json());
    }

    kafka.put(Some("another"), Some(foreign(FOREIGN).to_string().as_bytes())).await;
    let dead_letter = kafka.read(DLQ, 1).await.pop().expect("a dead letter");
    is_described(&document, "deadLetter", &dead_letter);
    let example = &document["components"]["messages"]["deadLetter"]["examples"][0]["headers"];
    for header in ["dlq_reason", "dlq_detail", "dlq_topic"] {
        assert_eq!(example[header], dead_letter.headers[header]);
    }
}

/// Each example is what a life with reports has put on the topic: what was said, skipped, taken back and cancelled.
#[tokio::test]
async fn events_are_as_their_examples_say() {
    let document = document();
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let id = service.place("pizza").await;
    for report in [
        json!({"event": "DELAYED", "source": "kitchen", "minutes": 10, "reason": "too_busy", "station": "grill",
            "note": "the oven", "occurred_at": "2026-01-02T03:05:09Z", "id": "tap 1"}),
        json!({"event": "COOKING", "source": "kitchen"}),
        json!({"event": "REVERTED", "source": "staff", "reverts": 5}),
        json!({"event": "CANCELLED", "source": "customer", "reason": "customer_request"}),
    ] {
        let request = service.request(reqwest::Method::POST, &format!("/orders/{id}/events")).json(&report);
        assert_eq!(request.send().await.expect("answers").status(), 201, "{report}");
    }
    let events = Kafka::of(&service).read(EVENTS, 7).await;
    let examples = document["components"]["messages"]["orderEvent"]["examples"].as_array().expect("examples");
    assert_eq!(examples.len(), 6, "all but PLACED");
    for example in examples {
        let event = events.iter().find(|event| event.json()["seq"] == example["payload"]["seq"]);
        let event = event.unwrap_or_else(|| panic!("{example} was not sent"));
        is_described(&document, "orderEvent", event);
        keeps_to(&document, "/components/messages/orderEvent/payload", &event.json());
        assert_eq!(whole(event), example_of(example, &["/timestamp", "/order/created_at"], event));
    }
}

/// The one with this header.
fn with_header(messages: Vec<Message>, header: &str) -> Message {
    let mut messages = messages.into_iter();
    messages.find(|message| message.headers.contains_key(header)).expect("a message with it")
}

/// What a dead letter leaves behind on both topics when it is requeued.
#[tokio::test]
async fn a_requeue_is_as_the_document_says() {
    let document = document();
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let kafka = Kafka::of(&service);
    let value = foreign(FOREIGN);
    kafka.put(Some("another"), Some(value.to_string().as_bytes())).await;
    let dead_letter = kafka.read(DLQ, 1).await.pop().expect("a dead letter");
    let requeue = binary(&["dead-letters", "requeue", "--all"], &[("KAFKA_BROKERS", &service.brokers)]);
    assert!(ended(requeue).await.status.success());

    let again = with_header(kafka.read(TOPIC, 2).await, "requeued_from");
    is_described(&document, "putBack", &again);
    assert_eq!((again.key.as_deref(), again.json()), (Some("another"), value));
    // Beside it the note and, since the key is as wrong as before, a new dead letter.
    let note = with_header(kafka.read(DLQ, 3).await, "dlq_requeued");
    is_described(&document, "requeued", &note);
    assert_eq!((note.key, note.value), (dead_letter.key, Some(Vec::new())));
    assert_eq!(note.headers["dlq_requeued"], again.headers["requeued_from"]);
    for (name, sent) in [("putBack", &again.headers), ("requeued", &note.headers)] {
        assert_eq!(document["components"]["messages"][name]["examples"][0]["headers"], json!(sent), "{name}");
    }
}

/// Others need no headers, and the timeline tells where their order was read.
#[tokio::test]
async fn an_order_of_others_is_admitted_as_the_document_says() {
    let document = document();
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let message = &document["components"]["messages"]["orderOfOthers"];
    assert!(message["headers"].is_null(), "none are needed");
    let example = &message["examples"][0]["payload"];
    assert_eq!(*example, foreign(FOREIGN));
    keeps_to(&document, "/components/messages/orderOfOthers/payload", example);
    let kafka = Kafka::of(&service);
    let (partition, offset) = kafka.put(Some(FOREIGN), Some(example.to_string().as_bytes())).await;
    service.reached(FOREIGN, "PLACED").await;
    let meta = service.json(&format!("/orders/{FOREIGN}")).await["events"][0]["meta"].take();
    let expected = json!({"source": "topic", "topic": TOPIC, "partition": partition, "offset": offset});
    assert_eq!(meta, expected);
    let told = document["operations"]["admitOrder"]["description"].as_str().expect("text");
    let api = service.json("/openapi.json").await;
    let schema = &api["components"]["schemas"]["Event"]["properties"]["meta"];
    let whole = json!({"allOf": [schema], "components": api["components"]});
    assert!(jsonschema::is_valid(&whole, &meta), "{schema}");
    for word in meta.as_object().expect("fields").keys() {
        assert!(told.contains(&format!("`{word}`")) && schema["properties"].get(word).is_some(), "{word}");
    }
}

/// Each message is sent or received by somebody, on the channel that it is on.
#[test]
fn every_message_has_an_operation() {
    let document = document();
    let operations = document["operations"].as_object().expect("operations");
    let mut carried = BTreeSet::new();
    for (name, operation) in operations {
        let channel = operation["channel"]["$ref"].as_str().expect("a channel");
        for message in operation["messages"].as_array().unwrap_or_else(|| panic!("{name} names its messages"))
        {
            let message = message["$ref"].as_str().expect("a message");
            let message = message.strip_prefix(&format!("{channel}/messages/")).expect("of the channel");
            carried.insert(message.to_owned());
        }
    }
    let told = document["components"]["messages"].as_object().expect("messages");
    assert!(told.values().all(|message| message["payload"].is_object()), "AsyncAPI knows no other payload");
    assert!(carried.iter().eq(told.keys().collect::<BTreeSet<_>>()), "{carried:?}");
}

#[test]
fn choices_and_addresses_are_those_of_the_code() {
    let document = document();
    let properties = &document["components"]["schemas"]["order"]["properties"];
    assert_eq!(properties["size"]["enum"], json!(Size::ALL));
    assert_eq!(properties["status"]["enum"], json!(Status::ALL));
    let reasons = &document["components"]["messages"]["deadLetter"]["headers"]["properties"]["dlq_reason"];
    assert_eq!(reasons["enum"], json!(RejectReason::ALL.map(RejectReason::as_str)));
    assert_eq!(document["asyncapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["channels"]["orders"]["address"], TOPIC);
    assert_eq!(document["channels"]["deadLetters"]["address"], DLQ);
    assert_eq!(document["channels"]["orderEvents"]["address"], EVENTS);
}

/// Every `$ref` of the document leads somewhere.
#[test]
fn references_lead_somewhere() {
    fn walk(part: &Value, document: &Value, seen: &mut usize) {
        match part {
            Value::Object(fields) => {
                if let Some(Value::String(to)) = fields.get("$ref") {
                    assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to} is not there");
                    *seen += 1;
                }
                fields.values().for_each(|part| walk(part, document, seen));
            }
            Value::Array(parts) => parts.iter().for_each(|part| walk(part, document, seen)),
            _ => {}
        }
    }
    let (document, mut seen) = (document(), 0);
    walk(&document, &document, &mut seen);
    assert!(seen > 10, "only {seen} references");
}

/// An event of which everything is told.
fn full_event(event: EventKind) -> Value {
    let at = "2026-01-02T03:04:05.678Z".parse::<Timestamp>().expect("a moment");
    let meta = FeedMeta {
        source: Some("kitchen".to_owned()),
        by: Some("stove".to_owned()),
        occurred_at: Some(at),
        reason: Some("too_busy".to_owned()),
        station: Some("grill".to_owned()),
        minutes: Some(5),
        inferred: Some(true),
        reverts: Some(3),
        from: Some(Status::Cooking),
        to: Some(Status::Preparing),
        status: Some(Status::Cooking),
        topic: Some(TOPIC.to_owned()),
        partition: Some(0),
        offset: Some(7),
    };
    let place = (Cursor(9), FOREIGN.parse().expect("an id"), 4);
    let event = FeedEvent { meta: Some(meta), ..FeedEvent::new(place, event, at, None) };
    let order = OrderFacts { item: "ramen".to_owned(), size: Size::Large, created_at: at };
    serde_json::to_value(EventMessage { event, order }).expect("serialises")
}

/// Who was built for the first version reads the messages of this one, and each schema is whole: what a message holds is
/// described, what was described once still is, of the same type and required where it was.
#[test]
fn the_schema_of_events_stays_compatible() {
    fn still_there(before: &Value, now: &Value, place: &str) {
        assert_eq!(before["type"], now["type"], "{place} has changed its type");
        let required = |schema: &Value| -> BTreeSet<String> {
            let names = schema["required"].as_array().into_iter().flatten();
            names.map(|name| name.as_str().expect("a name").to_owned()).collect()
        };
        assert!(required(now).is_superset(&required(before)), "{place} may lack what it had to have");
        for (name, before) in before["properties"].as_object().into_iter().flatten() {
            still_there(before, &now["properties"][name], &format!("{place}.{name}"));
        }
    }
    let schema = |name: &str| -> Value { serde_json::from_str(&read(name)).expect("JSON") };
    let now = schema("docs/schemas/order-event.v1.json");
    // Never edited: it is what readers of the first version were given.
    let first = schema("tests/it/schemas/order-event.v1.0.json");
    still_there(&first, &now, "an event");
    for kind in EventKind::ALL {
        let mut message = full_event(kind);
        let names = |part: &Value| part.as_object().expect("fields").keys().cloned().collect::<BTreeSet<_>>();
        for (part, told) in [
            ("", &now["properties"]),
            ("/meta", &now["properties"]["meta"]["properties"]),
            ("/order", &now["properties"]["order"]["properties"]),
        ] {
            assert_eq!(names(message.pointer(part).expect("is there")), names(told), "{part}");
        }
        for meta in [true, false] {
            if !meta {
                message["meta"] = Value::Null;
            }
            for schema in [&first, &now] {
                let validator = jsonschema::validator_for(schema).expect("a schema");
                let errors: Vec<String> =
                    validator.iter_errors(&message).map(|error| error.to_string()).collect();
                assert_eq!(errors, Vec::<String>::new(), "{message}");
            }
        }
    }
}
