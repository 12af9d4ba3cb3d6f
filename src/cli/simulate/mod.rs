//! `simulate`: customers by the thousand, and how long they had to wait; kitchens and couriers too, if asked.

mod table;

use std::{
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use tokio::{signal::ctrl_c, time::interval};
use tokio_util::sync::CancellationToken;

use super::{
    client::{Client, ClientArgs, WHENCE, no_answer},
    output,
    progress::{self, Progress, thousands},
};
use crate::{
    app::config::whole,
    client::{
        load::{
            DeliveryStats, LONGEST, NewOrders, Plan, RATES, ReportPlan, ReportRun, ReportStats,
            ReportedOrders, Run, Scenario, Summary, Watch,
        },
        shown,
    },
};

/// How long it goes on if nothing else is said.
const USUAL_DURATION: Duration = Duration::from_secs(10);
/// Most orders that can be asked for.
const MAX_COUNT: u64 = 1_000_000_000;
/// How fast lives may be.
const SPEEDS: RangeInclusive<f64> = 0.01..=10_000.0;
/// Orders a second that are worked on, unless another rate is asked for.
const REPORTED_RATE: f64 = 10.0;

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Orders a second, sent on time whether or not earlier ones are answered; if unset as many as the service takes, or
    /// 10 with --reports
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
    /// Then wait until every order is delivered or cancelled
    #[arg(long)]
    wait: bool,
    /// Also play the kitchens and couriers that report on these orders, with delays, mistakes and cancels
    #[arg(long)]
    reports: bool,
    /// So many times as fast as stages usually are
    #[arg(long, default_value_t = 1.0, value_name = "N", value_parser = speed, requires = "reports")]
    speed: f64,
    /// What is reported is made up from this number: the same one, the same lives; another each time unless given
    #[arg(long, value_name = "N", value_parser = whole(0..=u64::MAX), requires = "reports")]
    seed: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| RATES.contains(rate));
    rate.ok_or_else(|| format!("must be a number from {} to {}", RATES.start(), RATES.end()))
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| SPEEDS.contains(speed));
    speed.ok_or_else(|| format!("must be a number from {} to {}", SPEEDS.start(), SPEEDS.end()))
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
    reports: Option<ReportStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<DeliveryStats>,
}

pub(super) async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let (url, client) = (&args.client.url, Client::new(args.client.url.clone())?);
    let asked_rate = args.rate.or(args.reports.then_some(REPORTED_RATE));
    let plan = Plan {
        target: client.target().clone(),
        rate: asked_rate,
        connections: usize::from(args.concurrency),
        count: args.count,
        duration: if args.count.is_none() { args.duration.or(Some(USUAL_DURATION)) } else { args.duration },
    };
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_ctrl_c(stop.clone()));
    let orders = Arc::new(if args.wait { NewOrders::kept() } else { NewOrders::default() });
    let reporting = args.reports.then(|| reporting(&args, &plan, &stop));
    let scenario: Arc<dyn Scenario> = match &reporting {
        Some(reporting) => Arc::new(ReportedOrders::new(Arc::clone(&orders), Arc::clone(reporting))),
        None => orders.clone(),
    };
    let Some(started) = stop.run_until_cancelled(Run::start(&plan, scenario)).await else {
        bail!("stopped before the first order")
    };
    let run = started.map_err(|error| no_answer(url, &error, WHENCE))?;
    let barred = run.barred();
    let placing = placed(run, &plan, &stop).await;
    let refused = barred.get().map_or(Ok(()), |answer| client.checked(Ok(answer.clone())).map(drop));
    // Nothing was measured, so there is nothing else to tell.
    if placing.good == 0 && refused.is_err() {
        return refused;
    }
    let reports = match &reporting {
        Some(reporting) => Some(played(reporting).await),
        None => None,
    };
    let follow = args.wait && !stop.is_cancelled();
    let delivery = if follow { Some(delivered(&plan, &orders, &stop).await) } else { None };
    let report =
        Report { url: shown(url), asked_rate, concurrency: args.concurrency, placing, reports, delivery };
    let told = if args.client.json {
        output::print_json(&report)
    } else {
        output::print(table::table(&report).trim_end())
    };
    // Whoever reads only the beginning still gets the exit code.
    refused.and(verdict(&report)).and(told)
}

fn reporting(args: &SimulateArgs, plan: &Plan, stop: &CancellationToken) -> Arc<ReportRun> {
    let plan = ReportPlan {
        target: plan.target.clone(),
        connections: plan.connections,
        speed: args.speed,
        seed: args.seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
    };
    ReportRun::new(plan, stop.clone())
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
                progress.tell(done, || table::news(&recorder.summary()));
            }
        }
    };
    progress.end();
    summary
}

/// Waits until nothing more is reported; after a stop that is at once.
async fn played(reporting: &ReportRun) -> ReportStats {
    let mut progress = Progress::new();
    let mut look = interval(progress.pause());
    let end = reporting.end();
    tokio::pin!(end);
    let stats = loop {
        tokio::select! {
            stats = &mut end => break stats,
            _ = look.tick() => {
                let (all, done) = reporting.lives();
                progress.tell(Some(share(done, all)), || {
                    format!("of {} of {} orders all is reported", thousands(done), thousands(all))
                });
            }
        }
    };
    progress.end();
    stats
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
                let done = watch.ended();
                progress.tell(Some(share(done, all)), || {
                    format!("{} of {} orders are at their end", thousands(done), thousands(all))
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

fn verdict(report: &Report) -> anyhow::Result<()> {
    let Summary { good, failed, .. } = report.placing;
    if failed > 0 {
        bail!("{} of {} orders were not placed", thousands(failed), thousands(good + failed));
    }
    if good == 0 {
        bail!("no order was answered in time");
    }
    if let Some(stats) = report.reports.as_ref().filter(|stats| stats.failed > 0) {
        bail!("{} of {} reports were not answered", thousands(stats.failed), thousands(stats.reported));
    }
    match &report.delivery {
        Some(lives) if lives.undelivered > 0 => {
            bail!("{} orders are not delivered", thousands(lives.undelivered))
        }
        _ => Ok(()),
    }
}
