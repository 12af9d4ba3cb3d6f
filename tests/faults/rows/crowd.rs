//! F27: thousands of pages on two replicas while the orders of all of them move: one after the other as in
//! real life, then all at one moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use order_tracker::order::promises;
use reqwest::Client;
use serde_json::Value;
use testkit::{EventStream, Frame, POLL};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    app::Targets,
    report::{Outcome, quantile},
    rig::Rig,
};

/// Pages that follow an order each, and at least so many.
const PAGES: usize = 3_000;
/// Orders placed a second, and so steps of one kind.
const RATE: u32 = 200;
/// How long it may take to open all pages.
const OPENED_WITHIN: Duration = Duration::from_secs(10);
/// Time in the statuses after PLACED.
const DELAY: Duration = Duration::from_secs(7);
/// The same two where there is little time.
const OPENED_WITHIN_CI: Duration = Duration::from_secs(2);
const DELAY_CI: Duration = Duration::from_secs(1);
/// What is promised, from the commit to the reader.
const LIVE_WITHIN: Duration = promises::LIVE_WITHIN;
/// How long after the last order was due a page may wait for its last event.
const PATIENCE: Duration = Duration::from_secs(30);
/// The position of the last event, which all orders reach at one moment.
const LAST: u8 = 6;

pub(crate) async fn crowd(rig: &mut Rig) -> Result<Outcome> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let ci = rig.scale.ci;
    let pages = if ci { rig.scale.orders } else { rig.scale.orders.max(PAGES) };
    let (opened_within, delay) = if ci { (OPENED_WITHIN_CI, DELAY_CI) } else { (OPENED_WITHIN, DELAY) };
    let spread = Duration::from_secs(1) * u32::try_from(pages)? / RATE;
    // Whoever comes first waits in OUT_FOR_DELIVERY until the last one is there.
    let delays = [spread + opened_within, delay, delay, spread + delay];
    let delays = delays.map(|delay| format!("{}ms", delay.as_millis()));
    rig.set("STAGE_DELAYS", delays.join(","));
    rig.fleet.start_all(2).await?;
    let mut plan = rig.plan(f64::from(RATE));
    plan.orders = pages;
    let history = rig.load(plan).end().await?;

    let before = rig.fleet.resident_kb();
    let http = Client::builder().no_proxy().build()?;
    let (mut crowd, open) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    let deadline = Instant::now() + spread * 2 + opened_within + delay * 3 + PATIENCE;
    for (number, placed) in history.placed.iter().enumerate() {
        let page =
            Page { http: http.clone(), targets: rig.fleet.targets.clone(), number, open: Arc::clone(&open) };
        crowd.spawn(page.follow(placed.order_id.clone(), deadline));
    }
    while open.load(Ordering::Relaxed) < history.placed.len() {
        ensure!(Instant::now() < deadline, "only {} pages are open", open.load(Ordering::Relaxed));
        sleep(POLL).await;
    }
    let held = rig.fleet.resident_kb().saturating_sub(before);
    gather(rig).await?;
    let mut timelines = Vec::new();
    while let Some(page) = crowd.join_next().await {
        timelines.push(page??);
    }
    let mut outcome = rig.finish(&history).await?;
    outcome.note(format!("{pages} pages, {:.1} KB each", per(held, pages)));
    judge(rig, &timelines, &mut outcome);
    Ok(outcome)
}

/// Waits until every order is out for delivery and lets all arrive with the last one.
async fn gather(rig: &Rig) -> Result<()> {
    let elsewhere = "SELECT count(*) FROM orders WHERE status <> 'OUT_FOR_DELIVERY'";
    while sqlx::query_scalar::<_, i64>(elsewhere).fetch_one(&rig.db).await? > 0 {
        sleep(POLL).await;
    }
    sqlx::query("UPDATE orders SET due_at = (SELECT max(due_at) FROM orders)").execute(&rig.db).await?;
    Ok(())
}

fn judge(rig: &Rig, timelines: &[Vec<Arrival>], outcome: &mut Outcome) {
    let wrong = timelines.iter().filter(|seen| !seen.iter().map(|arrival| arrival.seq).eq(1..=LAST));
    let wrong: Vec<_> = wrong.collect();
    let missing = format!("{} pages missed or repeated events, such as {:?}", wrong.len(), wrong.first());
    outcome.expect(wrong.is_empty(), missing);
    let live = timelines.iter().flatten();
    let (at_once, staggered): (Vec<&Arrival>, Vec<&Arrival>) =
        live.filter(|arrival| arrival.seq > 2).partition(|arrival| arrival.seq == LAST);
    let mut told = |when: &str, arrivals: &[&Arrival]| {
        let delay = |arrival: &&Arrival| rig.on_database_clock(arrival.at) - arrival.made;
        let mut delays: Vec<Duration> =
            arrivals.iter().map(|arrival| delay(arrival).to_std().unwrap_or_default()).collect();
        delays.sort_unstable();
        let [half, most, all] = [0.5, 0.99, 1.0].map(|at| quantile(&delays, at).unwrap_or_default());
        let [half_ms, most_ms, all_ms] = [half, most, all].map(|delay| delay.as_millis());
        outcome.note(format!("{when} {half_ms} ms p50, {most_ms} ms p99, {all_ms} ms max"));
        most
    };
    let p99 = told("one after the other", &staggered);
    told("all at one moment", &at_once);
    outcome.expect(p99 <= LIVE_WITHIN, format!("p99 of the delay to the reader was {p99:?}"));
}

#[expect(clippy::cast_precision_loss, reason = "kilobytes of a process")]
fn per(held: u64, pages: usize) -> f64 {
    held as f64 / pages.max(1) as f64
}

/// An event as it came.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    seq: u8,
    /// The event's own stamp.
    made: DateTime<Utc>,
    at: Instant,
}

/// One connection that reads at once whatever comes.
struct Page {
    http: Client,
    targets: Targets,
    number: usize,
    /// How many pages have seen the timeline so far.
    open: Arc<AtomicUsize>,
}

impl Page {
    async fn follow(self, order_id: String, deadline: Instant) -> Result<Vec<Arrival>> {
        let url = self.targets.pick(self.number).context("nobody listens")?;
        let answer = self.http.get(format!("{url}/orders/{order_id}/events")).send().await?;
        let (mut stream, mut seen) = (EventStream::of(answer.error_for_status()?), Vec::new());
        loop {
            let frame = timeout_at(deadline, stream.next()).await;
            let frame = frame.with_context(|| format!("{order_id}: only {seen:?} by now"))??;
            let at = Instant::now();
            let Some(Frame { id: Some(seq), data, .. }) = frame else { return Ok(seen) };
            let event: Value = serde_json::from_str(&data)?;
            let made = event["timestamp"].as_str().context("no timestamp")?.parse()?;
            seen.push(Arrival { seq, made, at });
            if seen.len() == 2 {
                self.open.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
