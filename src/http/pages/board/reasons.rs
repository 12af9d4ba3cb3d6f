//! Why things are as they are, for people.

use super::{super::super::ops::Conditions, Board};
use crate::{health::Condition, store::MOVED_AT_ONCE};

pub(super) fn why_unread(broker: &Condition) -> String {
    match broker {
        Condition::Down(reason) => format!("the broker is away ({reason})."),
        Condition::Unknown => "the broker has not been reached yet.".to_owned(),
        Condition::Up | Condition::Degraded(_) => {
            "the topic has not been read since; if that lasts, the log says why.".to_owned()
        }
    }
}

/// What one transaction can move stays behind only if it is passed over, or if the transaction takes its time.
pub(super) fn why_late(board: &Board) -> String {
    let many = board.reading.overdue.as_ref().is_ok_and(|late| late.orders > MOVED_AT_ONCE as u64);
    match &board.conditions.progress {
        Condition::Degraded(reason) => {
            format!("{reason}. Such an order is tried again with growing pauses, and all others go on.")
        }
        Condition::Down(reason) => {
            format!("this replica can't write steps ({reason}). It tries again by itself; no step is lost.")
        }
        Condition::Unknown => "the service has only just started and has not looked yet.".to_owned(),
        Condition::Up if many => "more is due than is done; the oldest steps go first.".to_owned(),
        Condition::Up => "another replica or a session in the database holds what is late, and this replica \
                          passes over it; or the database is slow."
            .to_owned(),
    }
}

pub(super) fn why_unsent(Conditions { broker, relay, .. }: &Conditions) -> String {
    let mut reasons = Vec::new();
    match broker {
        Condition::Down(reason) => reasons.push(format!("the broker is away ({reason})")),
        Condition::Degraded(reason) => reasons.push(reason.clone()),
        Condition::Up | Condition::Unknown => {}
    }
    if let Condition::Down(reason) | Condition::Degraded(reason) = relay {
        reasons.push(reason.clone());
    }
    match (broker, relay) {
        _ if !reasons.is_empty() => format!("{}. They go out when that is over.", reasons.join(", and ")),
        (Condition::Unknown, _) => "the broker has not been reached yet.".to_owned(),
        (_, Condition::Unknown) => "the service has only just started to send them.".to_owned(),
        _ => "they are being sent; this replica knows of nothing that holds them up.".to_owned(),
    }
}
