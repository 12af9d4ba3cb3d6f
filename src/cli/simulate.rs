//! `simulate`: customers by the thousand, and how long they had to wait.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use tokio::{signal::ctrl_c, time::interval};
use tokio_util::sync::CancellationToken;

use super::{
    client::{ClientArgs, WHENCE, no_answer},
    output,
    progress::{self, Progress, thousands},
};
use crate::{
    app::config::whole,
    client::shown,
    load::{DeliveryStats, LONGEST, Latency, NewOrders, Plan, RATES, Run, Summary, Target, Watch},
};

/// How long it goes on if nothing else is said.
const USUAL_DURATION: Duration = Duration::from_secs(10);
/// Most orders that can be asked for.
const MAX_COUNT: u64 = 1_000_000_000;

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Orders a second, sent on time whether or not earlier ones are answered; as many as the service takes if unset
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Most orders under way at once
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = whole(1..=u16::MAX))]
    concurrency: u16,
    /// End after so many orders
    #[arg(long, value_name = "N", value_parser = whole(1..=MAX_COUNT))]
    count: Option<u64>,
    /// End after so long; 10s if neither this nor --count is given
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Then wait until every order is delivered
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    client: ClientArgs,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| RATES.contains(rate));
    rate.ok_or_else(|| format!("must be a number from {} to {}", RATES.start(), RATES.end()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok();
    let duration = duration.filter(|duration| !duration.is_zero() && *duration <= LONGEST);
    duration.ok_or_else(|| "must be a duration above 0 and up to 30 days, such as 30s or 5m".to_owned())
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    url: String,
    asked_rate: Option<f64>,
    concurrency: u16,
    #[serde(flatten)]
    placing: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<DeliveryStats>,
}

pub(super) async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let url = &args.client.url;
    let plan = Plan {
        target: Target::new(url),
        rate: args.rate,
        connections: usize::from(args.concurrency),
        count: args.count,
        duration: if args.count.is_none() { args.duration.or(Some(USUAL_DURATION)) } else { args.duration },
    };
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_ctrl_c(stop.clone()));
    let orders = Arc::new(if args.wait { NewOrders::kept() } else { NewOrders::default() });
    let Some(started) = stop.run_until_cancelled(Run::start(&plan, orders.clone())).await else {
        bail!("stopped before the first order")
    };
    let run = started.map_err(|error| no_answer(url, &error, WHENCE))?;
    let placing = placed(run, &plan, &stop).await;
    let follow = args.wait && !stop.is_cancelled();
    let delivery = if follow { Some(delivered(&plan, &orders, &stop).await) } else { None };
    let report =
        Report { url: shown(url), asked_rate: args.rate, concurrency: args.concurrency, placing, delivery };
    let told =
        if args.client.json { output::print_json(&report) } else { output::print(table(&report).trim_end()) };
    // Whoever reads only the beginning still gets the exit code.
    verdict(&report).and(told)
}

/// Measured orders are shown after the first Ctrl-C; the second ends at once.
async fn stop_on_ctrl_c(stop: CancellationToken) {
    if ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if ctrl_c().await.is_ok() {
        // The bar keeps its line, and the prompt gets one of its own.
        progress::leave();
        std::process::exit(output::INTERRUPTED.into());
    }
}

async fn placed(run: Run, plan: &Plan, stop: &CancellationToken) -> Summary {
    let (recorder, halt, began) = (run.recorder(), run.stop(), Instant::now());
    let mut progress = Progress::new();
    let mut look = interval(progress.pause());
    let end = run.end();
    tokio::pin!(end);
    let summary = loop {
        tokio::select! {
            summary = &mut end => break summary,
            () = stop.cancelled(), if !halt.is_cancelled() => halt.cancel(),
            _ = look.tick() => {
                let (good, failed) = recorder.counts();
                let by_count = plan.count.map(|count| share(good + failed, count));
                let by_time = plan.duration.map(|whole| began.elapsed().div_duration_f64(whole));
                let done = [by_count, by_time].into_iter().flatten().reduce(f64::max);
                progress.tell(done, || news(&recorder.summary()));
            }
        }
    };
    progress.end();
    summary
}

