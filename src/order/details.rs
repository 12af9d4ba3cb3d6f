//! An order before it is one: who wants what, where, and how large.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{FieldCode, FieldError, json, schema, visible::has_visible};

/// Longest customer name and item, in characters after trimming.
pub(super) const MAX_NAME_CHARS: usize = 100;
/// Longest address, in characters after trimming.
pub(super) const MAX_ADDRESS_CHARS: usize = 300;

/// How large the item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// `small`
    Small,
    /// `medium`
    Medium,
    /// `large`
    Large,
}

impl Size {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// The name in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is none of the three sizes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of small, medium, large")]
pub struct ParseSizeError;

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|size| size.as_str() == text).ok_or(ParseSizeError)
    }
}

/// The four fields of a new order, checked and trimmed. Two are equal when the same thing
/// was ordered, which is what an `Idempotency-Key` is held to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "OrderRequest")]
pub struct OrderDetails {
    /// Who ordered, 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    pub customer_name: String,
    /// Where it goes, 1 to 300 characters.
    #[schema(min_length = 1, max_length = 300)]
    pub address: String,
    /// What was ordered, 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    pub item: String,
    /// How large.
    pub size: Size,
}

/// An order as somebody sent it: any field may be missing or of any type; unknown ones are ignored.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "a JSON object")]
#[schema(as = NewOrder)]
pub struct OrderRequest {
    /// Who orders.
    #[schema(required, schema_with = schema::name)]
    customer_name: Option<Value>,
    /// Where it goes.
    #[schema(required, schema_with = schema::address)]
    address: Option<Value>,
    /// What is ordered.
    #[schema(required, schema_with = schema::name)]
    item: Option<Value>,
    /// How large.
    #[schema(required, value_type = Size)]
    size: Option<Value>,
}

/// Everything that is wrong with it at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetailsErrors(pub Vec<FieldError>);

impl fmt::Display for DetailsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "; " };
            write!(f, "{comma}{} {}", error.field, error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for DetailsErrors {}

impl OrderRequest {
    /// Reads a body; the error says where it stops being JSON.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        json::object(body)
    }
}

impl TryFrom<OrderRequest> for OrderDetails {
    type Error = DetailsErrors;

    fn try_from(raw: OrderRequest) -> Result<Self, Self::Error> {
        let mut errors = Vec::new();
        let mut text =
            |field, value, max| text_field(field, value, max).map_err(|error| errors.push(error)).ok();
        let customer_name = text("customer_name", raw.customer_name, MAX_NAME_CHARS);
        let address = text("address", raw.address, MAX_ADDRESS_CHARS);
        let item = text("item", raw.item, MAX_NAME_CHARS);
        let size = size_field(raw.size).map_err(|error| errors.push(error)).ok();
        match (customer_name, address, item, size) {
            (Some(customer_name), Some(address), Some(item), Some(size)) => {
                Ok(Self { customer_name, address, item, size })
            }
            _ => Err(DetailsErrors(errors)),
        }
    }
}

impl OrderDetails {
    /// Checks and trims four plain texts.
    pub fn new(customer_name: &str, address: &str, item: &str, size: &str) -> Result<Self, DetailsErrors> {
        let text = |text: &str| Some(Value::from(text));
        Self::try_from(OrderRequest {
            customer_name: text(customer_name),
            address: text(address),
            item: text(item),
            size: text(size),
        })
    }
}

/// Reads the four fields of an order that was accepted, maybe before a rule of today: whoever asks shall see it. What is
/// kept from him is null, and empty here.
pub(super) fn as_stored<'de, D: Deserializer<'de>>(input: D) -> Result<OrderDetails, D::Error> {
    #[derive(Deserialize)]
    struct Stored {
        customer_name: Option<String>,
        address: Option<String>,
        item: String,
        size: Size,
    }
    let Stored { customer_name, address, item, size } = Stored::deserialize(input)?;
    let [customer_name, address] = [customer_name, address].map(Option::unwrap_or_default);
    Ok(OrderDetails { customer_name, address, item, size })
}

fn string(field: &str, value: Option<Value>) -> Result<String, FieldError> {
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(FieldError::new(field, FieldCode::Type, "must be a string")),
        None => Err(FieldError::new(field, FieldCode::Required, "is required")),
    }
}

