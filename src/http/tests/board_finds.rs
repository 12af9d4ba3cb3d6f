//! The board: what stands first, what is found, and what a real kitchen is spared.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Answer, Api,
    board::{rows, words},
    pages::{attributes, protected},
    service::{Database, Service},
};
use crate::{
    order::dead_letter::{DeadLetterBacklog, DeadLetterRef},
    telemetry::health::{Health, Part},
};

impl Api {
    /// Nothing is wrong anywhere.
    fn all_is_well(&self) {
        for part in [Part::Broker, Part::Scheduler, Part::Relay] {
            self.report(part, Health::Up);
        }
        self.dead_letter_backlog.send_replace(Some(no_dead_letters()));
    }

    async fn order(&self, name: &str, item: &str) -> String {
        let body = json!({"customer_name": name, "address": "1 High St", "item": item, "size": "small"});
        self.post_json(body).await.json()["order_id"].as_str().expect("an id").to_owned()
    }
}

fn no_dead_letters() -> DeadLetterBacklog {
    DeadLetterBacklog { by_reason: [].into(), more: false, newest: Vec::new(), at: Instant::now() }
}

/// The line of what is well, and what stands in it and before it.
fn line_of_health(board: &Answer) -> (String, String, String) {
    let (before, rest) = board.text().split_once("<details id=\"well\">").expect("a line");
    let (inside, _) = rest.split_once("</details>").expect("its end");
    let (line, inside) = inside.split_once("</summary>").expect("a summary");
    let before = before.split("<section id=\"health\"").nth(1).expect("a section");
    (line.replace("<summary>", ""), inside.to_owned(), before.to_owned())
}

#[tokio::test]
async fn what_is_well_is_one_line_and_what_needs_a_look_stands_above() {
    let api = Api::open().await;
    api.all_is_well();
    api.place("Ada").await;
    let (line, inside, before) = line_of_health(&api.board("/").await);
    assert_eq!(line, "All well");
    for card in ["Overdue ", "Unsent ", "Dead letters ", "scheduler"] {
        assert!(inside.contains(card) && !before.contains(card), "{card}: {before} | {inside}");
    }

    // An order that waits while the broker is away needs a look before it is late.
    api.dead_letter_backlog.send_replace(Some(no_dead_letters()));
    api.report(Part::Broker, Health::Down("connection refused".to_owned()));
    api.clock.advance(Duration::from_secs(2));
    let (line, inside, before) = line_of_health(&api.board("/").await);
    assert_eq!(line, "All else is well");
    assert!(before.contains("Unsent ") && before.contains("connection refused"), "{before}");
    assert!(inside.contains("Overdue ") && inside.contains("Dead letters "), "{inside}");

    api.all_is_well();
    api.clock.advance(Duration::from_secs(30));
    let newest = DeadLetterRef {
        place: "2:17".to_owned(),
        reason: "not_json",
        written: "2026-01-02T03:04:00Z".parse().expect("a moment"),
    };
    let by_reason = [("not_json", 1)].into();
    api.dead_letter_backlog.send_replace(Some(DeadLetterBacklog {
        by_reason,
        newest: vec![newest],
        ..no_dead_letters()
    }));
    let (line, _, before) = line_of_health(&api.board("/").await);
    assert_eq!(line, "All else is well");
    for card in ["Overdue ", "Unsent ", "Dead letters ", "scheduler", "relay"] {
        assert!(before.contains(card), "{card} in {before}");
    }
    // Not to know is not to be well.
    api.dead_letter_backlog.send_replace(None);
    assert!(line_of_health(&api.board("/").await).2.contains("Dead letters "));
}

#[tokio::test]
async fn orders_are_found_by_what_people_remember() {
    let api = Api::open().await;
    let asha = api.order("Asha Rao", "dal & rice").await;
    let second = api.order("Bob", "Asha's special").await;
    api.order("Carl", "tea").await;
    for (typed, found) in [
        ("asha", vec![&second, &asha]),
        ("%20ASHA+rao%20", vec![&asha]),
        ("dal+%26+RICE", vec![&asha]),
        (&asha[asha.len() - 6..].to_lowercase(), vec![&asha]),
        ("nobody", vec![]),
    ] {
        let board = api.board(&format!("/?id={typed}")).await;
        protected(&board, StatusCode::OK);
        assert_eq!(rows(&board), found, "{typed}");
        let text = words(&board);
        assert!(text.contains(" among the newest 10,000 orders, by name, item or"), "{text}");
        // The only one is opened.
        assert_eq!(text.contains("Customer's page"), found.len() == 1, "{typed}: {text}");
        assert_eq!(text.contains("No such order"), found.is_empty(), "{typed}: {text}");
    }
    api.clock.advance(Duration::from_secs(3));
    api.store.advance(1).await.expect("advances");
    let board = api.board("/?id=asha&status=PREPARING").await;
    assert_eq!(rows(&board), [&asha]);
    assert!(words(&board).contains("Orders preparing with “asha”"), "{}", words(&board));
    // Other filters keep what was typed.
    let board = api.board("/?id=dal+%26+rice").await;
    let filter = "/?status=COOKING&amp;id=dal%20%26%20rice";
    assert!(attributes(board.text(), "href").contains(&filter), "{}", board.text());
}

#[tokio::test]
async fn many_that_are_found_are_counted_and_the_newest_shown() {
    let api = Api::open().await;
    for n in 0..32 {
        api.order(&format!("customer {n}"), "tea").await;
    }
    let board = api.board("/?id=TEA").await;
    assert_eq!(rows(&board).len(), 30);
    assert!(words(&board).contains("32 among the newest 10,000 orders"), "{}", words(&board));
    assert!(words(&board).contains("These are the newest of them."), "{}", words(&board));
}

/// A click on the board of a real kitchen must not make somebody cook.
#[tokio::test]
async fn there_are_no_demo_orders_where_orders_are_real() {
    let api = Service::on(Database::Sqlite).without_demo().open().await;
    let board = api.board("/").await;
    assert!(!board.text().contains("demo"), "{}", board.text());
    assert!(words(&board).contains("None yet."), "{}", words(&board));
    let refused = api.press(&[("sec-fetch-site", "same-origin")]).await;
    protected(&refused, StatusCode::FORBIDDEN);
    assert!(refused.text().contains("This service keeps real orders"), "{}", refused.text());
    assert_eq!(api.get("/orders").await.json(), json!([]));
}
