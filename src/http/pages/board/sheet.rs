//! One order on the board: where it stands and why, who said what, and what may be reported.

use chrono::TimeDelta;
use maud::{Markup, html};

use super::{
    super::{harmless_json, moment, quoted, said::Said, words},
    Answer, Board,
    buttons::buttons,
    view::{close, lateness, span},
};
use crate::order::{Event, EventKind, Order, Shown, Sight, Steps, Timestamp, TrackedOrder};

/// By how much the time that was said differs from ours before both are told.
const APART: TimeDelta = TimeDelta::minutes(1);

/// The sheet of an order.
pub(super) fn one(tracked: &TrackedOrder, board: &Board) -> Markup {
    let order = &tracked.order;
    html! {
        section.card.one {
            h2 { "Order " span.number { (order.order_id) } }
            (answer(tracked, board))
            p {
                (quoted(&order.details.item)) ", " (order.details.size)
                @if board.sight().names { " for " (quoted(&order.details.customer_name)) }
                @if board.sight().addresses { ", " (quoted(&order.details.address)) }
            }
            (why(order, board))
            (buttons(tracked, board))
            (timeline(tracked, board))
            p.pages {
                a href={ "/track/" (order.order_id) } { "Customer's page" } " "
                noscript { a href=(board.choice.with_order(order.order_id)) { "Look again" } } " "
                (close(board))
            }
            @if board.sight() == Sight::WHOLE {
                details {
                    summary { "Raw JSON" }
                    pre tabindex="0" { (harmless_json(&serde_json::to_string_pretty(&Shown::new(tracked, board.sight())).unwrap_or_default())) }
                }
            }
        }
    }
}

/// What became of the button that was pressed; made from the event itself, so that an address can say nothing else.
fn answer(tracked: &TrackedOrder, board: &Board) -> Markup {
    let answer = board.choice.answer.filter(|answer| answer.order_id == tracked.order.order_id);
    let event = |answer: &Answer| tracked.events.iter().find(|event| event.seq == answer.seq);
    html! {
        @if let Some((answer, event)) = answer.and_then(|answer| Some((answer, event(&answer)?))) {
            p.did role="status" {
                @if answer.already { "Already: " } @else { "Done: " }
                (told(event, tracked, board.now))
            }
        }
    }
}

/// An event in one line: what, by whom, when.
pub(super) fn told(event: &Event, tracked: &TrackedOrder, now: Timestamp) -> Markup {
    let said = Said::of(event);
    html! {
        (what(event, tracked)) ", " (words::said_by(said.source)) ", " (moment(event.timestamp, now))
    }
}

/// What happened, with what it can't be told without.
fn what(event: &Event, tracked: &TrackedOrder) -> Markup {
    let said = Said::of(event);
    html! {
        (words::event(event.event))
        @match (event.event, said.minutes, said.reverts) {
            (EventKind::Delayed, Some(minutes), _) => { " by " (minutes) " min" }
            (EventKind::Reverted, _, Some(seq)) => @if let Some(step) = at(tracked, seq) {
                ": " (words::event(step.event))
            },
            _ => {}
        }
    }
}

fn at(tracked: &TrackedOrder, seq: u64) -> Option<&Event> {
    tracked.events.iter().find(|event| u64::from(event.seq) == seq)
}

/// Why it stands where it stands, as `order explain` says it.
fn why(order: &Order, board: &Board) -> Markup {
    let late = lateness(order, board);
    html! {
        @match &board.explanation {
            Some(explanation) => @for (n, cause) in explanation.causes.iter().enumerate() {
                p.reason {
                    @match late {
                        Some(late) if n == 0 => strong { (span(late)) " late. Why: " },
                        _ => strong { "Why: " },
                    }
                    (cause.text)
                }
            },
            None => @if let Some(late) = late { p.reason { strong { (span(late)) " late" } ". Why is not known." } },
        }
    }
}

fn timeline(tracked: &TrackedOrder, board: &Board) -> Markup {
    let before = |at: usize| at.checked_sub(1).and_then(|at| tracked.events.get(at));
    let gap = |at: usize, event: &Event| {
        before(at).and_then(|before| (event.timestamp - before.timestamp).to_std().ok())
    };
    let stands: Vec<u32> = Steps::of(&tracked.events).standing.iter().map(|step| step.seq).collect();
    html! {
        ol.timeline {
            @for (at, event) in tracked.events.iter().enumerate() {
                @let back = event.event.status().is_some() && !stands.contains(&event.seq);
                li.undone[back] {
                    strong { (event.event) } " " (moment(event.timestamp, board.now))
                    @if let Some(gap) = gap(at, event) { span.gap { " after " (span(gap)) } }
                    @if back { span.gap { ", taken back" } }
                    (said(event, tracked, board))
                }
            }
        }
    }
}

/// Who said it, and what else was said. Of an order that was taken its origin is told, as it is kept.
fn said(event: &Event, tracked: &TrackedOrder, board: &Board) -> Markup {
    let said = Said::of(event);
    if matches!(event.event, EventKind::Created | EventKind::Reached(crate::order::Status::FIRST)) {
        return html! { @if let Some(meta) = &event.meta { code { (harmless_json(&meta.to_string())) } } };
    }
    let apart = said.occurred_at.filter(|at| (*at - event.timestamp).abs() > APART);
    let reverted = said.reverts.and_then(|seq| at(tracked, seq));
    html! {
        span.who {
            (words::said_by(said.source))
            @if let Some(by) = said.by { " (" (quoted(by)) ")" }
            @if said.inferred { ": not reported, a later step was" }
            @if let Some(at) = apart { ", happened " (moment(at, board.now)) }
            @if let Some(step) = reverted { ", takes back " (step.event) " of " (moment(step.timestamp, board.now)) }
            @if let Some(minutes) = said.minutes { ", +" (minutes) " min" }
            @if let Some(reason) = said.reason { ", " (words::reason(reason)) }
            @if let Some(station) = said.station { ", at " (quoted(station)) }
            @if let Some(note) = said.note.filter(|_| board.sight().notes) { ": “" (quoted(note)) "”" }
        }
    }
}
