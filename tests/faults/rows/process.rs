//! Faults of our own processes: F0, F1, F2, F21, F22.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{bench::Bench, check::OutboxWatch, load::Plan, report::Outcome, stack::POLL};

pub(crate) async fn calm(bench: &mut Bench) -> Result<Outcome> {
    bench.fleet.start_all(1).await?;
    let history = bench.load(bench.plan(100.0)).end().await?;
    let mut outcome = bench.finish(&history).await?;
    let late = bench.lateness(0.99).await?;
    outcome.recovery("p99 lateness", late, Duration::from_millis(250));
    let (orders, wanted) = (outcome.orders, bench.scale.orders);
    outcome.expect(orders == wanted, format!("{orders} orders stored, {wanted} placed"));
    outcome.expect(outcome.duplicates == 0, "duplicates without a fault");
    Ok(outcome)
}

pub(crate) async fn killed(bench: &mut Bench) -> Result<Outcome> {
    bench.fleet.start_all(1).await?;
    let load = bench.load(bench.plan(33.0));
    while load.goes_on() || bench.strikes < 3 {
        bench.pause(500..3_000).await;
        bench.strike();
        bench.fleet.kill(0).await?;
        bench.fleet.start(0).await?;
        bench.ready_again();
    }
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    let standstill = bench.longest_standstill(&history).await?;
    outcome.recovery("first step after listening", standstill, Duration::from_secs(2));
    outcome.at_most("slowest start", bench.fleet.slowest_start, Duration::from_secs(2));
    Ok(outcome)
}

pub(crate) async fn terminated(bench: &mut Bench) -> Result<Outcome> {
    bench.fleet.start_all(2).await?;
    let load = bench.load(bench.plan(50.0));
    let (mut slowest, mut wrong) = (Duration::ZERO, Vec::new());
    while load.goes_on() || bench.strikes < 2 {
        bench.pause(300..1_500).await;
        let slot = bench.strikes % 2;
        bench.strike();
        let (status, took) = bench.fleet.stop(slot).await?;
        slowest = slowest.max(took);
        wrong.extend((!status.success()).then(|| status.to_string()));
        bench.fleet.start(slot).await?;
    }
    let history = load.end().await?;
    let committed = leave_at_once(bench).await?;
    bench.fleet.start(0).await?;
    let impatient = second_signal(bench).await?;
    // Somebody must finish what they left.
    bench.fleet.start_all(2).await?;
    let mut outcome = bench.finish(&history).await?;
    outcome.recovery("slowest exit", slowest, Duration::from_secs(10));
    outcome.expect(wrong.is_empty(), format!("exits: {wrong:?}"));
    let cut = history.placed.iter().filter(|placed| placed.replayed).count();
    outcome.expect(cut == 0, format!("{cut} orders were stored and their answers cut"));
    outcome.at_most("exit after a second signal", impatient, Duration::from_secs(1));
    outcome.expect(committed == 0, format!("{committed} offsets were not committed on the way out"));
    Ok(outcome)
}

/// Stops all replicas as soon as they have read what was just placed, well before offsets would be
/// committed by themselves; answers how many messages would be read again.
async fn leave_at_once(bench: &mut Bench) -> Result<i64> {
    bench.settle().await;
    bench.topic.caught_up(&bench.group, Duration::from_secs(30)).await?;
    let before = consumed(bench).await?;
    let orders: u64 = 20;
    let plan = Plan { orders: 20, name: format!("{}-last", bench.name), ..bench.plan(1_000.0) };
    bench.load(plan).end().await?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while consumed(bench).await? < before + orders && Instant::now() < deadline {
        sleep(POLL).await;
    }
    bench.fleet.stop_all().await?;
    bench.topic.lag(&bench.group).await
}

/// How many messages all replicas say to have handled.
async fn consumed(bench: &Bench) -> Result<u64> {
    let mut sum = 0;
    for slot in bench.fleet.slots() {
        let url = format!("{}/metrics", bench.fleet.replica(slot)?.url);
        let text = reqwest::Client::builder().no_proxy().build()?.get(url).send().await?.text().await?;
        let count = text.lines().find_map(|line| line.strip_prefix("orders_consumed_total "));
        sum += count.context("not counted")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// How long a process with an open request takes to end after its second signal.
async fn second_signal(bench: &mut Bench) -> Result<Duration> {
    let url = bench.fleet.replica(0)?.url.clone();
    let mut open = TcpStream::connect(url.trim_start_matches("http://")).await?;
    open.write_all(
        b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
    )
    .await?;
    sleep(Duration::from_millis(300)).await;
    bench.fleet.signal(0, "TERM").await?;
    // Closer together they would be one wish, told twice.
    sleep(Duration::from_millis(600)).await;
    let asked = Instant::now();
    bench.fleet.signal(0, "TERM").await.context("it ended before the second signal")?;
    bench.fleet.ended(0).await?;
    Ok(asked.elapsed())
}

pub(crate) async fn racing(bench: &mut Bench) -> Result<Outcome> {
    bench.fleet.start_all(3).await?;
    let outbox = OutboxWatch::start(bench.db.clone());
    let load = bench.load(bench.plan(33.0));
    while load.goes_on() || bench.strikes < 2 {
        sleep(Duration::from_secs(3)).await;
        let slot = bench.strikes % 3;
        bench.strike();
        bench.fleet.kill(slot).await?;
        bench.ready_again();
        bench.fleet.start(slot).await?;
    }
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    let standstill = bench.longest_standstill(&history).await?;
    outcome.at_most("survivors stood still for", standstill, Duration::from_secs(2));
    outcome.recovery("oldest unsent order", outbox.oldest(), Duration::from_secs(5));
    Ok(outcome)
}

pub(crate) async fn zombie(bench: &mut Bench) -> Result<Outcome> {
    bench.fleet.start_all(2).await?;
    let load = bench.load(bench.plan(50.0));
    while load.goes_on() || bench.strikes < 2 {
        sleep(Duration::from_secs(2)).await;
        bench.strike();
        let frozen = bench.fleet.freeze(0).await?;
        // Longer than a replica that gives no sign of life keeps its outbox rows.
        sleep(Duration::from_secs(7)).await;
        frozen.thaw().await;
        bench.ready_again();
    }
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    let standstill = bench.longest_standstill(&history).await?;
    outcome.recovery("first step after waking", standstill, Duration::from_secs(2));
    Ok(outcome)
}
