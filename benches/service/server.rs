//! The service, a process like any other.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use order_tracker::client::{ClientRequest, Connection, Target};
use testkit::{Process, command, proc};

use crate::stack::Stack;

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A service that listens.
pub(crate) struct Server {
    process: Process,
    pub(crate) target: Target,
    /// Where its broker listens.
    pub(crate) brokers: String,
    /// From the start of the process to the answer of `/healthz`.
    pub(crate) started_in: Duration,
}

impl Server {
    pub(crate) async fn start(stack: &Stack, delays: &str) -> Result<Self> {
        let begun = Instant::now();
        let serve = command(env!("CARGO_BIN_EXE_order-tracker"), &["serve"], stack.settings(delays));
        let mut process = Process::start(serve, drop).await?;
        let target = Target::new(&process.url.parse()?);
        ensure!(ask(&target, "/healthz").await?.0, "it does not say that it lives");
        let started_in = begun.elapsed();
        let brokers = process.brokers.take().or(stack.brokers()).context("no broker is named")?;
        let server = Self { process, target, brokers, started_in };
        server.until("ready", async || Ok(ask(&server.target, "/readyz").await?.0)).await?;
        Ok(server)
    }

    /// Asks until it is so.
    pub(crate) async fn until(&self, what: &str, mut look: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        testkit::until(PATIENCE, what, async || Ok(look().await?.then_some(()))).await
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
        proc::cpu_ms(self.process.pid).map(|ms| ms as f64 / 1e3)
    }

    /// Memory in use, in MiB.
    pub(crate) fn rss(&self) -> Option<f64> {
        proc::resident_kb(self.process.pid).map(|kb| kb as f64 / 1024.0)
    }

    /// SIGTERM.
    pub(crate) async fn stop(self) -> Result<()> {
        let (status, _) = self.process.stop().await?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

/// Whether it answered well, and what.
async fn ask(target: &Target, path: &'static str) -> Result<(bool, String)> {
    let answer = Connection::open(target).await?.ask(ClientRequest::get(path)).await?;
    Ok((answer.is_good(), String::from_utf8_lossy(&answer.body).into_owned()))
}
