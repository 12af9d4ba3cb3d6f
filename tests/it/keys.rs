//! Keys, from the command that makes them to the service that asks for them.

use std::{path::Path, process::Output, time::Duration};

use base64::{Engine as _, engine::general_purpose};
use order_tracker::keys::ApiKey;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::Message;
use tokio::time::Instant;

use crate::{
    cli::{complaint, run},
    database::Database,
    harness::{Service, details, eventually, folder},
    kafka::{DLQ, EVENTS, Kafka, TOPIC},
    stack::Stack,
};

/// What a revoked key has left.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);
const AUTH: (&str, &str) = ("AUTH", "keys");

/// Runs `keys` on a database and answers what it printed.
async fn keys(database: &[(&str, &str)], arguments: &[&str]) -> String {
    let arguments = [&["keys"], arguments].concat();
    let Output { status, stdout, stderr } = run(&arguments, database).await;
    let told = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success(), "{arguments:?}: {told}");
    let lines = usize::from(arguments[1] == "create");
    assert_eq!(told.lines().count(), lines, "{arguments:?}: {told}");
    assert!(!told.contains("otk_"), "{told}");
    String::from_utf8(stdout).expect("text")
}

async fn create(database: &[(&str, &str)], name: &str, role: &str) -> Value {
    let printed = keys(database, &["create", "--name", name, "--role", role, "--json"]).await;
    serde_json::from_str(&printed).unwrap_or_else(|_| panic!("not JSON: {printed}"))
}

async fn listed(database: &[(&str, &str)]) -> Vec<Value> {
    serde_json::from_str(&keys(database, &["list", "--json"]).await).expect("a list")
}

fn key(made: &Value) -> &str {
    made["key"].as_str().expect("a key")
}

async fn asked(service: &Service, key: &str) -> StatusCode {
    let request = service.request(Method::GET, "/orders").bearer_auth(key);
    request.send().await.expect("an answer").status()
}

async fn answers(service: &Service, key: &str, status: StatusCode) {
    eventually(status.as_str(), async || (asked(service, key).await == status).then_some(())).await;
}

/// From before the first start to the end of a key, beside the running service.
///
/// Promise 9: who may not, can't.
#[tokio::test]
async fn keys_are_made_used_and_revoked_beside_a_running_service() {
    let data = folder();
    let home = data.path().join("data");
    let database = [("DATA_DIR", home.to_str().expect("text"))];
    let first = create(&database, "  site ", "shop").await;
    assert_eq!((first["name"].as_str(), first["role"].as_str()), (Some("site"), Some("shop")));
    assert!(key(&first).parse::<ApiKey>().is_ok(), "{first}");
    let service = Service::start_in(&home, &[AUTH]).await;
    answers(&service, key(&first), StatusCode::OK).await;
    assert_eq!(service.get("/orders").await.status(), 401);
    let bare = keys(&database, &["create", "--name", "office", "--role", "staff"]).await;
    let second = bare.strip_suffix('\n').expect("a line");
    assert_eq!(bare.lines().count(), 1);
    answers(&service, second, StatusCode::OK).await;
    // A slip of the finger, and a key of nobody.
    let stranger = ApiKey::random(&mut rand::rng());
    for wrong in [&second[..40], stranger.reveal()] {
        assert_eq!(asked(&service, wrong).await, 401);
    }

    let record = eventually("its use is noted", async || {
        let first = listed(&database).await.swap_remove(0);
        (first["last_used_at"] != Value::Null).then_some(first)
    })
    .await;
    let expected = json!({"id": first["id"], "name": "site", "role": "shop", "created_at": record["created_at"],
        "last_used_at": record["last_used_at"], "revoked_at": null});
    assert_eq!(record, expected);
    let revoked = Instant::now();
    let told = keys(&database, &["revoke", "site"]).await;
    assert!(told.contains("revoked 2") && told.contains(record["id"].as_str().expect("an id")), "{told}");
    answers(&service, key(&first), StatusCode::UNAUTHORIZED).await;
    assert!(revoked.elapsed() < REVOKED_WITHIN, "{:?}", revoked.elapsed());
    assert_eq!(asked(&service, second).await, 200, "no other ends");
    let again = keys(&database, &["revoke", record["id"].as_str().expect("an id"), "--json"]).await;
    let again: Value = serde_json::from_str(&again).expect("JSON");
    assert_eq!(again, listed(&database).await[0]);
    assert_eq!(create(&database, "site", "shop").await["name"], "site", "the name is free");
    assert_eq!(keys(&database, &["list"]).await.lines().count(), 3);
    service.stop().await;
}

