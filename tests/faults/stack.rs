//! The real PostgreSQL and Kafka that `tools/stack` started, and how to break each of them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::{
    net::TcpStream,
    process::Command,
    time::{Instant, sleep},
};

/// Pause between two looks at something that is awaited.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// One PostgreSQL and one Kafka with throw-away data.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    dir: PathBuf,
    dsn: String,
    pub(crate) brokers: String,
}

/// Who does something, as `tools/stack` calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Postgres,
    Kafka,
    /// A second broker of the same cluster, which is there only once it was started.
    SecondKafka,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
            Self::SecondKafka => "kafka2",
        }
    }
}

impl Stack {
    /// The stack that the environment names, if it names one.
    pub(crate) fn from_env() -> Option<Self> {
        let dir = env::var_os("STACK_DIR")?.into();
        Some(Self { dir, dsn: env::var("PG_DSN").ok()?, brokers: env::var("KAFKA_BROKERS").ok()? })
    }

    /// Where the stack keeps its things.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts one of them and waits until it takes connections.
    pub(crate) async fn start(&self, part: Part) -> Result<()> {
        self.call(part, "start").await
    }

    /// Deletes all that a broker that does not run has stored.
    pub(crate) async fn wipe(&self, part: Part) -> Result<()> {
        self.call(part, "wipe").await
    }

    async fn call(&self, part: Part, verb: &str) -> Result<()> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/stack");
        let mut command = Command::new(script);
        // No pipes: the server that is started would hold them open.
        command.arg(part.name()).arg(verb).arg(&self.dir).stdin(Stdio::null()).stdout(Stdio::null());
        ensure!(command.status().await?.success(), "tools/stack {} {verb} failed", part.name());
        Ok(())
    }

    /// Stops one of them the polite way; clients are cut off.
    pub(crate) async fn stop(&self, part: Part) -> Result<()> {
        // INT is PostgreSQL's fast shutdown: it does not wait for clients.
        self.end(part, if part == Part::Postgres { "INT" } else { "TERM" }).await
    }

    /// Ends one of them at once.
    pub(crate) async fn kill(&self, part: Part) -> Result<()> {
        self.end(part, "KILL").await
    }

    /// Signals the server and waits until its children are gone too: a second server on the same
    /// files would destroy them.
    async fn end(&self, part: Part, name: &str) -> Result<()> {
        let family = self.processes(part)?;
        signal(name, &family[..1]).await?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while family.iter().any(|pid| alive(*pid)) {
            ensure!(Instant::now() < deadline, "{} does not end", part.name());
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Stops all processes of one of them where they stand.
    pub(crate) async fn freeze(&self, part: Part) -> Result<Frozen> {
        let pids = self.processes(part)?;
        signal("STOP", &pids).await?;
        Ok(Frozen(pids))
    }

    /// The server and its children.
    fn processes(&self, part: Part) -> Result<Vec<u32>> {
        // PostgreSQL's own note: `postgres.pid` may be the shell that started it.
        let file = match part {
            Part::Postgres => self.dir.join("postgres/data/postmaster.pid"),
            Part::Kafka | Part::SecondKafka => self.dir.join(format!("{}.pid", part.name())),
        };
        let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        let server: u32 = text.lines().next().unwrap_or_default().trim().parse()?;
        let mut family = vec![server];
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
        family.extend(
            children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()),
        );
        Ok(family)
    }

    /// Makes an empty database and answers its address.
    pub(crate) async fn create_database(&self, name: &str) -> Result<String> {
        self.administer(&format!("CREATE DATABASE {name}")).await?;
        let (server, _) = self.dsn.rsplit_once('/').context("PG_DSN names no database")?;
        Ok(format!("{server}/{name}"))
    }

    /// Runs a statement that belongs to no row's database.
    pub(crate) async fn administer(&self, statement: &str) -> Result<()> {
        let mut admin = PgConnection::connect(&self.dsn).await?;
        admin.execute(sqlx::AssertSqlSafe(statement)).await?;
        Ok(admin.close().await?)
    }

    /// `host:port` of PostgreSQL.
    pub(crate) fn postgres_address(&self) -> &str {
        let rest = self.dsn.rsplit_once('@').map_or(self.dsn.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// Waits until a port takes connections.
    pub(crate) async fn reachable(address: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while TcpStream::connect(address).await.is_err() {
            ensure!(Instant::now() < deadline, "{address} takes no connections");
            sleep(POLL).await;
        }
        Ok(())
    }
}

/// Processes that stand still.
#[must_use = "they must be woken again"]
pub(crate) struct Frozen(Vec<u32>);

impl Frozen {
    /// One process that was stopped.
    pub(crate) fn of(pid: u32) -> Self {
        Self(vec![pid])
    }

    /// Lets them go on; those that have gone meanwhile are nobody's concern.
    pub(crate) async fn thaw(self) {
        drop(signal("CONT", &self.0).await);
    }
}

/// Sends a signal by its name.
pub(crate) async fn signal(name: &str, pids: &[u32]) -> Result<()> {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).args(pids.iter().map(u32::to_string)).stderr(Stdio::null());
    ensure!(command.status().await?.success(), "kill -{name} {pids:?} failed");
    Ok(())
}

/// Whether a process runs; one that has ended and was not buried yet does not.
fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
