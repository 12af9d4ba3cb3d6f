//! Values as people type them, and what shells offer for them.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::{
    client::header::HeaderValue,
    order::{EventKind, OrderId, ParseIdError, Size, Status},
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
    let name = |status: Status| PossibleValue::new(status.as_str()).alias(status.slug());
    PossibleValuesParser::new(Status::ALL.map(name))
        .try_map(|text| text.to_ascii_uppercase().replace('-', "_").parse::<Status>())
}

/// The kinds of events, likewise.
pub(super) fn event_kinds() -> impl TypedValueParser<Value = EventKind> {
    let name = |kind: EventKind| PossibleValue::new(kind.as_str()).aliases(kind.status().map(Status::slug));
    PossibleValuesParser::new(EventKind::ALL.map(name))
        .try_map(|text| text.to_ascii_uppercase().replace('-', "_").parse::<EventKind>())
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
