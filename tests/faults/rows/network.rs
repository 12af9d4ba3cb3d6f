//! Faults between the service and PostgreSQL: F7, F8, F9.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::{
    bench::{Bench, REFUSED_WITHIN},
    check,
    proxy::{Loss, Mode},
    report::Outcome,
    stack::Part,
};

pub(crate) async fn replies_lost(bench: &mut Bench) -> Result<Outcome> {
    let proxy = bench.proxy_to_postgres().await?;
    bench.fleet.start_all(2).await?;
    proxy.lose(Some(Loss::Commit(2)));
    let history = bench.load(bench.plan(33.0)).end().await?;
    let commits = proxy.lost();
    // The same for what has no COMMIT: single statements, those of the loops among them.
    proxy.lose(Some(Loss::Statement(20)));
    let mut plan = bench.plan(33.0);
    plan.name += "-s";
    plan.orders /= 4;
    let more = bench.load(plan).end().await?;
    proxy.lose(None);
    let (all, statements) = (joined(history, more), proxy.lost() - commits);
    let mut outcome = bench.finish(&all).await?;
    outcome.note(format!("{commits} replies to COMMIT and {statements} others lost"));
    outcome.expect(
        commits * 20 >= outcome.orders as u64 / 4,
        format!("only {commits} replies to COMMIT were lost"),
    );
    let (orders, wanted) = (outcome.orders, all.placed.len());
    outcome.expect(orders == wanted, format!("{orders} orders stored for {wanted} keys"));
    outcome.at_most("slowest answer", all.slowest(), REFUSED_WITHIN);
    Ok(outcome)
}

fn joined(mut one: crate::load::History, other: crate::load::History) -> crate::load::History {
    one.extend(other);
    one
}

pub(crate) async fn black_hole(bench: &mut Bench) -> Result<Outcome> {
    let proxy = bench.proxy_to_postgres().await?;
    bench.fleet.start_all(2).await?;
    let load = bench.load(bench.plan(30.0));
    let dark = Duration::from_secs(if bench.scale.orders < 1_000 { 5 } else { 20 });
    sleep(Duration::from_secs(2)).await;
    // First single connections: what they wrote is there, and whoever wrote it will not know.
    proxy.lose(Some(Loss::Silence(5)));
    sleep(Duration::from_secs(4)).await;
    proxy.lose(None);
    bench.ready_again();
    sleep(Duration::from_secs(3)).await;
    bench.strike();
    let frozen = bench.stack.freeze(Part::Postgres).await?;
    sleep(dark).await;
    frozen.thaw().await;
    bench.ready_again();
    sleep(Duration::from_secs(6)).await;
    for hole in [Mode::HoleBack, Mode::Hole] {
        bench.strike();
        proxy.set(hole);
        sleep(dark / 2).await;
        proxy.set(Mode::Pass);
        bench.ready_again();
        sleep(Duration::from_secs(6)).await;
    }
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    bench.said_so(&mut outcome);
    outcome.note(format!("{} connections went silent after a COMMIT", proxy.lost()));
    outcome.at_most("slowest answer", history.slowest(), Duration::from_secs(3));
    outcome.recovery("first step", bench.longest_standstill(&history).await?, Duration::from_secs(5));
    outcome.recovery("first 201", bench.longest_refusal(&history), Duration::from_secs(5));
    Ok(outcome)
}

pub(crate) async fn slow(bench: &mut Bench) -> Result<Outcome> {
    let proxy = bench.proxy_to_postgres().await?;
    bench.fleet.start_all(2).await?;
    let load = bench.load(bench.plan(50.0));
    let lasting = Duration::from_secs(if bench.scale.orders < 1_000 { 3 } else { 10 });
    bench.strike();
    proxy.set(Mode::Slow { least: Duration::from_millis(100), jitter: Duration::from_millis(200) });
    sleep(lasting).await;
    proxy.set(Mode::Pass);
    let after_slow = check::on_time(&bench.db, Duration::from_secs(30)).await?;
    sleep(Duration::from_secs(2)).await;
    bench.strike();
    let mut lock = bench.db.begin().await?;
    sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
    sleep(lasting).await;
    lock.rollback().await?;
    bench.ready_again();
    let after_lock = check::on_time(&bench.db, Duration::from_secs(30)).await?;
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    outcome.recovery("nothing overdue after the slow net", after_slow, Duration::from_secs(10));
    outcome.recovery("nothing overdue after the lock", after_lock, Duration::from_secs(10));
    outcome.at_most("first 201", bench.longest_refusal(&history), Duration::from_secs(5));
    outcome.at_most("slowest answer", history.slowest(), Duration::from_secs(3));
    Ok(outcome)
}
