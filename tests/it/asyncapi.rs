//! `docs/asyncapi.yaml` says what is on the topics, and shows what was.

use std::{collections::BTreeMap, fs, path::Path};

use order_tracker::order::{RejectReason, Size, Status};
use serde_json::{Value, json};

use crate::{
    harness::Service,
    kafka::{DLQ, Kafka, Letter, TOPIC, foreign},
};

const STRANGER: &str = "ORD-01ARZ3NDEK0000000000000000";

fn document() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/asyncapi.yaml");
    yaml_serde::from_str(&fs::read_to_string(path).expect("text")).expect("YAML")
}

/// Checks a part of a message against the schema at a path.
fn keeps_to(document: &Value, schema: &str, part: &Value) {
    let schema = json!({"$ref": format!("#{schema}"), "components": document["components"]});
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator.iter_errors(part).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new(), "{part}");
}

fn is_described(document: &Value, name: &str, letter: &Letter) {
    let message = format!("/components/messages/{name}");
    let told = &document["components"]["messages"][name];
    keeps_to(document, &format!("{message}/headers"), &json!(letter.headers));
    let headers = |value: &Value| value.as_object().expect("headers").keys().cloned().collect::<Vec<_>>();
    let sent: BTreeMap<_, _> = letter.headers.iter().collect();
    assert!(headers(&told["headers"]["properties"]).iter().eq(sent.into_keys()), "{letter:?}");
    assert!(told["examples"][0]["headers"].is_object(), "{name} has an example");
    keeps_to(document, &format!("{message}/headers"), &told["examples"][0]["headers"]);
}

/// The example with this letter's own id and moment.
fn example_of(document: &Value, letter: &Letter) -> Value {
    let example = &document["components"]["messages"]["orderPlaced"]["examples"][0];
    let (told, sent) = (&example["payload"], letter.json());
    let text = json!({"headers": example["headers"], "payload": told}).to_string();
    let own = |text: String, field: &str| {
        text.replace(told[field].as_str().expect("text"), sent[field].as_str().expect("text"))
    };
    serde_json::from_str(&own(own(text, "order_id"), "created_at")).expect("JSON")
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
    keeps_to(&document, payload, &foreign(STRANGER));
    assert_eq!(json!({"headers": order.headers, "payload": order.json()}), example_of(&document, &order));
    let told = document["components"]["schemas"]["order"]["properties"].as_object().expect("fields");
    assert!(told.keys().eq(order.json().as_object().expect("fields").keys()), "{told:?}");

    kafka.put(Some("another"), Some(foreign(STRANGER).to_string().as_bytes())).await;
    let letter = kafka.read(DLQ, 1).await.pop().expect("a letter");
    is_described(&document, "deadLetter", &letter);
    let example = &document["components"]["messages"]["deadLetter"]["examples"][0]["headers"];
    for header in ["dlq_reason", "dlq_detail", "dlq_topic"] {
        assert_eq!(example[header], letter.headers[header]);
    }
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
