//! The customer's page of an order that people report on: who said what, delays and ends.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{
    Answer, Api,
    board::words,
    pages::{attributes, protected},
    service::{Database, Service},
};
use crate::{
    order::{OrderId, Reason, ReportRequest, Rules, Source, StageDelays, Start, Status},
    store::{Outbox, conformance::new_orders},
    time::Clock as _,
    tracker::{OrderReport, ReportOutcome},
};

/// Where the forms are.
pub(super) const HERE: [(&str, &str); 2] = [("host", "shop.example"), ("origin", "http://shop.example")];
/// What only those may read who work on the order.
const INSIDE: [&str; 3] = ["burnt twice", "oven 7", "key of Anna"];

impl Api {
    /// An order that people move.
    pub(super) async fn place_for_people(&self) -> String {
        let mut order = new_orders(1).remove(0);
        order.start = Start { due_in: None, expected_in: Some(Duration::from_mins(8)) };
        self.store.place(&[order.clone()], Outbox::Mine).await.expect("places");
        order.order_id.to_string()
    }

    /// Reports, as somebody elsewhere would.
    pub(super) async fn say(&self, id: &str, event: &str, source: Source, more: Value) -> u32 {
        let mut said = json!({"event": event, "note": INSIDE[0], "station": INSIDE[1]});
        for (name, value) in more.as_object().expect("an object") {
            said[name] = value.clone();
        }
        let request = ReportRequest::from_value(said).expect("an object");
        let mut report = request.check(None, self.clock.now()).expect("valid");
        (report.source, report.by) = (source, Some(INSIDE[2].to_owned()));
        let order_id: OrderId = id.parse().expect("an id");
        let reports = [OrderReport { order_id, report, if_match: None }];
        let answer = self.store.report(&reports, &Rules::default()).await.expect("reports").remove(0);
        assert!(matches!(answer.outcome, ReportOutcome::Applied(..)), "{event}: {answer:?}");
        answer.standing.expect("is there").seq
    }

    /// Sends a form.
    pub(super) async fn submit(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        fields: &[(String, String)],
    ) -> Answer {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = pairs.collect::<Vec<_>>().join("&");
        self.send(request.body(Body::from(body)).expect("valid")).await
    }

    pub(super) async fn story(&self, id: &str) -> Vec<Value> {
        self.get(&format!("/orders/{id}")).await.json()["events"].as_array().expect("events").clone()
    }
}

/// What a form of a page sends: the hidden fields of the one whose tag holds `which`.
pub(super) fn fields(page: &Answer, which: &str) -> Vec<(String, String)> {
    let forms = page.text().split("<form").skip(1).filter_map(|rest| rest.split("</form>").next());
    let mut forms = forms.filter(|form| form.split('>').next().is_some_and(|tag| tag.contains(which)));
    let form = forms.next().unwrap_or_else(|| panic!("no form {which} in {}", page.text()));
    let inputs = form.split("<input ").skip(1).filter_map(|rest| rest.split('>').next());
    let inputs = inputs.map(|input| (attributes(input, "name")[0], attributes(input, "value")[0]));
    inputs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What is read out when it changes.
fn said(page: &Answer) -> String {
    let marked = page.text().split(" data-said").skip(1);
    let texts = marked.filter_map(|rest| {
        let rest = rest.split_once('>')?.1;
        let end = ["</h1>", "</p>", "</span>", "</strong>"].iter().filter_map(|end| rest.find(end)).min()?;
        Some(rest[..end].split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect())
    });
    texts.collect::<Vec<String>>().join(" ")
}

/// The steps of the page, as they are read.
fn ladder(page: &Answer) -> Vec<String> {
    let steps = page.text().split("<ol class=\"steps\">").nth(1).and_then(|rest| rest.split("</ol>").next());
    let steps = steps.expect("steps").split("<li").skip(1);
    let text = |step: &str| -> String {
        step.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text).collect()
    };
    steps.map(text).collect()
}

