//! Faults of Kafka: F12, F13, F14, F15.

use std::time::Duration;

use anyhow::Result;
use testkit::Part;
use tokio::time::{Instant, sleep};

use crate::{
    check,
    load::{History, Plan},
    report::Outcome,
    rig::Rig,
};

/// How long the orders that waited may take once the broker is back.
pub(super) const OUT_WITHIN: Duration = Duration::from_secs(10);
/// Two quantiles closer than this are the same on a busy machine.
const NOISE: Duration = Duration::from_millis(20);

pub(crate) async fn down(rig: &mut Rig) -> Result<Outcome> {
    let ci = rig.scale.ci;
    let (rate, before, outage) = if ci { (20.0, 3, 5) } else { (100.0, 10, 60) };
    let orders = if ci { rig.scale.orders } else { rig.scale.orders.max(8_000) };
    rig.fleet.start_all(1).await?;
    let load = rig.load(Plan { orders, ..rig.plan(rate) });
    // The first second warms up.
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    sleep(Duration::from_secs(before)).await;
    rig.strike();
    let struck = Instant::now();
    rig.servers.kill(Part::Kafka).await?;
    sleep(Duration::from_secs(outage)).await;
    let over = Instant::now();
    rig.servers.start(Part::Kafka).await?;
    let out = emptied(rig).await;
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.recovery("what waited was out", out, OUT_WITHIN);
    rig.said_so(&mut outcome);
    compare(&mut outcome, &history, [begun, struck, over]);
    outcome.expect(outcome.duplicates == 0, format!("{} duplicates", outcome.duplicates));
    Ok(outcome)
}

/// The customers must not notice: all 201, and about as fast.
fn compare(outcome: &mut Outcome, history: &History, [begun, struck, over]: [Instant; 3]) {
    let before = history.latency(0.99, begun, struck);
    let during = history.latency(0.99, struck, over);
    outcome.note(format!("p99 {before:.1?} before, {during:.1?} during"));
    let by_tens: Vec<String> = (0..12)
        .map(|tens| struck + Duration::from_secs(10) * tens)
        .take_while(|from| *from < over)
        .map(|from| format!("{:.0?}", history.latency(0.99, from, over.min(from + Duration::from_secs(10)))))
        .collect();
    outcome.note(format!("p99 in each ten seconds of it: {}", by_tens.join(" ")));
    let limit = before.mul_f64(1.5).max(before + NOISE);
    outcome.expect(during <= limit, format!("p99 was {before:.1?} before and {during:.1?} during"));
    let failed = history.attempts.iter().filter(|attempt| attempt.status != Some(201)).count();
    outcome.expect(failed == 0, format!("{failed} tries got no 201"));
}

/// How long the outbox takes to hold no order older than a second.
pub(super) async fn emptied(rig: &Rig) -> Duration {
    let (db, started) = (&rig.db, Instant::now());
    let sql = "SELECT count(*) FROM outbox WHERE created_at < clock_timestamp() - interval '1 second'";
    while started.elapsed() < Duration::from_mins(1) {
        if matches!(sqlx::query_scalar::<_, i64>(sql).fetch_one(db).await, Ok(0)) {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    started.elapsed()
}

pub(crate) async fn frozen(rig: &mut Rig) -> Result<Outcome> {
    let lasting = Duration::from_secs(if rig.scale.orders < 1_000 { 8 } else { 30 });
    rig.fleet.start_all(1).await?;
    let load = rig.load(Plan { orders: rig.scale.orders * 2, ..rig.plan(100.0) });
    sleep(Duration::from_secs(3)).await;
    rig.strike();
    let frozen = rig.servers.freeze(Part::Kafka).await?;
    sleep(lasting).await;
    frozen.thaw().await;
    let out = emptied(rig).await;
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.recovery("what waited was out", out, OUT_WITHIN);
    rig.said_so(&mut outcome);
    // What one second brings is what may have been on its way.
    outcome.expect(outcome.duplicates <= 100, format!("{} duplicates", outcome.duplicates));
    let failed = history.attempts.iter().filter(|attempt| attempt.status != Some(201)).count();
    outcome.expect(failed == 0, format!("{failed} tries got no 201"));
    Ok(outcome)
}

pub(crate) async fn killed(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(1).await?;
    let load = rig.load(rig.plan(40.0));
    let mut slowest = Duration::ZERO;
    while load.goes_on() && rig.strikes < 5 {
        rig.pause(1_000..3_000).await;
        rig.strike();
        rig.servers.kill(Part::Kafka).await?;
        rig.servers.start(Part::Kafka).await?;
        slowest = slowest.max(emptied(rig).await);
    }
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.recovery("what waited was out", slowest, OUT_WITHIN);
    let (duplicates, orders) = (outcome.duplicates, outcome.orders);
    outcome.expect(duplicates * 100 <= orders, format!("{duplicates} duplicates"));
    Ok(outcome)
}

pub(crate) async fn rebalances(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(3).await?;
    let load = rig.load(rig.plan(33.0));
    while load.goes_on() || rig.strikes < 4 {
        sleep(Duration::from_secs(2)).await;
        rig.strike();
        if rig.strikes % 2 == 1 {
            rig.fleet.stop(2).await?;
        } else {
            rig.fleet.start(2).await?;
        }
    }
    let history = load.end().await?;
    let caught_up = rig.topic.caught_up(&rig.group, Duration::from_mins(1)).await?;
    let late = check::on_time(&rig.db, Duration::from_secs(10)).await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.recovery("nothing left to consume", caught_up, Duration::from_secs(15));
    outcome.note(format!("nothing overdue after {late:.1?}"));
    Ok(outcome)
}
