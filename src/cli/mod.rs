//! What people type. Results go to stdout, everything else to stderr.
//!
//! Exit codes: 0 well, 1 failed, 2 a setting or argument is wrong, 130 stopped by Ctrl-C, a service by the second.

mod clean;
mod client;
mod completions;
mod dead_letters;
mod event_line;
mod events;
mod explain;
mod frames;
mod healthcheck;
mod keys;
mod list;
mod log_fields;
mod log_output;
mod manual;
mod order;
mod output;
mod probe;
mod progress;
mod report;
mod republish;
mod retry;
mod serve;
mod settings;
mod simulate;
#[cfg(test)]
mod tests;
mod values;
mod verify;
mod watch;
mod welcome;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::app::config::LogConfig;

/// Takes food orders, walks each one to its delivery, and can prove that none was lost
///
/// Without a command it serves. Without settings it keeps orders in ./data and starts a broker of
/// its own, so nothing else is needed.
#[derive(Debug, Parser)]
#[command(name = "order-tracker", version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ")"))]
#[command(args_conflicts_with_subcommands = true, after_help = manual::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
    #[command(flatten)]
    log: LogConfig,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service (the default)
    Serve(Box<serve::ServeArgs>),
    /// Bring the database's schema up to date and exit
    Migrate(Box<serve::MigrateArgs>),
    /// Ask a running service whether it lives; for containers
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Place, look up and report on orders of a running service
    #[command(subcommand)]
    Order(order::OrderCommand),
    /// Read everything that happened to all orders, and follow it
    Events(events::EventsArgs),
    /// Place made-up orders on a running service and measure how it takes them
    Simulate(simulate::SimulateArgs),
    /// Check every promise against database and topic; exit code 1 on any violation
    Verify(Box<verify::VerifyArgs>),
    /// Publish orders again that a broker has lost; a running service does it
    Republish(Box<republish::RepublishArgs>),
    /// Make, list and revoke the keys by which clients say who they are
    Keys(Box<keys::KeysArgs>),
    /// Look at messages that could not become orders, and requeue them
    DeadLetters(Box<dead_letters::DeadLettersArgs>),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page; `order-tracker man | man -l -` shows it
    Man {
        /// Write a page for each command into this folder instead
        folder: Option<PathBuf>,
    },
}

/// Parses, starts logging and runs the command.
pub fn main() -> ExitCode {
    let command = settings::without_empty_variables(Cli::command());
    let arguments = settings::without_empty_options(std::env::args_os(), &command);
    if settings::ask_for_json(&arguments) {
        output::speak_json();
    }
    let matches = command.try_get_matches_from(arguments);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return settings::explain(error, &Cli::command()),
    };
    if let Err(complaint) = cli.check() {
        return settings::refuse(&complaint);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::end(Err(anyhow::Error::new(error).context("can't start threads"))),
    };
    let outcome = runtime.block_on(run(cli));
    // A Kafka client has been seen to hang in its own clean-up; all that matters is done by now.
    runtime.shutdown_background();
    output::end(outcome)
}

impl Cli {
    /// What no single setting can tell: settings that contradict each other.
    fn check(&self) -> Result<(), String> {
        match &self.command {
            None => self.serve.config.check(),
            Some(Command::Serve(args)) => args.config.check(),
            Some(Command::Migrate(args)) => args.config.store.check(),
            Some(Command::Verify(args)) => args.store.check(),
            Some(Command::Republish(args)) => args.store.check(),
            Some(Command::Keys(args)) => args.check(),
            _ => Ok(()),
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        None => serve::serve(&cli.serve, &cli.log).await,
        Some(Command::Serve(args)) => serve::serve(&args, &cli.log).await,
        Some(Command::Migrate(args)) => serve::migrate(&args).await,
        Some(Command::Healthcheck(args)) => healthcheck::run(&args).await,
        Some(Command::Order(command)) => order::run(command).await,
        Some(Command::Events(args)) => events::run(args).await,
        Some(Command::Simulate(args)) => simulate::run(args).await,
        Some(Command::Verify(args)) => verify::run(&args).await,
        Some(Command::Republish(args)) => republish::run(&args).await,
        Some(Command::Keys(args)) => keys::run(&args).await,
        Some(Command::DeadLetters(args)) => dead_letters::run(*args).await,
        Some(Command::Completions { shell }) => completions::run(Cli::command(), shell),
        Some(Command::Man { folder }) => manual::run(Cli::command(), folder.as_deref()),
    }
}