/// Each is one line, and says what is allowed.
#[tokio::test]
async fn what_is_wrong_with_a_key_is_said_in_a_line() {
    let data = folder();
    let database = [("DATA_DIR", data.path().to_str().expect("text"))];
    let nowhere = complaint(&["keys", "list"], &database, 1).await;
    assert!(nowhere.contains("there is no orders.db"), "{nowhere}");
    create(&database, "site", "shop").await;
    let make = |name: &'static str, role: &'static str| ["keys", "create", "--name", name, "--role", role];
    for (name, role, code, words) in [
        ("site", "shop", 1, "\"site\" already"),
        (" site ", "staff", 1, "\"site\" already"),
        ("till", "boss", 2, "must be one of shop, kitchen, courier, reader, staff, admin"),
        (" ", "shop", 2, "must be 1 to 64 characters"),
        ("a\u{7}", "shop", 2, "must be 1 to 64 characters"),
    ] {
        let said = complaint(&make(name, role), &database, code).await;
        assert!(said.contains(words), "{said}");
    }
    let unknown = complaint(&["keys", "revoke", "till"], &database, 1).await;
    assert!(unknown.contains("no key has the id or the name \"till\""), "{unknown}");
    for arguments in [&make("till", "shop")[..], &["keys", "list"], &["keys", "revoke", "site"]] {
        let away = complaint(arguments, &[("PG_DSN", "postgres://nobody@127.0.0.1:9/none")], 1).await;
        assert!(away.contains("127.0.0.1:9"), "{away}");
        let both = [("PG_DSN", "postgres://nobody@127.0.0.1:9/none"), ("PG_DSN_FILE", "x")];
        complaint(arguments, &both, 2).await;
    }
}

/// All bytes of the files in a folder.
fn bytes_in(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path());
    files.map(|path| (path.display().to_string(), std::fs::read(&path).expect("bytes"))).collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Sends these in place of keys wherever a service takes one; answers all that it said.
async fn answers_to(service: &Service, sent: &[&str]) -> String {
    let mut shown = String::new();
    for sent in sent {
        for path in ["/orders", "/readyz", "/metrics", "/", "/events"] {
            let answer =
                service.request(Method::GET, path).bearer_auth(sent).send().await.expect("an answer");
            shown += &answer.text().await.expect("text");
        }
        let order = service.request(Method::POST, "/orders").bearer_auth(sent).json(&details("pizza"));
        let order = order.header("idempotency-key", "till-7").send().await.expect("an answer");
        let text = order.text().await.expect("text");
        let placed: Value = serde_json::from_str(&text).expect("JSON");
        let events = format!("/orders/{}/events", placed["order_id"].as_str().unwrap_or("ORD-0"));
        let report =
            service.request(Method::POST, &events).bearer_auth(sent).json(&json!({"event": "READY"}));
        shown += &(text + &report.send().await.expect("an answer").text().await.expect("text"));
    }
    shown
}

/// All that lies on the service's topics, once there are so many messages on each.
async fn on_topics(service: &Service, least: [(&str, i64); 3]) -> Vec<(String, Vec<u8>)> {
    let (kafka, mut found) = (Kafka::of(service), Vec::new());
    for (topic, least) in least {
        let count = async || kafka.counts(topic).await.into_iter().sum::<i64>();
        eventually(topic, async || (count().await >= least).then_some(())).await;
        for Message { key, value, headers, .. } in kafka.all(topic).await {
            let mut bytes = value.unwrap_or_default();
            bytes.extend(key.into_iter().flat_map(String::into_bytes));
            bytes.extend(headers.into_iter().flat_map(|(name, value)| (name + &value).into_bytes()));
            found.push((topic.to_owned(), bytes));
        }
    }
    found
}

