//! Faults of Kafka: F12, F13, F14, F15.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::{
    bench::Bench,
    check,
    load::{History, Plan},
    report::Outcome,
    stack::Part,
};

/// How long the orders that waited may take once the broker is back.
pub(super) const OUT_WITHIN: Duration = Duration::from_secs(10);
/// Two quantiles closer than this are the same on a busy machine.
const NOISE: Duration = Duration::from_millis(20);

pub(crate) async fn down(bench: &mut Bench) -> Result<Outcome> {
    let ci = bench.scale.ci;
    let (rate, before, outage) = if ci { (20.0, 3, 5) } else { (100.0, 10, 60) };
    let orders = if ci { bench.scale.orders } else { bench.scale.orders.max(8_000) };
    bench.fleet.start_all(1).await?;
    let load = bench.load(Plan { orders, ..bench.plan(rate) });
    // The first second warms up.
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    sleep(Duration::from_secs(before)).await;
    bench.strike();
    let struck = Instant::now();
    bench.stack.kill(Part::Kafka).await?;
    sleep(Duration::from_secs(outage)).await;
    let over = Instant::now();
    bench.stack.start(Part::Kafka).await?;
    let out = emptied(bench).await;
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    outcome.recovery("what waited was out", out, OUT_WITHIN);
    bench.said_so(&mut outcome);
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
pub(super) async fn emptied(bench: &Bench) -> Duration {
    let (db, started) = (&bench.db, Instant::now());
    let sql = "SELECT count(*) FROM outbox WHERE created_at < clock_timestamp() - interval '1 second'";
    while started.elapsed() < Duration::from_mins(1) {
        if matches!(sqlx::query_scalar::<_, i64>(sql).fetch_one(db).await, Ok(0)) {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    started.elapsed()
}

pub(crate) async fn frozen(bench: &mut Bench) -> Result<Outcome> {
    let lasting = Duration::from_secs(if bench.scale.orders < 1_000 { 8 } else { 30 });
    bench.fleet.start_all(1).await?;
    let load = bench.load(Plan { orders: bench.scale.orders * 2, ..bench.plan(100.0) });
    sleep(Duration::from_secs(3)).await;
    bench.strike();
    let frozen = bench.stack.freeze(Part::Kafka).await?;
    sleep(lasting).await;
    frozen.thaw().await;
    let out = emptied(bench).await;
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    outcome.recovery("what waited was out", out, OUT_WITHIN);
    bench.said_so(&mut outcome);
    // What one second brings is what may have been on its way.
    outcome.expect(outcome.duplicates <= 100, format!("{} duplicates", outcome.duplicates));
    let failed = history.attempts.iter().filter(|attempt| attempt.status != Some(201)).count();
    outcome.expect(failed == 0, format!("{failed} tries got no 201"));
    Ok(outcome)
}

pub(crate) async fn killed(bench: &mut Bench) -> Result<Outcome> {
    bench.fleet.start_all(1).await?;
    let load = bench.load(bench.plan(40.0));
    let mut slowest = Duration::ZERO;
    while load.goes_on() && bench.strikes < 5 {
        bench.pause(1_000..3_000).await;
        bench.strike();
        bench.stack.kill(Part::Kafka).await?;
        bench.stack.start(Part::Kafka).await?;
        slowest = slowest.max(emptied(bench).await);
    }
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    outcome.recovery("what waited was out", slowest, OUT_WITHIN);
    let (duplicates, orders) = (outcome.duplicates, outcome.orders);
    outcome.expect(duplicates * 100 <= orders, format!("{duplicates} duplicates"));
    Ok(outcome)
}

pub(crate) async fn rebalances(bench: &mut Bench) -> Result<Outcome> {
    bench.fleet.start_all(3).await?;
    let load = bench.load(bench.plan(33.0));
    while load.goes_on() || bench.strikes < 4 {
        sleep(Duration::from_secs(2)).await;
        bench.strike();
        if bench.strikes % 2 == 1 {
            bench.fleet.stop(2).await?;
        } else {
            bench.fleet.start(2).await?;
        }
    }
    let history = load.end().await?;
    let caught_up = bench.topic.caught_up(&bench.group, Duration::from_mins(1)).await?;
    let late = check::on_time(&bench.db, Duration::from_secs(10)).await?;
    let mut outcome = bench.finish(&history).await?;
    outcome.recovery("nothing left to consume", caught_up, Duration::from_secs(15));
    outcome.note(format!("nothing overdue after {late:.1?}"));
    Ok(outcome)
}
