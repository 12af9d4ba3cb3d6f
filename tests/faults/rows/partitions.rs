//! F34: one of two brokers is away, and with it every second partition of the topic.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::Result;
use chrono::{DateTime, Utc};
use testkit::Part;
use tokio::time::{Instant, sleep_until};

use super::{
    broker::{OUT_WITHIN, emptied},
    scale::{bearable_rate, whole, within},
};
use crate::{
    check,
    load::{History, Plan},
    readiness::{Readiness, has_words},
    report::Outcome,
    rig::Rig,
    seed::Seed,
};

/// The brokers of the partitions.
const BROKERS: [i32; 6] = [1, 2, 1, 2, 1, 2];
/// The one that goes away.
const AWAY: i32 = 2;
/// How soon an order is on its partition.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(1);
/// More orders than any queue holds that wait as the broker goes; half of them belong to it.
const WAITING: usize = 24_000;
/// How long a replica may take to say which partitions are away, or are back.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// Most lines of the log that name the topic and a partition: one when a series begins, and one when it ends.
const LINES_A_PARTITION: usize = 2;

pub(crate) async fn broker_away(rig: &mut Rig) -> Result<Outcome> {
    rig.topic.coordinate(&rig.group).await?;
    rig.servers.start(Part::SecondKafka).await?;
    let ran = beside(rig).await;
    drop(rig.topic.delete().await);
    drop(rig.topic.dead_letters().delete().await);
    // The other rows have one broker.
    drop(rig.servers.stop(Part::SecondKafka).await);
    ran
}

async fn beside(rig: &mut Rig) -> Result<Outcome> {
    rig.topic.create_on(&BROKERS).await?;
    rig.fleet.start_all(1).await?;
    // Before its first migration it is not ready.
    let unready_before = rig.fleet.observations.seen().unready;
    let ci = rig.scale.ci;
    let (before, outage, after) = if ci { (2, 15, 2) } else { (5, 50, 5) };
    let (mut history, rate) =
        if ci { (History::default(), 100.0) } else { bearable_rate(rig, 300.0, 1_000.0).await? };
    let orders = whole(rate * f64::from(before + outage + after));
    seed().insert(&rig.dsn).await?;
    let begun = Instant::now();
    let load = rig.load(Plan { orders, name: format!("{}-beside", rig.name), ..rig.plan(rate) });
    sleep_until(begun + Duration::from_secs(1) * before).await;
    rig.strike();
    let struck = Instant::now();
    rig.servers.stop(Part::SecondKafka).await?;
    sqlx::query(
        "INSERT INTO outbox (order_id, created_at) SELECT order_id, now() FROM orders WHERE order_id LIKE $1",
    )
    .bind(format!("{}%", seed().prefix))
    .execute(&rig.db)
    .await?;
    sleep_until(struck + Duration::from_secs(1) * outage).await;
    let mut told = Outcome::default();
    tells(rig, &mut told).await?;
    let wait: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&rig.db).await?;
    let over = Instant::now();
    rig.servers.start(Part::SecondKafka).await?;
    let out = emptied(rig).await;
    let recovered = within(NAMED_WITHIN, async || gauges(rig).await.is_ok_and(|away| away.is_empty())).await;
    history.extend(load.end().await?);
    let unready = rig.fleet.observations.seen().unready - unready_before;
    let mut outcome = rig.finish(&history).await?;
    outcome.missed.extend(told.missed);
    outcome.note(format!("{rate:.0} orders a second; {wait} orders waited at the end of the outage"));
    outcome.recovery("what waited was out", out, OUT_WITHIN);
    published(rig, &mut outcome, [struck, over]).await?;
    outcome.expect(wait > 0, "no order waited for a partition");
    outcome.expect(recovered, "partition_unavailable is not 0 for all partitions again");
    outcome.expect(unready == 0, format!("/readyz said {unready} times 503"));
    let failed = history.attempts.iter().filter(|attempt| attempt.status != Some(201)).count();
    outcome.expect(failed == 0, format!("{failed} tries got no 201"));
    let duplicates = outcome.duplicates;
    outcome.expect(duplicates * 100 <= outcome.orders, format!("{duplicates} duplicates"));
    Ok(outcome)
}

