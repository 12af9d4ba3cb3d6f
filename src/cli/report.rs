//! `order report` and `order cancel`: tells a running service what happened to an order.

use std::fmt::Write as _;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    clean,
    client::{Client, ClientArgs},
    event_line::line,
    output::{self, Refused},
    values::{order_id, reasons, report_kinds, sources},
};
use crate::{
    app::config::whole,
    client::{Answer, ClientRequest, header::HeaderName},
    order::{
        Event, EventKind, MAX_MINUTES, MAX_POSITION, OrderId, Reason, Source, Status, Steps, TrackedOrder,
    },
};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The order's id, ORD-...
    #[arg(value_parser = order_id)]
    order_id: OrderId,
    /// What happened
    #[arg(value_parser = report_kinds(), ignore_case = true)]
    event: EventKind,
    /// Why: a cancel needs one, a delay and a failed delivery may have one
    #[arg(long, value_parser = reasons(), ignore_case = true)]
    reason: Option<Reason>,
    /// By how many minutes it is DELAYED
    #[arg(long, value_name = "N", value_parser = whole(1..=MAX_MINUTES))]
    minutes: Option<u16>,
    /// Where in the kitchen
    #[arg(long, value_name = "NAME")]
    station: Option<String>,
    /// Which event REVERTED takes back, by its number in the timeline; the latest step unless given
    #[arg(long, value_name = "N", value_parser = whole(1..=MAX_POSITION))]
    reverts: Option<u32>,
    #[command(flatten)]
    details: DetailArgs,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    /// The order's id, ORD-...
    #[arg(value_parser = order_id)]
    order_id: OrderId,
    /// Why
    #[arg(long, value_parser = reasons(), ignore_case = true)]
    reason: Reason,
    #[command(flatten)]
    details: DetailArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What may be said of whatever is reported.
#[derive(Debug, Args)]
struct DetailArgs {
    /// What else there is to say, for those who work on the order
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Who says so
    #[arg(long, value_parser = sources(), ignore_case = true)]
    source: Option<Source>,
    /// When it happened, such as 2026-01-31T18:30:00Z; now unless given
    #[arg(long, value_name = "TIME")]
    occurred_at: Option<String>,
    /// Your name for this report: the same one again changes nothing; made up unless given
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// What is shown of an answer: a newer service may say more, with words that are not known here.
#[derive(Deserialize)]
struct ReportAnswer {
    outcome: String,
    why: Option<String>,
    #[serde(default)]
    events: Vec<Event>,
    order: Where,
    #[serde(default)]
    allowed: Vec<String>,
}

#[derive(Deserialize)]
struct Where {
    status: String,
}

/// A report on its way.
struct Sender {
    client: Client,
    order_id: OrderId,
    event: EventKind,
    body: Map<String, Value>,
    /// Whether the id is one that was typed.
    named: bool,
}

pub(super) async fn report(args: ReportArgs) -> anyhow::Result<()> {
    let ReportArgs { order_id, event, reason, minutes, station, reverts, details, client } = args;
    let mut body = details.body(event);
    let mut say = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
    say("reason", reason.map(|reason| json!(reason)));
    say("minutes", minutes.map(|minutes| json!(minutes)));
    say("station", station.map(|station| json!(station)));
    say("reverts", reverts.map(|reverts| json!(reverts)));
    let sender =
        Sender { client: Client::new(client.url)?, order_id, event, body, named: details.id.is_some() };
    let answer = if event == EventKind::Reverted && reverts.is_none() {
        sender.take_back().await?
    } else {
        sender.send().await?
    };
    sender.tell(&answer, client.json)
}

pub(super) async fn cancel(args: CancelArgs) -> anyhow::Result<()> {
    let CancelArgs { order_id, reason, details, client } = args;
    let event = EventKind::Reached(Status::Cancelled);
    let mut body = details.body(event);
    body.insert("reason".to_owned(), json!(reason));
    let sender =
        Sender { client: Client::new(client.url)?, order_id, event, body, named: details.id.is_some() };
    let answer = sender.send().await?;
    sender.tell(&answer, client.json)
}

impl DetailArgs {
    fn body(&self, event: EventKind) -> Map<String, Value> {
        // An answer may be lost, and what is sent again must not happen twice.
        let id = self.id.clone().unwrap_or_else(|| format!("cli-{:032x}", rand::random::<u128>()));
        let mut body = Map::new();
        body.insert("event".to_owned(), json!(event));
        body.insert("id".to_owned(), json!(id));
        let said = [("note", &self.note), ("occurred_at", &self.occurred_at)]
            .map(|(name, text)| (name, text.clone()));
        body.extend(said.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text?)))));
        body.extend(self.source.map(|source| ("source".to_owned(), json!(source))));
        body
    }
}

