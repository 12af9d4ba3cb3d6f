//! Faults of PostgreSQL: F3, F4, F5, F10, F11.

use std::time::Duration;

use anyhow::Result;
use order_tracker::order::promises;
use sqlx::{Connection as _, PgConnection};
use testkit::Part;
use tokio::{
    process::Command,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::LeftOut;
use crate::{
    app::Targets,
    check,
    load::Plan,
    report::Outcome,
    rig::{REFUSED_WITHIN, Rig},
};

/// What both kinds of restart must reach.
const RECOVERY: Duration = promises::OVERDUE_AFTER;

pub(crate) async fn restarted(rig: &mut Rig) -> Result<Outcome> {
    down_and_up(rig, false).await
}

pub(crate) async fn killed(rig: &mut Rig) -> Result<Outcome> {
    down_and_up(rig, true).await
}

async fn down_and_up(rig: &mut Rig, kill: bool) -> Result<Outcome> {
    rig.fleet.start_all(2).await?;
    let load = rig.load(rig.plan(if rig.scale.ci { 12.0 } else { 33.0 }));
    while load.goes_on() || rig.strikes < 3 {
        rig.pause(2_200..4_000).await;
        rig.strike();
        if kill {
            rig.servers.kill(Part::Postgres).await?;
        } else {
            rig.servers.stop(Part::Postgres).await?;
        }
        rig.pause(0..2_000).await;
        rig.servers.start(Part::Postgres).await?;
        rig.ready_again();
    }
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.recovery("first step", rig.longest_standstill(&history).await?, RECOVERY);
    outcome.recovery("first 201", rig.longest_refusal(&history), RECOVERY);
    outcome.at_most("slowest answer", history.slowest(), REFUSED_WITHIN);
    Ok(outcome)
}

pub(crate) async fn terminated(rig: &mut Rig) -> Result<Outcome> {
    let lasting = Duration::from_secs(if rig.scale.ci { 4 } else { 30 });
    rig.fleet.start_all(2).await?;
    let rate = if rig.scale.ci { 33.0 } else { 60.0 };
    let load = rig.load(rig.plan(rate));
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    while begun.elapsed() < lasting {
        rig.strike();
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'order-tracker %'";
        sqlx::query(sql).execute(&rig.db).await?;
        sleep(Duration::from_millis(500)).await;
    }
    let over = rig.ready_again();
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    let (during, after) = (
        history.failures(begun, over),
        history.failures(over + Duration::from_secs(1), over + Duration::from_mins(5)),
    );
    outcome.note(format!("{:.1} % failed during", during * 100.0));
    outcome.expect(during <= 0.2, format!("{:.0} % failed during", during * 100.0));
    outcome.expect(after <= 0.0, format!("{:.1} % failed a second after", after * 100.0));
    outcome.recovery("first step", rig.longest_standstill(&history).await?, RECOVERY);
    Ok(outcome)
}

/// A replica that wants four connections finds two, then all; 150 clients read and 50 place.
pub(crate) async fn starved(rig: &mut Rig) -> Result<Outcome> {
    let name = rig.name.clone();
    rig.stack.administer(&format!("CREATE ROLE {name} LOGIN CONNECTION LIMIT 6")).await?;
    rig.stack.administer(&format!("ALTER DATABASE {name} OWNER TO {name}")).await?;
    let dsn = rig.dsn.replace("//tracker@", &format!("//{name}@"));
    let mut hogs = Vec::new();
    for _ in 0..4 {
        hogs.push(PgConnection::connect(&dsn).await?);
    }
    rig.set("PG_DSN", dsn);
    rig.set("PG_MAX_CONNECTIONS", "6");
    rig.fleet.start_all(1).await?;
    let readers = readers(&rig.fleet.targets, 150);
    let rate = if rig.scale.orders < 1_000 { 20.0 } else { 100.0 };
    let load = rig.load(Plan { connections: 50, ..rig.plan(rate) });
    sleep(Duration::from_secs(10)).await;
    drop(hogs);
    let history = load.end().await?;
    drop(readers);
    let mut outcome = rig.finish(&history).await?;
    outcome.at_most("slowest answer", history.slowest(), REFUSED_WITHIN);
    outcome.recovery("p99 lateness", rig.lateness(0.99).await?, Duration::from_secs(2));
    Ok(outcome)
}

/// Clients that only read, a pause of a few milliseconds between two requests.
fn readers(targets: &Targets, count: usize) -> JoinSet<()> {
    let mut readers = JoinSet::new();
    let http =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap_or_default();
    for number in 0..count {
        let (http, targets) = (http.clone(), targets.clone());
        readers.spawn(async move {
            loop {
                if let Some(url) = targets.pick(number) {
                    drop(http.get(format!("{url}/orders?limit=200")).send().await);
                }
                sleep(Duration::from_millis(300)).await;
            }
        });
    }
    readers
}

/// The tables lie on a small disk of their own, which a file of somebody else fills up.
pub(crate) async fn disk_full(rig: &mut Rig) -> Result<Outcome> {
    let disk = Disk::mount(rig).await?;
    let ran = on_small_disk(rig, &disk).await;
    // The tablespace must be empty before its disk can go.
    drop(rig.stack.administer(&format!("DROP DATABASE {} WITH (FORCE)", rig.name)).await);
    drop(rig.stack.administer(&format!("DROP TABLESPACE {}", rig.name)).await);
    disk.unmount().await?;
    ran
}

async fn on_small_disk(rig: &mut Rig, disk: &Disk) -> Result<Outcome> {
    rig.fleet.start_all(1).await?;
    let load = rig.load(rig.plan(if rig.scale.orders < 1_000 { 15.0 } else { 100.0 }));
    sleep(Duration::from_secs(4)).await;
    rig.strike();
    disk.fill().await?;
    sleep(Duration::from_secs(10)).await;
    disk.free().await?;
    rig.ready_again();
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.recovery("first step", rig.longest_standstill(&history).await?, Duration::from_secs(5));
    outcome.recovery("first 201", rig.longest_refusal(&history), Duration::from_secs(5));
    outcome.expect(history.refused() > 0, "the disk was never full: no 503");
    rig.said_so(&mut outcome);
    outcome.expect(check::overdue(&rig.db).await? == 0, "steps are overdue");
    Ok(outcome)
}

/// A file system in memory, of a fixed size.
struct Disk(String);

impl Disk {
    async fn mount(rig: &Rig) -> Result<Self> {
        let folder = rig.servers.dir().join(&rig.name).display().to_string();
        let script = format!(
            "mkdir -p {folder} && mount -t tmpfs -o size=24m tmpfs {folder} && \
            mkdir {folder}/space && chown -R postgres: {folder}"
        );
        if !shell(&script).await? {
            return Err(LeftOut("needs root, to mount a small disk".to_owned()).into());
        }
        let Rig { stack, name, .. } = rig;
        stack.administer(&format!("CREATE TABLESPACE {name} LOCATION '{folder}/space'")).await?;
        stack.administer(&format!("ALTER DATABASE {name} SET default_tablespace = '{name}'")).await?;
        Ok(Self(folder))
    }

    /// Takes all that is free.
    async fn fill(&self) -> Result<()> {
        // It ends with "no space left": that is the point.
        shell(&format!("dd if=/dev/zero of={}/ballast bs=4k 2>/dev/null", self.0)).await.map(drop)
    }

    async fn free(&self) -> Result<()> {
        shell(&format!("rm {}/ballast", self.0)).await.map(drop)
    }

    async fn unmount(self) -> Result<()> {
        shell(&format!("umount {0} && rmdir {0}", self.0)).await.map(drop)
    }
}

async fn shell(script: &str) -> Result<bool> {
    Ok(Command::new("sh").arg("-c").arg(script).status().await?.success())
}
