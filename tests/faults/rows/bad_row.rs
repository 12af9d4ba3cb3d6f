//! F30: orders that can't be moved: one that the database refuses, one that takes too long, then twenty of each.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};

use super::scale::within;
use crate::{
    check::DELAYS_MS,
    load::{History, Plan},
    readiness::{Readiness, has_words},
    report::Outcome,
    rig::Rig,
    seed::Seed,
};

/// How late all others may be beside those that are refused.
const ON_TIME: Duration = Duration::from_millis(250);
/// The same beside those that cost whoever tries them the time that a statement may take.
const BESIDE_SLOW: Duration = Duration::from_secs(2);
/// How long a replica may take to name one of them.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// Replicas.
const REPLICAS: usize = 2;

/// Orders that can't be moved, and how late all others may be.
struct Trial {
    what: &'static str,
    culprits: Seed,
    tampering: &'static [&'static str],
    limit: Duration,
}

impl Trial {
    const fn new(
        what: &'static str,
        prefix: &'static str,
        count: usize,
        tampering: &'static [&'static str],
        limit: Duration,
    ) -> Self {
        let due = "now() + interval '1 s'";
        Self {
            what,
            culprits: Seed { prefix, count, statuses: &["PLACED"], due, unsent: true },
            tampering,
            limit,
        }
    }

    fn order_ids(&self) -> impl Iterator<Item = String> {
        (1..=self.culprits.count).map(|n| self.culprits.order_id(n))
    }
}

const TRIALS: [Trial; 4] = [
    Trial::new("a refused order", "ORD-00A", 1, REFUSED, ON_TIME),
    Trial::new("a slow order", "ORD-00B", 1, SLOW, BESIDE_SLOW),
    Trial::new("20 refused orders", "ORD-00C", 20, REFUSED, ON_TIME),
    Trial::new("20 slow orders", "ORD-00D", 20, SLOW, BESIDE_SLOW),
];

