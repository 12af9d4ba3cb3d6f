//! The one table of an order's life: which statuses there are, what follows which, and what each is called.
//!
//! Whatever else names statuses is made from it, or held to it by a test: JSON, metrics, pages, documents, dashboards.

use std::{
    fmt, iter,
    ops::{Index, IndexMut},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the table says of one status.
#[derive(Debug)]
struct Row {
    /// What it becomes by itself, and after how long unless a setting says otherwise.
    timer: Option<(Status, Duration)>,
    /// What may follow it in one step; nothing, if it is final.
    leads_to: &'static [Status],
    words: Words,
}

/// What people are told of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// Its name in front of a customer.
    pub label: &'static str,
    /// What an order in it is, in the middle of a sentence.
    pub state: &'static str,
    /// What the customer's page says in large letters.
    pub headline: &'static str,
    /// And the sentence below; at a final status there is more to say than a sentence that never changes.
    pub sentence: Option<&'static str>,
}

/// Makes the enum of the rows of the table. Each begins with its name for programs and, in small letters with dashes,
/// for people who type it.
macro_rules! lifecycle {
    ($($(#[$doc:meta])* $status:ident = $name:tt, $slug:tt: $row:expr;)+) => {
        /// Where an order is. Variants stand in the order of the life cycle, so `<` means "earlier".
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        pub enum Status {
            $($(#[$doc])* #[serde(rename = $name)] $status,)+
        }

        impl Status {
            /// All, in the order of the life cycle.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$status),+];

            /// The name in the database, in JSON and in metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$status => $name,)+ }
            }

            /// The name on the command line and in style sheets.
            pub const fn slug(self) -> &'static str {
                match self { $(Self::$status => $slug,)+ }
            }

            /// The file of its picture.
            pub const fn picture(self) -> &'static str {
                match self { $(Self::$status => concat!($slug, ".svg"),)+ }
            }

            const fn row(self) -> &'static Row {
                use Status::{$($status),+};
                match self { $($status => const { &$row },)+ }
            }
        }
    };
}

lifecycle! {
    /// Accepted and stored.
    Placed = "PLACED", "placed": Row {
        timer: Some((Preparing, Duration::from_secs(3))),
        leads_to: &[Preparing, Cancelled],
        words: Words {
            label: "Order placed",
            state: "placed",
            headline: "We have your order",
            sentence: Some("The kitchen starts in a moment."),
        },
    };
    /// The kitchen has begun.
    Preparing = "PREPARING", "preparing": Row {
        timer: Some((Cooking, Duration::from_secs(5))),
        leads_to: &[Cooking, Cancelled],
        words: Words {
            label: "Preparing",
            state: "preparing",
            headline: "The kitchen is at work",
            sentence: Some("Your order is being prepared."),
        },
    };
    /// In the oven or on the stove.
    Cooking = "COOKING", "cooking": Row {
        timer: Some((OutForDelivery, Duration::from_secs(7))),
        leads_to: &[OutForDelivery, Cancelled],
        words: Words {
            label: "Cooking",
            state: "cooking",
            headline: "It is cooking",
            sentence: Some("Your order is in the pan or in the oven."),
        },
    };
    /// With the courier.
    OutForDelivery = "OUT_FOR_DELIVERY", "out-for-delivery": Row {
        timer: Some((Delivered, Duration::from_secs(10))),
        leads_to: &[Delivered, Cancelled],
        words: Words {
            label: "Out for delivery",
            state: "out for delivery",
            headline: "On its way to you",
            sentence: Some("The courier has your order."),
        },
    };
    /// Handed over; the end.
    Delivered = "DELIVERED", "delivered": Row {
        timer: None,
        leads_to: &[],
        words: Words { label: "Delivered", state: "delivered", headline: "Delivered", sentence: None },
    };
    /// Somebody has called it off; the other end.
    Cancelled = "CANCELLED", "cancelled": Row {
        timer: None,
        leads_to: &[],
        words: Words {
            label: "Cancelled",
            state: "cancelled",
            headline: "Your order was cancelled",
            sentence: None,
        },
    };
}

impl Status {
    /// Where every order begins.
    pub const FIRST: Self = Self::ALL[0];

    /// What a timer makes of it; `None` where nothing happens by itself.
    pub const fn next(self) -> Option<Self> {
        match self.row().timer {
            Some((next, _)) => Some(next),
            None => None,
        }
    }

    /// How long its timer takes unless a setting says otherwise; `None` where it has none.
    pub(super) fn default_delay(self) -> Option<Duration> {
        self.row().timer.map(|(_, delay)| delay)
    }

    /// Whether nothing may follow: the end of an order's life, unless that is taken back.
    pub const fn is_final(self) -> bool {
        self.row().leads_to.is_empty()
    }

    /// Whether it is one of the statuses of a plain life before `other`, which is one of them too.
    pub fn comes_before(self, other: Self) -> bool {
        self.onwards().any(|later| later == other)
    }

