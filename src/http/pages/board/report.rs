//! `POST /report`: what the buttons of an order's sheet do.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        super::AppState,
        Frame, Problem, Refresh, assets, error_page,
        form::{NOTHING_DONE, read},
        page,
        said::Said,
        typed, words,
    },
    Answer, Choice,
    sheet::told,
};
use crate::{
    keys::Caller,
    order::{
        Event, EventKind, OrderId, Report, ReportRequest, Source, Status, Steps, Timestamp, TrackedOrder,
    },
    tracker::{CurrentOrder, OrderReport, ReportOutcome},
};

/// What a button sends; what a browser leaves out is not said.
#[derive(Debug, Default, Deserialize)]
struct ReportForm {
    order: Option<String>,
    event: Option<String>,
    id: Option<String>,
    seq: Option<u32>,
    reason: Option<String>,
    minutes: Option<String>,
    reverts: Option<String>,
    /// Which orders the board shows beside it.
    status: Option<String>,
    before: Option<String>,
}

/// Reports what a button says, and shows the order again.
pub(in crate::http) async fn report(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let form: ReportForm = match read(request, "the board").await {
        Ok(form) => form,
        Err(response) => return response,
    };
    let Some(order_id) = form.order.as_deref().and_then(typed) else { return unknown() };
    let sheet = form.sheet(order_id);
    let now = state.settings.clock.now();
    let report = match form.report(&caller, now) {
        Ok(report) => report,
        Err(words) => return refused(StatusCode::BAD_REQUEST, &html! { (words) }, &sheet),
    };
    if !report.is_for_its_role() {
        return refused(StatusCode::FORBIDDEN, &html! { (words::NOT_FOR_ROLE) "." }, &sheet);
    }
    let (event, reverts) = (report.event, report.reverts);
    // A step says by itself what it means, so that a second tap finds it done. What adds up must not happen twice.
    let adds_up = !matches!(event, EventKind::Reached(to) if to != Status::Cancelled);
    let if_match = adds_up.then(|| form.seq.into_iter().collect());
    let answer = state.tracker.report(vec![OrderReport { order_id, report, if_match }]).await;
    let answer = answer.ok().and_then(|mut answers| answers.pop()).and_then(Result::ok);
    let Some(outcome) = answer.map(|reported| reported.outcome) else { return away() };
    match outcome {
        ReportOutcome::Applied(events, _) => back(&sheet, done(order_id, &events)),
        // Pressed twice; or again, after it was taken back.
        ReportOutcome::Replayed(events, _) => match find(&state, order_id).await {
            Ok(CurrentOrder { tracked, .. }) if stands(&tracked, &events) => {
                back(&sheet, done(order_id, &events))
            }
            Ok(_) => why_not(&state, order_id, words::TAKEN_BACK, &sheet).await,
            Err(response) => response,
        },
        ReportOutcome::Ignored(_) => match find(&state, order_id).await {
            Ok(CurrentOrder { tracked, .. }) => {
                let seq = was_there(&tracked, event, reverts).map_or(0, |event| event.seq);
                back(&sheet, Answer { order_id, seq, already: true })
            }
            Err(response) => response,
        },
        ReportOutcome::Refused(conflict) => {
            why_not(&state, order_id, words::conflict(conflict), &sheet).await
        }
        ReportOutcome::Moved => why_not(&state, order_id, words::CHANGED, &sheet).await,
        ReportOutcome::IdReused => why_not(&state, order_id, words::USED, &sheet).await,
        ReportOutcome::NotForRole => why_not(&state, order_id, words::NOT_FOR_ROLE, &sheet).await,
        ReportOutcome::Unknown => unknown(),
        ReportOutcome::Contended | ReportOutcome::Odd(_) => away(),
    }
}

