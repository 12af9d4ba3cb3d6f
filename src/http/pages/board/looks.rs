//! What needs a look: parts that don't do all of their work, orders that are late or unsent, dead letters. What is well
//! is one line, so that orders come first.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    super::super::api::health::{self, Line},
    super::moment,
    Board,
    reasons::{why_late, why_unread, why_unsent},
    view::{at_least, short, span, unread},
};
use crate::{
    ops::overview::PROGRESS_MAY_LAG,
    order::{Backlog, COUNTED_TO, LateSteps, Timestamp},
    telemetry::health::Health,
    tracker::StoreError,
};

/// They are read every five seconds; if that is older, they can't be read.
const LETTERS_MAY_BE: Duration = Duration::from_secs(20);

/// An order on its way to the topic takes some 100 ms; what takes longer is worth a look.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// A card, and whether somebody should look at it.
struct Card {
    look: bool,
    card: Markup,
}

pub(super) fn health(board: &Board) -> Markup {
    let (looks, well): (Vec<Card>, Vec<Card>) = cards(board).into_iter().partition(|card| card.look);
    let is_ok = |line: &Line| matches!(line, Line::Ok(_));
    let all_well = looks.is_empty() && board.parts.iter().all(|(_, line)| is_ok(line));
    html! {
        section #health aria-label="Health" {
            (parts(board, |line| !is_ok(line)))
            @if !looks.is_empty() { div #looks.looks { @for card in &looks { (card.card) } } }
            @if !well.is_empty() || board.parts.iter().any(|(_, line)| is_ok(line)) {
                details #well {
                    summary { @if all_well { "All well" } @else { "All else is well" } }
                    (parts(board, is_ok))
                    @if !well.is_empty() { div.looks { @for card in &well { (card.card) } } }
                }
            }
        }
    }
}

/// The parts with such a line.
fn parts(board: &Board, such: impl Fn(&Line) -> bool) -> Markup {
    let parts: Vec<_> = board.parts.iter().filter(|(_, line)| such(line)).collect();
    html! {
        @if !parts.is_empty() {
            ul.parts {
                @for (part, line) in parts {
                    li.bad[!matches!(line, Line::Ok(_))] {
                        strong { (part.as_str()) } " "
                        @match line {
                            Line::Ok(line) => (line),
                            Line::Degraded(reason) => (first_line(reason)),
                            Line::Down(reason) => { b { "DOWN" } ", " (first_line(reason)) }
                        }
                    }
                }
            }
        }
    }
}

fn first_line(reason: &str) -> &str {
    reason.lines().next().unwrap_or_default()
}

fn cards(board: &Board) -> Vec<Card> {
    if board.reading.away.is_some() {
        return Vec::new();
    }
    let overdue = board.reading.overdue.as_ref().map(|late| overdue(board, late));
    let unsent = board.reading.backlog.as_ref().map(|backlog| unsent(board, backlog));
    vec![
        overdue.unwrap_or_else(|error| not_known("Overdue", error)),
        unsent.unwrap_or_else(|error| not_known("Unsent", error)),
        dead_letter_backlog(board),
    ]
}

fn not_known(figure: &str, error: &StoreError) -> Card {
    let card = html! { section.card.bad { h2 { (figure) " " span.number { "?" } } (unread(error)) } };
    Card { look: true, card }
}

fn overdue(board: &Board, late: &LateSteps) -> Card {
    let known = late.since.is_none();
    let look = late.orders > 0 || !known;
    let card = html! {
        section.card.bad[look] {
            h2 { "Overdue " span.number { (at_least(late.orders, !known)) } }
            @if late.orders == 0 {
                @if known { p { "No step is more than " (PROGRESS_MAY_LAG.as_secs()) " s late." } }
            } @else {
                p.reason { strong { "Why: " } (why_late(board)) }
                ul {
                    @for late in &late.first {
                        li {
                            a.number href=(board.choice.with_order(late.order.order_id)) { (late.order.order_id) }
                            " still " (short(late.order.status)) ", " (span(late.late)) " late"
                        }
                    }
                    (more(late.first.len(), late.orders))
                }
            }
            @if let Some(since) = late.since { (read_in_part("Steps that were due", since)) }
        }
    };
    Card { look, card }
}