    /// Those in which an order is in progress, in the order of the life cycle.
    pub fn open() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|status| !status.is_final())
    }

    /// Those that a timer leads out of, in the order of the life cycle.
    pub fn timed() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|status| status.next().is_some())
    }

    /// What may follow in one step, whoever makes it.
    pub const fn leads_to(self) -> &'static [Self] {
        self.row().leads_to
    }

    /// Whether an order in this status may become `to` in one step.
    pub fn may_become(self, to: Self) -> bool {
        self.leads_to().contains(&to)
    }

    /// Whether a step that led from `to`, maybe past others, to here can have been taken back.
    pub fn may_go_back_to(self, to: Self) -> bool {
        to.comes_before(self) || (!to.is_final() && to.may_become(self))
    }

    /// What becomes of it by itself, step by step.
    pub fn onwards(self) -> impl Iterator<Item = Self> + Clone {
        iter::successors(self.next(), |status| status.next())
    }

    /// The life of an order that nobody interferes with, from its first status to the last.
    pub fn plain_life() -> impl Iterator<Item = Self> + Clone {
        iter::once(Self::FIRST).chain(Self::FIRST.onwards())
    }

    /// What people are told of it.
    pub const fn words(self) -> &'static Words {
        &self.row().words
    }

    /// How many statuses stand before it in the table.
    pub(super) const fn rank(self) -> u8 {
        self as u8
    }
}

/// The names of some statuses, as a sentence lists them.
pub fn listed(statuses: impl IntoIterator<Item = Status>) -> String {
    statuses.into_iter().map(Status::as_str).collect::<Vec<_>>().join(", ")
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

/// Those that are not named have the default.
impl<T: Default> FromIterator<(Status, T)> for PerStatus<T> {
    fn from_iter<I: IntoIterator<Item = (Status, T)>>(values: I) -> Self {
        let mut all = Self::new(|_| T::default());
        for (status, value) in values {
            all[status] = value;
        }
        all
    }
}

impl<T> Index<Status> for PerStatus<T> {
    type Output = T;

    fn index(&self, status: Status) -> &T {
        &self.0[usize::from(status.rank())]
    }
}

impl<T> IndexMut<Status> for PerStatus<T> {
    fn index_mut(&mut self, status: Status) -> &mut T {
        &mut self.0[usize::from(status.rank())]
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is none of the names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {}", listed(Status::ALL))]
pub struct ParseStatusError;

impl FromStr for Status {
    type Err = ParseStatusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(ParseStatusError)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn only_what_the_table_says_may_follow() {
        let steps = [
            (Status::Placed, Status::Preparing),
            (Status::Preparing, Status::Cooking),
            (Status::Cooking, Status::OutForDelivery),
            (Status::OutForDelivery, Status::Delivered),
            (Status::Placed, Status::Cancelled),
            (Status::Preparing, Status::Cancelled),
            (Status::Cooking, Status::Cancelled),
            (Status::OutForDelivery, Status::Cancelled),
        ];
        for from in Status::ALL {
            for to in Status::ALL {
                assert_eq!(from.may_become(to), steps.contains(&(from, to)), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn a_timer_does_only_what_may_be_done_and_goes_forward_to_an_end() {
        for status in Status::ALL {
            assert!(status.next().is_none_or(|next| status.may_become(next)), "{status}");
            assert!(status.leads_to().iter().all(|next| *next > status), "{status} goes back");
            assert_eq!(status.default_delay().is_some(), status.next().is_some(), "{status}");
        }
        let life: Vec<Status> = Status::plain_life().collect();
        assert!(life.is_sorted() && life.last().is_some_and(|last| last.is_final()), "{life:?}");
        assert!(
            Status::timed().eq(life[..life.len() - 1].iter().copied()),
            "a timer out of the way: {life:?}"
        );
    }

    #[test]
    fn every_status_can_be_reached() {
        let reached = Status::ALL.into_iter().flat_map(Status::leads_to).chain([&Status::FIRST]);
        assert_eq!(reached.collect::<BTreeSet<_>>(), Status::ALL.iter().collect());
    }

    #[test]
    fn no_two_statuses_share_a_name_a_label_or_a_headline() {
        for text in [
            Status::as_str,
            Status::slug,
            |status: Status| status.words().label,
            |status: Status| status.words().state,
            |status: Status| status.words().headline,
        ] {
            let texts: BTreeSet<&str> = Status::ALL.into_iter().map(text).collect();
            assert_eq!(texts.len(), Status::ALL.len(), "{texts:?}");
        }
        for status in Status::ALL {
            assert_eq!(status.slug().replace('-', "_").to_uppercase(), status.as_str());
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
        assert_eq!(
            ParseStatusError.to_string(),
            "must be one of PLACED, PREPARING, COOKING, OUT_FOR_DELIVERY, DELIVERED, CANCELLED"
        );
    }

    #[test]
    fn each_status_has_a_value_of_its_own() {
        let mut counts: PerStatus<u64> = [(Status::Cooking, 2)].into_iter().collect();
        counts[Status::Delivered] += 1;
        let expected = |status| match status {
            Status::Cooking => 2,
            Status::Delivered => 1,
            _ => 0,
        };
        assert_eq!(counts, PerStatus::new(expected));
        assert!(counts.iter().map(|(status, _)| status).eq(Status::ALL));
    }
}
