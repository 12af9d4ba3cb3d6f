//! How the board looks.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    super::{assets, moment, quoted, still_json},
    Board, Choice, Found, looks,
    reasons::why_late,
};
use crate::{
    ops::overview::PROGRESS_MAY_LAG,
    order::{Event, Order, Status, TrackedOrder},
    store::{COUNTED_TO, StoreError},
    tracker::AMONG,
};

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
                label.unseen for="search" { "Name, item or order number" }
                input #search type="search" name="id" value=(board.choice.search) placeholder="Name, item or number" autocomplete="off" spellcheck="false";
                button { "Find" }
            }
            @if board.demo { form action="/demo-orders" method="post" { button.main { "Place a demo order" } } }
        }
        main #content data-now=(board.now.timestamp_millis()) {
            (looks::health(board))
            @match &board.reading.away {
                None => {
                    (counts(board))
                    div.columns { (found(board)) (orders(board)) }
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

fn counts(board: &Board) -> Markup {
    // Not to know is not to have none.
    let count = |status: Status| match &board.reading.counts {
        Ok(counts) => at_least(counts.orders[status], counts.since.is_some() && !status.is_final()),
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

pub(super) fn counted(count: u64) -> String {
    at_least(count, false)
}

/// A count, and whether there may be more.
pub(super) fn at_least(count: u64, more: bool) -> String {
    let most = COUNTED_TO.unsigned_abs();
    if more || count >= most { format!("{}+", count.min(most)) } else { count.to_string() }
}

pub(super) fn short(status: Status) -> &'static str {
    match status {
        Status::Placed => "placed",
        Status::Preparing => "preparing",
        Status::Cooking => "cooking",
        Status::OutForDelivery => "out for delivery",
        Status::Delivered => "delivered",
    }
}

/// A number of more than three digits, as it is read in English.
fn thousands(number: usize) -> String {
    format!("{},{:03}", number / 1_000, number % 1_000)
}

/// A time for people: to the tenth below ten seconds.
pub(super) fn span(time: Duration) -> String {
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
    if let Ok(Found::Orders(count, orders)) = &board.found {
        return matches(board, *count, orders);
    }
    html! {
        section.card.orders {
            h2 {
                @match board.choice.status { Some(status) => { "Orders " (short(status)) } None => "Recent orders" }
            }
            @match &board.orders {
                Err(error) => (unread(error)),
                Ok(orders) if orders.is_empty() => p { (none(board)) },
                Ok(orders) => (table(orders, board)),
            }
            p.pages {
                @if board.choice.before.is_some() { a href=(board.choice.with_status(board.choice.status)) { "Newest" } " " }
                @if let Some(older) = board.older { a href=(board.choice.older(older)) { "Older" } }
            }
        }
    }
}

fn none(board: &Board) -> String {
    match (board.choice.before, board.choice.status) {
        (Some(_), _) => "There are no older ones.".to_owned(),
        (None, Some(status)) => format!("No order is {} just now.", short(status)),
        (None, None) if board.demo => "None yet. Place a demo order with the button above.".to_owned(),
        (None, None) => "None yet.".to_owned(),
    }
}

/// The orders that words were found in, in place of the recent ones.
fn matches(board: &Board, count: usize, orders: &[TrackedOrder]) -> Markup {
    let orders: Vec<Order> = orders.iter().map(|tracked| tracked.order.clone()).collect();
    html! {
        section.card.orders {
            h2 {
                @match board.choice.status { Some(status) => { "Orders " (short(status)) } None => "Orders" }
                " with “" (quoted(&board.choice.search)) "”"
            }
            p.reason {
                @match count {
                    0 => strong { "No such order" },
                    1 => strong { "One" },
                    _ => strong { (count) },
                }
                " among the newest " (thousands(AMONG)) " orders, by name, item or the last characters of the number."
                @if count > orders.len() { " These are the newest of them." }
            }
            @if !orders.is_empty() { (table(&orders, board)) }
            p.pages { (close(board)) }
        }
    }
}

/// Not to know is not to have none.
pub(super) fn unread(error: &StoreError) -> Markup {
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
            td { (quoted(&order.details.item)) ", " (order.details.size) }
            td { (quoted(&order.details.customer_name)) }
            td { (moment(order.updated_at, board.now)) }
        }
    }
}

fn close(board: &Board) -> Markup {
    html! { a href=(Choice::address(board.choice.status, board.choice.before, "")) { "Close" } }
}

/// The one order that was searched for, or what became of the search.
fn found(board: &Board) -> Markup {
    html! {
        @match &board.found {
            Ok(Found::Unasked) => {}
            Ok(Found::Order(Some(tracked))) => (story(tracked, board)),
            Ok(Found::Orders(1, orders)) => @for tracked in orders { (story(tracked, board)) },
            Ok(Found::Orders(..)) => {}
            Ok(Found::Order(None)) => section.card.one {
                h2 { "No such order" }
                p { "Nothing is stored under " span.number { (quoted(&board.choice.search)) } "." }
                p.pages { (close(board)) }
            },
            Err(error) => section.card.one {
                h2 { "Order " span.number { (quoted(&board.choice.search)) } }
                (unread(error))
                p.pages { (close(board)) }
            },
        }
    }
}

fn story(tracked: &TrackedOrder, board: &Board) -> Markup {
    let order = &tracked.order;
    html! {
        section.card.one {
            h2 { "Order " span.number { (order.order_id) } }
            p {
                (quoted(&order.details.item)) ", " (order.details.size) " for " (quoted(&order.details.customer_name)) ", "
                (quoted(&order.details.address))
            }
            @if let Some(late) = lateness(order, board) {
                p.reason { strong { (span(late)) " late. Why: " } (why_late(board)) }
            }
            (timeline(tracked, board))
            p.pages { a href={ "/track/" (order.order_id) } { "Customer's page" } " " (close(board)) }
            details {
                summary { "Raw JSON" }
                pre tabindex="0" { (still_json(&serde_json::to_string_pretty(tracked).unwrap_or_default())) }
            }
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
