//! The real PostgreSQL and Kafka that `tools/stack` started, and how to break each of them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{net::TcpStream, process::Command};

use crate::{Frozen, proc, signal, stack::variable, until};

/// One PostgreSQL and one Kafka with throw-away data.
#[derive(Debug, Clone)]
pub struct Servers {
    dir: PathBuf,
}

/// One of them, by the name that `tools/stack` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The database.
    Postgres,
    /// The broker.
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

/// Calls `tools/stack`.
pub async fn tool(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/stack"));
    // No pipes: the server that is started would hold them open.
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    ensure!(command.status().await?.success(), "tools/stack {arguments:?} failed");
    Ok(())
}

impl Servers {
    /// Those that the environment names, if it names them.
    pub fn from_env() -> Option<Self> {
        let named = ["PG_DSN", "KAFKA_BROKERS"].into_iter().all(|name| variable(name).is_some());
        Some(Self { dir: env::var_os("STACK_DIR")?.into() }).filter(|_| named)
    }

    /// Where they keep their things.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts one of them and waits until it takes connections.
    pub async fn start(&self, part: Part) -> Result<()> {
        self.call(part, "start").await
    }

    /// Deletes all that a broker that does not run has stored.
    pub async fn wipe(&self, part: Part) -> Result<()> {
        self.call(part, "wipe").await
    }

    async fn call(&self, part: Part, verb: &str) -> Result<()> {
        tool(&[part.name(), verb, &self.dir.to_string_lossy()]).await
    }

    /// Stops one of them the polite way; clients are cut off.
    pub async fn stop(&self, part: Part) -> Result<()> {
        // INT is PostgreSQL's fast shutdown: it does not wait for clients.
        self.end(part, if part == Part::Postgres { "INT" } else { "TERM" }).await
    }

    /// Ends one of them at once.
    pub async fn kill(&self, part: Part) -> Result<()> {
        self.end(part, "KILL").await
    }

    /// Signals the server and waits until its children are gone too: a second server on the same
    /// files would destroy them.
    async fn end(&self, part: Part, name: &str) -> Result<()> {
        let family = self.processes(part)?;
        signal(name, &family[..1]).await?;
        let gone = async || Ok((!family.iter().any(|pid| proc::is_alive(*pid))).then_some(()));
        until(Duration::from_secs(30), &format!("{} ends", part.name()), gone).await
    }

    /// Stops all processes of one of them where they stand.
    pub async fn freeze(&self, part: Part) -> Result<Frozen> {
        Frozen::freeze(self.processes(part)?).await
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
        Ok([vec![server], proc::children(server)].concat())
    }

    /// Waits until a port takes connections.
    pub async fn reachable(address: &str, patience: Duration) -> Result<()> {
        let connects = async || Ok(TcpStream::connect(address).await.ok().map(drop));
        until(patience, &format!("{address} takes connections"), connects).await
    }
}
