//! `dead-letters list|show|requeue`: messages that could not become orders, for people.

use std::{borrow::Cow, fmt::Write as _};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{clean, output, probe};
use crate::{
    app::{self, config::KafkaConfig},
    ops::dead_letters::{DeadLetterQueue, QueuedLetter},
};

#[derive(Debug, Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// List the dead letters that were not requeued
    List(ListArgs),
    /// Show one dead letter whole
    Show(ShowArgs),
    /// Publish dead letters on the orders topic again
    Requeue(RequeueArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Also those that were requeued
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: KafkaConfig,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The dead letter's place, as listed
    #[arg(value_name = "PARTITION:OFFSET", value_parser = place)]
    place: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: KafkaConfig,
}

#[derive(Debug, Args)]
struct RequeueArgs {
    /// The dead letters' places, as listed
    #[arg(value_name = "PARTITION:OFFSET", value_parser = place, required_unless_present = "all")]
    places: Vec<String>,
    /// All that were not requeued
    #[arg(long, conflicts_with = "places")]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: KafkaConfig,
}

fn place(text: &str) -> Result<String, String> {
    let parts = text.split_once(':').map(|(partition, offset)| (partition.parse(), offset.parse()));
    let valid = matches!(parts, Some((Ok::<u32, _>(_), Ok::<u64, _>(_))));
    if valid { Ok(text.to_owned()) } else { Err("must be a partition and an offset, such as 0:7".to_owned()) }
}

pub(super) async fn run(args: DeadLettersArgs) -> anyhow::Result<()> {
    match args.command {
        DeadLettersCommand::List(args) => list(&args).await,
        DeadLettersCommand::Show(args) => show(&args).await,
        DeadLettersCommand::Requeue(args) => requeue(&args).await,
    }
}

async fn open(config: &KafkaConfig) -> anyhow::Result<DeadLetterQueue> {
    let brokers = config.brokers.clone().ok_or_else(|| {
        let unset =
            "KAFKA_BROKERS is not set: it says where the broker is (the embedded one prints its address)";
        output::Wrong(unset.to_owned())
    })?;
    probe::broker(&brokers).await?;
    let kafka = app::open_kafka(config, brokers.clone());
    let read = DeadLetterQueue::read(kafka, config.dlq_topic()).await;
    read.with_context(|| format!("the broker at {brokers} (KAFKA_BROKERS)"))
}

fn find<'a>(queue: &'a DeadLetterQueue, place: &str) -> anyhow::Result<&'a QueuedLetter> {
    queue
        .find(place)
        .with_context(|| format!("there is no dead letter at {place}; `dead-letters list --all` shows all"))
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let queue = open(&args.kafka).await?;
    let listed: Vec<&QueuedLetter> =
        if args.all { queue.all.iter().collect() } else { queue.waiting().collect() };
    if args.json {
        return output::print_json(&listed.into_iter().map(as_json).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for QueuedLetter { dead_letter, is_requeued } in listed {
        let header = |name| clean::line(dead_letter.header(name).unwrap_or("?"));
        let done = if *is_requeued { "  (requeued)" } else { "" };
        let origin = format!("{} {}:{}", header("dlq_topic"), header("dlq_partition"), header("dlq_offset"));
        let (reason, detail) = (header("dlq_reason"), header("dlq_detail"));
        let _ = writeln!(text, "{:<10}{reason:<16}from {origin}  {detail}{done}", dead_letter.place());
    }
    if text.is_empty() {
        output::note("there are no dead letters");
        return Ok(());
    }
    output::print(text.trim_end())
}

async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let queue = open(&args.kafka).await?;
    let found = find(&queue, &args.place)?;
    if args.json {
        return output::print_json(&as_json(found));
    }
    let dead_letter = &found.dead_letter;
    let mut text = String::new();
    for (name, value) in &dead_letter.headers {
        let _ = writeln!(text, "{}: {}", clean::line(name), clean::line(value));
    }
    let _ = writeln!(text, "key: {}", clean::line(&text_of(dead_letter.record.key.as_deref())));
    // A value may have many lines, as JSON that somebody has laid out.
    let _ = writeln!(text, "\n{}", text_of(dead_letter.record.value.as_deref()));
    output::print(text.trim_end())
}

async fn requeue(args: &RequeueArgs) -> anyhow::Result<()> {
    let queue = open(&args.kafka).await?;
    let chosen: Vec<&QueuedLetter> = if args.all {
        queue.waiting().collect()
    } else {
        args.places.iter().map(|place| find(&queue, place)).collect::<Result<_, _>>()?
    };
    let publisher = queue.publisher()?;
    let (mut done, mut told, mut failure) = (Vec::new(), Ok(()), None);
    for queued in &chosen {
        if let Err(error) = queue.requeue(queued, &publisher).await {
            failure = Some(error);
            break;
        }
        let place = queued.dead_letter.place();
        // Whoever has left still wants the others requeued.
        if told.is_ok() && !args.json {
            told = output::print(&format!("{place} is requeued"));
        }
        done.push(place);
    }
    if args.json {
        told = output::print_json(&json!({"requeued": done}));
    }
    match failure {
        Some(error) => Err(error),
        None if chosen.is_empty() => bail!("there is nothing to requeue"),
        None => told,
    }
}

fn as_json(QueuedLetter { dead_letter, is_requeued }: &QueuedLetter) -> Value {
    let headers: serde_json::Map<String, Value> =
        dead_letter.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({
        "place": dead_letter.place(),
        "requeued": is_requeued,
        "headers": headers,
        "key": text_of(dead_letter.record.key.as_deref()),
        "value": text_of(dead_letter.record.value.as_deref()),
    })
}

fn text_of(bytes: Option<&[u8]>) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.unwrap_or_default())
}
