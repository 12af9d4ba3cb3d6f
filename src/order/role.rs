//! Who may do what, and see what of people: one table, for API, pages and topics alike.

use std::{fmt, str::FromStr};

use super::{EventKind, Reason, Source, Status};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Places orders: a site, a till.
    Shop,
    /// Cooks them.
    Kitchen,
    /// Brings them.
    Courier,
    /// Only looks: figures, displays, other systems.
    Reader,
    /// Runs the place.
    Staff,
    /// Runs the service.
    Admin,
}

/// What may be done here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Placing orders.
    PlaceOrders,
    /// Reading one order, and following it.
    ReadOrder,
    /// Reading lists of orders, and the board.
    ListOrders,
    /// Reading everything that happened.
    ReadFeed,
    /// Reporting what happened; which events is for [`Role::may_report`].
    Report,
    /// Asking why an order stands where it stands.
    Explain,
    /// Reading metrics, and what is wrong with the service.
    Operate,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlaceOrders => "place orders",
            Self::ReadOrder => "read orders",
            Self::ListOrders => "list orders",
            Self::ReadFeed => "read the feed",
            Self::Report => "report what happened",
            Self::Explain => "ask why an order stands",
            Self::Operate => "read metrics",
        })
    }
}

/// What of an order's people is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sight {
    /// The customer's name.
    pub names: bool,
    /// Where it goes.
    pub addresses: bool,
    /// What was noted for those who work on it.
    pub notes: bool,
}

impl Sight {
    /// Everything: who asks may see it, or nobody is asked who he is.
    pub const WHOLE: Self = Self { names: true, addresses: true, notes: true };
    /// Nothing of people.
    pub const NOBODY: Self = Self { names: false, addresses: false, notes: false };
}

/// A line of the table.
struct Rights {
    role: Role,
    name: &'static str,
    may: &'static [Action],
    sight: Sight,
    /// What it may report.
    reports: &'static [EventKind],
}

const PREPARING: EventKind = EventKind::Reached(Status::Preparing);
const COOKING: EventKind = EventKind::Reached(Status::Cooking);
const OUT_FOR_DELIVERY: EventKind = EventKind::Reached(Status::OutForDelivery);
const DELIVERED: EventKind = EventKind::Reached(Status::Delivered);
const CANCELLED: EventKind = EventKind::Reached(Status::Cancelled);

/// All of [`Action`].
const ALL: &[Action] = &[
    Action::PlaceOrders,
    Action::ReadOrder,
    Action::ListOrders,
    Action::ReadFeed,
    Action::Report,
    Action::Explain,
    Action::Operate,
];

/// Who may do what.
const TABLE: [Rights; 6] = [
    Rights {
        role: Role::Shop,
        name: "shop",
        may: &[Action::PlaceOrders, Action::ReadOrder, Action::ListOrders, Action::Report],
        sight: Sight { notes: false, ..Sight::WHOLE },
        reports: &[CANCELLED],
    },
    Rights {
        role: Role::Kitchen,
        name: "kitchen",
        may: &[Action::ReadOrder, Action::ListOrders, Action::Report],
        sight: Sight { addresses: false, ..Sight::WHOLE },
        reports: &[PREPARING, COOKING, CANCELLED, EventKind::Ready, EventKind::Delayed, EventKind::Reverted],
    },
    Rights {
        role: Role::Courier,
        name: "courier",
        may: &[Action::ReadOrder, Action::Report],
        sight: Sight::WHOLE,
        reports: &[
            OUT_FOR_DELIVERY,
            DELIVERED,
            EventKind::CourierAssigned,
            EventKind::CourierAtPickup,
            EventKind::CourierAtDoor,
            EventKind::DeliveryFailed,
            EventKind::Reverted,
        ],
    },
    Rights {
        role: Role::Reader,
        name: "reader",
        may: &[Action::ReadOrder, Action::ListOrders, Action::ReadFeed],
        sight: Sight::NOBODY,
        reports: &[],
    },
    Rights {
        role: Role::Staff,
        name: "staff",
        may: ALL,
        sight: Sight::WHOLE,
        reports: &super::Report::KINDS,
    },
    Rights {
        role: Role::Admin,
        name: "admin",
        may: ALL,
        sight: Sight::WHOLE,
        reports: &super::Report::KINDS,
    },
];

// A line stands where its role says.
const _: () = {
    let mut at = 0;
    while at < TABLE.len() {
        assert!(TABLE[at].role as usize == at, "the table is in the order of the roles");
        at += 1;
    }
};