pub(super) async fn track(api: &Api, id: &str) -> Answer {
    let page = api.get(&format!("/track/{id}")).await;
    protected(&page, StatusCode::OK);
    for inside in INSIDE {
        assert!(!page.text().contains(inside), "{inside} in {}", page.text());
    }
    page
}

#[tokio::test]
async fn each_step_says_who_said_it_and_nothing_from_inside() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    api.say(&id, "COOKING", Source::Kitchen, json!({})).await;
    api.clock.advance(Duration::from_secs(10));
    api.store.advance(10).await.expect("advances");
    let steps = ladder(&track(&api, &id).await);
    assert_eq!(
        steps,
        [
            "Order placed03:04:05 UTCyou",
            "Preparingpassed by 03:04 UTC",
            "Cooking03:04:05 UTCthe kitchen",
            "Out for delivery03:04:15 UTCby schedule",
            "Deliveredstill to come",
        ]
    );
    api.say(&id, "DELIVERED", Source::Courier, json!({})).await;
    assert!(ladder(&track(&api, &id).await)[4].ends_with("the courier"));
    for (source, who) in [
        (Source::Pos, "the shop"),
        (Source::Staff, "the shop"),
        (Source::Api, "the shop"),
        (Source::Customer, "you"),
    ] {
        let id = api.place_for_people().await;
        api.say(&id, "PREPARING", source, json!({})).await;
        assert!(ladder(&track(&api, &id).await)[1].ends_with(who), "{source}");
    }
}

#[tokio::test]
async fn a_delay_is_told_with_the_new_time_the_old_one_and_who_says_so() {
    let api = Service::on(Database::Sqlite).delays(StageDelays::uniform(Duration::from_mins(8))).open().await;
    let id = api.place_for_people().await;
    let calm = track(&api, &id).await;
    assert!(calm.text().contains("Arrives between") && !calm.text().contains("late.svg"), "{}", calm.text());
    assert_eq!(said(&calm), "We have your order");
    // 32 minutes from 03:04:05 are told as 03:35.
    for (minutes, in_all) in [(15, 15), (10, 25)] {
        let more = json!({"minutes": minutes, "reason": "too_busy"});
        api.say(&id, "DELAYED", Source::Kitchen, more).await;
        let page = track(&api, &id).await;
        let text = words(&page);
        let later = format!("{in_all} min later than first said (03:35 UTC)");
        for says in [
            "It takes a bit longerThe kitchen is busier than usual.Now expected between",
            &later,
            "the kitchen, 03:04 UTC",
        ] {
            assert!(text.contains(says), "{says}: {text}");
        }
        assert!(page.text().contains("<title>It takes a bit longer · "), "{text}");
        assert!(attributes(page.text(), "href")[0].ends_with("/late.svg"), "{}", page.text());
        assert!(!page.text().contains("data-late=\""), "nobody is late: {text}");
        let announced = said(&page);
        assert!(announced.starts_with("It takes a bit longer Now expected between 0"), "{announced}");
        // Each is news of its own.
        let news = attributes(page.text(), "data-news")[0].to_owned();
        assert_eq!(news, attributes(track(&api, &id).await.text(), "data-news")[0]);
        assert_ne!(news, attributes(calm.text(), "data-news")[0]);
    }
    // Where the courier is hides no delay; the next step ends it, and the old time stays to be compared with.
    api.say(&id, "COURIER_ASSIGNED", Source::Courier, json!({})).await;
    assert!(words(&track(&api, &id).await).contains("It takes a bit longer"));
    api.say(&id, "PREPARING", Source::Kitchen, json!({})).await;
    let text = words(&track(&api, &id).await);
    assert!(text.contains("The kitchen is at workYour order is being prepared."), "{text}");
}

