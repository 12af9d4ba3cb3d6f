//! The pages people look at: what they say, how they are protected, and how much they weigh.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::json;

use super::{
    Answer, Api,
    service::{Database, Service},
};
use crate::{
    order::{StageDelays, Status},
    telemetry::health::{Health, Part},
    time::Clock as _,
};

/// Most that the customer's page may weigh with all that it needs.
const MAX_BYTES: usize = 40 * 1024;

/// The values of an attribute, in the order of the page.
pub(super) fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let opening = format!("{name}=\"");
    page.split(opening.as_str()).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// What a page asks for: styles, scripts, pictures.
fn assets(page: &str) -> BTreeSet<&str> {
    let mut found = attributes(page, "href");
    found.extend(attributes(page, "src"));
    found.into_iter().filter(|path| path.starts_with("/assets/")).collect()
}

/// Insists on the headers of a page, and that nothing in it is inline.
pub(super) fn protected(answer: &Answer, status: StatusCode) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let policy = answer.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{part} in {policy}");
    }
    let page = answer.text();
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    for script in page.split("<script").skip(1) {
        assert!(script.contains(" src=\"/assets/") && script.contains("></script>"), "{script}");
    }
    for inline in ["<style", "style=", "onclick=", "onload=", "javascript:", "http://", "https://"] {
        assert!(!page.contains(inline), "{inline} in {page}");
    }
}

#[tokio::test]
async fn the_customer_s_page_tells_each_step() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let path = format!("/track/{id}");
    let told = [
        ("We have your order", 3),
        ("The kitchen is at work", 5),
        ("It is cooking", 7),
        ("On its way to you", 10),
        ("Delivered", 0),
    ];
    for ((headline, delay), status) in told.into_iter().zip(Status::ALL) {
        let answer = api.get(&path).await;
        protected(&answer, StatusCode::OK);
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let page = answer.text();
        assert!(page.contains(&format!("<h1 data-said>{headline}</h1>")), "{page}");
        assert_eq!(page.matches("</li>").count(), 5, "{page}");
        assert_eq!(attributes(page, "aria-current"), ["step"], "{page}");
        assert!(page.contains(&format!("data-status=\"{status}\"")), "{page}");
        assert_eq!(page.contains("Arrives between"), status != Status::Delivered, "{page}");
        let again = page.contains("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>");
        assert_eq!(again, status != Status::Delivered, "{page}");
        api.clock.advance(Duration::from_secs(delay));
        api.store.advance(10).await.expect("advances");
    }
    let page = api.get(&path).await;
    assert!(page.text().contains("Enjoy your <bdi>pizza</bdi>, <bdi>Ada</bdi>!"), "{}", page.text());
    assert!(page.text().contains("<time datetime=\"2026-01-02T03:04:30.678Z\">03:04:30 UTC</time>"));
}

#[tokio::test]
async fn a_late_order_is_not_promised_for_a_moment_that_has_passed() {
    let api = Api::open().await;
    let path = format!("/track/{}", api.place("Ada").await);
    api.clock.advance(Duration::from_mins(2));
    let page = api.get(&path).await;
    let text = page.text();
    // Said were 25 to 35.25 s, and 117 s have passed since the step was due: 142 s, or as long again.
    let expected = "Later than expected, now between</span><strong class=\"between\">\
                    <time class=\"minute\" datetime=\"2026-01-02T03:06:00Z\">03:06</time> and \
                    <time class=\"minute\" datetime=\"2026-01-02T03:09:00Z\">03:09 UTC</time>";
    assert!(text.contains(expected), "{text}");
    assert!(
        text.contains("We had said by <time class=\"minute\" datetime=\"2026-01-02T03:05:00Z\">"),
        "{text}"
    );
    assert!(text.contains("It takes longer than we said.") && !text.contains("in a moment"), "{text}");
    assert!(text.contains("<title>Later than expected · ") && text.contains("data-late=\"true\""), "{text}");
    for gone in ["Arrives between", "We are on it"] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    let until: i64 = attributes(text, "data-until")[0].parse().expect("a moment");
    assert!(until < api.clock.now().timestamp_millis(), "the script goes on asking: {text}");
}

