//! The message on `orders.v1`: one per order, keyed by its id.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Order, OrderDetails, OrderId, Status, Timestamp, in_full, json, rfc3339_millis, to_millis};

/// Longest value that is read as an order, in bytes: the same as for a POST body.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// An order was placed. Serialised it is the value of the message; the key is the order id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderPlaced {
    /// The order's id, also the message's key.
    pub order_id: OrderId,
    /// What was ordered.
    #[serde(flatten, serialize_with = "in_full")]
    pub details: OrderDetails,
    /// Always PLACED when we write it; whatever another system says, an order starts there.
    status: Status,
    /// When the order was created.
    #[serde(serialize_with = "rfc3339_millis")]
    pub created_at: Timestamp,
    /// Position in the order's stream of messages, for readers that must detect old ones.
    seq: u32,
}

impl OrderPlaced {
    /// The message for an order created at `created_at`.
    pub fn new(order_id: OrderId, details: OrderDetails, created_at: Timestamp) -> Self {
        let created_at = to_millis(created_at);
        Self { order_id, details, status: Status::FIRST, created_at, seq: 1 }
    }

    /// Stable id of the message (`<order_id>:<seq>`), the same each time it is sent.
    pub fn event_id(&self) -> String {
        format!("{}:{}", self.order_id, self.seq)
    }

    /// Reads a message that anybody may have written.
    pub fn parse(key: Option<&[u8]>, value: &[u8]) -> Result<Self, Reject> {
        let reject = |reason, detail: String| Err(Reject { reason, detail });
        if value.len() > MAX_MESSAGE_BYTES {
            return reject(
                RejectReason::TooLarge,
                format!("{} bytes, allowed are {MAX_MESSAGE_BYTES}", value.len()),
            );
        }
        let Some(key) = key else {
            return reject(RejectReason::NoKey, "the key must be the order id".to_owned());
        };
        let value: Value = match json::read(value) {
            Ok(value) => value,
            Err(error) => return reject(RejectReason::NotJson, error.to_string()),
        };
        let wire: Wire = match serde_json::from_value(value) {
            Ok(wire) => wire,
            Err(error) => return reject(RejectReason::InvalidField, error.to_string()),
        };
        let order_id = match wire.order_id.parse() {
            Ok(order_id) => order_id,
            Err(error) => return reject(RejectReason::InvalidId, format!("order_id {error}")),
        };
        if key != wire.order_id.as_bytes() {
            return reject(RejectReason::KeyMismatch, "key and order_id differ".to_owned());
        }
        if wire.created_at < Timestamp::UNIX_EPOCH {
            return reject(RejectReason::InvalidField, "created_at is before 1970".to_owned());
        }
        Ok(Self::new(order_id, wire.details, wire.created_at))
    }
}

impl From<&Order> for OrderPlaced {
    fn from(order: &Order) -> Self {
        Self::new(order.order_id, order.details.clone(), order.created_at)
    }
}

/// What the value must hold. The status must be a known one but says nothing that we rely on.
#[derive(Deserialize)]
struct Wire {
    order_id: String,
    #[serde(flatten)]
    details: OrderDetails,
    #[serde(rename = "status")]
    _status: Status,
    created_at: Timestamp,
    #[serde(rename = "seq", default)]
    _seq: Option<u64>,
}

/// Why a message can't become an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Reject {
    /// The reason as a stable word.
    pub reason: RejectReason,
    /// The same for people.
    pub detail: String,
}

/// The reasons for a dead letter; header and metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Over [`MAX_MESSAGE_BYTES`].
    TooLarge,
    /// There is no key.
    NoKey,
    /// The value is not JSON in UTF-8.
    NotJson,
    /// A field is missing, of the wrong type or out of range.
    InvalidField,
    /// The order id is not one of ours to parse.
    InvalidId,
    /// Key and `order_id` differ.
    KeyMismatch,
    /// The database refuses it for good.
    Refused,
}

