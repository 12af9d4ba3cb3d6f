//! What pages, styles, scripts and pictures make of the statuses.

use std::collections::BTreeSet;

use super::Api;
use crate::order::Status;

const STYLES: [&str; 3] = [
    include_str!("../pages/assets/page.css"),
    include_str!("../pages/assets/track.css"),
    include_str!("../pages/assets/board.css"),
];
const SCRIPTS: [&str; 3] = [
    include_str!("../pages/assets/page.js"),
    include_str!("../pages/assets/track.js"),
    include_str!("../pages/assets/board.js"),
];
const PAGES: [&str; 11] = [
    include_str!("../pages/mod.rs"),
    include_str!("../pages/track/mod.rs"),
    include_str!("../pages/track/arrival.rs"),
    include_str!("../pages/track/cancel.rs"),
    include_str!("../pages/track/told.rs"),
    include_str!("../pages/sign_in.rs"),
    include_str!("../pages/board/view.rs"),
    include_str!("../pages/board/attention.rs"),
    include_str!("../pages/board/buttons.rs"),
    include_str!("../pages/board/report.rs"),
    include_str!("../pages/board/sheet.rs"),
];
const ELEMENTS: [&str; 17] = [
    "a", "button", "details", "div", "form", "label", "li", "nav", "ol", "p", "section", "span", "strong",
    "time", "tr", "ul", "#",
];

/// The parts of a text between two others.
fn between<'a>(text: &'a str, before: &'a str, after: char) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
}

/// The classes of a selector such as `p#mark.live .late`, or of an element of a template.
fn classes(selector: &str) -> impl Iterator<Item = String> {
    let name = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_lowercase() || matches!(c, '-' | '_')).collect()
    };
    selector.split('.').skip(1).map(name).filter(|name| !name.is_empty())
}

/// What rules and scripts look for.
fn sought() -> BTreeSet<String> {
    let mut sought = BTreeSet::new();
    for style in STYLES {
        // A rule's selectors stand before `{`, behind the rule, the comment or the condition before.
        for before in style.split('{') {
            let selectors = before.rsplit(['}', '/', ';']).next().unwrap_or_default();
            sought.extend(classes(selectors));
        }
    }
    for script in SCRIPTS {
        for call in ["querySelector(\"", "querySelectorAll(\"", "closest(\""] {
            sought.extend(between(script, call, '"').flat_map(classes));
        }
    }
    sought
}

/// What templates and scripts give.
fn given() -> BTreeSet<String> {
    let mut given: BTreeSet<String> = Status::ALL.map(|status| status.slug().to_owned()).into();
    for page in PAGES {
        let elements = page.split_whitespace().filter(|word| {
            let element = word.split(['.', '#', '[']).next().unwrap_or_default();
            ELEMENTS.contains(&element) || word.starts_with('#')
        });
        given.extend(elements.map(|word| word.split('[').next().unwrap_or_default()).flat_map(classes));
        for line in between(page, "class=", '\n') {
            given.extend(between(line, "\"", '"').flat_map(str::split_whitespace).map(str::to_owned));
        }
    }
    for script in SCRIPTS {
        given.extend(script.split('"').map(str::to_owned));
    }
    given
}

/// A rule or a script that looks for a class that no page has does nothing, and nobody hears of it.
#[test]
fn every_class_that_is_looked_for_is_on_a_page() {
    let (sought, given) = (sought(), given());
    for known in ["arrival", "left", "late", "out-for-delivery", "steps", "current"] {
        assert_eq!(sought.contains(known), known != "current", "{known} in {sought:?}");
    }
    let nowhere: Vec<_> = sought.difference(&given).collect();
    assert!(nowhere.is_empty(), "{nowhere:?} are on no page");
}

/// The board's mark of a status has the colour of its picture, and the picture is there.
#[tokio::test]
async fn every_status_has_its_picture_and_the_board_its_colour() {
    let api = Api::open().await;
    for status in Status::ALL {
        let picture = api.get(&format!("/assets/0/{}", status.picture())).await;
        assert_eq!(picture.header("content-type"), "image/svg+xml", "{status}");
        let colour = between(picture.text(), "fill=\"", '"').next().expect("a ground");
        let rule = format!(".{} {{ --tone: {colour}; }}", status.slug());
        assert!(STYLES[2].contains(&rule), "board.css has no {rule}");
    }
}

/// Which statuses there are and which one ends a life, pages tell their scripts.
#[test]
fn no_script_knows_a_status() {
    for script in SCRIPTS {
        let words: BTreeSet<&str> = script.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).collect();
        let named: Vec<Status> =
            Status::ALL.into_iter().filter(|status| words.contains(status.as_str())).collect();
        assert!(named.is_empty(), "{named:?} in {script}");
    }
}

#[tokio::test]
async fn the_customer_s_page_says_whether_anything_more_will_come() {
    let api = Api::open().await;
    let path = format!("/track/{}", api.place("Ada").await);
    for status in Status::plain_life() {
        let page = api.get(&path).await;
        let content = between(page.text(), "<main ", '>').next().expect("content").to_owned();
        assert!(content.contains(&format!("data-status=\"{status}\"")), "{content}");
        assert_eq!(content.contains(" data-final"), status.is_final(), "{content}");
        assert_eq!(content.contains(" data-delivered"), status == Status::Delivered, "{content}");
        assert_eq!(page.text().contains(">Arrived<"), status == Status::Delivered, "{}", page.text());
        api.clock.advance(std::time::Duration::from_secs(10));
        api.store.advance(10).await.expect("advances");
    }
}