/// What somebody with a console does to the event that these orders reach next: its place is taken already.
const REFUSED: &[&str] = &[r#"INSERT INTO order_events (order_id, event, seq, "timestamp")
    SELECT order_id, 'PREPARING', seq + 1, now() FROM orders WHERE order_id LIKE '{}%'"#];
/// The same, of another kind: no statement may take as long as writing it does.
const SLOW: &[&str] = &[
    "CREATE FUNCTION \"stall {}\"() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.order_id LIKE '{}%' THEN PERFORM pg_sleep(3); END IF; RETURN NEW; END $$",
    "CREATE TRIGGER \"stall {}\" BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION \"stall {}\"()",
];

pub(crate) async fn stuck(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.lasting.push("scheduler");
    rig.fleet.start_all(REPLICAS).await?;
    // Before its first migration it is not ready.
    let unready_before = rig.fleet.observations.seen().unready;
    let (mut seen, mut history) = (Vec::new(), History::default());
    for trial in &TRIALS {
        let one = beside(rig, trial).await?;
        history.extend(one.history.clone());
        seen.push(one);
    }
    let verified = verify(rig).await?;
    let unready = rig.fleet.observations.seen().unready - unready_before;
    let mut outcome = rig.finish(&history).await?;
    let steps = rig.steps(DELAYS_MS).await?;
    for (Trial { what, limit, .. }, seen) in TRIALS.iter().zip(seen) {
        let (from, to) = (rig.on_database_clock(seen.from), rig.on_database_clock(seen.to));
        let late = |at| steps.late(from, to, at);
        outcome.recovery(&format!("p99 lateness beside {what}"), late(0.99), *limit);
        outcome.note(format!("{:.1?} at most", late(1.0)));
        outcome.missed.extend(seen.missed);
        outcome.note(format!("{} lines of the log", seen.lines));
    }
    outcome.expect(unready == 0, format!("/readyz said {unready} times 503"));
    // Of each rule it names few.
    for order_id in TRIALS.iter().take(2).flat_map(Trial::order_ids) {
        outcome.expect(verified.output.contains(&order_id), format!("`verify` does not name {order_id}"));
    }
    let all = TRIALS.iter().map(|trial| trial.culprits.count).sum::<usize>().to_string();
    outcome.expect(
        has_words(&verified.output, &[&all]),
        format!("`verify` does not count all {all}: {}", verified.output),
    );
    outcome.expect(verified.code == Some(1), format!("`verify` ended with {:?}", verified.code));
    Ok(outcome)
}

/// What was seen beside the culprits of a trial.
struct Seen {
    history: History,
    from: Instant,
    to: Instant,
    lines: usize,
    missed: Vec<String>,
}

/// Places orders beside those that can't be moved, and asks everyone who should know about them.
async fn beside(rig: &mut Rig, trial: &Trial) -> Result<Seen> {
    let (rate, lasting) = if rig.scale.ci { (33.0, 5) } else { (100.0, 20) };
    trial.culprits.insert(&rig.dsn).await?;
    for statement in trial.tampering {
        let statement = statement.replace("{}", trial.culprits.prefix);
        sqlx::query(AssertSqlSafe(statement)).execute(&rig.db).await?;
    }
    rig.strike();
    let from = Instant::now();
    let (orders, name) = (rig.scale.orders / 2, format!("{}-{}", rig.name, rig.strikes));
    let history = rig.load(Plan { orders, name, ..rig.plan(rate) }).end().await?;
    let to = Instant::now();
    sleep(Duration::from_secs(lasting).saturating_sub(from.elapsed())).await;
    let (mut missed, prefix) = (Vec::new(), trial.culprits.prefix);
    for slot in rig.fleet.slots() {
        let url = rig.fleet.replica(slot)?.url.clone();
        if !within(NAMED_WITHIN, async || told(&url, trial).await.unwrap_or_default()).await {
            missed.push(format!("/readyz of replica {slot} tells nothing of {prefix}"));
        }
        let board = rig.fleet.replica(slot)?.get("/").await?;
        // It lists those that are latest.
        if trial.culprits.count == 1 && !board.contains(prefix) {
            missed.push(format!("the board of replica {slot} tells nothing of {prefix}"));
        }
    }
    // Each replica names each of them once, and no more than twenty a minute.
    let warnings = rig.fleet.journal.warnings();
    let mut lines = 0;
    for order_id in trial.order_ids() {
        let count = warnings.iter().filter(|line| line.contains(&order_id)).count();
        if count > REPLICAS {
            missed.push(format!("{count} lines of the log name {order_id}"));
        }
        lines += count;
    }
    if trial.culprits.count == 1 && lines == 0 {
        missed.push(format!("no line of the log names an order of {prefix}"));
    }
    Ok(Seen { history, from, to, lines, missed })
}

/// Whether readiness tells of the trial's orders: names one, or tells of more orders than there were before.
async fn told(url: &str, trial: &Trial) -> Result<bool> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let readiness = Readiness::ask(&http, url).await?;
    let reason = readiness.reason(&["scheduler"], &[]).unwrap_or_default();
    let before = TRIALS.iter().take_while(|other| other.what != trial.what);
    let before: usize = before.map(|other| other.culprits.count).sum();
    let more = reason.rsplit_once("; and ").and_then(|(_, more)| more.strip_suffix(" more")?.parse().ok());
    let count = reason.matches("can't be moved").count() + more.unwrap_or(0);
    Ok(trial.order_ids().any(|order_id| reason.contains(&order_id)) || count > before)
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    output: String,
}

/// What `verify` finds beside the replicas.
async fn verify(rig: &Rig) -> Result<Ended> {
    let output = rig.run(&["verify"]).await.context("`verify` can't be run")?;
    Ok(Ended { code: output.status.code(), output: String::from_utf8_lossy(&output.stdout).into_owned() })
}
