//! What needs a look: parts that don't do all of their work, orders that are late or unsent, dead letters. What is well
//! is one line, so that orders come first.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    super::moment,
    Board,
    view::{at_least, span, unread},
};
use crate::{
    ops::diagnosis::{self, ON_ITS_WAY, PartLine, State, sentences, shown},
    order::{
        Backlog, COUNTED_TO, LateOrders, LateSteps, Timestamp,
        promises::{OVERDUE_AFTER, PUBLISHED_WITHIN},
    },
    telemetry::health::Health,
    tracker::StoreError,
};

/// They are read every five seconds; if that is older, they can't be read.
const DEAD_LETTERS_MAY_BE: Duration = Duration::from_secs(20);

/// A card, and whether somebody should look at it.
struct Card {
    look: bool,
    card: Markup,
}

pub(super) fn health(board: &Board) -> Markup {
    let (looks, well): (Vec<Card>, Vec<Card>) = cards(board).into_iter().partition(|card| card.look);
    let lines = diagnosis::diagnose(Some(&board.reading.figures()), &board.parts);
    let is_ok = |line: &PartLine| line.state == State::Ok;
    let all_well = looks.is_empty() && lines.iter().all(is_ok);
    if !board.operates() {
        // What waits for a kitchen or a till, and nothing of the machinery.
        return html! {
            @if !looks.is_empty() {
                section #health aria-label="Health" { div #looks.looks { @for card in &looks { (card.card) } } }
            }
        };
    }
    html! {
        section #health aria-label="Health" {
            (parts(&lines, |line| !is_ok(line)))
            @if !looks.is_empty() { div #looks.looks { @for card in &looks { (card.card) } } }
            @if !well.is_empty() || lines.iter().any(is_ok) {
                details #well {
                    summary { @if all_well { "All well" } @else { "All else is well" } }
                    (parts(&lines, is_ok))
                    @if !well.is_empty() { div.looks { @for card in &well { (card.card) } } }
                }
            }
        }
    }
}

/// The parts with such a line.
fn parts(lines: &[PartLine], such: impl Fn(&PartLine) -> bool) -> Markup {
    let parts: Vec<&PartLine> = lines.iter().filter(|line| such(line)).collect();
    html! {
        @if !parts.is_empty() {
            ul.parts {
                @for line in parts {
                    li.bad[line.state != State::Ok] {
                        strong { (line.part) } " "
                        @match line.state {
                            State::Ok => (line.well),
                            State::Degraded => (sentences(&line.causes)),
                            State::Down => { b { "DOWN" } ", " (sentences(&line.causes)) }
                        }
                    }
                }
            }
        }
    }
}

fn cards(board: &Board) -> Vec<Card> {
    if board.reading.away.is_some() {
        return Vec::new();
    }
    let overdue = board.reading.overdue.as_ref().map(|late| overdue(board, late));
    let unsent = board.reading.backlog.as_ref().map(|backlog| unsent(board, backlog));
    let late = match &board.reading.late {
        Ok(late) => late_by_people(board, late),
        Err(error) => Some(not_known(board, "Late", error)),
    };
    let mut cards = vec![overdue.unwrap_or_else(|error| not_known(board, "Overdue", error))];
    cards.extend(late);
    if board.operates() {
        let unsent = unsent.unwrap_or_else(|error| not_known(board, "Unsent", error));
        cards.extend([unsent, dead_letter_backlog(board)]);
    }
    cards
}

/// Orders that people should have moved; nothing, where none is late.
fn late_by_people(board: &Board, late: &LateOrders) -> Option<Card> {
    let orders = late.orders.iter().map(|(_, count)| count).sum();
    let card = html! {
        section.card.bad {
            h2 { "Late " span.number { (at_least(orders, late.since.is_some())) } }
            @if orders > 0 { p.reason { "Nobody has said in time how these go on." } }
            ul {
                @for late in &late.first {
                    li {
                        a.number href=(board.choice.with_order(late.order.order_id)) { (late.order.order_id) }
                        " still " (late.order.status.words().state) ", " (span(late.late)) " late"
                    }
                }
                (more(late.first.len(), orders))
            }
            @if let Some(since) = late.since { (read_in_part(board, "Orders that were expected", since)) }
        }
    };
    (orders > 0 || late.since.is_some()).then_some(Card { look: true, card })
}