impl Role {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Shop, Self::Kitchen, Self::Courier, Self::Reader, Self::Staff, Self::Admin];

    const fn rights(self) -> &'static Rights {
        &TABLE[self as usize]
    }

    /// The name in JSON, in the database and on the command line.
    pub const fn as_str(self) -> &'static str {
        self.rights().name
    }

    /// Whether it may do that at all.
    pub fn may(self, action: Action) -> bool {
        self.rights().may.contains(&action)
    }

    /// What it is shown of people.
    pub const fn sight(self) -> Sight {
        self.rights().sight
    }

    /// Under which name its reports stand in the timeline.
    pub const fn source(self) -> Source {
        match self {
            Self::Shop => Source::Shop,
            Self::Kitchen => Source::Kitchen,
            Self::Courier => Source::Courier,
            Self::Reader => Source::Api,
            Self::Staff => Source::Staff,
            Self::Admin => Source::Admin,
        }
    }

    /// Whether it may report that, whatever the order: a shop cancels only for the customer.
    pub fn may_report(self, event: EventKind, reason: Option<Reason>) -> bool {
        let known = self.rights().reports.contains(&event);
        known && (self != Self::Shop || reason.is_none_or(|reason| reason == Reason::CustomerRequest))
    }

    /// Whether it may cancel an order in this status: a shop, as long as nobody has begun with it.
    pub(super) fn may_cancel_in(self, status: Status) -> bool {
        self != Self::Shop || status == Status::FIRST
    }

    /// Whether it may take back a step to this, which was reported by `source`: its own, and a timer's if it could have
    /// reported the step itself.
    pub(super) fn may_take_back(self, step: EventKind, source: Option<Source>) -> bool {
        match self {
            Self::Staff | Self::Admin => true,
            Self::Shop | Self::Reader => false,
            Self::Kitchen | Self::Courier => match source {
                None | Some(Source::Timer) => self.may_report(step, None),
                Some(source) => source == self.source(),
            },
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is none of the roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {}", Role::ALL.map(Role::as_str).join(", "))]
pub struct ParseRoleError;

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(ParseRoleError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: who may not, can't.
    #[test]
    fn the_table_is_that_of_the_contract() {
        use Action::{Explain, ListOrders, Operate, PlaceOrders, ReadFeed, ReadOrder, Report};
        let all = [PlaceOrders, ReadOrder, ListOrders, ReadFeed, Report, Explain, Operate];
        let expected: [(&str, &[Action], [bool; 3], &str); 6] = [
            ("shop", &[PlaceOrders, ReadOrder, ListOrders, Report], [true, true, false], "CANCELLED"),
            (
                "kitchen",
                &[ReadOrder, ListOrders, Report],
                [true, false, true],
                "PREPARING, COOKING, CANCELLED, READY, DELAYED, REVERTED",
            ),
            (
                "courier",
                &[ReadOrder, Report],
                [true, true, true],
                "OUT_FOR_DELIVERY, DELIVERED, COURIER_ASSIGNED, COURIER_AT_PICKUP, COURIER_AT_DOOR, \
                 DELIVERY_FAILED, REVERTED",
            ),
            ("reader", &[ReadOrder, ListOrders, ReadFeed], [false, false, false], ""),
            ("staff", &all, [true, true, true], &crate::order::listed_events(super::super::Report::KINDS)),
            ("admin", &all, [true, true, true], &crate::order::listed_events(super::super::Report::KINDS)),
        ];
        for (role, (name, may, sight, reports)) in Role::ALL.into_iter().zip(expected) {
            assert_eq!(role.as_str(), name);
            assert_eq!(name.parse(), Ok(role));
            assert_eq!(all.into_iter().filter(|action| role.may(*action)).collect::<Vec<_>>(), may, "{name}");
            let Sight { names, addresses, notes } = role.sight();
            assert_eq!([names, addresses, notes], sight, "{name}");
            let may_report = EventKind::ALL.into_iter().filter(|event| role.may_report(*event, None));
            assert_eq!(crate::order::listed_events(may_report), reports, "{name}");
        }
        assert_eq!("Staff".parse::<Role>(), Err(ParseRoleError));
    }

    #[test]
    fn a_shop_cancels_for_the_customer_as_long_as_nobody_has_begun() {
        assert!(Role::Shop.may_report(CANCELLED, Some(Reason::CustomerRequest)));
        assert!(!Role::Shop.may_report(CANCELLED, Some(Reason::Fraud)));
        assert!(Role::Kitchen.may_report(CANCELLED, Some(Reason::Fraud)));
        assert!(Role::Shop.may_cancel_in(Status::Placed));
        assert!(!Role::Shop.may_cancel_in(Status::Preparing));
        assert!(Role::Kitchen.may_cancel_in(Status::Cooking));
    }

    #[test]
    fn a_step_is_taken_back_by_who_made_it_or_could_have() {
        for (role, step, source, may) in [
            (Role::Kitchen, COOKING, Some(Source::Kitchen), true),
            (Role::Kitchen, COOKING, None, true),
            (Role::Kitchen, CANCELLED, Some(Source::Timer), true),
            (Role::Kitchen, OUT_FOR_DELIVERY, None, false),
            (Role::Kitchen, COOKING, Some(Source::Staff), false),
            (Role::Kitchen, OUT_FOR_DELIVERY, Some(Source::Courier), false),
            (Role::Courier, DELIVERED, None, true),
            (Role::Courier, DELIVERED, Some(Source::Courier), true),
            (Role::Courier, COOKING, Some(Source::Kitchen), false),
            (Role::Staff, COOKING, Some(Source::Kitchen), true),
            (Role::Admin, DELIVERED, Some(Source::Courier), true),
            (Role::Shop, CANCELLED, Some(Source::Shop), false),
            (Role::Reader, COOKING, None, false),
        ] {
            assert_eq!(role.may_take_back(step, source), may, "{role} {step} {source:?}");
        }
    }
}
