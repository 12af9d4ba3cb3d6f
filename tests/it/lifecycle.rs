//! What is written by hand about statuses is what the table of the life cycle says.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use order_tracker::order::{EventKind, StageDelays, Status, listed};
use serde_json::Value;

use crate::cli::said;

/// Folders without words of ours, and documents of what was.
const LEFT_OUT: [&str; 8] = [
    ".git",
    "CHANGELOG.md",
    "PROBLEM.md",
    "docs/evidence",
    "docs/images",
    "migrations",
    "target",
    "tests/browser/node_modules",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every text of the repository with its path from the root.
fn texts() -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path: PathBuf = entry.expect("an entry").path();
            let name = path.strip_prefix(root()).expect("inside").to_str().expect("text").replace('\\', "/");
            if LEFT_OUT.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.push((name, text));
            }
        }
    }
    assert!(found.len() > 100, "{} texts", found.len());
    found
}

/// The statuses that a text names.
fn named(text: &str) -> BTreeSet<Status> {
    text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'))
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Who lists statuses has forgotten none: a list with most of those in progress has them all. Code lists none.
#[test]
fn a_list_of_statuses_is_whole_wherever_it_stands() {
    let (open, mut seen) = (Status::open().collect::<BTreeSet<_>>(), 0);
    // Nobody reports that an order was placed.
    let reported: BTreeSet<Status> = open.iter().copied().filter(|status| *status != Status::FIRST).collect();
    for (name, text) in texts().into_iter().filter(|(name, _)| !name.starts_with("src/")) {
        let mut lines = text.lines().enumerate().peekable();
        while let Some((n, line)) = lines.next() {
            let mut listed = named(line);
            if listed.intersection(&open).count() + 1 >= open.len() {
                // It may go on below.
                let next = lines.peek().map_or("", |(_, next)| next);
                listed.extend(named(next));
                seen += 1;
                let whole = if line.contains("READY") || next.contains("READY") { &reported } else { &open };
                assert!(listed.is_superset(whole), "{name}:{}: {line}", n + 1);
            }
        }
    }
    assert!(seen > 10, "only {seen} lists");
}

/// The order of statuses and what a timer makes of each are known to the table alone.
#[test]
fn no_code_counts_statuses_or_knows_their_places() {
    for (name, text) in texts() {
        if !name.starts_with("src/") || name.starts_with("src/store/") || name.starts_with("src/order/") {
            continue;
        }
        for shape in ["Status::ALL[", "Status::ALL.windows", "status as u", "EventKind::ALL["] {
            assert!(!text.contains(shape), "{name} has {shape}");
        }
    }
}

/// The bars of "how many orders reached each status", one for each, and no question about a status that is none.
#[test]
fn the_dashboard_shows_every_status() {
    let dashboard: Value =
        serde_json::from_str(&read("deploy/grafana/dashboards/orders.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let reached = panels
        .iter()
        .find(|panel| panel["description"].as_str().is_some_and(|text| text.contains("reached each status")))
        .expect("a panel of them");
    let targets = reached["targets"].as_array().expect("questions");
    let bars = targets.iter().map(|target| target["legendFormat"].as_str().expect("a name"));
    assert!(bars.eq(Status::ALL.map(Status::as_str)), "{targets:?}");
    for (target, status) in targets.iter().zip(Status::ALL).skip(1) {
        let question = target["expr"].as_str().expect("a question");
        assert!(question.contains(&format!("status_transitions_total{{to=\"{status}\"}}")), "{question}");
    }
}

/// Every question and rule of the deployment asks for steps that there are.
#[test]
fn questions_about_steps_name_statuses() {
    let mut seen = 0;
    for (name, text) in
        texts().into_iter().filter(|(name, _)| name.starts_with("deploy/") || name.starts_with("ci/"))
    {
        for asked in text.replace("\\\"", "\"").split("status_transitions_total{").skip(1) {
            let labels = asked.split('}').next().unwrap_or_default();
            for value in labels.split('"').skip(1).step_by(2) {
                assert!(value.parse::<Status>().is_ok(), "{name} asks for {labels}");
                seen += 1;
            }
        }
    }
    assert!(seen > 4, "only {seen} questions");
}

#[tokio::test]
async fn settings_and_documents_tell_the_stages_in_their_order() {
    let stages = listed(Status::timed());
    for (name, told) in
        [("README.md", format!("time in {stages};")), (".env.example", format!("in {stages};"))]
    {
        assert!(read(name).contains(&told), "{name} does not say {told}");
    }
    let life = Status::plain_life().map(Status::as_str).collect::<Vec<_>>().join(" → ");
    assert!(read("README.md").contains(&life), "{life}");
    let help = said(&["--help"]).await;
    assert!(help.contains(&format!("[default: {}]", StageDelays::default())), "{help}");
}

/// What those who read streams and topics know of an order that nobody interferes with.
#[test]
fn a_plain_life_has_six_events() {
    let life = std::iter::once(EventKind::Created).chain(Status::plain_life().map(EventKind::Reached));
    assert!(life.map(EventKind::as_str).eq(crate::harness::SIX));
}