fn not_known(board: &Board, figure: &str, error: &StoreError) -> Card {
    let card = html! { section.card.bad { h2 { (figure) " " span.number { "?" } } (unread(error, board)) } };
    Card { look: true, card }
}

fn overdue(board: &Board, late: &LateSteps) -> Card {
    let known = late.since.is_none();
    let look = late.orders > 0 || !known;
    let card = html! {
        section.card.bad[look] {
            h2 { "Overdue " span.number { (at_least(late.orders, !known)) } }
            @if late.orders == 0 {
                @if known { p { "No step is more than " (OVERDUE_AFTER.as_secs()) " s late." } }
            } @else {
                @if board.operates() {
                    p.reason { strong { "Why: " } (sentences(&diagnosis::late(Some(&board.reading.figures()), &board.parts))) }
                }
                ul {
                    @for late in &late.first {
                        li {
                            a.number href=(board.choice.with_order(late.order.order_id)) { (late.order.order_id) }
                            " still " (late.order.status.words().state) ", " (span(late.late)) " late"
                        }
                    }
                    (more(late.first.len(), late.orders))
                }
            }
            @if let Some(since) = late.since { (read_in_part(board, "Steps that were due", since)) }
        }
    };
    Card { look, card }
}

/// What lies further back was not read.
fn read_in_part(board: &Board, what: &str, since: Timestamp) -> Markup {
    html! {
        p.reason {
            strong { "Not known: " } (what) " before " (shown(since)) " can't be read in time. That passes by itself"
            @if board.operates() { "; if it lasts, a session of the database keeps an old transaction open" }
            "."
        }
    }
}

fn unsent(board: &Board, backlog: &Backlog) -> Card {
    // Those on their way come and go, and the table below would jump with them.
    let waiting: Vec<_> = backlog.first.iter().filter(|row| row.age >= ON_ITS_WAY).collect();
    let (broker, relay) = (&board.parts.broker, &board.parts.relay);
    let held_up =
        [broker, relay].into_iter().any(|part| matches!(part, Health::Down(_) | Health::Degraded(_)));
    let known = backlog.since.is_none();
    let look = backlog.oldest_unsent_age > PUBLISHED_WITHIN || held_up && !waiting.is_empty() || !known;
    let card = html! {
        section.card.bad[look] {
            h2 { "Unsent " span.number { (at_least(backlog.unsent, !known)) } }
            @if waiting.is_empty() {
                @if known { p { "No order has waited for " (ON_ITS_WAY.as_secs()) " s to be on the topic." } }
            } @else {
                p.reason { strong { "Why: " } (sentences(&diagnosis::unsent(&board.parts))) }
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
            @if let Some(since) = backlog.since { (read_in_part(board, "Orders that were placed", since)) }
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
    let why = diagnosis::unread(&board.parts).text();
    let Some(waiting) = &board.dead_letter_backlog else {
        let card = html! {
            section.card {
                h2 { "Dead letters " span.number { "?" } }
                p.reason { strong { "Not known: " } (why) }
            }
        };
        return Card { look: true, card };
    };
    let (total, age) = (waiting.total(), waiting.at.elapsed());
    let card = html! {
        section.card.bad[total > 0] {
            h2 { "Dead letters " span.number { (total) @if waiting.more { "+" } } }
            @if age > DEAD_LETTERS_MAY_BE {
                p.reason { strong { "As of " (span(age)) " ago: " } (why) }
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
    Card { look: total > 0 || waiting.more || age > DEAD_LETTERS_MAY_BE, card }
}
