//! `order watch`: follows an order until it is delivered.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    client::{self, Client, ClientArgs},
    order, output,
};
use crate::{
    clock::{Clock as _, SystemClock},
    order::{Event, EventKind, OrderId, Status, Timestamp},
    pipeline::Backoff,
};

/// How long to try again after a lost connection.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a stream may be silent: two of its heartbeats and a bit.
const SILENCE: Duration = Duration::from_secs(35);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Takes the bar away.
const CLEAR: &str = "\r\x1b[2K";
/// How often the bar counts on.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// The order's id, ORD-...
    order_id: OrderId,
    #[command(flatten)]
    client: ClientArgs,
}

/// Prints each event as it comes; well once the order is delivered.
pub(super) async fn run(args: WatchArgs) -> anyhow::Result<()> {
    // An answer has no end here, so only its silence is limited.
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE)
        .no_proxy()
        .build()?;
    let client = Client::over(http, args.client.url);
    let mut view = View::new(args.client.json);
    let outcome = watch(&client, args.order_id, &mut view).await;
    // However it ends, what is said next begins a line.
    view.clear().and(outcome)
}

async fn watch(client: &Client, order_id: OrderId, view: &mut View) -> anyhow::Result<()> {
    let mut stream = Stream::of(client.send(ask(client, order_id, 0)?).await?)?;
    while let Left::Lost = stream.follow(view).await? {
        view.lost()?;
        let Some(response) = again(client, order_id, view.seen()).await? else { break };
        stream = Stream::of(response)?;
        view.found()?;
    }
    Ok(())
}

fn ask(client: &Client, order_id: OrderId, seen: u8) -> anyhow::Result<reqwest::RequestBuilder> {
    let request = client.http.get(client.at(&["orders", &order_id.to_string(), "events"])?);
    Ok(if seen > 0 { request.header("last-event-id", seen.to_string()) } else { request })
}

/// Connects again, patiently; `None` if there is nothing more to come.
async fn again(client: &Client, order_id: OrderId, seen: u8) -> anyhow::Result<Option<Response>> {
    let (begun, mut backoff) = (Instant::now(), Backoff::default());
    loop {
        sleep(backoff.next_pause()).await;
        let last = begun.elapsed() >= PATIENCE;
        match ask(client, order_id, seen)?.send().await {
            Ok(response) if response.status() == StatusCode::NO_CONTENT => return Ok(None),
            Ok(response) if last || !response.status().is_server_error() => {
                return client.checked(response).await.map(Some);
            }
            Err(error) if last => return Err(client::no_answer(&client.base, &error, client.whence)),
            Ok(_) | Err(_) => {}
        }
    }
}

/// How a stream ended.
enum Left {
    Delivered,
    Lost,
}

/// The frames of an open stream.
struct Stream {
    response: Response,
    bytes: Vec<u8>,
}

impl Stream {
    fn of(response: Response) -> anyhow::Result<Self> {
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if kind.is_none_or(|kind| !kind.starts_with("text/event-stream")) {
            bail!("{} answered no event stream: is this an order-tracker?", response.url());
        }
        Ok(Self { response, bytes: Vec::new() })
    }

