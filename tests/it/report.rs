//! `order report` and `order cancel`: against the real service, and against one that says what a test wants.

use serde_json::{Value, json};

use crate::{
    cli::{complaint, run, said},
    double::{Double, answer},
    harness::{Service, names},
};

const ID: &str = "ORD-01ARZ3NDEK0000000000000000";

/// A service whose orders wait for reports.
async fn waiting() -> Service {
    Service::start(&[("PROGRESSION", "reported"), ("STAGE_DELAYS", "1h")]).await
}

/// What `order <arguments>` says of an order of this service.
async fn order(service: &Service, arguments: &[&str]) -> String {
    said(&[&["order"], arguments, &["--url", &service.url]].concat()).await
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("not JSON: {text}"))
}

/// The last line of what is shown of an order.
fn last(text: &str) -> &str {
    text.lines().last().expect("a line")
}

/// The body of a request as it came.
fn body(request: &str) -> Value {
    json(request.split_once("\r\n\r\n").expect("a body").1)
}

/// Each kind of event is a line that says who said what; in any case, with dashes or underscores.
#[tokio::test]
async fn a_whole_life_is_reported_by_command() {
    let service = waiting().await;
    let id = service.place("pizza").await;
    for (arguments, expected) in [
        (&["Preparing", "--source", "kitchen"][..], " UTC  PREPARING          by kitchen"),
        (
            &["delayed", "--minutes", "10", "--reason", "Too-Busy", "--source", "KITCHEN"],
            "DELAYED            by kitchen, 10 more minutes, reason too_busy",
        ),
        (&["cooking", "--station", "oven 2"], "COOKING            by api, station oven 2"),
        (&["READY", "--note", "sauce is in the bag"], "READY              by api, note: sauce is in the bag"),
        (&["courier-assigned"], "COURIER_ASSIGNED   by api"),
        (&["COURIER-AT_pickup"], "COURIER_AT_PICKUP  by api"),
        (
            &["out-for-delivery", "--occurred-at", "2026-01-02T03:04:05Z"],
            "OUT_FOR_DELIVERY   by api, they say at 2026-01-02T03:04:05.000Z",
        ),
        (&["courier_at_door", "--source", "courier"], "COURIER_AT_DOOR    by courier"),
        (
            &["delivery_failed", "--reason", "undeliverable"],
            "DELIVERY_FAILED    by api, reason undeliverable",
        ),
        (&["delivered", "--source", "courier"], "DELIVERED          by courier"),
    ] {
        let told = order(&service, &[&["report", &id], arguments].concat()).await;
        let (line, rest) = told.split_once('\n').unwrap_or_else(|| panic!("{told}"));
        assert!(line.ends_with(expected), "{told}");
        assert!(rest.starts_with(&format!("{id}  ")) && rest.contains("  may be reported: "), "{told}");
    }
    let told = order(&service, &["report", &id, "REVERTED"]).await;
    assert!(
        told.contains("REVERTED           by api, takes back event 12, so it is OUT_FOR_DELIVERY again"),
        "{told}"
    );
    assert!(told.ends_with(&format!("{id}  OUT_FOR_DELIVERY  may be reported: DELIVERED, CANCELLED, READY, COURIER_ASSIGNED, COURIER_AT_PICKUP, COURIER_AT_DOOR, DELIVERY_FAILED, DELAYED, REVERTED")), "{told}");
    let told = order(&service, &["cancel", &id, "--reason", "fraud", "--source", "staff"]).await;
    assert!(told.contains("CANCELLED          by staff, reason fraud\n"), "{told}");

    let shown = order(&service, &["get", &id]).await;
    let watched = order(&service, &["watch", &id]).await;
    let timeline: Vec<&str> = shown.lines().skip(3).collect();
    assert_eq!(watched.lines().collect::<Vec<_>>(), timeline, "it ends with the cancel");
    assert_eq!(timeline.len(), 14, "{shown}");
    assert!(timeline[0].ends_with("CREATED            from http"), "{shown}");
    assert!(timeline[5].contains(" s  by api, note: sauce is in the bag"), "{shown}");
    let feed = said(&["events", "--url", &service.url]).await;
    assert!(
        last(&feed).ends_with(" 14  CANCELLED          CANCELLED         by staff, reason fraud"),
        "{feed}"
    );
    assert!(feed.contains("COOKING            COOKING           by api, station oven 2"), "{feed}");
    assert!(!feed.contains("sauce"), "a note is for those who work on the order: {feed}");
    service.stop().await;
}

