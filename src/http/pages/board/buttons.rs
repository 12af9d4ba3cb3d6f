//! What may be reported of an order, as buttons: forms that are usable without script.

use maud::{Markup, html};

use super::{
    super::{form::drawn, words},
    Board,
};
use crate::order::{EventKind, Reason, Status, Steps, TrackedOrder, allowed, ready_at};

/// By how many minutes an order is delayed at a tap.
const MINUTES: [u16; 3] = [5, 10, 20];

/// Everything that would be taken now.
pub(super) fn buttons(tracked: &TrackedOrder, board: &Board) -> Markup {
    // What ends it comes last, away from what is pressed all day.
    let ends = |event: &EventKind| *event == EventKind::Reached(Status::Cancelled);
    let mut allowed = allowed(tracked, board.caller.role(), &board.rules, board.now);
    allowed.sort_by_key(ends);
    let drawn = drawn();
    let sheet = Sheet { tracked, board, drawn: &drawn };
    let mut first = true;
    html! {
        @if !allowed.is_empty() {
            div.acts role="group" aria-label="Report" {
                @for event in allowed {
                    (sheet.button(event, std::mem::replace(&mut first, false)))
                }
            }
        }
    }
}

/// What each form of a sheet holds.
struct Sheet<'a> {
    tracked: &'a TrackedOrder,
    board: &'a Board,
    /// What the names of its forms begin with.
    drawn: &'a str,
}

impl Sheet<'_> {
    fn button(&self, event: EventKind, first: bool) -> Markup {
        match event {
            EventKind::Reached(Status::Cancelled) => self.cancel(event),
            EventKind::Delayed => html! { @for minutes in MINUTES { (self.delay(event, minutes)) } },
            EventKind::Reverted => self.undo(event),
            EventKind::Reached(_)
            | EventKind::Ready
            | EventKind::CourierAssigned
            | EventKind::CourierAtPickup
            | EventKind::CourierAtDoor
            | EventKind::DeliveryFailed => {
                let words = words::event(event);
                let main = html! { button.main { (words) } };
                let plain = html! { button { (words) } };
                self.form(event, "", &if first { main } else { plain })
            }
            // Nobody reports these.
            EventKind::Created | EventKind::Erased => html! {},
        }
    }

    fn delay(&self, event: EventKind, minutes: u16) -> Markup {
        let ready = ready_at(&self.tracked.events).is_some() && minutes == MINUTES[0];
        let content = html! {
            input type="hidden" name="minutes" value=(minutes);
            button { @if ready { "Not ready: " } "+" (minutes) " min" }
        };
        self.form(event, &format!("-{minutes}"), &content)
    }

    /// The button names what it takes back.
    fn undo(&self, event: EventKind) -> Markup {
        let Some(step) = Steps::of(&self.tracked.events).latest else { return html! {} };
        let content = html! {
            input type="hidden" name="reverts" value=(step.seq);
            button { "Undo: " (words::event(step.event).to_lowercase()) }
        };
        self.form(event, "", &content)
    }

    fn cancel(&self, event: EventKind) -> Markup {
        let role = self.board.caller.role();
        let may_say = |reason: &Reason| role.is_none_or(|role| role.may_report(event, Some(*reason)));
        let content = html! {
            label.unseen for="reason" { "Why it is cancelled" }
            select #reason name="reason" required {
                option value="" { "Why?" }
                @for reason in Reason::ALL.into_iter().filter(may_say) { option value=(reason) { (words::reason(reason)) } }
            }
            button { "Cancel the order" }
        };
        self.form(event, "", &content)
    }

    /// A form with what all of them say; each keeps its place and its focus while the board renews itself.
    fn form(&self, event: EventKind, variant: &str, content: &Markup) -> Markup {
        let Self { tracked, board, drawn } = self;
        let seq = tracked.events.last().map_or(0, |last| last.seq);
        html! {
            form id={ "act-" (event) (variant) } action="/report" method="post" {
                input type="hidden" name="order" value=(tracked.order.order_id);
                input type="hidden" name="seq" value=(seq);
                input type="hidden" name="id" value={ (drawn) "-" (event) (variant) };
                input type="hidden" name="event" value=(event);
                @if let Some(status) = board.choice.status { input type="hidden" name="status" value=(status); }
                @if let Some(before) = board.choice.before { input type="hidden" name="before" value=(before); }
                (content)
            }
        }
    }
}
