//! The board's sheet of an order: who said what, what may be reported, and what its buttons do.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;

use super::{
    Answer, Api,
    board::words,
    pages::{attributes, protected},
    pages_reports::{HERE, fields},
    service::{Database, Service, on_both_databases},
};
use crate::{
    order::{EventKind, Report, Source, StageDelays},
    time::Clock as _,
};

on_both_databases!(
    a_whole_life_is_reported_by_buttons,
    a_second_tap_is_told_who_was_faster_and_adds_nothing_up,
);

/// The buttons of the sheet, as they are called.
fn buttons(board: &Answer) -> Vec<String> {
    let acts = board.text().split("<div class=\"acts\"").nth(1).unwrap_or_default();
    let acts = acts.split("</div>").next().unwrap_or_default();
    let button = |rest: &str| Some(rest.split_once('>')?.1.split('<').next()?.to_owned());
    acts.split("<button").skip(1).filter_map(button).collect()
}

impl Api {
    async fn sheet(&self, id: &str) -> Answer {
        let sheet = self.get(&format!("/?id={id}")).await;
        protected(&sheet, StatusCode::OK);
        sheet
    }

    async fn tap(&self, sheet: &Answer, act: &str) -> Answer {
        self.submit("/report", &HERE, &fields(sheet, &format!("id=\"act-{act}\""))).await
    }

    /// Presses a button and answers what the sheet says then.
    async fn tapped(&self, sheet: &Answer, act: &str) -> String {
        let answer = self.tap(sheet, act).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{act}: {}", answer.text());
        let sheet = self.get(answer.header("location")).await;
        let did = sheet.text().split("<p class=\"did\" role=\"status\">").nth(1).expect("what was done");
        let did = did.split("</p>").next().expect("its end");
        did.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect()
    }
}

async fn a_whole_life_is_reported_by_buttons(service: Service) {
    let api = service.open().await;
    for id in [api.place("Ada").await, api.place_for_people().await] {
        let sheet = api.sheet(&id).await;
        // It would forget the reason that was chosen.
        assert!(!sheet.text().contains("http-equiv") && words(&sheet).contains("Look again"));
        let all = buttons(&sheet);
        let expected = [
            "Preparing",
            "Cooking",
            "Out for delivery",
            "Delivered",
            "Ready",
            "Courier assigned",
            "Courier is here",
            "At the door",
            "Nobody there",
            "+5 min",
            "+10 min",
            "+20 min",
            "Cancel the order",
        ];
        assert_eq!(all, expected, "what is allowed; what ends it last");
        assert_eq!(api.tapped(&sheet, "PREPARING").await, "Done: Preparing, staff, 03:04:05 UTC");
        let event = &api.story(&id).await[2];
        assert_eq!((&event["event"], &event["meta"]), (&json!("PREPARING"), &json!({"source": "staff"})));
        let sheet = api.sheet(&id).await;
        assert!(buttons(&sheet).contains(&"Undo: preparing".to_owned()), "{:?}", buttons(&sheet));
        assert_eq!(api.tapped(&sheet, "READY").await, "Done: Ready, staff, 03:04:05 UTC");
        let sheet = api.sheet(&id).await;
        assert!(buttons(&sheet).contains(&"Not ready: +5 min".to_owned()), "{:?}", buttons(&sheet));
        assert_eq!(api.tapped(&sheet, "DELAYED-10").await, "Done: Delayed by 10 min, staff, 03:04:05 UTC");
        let did = api.tapped(&api.sheet(&id).await, "REVERTED").await;
        assert_eq!(did, "Done: Taken back: Preparing, staff, 03:04:05 UTC");
        let last = api.story(&id).await.pop().expect("events");
        assert_eq!((&last["meta"]["reverts"], &last["meta"]["to"]), (&json!(3), &json!("PLACED")));
        assert!(!buttons(&api.sheet(&id).await).iter().any(|button| button.starts_with("Undo")));
        let did = api.tapped(&api.sheet(&id).await, "DELIVERED").await;
        assert!(did.starts_with("Done: Delivered, staff"), "{did}");
        assert_eq!(buttons(&api.sheet(&id).await), ["Undo: delivered"]);
        api.clock.advance(Duration::from_mins(5));
        assert!(buttons(&api.sheet(&id).await).is_empty());
        api.clock.set("2026-01-02T03:04:05.678Z".parse().expect("a moment"));
    }
}

