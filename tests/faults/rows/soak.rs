//! Everything at random, for half an hour; the seed that was printed makes the same again.

use std::time::Duration;

use anyhow::Result;
use rand::seq::IndexedRandom as _;
use testkit::Part;
use tokio::time::sleep;

use crate::{
    load::Plan,
    proxy::{Loss, Mode, Proxy},
    report::Outcome,
    rig::Rig,
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

pub(crate) async fn soak(rig: &mut Rig) -> Result<Outcome> {
    let proxy = rig.proxy_to_postgres().await?;
    rig.fleet.start_all(REPLICAS).await?;
    let load = rig.load(Plan { orders: rig.scale.orders * 5, ..rig.plan(RATE) });
    let (mut done, mut sent_again) = (Vec::new(), 0);
    while load.goes_on() || done.is_empty() {
        rig.pause(2_000..6_000).await;
        let fault = *FAULTS.choose(&mut rig.dice).unwrap_or(&Fault::Killed);
        rig.strike();
        sent_again += run(rig, &proxy, fault).await?;
        rig.ready_again();
        done.push(fault);
    }
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.recovery("first step", rig.longest_standstill(&history).await?, Duration::from_secs(5));
    done.sort_unstable();
    let counts = done.chunk_by(|one, other| one == other);
    let counts: Vec<String> = counts.map(|same| format!("{:?} {}", same[0], same.len())).collect();
    outcome.note(format!("seed {}: {}", rig.scale.seed, counts.join(", ")));
    outcome.note(format!("{sent_again} messages sent again by hand"));
    Ok(outcome)
}

/// Breaks one thing and mends it; answers how many messages it put on the topic.
async fn run(rig: &mut Rig, proxy: &Proxy, fault: Fault) -> Result<usize> {
    let slot = rig.strikes % REPLICAS;
    match fault {
        Fault::Killed => {
            rig.fleet.kill(slot).await?;
            rig.pause(0..2_000).await;
            rig.fleet.start(slot).await?;
        }
        Fault::Terminated => {
            rig.fleet.stop(slot).await?;
            rig.pause(0..2_000).await;
            rig.fleet.start(slot).await?;
        }
        Fault::Frozen => {
            let frozen = rig.fleet.freeze(slot).await?;
            rig.pause(1_000..8_000).await;
            frozen.thaw().await;
        }
        Fault::PostgresRestarted => {
            rig.servers.stop(Part::Postgres).await?;
            rig.pause(0..2_000).await;
            rig.servers.start(Part::Postgres).await?;
        }
        Fault::PostgresKilled => {
            rig.servers.kill(Part::Postgres).await?;
            rig.pause(0..2_000).await;
            rig.servers.start(Part::Postgres).await?;
        }
        Fault::PostgresFrozen => {
            let frozen = rig.servers.freeze(Part::Postgres).await?;
            rig.pause(1_000..8_000).await;
            frozen.thaw().await;
        }
        Fault::KafkaKilled => {
            rig.servers.kill(Part::Kafka).await?;
            rig.pause(0..8_000).await;
            rig.servers.start(Part::Kafka).await?;
        }
        Fault::KafkaFrozen => {
            let frozen = rig.servers.freeze(Part::Kafka).await?;
            rig.pause(1_000..8_000).await;
            frozen.thaw().await;
        }
        Fault::MessagesAgain => {
            let messages = rig.topic.read().await?;
            let few: Vec<_> = messages.into_iter().rev().take(500).collect();
            let count = few.len();
            rig.topic.send(few).await?;
            return Ok(count);
        }
        _ => on_the_way(rig, proxy, fault).await?,
    }
    Ok(0)
}

/// Faults between the replicas and a database that is well.
async fn on_the_way(rig: &mut Rig, proxy: &Proxy, fault: Fault) -> Result<()> {
    match fault {
        Fault::RepliesLost => {
            proxy.lose(Some(Loss::Commit(2)));
            rig.pause(2_000..5_000).await;
            proxy.lose(None);
        }
        Fault::NetworkSlow => {
            proxy.set(Mode::Slow { least: Duration::from_millis(50), jitter: Duration::from_millis(200) });
            rig.pause(2_000..8_000).await;
            proxy.set(Mode::Pass);
        }
        Fault::NetworkDark => {
            proxy.set(if rig.strikes.is_multiple_of(2) { Mode::Hole } else { Mode::HoleBack });
            rig.pause(1_000..8_000).await;
            proxy.set(Mode::Pass);
        }
        Fault::TableLocked => {
            let mut lock = rig.db.begin().await?;
            sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
            sleep(Duration::from_secs(4)).await;
            lock.rollback().await?;
        }
        // All sessions but those of this programme.
        _ => {
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE 'order-tracker %'";
            sqlx::query(sql).execute(&rig.db).await?;
        }
    }
    Ok(())
}
