//! A report as somebody sent it, and what may be wrong with it.

use std::fmt;

use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    super::{EventKind, FieldCode, FieldError, Status, Timestamp, json, listed_events, schema, to_millis},
    Reason, Report, Reporter, Source,
};

/// Longest name that a sender may give to a report, in ASCII characters.
pub(crate) const MAX_ID_CHARS: usize = 64;
/// Longest note, in characters.
pub(crate) const MAX_NOTE_CHARS: usize = 256;
/// Longest name of a station, in characters.
pub(crate) const MAX_STATION_CHARS: usize = 64;
/// Most minutes that one report may delay an order by.
pub(crate) const MAX_MINUTES: u16 = 240;
/// Greatest position that an event can have. A full timeline still grows, by what moves its order.
pub(crate) const MAX_POSITION: u32 = i32::MAX.unsigned_abs();
/// How far ahead of ours the sender's clock may be.
const AHEAD: TimeDelta = TimeDelta::minutes(1);

/// A report as somebody sent it: any field may be missing or of any type; unknown ones, and those that its event has no
/// use for, are ignored.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "a JSON object")]
#[schema(as = NewReport)]
pub struct ReportRequest {
    /// What happened.
    #[schema(required, schema_with = schema::report_event)]
    event: Option<Value>,
    /// Your name for this report: the same one again changes nothing.
    #[schema(schema_with = schema::report_id)]
    id: Option<Value>,
    /// When it happened by your clock.
    #[schema(schema_with = schema::occurred_at)]
    occurred_at: Option<Value>,
    /// Why: for `CANCELLED`, where it is required, `DELIVERY_FAILED` and `DELAYED`.
    #[schema(schema_with = schema::reason)]
    reason: Option<Value>,
    /// By how many minutes. Required for DELAYED.
    #[schema(schema_with = schema::minutes)]
    minutes: Option<Value>,
    /// What else there is to say, for those who work on the order.
    #[schema(schema_with = schema::note)]
    note: Option<Value>,
    /// Where in the kitchen.
    #[schema(schema_with = schema::station)]
    station: Option<Value>,
    /// Who says so.
    #[schema(schema_with = schema::source)]
    source: Option<Value>,
    /// Which position a REVERTED takes back; the latest, if it is left out.
    #[schema(schema_with = schema::reverts)]
    reverts: Option<Value>,
}

/// Everything that is wrong with a report at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportErrors(pub Vec<FieldError>);

impl fmt::Display for ReportErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<String> =
            self.0.iter().map(|error| format!("{} {}", error.field, error.message)).collect();
        f.write_str(&errors.join("; "))
    }
}

impl std::error::Error for ReportErrors {}

impl ReportRequest {
    /// Reads a body; the error says where it stops being JSON.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        json::object(body)
    }

    /// Reads one of several.
    pub fn from_value(value: Value) -> Result<Self, serde_json::Error> {
        if value.is_array() {
            return Err(serde::de::Error::custom("invalid type: sequence, expected a JSON object"));
        }
        serde_json::from_value(value)
    }

    /// Its `id`, as it was sent.
    pub fn id(&self) -> Option<&str> {
        self.id.as_ref()?.as_str()
    }

    /// The report, if all is well; `now` is what the sender's clock is held to. Where a key tells who reports it is not
    /// asked for.
    pub fn check(self, reporter: Option<&Reporter>, now: Timestamp) -> Result<Report, ReportErrors> {
        let mut wrong = Wrong::default();
        let event = wrong.event(self.event);
        // Whatever else is wrong is told too.
        let report = Report {
            event: event.unwrap_or(EventKind::Ready),
            id: wrong.id(self.id),
            occurred_at: wrong.moment("occurred_at", self.occurred_at, now),
            reason: match event {
                Some(CANCELLED) => {
                    let reason = wrong.required("reason", self.reason, CANCELLED);
                    wrong.word("reason", reason, &Reason::ALL, Reason::as_str)
                }
                Some(EventKind::DeliveryFailed | EventKind::Delayed) => {
                    wrong.word("reason", self.reason, &Reason::ALL, Reason::as_str)
                }
                _ => None,
            },
            minutes: match event {
                Some(EventKind::Delayed) => {
                    let minutes = wrong.required("minutes", self.minutes, EventKind::Delayed);
                    wrong.number("minutes", minutes, MAX_MINUTES)
                }
                _ => None,
            },
            note: wrong.text("note", self.note, MAX_NOTE_CHARS),
            station: wrong.text("station", self.station, MAX_STATION_CHARS),
            source: match reporter {
                Some(reporter) => reporter.role.source(),
                None => {
                    wrong.word("source", self.source, &Source::NAMED, Source::as_str).unwrap_or(Source::Api)
                }
            },
            by: reporter.map(|reporter| reporter.name.clone()),
            role: reporter.map(|reporter| reporter.role),
            reverts: match event {
                Some(EventKind::Reverted) => wrong.number("reverts", self.reverts, MAX_POSITION),
                _ => None,
            },
        };
        if wrong.0.is_empty() { Ok(report) } else { Err(ReportErrors(wrong.0)) }
    }
}

