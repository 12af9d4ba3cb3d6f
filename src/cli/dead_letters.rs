//! `dead-letters list|show|requeue`: messages that could not become orders, for people.

use std::{borrow::Cow, collections::HashSet, fmt::Write as _, sync::Arc};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{clean, output, reach};
use crate::{
    app::config::KafkaConfig,
    broker::{BrokerError, DeadLetter, Kafka},
    telemetry::metrics::Metrics,
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

/// The dead-letter topic, read.
struct DeadLetterQueue {
    kafka: Arc<Kafka>,
    dead_letters: Vec<DeadLetter>,
    /// Places of dead letters that were requeued.
    requeued: HashSet<String>,
}

impl DeadLetterQueue {
    async fn open(config: &KafkaConfig) -> anyhow::Result<Self> {
        let brokers = config.brokers.clone().ok_or_else(|| {
            let unset =
                "KAFKA_BROKERS is not set: it says where the broker is (the embedded one prints its address)";
            output::Wrong(unset.to_owned())
        })?;
        reach::broker(&brokers).await?;
        let kafka = Arc::new(Kafka::new(config.settings(brokers.clone(), false), Arc::new(Metrics::new())));
        let (reader, topic) = (Arc::clone(&kafka), config.dlq_topic());
        let all = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_all(&topic, |dead_letter| all.push(dead_letter))?;
            Ok::<_, BrokerError>(all)
        });
        let all = all.await?.with_context(|| format!("the broker at {brokers} (KAFKA_BROKERS)"))?;
        let (notes, dead_letters): (Vec<DeadLetter>, Vec<DeadLetter>) =
            all.into_iter().partition(|dead_letter| dead_letter.notes_requeue_of().is_some());
        let requeued = notes.iter().filter_map(DeadLetter::notes_requeue_of).map(str::to_owned).collect();
        Ok(Self { kafka, dead_letters, requeued })
    }

    fn waiting(&self) -> impl Iterator<Item = &DeadLetter> {
        self.dead_letters.iter().filter(|dead_letter| !self.requeued.contains(&dead_letter.place()))
    }

    fn find(&self, place: &str) -> anyhow::Result<&DeadLetter> {
        let found = self.dead_letters.iter().find(|dead_letter| dead_letter.place() == place);
        found.with_context(|| {
            format!("there is no dead letter at {place}; `dead-letters list --all` shows all")
        })
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let queue = DeadLetterQueue::open(&args.kafka).await?;
    let dead_letters: Vec<&DeadLetter> =
        if args.all { queue.dead_letters.iter().collect() } else { queue.waiting().collect() };
    if args.json {
        return output::print_json(
            &dead_letters.iter().map(|dead_letter| as_json(&queue, dead_letter)).collect::<Vec<_>>(),
        );
    }
    let mut text = String::new();
    for dead_letter in dead_letters {
        let header = |name| clean::line(dead_letter.header(name).unwrap_or("?"));
        let done = if queue.requeued.contains(&dead_letter.place()) { "  (requeued)" } else { "" };
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
    let queue = DeadLetterQueue::open(&args.kafka).await?;
    let dead_letter = queue.find(&args.place)?;
    if args.json {
        return output::print_json(&as_json(&queue, dead_letter));
    }
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
    let queue = DeadLetterQueue::open(&args.kafka).await?;
    let chosen: Vec<&DeadLetter> = if args.all {
        queue.waiting().collect()
    } else {
        args.places.iter().map(|place| queue.find(place)).collect::<Result<_, _>>()?
    };
    let (receipts, _unused) = mpsc::channel(1);
    let publisher = queue.kafka.publisher(receipts)?;
    let (mut done, mut told, mut failure) = (Vec::new(), Ok(()), None);
    for dead_letter in &chosen {
        let requeued = async { Ok(publisher.requeued(&whole(&queue, dead_letter).await?).await?) };
        if let Err(error) = requeued.await {
            failure = Some(error);
            break;
        }
        done.push(dead_letter.place());
        // Whoever has left still wants the others requeued.
        if told.is_ok() && !args.json {
            told = output::print(&format!("{} is requeued", dead_letter.place()));
        }
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

/// The dead letter with its message; what was too large to copy is fetched from where it came from.
async fn whole(queue: &DeadLetterQueue, dead_letter: &DeadLetter) -> anyhow::Result<DeadLetter> {
    if !dead_letter.is_partial() {
        return Ok(dead_letter.clone());
    }
    let header =
        |name| dead_letter.header(name).with_context(|| format!("the dead letter has no header {name}"));
    let (topic, partition) = (header("dlq_topic")?.to_owned(), header("dlq_partition")?.parse()?);
    let (offset, kafka) = (header("dlq_offset")?.parse()?, Arc::clone(&queue.kafka));
    let original = tokio::task::spawn_blocking(move || kafka.read_one(&topic, partition, offset)).await??;
    let mut whole = dead_letter.clone();
    (whole.record.key, whole.record.value) = (original.record.key, original.record.value);
    whole.record.headers = original.record.headers;
    Ok(whole)
}

fn as_json(queue: &DeadLetterQueue, dead_letter: &DeadLetter) -> Value {
    let headers: serde_json::Map<String, Value> =
        dead_letter.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({
        "place": dead_letter.place(),
        "requeued": queue.requeued.contains(&dead_letter.place()),
        "headers": headers,
        "key": text_of(dead_letter.record.key.as_deref()),
        "value": text_of(dead_letter.record.value.as_deref()),
    })
}

fn text_of(bytes: Option<&[u8]>) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.unwrap_or_default())
}