#[tokio::test]
async fn reasons_are_told_in_the_customer_s_words() {
    let api = Api::open().await;
    for reason in Reason::ALL {
        let (cancelled, delayed) = match reason {
            Reason::CustomerRequest => ("As you asked.", None),
            Reason::OutOfStock => {
                ("Something in it has run out.", Some("Something had to be fetched first."))
            }
            Reason::KitchenClosed => ("The kitchen has closed.", None),
            Reason::TooBusy => {
                ("The kitchen has more orders than it can cook.", Some("The kitchen is busier than usual."))
            }
            Reason::NotAccepted => ("The kitchen did not take it in time.", None),
            Reason::Duplicate => ("It was a second copy of the same order.", None),
            Reason::OutsideArea => ("The address is further than we deliver.", None),
            Reason::CourierUnavailable => ("No courier was free.", Some("We are waiting for a courier.")),
            Reason::Undeliverable => ("The courier could not hand it over.", None),
            Reason::Fraud | Reason::Other => ("The shop could not go on with it.", None),
        };
        let id = api.place("Ada").await;
        api.say(&id, "DELAYED", Source::Kitchen, json!({"minutes": 5, "reason": reason})).await;
        let text = words(&track(&api, &id).await);
        let delayed = delayed.unwrap_or("It takes longer than we said.");
        assert!(text.contains(&format!("It takes a bit longer{delayed}Now")), "{reason}: {text}");
        api.say(&id, "CANCELLED", Source::Kitchen, json!({"reason": reason})).await;
        let text = words(&track(&api, &id).await);
        let expected = format!("Your order was cancelled{cancelled}the kitchen, 03:04 UTCWhat happens now");
        assert!(text.contains(&expected), "{reason}: {text}");
        for word in ["fraud", "duplicate", reason.as_str()].into_iter().filter(|word| word.contains('_')) {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
}

#[tokio::test]
async fn a_cancelled_order_ends_there_and_may_come_back() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    api.say(&id, "PREPARING", Source::Kitchen, json!({})).await;
    api.say(&id, "CANCELLED", Source::Pos, json!({"reason": "out_of_stock"})).await;
    let page = track(&api, &id).await;
    assert_eq!(
        ladder(&page),
        ["Order placed03:04:05 UTCyou", "Preparing03:04:05 UTCthe kitchen", "Cancelled03:04:05 UTCthe shop"]
    );
    let text = words(&page);
    let short = &id[id.len() - 4..];
    let now = "What happens nowNothing will come, no need to wait.The shop you ordered from can tell you about \
               your payment. Your number: ";
    assert!(text.contains(&format!("{now}{short}")), "{text}");
    assert!(!text.contains("Arrive") && !text.contains("Cancel my order"), "{text}");
    assert!(page.text().contains("<title>Cancelled · "), "{}", page.text());
    assert_eq!(said(&page), "Your order was cancelled Something in it has run out.");
    // For five minutes it may be taken back, so the page goes on asking, and no longer.
    let now = api.clock.now().timestamp_millis();
    assert_eq!(attributes(page.text(), "data-undo"), [(now + 300_000).to_string()]);
    let again = "<noscript><meta http-equiv=\"refresh\" content=\"15\"></noscript>";
    assert!(page.text().contains(again), "{}", page.text());
    api.clock.advance(Duration::from_mins(5));
    let page = track(&api, &id).await;
    assert!(!page.text().contains("http-equiv") && !page.text().contains("data-undo"), "{}", page.text());
}

#[tokio::test]
async fn what_was_taken_back_is_no_step_any_more() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    api.say(&id, "COOKING", Source::Kitchen, json!({})).await;
    api.clock.advance(Duration::from_mins(1));
    api.say(&id, "REVERTED", Source::Staff, json!({})).await;
    let page = track(&api, &id).await;
    let steps = ladder(&page);
    assert_eq!(steps[0], "Order placed03:04:05 UTCyou");
    assert!(steps[1..].iter().all(|step| step.ends_with("still to come")) && steps.len() == 5, "{steps:?}");
    let text = words(&page);
    assert!(text.contains("We have your orderBack on: the shop took that back, 03:05 UTC."), "{text}");
    assert_eq!(said(&page), "Back on: the shop took that back, 03:05 UTC.");
    assert!(text.contains("Cancel my order"), "the kitchen has not started: {text}");
    api.say(&id, "CANCELLED", Source::Kitchen, json!({"reason": "other"})).await;
    api.say(&id, "REVERTED", Source::Kitchen, json!({})).await;
    let page = track(&api, &id).await;
    assert!(words(&page).contains("Back on: the kitchen took that back, 03:05 UTC."), "{}", words(&page));
    assert!(!page.text().contains("data-final"), "{}", page.text());
    assert_eq!(ladder(&page).len(), 5);
}

