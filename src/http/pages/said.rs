//! What events say, as pages need it: who said it and what, and what is new.

use serde_json::Value;

use crate::order::{Event, EventKind, Reason, Source, Status, Steps, Timestamp};

/// What was said with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said<'a> {
    pub(super) source: Source,
    /// Under which name.
    pub(super) by: Option<&'a str>,
    /// When they say that it happened.
    pub(super) occurred_at: Option<Timestamp>,
    pub(super) reason: Option<Reason>,
    pub(super) minutes: Option<u64>,
    pub(super) station: Option<&'a str>,
    pub(super) note: Option<&'a str>,
    /// Nobody said it: a later step was reported.
    pub(super) inferred: bool,
    /// The position of the step that it takes back.
    pub(super) reverts: Option<u64>,
}

impl<'a> Said<'a> {
    pub(super) fn of(event: &'a Event) -> Self {
        let value = |name: &str| event.meta.as_ref().and_then(|meta| meta.get(name));
        let text = |name: &str| value(name).and_then(Value::as_str);
        Self {
            source: source(event, text("source")),
            by: text("by"),
            occurred_at: text("occurred_at").and_then(|at| at.parse().ok()),
            reason: text("reason").and_then(|reason| reason.parse().ok()),
            minutes: value("minutes").and_then(Value::as_u64),
            station: text("station"),
            note: text("note"),
            inferred: value("inferred") == Some(&Value::Bool(true)),
            reverts: value("reverts").and_then(Value::as_u64),
        }
    }
}

/// An order is told by who ordered, whichever way it came; what nobody told, a timer did.
fn source(event: &Event, named: Option<&str>) -> Source {
    let placed = matches!(event.event, EventKind::Created | EventKind::Reached(Status::FIRST));
    let named = named.and_then(|source| source.parse().ok());
    match &event.meta {
        _ if placed => Source::Customer,
        None => Source::Timer,
        Some(_) => named.unwrap_or(Source::Api),
    }
}

/// The event that tells best how things are: the latest that says more than those before it.
pub(super) fn news(events: &[Event]) -> Option<&Event> {
    events.iter().fold(None, |news: Option<&Event>, event| match event.event {
        EventKind::Reached(_)
        | EventKind::Reverted
        | EventKind::Delayed
        | EventKind::Ready
        | EventKind::CourierAtDoor
        | EventKind::DeliveryFailed => Some(event),
        // Where the courier is says nothing of what was delayed or taken back before.
        EventKind::CourierAssigned | EventKind::CourierAtPickup => {
            news.filter(|news| matches!(news.event, EventKind::Delayed | EventKind::Reverted)).or(Some(event))
        }
        EventKind::Created | EventKind::Erased => news,
    })
}

/// Why the order was cancelled, if it is.
pub(super) fn cancelled(events: &[Event]) -> Option<Said<'_>> {
    let last = *Steps::of(events).standing.last()?;
    (last.event == EventKind::Reached(Status::Cancelled)).then(|| Said::of(last))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn events(told: &[(EventKind, Value)]) -> Vec<Event> {
        let event = |(seq, (event, meta)): (u32, &(EventKind, Value))| Event {
            seq,
            event: *event,
            timestamp: Timestamp::UNIX_EPOCH,
            meta: Some(meta.clone()).filter(|meta| !meta.is_null()),
        };
        (1..).zip(told).map(event).collect()
    }

    fn reached(status: Status) -> (EventKind, Value) {
        (EventKind::Reached(status), Value::Null)
    }

    #[test]
    fn who_said_it_is_known_of_every_event() {
        let of = |event, meta| Said::of(&events(&[(event, meta)])[0]).source;
        assert_eq!(of(EventKind::Reached(Status::Placed), json!({"source": "http"})), Source::Customer);
        assert_eq!(of(EventKind::Reached(Status::Cooking), Value::Null), Source::Timer);
        assert_eq!(of(EventKind::Ready, json!({"source": "kitchen"})), Source::Kitchen);
        assert_eq!(of(EventKind::Ready, json!({"source": "martians"})), Source::Api);
    }

    #[test]
    fn a_delay_is_not_hidden_by_where_the_courier_is_but_by_what_follows() {
        let mut told = vec![reached(Status::Cooking), (EventKind::Delayed, json!({"minutes": 5}))];
        told.push((EventKind::CourierAssigned, Value::Null));
        let kind = |told: &[(EventKind, Value)]| news(&events(told)).map(|news| news.event);
        assert_eq!(kind(&told), Some(EventKind::Delayed));
        told.push((EventKind::Ready, Value::Null));
        assert_eq!(kind(&told), Some(EventKind::Ready));
        told.push((EventKind::CourierAtPickup, Value::Null));
        assert_eq!(kind(&told), Some(EventKind::CourierAtPickup));
    }
}
