//! F30: an order that can't be moved, first because the database refuses it, then because it takes too long.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::AssertSqlSafe;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use super::scale::within;
use crate::{
    bench::Bench,
    check::DELAYS_MS,
    load::{History, Plan},
    readiness::Readiness,
    report::Outcome,
    seed::Seed,
};

/// How late all others may be beside one that is refused.
const ON_TIME: Duration = Duration::from_millis(250);
/// The same beside one that costs whoever tries it the time that a statement may take.
const BESIDE_SLOW: Duration = Duration::from_secs(2);
/// Most lines of the log that name one order: two replicas try it after pauses that grow.
const FEW_LINES: usize = 12;
/// How long a replica may take to name it.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// Replicas.
const REPLICAS: usize = 2;

pub(crate) async fn stuck(bench: &mut Bench) -> Result<Outcome> {
    bench.fleet.lasting.push("scheduler");
    bench.fleet.start_all(REPLICAS).await?;
    // Before its first migration it is not ready.
    let unready_before = bench.fleet.book.seen().unready;
    let refused = culprit("ORD-00A");
    let first = beside(bench, &refused, REFUSED).await?;
    let slow = culprit("ORD-00B");
    let second = beside(bench, &slow, SLOW).await?;
    let verified = verify(bench).await?;
    let mut history = first.history.clone();
    history.extend(second.history.clone());
    let unready = bench.fleet.book.seen().unready - unready_before;
    let mut outcome = bench.finish(&history).await?;
    let steps = bench.steps(DELAYS_MS).await?;
    for (what, half, limit) in [("a refused order", first, ON_TIME), ("a slow order", second, BESIDE_SLOW)] {
        let (from, to) = (bench.on_database_clock(half.from), bench.on_database_clock(half.to));
        let late = |at| steps.late(from, to, at);
        outcome.recovery(&format!("p99 lateness beside {what}"), late(0.99), limit);
        outcome.note(format!("{:.1?} at most", late(1.0)));
        outcome.missed.extend(half.missed);
        outcome.note(format!("{} lines of the log name it", half.lines));
    }
    outcome.expect(unready == 0, format!("/readyz said {unready} times 503"));
    for seed in [refused, slow] {
        let order_id = seed.order_id(1);
        outcome.expect(verified.output.contains(&order_id), format!("`verify` does not name {order_id}"));
    }
    outcome.expect(verified.code == Some(1), format!("`verify` ended with {:?}", verified.code));
    Ok(outcome)
}

/// An order that is due in a second and will not move.
fn culprit(prefix: &'static str) -> Seed {
    Seed { prefix, count: 1, statuses: &["PLACED"], due: "now() + interval '1 s'", unsent: true }
}

/// What somebody with a console does to the event that the order reaches next: it is there already.
const REFUSED: &[&str] =
    &[r#"INSERT INTO order_events (order_id, event, "timestamp") VALUES ('{}', 'PREPARING', now())"#];
/// The same, of another kind: no statement may take as long as writing it does.
const SLOW: &[&str] = &[
    "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.order_id = '{}' THEN PERFORM pg_sleep(3); END IF; RETURN NEW; END $$",
    "CREATE TRIGGER stall BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION stall()",
];

/// One half of the row.
struct Half {
    history: History,
    from: Instant,
    to: Instant,
    lines: usize,
    missed: Vec<String>,
}

/// Places orders beside the one that can't be moved, and asks everyone who should know about it.
async fn beside(bench: &mut Bench, culprit: &Seed, tampering: &[&str]) -> Result<Half> {
    let order_id = culprit.order_id(1);
    let (rate, lasting) = if bench.scale.ci { (33.0, 5) } else { (100.0, 20) };
    culprit.insert(&bench.dsn).await?;
    for statement in tampering {
        sqlx::query(AssertSqlSafe(statement.replace("{}", &order_id))).execute(&bench.db).await?;
    }
    bench.strike();
    let from = Instant::now();
    let (orders, name) = (bench.scale.orders / 2, format!("{}-{}", bench.name, bench.strikes));
    let history = bench.load(Plan { orders, name, ..bench.plan(rate) }).end().await?;
    let to = Instant::now();
    sleep(Duration::from_secs(lasting).saturating_sub(from.elapsed())).await;
    let mut missed = Vec::new();
    for slot in bench.fleet.slots() {
        let url = bench.fleet.replica(slot)?.url.clone();
        if !within(NAMED_WITHIN, async || named(&url, &order_id).await.unwrap_or_default()).await {
            missed.push(format!("/readyz of replica {slot} does not name {order_id}"));
        }
        let board = reqwest::Client::builder().no_proxy().build()?.get(format!("{url}/")).send().await?;
        if !board.text().await?.contains(&order_id) {
            missed.push(format!("the board of replica {slot} does not name {order_id}"));
        }
    }
    let lines = bench.fleet.journal.warnings().iter().filter(|line| line.contains(&order_id)).count();
    if !(1..=FEW_LINES).contains(&lines) {
        missed.push(format!("{lines} lines of the log name {order_id}"));
    }
    Ok(Half { history, from, to, lines, missed })
}

/// Whether readiness says that this order can't be moved.
async fn named(url: &str, order_id: &str) -> Result<bool> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    Ok(Readiness::ask(&http, url).await?.reason(&["scheduler"], &[order_id]).is_some())
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    output: String,
}

/// What `verify` finds beside the replicas.
async fn verify(bench: &Bench) -> Result<Ended> {
    let settings = bench.fleet.settings.iter();
    let output = Command::new(env!("CARGO_BIN_EXE_order-tracker"))
        .arg("verify")
        .env_clear()
        .envs(settings.filter(|(name, _)| name.starts_with("PG_") || name.starts_with("KAFKA_")).cloned())
        .output()
        .await
        .context("`verify` can't be run")?;
    Ok(Ended { code: output.status.code(), output: String::from_utf8_lossy(&output.stdout).into_owned() })
}