    async fn follow(&mut self, view: &mut View) -> anyhow::Result<Left> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                frame = self.next() => match frame {
                    Some((name, data)) if name == "status" => view.event(&data)?,
                    Some((name, _)) if name == "end" => return Ok(Left::Delivered),
                    Some(_) => {}
                    None => return Ok(Left::Lost),
                },
                _ = tick.tick() => view.draw()?,
            }
        }
    }

    /// The name and the data of the next event; `None` when the connection is gone. Nothing is lost if
    /// this is dropped half-way.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.bytes.drain(..end + 2).collect();
                let text = String::from_utf8_lossy(&frame);
                let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
                if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                    return Some((name.to_owned(), data.to_owned()));
                }
                continue;
            }
            self.bytes.extend_from_slice(&self.response.chunk().await.ok()??);
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
    last: Option<(EventKind, Timestamp)>,
    connected: bool,
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

    fn seen(&self) -> u8 {
        self.last.map_or(0, |(event, _)| event.seq())
    }

    fn event(&mut self, data: &str) -> anyhow::Result<()> {
        let event: Event = serde_json::from_str(data).context("the service sent an event that is none")?;
        if event.event.seq() <= self.seen() {
            return Ok(());
        }
        self.clear()?;
        if self.form == Form::Json {
            output::print(&serde_json::from_str::<Value>(data)?.to_string())?;
        } else {
            output::print(&order::line(&event, self.last.map(|(_, at)| at)))?;
        }
        self.last = Some((event.event, event.timestamp));
        self.draw()
    }

    /// The connection is gone.
    fn lost(&mut self) -> anyhow::Result<()> {
        if !matches!(self.form, Form::Bar { .. }) {
            output::complain("the connection is lost; trying again");
        }
        self.connected = false;
        self.draw()
    }

    /// There is a connection again.
    fn found(&mut self) -> anyhow::Result<()> {
        self.connected = true;
        self.draw()
    }

    fn clear(&self) -> anyhow::Result<()> {
        if matches!(self.form, Form::Bar { .. }) { output::print_bytes(CLEAR.as_bytes()) } else { Ok(()) }
    }

    fn draw(&self) -> anyhow::Result<()> {
        let Form::Bar { color } = self.form else { return Ok(()) };
        output::print_bytes(self.line(color, SystemClock.now()).as_bytes())
    }

    fn line(&self, color: bool, now: Timestamp) -> String {
        let Some((last, at)) = self.last else { return String::new() };
        let bar = bar(last, color);
        if !self.connected {
            return format!("{CLEAR}{bar}  {last}; connecting again");
        }
        // Not below 0, should the service's clock be ahead of ours.
        format!("{CLEAR}{bar}  {last} for {} s", (now - at).num_seconds().max(0))
    }
}

/// Five steps, those that are done filled: `●━●━◉─○─○`.
fn bar(last: EventKind, color: bool) -> String {
    let mut text = String::new();
    for status in Status::ALL {
        let step = EventKind::Reached(status);
        let (paint, line, mark) = match step.cmp(&last) {
            std::cmp::Ordering::Less => ("32", "━", "●"),
            std::cmp::Ordering::Equal => ("1;33", "━", "◉"),
            std::cmp::Ordering::Greater => ("2", "─", "○"),
        };
        let line = if status == Status::Placed { "" } else { line };
        let _ = if color {
            write!(text, "\x1b[{paint}m{line}{mark}\x1b[0m")
        } else {
            write!(text, "{line}{mark}")
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_moves_through_the_steps() {
        let bars = EventKind::ALL.map(|event| bar(event, false));
        assert_eq!(bars, ["○─○─○─○─○", "◉─○─○─○─○", "●━◉─○─○─○", "●━●━◉─○─○", "●━●━●━◉─○", "●━●━●━●━◉"]);
        assert!(bar(EventKind::Created, true).contains("\x1b["));
    }

    #[test]
    fn the_bar_counts_from_the_step() {
        let at: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a moment");
        let last = Some((EventKind::Reached(Status::Cooking), at));
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
        let base = "http://127.0.0.1:9".parse().expect("an address");
        let (client, begun) = (Client::new(base).expect("a client"), Instant::now());
        let order_id = "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id");
        let error = again(&client, order_id, 3).await.expect_err("nobody is there");
        assert!(
            error.to_string().contains("no answer from http://127.0.0.1:9 (connection refused): is the"),
            "{error}"
        );
        let took = begun.elapsed();
        assert!((PATIENCE..PATIENCE + CONNECT_TIMEOUT).contains(&took), "{took:?}");
    }
}