/// 20 minutes in each of the last three stages.
#[tokio::test]
async fn an_arrival_is_told_to_the_minute_and_far_off_to_five() {
    let api =
        Service::on(Database::Sqlite).delays(StageDelays::uniform(Duration::from_mins(20))).open().await;
    let path = format!("/track/{}", api.place("Ada").await);
    let told = async || {
        let page = api.get(&path).await;
        let times = attributes(page.text(), "datetime").into_iter().filter(|at| !at.contains('.'));
        times.map(|at| at[11..].to_owned()).collect::<Vec<_>>()
    };
    // Expected are 04:04:08 to 04:19:13.
    assert_eq!(told().await, ["04:00:00Z", "04:20:00Z"]);
    // Two stages on, with a step in time: 03:24:28 to 03:29:32.
    for _ in 0..2 {
        api.clock.advance(Duration::from_secs(8));
        api.store.advance(10).await.expect("advances");
    }
    assert_eq!(told().await, ["03:24:00Z", "03:30:00Z"]);
}

#[tokio::test]
async fn other_delays_than_at_the_last_start_make_no_order_late() {
    let api =
        Service::on(Database::Sqlite).delays(StageDelays::uniform(Duration::from_millis(1))).open().await;
    let id = api.place("Ada").await;
    api.clock.advance(Duration::from_secs(3));
    api.store.advance(10).await.expect("advances");
    api.clock.advance(Duration::from_secs(4));
    let page = api.get(&format!("/track/{id}")).await;
    assert!(page.text().contains("Arrives between"), "{}", page.text());
    assert_eq!(attributes(page.text(), "data-from"), ["1767323053680"], "due in 1 s: {}", page.text());
    let board = api.get(&format!("/?id={id}")).await;
    assert!(
        !board.text().contains(" late</span>") && !board.text().contains("late. Why"),
        "{}",
        board.text()
    );
    api.clock.advance(Duration::from_secs(4));
    assert!(api.get(&format!("/?id={id}")).await.text().contains("3.0 s late</span>"));
}

