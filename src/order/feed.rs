//! What leaves the house of every event: the item of the feed and of the topic of events.
//!
//! These are types of their own, made of what is told and nothing else: no name, address or note has a place in them.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;
use utoipa::ToSchema;

use super::{EventKind, OrderId, Size, Status, Timestamp, rfc3339_millis, schema};

/// A place in the feed, behind the event that has this id: `order_events.id`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(pub i64);

impl Cursor {
    /// Before everything that ever happened.
    pub const START: Self = Self(0);
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a cursor of the feed: a number without sign or leading zeros")]
pub struct ParseCursorError;

impl From<ParseIntError> for ParseCursorError {
    fn from(_: ParseIntError) -> Self {
        Self
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    /// Takes what [`Cursor`] writes and nothing else.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let cursor = Self(text.parse()?);
        if cursor >= Self::START && cursor.to_string() == text { Ok(cursor) } else { Err(ParseCursorError) }
    }
}

impl Serialize for Cursor {
    /// A text, since not every reader's numbers have 64 bits.
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An event as everybody may hear of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedEvent {
    /// Its place.
    pub cursor: Cursor,
    /// Whose event.
    pub order_id: OrderId,
    /// Its position in the order's timeline, from 1.
    #[schema(minimum = 1)]
    pub seq: u32,
    /// What happened.
    pub event: EventKind,
    /// Where the order was after it.
    pub status: Status,
    /// When.
    #[serde(serialize_with = "rfc3339_millis")]
    #[schema(schema_with = schema::timestamp)]
    pub timestamp: Timestamp,
    /// Who said it, and what, if there is anything to say.
    #[schema(required, schema_with = schema::feed_meta)]
    pub meta: Option<FeedMeta>,
}

impl FeedEvent {
    /// The event in a row, with what may be told of its `meta`.
    pub fn new(
        (cursor, order_id, seq): (Cursor, OrderId, u32),
        event: EventKind,
        timestamp: Timestamp,
        meta: Option<&Value>,
    ) -> Self {
        let meta = meta.and_then(FeedMeta::told);
        let kept = meta.as_ref().and_then(|meta| meta.to.or(meta.status));
        let status = event.status().or(kept).unwrap_or(Status::FIRST);
        Self { cursor, order_id, seq, event, status, timestamp, meta }
    }

    /// The same wherever it is told: `<order_id>:<seq>`.
    pub fn event_id(&self) -> String {
        format!("{}:{}", self.order_id, self.seq)
    }
}

/// What is told of an event's `meta`. What else a row may hold, a note or what somebody wrote by hand, stays inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedMeta {
    /// Where the order came from (`http`, a topic), or who reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub source: Option<String>,
    /// Which key reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub by: Option<String>,
    /// When they say that it happened.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339_if_any")]
    #[schema(schema_with = schema::timestamp)]
    pub occurred_at: Option<Timestamp>,
    /// Why, in one of the words of the contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// Where in the kitchen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub station: Option<String>,
    /// By how many minutes it is delayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub minutes: Option<u32>,
    /// Whether nobody said so: a later report skipped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub inferred: Option<bool>,
    /// Which position it takes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reverts: Option<u32>,
    /// Where the order was before it was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub from: Option<Status>,
    /// Where it is since.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub to: Option<Status>,
    /// Where the order stood, for an event that does not change that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub status: Option<Status>,
    /// The message that it was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub topic: Option<String>,
    /// Its partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub partition: Option<i32>,
    /// Its offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub offset: Option<i64>,
}

impl FeedMeta {
    /// What may be told of a stored `meta`; a field of another kind than it should be is left out.
    fn told(meta: &Value) -> Option<Self> {
        fn field<T: DeserializeOwned>(meta: &Value, name: &str) -> Option<T> {
            T::deserialize(meta.get(name)?).ok()
        }
        // No sentence that somebody has written there by hand.
        let word = |name: &str, legal: fn(u8) -> bool| {
            field(meta, name).filter(|word: &String| word.len() <= 249 && word.bytes().all(legal))
        };
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let of_topic = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let told = Self {
            source: word("source", lower),
            by: field(meta, "by"),
            occurred_at: field(meta, "occurred_at"),
            reason: word("reason", lower),
            station: field(meta, "station"),
            minutes: field(meta, "minutes"),
            inferred: field(meta, "inferred"),
            reverts: field(meta, "reverts"),
            from: field(meta, "from"),
            to: field(meta, "to"),
            status: field(meta, "status"),
            topic: word("topic", of_topic),
            partition: field(meta, "partition"),
            offset: field(meta, "offset"),
        };
        (told != Self::default()).then_some(told)
    }
}

// The shape that serde asks for.
#[expect(clippy::ref_option, reason = "serde hands in a reference to the field")]
fn rfc3339_if_any<S: Serializer>(at: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339_millis(at, out),
        None => out.serialize_none(),
    }
}

/// What never changes of an order and may be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFacts {
    /// What was ordered.
    pub item: String,
    /// How large.
    pub size: Size,
    /// When it was created.
    #[serde(serialize_with = "rfc3339_millis")]
    pub created_at: Timestamp,
}

/// The message on the topic of events, one for each event, keyed by its order: serialised it is the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMessage {
    /// The item of the feed.
    #[serde(flatten)]
    pub event: FeedEvent,
    /// Whose event it is.
    pub order: OrderFacts,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        for good in ["0", "1", "9223372036854775807"] {
            assert_eq!(good.parse::<Cursor>().expect(good).to_string(), good);
        }
        for bad in ["", "-1", "+1", "01", " 1", "1.0", "9223372036854775808", "now", "١"] {
            assert_eq!(bad.parse::<Cursor>(), Err(ParseCursorError), "{bad:?}");
        }
    }

    /// Whatever a row holds, no name, address or note leaves the house.
    #[test]
    fn what_may_not_be_told_stays_inside() {
        let meta = json!({
            "source": "kitchen", "note": "for Ann Lee", "customer_name": "Ann Lee", "address": "1 High St",
            "by": {"name": "Ann Lee"}, "inferred": true, "minutes": "Ann Lee", "partition": 3,
        });
        let order_id: OrderId = "ORD-01J00000000000000000000000".parse().expect("an id");
        let at: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a moment");
        let told = FeedEvent::new((Cursor(7), order_id, 3), EventKind::Created, at, Some(&meta));
        let json = serde_json::to_value(&told).expect("serialises");
        assert_eq!(
            json,
            json!({
                "cursor": "7", "order_id": order_id, "seq": 3, "event": "CREATED", "status": "PLACED",
                "timestamp": "2026-01-02T03:04:05.678Z",
                "meta": {"source": "kitchen", "inferred": true, "partition": 3},
            })
        );
        assert_eq!(serde_json::from_value::<FeedEvent>(json).expect("reads"), told);
        let bare =
            FeedEvent::new((Cursor(8), order_id, 4), EventKind::Created, at, Some(&json!({"note": 1})));
        assert_eq!(bare.meta, None);
    }

    #[test]
    fn what_does_not_change_the_status_keeps_it() {
        let meta = json!({"status": "COOKING"});
        let order_id: OrderId = "ORD-01J00000000000000000000000".parse().expect("an id");
        let event = |kind, meta| FeedEvent::new((Cursor(1), order_id, 1), kind, Timestamp::UNIX_EPOCH, meta);
        assert_eq!(event(EventKind::Created, None).status, Status::Placed);
        assert_eq!(event(EventKind::Created, Some(&meta)).status, Status::Cooking);
        assert_eq!(event(EventKind::Reached(Status::Delivered), Some(&meta)).status, Status::Delivered);
    }
}
