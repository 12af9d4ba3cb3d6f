//! `/track/{id}/cancel`: a customer calls an order off, as long as nobody has begun with it.

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::{
    super::{
        super::AppState,
        Frame, Problem, Refresh, assets, error_page,
        form::{NOTHING_DONE, drawn, read, with_origin},
        page, typed,
    },
    address,
    arrival::minute,
    canonical, look_up,
    told::begun_at,
    unknown,
};
use crate::{
    keys::Auth,
    order::{EventKind, Reason, Report, ReportRequest, Source, Status, Steps, Timestamp, TrackedOrder},
    tracker::{CurrentOrder, OrderReport, ReportOutcome},
};

/// The form below.
#[derive(Debug, Deserialize)]
struct CancelForm {
    /// Its name: sent twice, it is done once.
    id: String,
    /// The position that it was drawn from.
    seq: u32,
}

/// Asks whether it is meant.
pub(in crate::http) async fn ask(
    State(state): State<Arc<AppState>>,
    order_id: Result<Path<String>, PathRejection>,
) -> Response {
    if matches!(state.settings.auth, Auth::Keys(_)) {
        return keys_needed();
    }
    let text = order_id.map(|Path(text)| text).unwrap_or_default();
    if let Some(order_id) = canonical(&text) {
        return Redirect::permanent(&format!("{}/cancel", address(order_id))).into_response();
    }
    match look_up(&state, typed(&text)).await {
        Ok(CurrentOrder { tracked, now }) => question(StatusCode::OK, &tracked, now),
        Err(response) => response,
    }
}

/// Does it, if the order is still as it was when the form was drawn.
pub(in crate::http) async fn cancel(
    State(state): State<Arc<AppState>>,
    order_id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    if matches!(state.settings.auth, Auth::Keys(_)) {
        return keys_needed();
    }
    let form: CancelForm = match read(request, "your order's page").await {
        Ok(form) => form,
        Err(response) => return response,
    };
    let order_id = order_id.ok().and_then(|Path(text)| typed(&text));
    let CurrentOrder { tracked, now } = match look_up(&state, order_id).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let seq = tracked.events.last().map_or(0, |last| last.seq);
    // The position alone would not do: a form can be made by hand.
    if tracked.order.status != Status::FIRST || form.seq != seq {
        return question(StatusCode::CONFLICT, &tracked, now);
    }
    let Some(report) = report(&form, now) else {
        let words = "Please use the button on your order's page.";
        return error_page(
            &Problem::malformed("the form has no such id"),
            NOTHING_DONE,
            words,
            Refresh::Never,
        );
    };
    let order_id = tracked.order.order_id;
    let report = OrderReport { order_id, report, if_match: Some(vec![seq]) };
    let answer = state.tracker.report(vec![report]).await.ok().and_then(|mut answers| answers.pop());
    let outcome = answer.and_then(Result::ok).map(|reported| reported.outcome);
    match outcome {
        Some(ReportOutcome::Applied(..) | ReportOutcome::Ignored(_)) => {
            Redirect::to(&address(order_id)).into_response()
        }
        Some(
            ReportOutcome::Replayed(..)
            | ReportOutcome::Refused(_)
            | ReportOutcome::Moved
            | ReportOutcome::NotForRole
            | ReportOutcome::IdReused,
        ) => match look_up(&state, Some(order_id)).await {
            // Pressed twice.
            Ok(found) if found.tracked.order.status == Status::Cancelled => {
                Redirect::to(&address(order_id)).into_response()
            }
            Ok(CurrentOrder { tracked, now }) => question(StatusCode::CONFLICT, &tracked, now),
            Err(response) => response,
        },
        Some(ReportOutcome::Unknown) => unknown(),
        Some(ReportOutcome::Contended | ReportOutcome::Odd(_)) | None => error_page(
            &Problem::unavailable("the report was not taken"),
            "One moment, please",
            "We can't say whether your order was cancelled. Go back and look at it, then try again.",
            Refresh::Never,
        ),
    }
}

/// Nobody can say here that he is the customer.
fn keys_needed() -> Response {
    let words = "It can't be cancelled on this page. Please call the shop.";
    error_page(&Problem::keys_needed(), NOTHING_DONE, words, Refresh::Never)
}

/// What is reported; nothing, if the form is not one of ours.
fn report(form: &CancelForm, now: Timestamp) -> Option<Report> {
    let cancelled = EventKind::Reached(Status::Cancelled);
    let said = json!({
        "event": cancelled, "id": form.id, "source": Source::Customer, "reason": Reason::CustomerRequest,
    });
    ReportRequest::from_value(said).ok()?.check(None, now).ok()
}

/// What may be asked of an order in its status, or why nothing may. An order that is cancelled tells that itself.
fn question(status: StatusCode, tracked: &TrackedOrder, now: Timestamp) -> Response {
    let order = &tracked.order;
    let home = address(order.order_id);
    let (title, content) = match order.status {
        Status::Cancelled => return Redirect::to(&home).into_response(),
        Status::Placed => ("Cancel my order", sure(tracked, &home, status == StatusCode::CONFLICT)),
        Status::Preparing | Status::Cooking | Status::OutForDelivery | Status::Delivered => {
            ("It can't be cancelled here", too_late(tracked, &home, now))
        }
    };
    let frame = Frame {
        title,
        icon: assets::picture(order.status),
        style: "track.css",
        // It puts the times into the reader's own zone.
        script: Some("page.js"),
        refresh: Refresh::Never,
        preview: None,
    };
    let content = html! {
        main #content data-now=(now.timestamp_millis()) {
            section.now {
                img src=(frame.icon) alt="" width="88" height="88";
                h1 { (title) }
                (content)
            }
        }
    };
    with_origin(page(status, &frame, &content))
}

fn sure(tracked: &TrackedOrder, home: &str, again: bool) -> Markup {
    let seq = tracked.events.last().map_or(0, |last| last.seq);
    html! {
        @if again { p { "Your order has changed while you looked, and nothing was done." } }
        p { "Cancel it? The kitchen has not started." }
        form.choice action={ (home) "/cancel" } method="post" {
            input type="hidden" name="id" value=(drawn());
            input type="hidden" name="seq" value=(seq);
            button { "Yes, cancel it" }
        }
        p.choice { a href=(home) { "No, keep it" } }
    }
}

fn too_late(tracked: &TrackedOrder, home: &str, now: Timestamp) -> Markup {
    let begun = begun_at(&Steps::of(&tracked.events).standing);
    html! {
        p {
            @if tracked.order.status == Status::Delivered { "It was delivered" }
            @else if let Some(begun) = begun { "The kitchen started at " (minute(begun, now, " UTC")) }
            @else { "The kitchen has started" }
            ", so it can't be cancelled here. Please call the shop."
        }
        p.choice { a href=(home) { "Back to your order" } }
    }
}