/// Orders that are done. They wait to be published once there is a row for each in the outbox.
fn seed() -> Seed {
    Seed {
        prefix: "ORD-01KAAA",
        count: WAITING,
        statuses: &["DELIVERED"],
        due: "NULL::timestamptz",
        unsent: false,
    }
}

/// The partitions that are away, and those that are not.
fn partitions(broker_is_away: bool) -> impl Iterator<Item = i32> {
    (0..)
        .zip(BROKERS)
        .filter(move |(_, broker)| (*broker == AWAY) == broker_is_away)
        .map(|(partition, _)| partition)
}

/// While partitions are away, readiness, log and gauge must say which.
async fn tells(rig: &Rig, outcome: &mut Outcome) -> Result<()> {
    let (url, topic) = (&rig.fleet.replica(0)?.url, rig.topic.name.as_str());
    let http = reqwest::Client::builder().no_proxy().build()?;
    for partition in partitions(true).map(|partition| partition.to_string()) {
        let words = [topic, &partition];
        let named = async || {
            let said = Readiness::ask(&http, url).await;
            said.is_ok_and(|said| said.reason(&["broker", "relay"], &words).is_some())
        };
        outcome.expect(
            within(NAMED_WITHIN, named).await,
            format!("/readyz does not name partition {partition}"),
        );
        let lines =
            rig.fleet.journal.warnings().iter().filter(|line| has_words(message(line), &words)).count();
        outcome.expect(
            (1..=LINES_A_PARTITION).contains(&lines),
            format!("{lines} lines of the log name partition {partition}"),
        );
    }
    let gauges = gauges(rig).await?;
    let right = gauges == partitions(true).collect();
    outcome.expect(right, format!("partition_unavailable is 1 for {gauges:?}"));
    Ok(())
}

/// A line of the log without its stamp, which holds numbers too.
fn message(line: &str) -> &str {
    line.split_once("\"level\"").map_or(line, |(_, rest)| rest)
}

/// The partitions whose gauge is 1.
async fn gauges(rig: &Rig) -> Result<HashSet<i32>> {
    let text = rig.fleet.replica(0)?.get("/metrics").await?;
    let partition = |line: &str| {
        let (partition, value) =
            line.strip_prefix("partition_unavailable{partition=\"")?.split_once("\"} ")?;
        (value == "1").then(|| partition.parse().ok()).flatten()
    };
    Ok(text.lines().filter_map(partition).collect())
}

/// When orders that were placed during the outage came to their partition, and that each has only one.
async fn published(rig: &Rig, outcome: &mut Outcome, outage: [Instant; 2]) -> Result<()> {
    let [from, to] = outage.map(|at| rig.on_database_clock(at));
    let lines = check::lines(&rig.db).await?;
    let placed: HashMap<String, DateTime<Utc>> = lines
        .into_iter()
        .filter(|line| !line.order_id.starts_with(seed().prefix))
        .filter_map(|line| Some((line.order_id, *line.stamps.first()?)))
        .filter(|(_, placed)| (from..to).contains(placed))
        .collect();
    let (mut partition_of, mut slowest, mut live): (HashMap<String, i32>, _, _) =
        (HashMap::new(), Duration::ZERO, 0);
    let mut on_two = 0;
    for message in rig.topic.read().await? {
        let (key, on) = (message.key.unwrap_or_default(), message.partition.unwrap_or_default());
        let first = partition_of.insert(key.clone(), on);
        on_two += usize::from(first.is_some_and(|first| first != on));
        if let (Some(placed), Some(stamp), None) = (placed.get(&key), message.stamp, first)
            && partitions(false).any(|partition| partition == on)
        {
            live += 1;
            slowest = slowest.max((stamp - *placed).to_std().unwrap_or_default());
        }
    }
    outcome.note(format!("{live} orders placed during the outage belong to partitions that were there"));
    outcome.at_most("the last of them was published after", slowest, PUBLISHED_WITHIN);
    outcome.expect(on_two == 0, format!("{on_two} orders are on two partitions"));
    Ok(())
}
