//! What is shown of people, and what may be reported: by whose key it is asked for.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{
    Answer, Api,
    events::first_events,
    order,
    service::{Keys, Service, on_both_databases},
};
use crate::order::Role::{self, Admin, Courier, Kitchen, Reader, Shop, Staff};

on_both_databases!(
    names_addresses_and_notes_go_to_roles_that_need_them,
    no_cache_keeps_what_a_key_was_shown,
    lists_asked_for_at_the_same_moment_are_apart,
    a_report_is_of_the_role_of_its_key,
    a_role_reports_its_own,
    what_is_wrong_is_told_in_order,
    each_report_of_a_batch_is_judged_by_its_role,
    what_is_allowed_is_what_the_role_may_report,
    an_idempotency_key_is_of_the_key_that_it_came_with,
);

/// Whether a role sees names, addresses and notes.
const SEES: [(Role, [bool; 3]); 6] = [
    (Shop, [true, true, false]),
    (Kitchen, [true, false, true]),
    (Courier, [true, true, true]),
    (Reader, [false, false, false]),
    (Staff, [true, true, true]),
    (Admin, [true, true, true]),
];

struct Shopfloor {
    api: Api,
    keys: Keys,
    order_id: String,
}

impl Shopfloor {
    async fn open(service: &Service) -> Self {
        let keys = Keys::of_all_roles();
        let api = service.asking_for(&keys).open().await;
        let mut floor = Self { api, keys, order_id: String::new() };
        let placed = floor.post(Shop, "/orders", &order("Ada Lovelace")).await;
        placed.json()["order_id"].as_str().expect("an id").clone_into(&mut floor.order_id);
        floor
    }

    async fn get(&self, role: Role, path: &str) -> Answer {
        let request = Request::get(path).header("authorization", self.keys.bearer(role)).body(Body::empty());
        self.api.send(request.expect("valid")).await
    }

    async fn post(&self, role: Role, path: &str, body: &Value) -> Answer {
        self.api.send_json(path, &[("authorization", &self.keys.bearer(role))], body).await
    }

    async fn report(&self, role: Role, body: &Value) -> Answer {
        self.post(role, &format!("/orders/{}/events", self.order_id), body).await
    }

    async fn find(&self, role: Role) -> Value {
        self.get(role, &format!("/orders/{}?include=allowed", self.order_id)).await.json()
    }
}

fn assert_shown(order: &Value, [names, addresses, _]: [bool; 3], whose: Role) {
    let expected = [
        ("customer_name", if names { json!("Ada Lovelace") } else { Value::Null }),
        ("address", if addresses { json!("1 High St") } else { Value::Null }),
        ("item", json!("pizza")),
    ];
    for (field, value) in expected {
        assert_eq!(order[field], value, "{field} to {whose} in {order}");
    }
    assert_eq!(order.as_object().map(serde_json::Map::len), Some(8), "{order}");
}

/// Promise 9: who may not, can't.
async fn names_addresses_and_notes_go_to_roles_that_need_them(service: Service) {
    let floor = Shopfloor::open(&service).await;
    let delayed = json!({"event": "DELAYED", "minutes": 5, "note": "for Ada, who waits"});
    assert_eq!(floor.report(Kitchen, &delayed).await.status, 201);
    for (role, sees) in SEES {
        let [_, _, notes] = sees;
        let found = floor.find(role).await;
        assert_shown(&found["order"], sees, role);
        let meta = &found["events"][2]["meta"];
        assert_eq!((&meta["source"], &meta["minutes"]), (&json!("kitchen"), &json!(5)), "{role}: {found}");
        assert_eq!(meta.get("note").is_some(), notes, "{role}: {found}");
        let path = format!("/orders/{}/events", floor.order_id);
        let request = Request::get(path).header("authorization", floor.keys.bearer(role)).body(Body::empty());
        let stream = floor.api.router.clone().oneshot(request.expect("valid")).await.expect("never fails");
        let told = first_events(stream, 3).await;
        assert_eq!(told[2]["meta"].get("note").is_some(), notes, "{role}: {told:?}");
        let listed = floor.get(role, "/orders").await;
        if role == Courier {
            assert_eq!(listed.problem(403).0, "not-for-this-role");
        } else {
            assert_shown(&listed.json()[0], sees, role);
        }
    }
    for (role, event) in [(Kitchen, "PREPARING"), (Courier, "COURIER_ASSIGNED"), (Staff, "COOKING")] {
        let answer = floor.report(role, &json!({"event": event, "note": "quick"})).await.json();
        let (_, sees) = SEES.into_iter().find(|(of, _)| *of == role).expect("it");
        assert_shown(&answer["order"], sees, role);
    }
    let cancel = json!({"event": "CANCELLED", "reason": "customer_request"});
    let ignored = floor.report(Kitchen, &cancel).await;
    assert_shown(&ignored.json()["order"], SEES[1].1, Kitchen);
}