/// What lies further back was not read.
fn read_in_part(what: &str, since: Timestamp) -> Markup {
    html! {
        p.reason {
            strong { "Not known: " } (what) " before " (health::shown(since)) " can't be read in time. That passes by itself; if \
            it lasts, a session of the database keeps an old transaction open."
        }
    }
}

fn unsent(board: &Board, backlog: &Backlog) -> Card {
    // Those on their way come and go, and the table below would jump with them.
    let waiting: Vec<_> = backlog.first.iter().filter(|row| row.age >= ON_ITS_WAY).collect();
    let (broker, relay) = (&board.conditions.broker, &board.conditions.relay);
    let held_up =
        [broker, relay].into_iter().any(|part| matches!(part, Health::Down(_) | Health::Degraded(_)));
    let known = backlog.since.is_none();
    let look = backlog.oldest_unsent_age > health::RELAY_MAY_LAG || held_up && !waiting.is_empty() || !known;
    let card = html! {
        section.card.bad[look] {
            h2 { "Unsent " span.number { (at_least(backlog.unsent, !known)) } }
            @if waiting.is_empty() {
                @if known { p { "No order has waited for " (ON_ITS_WAY.as_secs()) " s to be on the topic." } }
            } @else {
                p.reason { strong { "Why: " } (why_unsent(&board.conditions)) }
                ul {
                    @for row in &waiting {
                        li {
                            a.number href=(board.choice.with_order(row.order_id)) { (row.order_id) }
                            " for " (span(row.age))
                        }
                    }
                    (more(waiting.len(), backlog.unsent))
                }
            }
            @if let Some(since) = backlog.since { (read_in_part("Orders that were placed", since)) }
        }
    };
    Card { look, card }
}

/// Says that a list does not show all.
fn more(shown: usize, all: u64) -> Markup {
    let more = all.saturating_sub(shown as u64);
    let at_least = if all >= COUNTED_TO.unsigned_abs() { "at least " } else { "" };
    html! { @if more > 0 { li { "and " (at_least) (more) " more" } } }
}

/// Not to know of dead letters is not to have none.
fn dead_letter_backlog(board: &Board) -> Card {
    let Some(waiting) = &board.dead_letter_backlog else {
        let card = html! {
            section.card {
                h2 { "Dead letters " span.number { "?" } }
                p.reason { strong { "Not known: " } (why_unread(&board.conditions.broker)) }
            }
        };
        return Card { look: true, card };
    };
    let (total, age) = (waiting.total(), waiting.at.elapsed());
    let card = html! {
        section.card.bad[total > 0] {
            h2 { "Dead letters " span.number { (total) @if waiting.more { "+" } } }
            @if age > LETTERS_MAY_BE {
                p.reason { strong { "As of " (span(age)) " ago: " } (why_unread(&board.conditions.broker)) }
            }
            @if total == 0 {
                p { "No message waits to be looked at." }
            } @else {
                p { "Messages that could not become orders, and that nobody has requeued:" }
                ul { @for (reason, count) in &waiting.by_reason { li { (count) " × " (reason) } } }
                p { "The newest:" }
                ul {
                    @for dead_letter in &waiting.newest {
                        li { span.number { (dead_letter.place) } " " (dead_letter.reason) ", " (moment(dead_letter.written, board.now)) }
                    }
                }
                p { code { "order-tracker dead-letters show " (waiting.newest.first().map_or("", |dead_letter| &dead_letter.place)) } " tells all of one." }
            }
            @if waiting.more { p { "There may be more: only the newest are counted." } }
        }
    };
    Card { look: total > 0 || waiting.more || age > LETTERS_MAY_BE, card }
}
