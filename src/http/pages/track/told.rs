//! What a customer is told first: how things are, who says so, and what that means.

use maud::{Markup, html};

use super::{
    super::{
        quoted,
        said::{Said, cancelled, news},
        words,
    },
    arrival::{Label, arrived, expected, minute},
    number,
};
use crate::order::{Estimate, Event, EventKind, Reason, Rules, Sight, Status, Timestamp, TrackedOrder};

/// What is said of an order that will not be there when it was said to.
pub(super) const LATE: &str = "Later than expected";
const LONGER: &str = "It takes a bit longer";

/// What is to be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrackView<'a> {
    status: Status,
    /// The event that tells best how things are.
    news: Option<&'a Event>,
    estimate: Option<Estimate>,
    /// Whether people move it: then somebody should have spoken.
    by_people: bool,
    /// What is shown of who ordered.
    sight: Sight,
}

impl<'a> TrackView<'a> {
    pub(super) fn of(tracked: &'a TrackedOrder, sight: Sight, rules: &Rules, now: Timestamp) -> Self {
        let order = &tracked.order;
        Self {
            status: order.status,
            news: news(&tracked.events),
            estimate: rules.delays.estimate(order, now),
            by_people: order.expected_at.is_some(),
            sight,
        }
    }

    /// Whether what was said can't be kept, and nobody has said so.
    pub(super) fn is_late(&self) -> bool {
        self.estimate.is_some_and(|estimate| estimate.missed.is_some())
    }

    fn kind(&self) -> EventKind {
        self.news.map_or(EventKind::Created, |news| news.event)
    }

    /// Whether somebody has said that it takes longer.
    fn is_delayed(&self) -> bool {
        self.estimate.is_some() && self.kind() == EventKind::Delayed
    }

    /// Whether it comes later than was first said.
    pub(super) fn is_slow(&self) -> bool {
        self.is_late() || self.is_delayed()
    }

    /// What the tab says.
    pub(super) fn title(&self) -> &'static str {
        match self.kind() {
            _ if self.is_late() => LATE,
            _ if self.status.is_final() => self.status.words().label,
            EventKind::Delayed => LONGER,
            EventKind::CourierAtDoor => "At your door",
            EventKind::DeliveryFailed => "Nobody there",
            EventKind::Created
            | EventKind::Reached(_)
            | EventKind::Ready
            | EventKind::CourierAssigned
            | EventKind::CourierAtPickup
            | EventKind::Reverted
            | EventKind::Erased => self.status.words().label,
        }
    }

    /// Another one means that there is something new to tell.
    pub(super) fn name(&self) -> String {
        let seq = self.news.map_or(0, |news| news.seq);
        format!("{seq}{}", if self.is_late() { "-late" } else { "" })
    }

    /// What stands in large letters, and below; what a screen reader is told when it changes is marked.
    pub(super) fn show(&self, tracked: &TrackedOrder, rules: &Rules, now: Timestamp) -> Markup {
        let order = &tracked.order;
        match self.status {
            Status::Delivered => html! {
                h1 data-said { (self.status.words().headline) }
                p {
                    "Enjoy your " (quoted(&order.details.item))
                    @if self.sight.names { ", " (quoted(&order.details.customer_name)) }
                    "!"
                }
                (arrived(order, now))
            },
            Status::Cancelled => self.called_off(tracked, now),
            Status::Placed | Status::Preparing | Status::Cooking | Status::OutForDelivery => {
                self.under_way(tracked, rules, now)
            }
        }
    }

    fn called_off(&self, tracked: &TrackedOrder, now: Timestamp) -> Markup {
        let said = cancelled(&tracked.events);
        let why = said.map(|said| words::cancelled(said.reason.unwrap_or(Reason::Other), said.source));
        let (_, short) = number(&tracked.order);
        html! {
            h1 data-said { (self.status.words().headline) }
            @if let Some(why) = why { p data-said { (why) } }
            @if let Some(said) = said { p.who { (words::who(said.source)) ", " (minute(tracked.order.updated_at, now, " UTC")) } }
            div.next {
                h2 { "What happens now" }
                p { "Nothing will come, no need to wait." }
                p { "The shop you ordered from can tell you about your payment. Your number: " strong.number { (short) } }
            }
        }
    }

    fn under_way(&self, tracked: &TrackedOrder, rules: &Rules, now: Timestamp) -> Markup {
        let sentence = self.sentence(tracked, now);
        let delayed = self.is_delayed();
        let label = match self.is_late() {
            true if !self.by_people => Label::Late,
            late if late || delayed => Label::NowExpected,
            _ => Label::Arrives,
        };
        let headline = if delayed && !self.is_late() { LONGER } else { self.status.words().headline };
        // The headline is news of its own, unless a sentence is.
        let news = label == Label::Arrives && self.is_news_itself();
        let headline_said = !news && label != Label::Late && !(self.is_late() && self.by_people);
        let sentence_said = news || self.is_late() && self.by_people;
        html! {
            h1 data-said[headline_said] { (headline) }
            @if let Some(sentence) = sentence { p data-said[sentence_said] { (sentence) } }
            @if let Some(estimate) = self.estimate { (expected(tracked, &rules.delays, estimate, label, now)) }
            @if let Some(event) = self.news.filter(|_| delayed) {
                p.who { (words::who(Said::of(event).source)) ", " (minute(event.timestamp, now, " UTC")) }
            }
        }
    }

    /// Whether the sentence says what is new, and not the headline.
    fn is_news_itself(&self) -> bool {
        match self.kind() {
            EventKind::Ready
            | EventKind::CourierAssigned
            | EventKind::CourierAtPickup
            | EventKind::CourierAtDoor
            | EventKind::DeliveryFailed
            | EventKind::Reverted => true,
            EventKind::Created | EventKind::Reached(_) | EventKind::Delayed | EventKind::Erased => false,
        }
    }

    fn sentence(&self, tracked: &TrackedOrder, now: Timestamp) -> Option<Markup> {
        let at = || self.news.map(|news| minute(news.timestamp, now, " UTC"));
        let said = self.news.map(Said::of);
        Some(match self.kind() {
            EventKind::CourierAtDoor => html! { "The courier is at your door, " (at()?) "." },
            EventKind::DeliveryFailed => html! { "The courier could not reach you, " (at()?) "." },
            _ if self.is_late() => self.why_late(tracked, now),
            EventKind::Reverted => {
                html! { "Back on: " (words::who(said?.source)) " took that back, " (at()?) "." }
            }
            EventKind::Delayed => html! { (words::delayed(said?.reason)) },
            EventKind::Ready => html! { "It is ready and waits for the courier." },
            EventKind::CourierAssigned => html! { "A courier will fetch it." },
            EventKind::CourierAtPickup => html! { "The courier is there to fetch it." },
            EventKind::Created | EventKind::Reached(_) | EventKind::Erased => {
                html! { (self.status.words().sentence?) }
            }
        })
    }

    fn why_late(&self, tracked: &TrackedOrder, now: Timestamp) -> Markup {
        let last = tracked.events.iter().rev().find(|event| event.event != EventKind::Erased);
        let Some(last) = last.filter(|_| self.by_people) else {
            return html! { "It takes longer than we said." };
        };
        html! {
            (LATE) ". We have no word from " (words::silent(self.status)) " since " (minute(last.timestamp, now, " UTC")) "."
        }
    }
}

/// Since when an order is not only placed any more, if somebody has said so.
pub(super) fn begun_at(steps: &[&Event]) -> Option<Timestamp> {
    steps.get(1).filter(|step| !Said::of(step).inferred).map(|step| step.timestamp)
}