const CANCELLED: EventKind = EventKind::Reached(Status::Cancelled);

/// Collects what is wrong.
#[derive(Default)]
struct Wrong(Vec<FieldError>);

impl Wrong {
    fn is(&mut self, field: &str, code: FieldCode, message: impl Into<String>) {
        self.0.push(FieldError::new(field, code, message));
    }

    /// A value that this event can't do without.
    fn required(&mut self, field: &str, value: Option<Value>, event: EventKind) -> Option<Value> {
        if value.is_none() {
            self.is(field, FieldCode::Required, format!("is required for {event}"));
        }
        value
    }

    fn string(&mut self, field: &str, value: Option<Value>) -> Option<String> {
        let value = value?;
        if let Value::String(text) = value {
            return Some(text);
        }
        self.is(field, FieldCode::Type, "must be a string");
        None
    }

    fn event(&mut self, value: Option<Value>) -> Option<EventKind> {
        if value.is_none() {
            self.is("event", FieldCode::Required, "is required");
        }
        let text = self.string("event", value)?;
        let event = text.parse().ok().filter(|kind| Report::KINDS.contains(kind));
        if event.is_none() {
            let message = format!("must be one of {}", listed_events(Report::KINDS));
            self.is("event", FieldCode::Choice, message);
        }
        event
    }

    fn id(&mut self, value: Option<Value>) -> Option<String> {
        let id = self.string("id", value)?;
        let printable = id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if (1..=MAX_ID_CHARS).contains(&id.len()) && printable {
            return Some(id);
        }
        self.is("id", FieldCode::Length, format!("must be 1 to {MAX_ID_CHARS} printable ASCII characters"));
        None
    }

    fn moment(&mut self, field: &str, value: Option<Value>, now: Timestamp) -> Option<Timestamp> {
        let text = self.string(field, value)?;
        let at = chrono::DateTime::parse_from_rfc3339(&text).ok().map(|at| to_millis(at.to_utc()));
        let at = at.filter(|at| (Timestamp::UNIX_EPOCH..=now + AHEAD).contains(at));
        if at.is_none() {
            let message = "must be a moment in RFC 3339, from 1970 on and at most 1 minute ahead";
            self.is(field, FieldCode::Range, message);
        }
        at
    }

    /// One of a few words; nothing, if it is not there.
    fn word<T: Copy>(
        &mut self,
        field: &str,
        value: Option<Value>,
        words: &[T],
        name: fn(T) -> &'static str,
    ) -> Option<T> {
        let text = self.string(field, value)?;
        let word = words.iter().copied().find(|word| name(*word) == text);
        if word.is_none() {
            let names: Vec<&str> = words.iter().copied().map(name).collect();
            self.is(field, FieldCode::Choice, format!("must be one of {}", names.join(", ")));
        }
        word
    }

    /// A whole number from 1 to `most`.
    fn number<T: Copy + TryFrom<u64> + Into<u64> + fmt::Display>(
        &mut self,
        field: &str,
        value: Option<Value>,
        most: T,
    ) -> Option<T> {
        let number = value?.as_u64().filter(|number| (1..=most.into()).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.is(field, FieldCode::Range, format!("must be a whole number from 1 to {most}"));
        }
        number
    }