#[tokio::test]
async fn where_the_courier_is_stands_below_the_headline() {
    let api = Api::open().await;
    let id = api.place_for_people().await;
    for (event, says) in [
        ("READY", "It is ready and waits for the courier."),
        ("COURIER_ASSIGNED", "A courier will fetch it."),
        ("COURIER_AT_PICKUP", "The courier is there to fetch it."),
        ("OUT_FOR_DELIVERY", "The courier has your order."),
        ("COURIER_AT_DOOR", "The courier is at your door, 03:04 UTC."),
        ("DELIVERY_FAILED", "The courier could not reach you, 03:04 UTC."),
    ] {
        api.say(&id, event, Source::Courier, json!({})).await;
        let page = track(&api, &id).await;
        assert!(words(&page).contains(says), "{event}: {}", words(&page));
        let announced = if event == "OUT_FOR_DELIVERY" { "On its way to you" } else { says };
        assert_eq!(said(&page), announced);
    }
    api.say(&id, "DELIVERED", Source::Courier, json!({})).await;
    assert!(words(&track(&api, &id).await).contains("Enjoy your "));
}

#[tokio::test]
async fn a_late_order_without_a_report_says_since_when_nobody_has_spoken() {
    let api = Service::on(Database::Sqlite).delays(StageDelays::uniform(Duration::from_mins(8))).open().await;
    let id = api.place_for_people().await;
    let text = words(&track(&api, &id).await);
    assert!(text.contains("The kitchen starts in a moment."), "{text}");
    api.clock.advance(Duration::from_mins(30));
    let page = track(&api, &id).await;
    let text = words(&page);
    let says = "Later than expected. We have no word from the kitchen since 03:04 UTC.";
    assert!(text.contains(says) && text.contains("Now expected between"), "{text}");
    assert!(page.text().contains("<title>Later than expected · "), "{text}");
    assert!(said(&page).starts_with(says), "{}", said(&page));
    assert!(attributes(page.text(), "href")[0].ends_with("/late.svg"), "{}", page.text());
    api.say(&id, "OUT_FOR_DELIVERY", Source::Courier, json!({})).await;
    assert!(!words(&track(&api, &id).await).contains("Later than expected"));
    api.clock.advance(Duration::from_mins(30));
    let text = words(&track(&api, &id).await);
    assert!(text.contains("We have no word from the courier since 03:34 UTC."), "{text}");
}

#[tokio::test]
async fn every_status_and_every_event_has_its_page() {
    let api = Api::open().await;
    for event in crate::order::Report::KINDS {
        let id = api.place("Ada").await;
        if event == crate::order::EventKind::Reverted {
            api.say(&id, "COOKING", Source::Kitchen, json!({})).await;
        }
        let more = json!({"minutes": 5, "reason": "other"});
        api.say(&id, event.as_str(), Source::Kitchen, more).await;
        let page = track(&api, &id).await;
        let status: Status = attributes(page.text(), "data-status")[0].parse().expect("a status");
        assert!(page.text().contains(status.picture()), "{event}: {}", page.text());
        assert!(!said(&page).is_empty(), "{event}: {}", page.text());
        let board = api.get(&format!("/?id={id}")).await;
        assert!(words(&board).contains(event.as_str()), "{event}: {}", words(&board));
    }
}
