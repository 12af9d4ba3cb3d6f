//! The service, a process like any other.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use order_tracker::load::{ClientRequest, Connection, Target};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::{sleep, timeout},
};

use crate::{process, stack::Stack};

/// How long a start, an end, or anything that is waited for may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);

/// A service that listens.
pub(crate) struct Server {
    child: Child,
    pid: u32,
    pub(crate) target: Target,
    /// Where its broker listens.
    pub(crate) brokers: String,
    /// From the start of the process to the answer of `/healthz`.
    pub(crate) started_in: Duration,
}

impl Server {
    pub(crate) async fn start(stack: &Stack, delays: &str) -> Result<Self> {
        let settings = stack.settings(delays);
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_order-tracker"))
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().context("it has ended already")?;
        let mut log = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let (url, own_brokers) = timeout(PATIENCE, addresses(&mut log)).await??;
        let target = Target::new(&url.parse()?);
        ensure!(ask(&target, "/healthz").await?.0, "it does not say that it lives");
        let started_in = begun.elapsed();
        // Read on, or it would wait for us one day.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        let named = settings.into_iter().find_map(|(name, value)| (name == "KAFKA_BROKERS").then_some(value));
        let brokers = own_brokers.or(named).context("no broker is named")?;
        let server = Self { child, pid, target, brokers, started_in };
        server.until("ready", async || Ok(ask(&server.target, "/readyz").await?.0)).await?;
        Ok(server)
    }

    /// Asks until it is so.
    pub(crate) async fn until(&self, what: &str, mut look: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !look().await? {
            ensure!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            sleep(POLL).await;
        }
        Ok(())
    }

    /// How many orders it has seen delivered since it started.
    pub(crate) async fn delivered(&self) -> Result<u64> {
        let (_, metrics) = ask(&self.target, "/metrics").await?;
        let series = "status_transitions_total{from=\"OUT_FOR_DELIVERY\",to=\"DELIVERED\"} ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(series));
        Ok(value.unwrap_or("0").parse()?)
    }

    /// Seconds of processor time so far.
    pub(crate) fn cpu(&self) -> Option<f64> {
        process::cpu(self.pid)
    }

    /// Memory in use, in MiB.
    pub(crate) fn rss(&self) -> Option<f64> {
        process::rss(self.pid)
    }

    /// SIGTERM.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await?;
        ensure!(asked.success(), "kill failed");
        let status = timeout(PATIENCE, self.child.wait()).await.context("SIGTERM did not end it")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

/// Its own address, and that of its broker if that is embedded, from its log.
async fn addresses(log: &mut Lines<BufReader<ChildStderr>>) -> Result<(String, Option<String>)> {
    let mut brokers = None;
    while let Some(line) = log.next_line().await? {
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(found) = line["brokers"].as_str() {
            brokers = Some(found.to_owned());
        }
        if let Some(url) = line["url"].as_str() {
            return Ok((url.to_owned(), brokers));
        }
    }
    bail!("it ended before it listened")
}

/// Whether it answered well, and what.
async fn ask(target: &Target, path: &'static str) -> Result<(bool, String)> {
    let answer = Connection::open(target).await?.ask(ClientRequest::get(path)).await?;
    Ok((answer.is_good(), String::from_utf8_lossy(&answer.body).into_owned()))
}
