//! An event as a line for people: what happened, when, and who said what about it.

use std::fmt::Write as _;

use serde_json::Value;

use super::clean;
use crate::order::{Event, Source, Timestamp};

/// An event, when it happened, how long after the one before, and what was said.
pub(super) fn line(event: &Event, previous: Option<Timestamp>) -> String {
    let after = previous.map_or_else(String::new, |previous| {
        let millis = (event.timestamp - previous).num_milliseconds();
        format!("  +{}.{:03} s", millis / 1000, millis % 1000)
    });
    let at = event.timestamp.format("%Y-%m-%d %H:%M:%S%.3f UTC");
    format!("{at}  {:17}{after}{}", event.event.as_str(), said(event.meta.as_ref()))
}

/// What its `meta` tells, two spaces before it; nothing, if there is nothing to tell. A newer service may say what is not
/// known here, and none of it is believed to be harmless.
pub(super) fn said(meta: Option<&Value>) -> String {
    let Some(meta) = meta else { return String::new() };
    let word = |name: &str| meta.get(name).and_then(Value::as_str).map(clean::line);
    let number = |name: &str| meta.get(name).and_then(Value::as_i64);
    let mut parts = Vec::new();
    if let Some(source) = word("source") {
        let by = word("by").map(|by| format!(" ({by})")).unwrap_or_default();
        // Where an order came from is nobody's report.
        let of = if source.parse::<Source>().is_ok() { "by" } else { "from" };
        parts.push(format!("{of} {source}{by}"));
    }
    if meta.get("inferred") == Some(&Value::Bool(true)) {
        parts.push("inferred, since it was skipped".to_owned());
    }
    if let (Some(topic), Some(partition), Some(offset)) =
        (word("topic"), number("partition"), number("offset"))
    {
        parts.push(format!("{topic} {partition}:{offset}"));
    }
    parts.extend(number("minutes").map(|minutes| format!("{minutes} more {}", plural(minutes))));
    if let Some(reverts) = number("reverts") {
        let to = word("to").map(|to| format!(", so it is {to} again")).unwrap_or_default();
        parts.push(format!("takes back event {reverts}{to}"));
    }
    parts.extend(word("reason").map(|reason| format!("reason {reason}")));
    parts.extend(word("station").map(|station| format!("station {station}")));
    if let Some(at) = word("occurred_at") {
        parts.push(format!("they say at {at}"));
    }
    // `true` only says that there is a note, where it may not be shown.
    parts.extend(word("note").map(|note| format!("note: {note}")));
    let mut text = String::new();
    if !parts.is_empty() {
        let _ = write!(text, "  {}", parts.join(", "));
    }
    text
}

fn plural(minutes: i64) -> &'static str {
    if minutes == 1 { "minute" } else { "minutes" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::order::EventKind;

    #[test]
    fn a_line_says_who_said_what() {
        for (meta, expected) in [
            (Value::Null, ""),
            (json!({"status": "COOKING", "note": true}), ""),
            (json!({"source": "http"}), "  from http"),
            (
                json!({"source": "topic", "topic": "orders.v1", "partition": 3, "offset": 17}),
                "  from topic, orders.v1 3:17",
            ),
            (
                json!({"source": "kitchen", "by": "grill 2", "inferred": true}),
                "  by kitchen (grill 2), inferred, since it was skipped",
            ),
            (
                json!({"source": "kitchen", "minutes": 10, "reason": "too_busy", "station": "oven", "note": "flat tyre"}),
                "  by kitchen, 10 more minutes, reason too_busy, station oven, note: flat tyre",
            ),
            (
                json!({"source": "api", "reverts": 4, "from": "COOKING", "to": "PREPARING", "occurred_at": "2026-01-02T03:04:05.000Z"}),
                "  by api, takes back event 4, so it is PREPARING again, they say at 2026-01-02T03:04:05.000Z",
            ),
        ] {
            assert_eq!(said(Some(&meta)), expected, "{meta}");
        }
        assert_eq!(said(Some(&json!({"minutes": 1, "reverts": "x", "note": 7}))), "  1 more minute");
    }

    /// A note is what somebody typed.
    #[test]
    fn what_others_wrote_is_harmless() {
        let hostile = "x\u{1b}[2J\r\nDELIVERED\u{202e}y";
        let fields = ["source", "by", "reason", "station", "note", "to", "occurred_at", "topic"];
        let mut meta = json!({"reverts": 3, "partition": 1, "offset": 2});
        for field in fields {
            meta[field] = hostile.into();
        }
        let event = Event {
            seq: 5,
            event: EventKind::Reverted,
            timestamp: "2026-01-02T03:04:05.678Z".parse().expect("a moment"),
            meta: Some(meta),
        };
        let line = line(&event, Some(event.timestamp));
        assert!(!line.contains(['\u{1b}', '\r', '\n', '\u{202e}']), "{}", line.escape_debug());
        assert_eq!(line.matches("x\\u{1b}[2J\\r\\nDELIVERED\\u{202e}y").count(), fields.len(), "{line}");
        assert!(
            line.starts_with("2026-01-02 03:04:05.678 UTC  REVERTED           +0.000 s  from x"),
            "{line}"
        );
    }
}
