//! Commands show the key that is set, to the service and to nobody else, and tell what it says of it.

use serde_json::{Value, json};

use crate::{
    cli::{complaint, run},
    double::{Double, answer, json as answered},
    harness::{Service, binary, ended, folder},
};

const ID: &str = "ORD-01ARZ3NDEK0000000000000000";
/// A key, by its checksum.
const KEY: &str = "otk_000000000000000000000000000000_2YksSr";
const PLACE: [&str; 8] =
    ["order", "create", "--customer-name", "Ada", "--address", "1 High St", "--item", "pizza"];
const FOLLOW: [&str; 2] = ["events", "--follow"];

/// Every command that asks a running service for something that may need a key.
const ASKING: [&[&str]; 10] = [
    &PLACE,
    &["order", "list"],
    &["order", "get", ID],
    &["order", "watch", ID],
    &["order", "report", ID, "COOKING"],
    &["order", "cancel", ID, "--reason", "fraud"],
    &["order", "explain", ID],
    &["events"],
    &FOLLOW,
    &["simulate", "--count", "9", "--concurrency", "1"],
];

fn refusal(status: &str, code: &str, detail: &str) -> String {
    let problem = json!({
        "type": format!("/problems/{code}"), "title": "No", "status": 401, "detail": detail, "instance": "/x",
        "code": code, "request_id": "r",
    });
    answer(status, &["content-type: application/problem+json"], &problem.to_string())
}

fn not_valid() -> String {
    refusal("401 Unauthorized", "key-not-valid", "this key is mistyped, unknown or revoked")
}

async fn told(answers: Vec<String>, command: &[&str], key: &str) -> (String, Vec<String>) {
    let service = Double::start(answers).await;
    let settings = [("ORDER_TRACKER_URL", service.url.as_str()), ("ORDER_TRACKER_KEY", key)];
    let line = complaint(command, &settings, 1).await;
    assert!(!line.contains("otk_"), "{line}");
    (line, service.asked())
}

/// Promise 6: it says what is wrong. What no time heals is told at once, in one line.
#[tokio::test]
async fn who_is_refused_is_told_why_and_asks_no_more() {
    let required =
        || refusal("401 Unauthorized", "key-required", "send a key: Authorization: Bearer otk_...");
    let role = || refusal("403 Forbidden", "not-for-this-role", "a key of role reader may not place orders");
    let unset =
        "order-tracker: the service asks for a key: set ORDER_TRACKER_KEY (order-tracker keys create)";
    for command in ASKING {
        for (answer, key, expected) in [
            (required(), "", unset),
            (not_valid(), KEY, "order-tracker: this key is mistyped, unknown or revoked (ORDER_TRACKER_KEY)"),
            (role(), KEY, "order-tracker: a key of role reader may not place orders"),
        ] {
            let (line, asked) = told(vec![answer], command, key).await;
            assert_eq!((line.as_str(), asked.len()), (expected, 1), "{command:?} {asked:?}");
            let shown = asked[0].contains(&format!("\r\nauthorization: Bearer {KEY}\r\n"));
            assert_eq!(shown, !key.is_empty(), "{command:?} {}", asked[0]);
        }
    }
    // A user in the address is for what stands in front, and no key.
    let service = Double::start(vec![not_valid()]).await;
    let address = service.url.replace("http://", "http://tom:hunter2@");
    assert_eq!(complaint(&["order", "list", "--url", &address], &[], 1).await, unset);
    let both = [("ORDER_TRACKER_KEY", KEY)];
    assert_eq!(
        complaint(&["order", "list", "--url", &address], &both, 2).await,
        "order-tracker: the address names a user and ORDER_TRACKER_KEY a key: a request takes one"
    );
}

#[tokio::test]
async fn programs_get_the_refusal_as_it_came() {
    for command in ASKING {
        let service = Double::start(vec![not_valid()]).await;
        let settings = [("ORDER_TRACKER_URL", service.url.as_str()), ("ORDER_TRACKER_KEY", KEY)];
        let line = complaint(&[command, &["--json"]].concat(), &settings, 1).await;
        let problem: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(problem["code"], "key-not-valid", "{command:?} {line}");
    }
}

/// A key that is revoked while somebody follows ends it: nobody asks for ever.
#[tokio::test]
async fn who_follows_ends_with_the_key() {
    let stream = |frame: &str| answer("200 OK", &["content-type: text/event-stream"], frame);
    let page = json!({"events": [], "next": "3", "caught_up": true});
    let expected = "order-tracker: this key is mistyped, unknown or revoked (ORDER_TRACKER_KEY)";
    let beat = "id: 4\nevent: beat\ndata: {}\n\n";
    let (line, asked) = told(vec![answered(&page), stream(beat), not_valid()], &FOLLOW, KEY).await;
    assert_eq!((line.as_str(), asked.len()), (expected, 3));
    let service = Double::start(vec![stream("retry: 2000\n\n"), not_valid()]).await;
    let watched = run(&["order", "watch", ID, "--url", &service.url], &[("ORDER_TRACKER_KEY", KEY)]).await;
    let said = String::from_utf8(watched.stderr).expect("text");
    assert_eq!((watched.status.code(), said.lines().last()), (Some(1), Some(expected)), "{said}");
    assert_eq!(service.asked().len(), 2);
}