async fn a_second_tap_is_told_who_was_faster_and_adds_nothing_up(service: Service) {
    let api = service.open().await;
    let id = api.place_for_people().await;
    let (sheet, other) = (api.sheet(&id).await, api.sheet(&id).await);
    // The same form again is the same report.
    for _ in 0..2 {
        assert!(api.tapped(&sheet, "DELAYED-5").await.starts_with("Done: Delayed by 5 min, staff"));
    }
    assert_eq!(api.story(&id).await.len(), 3);
    let refused = api.tap(&other, "DELAYED-5").await;
    protected(&refused, StatusCode::CONFLICT);
    let text = words(&refused);
    let why = "The order changed while you looked. The latest: Delayed by 5 min, staff, 03:04:05 UTC.";
    assert!(text.contains(why), "{text}");
    assert!(attributes(refused.text(), "href").contains(&format!("/?id={id}").as_str()), "{text}");
    // A step says what it means: found done, it is no error.
    api.say(&id, "COOKING", Source::Kitchen, json!({})).await;
    let did = api.tapped(&other, "COOKING").await;
    assert_eq!(did, "Already: Cooking, the kitchen, 03:04:05 UTC");
    let did = api.tapped(&other, "PREPARING").await;
    assert_eq!(did, "Already: Preparing, the kitchen, 03:04:05 UTC");
    assert_eq!(api.story(&id).await.len(), 5);
    let sheet = api.sheet(&id).await;
    api.say(&id, "REVERTED", Source::Kitchen, json!({})).await;
    let refused = words(&api.tap(&sheet, "REVERTED").await);
    assert!(
        refused.contains("The order changed while you looked. The latest: Taken back: Cooking, the kitchen")
    );
    // What was reported by this button and taken back is not said to be done.
    let sheet = api.sheet(&id).await;
    assert!(api.tapped(&sheet, "PREPARING").await.starts_with("Done: Preparing"));
    api.say(&id, "REVERTED", Source::Kitchen, json!({})).await;
    let refused = api.tap(&sheet, "PREPARING").await;
    protected(&refused, StatusCode::CONFLICT);
    assert!(words(&refused).contains("what it reported was taken back since"), "{}", words(&refused));
}

#[tokio::test]
async fn what_is_refused_says_why_in_words() {
    let api = Api::open().await;
    let id = api.place_for_people().await;
    let sheet = api.sheet(&id).await;
    // A cancel needs a reason.
    let refused = api.tap(&sheet, "CANCELLED").await;
    protected(&refused, StatusCode::BAD_REQUEST);
    assert!(
        words(&refused).contains("Please check: reason is required for CANCELLED."),
        "{}",
        words(&refused)
    );
    let mut form = fields(&sheet, "act-CANCELLED");
    form.push(("reason".to_owned(), String::new()));
    protected(&api.submit("/report", &HERE, &form).await, StatusCode::BAD_REQUEST);
    form.pop();
    form.push(("reason".to_owned(), "out_of_stock".to_owned()));
    assert_eq!(api.submit("/report", &HERE, &form).await.status, StatusCode::SEE_OTHER);
    let text = words(&api.tap(&sheet, "COOKING").await);
    assert!(text.contains("Stop: this order is over. The latest: Cancelled, staff, 03:04:05 UTC."), "{text}");
    // Its last state is kept, with the reason, in the list and on the sheet.
    let board = words(&api.sheet(&id).await);
    assert!(board.contains("cancelled: out of stock"), "{board}");
    assert!(board.contains("CANCELLED 03:04:05 UTC after 0.0 sstaff, out of stock"), "{board}");
    let found = words(&api.get("/?id=customer").await);
    assert!(found.contains("cancelled: out of stock"), "{found}");

    let id = api.place("Ada").await;
    let sheet = api.sheet(&id).await;
    api.tap(&sheet, "COOKING").await;
    let sheet = api.sheet(&id).await;
    api.clock.advance(Duration::from_mins(6));
    let text = words(&api.tap(&sheet, "REVERTED").await);
    assert!(text.contains("It is too long ago to be taken back. The latest: Cooking, staff"), "{text}");
}

