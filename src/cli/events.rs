//! `events`: everything that happened to all orders, page by page, and what happens from then on.

use std::{fmt::Write as _, mem};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::time::{Duration, Instant};

use super::{
    clean,
    client::{Client, ClientArgs},
    event_line::said,
    frames::{self, Frames, LAST_EVENT_ID, PATIENCE, SHORT},
    list::limit,
    output,
    retry::Retry,
    serve::Signals,
    values::event_kinds,
};
use crate::{
    client::{
        ClientRequest,
        header::{self, HeaderValue},
    },
    order::{Cursor, EventKind, Timestamp},
};

/// The longest page that the service gives.
const PAGE: u64 = 1_000;

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Only what comes behind this cursor, or `now` for what comes from here on
    #[arg(long, value_name = "CURSOR", value_parser = after)]
    after: Option<After>,
    /// Only events of this kind
    #[arg(long, value_parser = event_kinds(), ignore_case = true)]
    event: Option<EventKind>,
    /// How many at most; as many as there are unless given
    #[arg(long, value_name = "N", value_parser = limit)]
    limit: Option<u64>,
    /// Go on with what happens from then on
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Where to begin.
#[derive(Debug, Clone, Copy)]
enum After {
    Now,
    Cursor(Cursor),
}

fn after(text: &str) -> Result<After, String> {
    if text.eq_ignore_ascii_case("now") {
        return Ok(After::Now);
    }
    text.parse().map(After::Cursor).map_err(|_| "must be a cursor of the feed, or now".to_owned())
}

pub(super) async fn run(args: EventsArgs) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    tokio::select! {
        outcome = read(args) => outcome,
        code = signals.next() => Err(output::Stopped(code).into()),
    }
}

async fn read(args: EventsArgs) -> anyhow::Result<()> {
    let client = Client::new(args.client.url)?;
    let mut told = Printer::new(args.client.json, args.limit.unwrap_or(u64::MAX));
    if let Some(After::Cursor(cursor)) = args.after {
        told.cursor = Some(cursor);
    }
    let mut now = matches!(args.after, Some(After::Now));
    while told.left > 0 {
        let page = client.ask(ClientRequest::get(path(&told, mem::take(&mut now), args.event))).await;
        let page: Page = match page {
            Ok(page) => page,
            // Who follows goes on where he was, as soon as somebody answers.
            Err(error) if args.follow && told.cursor.is_some() => {
                told.lost(&error.to_string());
                break;
            }
            Err(error) => return Err(error),
        };
        let stays = told.cursor.unwrap_or_default() == page.next;
        told.page(&page)?;
        if page.caught_up {
            break;
        }
        // A page that leads nowhere is the last one for now.
        if stays {
            output::note("a transaction that is open in the database holds back what follows");
            break;
        }
    }
    if args.follow { follow(&client, &mut told, args.event, PATIENCE).await } else { Ok(()) }
}

fn path(told: &Printer, now: bool, event: Option<EventKind>) -> String {
    let mut path = format!("/events?limit={}", told.left.min(PAGE));
    // Writing to a string never fails.
    let _ = match told.cursor {
        Some(cursor) => write!(path, "&after={cursor}"),
        None if now => write!(path, "&after=now"),
        None => Ok(()),
    };
    path + &event.map(|event| format!("&event={event}")).unwrap_or_default()
}

/// Follows everything behind what was told, through lost connections.
async fn follow(
    client: &Client,
    told: &mut Printer,
    event: Option<EventKind>,
    patience: Duration,
) -> anyhow::Result<()> {
    // Who has been told something before knows that there is a service.
    let (mut retry, mut again) = (Retry::new(patience), !told.connected);
    while told.left > 0 {
        let seen = told.cursor;
        let request = request(seen, event);
        let lost = |why: &str| {
            told.lost(why);
            Ok(())
        };
        let stream = frames::connect(client, &request, &mut retry, again, lost).await?;
        let Some(stream) = stream else { break };
        let since = Instant::now();
        told.connected = true;
        let mut frames = Frames::of(client, stream)?;
        while told.left > 0
            && let Some(frame) = frames.next().await
        {
            if frame.name == "event" {
                told.event(&frame.data)?;
            }
            told.reached(frame.id.as_deref());
        }
        // A service that ends every stream at once is as good as gone.
        if told.cursor > seen || since.elapsed() > SHORT {
            retry = Retry::new(patience);
        }
        again = true;
    }
    Ok(())
}

