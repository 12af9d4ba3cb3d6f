//! The fault programme: breaks every part of a running system, one fault a row, and then counts
//! what was lost, doubled or early. `cargo test --test faults -- --all`, in `tools/stack run`.
#![expect(clippy::print_stdout, reason = "the table is for people")]

mod app;
mod check;
mod followers;
mod lateness;
mod load;
mod probe;
mod proxy;
mod readiness;
mod report;
mod reporters;
mod rig;
mod rows;
mod seed;
mod watch;
mod wire;

use std::{env, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, timeout};

use report::{End, Row};
use rig::{Rig, Scale};
use rows::{LeftOut, ROWS, Spec};
use testkit::Servers;

const HOW: &str = "run: tools/stack run cargo test --test faults -- --all | --ci | --soak | --rehearse | --list | F3 F7 ... [--ci] \
    [--orders N] [--seed N]";
/// How often a row that only missed its figure is run again on every change.
const MORE_TRIES: u64 = 2;
/// Orders a row.
const ORDERS: usize = 2_000;
/// The same where there is little time.
const ORDERS_CI: usize = 200;
/// The longest that one row may take; most of that is needed to store millions of orders.
const ROW_WITHIN: Duration = Duration::from_mins(20);
/// The same for the random mix.
const SOAK_WITHIN: Duration = Duration::from_mins(40);

/// What to run, and how much of it.
struct Selection {
    specs: Vec<&'static Spec>,
    scale: Scale,
}

impl Selection {
    /// None if no row is asked for: whatever else `cargo test` hands to every test is not for us.
    fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let number = |flag: &str| match arguments.iter().skip_while(|argument| *argument != flag).nth(1) {
            Some(number) => number.parse::<u64>().map(Some),
            None => Ok(None),
        };
        let (all, ci) = (has("--all"), has("--ci"));
        let named = ROWS.iter().any(|spec| has(spec.id));
        let wanted = |spec: &&Spec| match spec.id {
            "R" => has("--rehearse"),
            "soak" => has("--soak"),
            // With names, `--ci` only says how short they are.
            id => all || (ci && spec.ci && !named) || has(id),
        };
        let specs: Vec<&Spec> = ROWS.iter().filter(wanted).collect();
        if specs.is_empty() {
            return Ok(None);
        }
        let orders = match number("--orders")? {
            Some(orders) => usize::try_from(orders)?,
            None if ci => ORDERS_CI,
            None => ORDERS,
        };
        let seed = number("--seed")?.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        Ok(Some(Self { specs, scale: Scale { orders, seed, ci } }))
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for Spec { id, fault, figure, ci, .. } in ROWS {
            println!("{id:<5}{fault:<36}{figure}{}", if *ci { "  (CI)" } else { "" });
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(selection) = Selection::parse(&arguments)? else {
        println!("faults: left out; to {HOW}");
        return Ok(ExitCode::SUCCESS);
    };
    let Some(servers) = Servers::from_env() else {
        bail!("PG_DSN, KAFKA_BROKERS and STACK_DIR are not set; {HOW}");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rows = runtime.block_on(run_all(&selection, &servers));
    println!("\n{}", report::markdown(&rows));
    Ok(if rows.iter().any(Row::failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn run_all(selection: &Selection, servers: &Servers) -> Vec<Row> {
    let Scale { orders, seed, .. } = selection.scale;
    println!("seed {seed}, {orders} orders a row unless a row says otherwise");
    let (mut rows, started) = (Vec::new(), Instant::now());
    for spec in &selection.specs {
        let began = Instant::now();
        let mut row = row(spec, servers, selection.scale).await;
        for seed in (1..=MORE_TRIES).map(|more| seed + more) {
            if !selection.scale.ci || !row.only_missed_its_figure() {
                break;
            }
            // A shared machine may have been busy; what is lost, doubled or early gets no second try.
            println!("{row}\n     {}", row.remarks().join("\n     "));
            println!("     once more with seed {seed}, in case the machine was busy");
            row = self::row(spec, servers, Scale { seed, ..selection.scale }).await;
        }
        println!("{row}  [{:.0} s]", began.elapsed().as_secs_f64());
        for remark in row.remarks() {
            println!("     {remark}");
        }
        rows.push(row);
    }
    println!("{:.0} s in all", started.elapsed().as_secs_f64());
    rows
}

async fn row(spec: &Spec, servers: &Servers, scale: Scale) -> Row {
    let within = if spec.id == "soak" { SOAK_WITHIN } else { ROW_WITHIN };
    let end = match timeout(within, run(spec, servers, scale)).await {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => End::Failed(format!("{error:#}")),
        Err(_) => End::Failed(format!("not done within {within:?}")),
    };
    Row { id: spec.id, fault: spec.fault, figure: spec.figure, end }
}

async fn run(spec: &Spec, servers: &Servers, scale: Scale) -> Result<End> {
    let mut rig = Rig::set_up(spec.id, servers, scale).await?;
    let outcome = (spec.run)(&mut rig).await;
    rig.clean_up().await;
    match outcome {
        Ok(outcome) => Ok(End::Done(outcome)),
        Err(error) => match error.downcast::<LeftOut>() {
            Ok(LeftOut(reason)) => Ok(End::Left(reason)),
            Err(error) => Err(error),
        },
    }
}
