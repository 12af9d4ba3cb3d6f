//! F24: pages follow their orders while the replicas that they hang on are killed and stopped.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Client;
use testkit::EventStream;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::LeftOut;
use crate::{app::Targets, check::SIX, report::Outcome, rig::Rig};

/// Pages that follow an order each.
const FOLLOWERS: usize = 500;
/// Clients that ask for a stream and never read it.
const DEAF: usize = 100;
/// Time in each status: long enough that all pages are there before the first steps.
const DELAY: Duration = Duration::from_secs(5);
/// How long a page may wait for its last event.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) async fn followed(rig: &mut Rig) -> Result<Outcome> {
    rig.set("STAGE_DELAYS", format!("{}s", DELAY.as_secs()));
    rig.fleet.start_all(2).await?;
    let mut plan = rig.plan(200.0);
    plan.orders = FOLLOWERS.min(rig.scale.orders);
    let history = rig.load(plan).end().await?;
    let http = Client::builder().no_proxy().connect_timeout(Duration::from_secs(1)).build()?;
    let first = &history.placed.first().context("nothing was placed")?.order_id;
    let url = rig.fleet.targets.pick(0).context("nobody listens")?;
    if http.get(format!("{url}/orders/{first}/events")).send().await?.status() == 404 {
        return Err(LeftOut("this build has no event streams".to_owned()).into());
    }
    let mut pages = JoinSet::new();
    for (number, placed) in history.placed.iter().enumerate() {
        let page = Page { http: http.clone(), targets: rig.fleet.targets.clone(), number, seen: Vec::new() };
        pages.spawn(page.follow(placed.order_id.clone()));
    }
    let mut deaf = Vec::new();
    for (number, placed) in history.placed.iter().cycle().take(DEAF).enumerate() {
        deaf.push(ask(&rig.fleet.targets, number, &placed.order_id).await?);
    }
    // Each replica goes once, one at once and one politely.
    sleep(DELAY).await;
    rig.strike();
    rig.fleet.kill(0).await?;
    sleep(DELAY / 2).await;
    rig.fleet.start(0).await?;
    sleep(DELAY).await;
    rig.strike();
    rig.fleet.stop(1).await?;
    rig.fleet.start(1).await?;
    let (mut wrong, mut lines) = (Vec::new(), 0);
    while let Some(page) = pages.join_next().await {
        let page = page??;
        lines += page.len();
        if page != [1, 2, 3, 4, 5, 6] {
            wrong.push(page);
        }
    }
    drop(deaf);
    let mut outcome = rig.finish(&history).await?;
    outcome.note(format!("{lines} events shown on {} pages", history.placed.len()));
    let missing = format!("{} pages missed or repeated events, such as {:?}", wrong.len(), wrong.first());
    outcome.expect(wrong.is_empty(), missing);
    outcome.expect(lines == history.placed.len() * SIX.len(), format!("{lines} events shown"));
    Ok(outcome)
}

/// A connection whose client never reads.
async fn ask(targets: &Targets, number: usize, order_id: &str) -> Result<TcpStream> {
    let url = targets.pick(number).context("nobody listens")?;
    let mut connection = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let request = format!("GET /orders/{order_id}/events HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    Ok(connection)
}

/// What a browser does with an event stream.
struct Page {
    http: Client,
    targets: Targets,
    number: usize,
    /// The positions of the events, as they came.
    seen: Vec<u8>,
}

impl Page {
    /// Reads until the service says that nothing more will come; answers what came.
    async fn follow(mut self, order_id: String) -> Result<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        for turn in self.number.. {
            ensure!(Instant::now() < deadline, "{order_id}: only {:?} by now", self.seen);
            if let Some(url) = self.targets.pick(turn)
                && self.read(&format!("{url}/orders/{order_id}/events")).await.is_ok_and(|ended| ended)
            {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(self.seen)
    }

    /// One connection; whether it was the last one.
    async fn read(&mut self, url: &str) -> Result<bool> {
        let mut request = self.http.get(url).header("accept", "text/event-stream");
        if let Some(last) = self.seen.last() {
            request = request.header("last-event-id", last.to_string());
        }
        let answer = request.send().await?.error_for_status()?;
        if answer.status() == 204 {
            return Ok(true);
        }
        let mut stream = EventStream::of(answer);
        while let Some(frame) = stream.next().await? {
            self.seen.extend(frame.id);
        }
        Ok(false)
    }
}
