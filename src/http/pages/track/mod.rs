//! `GET /track/{id}`: the customer's page.

mod arrival;
mod cancel;
mod told;

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use chrono::TimeDelta;
use maud::{Markup, html};

pub(in crate::http) use cancel::{ask as ask_to_cancel, cancel};

use super::{
    super::AppState, Frame, Problem, Refresh, assets, error_page, moment, nowhere, page, quoted, said::Said,
    strip_bidi, typed, words,
};
use crate::{
    keys::Auth,
    order::{Event, Order, OrderId, Rules, Sight, Status, Steps, Timestamp, TrackedOrder},
    tracker::CurrentOrder,
};
use arrival::minute;
use told::TrackView;

/// What a chat shows of the page: nothing of the order or of who waits for it.
const PREVIEW: (&str, &str) = ("Where your order is", "Follow it from the kitchen to your door.");
/// How many of the last characters of its number people call an order by.
const SHORT: usize = 4;

/// Where an order is, for the one who waits for it. Who knows the id may look.
pub(in crate::http) async fn track(
    State(state): State<Arc<AppState>>,
    order_id: Result<Path<String>, PathRejection>,
) -> Response {
    let text = order_id.map(|Path(text)| text).unwrap_or_default();
    if let Some(order_id) = canonical(&text) {
        return Redirect::permanent(&address(order_id)).into_response();
    }
    match look_up(&state, typed(&text)).await {
        Ok(CurrentOrder { tracked, now }) => show(&tracked, &state, now),
        Err(response) => response,
    }
}

/// The same with a slash behind it.
pub(in crate::http) async fn track_slash(order_id: Result<Path<String>, PathRejection>) -> Response {
    let order_id = order_id.ok().and_then(|Path(text)| typed(&text));
    order_id.map_or_else(nowhere, |id| Redirect::permanent(&address(id)).into_response())
}

fn address(order_id: OrderId) -> String {
    format!("/track/{order_id}")
}

/// The id that is meant, if it is not written as it should be.
fn canonical(text: &str) -> Option<OrderId> {
    typed(text).filter(|order_id| order_id.to_string() != text)
}

/// The order, or the page that says why there is none to see.
async fn look_up(state: &AppState, order_id: Option<OrderId>) -> Result<CurrentOrder, Response> {
    let found = match order_id {
        Some(order_id) => state.tracker.find(order_id).await,
        None => Ok(Arc::default()),
    };
    match found {
        Ok(found) => Option::clone(&found).ok_or_else(unknown),
        Err(error) => Err(match Problem::from(error) {
            problem if problem.status == StatusCode::SERVICE_UNAVAILABLE => error_page(
                &problem,
                "One moment, please",
                "We can't look up your order right now. It is safe, and this page tries again by itself.",
                Refresh::Always,
            ),
            problem => error_page(
                &problem,
                "Something went wrong on our side",
                "Your order is safe. Please try again in a while.",
                Refresh::Never,
            ),
        }),
    }
}

fn unknown() -> Response {
    error_page(
        &Problem::not_found("no order has this id"),
        "We can't find this order",
        "Please check the link: every letter and digit of the order number counts. \
         If you have just ordered, use the link from your confirmation.",
        Refresh::Never,
    )
}

fn show(tracked: &TrackedOrder, state: &AppState, now: Timestamp) -> Response {
    let rules = &state.settings.rules;
    let (order, steps) = (&tracked.order, Steps::of(&tracked.events).standing);
    let open = matches!(state.settings.auth, Auth::Open);
    // Every reader of the feed knows every id, so an id proves nothing.
    let sight = if open { Sight::WHOLE } else { Sight::NOBODY };
    let told = TrackView::of(tracked, sight, rules, now);
    let undo = undo_ends(order, &steps, rules).filter(|ends| *ends > now);
    // A title has no `bdi`: the item is isolated by characters.
    let title = format!("{} · \u{2068}{}\u{2069}", told.title(), strip_bidi(&order.details.item));
    let frame = Frame {
        title: &title,
        icon: if told.is_slow() { assets::path("late.svg") } else { assets::picture(order.status) },
        style: "track.css",
        script: Some("track.js"),
        refresh: match undo {
            _ if !order.status.is_final() => Refresh::WithoutScript,
            Some(_) => Refresh::RarelyWithoutScript,
            None => Refresh::Never,
        },
        preview: Some(PREVIEW),
    };
    let seq = tracked.events.last().map_or(0, |last| last.seq);
    let delivered = order.status == Status::Delivered;
    let content = html! {
        header {
            p.brand { "Order Tracker" }
            p #mark hidden {}
        }
        main #content data-order=(order.order_id) data-seq=(seq) data-status=(order.status) data-final[order.status.is_final()] data-undo=[undo.map(|ends| ends.timestamp_millis())] data-delivered[delivered] data-now=(now.timestamp_millis()) data-late=[told.is_late().then_some("true")] data-news=(told.name()) {
            section.now {
                div.picture { img src=(assets::picture(order.status)) alt="" width="88" height="88"; }
                (told.show(tracked, rules, now))
            }
            ol.steps {
                @for event in &steps { (step(event, order, now)) }
                @for status in order.status.onwards() {
                    li { span.step { (status.words().label) } span.unseen { "still to come" } }
                }
            }
            (ordered(order, sight, open))
        }
        p #announcement.unseen role="status" {}
    };
    page(StatusCode::OK, &frame, &content)
}

/// Until when an order that is over may be taken back.
fn undo_ends(order: &Order, steps: &[&Event], rules: &Rules) -> Option<Timestamp> {
    let window = TimeDelta::from_std(rules.undo_window).ok()?;
    let last = steps.last().filter(|_| order.status.is_final())?;
    last.timestamp.checked_add_signed(window)
}

/// A step that was made: when, and who says so.
fn step(event: &Event, order: &Order, now: Timestamp) -> Markup {
    let Some(status) = event.event.status() else { return html! {} };
    let said = Said::of(event);
    let current = order.status == status;
    let what = html! {
        span.step { (status.words().label) }
        @if said.inferred {
            span.when { "passed by " (minute(event.timestamp, now, " UTC")) }
        } @else {
            span.when { (moment(event.timestamp, now)) }
            span.who { (words::who(said.source)) }
        }
    };
    html! {
        @if status == Status::Cancelled {
            li.off aria-current=[current.then_some("step")] { (what) }
        } @else {
            li.done[!current || status.is_final()] aria-current=[current.then_some("step")] { (what) }
        }
    }
}

/// The number of an order, and the part of it that people say.
fn number(order: &Order) -> (String, String) {
    let mut long = order.order_id.to_string();
    let short = long.split_off(long.len() - SHORT);
    (long, short)
}

/// What it is and whose; where keys are asked for, whoever has none may look only.
fn ordered(order: &Order, sight: Sight, open: bool) -> Markup {
    let details = &order.details;
    let (long, short) = number(order);
    html! {
        section.order {
            h2 { "Your order" }
            dl {
                div { dt { "Item" } dd { (quoted(&details.item)) ", " (details.size) } }
                @if sight.names { div { dt { "For" } dd { (quoted(&details.customer_name)) } } }
                @if sight.addresses { div { dt { "To" } dd { (quoted(&details.address)) } } }
                div { dt { "Number" } dd.number { (long) strong { (short) } } }
            }
            @if open && order.status == Status::FIRST {
                p.choice { a href={ (address(order.order_id)) "/cancel" } { "Cancel my order" } }
            }
        }
    }
}