/// What is skipped is inferred, what is known is ignored with exit code 0, what contradicts is told with what is allowed.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn what_becomes_of_a_report_is_said() {
    let service = waiting().await;
    let id = service.place("pizza").await;
    let told = order(&service, &["report", &id, "cooking", "--source", "kitchen"]).await;
    assert!(told.contains("PREPARING          by kitchen, inferred, since it was skipped\n"), "{told}");
    for (event, expected) in [
        ("COOKING", "it is COOKING already; nothing was changed"),
        ("PREPARING", "it is past PREPARING already, and COOKING now; nothing was changed"),
    ] {
        assert_eq!(order(&service, &["report", &id, event]).await, expected);
    }
    let ignored = json(&order(&service, &["report", &id, "COOKING", "--json"]).await);
    assert_eq!((&ignored["outcome"], &ignored["why"]), (&json!("ignored"), &json!("same")));

    order(&service, &["cancel", &id, "--reason", "kitchen-closed"]).await;
    let url = ["--url", service.url.as_str()];
    let ready = [&["order", "report", &id, "READY"], &url[..]].concat();
    let line = complaint(&ready, &[], 1).await;
    assert!(line.ends_with("; may be reported: REVERTED"), "{line}");
    let told = run(&[&ready[..], &["--json"]].concat(), &[]).await;
    let problem = json(std::str::from_utf8(&told.stderr).expect("text"));
    assert_eq!((&problem["code"], &problem["allowed"]), (&json!("order-finished"), &json!(["REVERTED"])));
    let explained = order(&service, &["explain", &id]).await;
    assert_eq!(last(&explained), "may be reported: REVERTED");

    for (arguments, code, expected) in [
        (&["report", &id, "CANCELLED"][..], 2, "reason is required for CANCELLED"),
        (&["report", &id, "DELAYED"], 2, "minutes is required for DELAYED"),
        (&["report", &id, "READY", "--occurred-at", "soon"], 2, "occurred_at must be a moment in RFC 3339"),
        (&["report", &id, "READY", "--note", "a\u{7}b"], 2, "note must not hold control characters"),
        (&["report", &id, "EATEN"], 2, "<EVENT>: \"EATEN\" is not valid: must be one of PREPARING, "),
        (&["report", &id, "PLACED"], 2, "must be one of PREPARING, "),
        (&["report", &id, "DELAYED", "--minutes", "241"], 2, "must be a whole number from 1 to 240"),
        (&["report", &id, "REVERTED", "--reverts", "0"], 2, "--reverts: \"0\" is not valid: must be a whole"),
        (
            &["report", &id, "REVERTED", "--reverts", "2147483648"],
            2,
            "--reverts: \"2147483648\" is not valid: must be a whole number from 1 to 2147483647",
        ),
        (
            &["cancel", &id, "--reason", "rain"],
            2,
            "--reason: \"rain\" is not valid: must be one of customer_request",
        ),
        (&["report", ID, "READY"], 1, "no order has this id"),
        (&["report", ID, "REVERTED"], 1, "no order has this id"),
    ] {
        let line = complaint(&[&["order"], arguments, &url].concat(), &[], code).await;
        assert!(line.contains(expected), "{line}");
    }
    let most = json!({"event": "DELAYED", "minutes": 241});
    let refused = service.request(reqwest::Method::POST, &format!("/orders/{id}/events")).json(&most);
    assert_eq!(refused.send().await.expect("an answer").status(), 400, "no more than the command takes");
    service.stop().await;
}