async fn delivered(plan: &Plan, orders: &NewOrders, stop: &CancellationToken) -> DeliveryStats {
    let ids = orders.ids();
    let all = ids.len() as u64;
    let watch = Watch::new(ids);
    let mut progress = Progress::new();
    let mut look = interval(progress.pause());
    let end = Arc::clone(&watch).run(&plan.target, plan.connections, stop.clone());
    tokio::pin!(end);
    let lives = loop {
        tokio::select! {
            lives = &mut end => break lives,
            _ = look.tick() => {
                let done = watch.delivered();
                progress.tell(Some(share(done, all)), || {
                    format!("{} of {} orders are delivered", thousands(done), thousands(all))
                });
            }
        }
    };
    progress.end();
    lives
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn news(summary: &Summary) -> String {
    let Summary { good, failed, rate, latency_ms, .. } = summary;
    let failed = if *failed == 0 { String::new() } else { format!(", {} not", thousands(*failed)) };
    format!("{} orders placed{failed}, {rate:.0} a second, p99 {:.2} ms", thousands(*good), latency_ms.p99)
}

fn verdict(report: &Report) -> anyhow::Result<()> {
    let Summary { good, failed, .. } = report.placing;
    if failed > 0 {
        bail!("{} of {} orders were not placed", thousands(failed), thousands(good + failed));
    }
    if good == 0 {
        bail!("no order was answered in time");
    }
    match &report.delivery {
        Some(lives) if lives.undelivered > 0 => {
            bail!("{} orders are not delivered", thousands(lives.undelivered))
        }
        _ => Ok(()),
    }
}

fn table(report: &Report) -> String {
    let Report { placing, asked_rate, concurrency, delivery, .. } = report;
    let asked = match asked_rate {
        Some(rate) => format!("asked for: {rate} a second"),
        None => format!("{concurrency} at once, as fast as they are answered"),
    };
    let mut text = format!(
        "{} orders placed in {:.2} s, {:.1} a second ({asked})\n",
        thousands(placing.good),
        placing.seconds,
        placing.rate
    );
    reasons(&mut text, placing.failed, "not placed", &placing.errors);
    if placing.good > 0 {
        let from = if asked_rate.is_some() { "the moment it was due" } else { "sending it" };
        let _ = writeln!(text, "\nfrom {from} to the answer, in milliseconds:");
        distribution(&mut text, &placing.latency_ms);
    }
    if let Some(lives) = delivery {
        let _ = writeln!(
            text,
            "\n{} orders delivered within {:.2} s of the first one's creation, {:.1} a second",
            thousands(lives.delivered),
            lives.seconds,
            lives.rate
        );
        reasons(&mut text, lives.undelivered, "not delivered", &lives.errors);
        if lives.delivered > 0 {
            let _ = writeln!(text, "\nfrom creation to delivery, in milliseconds:");
            distribution(&mut text, &lives.life_ms);
        }
    }
    text
}

fn reasons(text: &mut String, count: u64, what: &str, errors: &std::collections::BTreeMap<String, u64>) {
    if count > 0 {
        let _ = writeln!(text, "{} {what}", thousands(count));
    }
    for (why, count) in errors {
        let _ = writeln!(text, "{:>9} times: {why}", thousands(*count));
    }
}

fn distribution(text: &mut String, latency: &Latency) {
    let Latency { min, mean, p50, p90, p99, p999, max } = latency;
    let names = ["min", "p50", "p90", "p99", "p99.9", "max", "mean"];
    for (n, value) in [min, p50, p90, p99, p999, max, mean].into_iter().enumerate() {
        let _ = writeln!(text, "  {:6}{value:>12.3}", names[n]);
    }
}
