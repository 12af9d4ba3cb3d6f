//! `order watch`: follows an order until it is delivered or cancelled.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    client::{Client, ClientArgs},
    event_line::line,
    frames::{self, Frames, LAST_EVENT_ID, PATIENCE, SHORT},
    output,
    progress::LEAVE,
    retry::Retry,
    serve::Signals,
    values::order_id,
};
use crate::{
    client::{ClientRequest, Stream},
    order::{Event, EventKind, OrderId, Status, Timestamp},
    time::{Clock as _, SystemClock},
};

/// Takes the bar away.
const CLEAR: &str = "\r\x1b[2K";
/// How often the bar counts on.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// The order's id, ORD-...
    #[arg(value_parser = order_id)]
    order_id: OrderId,
    #[command(flatten)]
    client: ClientArgs,
}

/// Prints each event as it comes; well once the order is at one of its ends.
pub(super) async fn run(args: WatchArgs) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let (client, mut view) = (Client::new(args.client.url)?, View::new(args.client.json));
    let outcome = tokio::select! {
        outcome = watch(&client, args.order_id, &mut view, PATIENCE) => Ok(outcome),
        code = signals.next() => Err(code),
    };
    match outcome {
        // However it ends, what is said next begins a line.
        Ok(outcome) => view.clear().and(outcome),
        Err(code) => view.leave(code),
    }
}

async fn watch(
    client: &Client,
    order_id: OrderId,
    view: &mut View,
    patience: Duration,
) -> anyhow::Result<()> {
    let (mut retry, mut again) = (Retry::new(patience), false);
    while let Some(stream) = connect(client, order_id, view, &mut retry, again).await? {
        let (seen, since) = (view.seen(), Instant::now());
        view.found()?;
        if let Left::Over = follow(&mut Frames::of(client, stream)?, view).await? {
            break;
        }
        view.lost("the connection is lost")?;
        // A service that ends every stream at once is as good as gone.
        if view.seen() > seen || since.elapsed() > SHORT {
            retry = Retry::new(patience);
        }
        again = true;
    }
    Ok(())
}

/// Connects, patiently; `None` if there is nothing more to come.
async fn connect(
    client: &Client,
    order_id: OrderId,
    view: &mut View,
    retry: &mut Retry,
    again: bool,
) -> anyhow::Result<Option<Stream>> {
    frames::connect(client, &ask(order_id, view.seen()), retry, again, |why| view.lost(why)).await
}

fn ask(order_id: OrderId, seen: u32) -> ClientRequest {
    let request = ClientRequest::get(format!("/orders/{order_id}/events"));
    if seen > 0 { request.with(LAST_EVENT_ID, seen.into()) } else { request }
}

/// How a stream ended.
enum Left {
    /// Nothing more will come.
    Over,
    Lost,
}

async fn follow(frames: &mut Frames, view: &mut View) -> anyhow::Result<Left> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            frame = frames.next() => match frame {
                Some(frame) if frame.name == "status" => view.event(&frame.data)?,
                Some(frame) if frame.name == "end" => return Ok(Left::Over),
                Some(_) => {}
                None => return Ok(Left::Lost),
            },
            _ = tick.tick() => view.draw()?,
        }
    }
}

/// For whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// For programs.
    Json,
    /// For a pipe.
    Lines,
    /// For a person: lines, and below them a bar that moves.
    Bar { color: bool },
}

/// What is shown.
struct View {
    form: Form,
    last: Option<Last>,
    connected: bool,
}

/// What is known of the order.
#[derive(Clone, Copy)]
struct Last {
    seq: u32,
    event: EventKind,
    /// Where the order is since.
    status: Option<Status>,
    /// The last step of a plain life that it has reached.
    reached: Option<Status>,
    at: Timestamp,
}

/// An event as the stream sends it.
#[derive(Deserialize)]
struct StreamedEvent {
    seq: u32,
    #[serde(flatten)]
    event: Event,
}

