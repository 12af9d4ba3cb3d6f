//! How the board looks.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    super::super::ops::{self, Line},
    super::{assets, moment, quoted, still_json},
    Board, Choice,
    reasons::{why_late, why_unread, why_unsent},
};
use crate::{
    order::{Event, Order, Status, Timestamp, TrackedOrder},
    overview::PROGRESS_MAY_LAG,
    store::{Backlog, COUNTED_TO, LateSteps, StoreError},
};

/// They are read every five seconds; if that is older, they can't be read.
const LETTERS_MAY_BE: Duration = Duration::from_secs(20);

/// An order on its way to the topic takes some 100 ms; what takes longer is worth a look.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// What the tab says: trouble first.
pub(super) fn title(board: &Board) -> String {
    match (&board.reading.away, &board.reading.overdue) {
        (Some(_), _) => "(!) Order Tracker".to_owned(),
        (None, Ok(late)) if late.orders > 0 => format!("({} overdue) Order Tracker", counted(late.orders)),
        _ => "Order Tracker".to_owned(),
    }
}

pub(super) fn board(board: &Board) -> Markup {
    html! {
        header {
            h1 { img src=(assets::path("board.svg")) alt="" width="32" height="32"; "Order Tracker" }
            p #mark hidden {}
            button #pause type="button" hidden aria-pressed="false" { "Pause" }
            form.search action="/" role="search" {
                @if let Some(status) = board.choice.status { input type="hidden" name="status" value=(status); }
                label.unseen for="search" { "Order number" }
                input #search type="search" name="id" value=(board.choice.search) placeholder="ORD-…" autocomplete="off" spellcheck="false";
                button { "Find" }
            }
            form action="/demo-orders" method="post" { button.main { "Place a demo order" } }
        }
        main #content data-now=(board.now.timestamp_millis()) {
            (parts(board))
            @match &board.reading.away {
                None => {
                    (counts(board))
                    (looks(board))
                    div.columns {
                        @if !board.choice.search.is_empty() { (one(board)) }
                        (orders(board))
                    }
                }
                Some(_) => section.card.bad {
                    h2 { "The database is away" }
                    p { "No order can be shown or placed until it is back. This page tries again by itself." }
                }
            }
        }
        p #announcement.unseen role="status" {}
    }
}

