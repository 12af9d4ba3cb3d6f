//! How the board looks.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    super::{assets, moment, quoted, words},
    Board, Choice, Found, attention,
    sheet::one,
};
use crate::{
    order::{COUNTED_TO, Order, Status, TrackedOrder, promises::OVERDUE_AFTER},
    tracker::{AMONG, StoreError},
};

/// What the tab says: first what is wrong.
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
                @let by = if board.sight().names { "Name, item" } else { "Item" };
                label.unseen for="search" { (by) " or order number" }
                input #search type="search" name="id" value=(board.choice.search) placeholder={ (by) " or number" } autocomplete="off" spellcheck="false";
                button { "Find" }
            }
            @if board.demo { form action="/demo-orders" method="post" { button.main { "Place a demo order" } } }
            @if board.signed_in { (signed_in(board)) }
        }
        main #content data-now=(board.now.timestamp_millis()) {
            @if board.exposed {
                p.exposed { "Everybody who reaches this address sees names and addresses and may change orders. Set " code { "AUTH=keys" } " to ask who they are." }
            }
            (attention::health(board))
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

/// Who looks, and how he ends it.
fn signed_in(board: &Board) -> Markup {
    let role = board.caller.role().map(crate::order::Role::as_str).unwrap_or_default();
    html! {
        form.signed-in action="/sign-out" method="post" {
            span { (quoted(board.caller.name().unwrap_or_default())) " (" (role) ")" }
            button { "Sign out" }
        }
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
                            span { strong.number { (count(status)) } " " (status.words().state) }
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

/// How late an order's next step is, whoever should make it, if it is late.
pub(super) fn lateness(order: &Order, board: &Board) -> Option<Duration> {
    (board.now - order.goes_on_at()?).to_std().ok().filter(|late| *late > OVERDUE_AFTER)
}

fn orders(board: &Board) -> Markup {
    if let Ok(Found::Orders(count, orders)) = &board.found {
        return matches(board, *count, orders);
    }
    html! {
        section.card.orders {
            h2 {
                @match board.choice.status { Some(status) => { "Orders " (status.words().state) } None => "Recent orders" }
            }
            @match &board.orders {
                Err(error) => (unread(error, board)),
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
        (None, Some(status)) => format!("No order is {} just now.", status.words().state),
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
                @match board.choice.status { Some(status) => { "Orders " (status.words().state) } None => "Orders" }
                " with “" (quoted(&board.choice.search)) "”"
            }
            p.reason {
                @match count {
                    0 => strong { "No such order" },
                    1 => strong { "One" },
                    _ => strong { (count) },
                }
                " among the newest " (thousands(AMONG)) " orders, by " @if board.sight().names { "name, " } "item or the last characters of the number."
                @if count > orders.len() { " These are the newest of them." }
            }
            @if !orders.is_empty() { (table(&orders, board)) }
            p.pages { (close(board)) }
        }
    }
}

/// Not to know is not to have none.
pub(super) fn unread(error: &StoreError, board: &Board) -> Markup {
    html! {
        p.reason {
            strong { "Not known: " }
            @if board.operates() { (error) } @else { "it can't be read just now" }
            ". This page asks again by itself."
        }
    }
}

fn table(orders: &[Order], board: &Board) -> Markup {
    html! {
        div.wide role="region" aria-label="Table of orders" tabindex="0" {
            table {
                thead { tr { th scope="col" { "Order" } th scope="col" { "Status" } th scope="col" { "Item" } @if board.sight().names { th scope="col" { "Customer" } } th scope="col" { "Since" } } }
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
                span class={ "status " (order.status.slug()) } { (order.status.words().state) }
                @if let Some(late) = lateness(order, board) { " " span.late { (span(late)) " late" } }
                @if let Some(reason) = board.reasons.get(&order.order_id) { span.gap { ": " (words::reason(*reason)) } }
            }
            td { (quoted(&order.details.item)) ", " (order.details.size) }
            @if board.sight().names { td { (quoted(&order.details.customer_name)) } }
            td { (moment(order.updated_at, board.now)) }
        }
    }
}

pub(super) fn close(board: &Board) -> Markup {
    html! { a href=(Choice::address(board.choice.status, board.choice.before, "")) { "Close" } }
}

/// The one order that was searched for, or what became of the search.
fn found(board: &Board) -> Markup {
    html! {
        @match &board.found {
            Ok(Found::Unasked) => {}
            Ok(Found::Order(Some(tracked))) => (one(tracked, board)),
            Ok(Found::Orders(1, orders)) => @for tracked in orders { (one(tracked, board)) },
            Ok(Found::Orders(..)) => {}
            Ok(Found::Order(None)) => section.card.one {
                h2 { "No such order" }
                p { "Nothing is stored under " span.number { (quoted(&board.choice.search)) } "." }
                p.pages { (close(board)) }
            },
            Err(error) => section.card.one {
                h2 { "Order " span.number { (quoted(&board.choice.search)) } }
                (unread(error, board))
                p.pages { (close(board)) }
            },
        }
    }
}
