//! Why things are as they are, for people.

use super::Board;
use crate::{
    telemetry::health::{Health, PartsHealth},
    tracker::MOVED_AT_ONCE,
};

pub(super) fn why_unread(broker: &Health) -> String {
    match broker {
        Health::Down(reason) => format!("the broker is away ({reason})."),
        Health::Unknown => "the broker has not been reached yet.".to_owned(),
        Health::Up | Health::Degraded(_) => {
            "the topic has not been read since; if that lasts, the log says why.".to_owned()
        }
    }
}

/// What one transaction can move stays behind only if it is passed over, or if the transaction takes its time.
pub(super) fn why_late(board: &Board) -> String {
    let many = board.reading.overdue.as_ref().is_ok_and(|late| late.orders > MOVED_AT_ONCE as u64);
    match &board.conditions.scheduler {
        Health::Degraded(reason) => {
            format!("{reason}. Such an order is tried again with growing pauses, and all others go on.")
        }
        Health::Down(reason) => {
            format!("this replica can't write steps ({reason}). It tries again by itself; no step is lost.")
        }
        Health::Unknown => "the service has only just started and has not looked yet.".to_owned(),
        Health::Up if many => "more is due than is done; the oldest steps go first.".to_owned(),
        Health::Up => "another replica or a session in the database holds what is late, and this replica \
                          passes over it; or the database is slow."
            .to_owned(),
    }
}

pub(super) fn why_unsent(PartsHealth { broker, relay, .. }: &PartsHealth) -> String {
    let mut reasons = Vec::new();
    match broker {
        Health::Down(reason) => reasons.push(format!("the broker is away ({reason})")),
        Health::Degraded(reason) => reasons.push(reason.clone()),
        Health::Up | Health::Unknown => {}
    }
    if let Health::Down(reason) | Health::Degraded(reason) = relay {
        reasons.push(reason.clone());
    }
    match (broker, relay) {
        _ if !reasons.is_empty() => format!("{}. They go out when that is over.", reasons.join(", and ")),
        (Health::Unknown, _) => "the broker has not been reached yet.".to_owned(),
        (_, Health::Unknown) => "the service has only just started to send them.".to_owned(),
        _ => "they are being sent; this replica knows of nothing that holds them up.".to_owned(),
    }
}
