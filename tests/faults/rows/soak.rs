//! Everything at random, for half an hour; the seed that was printed makes the same again.

use std::time::Duration;

use anyhow::Result;
use rand::seq::IndexedRandom as _;
use tokio::time::sleep;

use crate::{
    bench::Bench,
    load::Plan,
    proxy::{Loss, Mode, Proxy},
    report::Outcome,
    stack::Part,
};

/// Orders a second: five times what other rows place in half an hour.
const RATE: f64 = 5.6;
/// Replicas.
const REPLICAS: usize = 3;

/// What may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Killed,
    Terminated,
    Frozen,
    PostgresRestarted,
    PostgresKilled,
    PostgresFrozen,
    SessionsTerminated,
    RepliesLost,
    NetworkSlow,
    NetworkDark,
    TableLocked,
    KafkaKilled,
    KafkaFrozen,
    MessagesAgain,
}

const FAULTS: [Fault; 14] = [
    Fault::Killed,
    Fault::Terminated,
    Fault::Frozen,
    Fault::PostgresRestarted,
    Fault::PostgresKilled,
    Fault::PostgresFrozen,
    Fault::SessionsTerminated,
    Fault::RepliesLost,
    Fault::NetworkSlow,
    Fault::NetworkDark,
    Fault::TableLocked,
    Fault::KafkaKilled,
    Fault::KafkaFrozen,
    Fault::MessagesAgain,
];

pub(crate) async fn soak(bench: &mut Bench) -> Result<Outcome> {
    let proxy = bench.proxy_to_postgres().await?;
    bench.fleet.start_all(REPLICAS).await?;
    let load = bench.load(Plan { orders: bench.scale.orders * 5, ..bench.plan(RATE) });
    let (mut played, mut sent_again) = (Vec::new(), 0);
    while load.goes_on() || played.is_empty() {
        bench.pause(2_000..6_000).await;
        let fault = *FAULTS.choose(&mut bench.dice).unwrap_or(&Fault::Killed);
        bench.strike();
        sent_again += play(bench, &proxy, fault).await?;
        bench.ready_again();
        played.push(fault);
    }
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    outcome.recovery("first step", bench.longest_standstill(&history).await?, Duration::from_secs(5));
    played.sort_unstable();
    let counts = played.chunk_by(|one, other| one == other);
    let counts: Vec<String> = counts.map(|same| format!("{:?} {}", same[0], same.len())).collect();
    outcome.note(format!("seed {}: {}", bench.scale.seed, counts.join(", ")));
    outcome.note(format!("{sent_again} messages sent again by hand"));
    Ok(outcome)
}

/// Breaks one thing and mends it; answers how many messages it put on the topic.
async fn play(bench: &mut Bench, proxy: &Proxy, fault: Fault) -> Result<usize> {
    let slot = bench.strikes % REPLICAS;
    match fault {
        Fault::Killed => {
            bench.fleet.kill(slot).await?;
            bench.pause(0..2_000).await;
            bench.fleet.start(slot).await?;
        }
        Fault::Terminated => {
            bench.fleet.stop(slot).await?;
            bench.pause(0..2_000).await;
            bench.fleet.start(slot).await?;
        }
        Fault::Frozen => {
            let frozen = bench.fleet.freeze(slot).await?;
            bench.pause(1_000..8_000).await;
            frozen.thaw().await;
        }
        Fault::PostgresRestarted => {
            bench.stack.stop(Part::Postgres).await?;
            bench.pause(0..2_000).await;
            bench.stack.start(Part::Postgres).await?;
        }
        Fault::PostgresKilled => {
            bench.stack.kill(Part::Postgres).await?;
            bench.pause(0..2_000).await;
            bench.stack.start(Part::Postgres).await?;
        }
        Fault::PostgresFrozen => {
            let frozen = bench.stack.freeze(Part::Postgres).await?;
            bench.pause(1_000..8_000).await;
            frozen.thaw().await;
        }
        Fault::KafkaKilled => {
            bench.stack.kill(Part::Kafka).await?;
            bench.pause(0..8_000).await;
            bench.stack.start(Part::Kafka).await?;
        }
        Fault::KafkaFrozen => {
            let frozen = bench.stack.freeze(Part::Kafka).await?;
            bench.pause(1_000..8_000).await;
            frozen.thaw().await;
        }
        Fault::MessagesAgain => {
            let messages = bench.topic.read().await?;
            let few: Vec<_> = messages.into_iter().rev().take(500).collect();
            let count = few.len();
            bench.topic.send(few).await?;
            return Ok(count);
        }
        _ => on_the_way(bench, proxy, fault).await?,
    }
    Ok(0)
}

/// Faults between the replicas and a database that is well.
async fn on_the_way(bench: &mut Bench, proxy: &Proxy, fault: Fault) -> Result<()> {
    match fault {
        Fault::RepliesLost => {
            proxy.lose(Some(Loss::Commit(2)));
            bench.pause(2_000..5_000).await;
            proxy.lose(None);
        }
        Fault::NetworkSlow => {
            proxy.set(Mode::Slow { least: Duration::from_millis(50), jitter: Duration::from_millis(200) });
            bench.pause(2_000..8_000).await;
            proxy.set(Mode::Pass);
        }
        Fault::NetworkDark => {
            proxy.set(if bench.strikes.is_multiple_of(2) { Mode::Hole } else { Mode::HoleBack });
            bench.pause(1_000..8_000).await;
            proxy.set(Mode::Pass);
        }
        Fault::TableLocked => {
            let mut lock = bench.db.begin().await?;
            sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
            sleep(Duration::from_secs(4)).await;
            lock.rollback().await?;
        }
        // All sessions but those of this programme.
        _ => {
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE 'order-tracker %'";
            sqlx::query(sql).execute(&bench.db).await?;
        }
    }
    Ok(())
}
