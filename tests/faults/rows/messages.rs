//! Faults of what lies on the topic: F16, F17, F18, F19.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, seq::SliceRandom as _};
use serde_json::{Value, json};
use testkit::{MAX_BYTES, Message, Topic};

use crate::{
    app::SECRET,
    check::{self, SIX},
    load::History,
    report::Outcome,
    rig::Rig,
};

/// How long a consumer may take to catch up.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) async fn replayed(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(1).await?;
    let history = rig.load(rig.plan(100.0)).end().await?;
    rig.topic.caught_up(&rig.group, PATIENCE).await?;
    let mut outcome = rig.finish(&history).await?;
    let before = check::fingerprint(&rig.db).await?;
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        rig.topic.rewind(&rig.group).await.context("rewinding the group")?;
        ensure!(rig.topic.lag(&rig.group).await? > 0, "the group was not rewound");
        slowest = slowest.max(read_all_again(rig).await?);
    }
    let after_rewind = check::fingerprint(&rig.db).await?;
    outcome.expect(before == after_rewind, "the tables changed when the group began anew");
    let mut copies = Vec::new();
    for message in rig.topic.read().await? {
        for _ in 0..rig.dice.random_range(1..=5) {
            copies.push(message.clone());
        }
    }
    copies.shuffle(&mut rig.dice);
    outcome.note(format!("{} copies sent", copies.len()));
    rig.topic.send(copies).await?;
    slowest = slowest.max(read_all_again(rig).await?);
    let after_copies = check::fingerprint(&rig.db).await?;
    outcome.expect(before == after_copies, "the tables changed when messages came again");
    outcome.recovery("reading all again", slowest, Duration::from_secs(15));
    Ok(outcome)
}

/// Starts a replica until it has read the topic to its end.
async fn read_all_again(rig: &mut Rig) -> Result<Duration> {
    rig.fleet.start_all(1).await?;
    let took = rig.topic.caught_up(&rig.group, PATIENCE).await?;
    rig.fleet.stop_all().await?;
    Ok(took)
}

/// An order of another system.
fn foreign_order(rig: &mut Rig, number: usize) -> Value {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digit = |_| char::from(DIGITS[rig.dice.random_range(0..DIGITS.len())]);
    let digits: String = (0..20).map(digit).collect();
    json!({"order_id": format!("ORD-01KAAA{digits}"), "customer_name": format!("{SECRET} foreign {number}"),
        "address": format!("{SECRET} Lane"), "item": "soup", "size": "small", "status": "PLACED",
        "created_at": "2026-01-02T03:04:05.678Z", "seq": 1})
}

fn message(value: &Value) -> Message {
    let key = value["order_id"].as_str().unwrap_or_default().to_owned();
    Message { key: Some(key), value: Some(value.to_string().into_bytes()), ..Message::default() }
}

/// Each order's statuses as another system might tell them, in any order and over each other.
pub(crate) async fn shuffled(rig: &mut Rig) -> Result<Outcome> {
    let count = rig.scale.orders / 2;
    rig.fleet.start_all(1).await?;
    let load = rig.load(crate::load::Plan { orders: rig.scale.orders - count, ..rig.plan(100.0) });
    let mut messages = Vec::new();
    for number in 0..count {
        let order = foreign_order(rig, number);
        for (seq, status) in SIX[1..].iter().enumerate() {
            let mut told = order.clone();
            (told["status"], told["seq"]) = (json!(status), json!(seq + 1));
            messages.push(message(&told));
        }
    }
    messages.shuffle(&mut rig.dice);
    rig.topic.send(messages).await?;
    let history = load.end().await?;
    // Our own orders come again too, when they have long gone on.
    rig.topic.send(rig.topic.read().await?).await?;
    let caught_up = rig.topic.caught_up(&rig.group, PATIENCE).await?;
    let mut outcome = rig.finish(&history).await?;
    let wanted = rig.scale.orders;
    outcome.lost += wanted.saturating_sub(outcome.orders);
    outcome.expect(outcome.orders == wanted, format!("{} orders instead of {wanted}", outcome.orders));
    // Those on the topic are ours, on purpose.
    outcome.duplicates = 0;
    outcome.recovery("reading all", caught_up, Duration::from_secs(15));
    Ok(outcome)
}

