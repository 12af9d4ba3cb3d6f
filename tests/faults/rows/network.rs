//! Faults between the service and PostgreSQL: F7, F8, F9.

use std::time::Duration;

use anyhow::Result;
use testkit::Part;
use tokio::time::sleep;

use crate::{
    check,
    proxy::{Loss, Mode},
    report::Outcome,
    rig::{REFUSED_WITHIN, Rig},
};

pub(crate) async fn replies_lost(rig: &mut Rig) -> Result<Outcome> {
    let proxy = rig.proxy_to_postgres().await?;
    rig.fleet.start_all(2).await?;
    proxy.lose(Some(Loss::Commit(2)));
    let history = rig.load(rig.plan(33.0)).end().await?;
    let commits = proxy.lost();
    // The same for what has no COMMIT: single statements, those of the loops among them.
    proxy.lose(Some(Loss::Statement(20)));
    let mut plan = rig.plan(33.0);
    plan.name += "-s";
    plan.orders /= 4;
    let more = rig.load(plan).end().await?;
    proxy.lose(None);
    let (all, statements) = (joined(history, more), proxy.lost() - commits);
    let mut outcome = rig.finish(&all).await?;
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

pub(crate) async fn black_hole(rig: &mut Rig) -> Result<Outcome> {
    let proxy = rig.proxy_to_postgres().await?;
    rig.fleet.start_all(2).await?;
    let load = rig.load(rig.plan(30.0));
    let dark = Duration::from_secs(if rig.scale.orders < 1_000 { 5 } else { 20 });
    sleep(Duration::from_secs(2)).await;
    // First single connections: what they wrote is there, and whoever wrote it will not know.
    proxy.lose(Some(Loss::Silence(5)));
    sleep(Duration::from_secs(4)).await;
    proxy.lose(None);
    rig.ready_again();
    sleep(Duration::from_secs(3)).await;
    rig.strike();
    let frozen = rig.servers.freeze(Part::Postgres).await?;
    sleep(dark).await;
    frozen.thaw().await;
    rig.ready_again();
    sleep(Duration::from_secs(6)).await;
    for hole in [Mode::HoleBack, Mode::Hole] {
        rig.strike();
        proxy.set(hole);
        sleep(dark / 2).await;
        proxy.set(Mode::Pass);
        rig.ready_again();
        sleep(Duration::from_secs(6)).await;
    }
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    rig.said_so(&mut outcome);
    outcome.note(format!("{} connections went silent after a COMMIT", proxy.lost()));
    outcome.at_most("slowest answer", history.slowest(), Duration::from_secs(3));
    outcome.recovery("first step", rig.longest_standstill(&history).await?, Duration::from_secs(5));
    outcome.recovery("first 201", rig.longest_refusal(&history), Duration::from_secs(5));
    Ok(outcome)
}

pub(crate) async fn slow(rig: &mut Rig) -> Result<Outcome> {
    let proxy = rig.proxy_to_postgres().await?;
    rig.fleet.start_all(2).await?;
    let load = rig.load(rig.plan(50.0));
    let lasting = Duration::from_secs(if rig.scale.orders < 1_000 { 3 } else { 10 });
    rig.strike();
    proxy.set(Mode::Slow { least: Duration::from_millis(100), jitter: Duration::from_millis(200) });
    sleep(lasting).await;
    proxy.set(Mode::Pass);
    let after_slow = check::on_time(&rig.db, Duration::from_secs(30)).await?;
    sleep(Duration::from_secs(2)).await;
    rig.strike();
    let mut lock = rig.db.begin().await?;
    sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
    sleep(lasting).await;
    lock.rollback().await?;
    rig.ready_again();
    let after_lock = check::on_time(&rig.db, Duration::from_secs(30)).await?;
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.recovery("nothing overdue after the slow net", after_slow, Duration::from_secs(10));
    outcome.recovery("nothing overdue after the lock", after_lock, Duration::from_secs(10));
    outcome.at_most("first 201", rig.longest_refusal(&history), Duration::from_secs(5));
    outcome.at_most("slowest answer", history.slowest(), Duration::from_secs(3));
    Ok(outcome)
}
