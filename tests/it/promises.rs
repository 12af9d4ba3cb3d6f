//! What is promised in numbers is written in documents, alerts and scripts too: the same numbers.

use std::{fs, path::Path, time::Duration};

use order_tracker::{
    order::promises::{
        IDEMPOTENCY_KEY_LIFETIME, IN_FLIGHT, LIVE_WITHIN, MAX_BODY_BYTES, MAX_HEAD_BYTES, OVERDUE_AFTER,
        PUBLISHED_WITHIN,
    },
    time::deadlines::{QUEUE, STREAM_SILENCE},
};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    // Lines are wrapped where it fits.
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A small number as prose has it.
fn word(number: u64) -> &'static str {
    ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
        [usize::try_from(number).expect("small")]
}

fn thousands(number: usize) -> String {
    format!("{},{:03}", number / 1_000, number % 1_000)
}

/// Whoever changes a promise meets every place that repeats it.
#[test]
fn documents_and_scripts_repeat_the_promises() {
    let (late, queue, kib) = (OVERDUE_AFTER.as_secs(), QUEUE.as_secs(), MAX_BODY_BYTES / 1024);
    assert_eq!(MAX_HEAD_BYTES, MAX_BODY_BYTES, "decision 022 tells of both at once");
    let hours = IDEMPOTENCY_KEY_LIFETIME.as_secs() / 3_600;
    let promised = word(late);
    for (name, sentence) in [
        ("docs/runbook.md", format!("{}{} are promised.", promised[..1].to_uppercase(), &promised[1..])),
        ("docs/decisions/021-alerts.md", format!("a step may be {late} s late")),
        ("docs/decisions/010-group-read.md", format!("after {queue} s it is answered 503")),
        ("docs/decisions/009-group-commit.md", format!("waits longer than {queue} s is answered 503")),
        ("docs/decisions/008-idempotency-keys.md", format!("Keys live for {hours} hours at least")),
        ("docs/decisions/014-producer.md", format!("At most {} orders are in flight", thousands(IN_FLIGHT))),
        ("docs/decisions/022-http-connections.md", format!("head and body are at most {kib} KiB each")),
        ("docs/asyncapi.yaml", format!("At most {kib} KiB are read")),
        ("docs/asyncapi.yaml", format!("what is larger than {kib} KiB is left out")),
        ("src/http/api/orders.rs", format!("kept for {hours} hours at least")),
        ("src/http/api/orders.rs", format!("Up to {kib} KiB")),
        ("src/http/pages/assets/track.js", format!("const SILENCE = {}_000;", STREAM_SILENCE.as_secs())),
        ("tests/faults/rows/mod.rs", format!("\"first step <= {late} s\"")),
        ("tests/faults/rows/mod.rs", format!("\"p99 <= {:?} s, 0 missed", LIVE_WITHIN.as_secs_f64())),
        ("src/order/violations/mod.rs", format!("\"no step is more than {late} s late\"")),
    ] {
        assert!(read(name).contains(&sentence), "{name} does not say: {sentence}");
    }
}

/// The seconds beyond which an alert fires.
fn threshold(rules: &str, alert: &str) -> Duration {
    let rule = rules.split("- alert: ").find(|rule| rule.starts_with(alert)).expect("the alert");
    let expr = rule.split("for: ").next().and_then(|expr| expr.split(" > ").nth(1)).expect("a threshold");
    Duration::from_secs(expr.trim().parse().expect("seconds"))
}

/// Nobody is woken while a promise is kept, and an alert that fires tells what was promised.
#[test]
fn alerts_fire_beyond_the_promises() {
    let rules = read("deploy/prometheus/rules/alerts.yml");
    assert!(threshold(&rules, "OrdersStuck ") > OVERDUE_AFTER);
    assert!(threshold(&rules, "OutboxBacklog ") > PUBLISHED_WITHIN);
    let (stuck, waits) = (threshold(&rules, "OrdersStuck "), threshold(&rules, "OutboxBacklog "));
    let promised = format!("{} seconds are promised.", word(OVERDUE_AFTER.as_secs()));
    assert!(rules.contains(&promised), "no {promised:?}");
    assert!(read("deploy/prometheus/tests/alerts.yml").contains(&promised), "no {promised:?}");
    let runbook = read("docs/runbook.md");
    let late = format!("a step that was due is more than {} seconds late.", word(stuck.as_secs()));
    assert!(runbook.contains(&late), "no {late:?}");
    assert_eq!(waits, Duration::from_secs(30), "the runbook tells of half a minute");
    assert!(runbook.contains("have waited for more than half a minute to be put on the topic"));
    let decision = read("docs/decisions/021-alerts.md");
    assert!(decision.contains(&format!("the alert comes at {} s", stuck.as_secs())));
}