/// One of many ways in which a message can be broken.
fn mutant(rig: &mut Rig, number: usize) -> Message {
    let mut order = foreign_order(rig, number);
    let whole = message(&order);
    let bytes = whole.value.clone().unwrap_or_default();
    let with_value = |value: Vec<u8>| Message { value: Some(value), ..whole.clone() };
    match number % 11 {
        0 => with_value([&bytes[..bytes.len() / 2], &[0xff, 0xfe], &bytes[bytes.len() / 2..]].concat()),
        1 => with_value(bytes[..rig.dice.random_range(1..bytes.len())].to_vec()),
        2 => {
            order["item"] = json!(7);
            message(&order)
        }
        3 => with_value("[".repeat(1_000).into_bytes()),
        4 => Message { key: Some("ORD-01KAAA00000000000000000000".to_owned()), ..whole },
        5 => Message { key: None, ..whole },
        6 => {
            order["status"] = json!("EATEN");
            message(&order)
        }
        7 => with_value(Vec::new()),
        8 => {
            order["customer_name"] = json!("x".repeat(101));
            message(&order)
        }
        9 => {
            order["order_id"] = json!("7; DROP TABLE orders");
            message(&order)
        }
        _ => {
            order["address"] = json!("a\u{0}b");
            message(&order)
        }
    }
}

pub(crate) async fn malformed(rig: &mut Rig) -> Result<Outcome> {
    let count = rig.scale.orders / 2;
    rig.fleet.start_all(1).await?;
    let mut messages = Vec::new();
    for number in 0..count {
        let good = foreign_order(rig, number);
        messages.extend([message(&good), mutant(rig, number)]);
    }
    rig.topic.send(messages).await?;
    let caught_up = rig.topic.caught_up(&rig.group, PATIENCE).await?;
    let dead_letters = dead_letters(rig).read().await?;
    let mut outcome = rig.examine_foreign().await?;
    let good = outcome.orders;
    outcome.lost += count.saturating_sub(good);
    outcome.expect(good == count, format!("{good} of {count} good orders are in"));
    outcome.expect(
        dead_letters.len() == count,
        format!("{} of {count} bad messages become dead letters", dead_letters.len()),
    );
    let named = dead_letters.iter().filter(|dead_letter| explains(dead_letter)).count();
    outcome.expect(
        named == dead_letters.len(),
        format!("{} dead letters say not why", dead_letters.len() - named),
    );
    outcome.recovery("reading all", caught_up, Duration::from_secs(15));
    Ok(outcome)
}

fn explains(dead_letter: &Message) -> bool {
    ["dlq_reason", "dlq_topic", "dlq_partition", "dlq_offset"]
        .iter()
        .all(|header| dead_letter.headers.contains_key(*header))
}

fn dead_letters(rig: &Rig) -> Topic {
    rig.topic.dead_letters()
}

pub(crate) async fn oversized(rig: &mut Rig) -> Result<Outcome> {
    rig.topic.create(6, MAX_BYTES).await?;
    rig.fleet.start_all(1).await?;
    let (mut huge, small) = (foreign_order(rig, 0), foreign_order(rig, 1));
    huge["item"] = json!("x".repeat(5_000_000));
    let tombstone = Message { value: None, ..message(&small) };
    rig.topic.send(vec![message(&huge), tombstone, message(&small)]).await?;
    let caught_up = rig.topic.caught_up(&rig.group, PATIENCE).await?;
    let dead_letters = dead_letters(rig).read().await?;
    let metrics = rig.fleet.replica(0)?.get("/metrics").await?;
    let counted = metrics.contains("consumer_messages_total{result=\"tombstone\"} 1\n");
    let mut outcome = rig.examine_foreign().await?;
    outcome.expect(outcome.orders == 1, format!("{} orders instead of the good one", outcome.orders));
    let reference = dead_letters.len() == 1
        && explains(&dead_letters[0])
        && dead_letters[0].value.as_ref().is_none_or(Vec::is_empty);
    outcome.expect(reference, format!("{} dead letters, or one with the body", dead_letters.len()));
    outcome.expect(counted, "the tombstone is not counted");
    outcome.recovery("reading all", caught_up, Duration::from_secs(15));
    Ok(outcome)
}

impl Rig {
    /// The end of a row in which nothing was placed by way of HTTP.
    async fn examine_foreign(&mut self) -> Result<Outcome> {
        let mut outcome = self.finish(&History::default()).await?;
        outcome.duplicates = 0;
        Ok(outcome)
    }
}
