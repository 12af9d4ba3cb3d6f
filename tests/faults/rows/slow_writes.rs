//! Writes that take long: each row of a table (F31), or one key that another session holds (F33).

use std::time::Duration;

use anyhow::Result;
use chrono::TimeDelta;
use reqwest::Client;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    check::{self, DELAYS_MS},
    lateness::{self, Steps},
    load::{Plan, order_body},
    report::Outcome,
    rig::{REFUSED_WITHIN, Rig},
    seed::Seed,
};

/// Orders that become due at one moment.
const DUE_AT_ONCE: usize = 3_000;
/// Steps a second that must be made; 2 ms each allow 500.
const STEPS_A_SECOND: usize = 300;
/// How long it may take to find out how many rows a statement can bear.
const LEARNED_WITHIN: Duration = Duration::from_secs(10);
/// Longest time without a step while some are due.
const STANDSTILL: Duration = Duration::from_secs(2);

/// F31: each event costs 2 ms, and thousands of orders are due.
pub(crate) async fn slow_rows(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(1).await?;
    for statement in [
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$",
        "CREATE TRIGGER slow BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION slow()",
    ] {
        rig.db.execute(statement).await?;
    }
    let load = rig.load(Plan { orders: rig.scale.orders / 2, ..rig.plan(50.0) });
    sleep(Duration::from_secs(2)).await;
    rig.strike();
    let seed =
        Seed { prefix: "ORD-01KAAA", count: DUE_AT_ONCE, statuses: &["PLACED"], due: "now()", unsent: true };
    seed.insert(&rig.dsn).await?;
    let begun = rig.on_database_clock(Instant::now());
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.at_most("slowest answer", history.slowest(), REFUSED_WITHIN);
    let refused = history.refused();
    outcome
        .expect(refused * 100 <= history.attempts.len(), format!("{refused} orders were refused at first"));

    let lines = check::lines(&rig.db).await?;
    let looked = rig.on_database_clock(Instant::now());
    let due_at_once = lines.iter().filter(|line| line.order_id.starts_with(seed.prefix));
    let ended = Steps::of(due_at_once, DELAYS_MS, looked).last();
    let steps = Steps::of(&lines, DELAYS_MS, looked);
    outcome.note(format!("all delivered after {:.1} s", (ended - begun).as_seconds_f64()));
    let learned = begun + TimeDelta::from_std(LEARNED_WITHIN)?;
    let width = Duration::from_secs(5);
    let rates: Vec<usize> = lateness::ranges(learned, ended, width)
        .into_iter()
        .filter(|(from, to)| (*to - *from).to_std().is_ok_and(|whole| whole == width))
        .map(|(from, to)| steps.made(from, to) / 5)
        .collect();
    outcome.note(format!("steps a second from {LEARNED_WITHIN:?} on: {rates:?}"));
    let slowest = rates.iter().min().copied().unwrap_or_default();
    outcome.expect(slowest >= STEPS_A_SECOND, format!("{slowest} steps a second"));
    outcome.recovery("longest standstill", steps.standstill(begun, ended), STANDSTILL);
    Ok(outcome)
}

/// How long another session holds the key.
const HELD: Duration = Duration::from_millis(2_800);
/// Orders of each kind that come meanwhile.
const OTHERS: usize = 8;

/// F33: another session has written a key and does not say whether it will stay.
pub(crate) async fn held_key(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(1).await?;
    let mut history = rig.load(Plan { orders: 100, ..rig.plan(100.0) }).end().await?;
    let mut asked = Vec::new();
    // Before the others, and among them.
    for (round, ahead) in [20, 0, 20, 0].into_iter().enumerate() {
        rig.strike();
        asked.extend(at_once(rig, round, Duration::from_millis(ahead)).await?);
    }
    history.extend(
        rig.load(Plan { orders: 10, name: format!("{}-after", rig.name), ..rig.plan(100.0) }).end().await?,
    );
    let mut outcome = rig.finish(&history).await?;
    for (key, what, limit) in [
        (Key::None, "orders without a key", Duration::from_millis(500)),
        (Key::Own, "orders with other keys", Duration::from_secs(2)),
        (Key::Held, "orders with the key", REFUSED_WITHIN),
    ] {
        let answers = asked.iter().filter(|answer| answer.key == key);
        let slowest = answers.clone().map(|answer| answer.took).max().unwrap_or_default();
        outcome.at_most(&format!("slowest of {what}"), slowest, limit);
        let allowed: &[u16] = if key == Key::Held { &[201, 503] } else { &[201] };
        let wrong: Vec<u16> =
            answers.map(|answer| answer.status).filter(|status| !allowed.contains(status)).collect();
        outcome.expect(wrong.is_empty(), format!("{what} were answered {wrong:?}"));
    }
    Ok(outcome)
}

/// Which key an order has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    None,
    Own,
    Held,
}

/// What one order was answered, 0 for nothing.
struct Answer {
    key: Key,
    status: u16,
    took: Duration,
}

/// Holds a key, orders with it, and a moment later with and without other keys.
async fn at_once(rig: &Rig, round: usize, ahead: Duration) -> Result<Vec<Answer>> {
    let held = format!("{}-held-{round}", rig.name);
    let mut session = PgConnection::connect(&rig.dsn).await?;
    let mut tx = session.begin().await?;
    sqlx::query("INSERT INTO idempotency_keys (key, order_id, created_at) VALUES ($1, $1, now())")
        .bind(&held)
        .execute(&mut *tx)
        .await?;
    let until = Instant::now() + HELD;
    let url = rig.fleet.replica(0)?.url.clone();
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let mut asked = JoinSet::new();
    asked.spawn(order(http.clone(), url.clone(), Key::Held, held));
    sleep(ahead).await;
    for number in 0..OTHERS {
        for (key, kind) in [(Key::None, "none"), (Key::Own, "own")] {
            let name = format!("{}-{kind}-{round}-{number}", rig.name);
            asked.spawn(order(http.clone(), url.clone(), key, name));
        }
    }
    let rolled_back: JoinHandle<()> = tokio::spawn(sleep_until(until));
    let answers = asked.join_all();
    let (answers, _) = tokio::join!(answers, async {
        drop(rolled_back.await);
        tx.rollback().await
    });
    Ok(answers)
}

/// Places one order, once.
async fn order(http: Client, url: String, key: Key, name: String) -> Answer {
    let asked = Instant::now();
    let mut request = http.post(format!("{url}/orders")).json(&order_body(&name));
    if key != Key::None {
        request = request.header("Idempotency-Key", &name);
    }
    let status = request.send().await.map_or(0, |answer| answer.status().as_u16());
    Answer { key, status, took: asked.elapsed() }
}