fn text_field(field: &str, value: Option<Value>, max: usize) -> Result<String, FieldError> {
    let text = string(field, value)?;
    let trimmed = text.trim();
    if trimmed.chars().any(char::is_control) {
        return Err(FieldError::new(field, FieldCode::ControlCharacter, "must not hold control characters"));
    }
    if trimmed.is_empty() || trimmed.chars().nth(max).is_some() {
        let message = format!("must be 1 to {max} characters long after trimming");
        return Err(FieldError::new(field, FieldCode::Length, message));
    }
    if !has_visible(trimmed) {
        let message = "must hold at least one character that can be seen";
        return Err(FieldError::new(field, FieldCode::Blank, message));
    }
    Ok(if trimmed.len() == text.len() { text } else { trimmed.to_owned() })
}

fn size_field(value: Option<Value>) -> Result<Size, FieldError> {
    string("size", value)?
        .parse()
        .map_err(|error: ParseSizeError| FieldError::new("size", FieldCode::Choice, error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violations(body: Value) -> Vec<(String, FieldCode)> {
        let raw: OrderRequest = serde_json::from_value(body).expect("an object");
        match OrderDetails::try_from(raw) {
            Ok(details) => panic!("accepted {details:?}"),
            Err(DetailsErrors(errors)) => errors.into_iter().map(|e| (e.field, e.code)).collect(),
        }
    }

    #[test]
    fn a_good_order_is_trimmed_and_unknown_fields_are_ignored() {
        let body = json!({"customer_name": "  Ada ", "address": "1 High St\u{3000}", "item": "pizza",
            "size": "large", "status": "DELIVERED", "order_id": 7});
        let details: OrderDetails = serde_json::from_value(body).expect("valid");
        assert_eq!(details, OrderDetails::new("Ada", "1 High St", "pizza", "large").expect("valid"));
    }

    #[test]
    fn only_an_object_is_an_order() {
        for bad in [
            r#" ["Ada", "1 High St", "pizza", "small"]"#,
            "null",
            "7",
            "\"x\"",
            "",
            "{\"item\": \"a\", \"item\": \"b\"}",
        ] {
            assert!(OrderRequest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(OrderRequest::parse(b" {} ").is_ok());
        assert!(
            OrderRequest::parse(b"\xef\xbb\xbf{}").is_ok() && OrderRequest::parse(b"\xef\xbb\xbf[]").is_err()
        );
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let found = violations(json!({"customer_name": " ", "address": 5, "size": "huge"}));
        let expected = [
            ("customer_name", FieldCode::Length),
            ("address", FieldCode::Type),
            ("item", FieldCode::Required),
            ("size", FieldCode::Choice),
        ];
        assert_eq!(found, expected.map(|(field, code)| (field.to_owned(), code)));
    }

    #[test]
    fn lengths_count_characters_after_trimming() {
        let long = |n| "é".repeat(n);
        assert!(OrderDetails::new(&long(100), &long(300), &format!(" {} ", long(100)), "small").is_ok());
        for (name, address, item) in [(101, 1, 1), (1, 301, 1), (1, 1, 101), (0, 1, 1)] {
            let details = OrderDetails::new(&long(name), &long(address), &long(item), "small");
            assert_eq!(details.expect_err("too long or empty").0.len(), 1);
        }
    }

    #[test]
    fn texts_that_command_or_show_nothing_are_refused_and_other_scripts_are_not() {
        for bad in ["a\0b", "a\nb", "a\u{1b}[31mb", "a\u{85}b"] {
            let body = json!({"customer_name": bad, "address": "x", "item": "x", "size": "small"});
            assert_eq!(
                violations(body),
                [("customer_name".to_owned(), FieldCode::ControlCharacter)],
                "{bad:?}"
            );
        }
        for bad in ["\u{200b}", " \u{2800} ", "\u{301}", "\u{feff}\u{3164}"] {
            let body = json!({"customer_name": "x", "address": bad, "item": "x", "size": "small"});
            assert_eq!(violations(body), [("address".to_owned(), FieldCode::Blank)], "{bad:?}");
        }
        let stored = json!({"order_id": "ORD-01ARZ3NDEK0000000000000000", "customer_name": "\u{200b}", "address": "x", "item": "x",
            "size": "small", "status": "PLACED", "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"});
        let order: super::super::Order = serde_json::from_value(stored).expect("an order of yesterday");
        assert_eq!(order.details.customer_name, "\u{200b}");
        assert!(OrderDetails::new("می\u{200c}خواهم", "👩\u{200d}🍳", "\u{200b}x", "small").is_ok());
        assert!(OrderDetails::new("مها <b>\u{202e}", "東京都", "🍕 \"x\"", "small").is_ok());
    }
}