fn request(seen: Option<Cursor>, event: Option<EventKind>) -> ClientRequest {
    let filter = event.map(|event| format!("?event={event}")).unwrap_or_default();
    let request = ClientRequest::get(format!("/events{filter}"))
        .with(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    match seen {
        Some(seen) => request.with(LAST_EVENT_ID, seen.0.into()),
        None => request,
    }
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next: Cursor,
    caught_up: bool,
}

/// What is shown of an event: a newer service may know more kinds, and say more.
#[derive(Deserialize)]
struct Item {
    cursor: Cursor,
    order_id: String,
    seq: u32,
    event: String,
    status: String,
    timestamp: Timestamp,
    meta: Option<Value>,
}

/// What was told so far.
struct Printer {
    json: bool,
    /// How many may follow.
    left: u64,
    /// Where to go on.
    cursor: Option<Cursor>,
    connected: bool,
}

impl Printer {
    fn new(json: bool, left: u64) -> Self {
        Self { json, left, cursor: None, connected: true }
    }

    fn page(&mut self, page: &Page) -> anyhow::Result<()> {
        let mut text = String::new();
        for event in &page.events {
            self.write(&mut text, event.get())?;
        }
        self.cursor = self.cursor.max(Some(page.next));
        output::print_raw(text.as_bytes())
    }

    fn event(&mut self, data: &str) -> anyhow::Result<()> {
        let mut text = String::new();
        self.write(&mut text, data)?;
        output::print_raw(text.as_bytes())
    }

    /// A line for an event, unless it was told before.
    fn write(&mut self, text: &mut String, data: &str) -> anyhow::Result<()> {
        let item: Item = serde_json::from_str(data).context("the service sent an event that is none")?;
        if self.left == 0 || self.cursor >= Some(item.cursor) {
            return Ok(());
        }
        if self.json {
            // An end of a line within JSON is a space between its parts.
            let _ = writeln!(text, "{}", clean::json(&data.replace(['\r', '\n'], " ")));
        } else {
            let _ = writeln!(text, "{}", line(&item));
        }
        (self.cursor, self.left) = (Some(item.cursor), self.left - 1);
        Ok(())
    }

    /// A frame of any kind says with what to come back.
    fn reached(&mut self, id: Option<&str>) {
        self.cursor = self.cursor.max(id.and_then(|id| id.parse().ok()));
    }

    /// There is no connection; why is said once.
    fn lost(&mut self, why: &str) {
        if mem::replace(&mut self.connected, false) {
            output::note(&format!("{why}; trying again"));
        }
    }
}

fn line(item: &Item) -> String {
    let Item { order_id, seq, event, status, timestamp, meta, .. } = item;
    let at = timestamp.format("%Y-%m-%d %H:%M:%S%.3f UTC");
    let [order_id, event, status] = [order_id, event, status].map(|text| clean::line(text));
    let said = said(meta.as_ref());
    let width = if said.is_empty() { 0 } else { 16 };
    format!("{at}  {order_id}  {seq:>3}  {event:17}  {status:width$}{said}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = r#"{"cursor":"8","order_id":"ORD-1","seq":2,"event":"BURNT\u001b","status":"COOKING","timestamp":"2026-01-02T03:04:05.678Z","meta":null,"mood":"bad"}"#;

    #[test]
    fn an_event_is_a_line_and_told_once() {
        for (json, expected) in [
            (false, "2026-01-02 03:04:05.678 UTC  ORD-1    2  BURNT\\u{1b}        COOKING\n".to_owned()),
            (true, format!("{DATA}\n")),
        ] {
            let (mut told, mut text) = (Printer::new(json, 9), String::new());
            for _ in 0..2 {
                told.write(&mut text, &DATA.replace(',', ",\n")).expect("an event");
            }
            assert_eq!(text.replace(", ", ","), expected.replace(", ", ","));
            assert_eq!((told.cursor, told.left), (Some(Cursor(8)), 8));
            told.reached(Some("7"));
            assert_eq!(told.cursor, Some(Cursor(8)));
            told.reached(Some("9"));
            told.write(&mut text, DATA).expect("an event");
            assert_eq!((told.cursor, told.left), (Some(Cursor(9)), 8), "passed over is told");
        }
    }

    #[test]
    fn a_line_says_who_said_it() {
        let data = DATA.replace("null", r#"{"source":"kitchen","station":"grill\u001b"}"#);
        let item: Item = serde_json::from_str(&data).expect("an event");
        let expected = "2  BURNT\\u{1b}        COOKING           by kitchen, station grill\\u{1b}";
        assert_eq!(line(&item).split_once("ORD-1    ").expect("a line").1, expected);
    }

    #[test]
    fn the_question_goes_on_where_the_answer_ended() {
        let mut told = Printer::new(false, 1_500);
        assert_eq!(path(&told, false, None), "/events?limit=1000");
        assert_eq!(path(&told, true, Some(EventKind::Created)), "/events?limit=1000&after=now&event=CREATED");
        (told.cursor, told.left) = (Some(Cursor(7)), 3);
        assert_eq!(path(&told, false, None), "/events?limit=3&after=7");
    }

    #[test]
    fn a_place_is_a_cursor_or_now() {
        for good in ["now", "NOW", "0", "17"] {
            assert!(after(good).is_ok(), "{good}");
        }
        for bad in ["", "x", "-1", "01", "9223372036854775808"] {
            assert_eq!(
                after(bad).map(|_| ()),
                Err("must be a cursor of the feed, or now".to_owned()),
                "{bad}"
            );
        }
    }
}