#[tokio::test]
async fn the_buttons_work_from_the_board_only_and_nonsense_does_nothing() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let form = fields(&api.sheet(&id).await, "act-COOKING");
    for headers in [
        [("sec-fetch-site", "cross-site"), ("host", "shop.example")],
        [("origin", "https://elsewhere.example"), ("host", "shop.example")],
        [("origin", "null"), ("host", "shop.example")],
    ] {
        protected(&api.submit("/report", &headers, &form).await, StatusCode::FORBIDDEN);
    }
    let with = |name: &str, value: &str| {
        let mut form = form.clone();
        form.retain(|(known, _)| known != name);
        form.push((name.to_owned(), value.to_owned()));
        form
    };
    for nonsense in [
        with("event", "PLACED"),
        with("event", "ERASED"),
        with("event", "<script>"),
        with("event", "DELAYED"),
        with("id", ""),
        with("seq", "x"),
    ] {
        protected(&api.submit("/report", &HERE, &nonsense).await, StatusCode::BAD_REQUEST);
    }
    for minutes in ["0", "241", "-5", "ten"] {
        let mut form = with("event", "DELAYED");
        form.push(("minutes".to_owned(), minutes.to_owned()));
        protected(&api.submit("/report", &HERE, &form).await, StatusCode::BAD_REQUEST);
    }
    for order in ["", "x", "ORD-00000000000000000000000000"] {
        protected(&api.submit("/report", &HERE, &with("order", order)).await, StatusCode::NOT_FOUND);
    }
    assert_eq!(api.story(&id).await.len(), 2);
    // The source is not the form's to say.
    let answer = api.submit("/report", &HERE, &with("source", "customer")).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    assert_eq!(api.story(&id).await[3]["meta"]["source"], "staff");
    // Its name, with something else said under it.
    let answer = api.submit("/report", &HERE, &with("event", "READY")).await;
    assert!(words(&answer).contains("This button was pressed before"), "{}", words(&answer));
    api.store.close().await;
    protected(&api.submit("/report", &HERE, &form).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_address_can_say_only_what_happened() {
    let api = Api::open().await;
    let (id, other) = (api.place("Ada").await, api.place("Bob").await);
    for did in
        ["x", &format!("{id}:9"), &format!("{other}:2"), &format!("{id}:%3Cscript%3E"), &format!("{id}:-1")]
    {
        for name in ["did", "already"] {
            let board = api.get(&format!("/?id={id}&{name}={did}")).await;
            protected(&board, StatusCode::OK);
            assert!(!board.text().contains("class=\"did\""), "{did}: {}", board.text());
        }
    }
    // The board beside the sheet stays as it was chosen.
    let sheet = api.get(&format!("/?status=PLACED&before={other}&id={id}")).await;
    let answer = api.tap(&sheet, "COOKING").await;
    let expected = format!("/?status=PLACED&before={other}&id={id}&did={id}:4");
    assert_eq!(answer.header("location"), expected);
}

#[tokio::test]
async fn the_timeline_tells_who_said_what() {
    let api = Api::open().await;
    let id = api.place_for_people().await;
    let early = (api.clock.now() - Duration::from_secs(90)).to_rfc3339();
    let near = (api.clock.now() - Duration::from_secs(59)).to_rfc3339();
    api.say(&id, "COOKING", Source::Kitchen, json!({"occurred_at": early})).await;
    api.say(&id, "DELAYED", Source::Pos, json!({"minutes": 10, "reason": "too_busy", "occurred_at": near}))
        .await;
    let seq = api.say(&id, "REVERTED", Source::Staff, json!({})).await;
    assert_eq!(seq, 6);
    let text = words(&api.sheet(&id).await);
    let inside = ", at oven 7: “burnt twice”";
    for says in [
        "PREPARING 03:04:05 UTC after 0.0 s, taken backthe kitchen (key of Anna): not reported, a later step was".to_owned(),
        format!(
            "COOKING 03:04:05 UTC after 0.0 s, taken backthe kitchen (key of Anna), happened 03:02:35 UTC{inside}"
        ),
        format!("DELAYED 03:04:05 UTC after 0.0 sthe till (key of Anna), +10 min, too busy{inside}"),
        format!(
            "REVERTED 03:04:05 UTC after 0.0 sstaff (key of Anna), takes back COOKING of 03:04:05 UTC{inside}"
        ),
    ] {
        assert!(text.contains(&says), "{says}: {text}");
    }
    let timer = api.place("Ada").await;
    api.clock.advance(Duration::from_secs(3));
    api.store.advance(1).await.expect("advances");
    let text = words(&api.sheet(&timer).await);
    assert!(text.contains("PREPARING 03:04:08 UTC after 3.0 sby schedule"), "{text}");
}

#[tokio::test]
async fn hostile_notes_and_stations_stay_text() {
    let api = Api::open().await;
    let id = api.place_for_people().await;
    let hostile = "</script><script>alert(\"1\")</script>\u{202e}\u{2066}\u{2029}'";
    let station = "<b class=x>\u{2067}";
    api.say(&id, "READY", Source::Kitchen, json!({"note": hostile, "station": station})).await;
    let board = api.sheet(&id).await;
    let page = board.text();
    let shown = "<bdi>&lt;/script&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;'</bdi>";
    assert_eq!(page.matches(shown).count(), 1, "{page}");
    assert!(page.contains("<bdi>&lt;b class=x&gt;</bdi>"), "{page}");
    assert!(!page.contains(['\u{202e}', '\u{2066}', '\u{2067}', '\u{2029}']), "{page}");
    let customer = api.get(&format!("/track/{id}")).await;
    for inside in ["alert", "class=x"] {
        assert!(!customer.text().contains(inside), "{}", customer.text());
    }
}

#[tokio::test]
async fn an_order_that_people_move_is_late_when_they_should_have_acted() {
    let api = Service::on(Database::Sqlite).delays(StageDelays::uniform(Duration::from_mins(8))).open().await;
    let id = api.place_for_people().await;
    let late = |board: &Answer| board.text().contains("<span class=\"late\">");
    api.clock.advance(Duration::from_mins(7));
    assert!(!late(&api.sheet(&id).await));
    api.clock.advance(Duration::from_mins(3));
    let sheet = api.sheet(&id).await;
    assert!(words(&sheet).contains("placed 2 min late") && late(&sheet), "{}", words(&sheet));
    let board = words(&api.board("/").await);
    let look = format!("Late 1Nobody has said in time how these go on.{id} still placed, 2 min late");
    assert!(board.contains(&look), "{board}");
    api.say(&id, "DELAYED", Source::Kitchen, json!({"minutes": 10})).await;
    assert!(!late(&api.sheet(&id).await));
    api.say(&id, "CANCELLED", Source::Kitchen, json!({"reason": "fraud"})).await;
    api.clock.advance(Duration::from_hours(1));
    assert!(!late(&api.sheet(&id).await));
}

#[tokio::test]
async fn every_event_that_may_be_reported_has_a_button() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    api.say(&id, "PREPARING", Source::Kitchen, json!({})).await;
    let sheet = api.sheet(&id).await;
    for event in Report::KINDS {
        let act = match event {
            EventKind::Delayed => "DELAYED-20".to_owned(),
            EventKind::Reached(crate::order::Status::Preparing) => continue,
            other => other.to_string(),
        };
        assert_eq!(fields(&sheet, &format!("act-{act}"))[3], ("event".to_owned(), event.to_string()));
    }
}