impl View {
    fn new(json: bool) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal() && set("TERM").is_none_or(|term| term != "dumb");
        let form = match (json, terminal) {
            (true, _) => Form::Json,
            (false, false) => Form::Lines,
            (false, true) => Form::Bar { color: set("NO_COLOR").is_none() },
        };
        Self { form, last: None, connected: true }
    }

    fn seen(&self) -> u32 {
        self.last.map_or(0, |last| last.seq)
    }

    fn event(&mut self, data: &str) -> anyhow::Result<()> {
        let StreamedEvent { seq, event } =
            serde_json::from_str(data).context("the service sent an event that is none")?;
        if seq <= self.seen() {
            return Ok(());
        }
        self.clear()?;
        if self.form == Form::Json {
            output::print_json_line(&serde_json::from_str::<Value>(data)?)?;
        } else {
            output::print(&line(&event, self.last.map(|last| last.at)))?;
        }
        self.take(seq, &event);
        self.draw()
    }

    /// Where the order is since this event.
    fn take(&mut self, seq: u32, event: &Event) {
        let before = self.last.and_then(|last| last.reached);
        let back_to = || event.meta.as_ref()?.get("to")?.as_str()?.parse().ok();
        let status = event.event.status().or_else(back_to).or(self.last.and_then(|last| last.status));
        let reached = status.filter(|status| Status::plain_life().any(|step| step == *status)).or(before);
        self.last = Some(Last { seq, event: event.event, status, reached, at: event.timestamp });
    }

    /// There is no connection; why is said once, in the bar if there is one.
    fn lost(&mut self, why: &str) -> anyhow::Result<()> {
        let has_bar = matches!(self.form, Form::Bar { .. }) && self.last.is_some();
        if self.connected && !has_bar {
            output::note(&format!("{why}; trying again"));
        }
        self.connected = false;
        self.draw()
    }

    /// There is a connection.
    fn found(&mut self) -> anyhow::Result<()> {
        self.connected = true;
        self.draw()
    }

    fn clear(&self) -> anyhow::Result<()> {
        if matches!(self.form, Form::Bar { .. }) { output::print_raw(CLEAR.as_bytes()) } else { Ok(()) }
    }

    /// The user has seen enough: the bar keeps its line, and the prompt gets one of its own.
    fn leave(&self, code: u8) -> anyhow::Result<()> {
        if matches!(self.form, Form::Bar { .. }) {
            output::print_raw(LEAVE.as_bytes())?;
        }
        Err(output::Stopped(code).into())
    }

    fn draw(&self) -> anyhow::Result<()> {
        let Form::Bar { color } = self.form else { return Ok(()) };
        output::print_raw(self.line(color, SystemClock.now()).as_bytes())
    }

    fn line(&self, color: bool, now: Timestamp) -> String {
        let Some(Last { event, status, reached, at, .. }) = self.last else { return String::new() };
        let bar = bar(status, reached, color);
        // What changes no status is told beside it.
        let is = match status {
            Some(status) if event.status() != Some(status) => format!("{status} ({event})"),
            _ => event.to_string(),
        };
        if !self.connected {
            return format!("{CLEAR}{bar}  {is}; connecting again");
        }
        // Not below 0, should the service's clock be ahead of ours.
        format!("{CLEAR}{bar}  {is} for {} s", (now - at).num_seconds().max(0))
    }
}