/// Promise 9: who may not, can't. A key stands nowhere: not in the database, its WAL, a topic, the log, or what is printed
/// later; nor does what is kept of it, outside the database.
#[tokio::test]
async fn no_key_is_found_in_database_topics_log_and_pages() {
    let data = folder();
    let database = [("DATA_DIR", data.path().to_str().expect("text"))];
    let made = create(&database, "office", "staff").await;
    let good = key(&made).to_owned();
    let wrong = ApiKey::random(&mut rand::rng());
    let service = Service::start_in(data.path(), &[AUTH, ("RUST_LOG", "debug,sqlx=debug")]).await;
    answers(&service, &good, StatusCode::OK).await;
    let sent = [good.as_str(), wrong.reveal(), &good[..40], &format!("{good}x")];
    let mut shown = answers_to(&service, &sent).await;
    Kafka::of(&service).put(Some("x"), Some(b"no order")).await;
    let record = listed(&database).await;
    shown += &Value::from(record).to_string();
    shown += &keys(&database, &["list"]).await;
    // CREATED, PLACED and what was reported under the key's name.
    let topics = on_topics(&service, [(TOPIC, 2), (EVENTS, 3), (DLQ, 1)]).await;
    assert!(topics.iter().any(|(name, bytes)| name == EVENTS && holds(bytes, b"\"by\":\"office\"")));
    let (logged, files) = (service.logged(), bytes_in(data.path()));
    assert!(files.iter().any(|(name, _)| name.ends_with("-wal")), "while it runs");
    let hash = good.parse::<ApiKey>().expect("a key").hash().0;
    let hex: String = hash.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let encoded = [
        general_purpose::STANDARD.encode(hash),
        general_purpose::URL_SAFE_NO_PAD.encode(hash),
        hex.to_uppercase(),
        hex,
    ];
    let told = [("log", logged), ("answers", shown)].map(|(name, text)| (name.to_owned(), text.into_bytes()));
    let written: Vec<(String, Vec<u8>)> = told.into_iter().chain(topics).collect();
    for secret in [&good, wrong.reveal()] {
        for part in [secret, &secret[4..34], &secret[4..20]] {
            for (name, bytes) in written.iter().chain(&files) {
                assert!(!holds(bytes, part.as_bytes()), "{part} in {name}");
            }
        }
    }
    for (name, bytes) in &written {
        assert!(encoded.iter().all(|hash| !holds(bytes, hash.as_bytes())), "the hash in {name}");
        assert!(!holds(bytes, &hash), "the hash in {name}");
    }
    assert!(files.iter().any(|(_, bytes)| holds(bytes, &hash)), "it is kept in the database");
    service.stop().await;
}

/// Promise 9: who may not, can't. A key that is revoked is out on all replicas in time.
#[tokio::test]
#[cfg_attr(not(all(with_postgres, with_kafka)), ignore = "left out: needs PG_DSN and KAFKA_BROKERS")]
async fn a_revoked_key_is_out_on_all_replicas_on_postgres() {
    let stack = Stack::make().await;
    let database = [("PG_DSN", stack.dsn.as_str())];
    // The schema is made by whoever comes first.
    let made = create(&database, "office", "staff").await;
    let brokers = crate::stack::variable("KAFKA_BROKERS");
    let settings = [stack.settings(&brokers, "0s"), vec![AUTH]].concat();
    let (one, other) = tokio::join!(Service::start(&settings), Service::start(&settings));
    for replica in [&one, &other] {
        answers(replica, key(&made), StatusCode::OK).await;
    }
    keys(&database, &["revoke", made["id"].as_str().expect("an id")]).await;
    let revoked = Instant::now();
    for replica in [&one, &other] {
        answers(replica, key(&made), StatusCode::UNAUTHORIZED).await;
    }
    assert!(revoked.elapsed() < REVOKED_WITHIN, "{:?}", revoked.elapsed());
    one.stop().await;
    other.stop().await;
}

/// A role that may not is told which right it lacks.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn who_may_not_make_keys_is_told_which_right_is_missing_on_postgres() {
    let role = Database::make().await;
    let dsn = role.dsn();
    let database = [("PG_DSN", dsn.as_str())];
    create(&database, "office", "staff").await;
    role.inside(&["REVOKE INSERT, UPDATE ON api_keys FROM {}"]).await;
    let rights =
        "the role lacks the right to INSERT on api_keys, UPDATE on api_keys (revoked_at) (docs/roles.sql)";
    let made = complaint(&["keys", "create", "--name", "till", "--role", "shop"], &database, 1).await;
    assert!(made.contains("can't make the key: ") && made.contains(rights), "{made}");
    let revoked = complaint(&["keys", "revoke", "office"], &database, 1).await;
    assert!(revoked.contains("can't revoke the key: ") && revoked.contains(rights), "{revoked}");
    assert_eq!(listed(&database).await.len(), 1);
}
