//! The five statuses and the only way through them: forward.

use std::{
    fmt,
    ops::{Index, IndexMut},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where an order is. Variants stand in the order of the life cycle, so `<` means "earlier".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Accepted and stored.
    Placed,
    /// The kitchen has begun.
    Preparing,
    /// In the oven or on the stove.
    Cooking,
    /// With the courier.
    OutForDelivery,
    /// Handed over; the end.
    Delivered,
}

impl Status {
    /// All five, in the order of the life cycle.
    pub const ALL: [Self; 5] =
        [Self::Placed, Self::Preparing, Self::Cooking, Self::OutForDelivery, Self::Delivered];

    /// The status that follows, or `None` at the end.
    pub fn next(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        self.next().is_none()
    }

    /// Those in which an order is in progress, in the order of the life cycle.
    pub fn open() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|status| !status.is_final())
    }

    /// Whether an order in this status may become `to` in one step: only the very next one.
    pub fn may_become(self, to: Self) -> bool {
        self.next() == Some(to)
    }

    /// The name in the database, in JSON and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "PLACED",
            Self::Preparing => "PREPARING",
            Self::Cooking => "COOKING",
            Self::OutForDelivery => "OUT_FOR_DELIVERY",
            Self::Delivered => "DELIVERED",
        }
    }
}

/// One value for each status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerStatus<T>([T; Status::ALL.len()]);

impl<T> PerStatus<T> {
    /// What `value` says of each.
    pub fn new(value: impl FnMut(Status) -> T) -> Self {
        Self(Status::ALL.map(value))
    }

    /// Each status with its value, in the order of the life cycle.
    pub fn iter(&self) -> impl Iterator<Item = (Status, &T)> {
        Status::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<Status> for PerStatus<T> {
    type Output = T;

    fn index(&self, status: Status) -> &T {
        &self.0[status as usize]
    }
}

impl<T> IndexMut<Status> for PerStatus<T> {
    fn index_mut(&mut self, status: Status) -> &mut T {
        &mut self.0[status as usize]
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is none of the five names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of PLACED, PREPARING, COOKING, OUT_FOR_DELIVERY, DELIVERED")]
pub struct ParseStatusError;

impl FromStr for Status {
    type Err = ParseStatusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(ParseStatusError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_status_may_follow() {
        // Rows are "from", columns are "to", both in the order of the life cycle.
        let table = [
            [false, true, false, false, false],
            [false, false, true, false, false],
            [false, false, false, true, false],
            [false, false, false, false, true],
            [false, false, false, false, false],
        ];
        for (from, row) in Status::ALL.into_iter().zip(table) {
            for (to, allowed) in Status::ALL.into_iter().zip(row) {
                assert_eq!(from.may_become(to), allowed, "{from} -> {to}");
            }
        }
    }

    #[test]
    fn names_survive_a_round_trip_and_nothing_else_parses() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).expect("json"), status.as_str());
        }
        for bad in ["", "placed", "PLACED ", "DONE"] {
            assert_eq!(bad.parse::<Status>(), Err(ParseStatusError), "{bad:?}");
        }
    }
}
