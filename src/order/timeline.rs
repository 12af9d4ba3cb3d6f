//! The timeline: a kind of event for each status, and one for the beginning, in one fixed order.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{ParseStatusError, Status, Timestamp, rfc3339_millis, schema};

/// What happened to an order. There is at most one event of each kind per order, and they come in
/// this order, so a kind is also a position in the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// The order was accepted.
    Created,
    /// The order reached this status.
    Reached(Status),
}

impl EventKind {
    /// All, in the order of the life cycle.
    pub const ALL: [Self; Status::ALL.len() + 1] = {
        let mut all = [Self::Created; Status::ALL.len() + 1];
        let mut at = 0;
        while at < Status::ALL.len() {
            all[at + 1] = Self::Reached(Status::ALL[at]);
            at += 1;
        }
        all
    };

    /// The greatest position that there is.
    pub const LAST_SEQ: u8 = Self::ALL[Self::ALL.len() - 1].seq();

    /// The position in the timeline, 1 for CREATED to 6 for DELIVERED: `seq` in messages, `id` in
    /// event streams, the tag in `ETag`.
    pub const fn seq(self) -> u8 {
        match self {
            Self::Created => 1,
            Self::Reached(status) => status.rank() + 2,
        }
    }

    /// Whether no event follows.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Created => false,
            Self::Reached(status) => status.is_final(),
        }
    }

    /// The status that it led to, if it led to one.
    pub const fn status(self) -> Option<Status> {
        match self {
            Self::Created => None,
            Self::Reached(status) => Some(status),
        }
    }

    /// The name in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Reached(status) => status.as_str(),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = ParseStatusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "CREATED" { Ok(Self::Created) } else { text.parse().map(Self::Reached) }
    }
}

impl Serialize for EventKind {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EventKind {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One row of an order's timeline; never changed and never deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// What happened.
    pub event: EventKind,
    /// When; never before the event that precedes it.
    #[serde(serialize_with = "rfc3339_millis")]
    #[schema(schema_with = schema::timestamp)]
    pub timestamp: Timestamp,
    /// Where it came from, if there is anything to say.
    #[schema(required, schema_with = schema::origin)]
    pub meta: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_to_six() {
        let life = std::iter::once(EventKind::Created).chain(Status::plain_life().map(EventKind::Reached));
        assert!(life.clone().map(EventKind::seq).eq([1, 2, 3, 4, 5, 6]));
        assert!(life.last().is_some_and(EventKind::is_final));
        let positions = EventKind::ALL.map(EventKind::seq);
        assert!(positions.into_iter().eq(1..=EventKind::LAST_SEQ));
        assert!(EventKind::ALL.is_sorted());
    }

    #[test]
    fn names_survive_a_round_trip() {
        for kind in EventKind::ALL {
            let json = serde_json::to_string(&kind).expect("json");
            assert_eq!(serde_json::from_str::<EventKind>(&json).expect("kind"), kind);
        }
    }
}