impl RejectReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::TooLarge,
        Self::NoKey,
        Self::NotJson,
        Self::InvalidField,
        Self::InvalidId,
        Self::KeyMismatch,
        Self::Refused,
    ];

    /// The word in headers and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NoKey => "no_key",
            Self::NotJson => "not_json",
            Self::InvalidField => "invalid_field",
            Self::InvalidId => "invalid_id",
            Self::KeyMismatch => "key_mismatch",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "ORD-01ARZ3NDEK0000000000000000";

    fn good() -> Value {
        json!({"order_id": ID, "customer_name": "Ada", "address": "1 High St", "item": "pizza", "size": "small",
            "status": "PLACED", "created_at": "2026-01-02T03:04:05.678Z", "seq": 1})
    }

    fn reason(key: Option<&str>, value: &[u8]) -> RejectReason {
        OrderPlaced::parse(key.map(str::as_bytes), value).expect_err("a bad message").reason
    }

    #[test]
    fn what_we_write_is_what_we_read() {
        let message = OrderPlaced::parse(Some(ID.as_bytes()), good().to_string().as_bytes()).expect("valid");
        assert_eq!(serde_json::to_value(&message).expect("json"), good());
        assert_eq!(message.event_id(), format!("{ID}:1"));
    }

    #[test]
    fn every_kind_of_bad_message_has_its_reason() {
        let with = |field: &str, value: Value| {
            let mut message = good();
            message[field] = value;
            message.to_string().into_bytes()
        };
        let key = Some(ID);
        assert_eq!(reason(None, &with("seq", json!(1))), RejectReason::NoKey);
        assert_eq!(reason(Some("ORD-x"), &with("seq", json!(1))), RejectReason::KeyMismatch);
        assert_eq!(reason(Some("7"), &with("order_id", json!("7"))), RejectReason::InvalidId);
        assert_eq!(reason(key, &with("item", json!("x".repeat(MAX_MESSAGE_BYTES)))), RejectReason::TooLarge);
        for bad in ["", "{", "\u{feff}\u{feff}{}", "{\"order_id\":"] {
            assert_eq!(reason(key, bad.as_bytes()), RejectReason::NotJson, "{bad:?}");
        }
        assert_eq!(reason(key, b"{\"order_id\": \"\xff\"}"), RejectReason::NotJson);
        assert_eq!(reason(key, "[".repeat(1_000).as_bytes()), RejectReason::NotJson);
        for (field, value) in [
            ("size", json!("huge")),
            ("status", json!("EATEN")),
            ("item", json!(3)),
            ("created_at", json!("yesterday")),
            ("created_at", json!("1969-12-31T23:59:59.999Z")),
            ("order_id", json!(null)),
            ("seq", json!("one")),
            ("customer_name", json!("")),
            ("address", json!("\u{200b}\u{3164}")),
        ] {
            assert_eq!(reason(key, &with(field, value)), RejectReason::InvalidField, "{field}");
        }
        let utf16: Vec<u8> = good().to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
        let rejected = OrderPlaced::parse(key.map(str::as_bytes), &utf16).expect_err("a bad message");
        assert_eq!(rejected.to_string(), "not_json: must be UTF-8, and is UTF-16");
        for bad in ["null", "[]", "7", "{}"] {
            assert_eq!(reason(key, bad.as_bytes()), RejectReason::InvalidField, "{bad:?}");
        }
    }

    /// Tools of another world write it before anything else.
    #[test]
    fn a_byte_order_mark_is_skipped() {
        let marked = format!("\u{feff}{}", good());
        let message = OrderPlaced::parse(Some(ID.as_bytes()), marked.as_bytes()).expect("valid");
        assert_eq!(serde_json::to_value(&message).expect("json"), good());
    }

    #[test]
    fn a_later_status_of_another_system_is_valid_and_ignored() {
        let mut message = good();
        message["status"] = json!("DELIVERED");
        let parsed = OrderPlaced::parse(Some(ID.as_bytes()), message.to_string().as_bytes());
        assert_eq!(serde_json::to_value(parsed.expect("valid")).expect("json"), good());
    }
}