impl ReportForm {
    /// What it reports; else what is wrong with it, in words.
    fn report(&self, caller: &Caller, now: Timestamp) -> Result<Report, String> {
        let number = |text: &Option<String>| -> Option<Value> {
            let text = text.as_deref()?;
            Some(text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)))
        };
        // A choice that was not made is none.
        let reason = self.reason.as_deref().filter(|reason| !reason.is_empty());
        let mut said = json!({"source": Source::Staff});
        for (name, value) in [
            ("event", self.event.as_deref().map(|event| json!(event))),
            ("id", self.id.as_deref().map(|id| json!(id))),
            ("reason", reason.map(|reason| json!(reason))),
            ("minutes", number(&self.minutes)),
            ("reverts", number(&self.reverts)),
        ] {
            if let Some(value) = value {
                said[name] = value;
            }
        }
        let request = ReportRequest::from_value(said).map_err(|error| error.to_string())?;
        request.check(caller.reporter().as_ref(), now).map_err(|errors| format!("Please check: {errors}."))
    }

    /// The board with this order open.
    fn sheet(&self, order_id: OrderId) -> Choice {
        Choice {
            status: self.status.as_deref().and_then(|status| status.parse().ok()),
            before: self.before.as_deref().and_then(|before| before.parse().ok()),
            search: order_id.to_string(),
            answer: None,
        }
    }
}

fn done(order_id: OrderId, events: &[Event]) -> Answer {
    Answer { order_id, seq: events.last().map_or(0, |last| last.seq), already: false }
}

/// Whether a step that was reported has not been taken back since.
fn stands(tracked: &TrackedOrder, events: &[Event]) -> bool {
    let step = events.last().filter(|last| last.event.status().is_some());
    step.is_none_or(|step| {
        Steps::of(&tracked.events).standing.iter().any(|standing| standing.seq == step.seq)
    })
}

/// The event that made a report needless.
fn was_there(tracked: &TrackedOrder, event: EventKind, reverts: Option<u32>) -> Option<&Event> {
    let taken_back = |event: &&Event| Said::of(event).reverts == reverts.map(u64::from);
    let found = match event {
        EventKind::Reverted => tracked.events.iter().find(taken_back),
        _ => Steps::of(&tracked.events).standing.into_iter().find(|step| step.event == event),
    };
    found.or(tracked.events.last())
}

fn back(sheet: &Choice, answer: Answer) -> Response {
    let address = sheet.with_order(answer.order_id);
    Redirect::to(&format!("{address}&{}", answer.parameter())).into_response()
}

async fn find(state: &AppState, order_id: OrderId) -> Result<CurrentOrder, Response> {
    let found = state.tracker.find(order_id).await.map_err(|_| away())?;
    Option::clone(&found).ok_or_else(unknown)
}

/// Says why not, and what happened last: mostly that is why.
async fn why_not(state: &AppState, order_id: OrderId, why: &str, sheet: &Choice) -> Response {
    let CurrentOrder { tracked, now } = match find(state, order_id).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let last = tracked.events.last().map(|last| told(last, &tracked, now));
    let words = html! { (why) "." @if let Some(last) = last { " The latest: " (last) "." } };
    refused(StatusCode::CONFLICT, &words, sheet)
}

/// A page that says why nothing was done, with the way back.
fn refused(status: StatusCode, words: &Markup, sheet: &Choice) -> Response {
    let icon = assets::path("lost.svg");
    let script = Some("page.js");
    let frame = Frame {
        title: NOTHING_DONE,
        icon,
        style: "track.css",
        script,
        refresh: Refresh::Never,
        preview: None,
    };
    let content = html! {
        main #content {
            section.now {
                img src=(frame.icon) alt="" width="88" height="88";
                h1 { (NOTHING_DONE) }
                p { (words) }
                p.choice { a href=(Choice::address(sheet.status, sheet.before, &sheet.search)) { "Back to the order" } }
            }
        }
    };
    page(status, &frame, &content)
}

fn unknown() -> Response {
    let problem = Problem::not_found("no order has this id");
    error_page(&problem, "No such order", "Nothing is stored under this number.", Refresh::Never)
}

fn away() -> Response {
    error_page(
        &Problem::unavailable("the report was not taken"),
        "Not known",
        "We can't say whether it was taken. Go back and press the button again: nothing happens twice.",
        Refresh::Never,
    )
}