/// A list is made once for all who ask at one moment, and never for those who see more.
async fn no_cache_keeps_what_a_key_was_shown(service: Service) {
    let floor = Shopfloor::open(&service).await;
    let path = format!("/orders/{}", floor.order_id);
    for role in [Staff, Reader] {
        let found = floor.get(role, &path).await;
        assert_eq!((found.status.as_u16(), found.header("cache-control")), (200, "no-store"), "{role}");
        // Who remembers the tag himself need not be told again.
        let asked = Request::get(&path)
            .header("authorization", floor.keys.bearer(role))
            .header("if-none-match", found.header("etag"));
        let again = floor.api.send(asked.body(Body::empty()).expect("valid")).await;
        assert_eq!((again.status.as_u16(), again.header("cache-control")), (304, "no-store"), "{role}");
    }
}

async fn lists_asked_for_at_the_same_moment_are_apart(service: Service) {
    let floor = Shopfloor::open(&service).await;
    let asked = [Reader, Shop, Kitchen, Reader, Staff, Shop].map(|role| {
        let floor = &floor;
        async move { (role, floor.get(role, "/orders").await.json()) }
    });
    for (role, listed) in futures::future::join_all(asked).await {
        let (_, sees) = SEES.into_iter().find(|(of, _)| *of == role).expect("it");
        assert_shown(&listed[0], sees, role);
    }
}

/// Promise 7: the story is true. Who says so is whose key it is, whatever the body says.
async fn a_report_is_of_the_role_of_its_key(service: Service) {
    let floor = Shopfloor::open(&service).await;
    assert_eq!(floor.find(Staff).await["events"][0]["meta"], json!({"source": "http", "by": "the shop"}));
    for (role, event) in [(Kitchen, "COOKING"), (Courier, "COURIER_ASSIGNED"), (Admin, "READY")] {
        let answer = floor.report(role, &json!({"event": event, "source": "nonsense", "by": "x"})).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let told = answer.json();
        for event in told["events"].as_array().expect("events") {
            let meta = &event["meta"];
            assert_eq!(meta["source"], role.as_str(), "{told}");
            assert_eq!(meta["by"], format!("the {role}"), "{told}");
        }
    }
}

/// Promise 9: who may not, can't: each kind of event, by each role, before anybody looks for the order.
async fn a_role_reports_its_own(service: Service) {
    let floor = Shopfloor::open(&service).await;
    let kitchen = ["PREPARING", "COOKING", "READY", "DELAYED", "CANCELLED", "REVERTED"];
    let courier = [
        "OUT_FOR_DELIVERY",
        "DELIVERED",
        "COURIER_ASSIGNED",
        "COURIER_AT_PICKUP",
        "COURIER_AT_DOOR",
        "DELIVERY_FAILED",
        "REVERTED",
    ];
    for role in [Shop, Kitchen, Courier, Staff, Admin] {
        for event in super::reports::ALL {
            let may = match role {
                Shop => event == "CANCELLED",
                Kitchen => kitchen.contains(&event),
                Courier => courier.contains(&event),
                _ => true,
            };
            let body = json!({"event": event, "reason": "customer_request", "minutes": 5});
            let unknown = "/orders/ORD-01ARZ3NDEK0000000000000000/events";
            let (status, code) = if may { (404, "not-found") } else { (403, "not-for-this-role") };
            assert_eq!(floor.post(role, unknown, &body).await.problem(status).0, code, "{role} {event}");
        }
    }
    for (reason, status) in [("fraud", 403), ("customer_request", 201)] {
        let body = json!({"event": "CANCELLED", "reason": reason});
        assert_eq!(floor.report(Shop, &body).await.status, status, "{reason}");
    }
    // What others did is theirs to take back.
    let delivered = Shopfloor::open(&service).await;
    assert_eq!(delivered.report(Courier, &json!({"event": "OUT_FOR_DELIVERY"})).await.status, 201);
    let back = json!({"event": "REVERTED"});
    assert_eq!(delivered.report(Kitchen, &back).await.problem(403).0, "not-for-this-role");
    let late = json!({"event": "CANCELLED", "reason": "customer_request"});
    assert_eq!(delivered.report(Shop, &late).await.problem(403).0, "not-for-this-role", "it was begun");
    assert_eq!(delivered.report(Courier, &back).await.status, 201);
}

