//! `serve` and `migrate`.

use std::{
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{log_fields, log_output::LogOutput, output, welcome::Welcome};
use crate::app::{
    self, App,
    config::{Config, LogConfig, LogFormat},
    logging,
};

/// The service's settings, and what only somebody at a terminal may want.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Place no first order where the embedded database is empty and a terminal watches
    #[arg(long)]
    no_demo: bool,
    #[command(flatten)]
    pub(super) config: Config,
}

/// Which database to migrate, and how to answer.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) config: Config,
}

/// Runs the service until a signal.
pub(super) async fn serve(args: &ServeArgs, log: &LogConfig) -> anyhow::Result<()> {
    let ServeArgs { config, no_demo } = args;
    start_logging(log)?;
    info!(?config, "settings");
    // Before the first order can come in, so that no signal is missed.
    let mut signals = Signals::new()?;
    let app = App::start(config).await?;
    if config.kafka.brokers.is_none() {
        info!(
            brokers = app.brokers(),
            "embedded broker; try: kcat -C -b {} -t {}",
            app.brokers(),
            config.kafka.topic
        );
    }
    let url = format!("http://{}", app.address());
    info!(url, "listening on {url}");
    if stderr().is_terminal() && log.log_format != Some(LogFormat::Json) {
        let demo = !no_demo && config.store.is_embedded();
        tokio::spawn(Welcome::new(app.address(), demo)?.say());
    }
    app.run(async move {
        signals.next().await;
        tokio::spawn(async move {
            // Some senders signal a process and its group: that is one wish, told twice.
            sleep(SAME_SIGNAL).await;
            signals.forget().await;
            signals.next().await;
            warn!("stopped by a second signal; what was accepted is stored, what was not published waits in the outbox");
            std::process::exit(output::INTERRUPTED.into());
        });
    })
    .await
}

/// Signals closer together than this are one.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

/// What tells a process to stop.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Drops what has come and was not waited for.
    async fn forget(&mut self) {
        drop(timeout(Duration::ZERO, self.next()).await);
    }

    /// Waits for one; answers the exit code of who is stopped by it, as shells count it.
    pub(super) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => output::TERMINATED,
            _ = self.interrupt.recv() => output::INTERRUPTED,
        }
    }
}

/// Brings the schema up to date.
pub(super) async fn migrate(args: &MigrateArgs) -> anyhow::Result<()> {
    let store = app::open_store(&args.config).await?;
    let migrated = store.migrate().await;
    store.close().await;
    migrated.context("can't migrate")?;
    if args.json {
        return output::print_json(&json!({"up_to_date": true}));
    }
    output::print("the database is up to date")
}

fn start_logging(log: &LogConfig) -> anyhow::Result<()> {
    let terminal = stderr().is_terminal();
    let format = log.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let ansi = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let output = LogOutput::new(stderr(), format);
    logging::start(log, (format, ansi), move || output.clone(), log_fields::cleaned())
}
