//! When an order comes, in words that promise no more than is known.

use chrono::TimeDelta;
use maud::{Markup, html};

use super::super::moment;
use crate::order::{Estimate, Order, StageDelays, Status, Steps, Timestamp, TrackedOrder};

const HALF_AN_HOUR: TimeDelta = TimeDelta::minutes(30);

/// How the moments are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// As was said from the start.
    Arrives,
    /// The time was moved, or somebody should have spoken.
    NowExpected,
    /// Nobody has said that it would be late, and it is.
    Late,
}

/// Between which moments it comes.
pub(super) fn expected(
    tracked: &TrackedOrder,
    delays: &StageDelays,
    estimate: Estimate,
    label: Label,
    now: Timestamp,
) -> Markup {
    let Estimate { from, by, promise_ends, missed } = estimate;
    let step = coarseness(from - now);
    let first = whole_minutes(from, step, false);
    let last = whole_minutes(by, step, true).max(first + TimeDelta::minutes(step));
    let later = (label == Label::NowExpected).then(|| later(tracked, delays, first)).flatten();
    let said = missed.map(|said| whole_minutes(said, 1, true)).filter(|said| *said < last && later.is_none());
    html! {
        p.arrival data-until=(promise_ends.timestamp_millis()) {
            span.label data-said[label != Label::Arrives] {
                @match label {
                    Label::Arrives => "Arrives between",
                    Label::NowExpected => "Now expected between",
                    Label::Late => { (super::told::LATE) ", now between" }
                }
            }
            strong.between data-said[label == Label::NowExpected] { (minute(first, now, "")) " and " (minute(last, now, " UTC")) }
            span.left data-from=(from.timestamp_millis()) data-to=(by.timestamp_millis()) {}
            @if let Some(said) = said { span.said { "We had said by " (minute(said, now, " UTC")) "." } }
            @if let Some((said, minutes)) = later {
                span.said { (minutes) " min later than first said (" (minute(said, now, " UTC")) ")" }
            }
        }
    }
}

/// When it came.
pub(super) fn arrived(order: &Order, now: Timestamp) -> Markup {
    html! { p.arrival { span.label { "Arrived" } strong { (moment(order.updated_at, now)) } } }
}

/// When it was first said to come, and how many minutes later it is.
fn later(tracked: &TrackedOrder, delays: &StageDelays, now_said: Timestamp) -> Option<(Timestamp, i64)> {
    let placed = Steps::of(&tracked.events).standing.first()?.timestamp;
    let due_at = delays.due_after(Status::FIRST, placed);
    let status = Status::FIRST;
    let at_first = Order { status, updated_at: placed, due_at, expected_at: None, ..tracked.order.clone() };
    let (soonest, _) = delays.eta(&at_first)?;
    let said = whole_minutes(soonest, coarseness(soonest - placed), false);
    Some((said, (now_said - said).num_minutes())).filter(|(_, minutes)| *minutes > 0)
}

/// From half an hour on, minutes would promise too much.
fn coarseness(until: TimeDelta) -> i64 {
    if until > HALF_AN_HOUR { 5 } else { 1 }
}

/// A moment at one of every `step` minutes, which are the same in all time zones.
fn whole_minutes(at: Timestamp, step: i64, up: bool) -> Timestamp {
    let length = step * 60_000;
    let over = at.timestamp_millis().rem_euclid(length);
    at + TimeDelta::milliseconds(if up && over > 0 { length - over } else { -over })
}

/// A moment to the minute; the script puts the reader's own zone in its place.
pub(super) fn minute(at: Timestamp, now: Timestamp, zone: &str) -> Markup {
    let form = if at.date_naive() == now.date_naive() { "%H:%M" } else { "%-d %b %Y, %H:%M" };
    html! { time.minute datetime=(at.format("%Y-%m-%dT%H:%M:%SZ")) { (at.format(form)) (zone) } }
}