/// 401; 413, 415, 400; 403 by role; then what needs the database.
async fn what_is_wrong_is_told_in_order(service: Service) {
    let floor = Shopfloor::open(&service).await;
    let path = format!("/orders/{}/events", floor.order_id);
    let not_his = json!({"event": "DELIVERED"});
    let wrong = json!({"event": "DELIVERED", "note": 7, "id": ""});
    let long = json!({"event": "DELIVERED", "note": "x".repeat(17 * 1024)});
    assert_eq!(floor.api.send_json(&path, &[], &wrong).await.problem(401).0, "key-required");
    assert_eq!(floor.report(Kitchen, &long).await.problem(413).0, "body-too-large");
    let fields = ["id".to_owned(), "note".to_owned()];
    assert_eq!(floor.report(Kitchen, &wrong).await.problem(400).1, fields);
    let bearer = floor.keys.bearer(Kitchen);
    let at_one = [("authorization", bearer.as_str()), ("if-match", "\"1\"")];
    let refused = floor.api.send_json(&path, &at_one, &not_his).await;
    assert_eq!(refused.problem(403).0, "not-for-this-role", "before 412");
    let tag = [("authorization", bearer.as_str()), ("if-match", "1")];
    assert_eq!(floor.api.send_json(&path, &tag, &not_his).await.problem(400).1, ["If-Match"]);
    let moved = floor.api.send_json(&path, &at_one, &json!({"event": "COOKING"})).await;
    assert_eq!(moved.problem(412).0, "changed-meanwhile");
}

async fn each_report_of_a_batch_is_judged_by_its_role(service: Service) {
    let floor = Shopfloor::open(&service).await;
    let of = |event: &str| json!({"order_id": floor.order_id, "event": event, "source": "courier"});
    let unknown = json!({"order_id": "ORD-01ARZ3NDEK0000000000000000", "event": "DELIVERED"});
    let batch = json!([of("PREPARING"), of("DELIVERED"), unknown, of("COOKING"), of("PREPARED")]);
    let answer = floor.post(Kitchen, "/events", &batch).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let fates = answer.json();
    let statuses: Vec<u64> =
        fates.as_array().expect("fates").iter().filter_map(|fate| fate["status"].as_u64()).collect();
    assert_eq!(statuses, [201, 403, 403, 201, 400], "{fates}");
    assert_eq!(fates[1]["problem"]["code"], "not-for-this-role");
    let sources: Vec<Value> = floor.find(Kitchen).await["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["meta"]["source"].clone())
        .collect();
    assert_eq!(sources[2..], ["kitchen", "kitchen"]);
}

/// Exactly what this caller would be answered 201: in GET, in a report's answer, in a conflict.
async fn what_is_allowed_is_what_the_role_may_report(service: Service) {
    let floor = Shopfloor::open(&service).await;
    assert_eq!(floor.find(Shop).await["allowed"], json!(["CANCELLED"]));
    assert_eq!(floor.find(Reader).await["allowed"], json!([]));
    let kitchen = json!(["PREPARING", "COOKING", "CANCELLED", "READY", "DELAYED"]);
    assert_eq!(floor.find(Kitchen).await["allowed"], kitchen);
    let cooking = floor.report(Kitchen, &json!({"event": "COOKING"})).await.json();
    assert_eq!(cooking["allowed"], json!(["CANCELLED", "READY", "DELAYED", "REVERTED"]));
    assert_eq!(floor.find(Shop).await["allowed"], json!([]));
    let delivered = floor.report(Courier, &json!({"event": "DELIVERED"})).await.json();
    assert_eq!(delivered["allowed"], json!(["REVERTED"]));
    let finished = floor.report(Kitchen, &json!({"event": "READY"})).await;
    assert_eq!(finished.problem(409).0, "order-finished");
    assert_eq!(finished.json()["allowed"], json!([]), "a courier's step is not the kitchen's to take back");
    let finished = floor.report(Courier, &json!({"event": "COURIER_AT_DOOR"})).await;
    assert_eq!(finished.json()["allowed"], json!(["REVERTED"]));
    let explained = floor.get(Staff, &format!("/orders/{}/explain", floor.order_id)).await.json();
    assert_eq!(explained["allowed"], json!(["REVERTED"]));
}

/// Whoever guesses another's Idempotency-Key learns nothing of his order, and places his own.
async fn an_idempotency_key_is_of_the_key_that_it_came_with(service: Service) {
    let floor = Shopfloor::open(&service).await;
    let place = async |role: Role, name: &str| {
        let bearer = floor.keys.bearer(role);
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
        floor.api.send_json("/orders", &headers, &order(name)).await
    };
    let first = place(Shop, "Ada").await;
    let others = place(Staff, "Bob").await;
    assert_eq!((first.status.as_u16(), others.status.as_u16()), (201, 201), "{}", others.text());
    assert_ne!(first.json(), others.json());
    let again = place(Shop, "Ada").await;
    assert_eq!((again.json(), again.header("idempotency-replayed")), (first.json(), "true"));
    assert_eq!(place(Shop, "Bob").await.problem(422).0, "idempotency-key-reused");
}