    /// Kept as it was sent; an empty one says nothing.
    fn text(&mut self, field: &str, value: Option<Value>, most: usize) -> Option<String> {
        let text = self.string(field, value).filter(|text| !text.is_empty())?;
        if text.chars().any(char::is_control) {
            self.is(field, FieldCode::ControlCharacter, "must not hold control characters");
            return None;
        }
        if text.chars().nth(most).is_some() {
            self.is(field, FieldCode::Length, format!("must be at most {most} characters long"));
            return None;
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().expect("a moment")
    }

    fn check(value: Value) -> Result<Report, Vec<(String, FieldCode)>> {
        let request = ReportRequest::from_value(value).expect("an object");
        let named = |errors: ReportErrors| {
            errors.0.into_iter().map(|error| (error.field, error.code)).collect::<Vec<_>>()
        };
        request.check(None, now()).map_err(named)
    }

    #[test]
    fn a_whole_report_is_read_as_it_was_sent() {
        let report = check(json!({
            "event": "DELAYED", "id": "a 1", "occurred_at": "2026-01-02T04:05:04.1239+01:00",
            "reason": "too_busy", "minutes": 240, "note": " <b>for</b> Ada ", "station": "grill",
            "source": "kitchen", "reverts": 3, "by": "somebody", "else": [],
        }));
        let expected = Report {
            id: Some("a 1".to_owned()),
            occurred_at: "2026-01-02T03:05:04.123Z".parse().ok(),
            reason: Some(Reason::TooBusy),
            minutes: Some(240),
            note: Some(" <b>for</b> Ada ".to_owned()),
            station: Some("grill".to_owned()),
            ..Report::of(EventKind::Delayed, Source::Kitchen)
        };
        assert_eq!(report, Ok(expected));
    }

    #[test]
    fn what_an_event_has_no_use_for_is_not_kept() {
        let report = check(json!({"event": "READY", "reason": 5, "minutes": "x", "reverts": [], "note": ""}));
        assert_eq!(report, Ok(Report::of(EventKind::Ready, Source::Api)));
        let revert = check(json!({"event": "REVERTED", "reverts": 4})).expect("is well");
        assert_eq!(revert.reverts, Some(4));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wrong = check(json!({
            "event": "PLACED", "id": "", "occurred_at": "2026-01-02T03:05:06Z", "note": "a\nb",
            "station": "x".repeat(65), "source": "timer",
        }));
        let expected = [
            ("event", FieldCode::Choice),
            ("id", FieldCode::Length),
            ("occurred_at", FieldCode::Range),
            ("note", FieldCode::ControlCharacter),
            ("station", FieldCode::Length),
            ("source", FieldCode::Choice),
        ];
        assert_eq!(wrong, Err(expected.map(|(field, code)| (field.to_owned(), code)).to_vec()));
    }

    #[test]
    fn each_field_has_its_limits() {
        for (body, field, code) in [
            (json!({}), "event", FieldCode::Required),
            (json!({"event": null}), "event", FieldCode::Required),
            (json!({"event": 5}), "event", FieldCode::Type),
            (json!({"event": "ERASED"}), "event", FieldCode::Choice),
            (json!({"event": "CANCELLED"}), "reason", FieldCode::Required),
            (json!({"event": "CANCELLED", "reason": "because"}), "reason", FieldCode::Choice),
            (json!({"event": "DELAYED"}), "minutes", FieldCode::Required),
            (json!({"event": "DELAYED", "minutes": 0}), "minutes", FieldCode::Range),
            (json!({"event": "DELAYED", "minutes": 241}), "minutes", FieldCode::Range),
            (json!({"event": "DELAYED", "minutes": 1.5}), "minutes", FieldCode::Range),
            (json!({"event": "DELAYED", "minutes": "5"}), "minutes", FieldCode::Range),
            (json!({"event": "REVERTED", "reverts": 0}), "reverts", FieldCode::Range),
            (json!({"event": "REVERTED", "reverts": 2_147_483_648_u32}), "reverts", FieldCode::Range),
            (json!({"event": "REVERTED", "reverts": "3"}), "reverts", FieldCode::Range),
            (json!({"event": "READY", "id": "é"}), "id", FieldCode::Length),
            (json!({"event": "READY", "id": "x".repeat(65)}), "id", FieldCode::Length),
            (
                json!({"event": "READY", "occurred_at": "1969-12-31T23:59:59Z"}),
                "occurred_at",
                FieldCode::Range,
            ),
            (json!({"event": "READY", "occurred_at": "yesterday"}), "occurred_at", FieldCode::Range),
            (json!({"event": "READY", "note": "x".repeat(257)}), "note", FieldCode::Length),
        ] {
            assert_eq!(check(body.clone()), Err(vec![(field.to_owned(), code)]), "{body}");
        }
        assert!(ReportRequest::from_value(json!(["READY"])).is_err());
        assert!(ReportRequest::parse(b"[]").is_err());
    }
}
