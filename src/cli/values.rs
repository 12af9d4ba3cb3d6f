//! Values as people type them, and what shells offer for them.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::{
    client::header::HeaderValue,
    order::{EventKind, OrderId, ParseIdError, Reason, Report, Size, Source, Status},
};

/// Longest `Idempotency-Key`.
const MAX_KEY_CHARS: usize = 255;

/// The sizes, in any case if the argument ignores it.
pub(super) fn sizes() -> impl TypedValueParser<Value = Size> {
    PossibleValuesParser::new(Size::ALL.map(Size::as_str))
        .try_map(|text| text.to_ascii_lowercase().parse::<Size>())
}

/// The statuses, in any case if the argument ignores it, with dashes too.
pub(super) fn statuses() -> impl TypedValueParser<Value = Status> {
    Words::new(Status::ALL.map(Status::as_str)).try_map(|text| text.to_ascii_uppercase().parse::<Status>())
}

/// The kinds of events, likewise.
pub(super) fn event_kinds() -> impl TypedValueParser<Value = EventKind> {
    kinds(EventKind::ALL)
}

/// The kinds of events that a report may be of, likewise.
pub(super) fn report_kinds() -> impl TypedValueParser<Value = EventKind> {
    kinds(Report::KINDS)
}

fn kinds<const N: usize>(kinds: [EventKind; N]) -> impl TypedValueParser<Value = EventKind> {
    Words::new(kinds.map(EventKind::as_str)).try_map(|text| text.to_ascii_uppercase().parse::<EventKind>())
}

/// The reasons of reports, likewise.
pub(super) fn reasons() -> impl TypedValueParser<Value = Reason> {
    Words::new(Reason::ALL.map(Reason::as_str)).try_map(|text| text.to_ascii_lowercase().parse::<Reason>())
}

/// Who may say that something happened, likewise.
pub(super) fn sources() -> impl TypedValueParser<Value = Source> {
    Words::new(Source::NAMED.map(Source::as_str)).try_map(|text| text.to_ascii_lowercase().parse::<Source>())
}

/// A few words with underscores, for which dashes may be typed.
#[derive(Clone)]
struct Words(PossibleValuesParser);

impl Words {
    fn new<const N: usize>(words: [&'static str; N]) -> Self {
        Self(PossibleValuesParser::new(words))
    }
}

impl TypedValueParser for Words {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        let spelled = value.to_str().map(|text| text.replace('-', "_")).unwrap_or_default();
        let known = self.0.parse_ref(command, arg, OsStr::new(&spelled));
        // What is not known is told as it was typed.
        known.or_else(|_| self.0.parse_ref(command, arg, value))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

/// An order's id in any case, with or without `ORD-`.
pub(super) fn order_id(text: &str) -> Result<OrderId, ParseIdError> {
    OrderId::typed(text)
}

/// A key as the service takes it: bare or in quotes, and nothing that would break the request.
pub(super) fn idempotency_key(text: &str) -> Result<HeaderValue, String> {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let edge = |char: char| char == ' ' || char == '"';
    let bare = quoted.unwrap_or(text);
    let valid = (1..=MAX_KEY_CHARS).contains(&bare.len())
        && bare.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && (quoted.is_some() || !(text.starts_with(edge) || text.ends_with(' ')));
    let key = HeaderValue::from_str(text).ok().filter(|_| valid);
    key.ok_or_else(|| {
        format!("must be 1 to {MAX_KEY_CHARS} printable ASCII characters without spaces around")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_the_service_would_refuse_is_refused_here() {
        let long = "k".repeat(255);
        for good in ["k", "a b", "\"a b\"", "\" \"", "k\"", &long, &format!("\"{long}\"")] {
            assert!(idempotency_key(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a\nb", " k", "k ", "\"", "\"k", "\"\"", "é", "\u{7f}", &format!("{long}k")] {
            assert!(idempotency_key(bad).is_err(), "{bad:?}");
        }
    }
}
