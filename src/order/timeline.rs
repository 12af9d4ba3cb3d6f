//! The timeline: what may happen to an order, and the rows that tell it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Status, Timestamp, schema};

/// What happened to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// The order was accepted.
    Created,
    /// The order reached this status.
    Reached(Status),
    /// The kitchen says that it can be fetched.
    Ready,
    /// A courier will fetch it.
    CourierAssigned,
    /// The courier waits for it.
    CourierAtPickup,
    /// The courier stands at the customer's door.
    CourierAtDoor,
    /// The courier could not hand it over.
    DeliveryFailed,
    /// The current stage takes longer, by so many minutes.
    Delayed,
    /// A step is taken back.
    Reverted,
    /// The customer's name and address are gone.
    Erased,
}

impl EventKind {
    /// Those that lead to no status of their own, in the order of the contract.
    const OTHERS: [Self; 8] = [
        Self::Ready,
        Self::CourierAssigned,
        Self::CourierAtPickup,
        Self::CourierAtDoor,
        Self::DeliveryFailed,
        Self::Delayed,
        Self::Reverted,
        Self::Erased,
    ];

    /// All: CREATED, the statuses in the order of the life cycle, and the others.
    pub const ALL: [Self; 1 + Status::ALL.len() + Self::OTHERS.len()] = {
        let mut all = [Self::Created; 1 + Status::ALL.len() + Self::OTHERS.len()];
        let mut at = 0;
        while at < Status::ALL.len() {
            all[at + 1] = Self::Reached(Status::ALL[at]);
            at += 1;
        }
        at = 0;
        while at < Self::OTHERS.len() {
            all[at + 1 + Status::ALL.len()] = Self::OTHERS[at];
            at += 1;
        }
        all
    };

    /// The status that it led to, if its kind alone tells.
    pub const fn status(self) -> Option<Status> {
        match self {
            Self::Reached(status) => Some(status),
            _ => None,
        }
    }

    /// The name in the database and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Reached(status) => status.as_str(),
            Self::Ready => "READY",
            Self::CourierAssigned => "COURIER_ASSIGNED",
            Self::CourierAtPickup => "COURIER_AT_PICKUP",
            Self::CourierAtDoor => "COURIER_AT_DOOR",
            Self::DeliveryFailed => "DELIVERY_FAILED",
            Self::Delayed => "DELAYED",
            Self::Reverted => "REVERTED",
            Self::Erased => "ERASED",
        }
    }
}

/// The text is none of the names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {}", listed(EventKind::ALL))]
pub struct ParseEventError;

/// The names of some kinds, as a sentence lists them.
pub fn listed(kinds: impl IntoIterator<Item = EventKind>) -> String {
    kinds.into_iter().map(EventKind::as_str).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = ParseEventError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(ParseEventError)
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Event {
    /// Its position in the order's timeline, from 1; in JSON of a whole timeline the place in the array.
    #[serde(skip)]
    pub seq: u32,
    /// What happened.
    pub event: EventKind,
    /// When; never before the event that precedes it.
    #[schema(schema_with = schema::timestamp)]
    pub timestamp: Timestamp,
    /// Who said it and what, if there is anything to say.
    #[schema(required, schema_with = schema::event_meta)]
    pub meta: Option<Value>,
}

/// When the kitchen said that it can be fetched, as long as nothing later says that it can't: neither a delay nor a change
/// of status.
pub fn ready_at<'a>(
    events: impl IntoIterator<Item = &'a Event, IntoIter: DoubleEndedIterator>,
) -> Option<Timestamp> {
    let speaks = |event: &&Event| match event.event {
        EventKind::Ready | EventKind::Delayed | EventKind::Reached(_) | EventKind::Reverted => true,
        EventKind::Created
        | EventKind::CourierAssigned
        | EventKind::CourierAtPickup
        | EventKind::CourierAtDoor
        | EventKind::DeliveryFailed
        | EventKind::Erased => false,
    };
    let last = events.into_iter().rev().find(speaks).filter(|last| last.event == EventKind::Ready);
    last.map(|ready| ready.timestamp)
}

/// Reads a whole timeline, in which an event's place is its position.
pub(super) fn numbered<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<Event>, D::Error> {
    let events = Vec::<Event>::deserialize(input)?;
    Ok((1..).zip(events).map(|(seq, event)| Event { seq, ..event }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_in_the_order_of_the_contract() {
        let statuses = Status::ALL.map(EventKind::Reached);
        let expected = [&[EventKind::Created][..], &statuses, &EventKind::OTHERS].concat();
        assert_eq!(EventKind::ALL.as_slice(), expected);
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
