//! Faults of our own processes: F0, F1, F2, F21, F22.

use std::time::Duration;

use anyhow::{Context as _, Result};
use testkit::POLL;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{check::OutboxWatch, load::Plan, report::Outcome, rig::Rig};

pub(crate) async fn calm(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(1).await?;
    let history = rig.load(rig.plan(100.0)).end().await?;
    let mut outcome = rig.finish(&history).await?;
    let late = rig.lateness(0.99).await?;
    outcome.recovery("p99 lateness", late, Duration::from_millis(250));
    let (orders, wanted) = (outcome.orders, rig.scale.orders);
    outcome.expect(orders == wanted, format!("{orders} orders stored, {wanted} placed"));
    outcome.expect(outcome.duplicates == 0, "duplicates without a fault");
    Ok(outcome)
}

pub(crate) async fn killed(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(1).await?;
    let load = rig.load(rig.plan(33.0));
    while load.goes_on() || rig.strikes < 3 {
        rig.pause(500..3_000).await;
        rig.strike();
        rig.fleet.kill(0).await?;
        rig.fleet.start(0).await?;
        rig.ready_again();
    }
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    let standstill = rig.longest_standstill(&history).await?;
    outcome.recovery("first step after listening", standstill, Duration::from_secs(2));
    outcome.at_most("slowest start", rig.fleet.slowest_start, Duration::from_secs(2));
    Ok(outcome)
}

pub(crate) async fn terminated(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(2).await?;
    let load = rig.load(rig.plan(50.0));
    let (mut slowest, mut wrong) = (Duration::ZERO, Vec::new());
    while load.goes_on() || rig.strikes < 2 {
        rig.pause(300..1_500).await;
        let slot = rig.strikes % 2;
        rig.strike();
        let (status, took) = rig.fleet.stop(slot).await?;
        slowest = slowest.max(took);
        wrong.extend((!status.success()).then(|| status.to_string()));
        rig.fleet.start(slot).await?;
    }
    let history = load.end().await?;
    let committed = leave_at_once(rig).await?;
    rig.fleet.start(0).await?;
    let impatient = second_signal(rig).await?;
    // Somebody must finish what they left.
    rig.fleet.start_all(2).await?;
    let mut outcome = rig.finish(&history).await?;
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
async fn leave_at_once(rig: &mut Rig) -> Result<i64> {
    rig.settle().await;
    rig.topic.caught_up(&rig.group, Duration::from_secs(30)).await?;
    let before = consumed(rig).await?;
    let orders: u64 = 20;
    let plan = Plan { orders: 20, name: format!("{}-last", rig.name), ..rig.plan(1_000.0) };
    rig.load(plan).end().await?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while consumed(rig).await? < before + orders && Instant::now() < deadline {
        sleep(POLL).await;
    }
    rig.fleet.stop_all().await?;
    rig.topic.lag(&rig.group).await
}

/// How many messages all replicas say to have handled.
async fn consumed(rig: &Rig) -> Result<u64> {
    let mut sum = 0;
    for slot in rig.fleet.slots() {
        let text = rig.fleet.replica(slot)?.get("/metrics").await?;
        let count = text.lines().find_map(|line| line.strip_prefix("orders_consumed_total "));
        sum += count.context("not counted")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// How long a process with an open request takes to end after its second signal.
async fn second_signal(rig: &mut Rig) -> Result<Duration> {
    let url = rig.fleet.replica(0)?.url.clone();
    let mut open = TcpStream::connect(url.trim_start_matches("http://")).await?;
    open.write_all(
        b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
    )
    .await?;
    sleep(Duration::from_millis(300)).await;
    rig.fleet.signal(0, "TERM").await?;
    // Closer together they would count as one request to stop.
    sleep(Duration::from_millis(600)).await;
    let asked = Instant::now();
    rig.fleet.signal(0, "TERM").await.context("it ended before the second signal")?;
    rig.fleet.ended(0).await?;
    Ok(asked.elapsed())
}

pub(crate) async fn racing(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(3).await?;
    let outbox = OutboxWatch::start(rig.db.clone());
    let load = rig.load(rig.plan(33.0));
    while load.goes_on() || rig.strikes < 2 {
        sleep(Duration::from_secs(3)).await;
        let slot = rig.strikes % 3;
        rig.strike();
        rig.fleet.kill(slot).await?;
        rig.ready_again();
        rig.fleet.start(slot).await?;
    }
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    let standstill = rig.longest_standstill(&history).await?;
    outcome.at_most("survivors stood still for", standstill, Duration::from_secs(2));
    outcome.recovery("oldest unsent order", outbox.oldest(), Duration::from_secs(5));
    Ok(outcome)
}

pub(crate) async fn zombie(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(2).await?;
    let load = rig.load(rig.plan(50.0));
    while load.goes_on() || rig.strikes < 2 {
        sleep(Duration::from_secs(2)).await;
        rig.strike();
        let frozen = rig.fleet.freeze(0).await?;
        // Longer than a replica that gives no sign of life keeps its outbox rows.
        sleep(Duration::from_secs(7)).await;
        frozen.thaw().await;
        rig.ready_again();
    }
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    let standstill = rig.longest_standstill(&history).await?;
    outcome.recovery("first step after waking", standstill, Duration::from_secs(2));
    Ok(outcome)
}