/// Promise 6: it says what is wrong, and nothing that is nobody's business. A cut key is nearly a key.
#[tokio::test]
async fn what_is_no_key_is_sent_nowhere_and_never_shown() {
    let service = Double::start(vec![answered(&json!([]))]).await;
    let swapped = KEY.replace("_0", "_1");
    for wrong in [&KEY[..40], &KEY[1..], &swapped, "hunter2", &format!("Bearer {KEY}"), "\u{fc}\n"] {
        for command in ASKING {
            let settings = [("ORDER_TRACKER_URL", service.url.as_str()), ("ORDER_TRACKER_KEY", wrong)];
            let line = complaint(command, &settings, 2).await;
            assert_eq!(
                line,
                "order-tracker: ORDER_TRACKER_KEY holds no key, or one that is mistyped or cut off"
            );
        }
    }
    assert_eq!(service.asked(), Vec::<String>::new());
    // From a file it often comes with the end of its line.
    let settings = [("ORDER_TRACKER_URL", service.url.as_str()), ("ORDER_TRACKER_KEY", &format!("{KEY}\n"))];
    let listed = run(&["order", "list", "--json"], &settings).await;
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    assert!(service.asked()[0].contains(&format!("authorization: Bearer {KEY}\r\n")));
}

/// Containers ask whether it lives, and have no key; no help shows the one that is set.
#[tokio::test]
async fn who_needs_no_key_shows_none() {
    let service = Double::start(vec![answered(&json!({"status": "ok"}))]).await;
    let port = service.url.rsplit(':').next().expect("a port");
    for key in [KEY, "hunter2"] {
        let checked = run(&["healthcheck"], &[("APP_PORT", port), ("ORDER_TRACKER_KEY", key)]).await;
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    }
    assert!(service.asked().iter().all(|request| !request.to_lowercase().contains("authorization")));
    for command in [&["order", "list", "--help"][..], &["simulate", "--help"], &["--help"], &["man"]] {
        let help = run(command, &[("ORDER_TRACKER_KEY", KEY)]).await;
        let shown = [help.stdout, help.stderr].concat();
        assert!(!String::from_utf8_lossy(&shown).contains(KEY), "{command:?}");
    }
}

/// Promise 9: who may not, can't. The same with a service that asks.
#[tokio::test]
async fn a_key_opens_what_its_role_may_until_it_is_revoked() {
    let data = folder();
    let at = [("DATA_DIR", data.path().to_str().expect("text"))];
    let key = async |role: &str| {
        let made = run(&["keys", "create", "--name", role, "--role", role], &at).await;
        assert_eq!(made.status.code(), Some(0), "{made:?}");
        String::from_utf8(made.stdout).expect("text").trim_end().to_owned()
    };
    let (staff, reader) = (key("staff").await, key("reader").await);
    let service = Service::start_in(data.path(), &[("AUTH", "keys"), ("STAGE_DELAYS", "1h")]).await;
    let url = ("ORDER_TRACKER_URL", service.url.as_str());
    let (staff, reader) = ([url, ("ORDER_TRACKER_KEY", &staff)], [url, ("ORDER_TRACKER_KEY", &reader)]);

    let placed = run(&PLACE, &staff).await;
    assert_eq!(placed.status.code(), Some(0), "{placed:?}");
    let loaded = run(&["simulate", "--count", "5", "--reports", "--speed", "1000"], &staff).await;
    assert_eq!(loaded.status.code(), Some(0), "{loaded:?}");
    let line = complaint(&PLACE, &reader, 1).await;
    assert_eq!(line, "order-tracker: a key of role reader may not place orders");
    let listed = run(&["order", "list"], &reader).await;
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");

    let follower = tokio::spawn(ended(binary(&FOLLOW, &reader)));
    let revoked = run(&["keys", "revoke", "reader"], &at).await;
    assert_eq!(revoked.status.code(), Some(0), "{revoked:?}");
    let left = follower.await.expect("it ends");
    let said = String::from_utf8(left.stderr).expect("text");
    let expected = "order-tracker: this key is mistyped, unknown or revoked (ORDER_TRACKER_KEY)";
    assert_eq!((left.status.code(), said.lines().last()), (Some(1), Some(expected)), "{said}");
    service.stop().await;
}