/// The steps of a plain life, those that are done filled: `●━●━◉─○─○`; where it ended early, how far it came: `●━●━✕`.
fn bar(now: Option<Status>, reached: Option<Status>, color: bool) -> String {
    let mut text = String::new();
    let mut add = |paint: &str, part: &str| {
        let _ = if color { write!(text, "\x1b[{paint}m{part}\x1b[0m") } else { write!(text, "{part}") };
    };
    let ended = now.is_some_and(|status| Status::plain_life().all(|step| step != status));
    for status in Status::plain_life() {
        let (paint, line, mark) = match if ended { reached } else { now } {
            Some(now) if status == now && !ended => ("1;33", "━", "◉"),
            Some(now) if status == now || status.comes_before(now) => ("32", "━", "●"),
            _ if ended => break,
            _ => ("2", "─", "○"),
        };
        let line = if status == Status::FIRST { "" } else { line };
        add(paint, &format!("{line}{mark}"));
    }
    if ended {
        add("1;31", if reached.is_some() { "━✕" } else { "✕" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_moves_through_the_steps() {
        let life = std::iter::once(None).chain(Status::plain_life().map(Some));
        let bars: Vec<String> = life.map(|status| bar(status, status, false)).collect();
        assert_eq!(bars, ["○─○─○─○─○", "◉─○─○─○─○", "●━◉─○─○─○", "●━●━◉─○─○", "●━●━●━◉─○", "●━●━●━●━◉"]);
        assert!(bar(None, None, true).contains("\x1b["));
    }

    #[test]
    fn a_bar_goes_back_with_an_undo_and_ends_where_the_order_does() {
        let mut view = View { form: Form::Lines, last: None, connected: true };
        let mut seq = 0;
        let mut bar_after = |event: &str, meta: Value| {
            seq += 1;
            let timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a moment");
            let event = Event { seq, event: event.parse().expect("a kind"), timestamp, meta: Some(meta) };
            view.take(seq, &event);
            view.line(false, timestamp).trim_start_matches(CLEAR).to_owned()
        };
        let back = |to: &str| serde_json::json!({"reverts": 4, "from": "X", "to": to});
        for (event, meta, expected) in [
            ("CREATED", Value::Null, "○─○─○─○─○  CREATED for 0 s"),
            ("PLACED", Value::Null, "◉─○─○─○─○  PLACED for 0 s"),
            ("CANCELLED", Value::Null, "●━✕  CANCELLED for 0 s"),
            ("REVERTED", back("PLACED"), "◉─○─○─○─○  PLACED (REVERTED) for 0 s"),
            ("COOKING", Value::Null, "●━●━◉─○─○  COOKING for 0 s"),
            ("READY", Value::Null, "●━●━◉─○─○  COOKING (READY) for 0 s"),
            ("REVERTED", back("PREPARING"), "●━◉─○─○─○  PREPARING (REVERTED) for 0 s"),
            ("CANCELLED", Value::Null, "●━●━✕  CANCELLED for 0 s"),
        ] {
            assert_eq!(bar_after(event, meta), expected);
        }
        assert_eq!(bar(Some(Status::Cancelled), None, false), "✕", "nobody has told how far it came");
    }

    #[test]
    fn the_bar_counts_from_the_step() {
        let at: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a moment");
        let (event, status) = (EventKind::Reached(Status::Cooking), Some(Status::Cooking));
        let last = Some(Last { seq: 4, event, status, reached: status, at });
        let mut view = View { form: Form::Lines, last, connected: true };
        let after = |view: &View, seconds| view.line(false, at + chrono::TimeDelta::seconds(seconds));
        assert_eq!(after(&view, 90), "\r\x1b[2K●━●━◉─○─○  COOKING for 90 s");
        assert!(after(&view, -3).ends_with("COOKING for 0 s"), "their clock is ahead");
        view.connected = false;
        assert!(after(&view, 90).ends_with("COOKING; connecting again"));
    }

    /// Promise 5: memory, queues and time are bounded. Patience is long, and has an end.
    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_gone_is_given_up() {
        let client = Client::without_key("http://127.0.0.1:9".parse().expect("an address"));
        let begun = tokio::time::Instant::now();
        let order_id = "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id");
        let mut view = View { form: Form::Lines, last: None, connected: false };
        let gone = connect(&client, order_id, &mut view, &mut Retry::new(PATIENCE), true).await;
        let error = gone.map(|_| ()).expect_err("nobody is there");
        assert!(
            error.to_string().contains("no answer from http://127.0.0.1:9 (connection refused): is the"),
            "{error}"
        );
        let took = begun.elapsed();
        assert!(took <= PATIENCE && took + Duration::from_secs(2) >= PATIENCE, "{took:?}");
    }

    /// Promise 5: memory, queues and time are bounded. Coming back to nothing is no progress.
    #[tokio::test]
    async fn a_service_that_ends_every_stream_at_once_is_given_up() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                assert!(stream.read(&mut [0; 1024]).await.expect("a request") > 0);
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
                stream.write_all(head).await.expect("sent");
            }
        });
        let client = Client::without_key(url.parse().expect("an address"));
        let order_id = "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id");
        let mut view = View { form: Form::Lines, last: None, connected: true };
        let ended = watch(&client, order_id, &mut view, Duration::from_millis(500)).await;
        let error = ended.expect_err("nothing ever comes").to_string();
        assert_eq!(error, format!("{url} ends every stream at once"));
    }

    /// What was never there is told at once.
    #[tokio::test]
    async fn a_service_that_never_was_is_told_at_once() {
        let client = Client::without_key("http://127.0.0.1:9".parse().expect("an address"));
        let order_id = "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id");
        let mut view = View { form: Form::Lines, last: None, connected: true };
        let begun = std::time::Instant::now();
        assert!(connect(&client, order_id, &mut view, &mut Retry::new(PATIENCE), false).await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
