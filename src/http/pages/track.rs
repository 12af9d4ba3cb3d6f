//! `GET /track/{id}`: the customer's page.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use chrono::TimeDelta;
use maud::{Markup, html};

use super::{
    super::AppState, Frame, Problem, Refresh, assets, error_page, moment, nowhere, page, quoted, strip_bidi,
    typed,
};
use crate::order::{Estimate, EventKind, Order, StageDelays, Status, Timestamp, TrackedOrder};

/// What is said of an order that will not be there when it was said to.
const LATE: &str = "Later than expected";
const HALF_AN_HOUR: TimeDelta = TimeDelta::minutes(30);
/// What a chat shows of the page: nothing of the order or of who waits for it.
const PREVIEW: (&str, &str) = ("Where your order is", "Follow it from the kitchen to your door.");

/// Where an order is, for the one who waits for it. Who knows the id may look.
pub(in crate::http) async fn track(
    State(state): State<Arc<AppState>>,
    order_id: Result<Path<String>, PathRejection>,
) -> Response {
    let text = order_id.map(|Path(text)| text).unwrap_or_default();
    let order_id = typed(&text);
    if let Some(order_id) = order_id.filter(|order_id| order_id.to_string() != text) {
        return Redirect::permanent(&format!("/track/{order_id}")).into_response();
    }
    let found = match order_id {
        Some(order_id) => state.tracker.find(order_id).await,
        None => Ok(Arc::default()),
    };
    match found.as_deref() {
        Ok(Some(tracked)) => show(tracked, &state.settings.rules.delays, state.settings.clock.now()),
        Ok(None) => error_page(
            &Problem::not_found("no order has this id"),
            "We can't find this order",
            "Please check the link: every letter and digit of the order number counts. \
             If you have just ordered, use the link from your confirmation.",
            Refresh::Never,
        ),
        Err(error) => match Problem::from(error.clone()) {
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
        },
    }
}

/// The same with a slash behind it.
pub(in crate::http) async fn track_slash(order_id: Result<Path<String>, PathRejection>) -> Response {
    let order_id = order_id.ok().and_then(|Path(text)| typed(&text));
    order_id.map_or_else(nowhere, |id| Redirect::permanent(&format!("/track/{id}")).into_response())
}

fn show(tracked: &TrackedOrder, delays: &StageDelays, now: Timestamp) -> Response {
    let order = &tracked.order;
    let (words, delivered) = (order.status.words(), order.status == Status::Delivered);
    let estimate = delays.estimate(order, now);
    let late = estimate.is_some_and(|estimate| estimate.missed.is_some());
    // A title has no `bdi`: the item is isolated by characters.
    let state = if late { LATE } else { words.label };
    let title = format!("{state} · \u{2068}{}\u{2069}", strip_bidi(&order.details.item));
    let frame = Frame {
        title: &title,
        icon: assets::picture(order.status),
        style: "track.css",
        script: Some("track.js"),
        refresh: if order.status.is_final() { Refresh::Never } else { Refresh::WithoutScript },
        preview: Some(PREVIEW),
    };
    let seq = tracked.events.last().map_or(0, |last| last.seq);
    let content = html! {
        header {
            p.brand { "Order Tracker" }
            p #mark hidden {}
        }
        main #content data-order=(order.order_id) data-seq=(seq) data-status=(order.status) data-final[order.status.is_final()] data-delivered[delivered] data-now=(now.timestamp_millis()) data-late=[late.then_some("true")] {
            section.now {
                div.picture { img src=(frame.icon) alt="" width="88" height="88"; }
                h1 { (words.headline) }
                @if delivered {
                    p { "Enjoy your " (quoted(&order.details.item)) ", " (quoted(&order.details.customer_name)) "!" }
                } @else if late {
                    p { "It takes longer than we said." }
                } @else if let Some(sentence) = words.sentence {
                    p { (sentence) }
                }
                (eta(order, estimate, now))
            }
            ol.steps { @for status in steps(tracked) { (step(tracked, status, now)) } }
            (ordered(order))
        }
        p #announcement.unseen role="status" {}
    };
    page(StatusCode::OK, &frame, &content)
}

/// What an order has gone through, and what is still to come unless something comes between.
fn steps(tracked: &TrackedOrder) -> Vec<Status> {
    let reached = tracked.events.iter().filter_map(|event| event.event.status());
    reached.chain(tracked.order.status.onwards()).collect()
}

/// When it comes, or when it came.
fn eta(order: &Order, estimate: Option<Estimate>, now: Timestamp) -> Markup {
    let Some(Estimate { from, by, promise_ends, missed }) = estimate else {
        return html! {
            @if order.status == Status::Delivered {
                p.arrival { span.label { "Arrived" } strong { (moment(order.updated_at, now)) } }
            }
        };
    };
    // From half an hour on, minutes would promise too much.
    let step = if from - now > HALF_AN_HOUR { 5 } else { 1 };
    let first = whole_minutes(from, step, false);
    let last = whole_minutes(by, step, true).max(first + TimeDelta::minutes(step));
    let said = missed.map(|said| whole_minutes(said, 1, true)).filter(|said| *said < last);
    html! {
        p.arrival data-until=(promise_ends.timestamp_millis()) {
            span.label { @if missed.is_some() { (LATE) ", now between" } @else { "Arrives between" } }
            strong.between { (minute(first, now, "")) " and " (minute(last, now, " UTC")) }
            span.left data-from=(from.timestamp_millis()) data-to=(by.timestamp_millis()) {}
            @if let Some(said) = said { span.said { "We had said by " (minute(said, now, " UTC")) "." } }
        }
    }
}

/// A moment at one of every `step` minutes, which are the same in all time zones.
fn whole_minutes(at: Timestamp, step: i64, up: bool) -> Timestamp {
    let length = step * 60_000;
    let over = at.timestamp_millis().rem_euclid(length);
    at + TimeDelta::milliseconds(if up && over > 0 { length - over } else { -over })
}

/// A moment to the minute; the script puts the reader's own zone in its place.
fn minute(at: Timestamp, now: Timestamp, zone: &str) -> Markup {
    let form = if at.date_naive() == now.date_naive() { "%H:%M" } else { "%-d %b %Y, %H:%M" };
    html! { time.minute datetime=(at.format("%Y-%m-%dT%H:%M:%SZ")) { (at.format(form)) (zone) } }
}

fn step(tracked: &TrackedOrder, status: Status, now: Timestamp) -> Markup {
    let event = tracked.events.iter().find(|event| event.event == EventKind::Reached(status));
    let current = tracked.order.status == status;
    html! {
        li.done[event.is_some() && (!current || status.is_final())] aria-current=[current.then_some("step")] {
            span.step { (status.words().label) }
            @match event {
                Some(event) => (moment(event.timestamp, now)),
                None => span.unseen { "still to come" },
            }
        }
    }
}

fn ordered(order: &Order) -> Markup {
    let details = &order.details;
    html! {
        section.order {
            h2 { "Your order" }
            dl {
                div { dt { "Item" } dd { (quoted(&details.item)) ", " (details.size) } }
                div { dt { "For" } dd { (quoted(&details.customer_name)) } }
                div { dt { "To" } dd { (quoted(&details.address)) } }
                div { dt { "Number" } dd.number { (order.order_id) } }
            }
        }
    }
}
