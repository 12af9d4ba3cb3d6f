//! `GET /track/{id}`: the customer's page.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    super::AppState, Frame, Problem, Refresh, assets, moment, name, nowhere, page, quoted, regret, still,
    typed,
};
use crate::order::{EventKind, Order, StageDelays, Status, Timestamp, TrackedOrder};

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
        Some(order_id) => state.reads.find(order_id).await,
        None => Ok(Arc::default()),
    };
    match found.as_deref() {
        Ok(Some(tracked)) => show(tracked, &state.delays, state.clock.now()),
        Ok(None) => regret(
            &Problem::not_found("no order has this id"),
            "We can't find this order",
            "Please check the link: every letter and digit of the order number counts. \
             If you have just ordered, use the link from your confirmation.",
            Refresh::Never,
        ),
        Err(error) => match Problem::from(error.clone()) {
            problem if problem.status == StatusCode::SERVICE_UNAVAILABLE => regret(
                &problem,
                "One moment, please",
                "We can't look up your order right now. It is safe, and this page tries again by itself.",
                Refresh::Always,
            ),
            problem => regret(
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
    let delivered = order.status == Status::Delivered;
    // A title has no `bdi`: the item is isolated by characters.
    let title = format!("{} · \u{2068}{}\u{2069}", name(order.status), still(&order.draft.item));
    let frame = Frame {
        title: &title,
        icon: assets::picture(order.status),
        style: "track.css",
        script: Some("track.js"),
        refresh: if delivered { Refresh::Never } else { Refresh::WithoutScript },
        preview: Some(PREVIEW),
    };
    let (headline, words) = words(order.status);
    let seq = EventKind::Reached(order.status).seq();
    let content = html! {
        header {
            p.brand { "Order Tracker" }
            p #mark hidden {}
        }
        main #content data-order=(order.order_id) data-seq=(seq) data-status=(order.status) data-now=(now.timestamp_millis()) {
            section.now {
                div.picture { img src=(frame.icon) alt="" width="88" height="88"; }
                h1 { (headline) }
                @if delivered {
                    p { "Enjoy your " (quoted(&order.draft.item)) ", " (quoted(&order.draft.customer_name)) "!" }
                } @else {
                    p { (words) }
                }
                (arrival(order, delays, now))
            }
            ol.steps { @for status in Status::ALL { (step(tracked, status, now)) } }
            (ordered(order))
        }
        p #announcement.unseen role="status" {}
    };
    page(StatusCode::OK, &frame, &content)
}

fn words(status: Status) -> (&'static str, &'static str) {
    match status {
        Status::Placed => ("We have your order", "The kitchen starts in a moment."),
        Status::Preparing => ("The kitchen is at work", "Your order is being prepared."),
        Status::Cooking => ("It is cooking", "Your order is in the pan or in the oven."),
        Status::OutForDelivery => ("On its way to you", "The courier has your order."),
        Status::Delivered => ("Delivered", ""),
    }
}

/// When it comes, or when it came.
fn arrival(order: &Order, delays: &StageDelays, now: Timestamp) -> Markup {
    let Some((soonest, latest)) = delays.arrival(order) else {
        return html! { p.arrival { span.label { "Arrived" } strong { (moment(order.updated_at, now)) } } };
    };
    html! {
        p.arrival {
            @if now > latest {
                span.label { "Taking longer than usual" }
                strong data-to=(latest.timestamp_millis()) { "We are on it" }
            } @else {
                span.label { "Arrives between" }
                strong { (moment(soonest, now)) " and " (moment(latest, now)) }
                span.left data-from=(soonest.timestamp_millis()) data-to=(latest.timestamp_millis()) {}
            }
        }
    }
}

fn step(tracked: &TrackedOrder, status: Status, now: Timestamp) -> Markup {
    let event = tracked.events.iter().find(|event| event.event == EventKind::Reached(status));
    let current = tracked.order.status == status;
    html! {
        li.done[event.is_some() && (!current || status == Status::Delivered)] aria-current=[current.then_some("step")] {
            span.step { (name(status)) }
            @match event {
                Some(event) => (moment(event.timestamp, now)),
                None => span.unseen { "still to come" },
            }
        }
    }
}

fn ordered(order: &Order) -> Markup {
    let draft = &order.draft;
    html! {
        section.order {
            h2 { "Your order" }
            dl {
                div { dt { "Item" } dd { (quoted(&draft.item)) ", " (draft.size) } }
                div { dt { "For" } dd { (quoted(&draft.customer_name)) } }
                div { dt { "To" } dd { (quoted(&draft.address)) } }
                div { dt { "Number" } dd.number { (order.order_id) } }
            }
        }
    }
}
