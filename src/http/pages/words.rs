//! What pages say of reports: to customers in their words, to those who work on an order in theirs. Every list is whole: a
//! new source, reason, event or status does not compile before it has its words.

use crate::order::{Conflict, EventKind, Reason, Source, Status};

/// Who said it, to a customer.
pub(super) const fn who(source: Source) -> &'static str {
    match source {
        Source::Customer => "you",
        Source::Kitchen => "the kitchen",
        Source::Courier => "the courier",
        Source::Pos | Source::Staff | Source::Shop | Source::Admin | Source::Api => "the shop",
        Source::Timer => "by schedule",
    }
}

/// Why an order was cancelled, to its customer.
pub(super) const fn cancelled(reason: Reason, source: Source) -> &'static str {
    match (reason, source) {
        (Reason::CustomerRequest, Source::Customer) => "You cancelled it.",
        (Reason::CustomerRequest, _) => "As you asked.",
        (Reason::OutOfStock, _) => "Something in it has run out.",
        (Reason::KitchenClosed, _) => "The kitchen has closed.",
        (Reason::TooBusy, _) => "The kitchen has more orders than it can cook.",
        (Reason::NotAccepted, _) => "The kitchen did not take it in time.",
        (Reason::Duplicate, _) => "It was a second copy of the same order.",
        (Reason::OutsideArea, _) => "The address is further than we deliver.",
        (Reason::CourierUnavailable, _) => "No courier was free.",
        (Reason::Undeliverable, _) => "The courier could not hand it over.",
        (Reason::Fraud | Reason::Other, _) => "The shop could not go on with it.",
    }
}

/// Why it takes longer, to a customer.
pub(super) const fn delayed(reason: Option<Reason>) -> &'static str {
    match reason {
        Some(Reason::TooBusy) => "The kitchen is busier than usual.",
        Some(Reason::CourierUnavailable) => "We are waiting for a courier.",
        Some(Reason::OutOfStock) => "Something had to be fetched first.",
        Some(
            Reason::CustomerRequest
            | Reason::KitchenClosed
            | Reason::NotAccepted
            | Reason::Duplicate
            | Reason::Fraud
            | Reason::OutsideArea
            | Reason::Undeliverable
            | Reason::Other,
        )
        | None => "It takes longer than we said.",
    }
}

/// Whose word is missing while an order in this status is late.
pub(super) const fn silent(status: Status) -> &'static str {
    match status {
        Status::Placed | Status::Preparing | Status::Cooking => "the kitchen",
        Status::OutForDelivery => "the courier",
        Status::Delivered | Status::Cancelled => "the shop",
    }
}

/// Who said it, to those who work on the order.
pub(super) const fn said_by(source: Source) -> &'static str {
    match source {
        Source::Kitchen => "the kitchen",
        Source::Courier => "the courier",
        Source::Pos => "the till",
        Source::Staff => "staff",
        Source::Customer => "the customer",
        Source::Shop => "the shop",
        Source::Admin => "an administrator",
        Source::Api => "a program",
        Source::Timer => "by schedule",
    }
}

/// A reason, to those who work on the order.
pub(super) const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::CustomerRequest => "customer asked",
        Reason::OutOfStock => "out of stock",
        Reason::KitchenClosed => "kitchen closed",
        Reason::TooBusy => "too busy",
        Reason::NotAccepted => "not accepted in time",
        Reason::Duplicate => "duplicate",
        Reason::Fraud => "fraud",
        Reason::OutsideArea => "outside the area",
        Reason::CourierUnavailable => "no courier free",
        Reason::Undeliverable => "could not be handed over",
        Reason::Other => "other",
    }
}

/// What happened, in a few words that fit a button.
pub(super) const fn event(event: EventKind) -> &'static str {
    match event {
        EventKind::Created => "Created",
        EventKind::Reached(status) => status.words().label,
        EventKind::Ready => "Ready",
        EventKind::CourierAssigned => "Courier assigned",
        EventKind::CourierAtPickup => "Courier is here",
        EventKind::CourierAtDoor => "At the door",
        EventKind::DeliveryFailed => "Nobody there",
        EventKind::Delayed => "Delayed",
        EventKind::Reverted => "Taken back",
        EventKind::Erased => "Name and address erased",
    }
}

/// Why a report was not taken, without a full stop.
pub(super) const fn conflict(conflict: Conflict) -> &'static str {
    match conflict {
        Conflict::OrderFinished => "Stop: this order is over",
        Conflict::NothingToRevert => "There is no step to take back",
        Conflict::TooLateToRevert => "It is too long ago to be taken back",
        Conflict::ChangedMeanwhile => CHANGED,
        Conflict::TimelineFull => "So much was reported of this order that only its steps are taken any more",
    }
}

/// Somebody else was faster.
pub(super) const CHANGED: &str = "The order changed while you looked";

/// Who signed in may not say that.
pub(super) const NOT_FOR_ROLE: &str = "That is not for the role that you signed in with";

/// A form was sent again, and what it had reported was taken back meanwhile.
pub(super) const TAKEN_BACK: &str =
    "This button was pressed before, and what it reported was taken back since";

/// A form was sent again and said something else.
pub(super) const USED: &str = "This button was pressed before, and something else was said with it";
