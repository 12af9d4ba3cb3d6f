//! F6: the primary dies, a synchronous standby takes over, and the proxy leads there.

use std::{fs, net::TcpListener, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sqlx::postgres::PgPoolOptions;
use testkit::{Part, Servers, until};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use super::LeftOut;
use crate::{report::Outcome, rig::Rig};

const RECOVERY: Duration = Duration::from_secs(3);

pub(crate) async fn promoted(rig: &mut Rig) -> Result<Outcome> {
    let standby = Standby::follow(rig).await?;
    let ran = fail_over(rig, &standby).await;
    // The old primary serves the other rows again, alone.
    standby.stop().await;
    drop(rig.servers.start(Part::Postgres).await);
    rig.stack.administer("ALTER SYSTEM RESET synchronous_standby_names").await?;
    rig.stack.administer("SELECT pg_reload_conf()").await?;
    ran
}

async fn fail_over(rig: &mut Rig, standby: &Standby) -> Result<Outcome> {
    let proxy = rig.proxy_to_postgres().await?;
    rig.fleet.start_all(2).await?;
    let load = rig.load(rig.plan(100.0));
    sleep(Duration::from_secs(3)).await;
    rig.strike();
    let died = Instant::now();
    rig.servers.kill(Part::Postgres).await?;
    standby.promote().await?;
    proxy.flip(&standby.address);
    rig.ready_again();
    let promoted_in = died.elapsed();
    // The truth is on the other server now.
    let dsn = rig.dsn.replace(&rig.postgres_address()?, &standby.address);
    rig.db = PgPoolOptions::new().max_connections(2).connect(&dsn).await?;
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.note(format!("promoted in {promoted_in:.1?}"));
    outcome.recovery("first step", rig.longest_standstill(&history).await?, RECOVERY);
    outcome.recovery("first 201", rig.longest_refusal(&history), RECOVERY);
    rig.db.close().await;
    Ok(outcome)
}

/// A second server that repeats all that the first one does.
struct Standby {
    address: String,
    folder: String,
    tools: String,
}

impl Standby {
    async fn follow(rig: &Rig) -> Result<Self> {
        let (stack, primary) = (&rig.stack, rig.postgres_address()?);
        let (host, port) = primary.split_once(':').context("host:port")?;
        let own_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = rig.servers.dir().join("standby").display().to_string();
        drop(fs::remove_dir_all(&folder));
        let standby = Self { address: format!("127.0.0.1:{own_port}"), folder, tools: tools()? };
        let Self { folder, tools, .. } = &standby;
        fs::create_dir(folder)?;
        standby.shell(&format!("chown postgres: {folder} && chmod 700 {folder}")).await?;
        let copied = standby
            .as_server(&format!(
                "{tools}/pg_basebackup -h {host} -p {port} -U tracker -D {folder}/data -R -c fast"
            ))
            .await;
        copied.map_err(|error| LeftOut(format!("no standby can be made here: {error}")))?;
        standby.shell(&format!("echo 'port = {own_port}' >>{folder}/data/postgresql.conf")).await?;
        standby.as_server(&format!("{tools}/pg_ctl -D {folder}/data -l {folder}/log -w start")).await?;
        stack.administer("ALTER SYSTEM SET synchronous_standby_names = '*'").await?;
        stack.administer("SELECT pg_reload_conf()").await?;
        Servers::reachable(&standby.address, Duration::from_secs(10)).await?;
        standby.in_step(rig).await?;
        Ok(standby)
    }

    /// Waits until the primary waits for this one.
    async fn in_step(&self, rig: &Rig) -> Result<()> {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let follows = async || {
            let count: i64 = sqlx::query_scalar(sql).fetch_one(&rig.db).await?;
            Ok((count > 0).then_some(()))
        };
        until(Duration::from_secs(20), "the standby follows", follows).await
    }

    async fn promote(&self) -> Result<()> {
        self.as_server(&format!("{}/pg_ctl -D {}/data -w promote", self.tools, self.folder)).await
    }

    async fn stop(&self) {
        drop(
            self.as_server(&format!("{}/pg_ctl -D {}/data -m immediate stop", self.tools, self.folder)).await,
        );
    }

    /// PostgreSQL refuses to run as root.
    async fn as_server(&self, command: &str) -> Result<()> {
        self.shell(&format!(
            "if [ \"$(id -u)\" = 0 ]; then exec setpriv --reuid=postgres --regid=postgres --clear-groups {command}; \
             else exec {command}; fi"
        ))
        .await
    }

    async fn shell(&self, script: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(command.status().await?.success(), "failed: {script}");
        Ok(())
    }
}

/// Where PostgreSQL's programs are: the newest version's.
fn tools() -> Result<String> {
    let versions = fs::read_dir("/usr/lib/postgresql")?;
    let mut versions: Vec<u32> =
        versions.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable();
    Ok(format!("/usr/lib/postgresql/{}/bin", versions.last().context("no PostgreSQL")?))
}
