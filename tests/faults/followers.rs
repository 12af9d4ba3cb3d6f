//! Clients that follow: everything by cursor, or one order each.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use reqwest::Client;
use serde_json::Value;
use testkit::EventStream;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{app::Targets, rig::Rig};

/// Clients that page through everything.
const READERS: usize = 3;
/// How long the last events may take to be read once all is over.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that read everything, each page from another replica.
pub(crate) struct Readers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<Reader>>,
}

impl Readers {
    pub(crate) fn start(rig: &Rig) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        for turn in 0..READERS {
            let (http, targets) = (http.clone(), rig.fleet.targets.clone());
            let reader = Reader { http, targets, turn, after: "0".to_owned(), told: Vec::new() };
            tasks.spawn(reader.follow(stopped.clone()));
        }
        Ok(Self { stop, tasks })
    }

    /// What each was told, up to the end.
    pub(crate) async fn end(mut self) -> Result<Vec<Reader>> {
        self.stop.send_replace(true);
        let mut read = Vec::new();
        while let Some(reader) = self.tasks.join_next().await {
            read.push(reader??);
        }
        Ok(read)
    }
}

/// An event as a reader was told of it.
pub(crate) struct Told {
    pub(crate) cursor: i64,
    pub(crate) order_id: String,
    pub(crate) seq: i32,
    at: Instant,
}

pub(crate) struct Reader {
    http: Client,
    targets: Targets,
    turn: usize,
    after: String,
    pub(crate) told: Vec<Told>,
}

impl Reader {
    /// Reads until there is nothing left once it is told to stop.
    async fn follow(mut self, stopped: watch::Receiver<bool>) -> Result<Self> {
        let mut deadline = None;
        loop {
            let stop = *stopped.borrow();
            if stop {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                ensure!(Instant::now() < deadline, "a reader got no further than {}", self.after);
            }
            self.turn += 1;
            match self.page().await {
                // What committed before the stop is settled by the second look that finds nothing.
                Ok(true) if stop => {
                    sleep(Duration::from_secs(1)).await;
                    if self.page().await.is_ok_and(|over| over) {
                        return Ok(self);
                    }
                }
                Ok(_) => {}
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Reads a page; answers whether nothing is left.
    async fn page(&mut self) -> Result<bool> {
        let url = self.targets.pick(self.turn).context("nobody listens")?;
        let url = format!("{url}/events?after={}&limit=1000&wait=1s", self.after);
        let page: Value = self.http.get(url).send().await?.error_for_status()?.json().await?;
        let events = page["events"].as_array().context("no events")?;
        for event in events {
            self.told.push(Told {
                cursor: event["cursor"].as_str().context("no cursor")?.parse()?,
                order_id: event["order_id"].as_str().context("no order")?.to_owned(),
                seq: serde_json::from_value(event["seq"].clone())?,
                at: Instant::now(),
            });
        }
        page["next"].as_str().context("no next")?.clone_into(&mut self.after);
        Ok(events.is_empty() && page["caught_up"] == true)
    }

    /// The longest time within these two in which it was told nothing.
    pub(crate) fn longest_wait(&self, from: Instant, to: Instant) -> Duration {
        let within = self.told.iter().map(|told| told.at).filter(|at| (from..to).contains(at));
        let moments: Vec<Instant> = [from].into_iter().chain(within).chain([to]).collect();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// Pages that follow an order each.
pub(crate) struct Pages(JoinSet<Result<Vec<Duration>>>);

impl Pages {
    pub(crate) async fn open(rig: &Rig, orders: impl Iterator<Item = String>) -> Result<Self> {
        let (http, mut pages) = (Client::builder().no_proxy().build()?, JoinSet::new());
        let anchor = (Instant::now(), rig.on_database_clock(Instant::now()));
        for (number, order_id) in orders.enumerate() {
            let url = rig.fleet.targets.pick(number).context("nobody listens")?;
            let answer = http.get(format!("{url}/orders/{order_id}/events")).send().await?;
            let stream = EventStream::of(answer.error_for_status()?);
            pages.spawn(delays(stream, anchor));
        }
        Ok(Self(pages))
    }

    /// How long after it was made each step was shown.
    pub(crate) async fn end(mut self) -> Result<Vec<Duration>> {
        let mut delays = Vec::new();
        while let Some(page) = self.0.join_next().await {
            delays.extend(page??);
        }
        delays.sort_unstable();
        Ok(delays)
    }
}

async fn delays(mut stream: EventStream, anchor: (Instant, DateTime<Utc>)) -> Result<Vec<Duration>> {
    let (mut delays, opened) = (Vec::new(), anchor.1);
    while let Some(frame) = stream.next().await? {
        let now = anchor.1 + anchor.0.elapsed();
        let event: Value = serde_json::from_str(&frame.data)?;
        let Some(made) = event["timestamp"].as_str() else { continue };
        let made: DateTime<Utc> = made.parse()?;
        // What was there already was not waited for.
        if made > opened {
            delays.push((now - made).to_std().unwrap_or_default());
        }
    }
    Ok(delays)
}