fn parts(board: &Board) -> Markup {
    html! {
        section.parts aria-label="Health" {
            ul {
                @for (part, line) in &board.parts {
                    li.bad[!matches!(line, Line::Ok(_))] {
                        strong { (part) } " "
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

fn counts(board: &Board) -> Markup {
    // Not to know is not to have none.
    let count = |status: Status| match &board.reading.counts {
        Ok(counts) => {
            at_least(counts.orders[status as usize], counts.since.is_some() && status.next().is_some())
        }
        Err(_) => "?".to_owned(),
    };
    html! {
        nav.counts aria-label="Orders by status" {
            ul {
                li { a.all href=(board.choice.with_status(None)) aria-current=[board.choice.status.is_none().then_some("true")] { "All orders" } }
                @for status in Status::ALL {
                    li {
                        a href=(board.choice.with_status(Some(status))) aria-current=[(board.choice.status == Some(status)).then_some("true")] {
                            img src=(assets::picture(status)) alt="" width="28" height="28";
                            span { strong.number { (count(status)) } " " (short(status)) }
                        }
                    }
                }
            }
        }
    }
}

fn counted(count: u64) -> String {
    at_least(count, false)
}

/// A count, and whether there may be more.
fn at_least(count: u64, more: bool) -> String {
    let most = COUNTED_TO.unsigned_abs();
    if more || count >= most { format!("{}+", count.min(most)) } else { count.to_string() }
}

fn short(status: Status) -> &'static str {
    match status {
        Status::Placed => "placed",
        Status::Preparing => "preparing",
        Status::Cooking => "cooking",
        Status::OutForDelivery => "out for delivery",
        Status::Delivered => "delivered",
    }
}

fn looks(board: &Board) -> Markup {
    html! {
        div.looks {
            @match &board.reading.overdue {
                Ok(late) => (overdue(board, late)),
                Err(error) => section.card.bad { h2 { "Overdue " span.number { "?" } } (unread(error)) },
            }
            @match &board.reading.backlog {
                Ok(backlog) => (unsent(board, backlog)),
                Err(error) => section.card.bad { h2 { "Unsent " span.number { "?" } } (unread(error)) },
            }
            (letters(board))
        }
    }
}

fn overdue(board: &Board, late: &LateSteps) -> Markup {
    let known = late.since.is_none();
    html! {
        section.card.bad[late.orders > 0 || !known] {
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
    }
}

/// What lies further back was not read.
fn read_in_part(what: &str, since: Timestamp) -> Markup {
    html! {
        p.reason {
            strong { "Not known: " } (what) " before " (ops::shown(since)) " can't be read in time. That passes by itself; if \
            it lasts, a session of the database keeps an old transaction open."
        }
    }
}

fn unsent(board: &Board, backlog: &Backlog) -> Markup {
    // Those on their way come and go, and the table below would jump with them.
    let waiting: Vec<_> = backlog.first.iter().filter(|row| row.age >= ON_ITS_WAY).collect();
    html! {
        section.card.bad[backlog.oldest_unsent_age > ops::RELAY_MAY_LAG || backlog.since.is_some()] {
            h2 { "Unsent " span.number { (at_least(backlog.unsent, backlog.since.is_some())) } }
            @if waiting.is_empty() {
                @if backlog.since.is_none() { p { "No order has waited for " (ON_ITS_WAY.as_secs()) " s to be on the topic." } }
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
    }
}

/// Says that a list does not show all.
fn more(shown: usize, all: u64) -> Markup {
    let more = all.saturating_sub(shown as u64);
    let at_least = if all >= COUNTED_TO.unsigned_abs() { "at least " } else { "" };
    html! { @if more > 0 { li { "and " (at_least) (more) " more" } } }
}

fn letters(board: &Board) -> Markup {
    let Some(waiting) = &board.letters else {
        return html! {
            section.card {
                h2 { "Dead letters " span.number { "?" } }
                p.reason { strong { "Not known: " } (why_unread(&board.conditions.broker)) }
            }
        };
    };
    let (total, age) = (waiting.total(), waiting.at.elapsed());
    html! {
        section.card.bad[total > 0] {
            h2 { "Dead letters " span.number { (total) @if waiting.more { "+" } } }
            @if age > LETTERS_MAY_BE {
                p.reason { strong { "As of " (span(age)) " ago: " } (why_unread(&board.conditions.broker)) }
            }
            @if total == 0 {
                p { "No message waits to be looked at." }
            } @else {
                p { "Messages that could not become orders, and that nobody has put back:" }
                ul { @for (reason, count) in &waiting.by_reason { li { (count) " × " (reason) } } }
                p { "The newest:" }
                ul {
                    @for letter in &waiting.newest {
                        li { span.number { (letter.place) } " " (letter.reason) ", " (moment(letter.written, board.now)) }
                    }
                }
                p { code { "order-tracker dead-letters show " (waiting.newest.first().map_or("", |letter| &letter.place)) } " tells all of one." }
            }
            @if waiting.more { p { "There may be more: only the newest are counted." } }
        }
    }
}

/// A time for people: to the tenth below ten seconds.
fn span(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// How late an order's next step is, if it is late.
fn lateness(order: &Order, board: &Board) -> Option<Duration> {
    (board.now - order.due_at?).to_std().ok().filter(|late| *late > PROGRESS_MAY_LAG)
}

fn orders(board: &Board) -> Markup {
    html! {
        section.card.orders {
            h2 {
                @match board.choice.status { Some(status) => { "Orders " (short(status)) } None => "Recent orders" }
            }
            @match &board.orders {
                Err(error) => (unread(error)),
                Ok(orders) if orders.is_empty() => p { (none(&board.choice)) },
                Ok(orders) => (table(orders, board)),
            }
            p.pages {
                @if board.choice.before.is_some() { a href=(board.choice.with_status(board.choice.status)) { "Newest" } " " }
                @if let Some(older) = board.older { a href=(board.choice.older(older)) { "Older" } }
            }
        }
    }
}

fn none(choice: &Choice) -> String {
    match (choice.before, choice.status) {
        (Some(_), _) => "There are no older ones.".to_owned(),
        (None, Some(status)) => format!("No order is {} just now.", short(status)),
        (None, None) => "None yet. Place a demo order with the button above.".to_owned(),
    }
}

/// Not to know is not to have none.
fn unread(error: &StoreError) -> Markup {
    html! { p.reason { strong { "Not known: " } (error) ". This page asks again by itself." } }
}

fn table(orders: &[Order], board: &Board) -> Markup {
    html! {
        div.wide role="region" aria-label="Table of orders" tabindex="0" {
            table {
                thead { tr { th scope="col" { "Order" } th scope="col" { "Status" } th scope="col" { "Item" } th scope="col" { "Customer" } th scope="col" { "Since" } } }
                tbody { @for order in orders { (row(order, board)) } }
            }
        }
    }
}

fn row(order: &Order, board: &Board) -> Markup {
    let open = board.choice.order_id() == Some(order.order_id);
    html! {
        tr id=(order.order_id) class=[open.then_some("open")] {
            td { a.number href=(board.choice.with_order(order.order_id)) { (order.order_id) } }
            td {
                span class={ "status " (order.status.as_str().to_ascii_lowercase()) } { (short(order.status)) }
                @if let Some(late) = lateness(order, board) { " " span.late { (span(late)) " late" } }
            }
            td { (quoted(&order.draft.item)) ", " (order.draft.size) }
            td { (quoted(&order.draft.customer_name)) }
            td { (moment(order.updated_at, board.now)) }
        }
    }
}

/// What was searched for.
fn one(board: &Board) -> Markup {
    let close = html! { a href=(Choice::address(board.choice.status, board.choice.before, "")) { "Close" } };
    html! {
        section.card.one {
            @match &board.found {
                Ok(Some(tracked)) => (story(tracked, board, &close)),
                Ok(None) => {
                    h2 { "No such order" }
                    p { "Nothing is stored under " span.number { (quoted(&board.choice.search)) } "." }
                    p { (close) }
                }
                Err(error) => {
                    h2 { "Order " span.number { (quoted(&board.choice.search)) } }
                    (unread(error))
                    p { (close) }
                }
            }
        }
    }
}

fn story(tracked: &TrackedOrder, board: &Board, close: &Markup) -> Markup {
    let order = &tracked.order;
    html! {
        h2 { "Order " span.number { (order.order_id) } }
        p {
            (quoted(&order.draft.item)) ", " (order.draft.size) " for " (quoted(&order.draft.customer_name)) ", "
            (quoted(&order.draft.address))
        }
        @if let Some(late) = lateness(order, board) {
            p.reason { strong { (span(late)) " late. Why: " } (why_late(board)) }
        }
        (timeline(tracked, board))
        p.pages { a href={ "/track/" (order.order_id) } { "Customer's page" } " " (close) }
        details {
            summary { "Raw JSON" }
            pre tabindex="0" { (still_json(&serde_json::to_string_pretty(tracked).unwrap_or_default())) }
        }
    }
}

fn timeline(tracked: &TrackedOrder, board: &Board) -> Markup {
    let before = |at: usize| at.checked_sub(1).and_then(|at| tracked.events.get(at));
    let gap = |at: usize, event: &Event| {
        before(at).and_then(|before| (event.timestamp - before.timestamp).to_std().ok())
    };
    html! {
        ol.timeline {
            @for (at, event) in tracked.events.iter().enumerate() {
                li {
                    strong { (event.event) } " " (moment(event.timestamp, board.now))
                    @if let Some(gap) = gap(at, event) { span.gap { " after " (span(gap)) } }
                    @if let Some(meta) = &event.meta { code { (meta) } }
                }
            }
        }
    }
}