/// Promise 3: an effect happens once. The same id again changes nothing, of an undo neither.
#[tokio::test]
async fn a_report_with_an_id_happens_once() {
    let service = waiting().await;
    let id = service.place("pizza").await;
    let ready = ["report", &id, "READY", "--id", "r 1", "--json"];
    let first = json(&order(&service, &ready).await);
    assert_eq!((&first["outcome"], &first["events"][0]["seq"]), (&json!("applied"), &json!(3)));
    assert_eq!(json(&order(&service, &ready).await)["events"], first["events"]);
    let told = order(&service, &ready[..5]).await;
    assert!(told.contains("\nit was reported before under this id; nothing was changed\n"), "{told}");
    let url = ["--url", service.url.as_str()];
    let other = [&["order"], &["report", &id, "DELIVERED", "--id", "r 1"][..], &url].concat();
    assert!(complaint(&other, &[], 1).await.contains("id"), "another report under it");

    for event in ["PREPARING", "COOKING"] {
        order(&service, &["report", &id, event]).await;
    }
    let undo = ["report", &id, "REVERTED", "--id", "u-1"];
    let told = order(&service, &undo).await;
    assert!(told.contains("takes back event 5, so it is PREPARING again"), "{told}");
    let told = order(&service, &undo).await;
    assert!(told.contains("takes back event 5") && told.contains("reported before under this id"), "{told}");
    let told = order(&service, &["report", &id, "REVERTED", "--reverts", "5"]).await;
    assert_eq!(told, "that is taken back already, and it is PREPARING; nothing was changed");
    let tracked = service.json(&format!("/orders/{id}")).await;
    assert_eq!(names(&tracked)[2..], ["READY", "PREPARING", "COOKING", "REVERTED"]);
    service.stop().await;
}

/// A lost answer is asked for again, under the same id; so is one that says "later".
#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_id() {
    let order = json!({"order_id": ID, "status": "COOKING"});
    let applied = json!({"outcome": "applied", "events": [], "order": order, "allowed": []});
    let busy = answer("503 Service Unavailable", &["retry-after: 0"], "{}");
    let replayed = answer("201 Created", &["idempotency-replayed: true"], &applied.to_string());
    let service = Double::start(vec![String::new(), busy, replayed]).await;
    let told = run(&["order", "report", ID, "cooking", "--url", &service.url], &[]).await;
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert_eq!(
        out,
        format!("{ID}  COOKING  nothing may be reported now\n"),
        "no word of an id that nobody typed"
    );
    assert!(err.ends_with("connection lost; trying again\n") && err.lines().count() == 1, "{err}");
    let asked = service.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked[0].starts_with(&format!("POST /orders/{ID}/events ")), "{asked:?}");
    let bodies: Vec<Value> = asked.iter().map(|request| body(request)).collect();
    assert!(
        bodies[0]["id"].as_str().is_some_and(|id| id.starts_with("cli-") && id.len() <= 64),
        "{bodies:?}"
    );
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
}

/// A step that somebody makes meanwhile is not taken back in place of the one that was seen.
#[tokio::test]
async fn an_undo_names_the_step_that_was_seen() {
    let at = "2026-01-02T03:04:05.678Z";
    let event = |name: &str, meta: Value| json!({"event": name, "timestamp": at, "meta": meta});
    let tracked = json!({
        "order": {"order_id": ID, "customer_name": "Ada", "address": "x", "item": "pizza", "size": "small",
            "status": "PREPARING", "created_at": at, "updated_at": at},
        "events": [event("CREATED", Value::Null), event("PLACED", Value::Null), event("PREPARING", Value::Null),
            event("COOKING", Value::Null), event("REVERTED", json!({"reverts": 4}))],
    });
    let problem = json!({"code": "changed-meanwhile", "detail": "another step", "allowed": ["REVERTED"]});
    let refused = answer("409 Conflict", &[], &problem.to_string());
    let service = Double::start(vec![crate::double::json(&tracked), refused]).await;
    let line = complaint(&["order", "report", ID, "reverted", "--url", &service.url], &[], 1).await;
    assert_eq!(line, "order-tracker: another step; may be reported: REVERTED");
    assert_eq!(body(&service.asked()[1])["reverts"], 3);
}