#[tokio::test]
async fn an_id_as_people_type_it_leads_to_its_page() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let small = id.to_lowercase();
    for path in [
        format!("/track/{small}"),
        format!("/track/{}", &small[4..]),
        format!("/track/{id}/"),
        format!("/track/{small}/"),
    ] {
        let answer = api.get(&path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (StatusCode::PERMANENT_REDIRECT, format!("/track/{id}").as_str()),
            "{path}"
        );
    }
    protected(&api.get("/track/x/").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_asks_for_a_page_gets_one_where_nothing_is() {
    let api = Api::open().await;
    let ask =
        |accept: &str| Request::get("/nothing").header("accept", accept).body(Body::empty()).expect("valid");
    let page = api.send(ask("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")).await;
    protected(&page, StatusCode::NOT_FOUND);
    assert!(page.text().contains("There is no such page"), "{}", page.text());
    let problem = api.send(ask("*/*")).await;
    assert_eq!((problem.problem(404).0.as_str(), problem.header("vary")), ("not-found", "accept"));
}

#[tokio::test]
async fn hostile_text_stays_text() {
    let api = Api::open().await;
    let (script, quotes, marks) =
        ("<script>alert(1)</script>", "\"><img src=x onerror='a'>", "\u{202e}evil\u{2066}");
    let body = json!({"customer_name": script, "address": quotes, "item": marks, "size": "small"});
    let id = api.post_json(body).await.json()["order_id"].as_str().expect("an id").to_owned();
    let answer = api.get(&format!("/track/{id}")).await;
    protected(&answer, StatusCode::OK);
    let page = answer.text();
    assert!(page.contains("<bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi>"), "{page}");
    assert!(page.contains("<bdi>&quot;&gt;&lt;img src=x onerror='a'&gt;</bdi>"), "{page}");
    assert!(page.contains("<bdi>evil</bdi>, small") && !page.contains(['\u{202e}', '\u{2066}']), "{page}");
    assert!(!page.contains("<img src=x"), "{page}");
    assert!(page.contains("<title>Order placed · \u{2068}evil\u{2069}</title>"), "{page}");
}

#[tokio::test]
async fn what_is_no_order_gets_a_kind_page() {
    let api = Api::open().await;
    for path in ["/track/ORD-00000000000000000000000000", "/track/x", "/track/%FF", "/track/%3Cscript%3E"] {
        let answer = api.get(path).await;
        protected(&answer, StatusCode::NOT_FOUND);
        assert!(answer.text().contains("We can't find this order"), "{}", answer.text());
        assert!(!answer.text().contains("http-equiv"), "{}", answer.text());
    }
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn without_the_database_the_page_says_so_and_asks_again() {
    let api = Api::open().await;
    let path = format!("/track/{}", api.place("Ada").await);
    api.report(Part::Broker, Health::Up);
    api.store.close().await;
    let answer = api.get(&path).await;
    protected(&answer, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "1");
    assert!(answer.text().contains("It is safe, and this page tries again by itself."), "{}", answer.text());
    assert!(answer.text().contains("<meta http-equiv=\"refresh\""), "{}", answer.text());
}

#[tokio::test]
async fn the_customer_s_page_is_light() {
    let api = Api::open().await;
    let id = api.place(&"&".repeat(100)).await;
    let page = api.get(&format!("/track/{id}")).await;
    let mut bytes = page.body.len();
    // Over its life a page shows the picture of every status.
    let pictures = ["placed", "preparing", "cooking", "out-for-delivery", "delivered"];
    let version = assets(page.text()).first().and_then(|path| path.split('/').nth(2)).expect("a version");
    let mut wanted: BTreeSet<String> = assets(page.text()).into_iter().map(str::to_owned).collect();
    wanted.extend(pictures.map(|picture| format!("/assets/{version}/{picture}.svg")));
    assert_eq!(wanted.len(), 9, "two styles, two scripts, five pictures: {wanted:?}");
    for path in &wanted {
        let asset = api.get(path).await;
        assert_eq!(asset.status, StatusCode::OK, "{path}");
        bytes += asset.body.len();
    }
    assert!(bytes <= MAX_BYTES, "{bytes}");
}

#[tokio::test]
async fn assets_are_kept_for_ever_under_their_version_only() {
    let api = Api::open().await;
    let page = api.get("/track/x").await;
    let style = *assets(page.text()).iter().find(|path| path.ends_with("/page.css")).expect("a style");
    let answer = api.get(style).await;
    assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
    assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let seen = Request::get(style).header("if-none-match", answer.header("etag")).body(Body::empty());
    assert_eq!(api.send(seen.expect("valid")).await.status, StatusCode::NOT_MODIFIED);
    let other = api.get("/assets/0/page.css").await;
    assert_eq!((other.status, other.header("cache-control")), (StatusCode::OK, "no-cache"));
    api.get("/assets/0/secret.css").await.problem(404);
}

#[tokio::test]
async fn pages_answer_head_and_name_their_methods() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    for path in [format!("/track/{id}"), "/assets/0/page.css".to_owned()] {
        let of = |method| Request::builder().method(method).uri(&path).body(Body::empty()).expect("valid");
        let head = api.send(of(Method::HEAD)).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0), "{path}");
        let refused = api.send(of(Method::DELETE)).await;
        assert_eq!(refused.header("allow"), "GET,HEAD", "{path}");
        refused.problem(405);
    }
    assert!(api.metric("http_requests_total{method=\"HEAD\",route=\"/track/{id}\",status=\"200\"} 1").await);
}

/// Whoever sends the address of an order to somebody shows nothing of the order with it.
#[tokio::test]
async fn a_preview_holds_nothing_personal_and_no_index_holds_the_page() {
    let api = Api::open().await;
    let id = api.place("Ada").await;
    let page = api.get(&format!("/track/{id}")).await;
    let metas: Vec<&str> =
        page.text().split("<meta ").skip(1).filter_map(|rest| rest.split('>').next()).collect();
    assert!(metas.contains(&"name=\"robots\" content=\"noindex\""), "{metas:?}");
    for name in ["og:title", "og:description", "og:type", "og:site_name"] {
        assert!(
            metas.iter().any(|meta| meta.starts_with(&format!("property=\"{name}\" content=\""))),
            "{metas:?}"
        );
    }
    for private in ["Ada", "High St", "pizza", &id, "placed"] {
        assert!(!metas.iter().any(|meta| meta.contains(private)), "{private} in {metas:?}");
    }

    let robots = api.get("/robots.txt").await;
    assert_eq!((robots.status, robots.header("content-type")), (StatusCode::OK, "text/plain; charset=utf-8"));
    let lines: Vec<&str> = robots.text().lines().collect();
    assert!(lines.contains(&"Disallow: /") && lines.contains(&"Allow: /docs"), "{lines:?}");
    let icon = api.get("/favicon.ico").await;
    assert_eq!((icon.status, icon.header("content-type")), (StatusCode::OK, "image/x-icon"));
    assert!(
        icon.body.starts_with(&[0, 0, 1, 0, 1, 0, 32, 32]) && icon.body.len() < 4_096,
        "{}",
        icon.body.len()
    );
}
