//! What is told beside an order, if it is asked for.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Api, clock,
    reports::of,
    service::{Database, Service, on_both_databases},
};
use crate::{
    order::rfc3339,
    store::SqliteStore,
    time::{Clock as _, ManualClock},
};

impl Api {
    /// A replica, and the clock of its database, which is so far ahead of its own.
    async fn open_beside(ahead: TimeDelta) -> (Self, Arc<ManualClock>) {
        let folder = TempDir::new().expect("a folder");
        let (own, database) = (clock(), clock());
        database.set(database.now() + ahead);
        let store = SqliteStore::open(folder.path(), database.clone()).await.expect("opens");
        (Service::on(Database::Sqlite).over(Arc::new(store), (own, folder, None), |store| store), database)
    }
}

on_both_databases!(
    what_can_t_be_told_is_named_and_what_was_seen_is_not_sent;
    in both modes:
    who_asks_is_told_what_is_allowed_and_when_it_comes,
);

async fn who_asks_is_told_what_is_allowed_and_when_it_comes(service: Service) {
    let api = service.open().await;
    let id = api.place("Ada").await;
    let path = format!("/orders/{id}");
    let plain = api.get(&path).await;
    let at = |answer: &Value| {
        let moment = |name: &str| answer["eta"][name].as_str().expect("a moment").to_owned();
        (moment("from"), moment("by"))
    };
    let mut expected = plain.json();
    // 3, 5, 7 and 10 s; then a quarter, and a second for each step.
    expected["eta"] = json!({"from": "2026-01-02T03:04:30.678Z", "by": "2026-01-02T03:04:40.928Z"});
    let eta = api.get(&format!("{path}?include=eta")).await;
    assert_eq!(eta.json(), expected);
    assert_eq!(
        (eta.header("etag"), eta.header("cache-control")),
        (plain.header("etag"), "private, no-cache")
    );
    for both in ["allowed,eta", "eta,allowed", "allowed%2Ceta", "eta,allowed,eta"] {
        let mut both = api.get(&format!("{path}?include={both}")).await.json();
        let allowed = both.as_object_mut().and_then(|fields| fields.remove("allowed")).expect("it");
        assert_eq!(allowed.as_array().map(Vec::len), Some(11), "all but to take a step back: {allowed}");
        assert_eq!(both, expected);
    }
    // Byte for byte as ever for whoever asks for nothing.
    for nothing in ["", "?", "?include=", "?colour=red"] {
        assert_eq!(api.get(&format!("{path}{nothing}")).await.body, plain.body, "{nothing}");
    }
    // As of the answer, and after what was reported.
    api.says(&id, &of("DELAYED"), 201).await;
    let delayed = at(&api.get(&format!("{path}?include=eta")).await.json());
    assert_eq!(delayed.0, "2026-01-02T03:14:30.678Z");
    for (kind, allowed) in [("DELIVERED", json!(["REVERTED"])), ("REVERTED", Value::Null)] {
        api.says(&id, &of(kind), 201).await;
        let found = api.get(&format!("{path}?include=allowed,eta")).await.json();
        assert_eq!(found["eta"].is_null(), kind == "DELIVERED");
        assert!(found.as_object().is_some_and(|found| found.contains_key("eta")));
        if !allowed.is_null() {
            assert_eq!(found["allowed"], allowed);
        }
    }
    api.clock.advance(Duration::from_mins(10));
    let late = at(&api.get(&format!("{path}?include=eta")).await.json());
    assert!(
        late.0.as_str() > "2026-01-02T03:14:05.678Z",
        "{late:?}: nothing is promised for a moment that has passed"
    );
}

/// Replicas agree though their clocks do not: the database's stamps the events, and what they allow goes by it.
#[tokio::test]
async fn what_is_allowed_and_when_it_comes_go_by_the_database_s_clock() {
    for ahead in [TimeDelta::hours(1), TimeDelta::hours(-1)] {
        let (api, database) = Api::open_beside(ahead).await;
        let id = api.place("Ada").await;
        let path = format!("/orders/{id}?include=allowed,eta");
        let eta = api.get(&path).await.json()["eta"].take();
        let in_time = |millis| rfc3339(database.now() + TimeDelta::milliseconds(millis));
        assert_eq!(eta, json!({"from": in_time(25_000), "by": in_time(35_250)}), "{ahead}");
        let page = api.get(&format!("/track/{id}")).await;
        let page = page.text();
        let minutes = (database.now() + TimeDelta::seconds(25)).format("%H:%M").to_string();
        assert!(page.contains(&minutes) && !page.contains("data-late"), "{ahead}: {page}");

        api.says(&id, &of("DELIVERED"), 201).await;
        for (passes, allowed) in
            [(Duration::from_secs(299), json!(["REVERTED"])), (Duration::from_secs(1), json!([]))]
        {
            database.advance(passes);
            assert_eq!(api.get(&path).await.json()["allowed"], allowed, "{ahead}");
            let explained = api.get(&format!("/orders/{id}/explain")).await.json();
            assert_eq!(explained["allowed"], allowed, "{ahead}: {explained}");
            for search in [&id, "ada"] {
                let board = api.get(&format!("/?id={search}")).await;
                assert_eq!(
                    board.text().contains("Undo: "),
                    allowed == json!(["REVERTED"]),
                    "{ahead} {search}"
                );
            }
        }
    }
}

async fn what_can_t_be_told_is_named_and_what_was_seen_is_not_sent(service: Service) {
    let api = service.open().await;
    let path = format!("/orders/{}", api.place("Ada").await);
    for bad in ["x", "allowed,", ",eta", "allowed,x", "Allowed", "allowed%20,eta", "allowed;eta", "%00"] {
        let (code, fields) = api.get(&format!("{path}?include={bad}")).await.problem(400);
        assert_eq!((code.as_str(), fields), ("validation-error", vec!["include".to_owned()]), "{bad}");
    }
    api.get("/orders/7?include=x").await.problem(400);
    api.get("/orders/7?include=eta").await.problem(404);
    let request = axum::http::Request::get(format!("{path}?include=eta")).header("if-none-match", "\"2\"");
    let answer = api.send(request.body(axum::body::Body::empty()).expect("valid")).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0));
}