impl Sender {
    async fn send(&self) -> anyhow::Result<Answer> {
        self.send_body(&self.body).await
    }

    async fn send_body(&self, body: &Map<String, Value>) -> anyhow::Result<Answer> {
        let json = serde_json::to_vec(body)?;
        let path = format!("/orders/{}/events", self.order_id);
        self.client.send(ClientRequest::post(path, json).repeatable()).await
    }

    /// Names the step that is taken back, so that nobody's later one is.
    async fn take_back(&self) -> anyhow::Result<Answer> {
        let tracked: TrackedOrder =
            self.client.ask(ClientRequest::get(format!("/orders/{}", self.order_id))).await?;
        let steps = Steps::of(&tracked.events);
        let with = |seq: Option<u32>| {
            let mut body = self.body.clone();
            body.extend(seq.map(|seq| ("reverts".to_owned(), json!(seq))));
            body
        };
        let outcome = self.send_body(&with(steps.latest.map(|step| step.seq))).await;
        let reused = outcome.as_ref().is_err_and(|error| is(error, "report-id-reused"));
        match steps.taken_back.last().filter(|_| reused && self.named) {
            // The id of the last undo, sent again: that one had another step before it.
            Some(seq) => self.send_body(&with(Some(*seq))).await,
            None => outcome,
        }
    }

    fn tell(&self, answer: &Answer, json: bool) -> anyhow::Result<()> {
        if json {
            return output::print_json(&self.client.read::<Value>(answer)?);
        }
        let told: ReportAnswer = self.client.read(answer)?;
        let again = self.named && answer.headers.contains_key(REPLAYED);
        output::print(sentences(self.order_id, self.event, &told, again).trim_end())
    }
}

fn is(error: &anyhow::Error, code: &str) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.problem["code"] == code)
}

/// What became of it, for people.
fn sentences(order_id: OrderId, event: EventKind, told: &ReportAnswer, again: bool) -> String {
    let status = clean::line(&told.order.status);
    if told.outcome == "ignored" {
        let so = match told.why.as_deref() {
            Some("late") => format!("it is past {event} already, and {status} now"),
            _ if event == EventKind::Reverted => format!("that is taken back already, and it is {status}"),
            _ => format!("it is {status} already"),
        };
        return format!("{so}; nothing was changed\n");
    }
    let mut text = String::new();
    for event in &told.events {
        let _ = writeln!(text, "{}", line(event, None));
    }
    if again {
        text.push_str("it was reported before under this id; nothing was changed\n");
    }
    let _ = writeln!(text, "{order_id}  {status}  {}", may_follow(&told.allowed));
    text
}

/// What may be reported now, as part of a line.
pub(super) fn may_follow(allowed: &[String]) -> String {
    if allowed.is_empty() {
        return "nothing may be reported now".to_owned();
    }
    format!("may be reported: {}", clean::line(&allowed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_it_is_told_in_a_sentence() {
        let id: OrderId = "ORD-01ARZ3NDEK0000000000000000".parse().expect("an id");
        let told = |value: Value| serde_json::from_value::<ReportAnswer>(value).expect("it is read");
        let cooking = EventKind::Reached(Status::Cooking);
        let ignored = |why: &str, status: &str| {
            told(
                json!({"outcome": "ignored", "why": why, "events": [], "order": {"status": status}, "mood": 1}),
            )
        };
        for (event, answer, expected) in [
            (cooking, ignored("same", "COOKING"), "it is COOKING already; nothing was changed\n"),
            (
                cooking,
                ignored("late", "DELIVERED"),
                "it is past COOKING already, and DELIVERED now; nothing was changed\n",
            ),
            (
                EventKind::Reverted,
                ignored("same", "PLACED"),
                "that is taken back already, and it is PLACED; nothing was changed\n",
            ),
        ] {
            assert_eq!(sentences(id, event, &answer, false), expected);
        }
        let applied = told(json!({
            "outcome": "applied", "order": {"status": "COOKING\u{1b}"}, "allowed": ["READY", "REVERTED"],
            "events": [{"event": "COOKING", "seq": 3, "timestamp": "2026-01-02T03:04:05.678Z", "meta": {"source": "pos"}}],
        }));
        let text = sentences(id, cooking, &applied, true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "2026-01-02 03:04:05.678 UTC  COOKING            by pos",
                "it was reported before under this id; nothing was changed",
                "ORD-01ARZ3NDEK0000000000000000  COOKING\\u{1b}  may be reported: READY, REVERTED",
            ]
        );
    }
}
