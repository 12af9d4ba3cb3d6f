//! The board: what it shows, what its address keeps, and who may press its button.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Answer, Api,
    pages::{attributes, protected},
    service::{Database, Service},
};
use crate::{
    order::dead_letter::{DeadLetterBacklog, DeadLetterRef},
    store::{
        MOVED_AT_ONCE, Outbox, Store,
        conformance::{new_orders, start},
        flaky::Flaky,
        memory::{self, MemoryStore},
    },
    telemetry::health::{Health, Part},
    time::ManualClock,
};

impl Api {
    pub(super) async fn press(&self, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post("/demo-orders").header("host", "board.example:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).expect("valid")).await
    }

    /// The board once its figures are not those of the last look.
    pub(super) async fn board(&self, path: &str) -> Answer {
        tokio::time::pause();
        // A look that took long is believed for longer; what is known of dead letters, for 20 s.
        tokio::time::advance(Duration::from_secs(15)).await;
        tokio::time::resume();
        self.get(path).await
    }
}

/// The text of a page without its tags.
pub(super) fn words(answer: &Answer) -> String {
    let parts = answer.text().split('<').filter_map(|part| part.split_once('>'));
    parts.map(|(_, text)| text).collect::<String>().replace("&quot;", "\"")
}

/// The orders in the table.
pub(super) fn rows(answer: &Answer) -> Vec<&str> {
    let mut found = attributes(answer.text(), "id");
    found.retain(|id| id.starts_with("ORD-"));
    found
}

#[tokio::test]
async fn the_board_counts_lists_and_opens_orders() {
    let api = Api::open().await;
    let empty = api.board("/").await;
    protected(&empty, StatusCode::OK);
    assert!(words(&empty).contains("None yet."), "{}", empty.text());
    let first = api.place("Ada").await;
    api.clock.advance(Duration::from_secs(3));
    api.store.advance(10).await.expect("advances");
    let second = api.place("Bob").await;

    let all = api.board("/").await;
    let text = words(&all);
    assert!(text.contains("1 placed1 preparing0 cooking0 out for delivery0 delivered"), "{text}");
    assert_eq!(rows(&all), [second.as_str(), &first], "newest first");

    let some = api.board(&format!("/?status=PREPARING&id={}", first.to_lowercase())).await;
    let text = words(&some);
    assert_eq!(rows(&some), [first.as_str()], "only those being prepared");
    assert!(text.contains("CREATED 03:04:05 UTC{\"source\":\"http\"}"), "{text}");
    assert!(text.contains("PREPARING 03:04:08 UTC after 3.0 s"), "{text}");
    assert!(text.contains("\"customer_name\": \"Ada\""), "{text}");
    assert_eq!(attributes(some.text(), "aria-current"), ["true"], "the filter in force");
    let links = attributes(some.text(), "href");
    let filter = format!("/?status=COOKING&amp;id={}", first.to_lowercase());
    assert!(links.contains(&filter.as_str()), "{links:?}");
    assert!(links.contains(&format!("/track/{first}").as_str()), "{links:?}");
}

#[tokio::test]
async fn a_long_list_has_pages() {
    let api = Api::open().await;
    let mut ids = Vec::new();
    for n in 0..31 {
        ids.push(api.place(&format!("customer {n}")).await);
    }
    let page = api.board("/").await;
    assert_eq!((rows(&page).len(), rows(&page)[0]), (30, ids[30].as_str()));
    let older = attributes(page.text(), "href").into_iter().find(|link| link.contains("before="));
    let page = api.board(&older.expect("a link").replace("&amp;", "&")).await;
    assert_eq!(rows(&page), [ids[0].as_str()]);
    let beyond = words(&api.board(&format!("/?before={}", ids[0])).await);
    assert!(beyond.contains("There are no older ones.") && !beyond.contains("None yet"), "{beyond}");
}

#[tokio::test]
async fn a_filter_that_nothing_passes_says_so() {
    let api = Api::open().await;
    api.place("Ada").await;
    let text = words(&api.board("/?status=OUT_FOR_DELIVERY").await);
    assert!(text.contains("No order is out for delivery just now.") && !text.contains("None yet"), "{text}");
}

#[tokio::test]
async fn nonsense_in_the_address_is_harmless() {
    let api = Api::open().await;
    for path in
        ["/?status=NONE", "/?before=x", "/?id=%22%3E%3Cscript%3E", "/?id=ORD-x", "/?id=%FF", "/?x&&=&id"]
    {
        let answer = api.board(path).await;
        protected(&answer, StatusCode::OK);
        assert!(!answer.text().contains("<script>"), "{}", answer.text());
    }
    assert!(words(&api.board("/?id=nobody").await).contains("No such order"));
    let long = api.board(&format!("/?id={}", "é".repeat(2_000))).await;
    assert_eq!(attributes(long.text(), "value").iter().map(|value| value.chars().count()).max(), Some(64));
}

#[tokio::test]
async fn a_list_that_is_cut_says_how_much_is_left_out() {
    let api = Api::open().await;
    for n in 0..7 {
        api.place(&format!("customer {n}")).await;
    }
    api.clock.advance(Duration::from_mins(1));
    assert_eq!(words(&api.board("/").await).matches("and 2 more").count(), 2, "overdue and unsent");
}

#[tokio::test]
async fn orders_on_their_way_to_the_topic_are_counted_and_not_listed() {
    let api = Api::open().await;
    let quiet = "No order has waited for 1 s to be on the topic.";
    let id = api.place("Ada").await;
    api.clock.advance(Duration::from_millis(999));
    let text = words(&api.board("/").await);
    assert!(text.contains(&format!("Unsent 1{quiet}")), "{text}");
    api.clock.advance(Duration::from_millis(1));
    api.place("Bob").await;
    let text = words(&api.board("/").await);
    assert!(text.contains("Unsent 2Why: ") && text.contains(&format!("{id} for 1.0 sand 1 more")), "{text}");
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn what_is_late_stands_on_top_with_the_reason() {
    let api = Api::open().await;
    api.report(Part::Broker, Health::Down("connection refused".to_owned()));
    api.report(Part::Scheduler, Health::Down("database is locked".to_owned()));
    let id = api.place("Ada").await;
    api.clock.advance(Duration::from_secs(15));
    let board = api.board("/").await;
    let text = words(&board);
    assert!(text.starts_with("(1 overdue) Order Tracker"), "{text}");
    assert!(text.contains("Overdue 1Why: this replica can't write steps (database is locked)."), "{text}");
    assert!(text.contains(&format!("{id} still placed, 12 s late")), "{text}");
    assert!(text.contains("Unsent 1Why: the broker is away (connection refused)."), "{text}");
    assert!(text.contains("broker DOWN, connection refused"), "{text}");

    api.report(Part::Broker, Health::Up);
    let why = async || words(&api.board("/").await).split("Unsent 1Why: ").nth(1).map(str::to_owned);
    for (relay, expected) in [
        (Health::Unknown, "the service has only just started to send them."),
        (Health::Up, "they are being sent;"),
        (
            Health::Down("the database does not answer (locked)".to_owned()),
            "the database does not answer (locked). They",
        ),
    ] {
        api.report(Part::Relay, relay);
        let why = why().await;
        assert!(why.as_ref().is_some_and(|why| why.starts_with(expected)), "{why:?}");
    }
    api.report(Part::Broker, Health::Down("refused".to_owned()));
    let why = why().await;
    let both = "the broker is away (refused), and the database does not answer (locked).";
    assert!(why.as_ref().is_some_and(|why| why.starts_with(both)), "{why:?}");
}

/// Promise 6: it says what is wrong. A few orders that stay late in spite of a loop that works are held by others.
#[tokio::test]
async fn a_few_late_orders_have_another_reason_than_many() {
    let api = Api::open().await;
    api.report(Part::Scheduler, Health::Up);
    let id = api.place("Ada").await;
    api.clock.advance(Duration::from_secs(15));
    let text = words(&api.board(&format!("/?id={id}")).await);
    for place in ["Overdue 1Why: ", "12 s late. Why: "] {
        let why = format!("{place}another replica or a session in the database holds what is late");
        assert!(text.contains(&why), "{text}");
    }
    api.store.place(&new_orders(MOVED_AT_ONCE as u64), Outbox::Anyones).await.expect("places");
    api.clock.advance(Duration::from_secs(15));
    let text = words(&api.board("/").await);
    assert!(text.contains("Overdue 1001Why: more is due than is done"), "{text}");
}

/// Promise 6: it says what is wrong. Not to know of dead letters is not to have none.
#[tokio::test]
async fn the_board_tells_which_dead_letters_wait_or_that_nobody_knows() {
    let api = Api::open().await;
    let text = words(&api.board("/").await);
    assert!(text.contains("Dead letters ?Not known: the broker has not been reached yet."), "{text}");

    let newest = DeadLetterRef {
        place: "2:17".to_owned(),
        reason: "not_json",
        written: "2026-01-02T03:04:00Z".parse().expect("a moment"),
    };
    let by_reason = [("no_key", 1), ("not_json", 2)].into();
    let waiting = DeadLetterBacklog { by_reason, more: true, newest: vec![newest], at: Instant::now() };
    api.dead_letter_backlog.send_replace(Some(waiting.clone()));
    let text = words(&api.board("/").await);
    assert!(text.contains("Dead letters 3+Messages"), "{text}");
    assert!(text.contains("1 × no_key2 × not_json"), "{text}");
    assert!(text.contains("2:17 not_json, 03:04:00 UTC"), "{text}");
    assert!(text.contains("order-tracker dead-letters show 2:17"), "{text}");

    api.report(Part::Broker, Health::Down("connection refused".to_owned()));
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(3)).await;
    tokio::time::resume();
    let text = words(&api.board("/").await);
    assert!(text.contains("3+As of 3 min ago: the broker is away (connection refused)."), "{text}");

    api.dead_letter_backlog.send_replace(Some(DeadLetterBacklog {
        by_reason: [].into(),
        more: false,
        at: Instant::now(),
        ..waiting
    }));
    let text = words(&api.board("/").await);
    assert!(text.contains("Dead letters 0No message waits"), "{text}");
}

#[tokio::test]
async fn without_the_database_the_board_still_names_every_part() {
    let api = Api::open().await;
    api.report(Part::Broker, Health::Up);
    api.store.close().await;
    let answer = api.board("/").await;
    protected(&answer, StatusCode::SERVICE_UNAVAILABLE);
    let text = words(&answer);
    assert!(text.contains("database DOWN, ") && text.contains("broker ok"), "{text}");
    assert!(text.contains("The database is away"), "{text}");
}

/// Promise 6: it says what is wrong. Not to read an order is not to have none.
#[tokio::test]
async fn what_could_not_be_read_is_not_said_to_be_missing() {
    let database = Arc::new(Mutex::new(memory::Database::default()));
    database.lock().expect("no panic").away = true;
    let clock = Arc::new(ManualClock::new(start()));
    let away = MemoryStore::new(database, clock, 1);
    let api = Service::on(Database::Sqlite).reading(Arc::new(away)).open().await;
    let id = api.place("Ada").await;
    let text = words(&api.board(&format!("/?id={id}")).await);
    assert!(text.contains("1 placed"), "the figures came: {text}");
    let why = "Not known: the database is unavailable: away. This page asks again by itself.";
    assert!(text.contains(&format!("Order {id}{why}")), "{text}");
    assert!(text.contains(&format!("Recent orders{why}")), "{text}");
    assert!(!text.contains("No such order") && !text.contains("None yet"), "{text}");
}

/// With trouble where figures are read.
async fn flaky_figures() -> (Api, Arc<Flaky>) {
    let figures = Arc::new(Mutex::new(None));
    let around = |store| -> Arc<dyn Store> {
        let flaky = Arc::new(Flaky { takes: Duration::ZERO, ..Flaky::new(store) });
        *figures.lock().expect("no panic") = Some(Arc::clone(&flaky));
        flaky
    };
    let api = Service::on(Database::Sqlite).open_around(around).await;
    let flaky = figures.lock().expect("no panic").take().expect("was made");
    (api, flaky)
}

/// Promise 6: it says what is wrong. What could be read in part is not said to be all.
#[tokio::test]
async fn what_lies_further_back_than_was_read_is_not_known() {
    let (api, flaky) = flaky_figures().await;
    *flaky.since.lock().expect("no panic") = Some("2026-01-02T02:00:00Z".parse().expect("a moment"));
    api.place("Ada").await;
    let text = words(&api.board("/").await);
    for says in [
        "1+ placed0+ preparing0+ cooking0+ out for delivery0 delivered",
        "Overdue 0+Not known: Steps that were due before 2026-01-02T02:00:00Z can't be read in time.",
        "Unsent 1+Not known: Orders that were placed before 2026-01-02T02:00:00Z can't be read in time.",
        "relay 1 orders unsent, the oldest for 0.0 s; of orders placed before 2026-01-02T02:00:00Z that is not known",
        "scheduler whether steps due before 2026-01-02T02:00:00Z are late is not known",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    assert!(!text.contains("No step is more than") && !text.contains("No order has waited"), "{text}");
}

/// Promise 6: it says what is wrong. One figure that can't be read says so itself, and takes nothing with it.
#[tokio::test]
async fn a_figure_that_is_not_known_takes_no_board_down() {
    let (api, flaky) = flaky_figures().await;
    let id = api.place("Ada").await;
    for (slow, says) in [
        ("backlog", "Unsent ?Not known: the database did not answer within 2s. This page asks again"),
        ("overdue", "Overdue ?Not known: the database did not answer within 2s. This page asks again"),
        ("count", "? placed? preparing"),
    ] {
        *flaky.slow.lock().expect("no panic") = HashSet::from([slow]);
        let board = api.board("/").await;
        let text = words(&board);
        assert_eq!((board.status, rows(&board)), (StatusCode::OK, vec![id.as_str()]), "{slow}: {text}");
        assert!(text.contains(says), "{slow}: {text}");
        assert!(text.contains("database not all figures can be read"), "{slow}: {text}");
    }
    *flaky.slow.lock().expect("no panic") = HashSet::from(["ping", "backlog"]);
    let away = api.board("/").await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(words(&away).contains("The database is away"), "{}", words(&away));
    flaky.slow.lock().expect("no panic").clear();
    let text = words(&api.board("/").await);
    assert!(text.contains("1 placed") && text.contains("Unsent 1"), "over: {text}");
}

#[tokio::test]
async fn many_boards_cost_one_question() {
    let api = Api::open().await;
    api.board("/").await;
    api.place("Ada").await;
    let text = words(&api.get("/").await);
    assert!(text.contains("0 placed"), "half a second old at most: {text}");
    assert!(words(&api.board("/").await).contains("1 placed"));
}

#[tokio::test]
async fn the_button_works_from_the_board_only() {
    let api = Api::open().await;
    let here = "http://board.example:8080";
    for headers in
        [vec![], vec![("origin", here)], vec![("sec-fetch-site", "same-origin"), ("origin", "null")]]
    {
        let answer = api.press(&headers).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{headers:?}: {}", answer.text());
        let board = api.board(answer.header("location")).await;
        assert!(words(&board).contains("{\"source\":\"board\"}"), "{}", board.text());
    }
    for headers in [
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site"), ("origin", here)],
        vec![("origin", "https://elsewhere.example")],
        vec![("origin", "null")],
    ] {
        protected(&api.press(&headers).await, StatusCode::FORBIDDEN);
    }
    let orders = api.get("/orders").await.json();
    assert_eq!(orders.as_array().map(Vec::len), Some(3), "{orders}");
}

#[tokio::test]
async fn hostile_text_stays_text_on_the_board() {
    let api = Api::open().await;
    let hostile = "</script><script>alert(\"1\")</script>\u{202e}\u{2066}\u{2029}'";
    let body = json!({"customer_name": hostile, "address": hostile, "item": hostile, "size": "small"});
    let id = api.post_json(body).await.json()["order_id"].as_str().expect("an id").to_owned();
    let answer = api.board(&format!("/?id={id}")).await;
    protected(&answer, StatusCode::OK);
    let page = answer.text();
    let shown = "<bdi>&lt;/script&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;'</bdi>";
    assert_eq!(page.matches(shown).count(), 5, "thrice beside the table, twice in it: {page}");
    assert!(!page.contains(['\u{202e}', '\u{2066}', '\u{2029}']), "{page}");
    // The raw JSON says all of it.
    let raw = page.split("<pre").nth(1).and_then(|rest| rest.split(['>', '<']).nth(1)).expect("raw JSON");
    let raw = raw.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
    let raw: Value = serde_json::from_str(&raw).expect("JSON");
    assert_eq!(raw["order"]["item"], hostile);
}
