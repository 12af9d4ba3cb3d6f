//! Measures the service on the stack that is configured: `just bench`.
//!
//! Without settings it is the embedded one; `PG_DSN` and `KAFKA_BROKERS` name a real one, where a
//! database and a topic of its own are made and deleted again. The load comes from the same machine,
//! so it takes its share of the processors.
#![expect(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "figures for people, and counts far below 2^52"
)]

mod feed;
mod phases;
mod plot;
mod report;
mod reporters;
mod scenarios;
mod server;
mod stack;
mod topic;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;

use phases::Measurement;

/// Measures the service on the stack that is configured (embedded, or `PG_DSN` and `KAFKA_BROKERS`)
#[derive(Debug, Clone, Parser)]
struct Options {
    /// Seconds instead of minutes: shows that everything works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also draw latency against load and rate against stored orders, as SVG into this folder
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "docs/images")]
    plots: Option<PathBuf>,
    /// Rates of the open loop, orders a second
    #[arg(long, value_delimiter = ',', default_value = "250,500,1000,2000,4000")]
    rates: Vec<f64>,
    /// Stored orders at which the growth is measured, rising
    #[arg(long, value_delimiter = ',', default_value = "10000,50000")]
    sizes: Vec<u64>,
    /// Orders that are due at one moment
    #[arg(long, default_value_t = 20_000)]
    burst: u64,
    /// Seconds a row
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// What `cargo bench` hands to every benchmark and `cargo test` does not: then it is quick
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn made_quick(self) -> Self {
        if self.bench && !self.quick {
            return self;
        }
        Self {
            quick: true,
            rates: vec![50.0, 100.0],
            sizes: vec![100, 300],
            burst: 200,
            seconds: 0.2,
            ..self
        }
    }

    fn row(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse().made_quick();
    let (json, plots) = (options.json, options.plots.clone());
    let outcome = async {
        let report = Measurement::run(options).await?;
        if json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            println!("{}", report.table());
        }
        if let Some(folder) = plots {
            plot::draw(&report, &folder)?;
        }
        anyhow::ensure!(report.failed() == 0, "{} requests failed", report.failed());
        Ok(())
    };
    match outcome.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
