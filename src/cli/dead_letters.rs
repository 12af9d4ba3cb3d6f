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
    /// List the letters that were not put back
    List(ListArgs),
    /// Show one letter whole
    Show(ShowArgs),
    /// Put letters back on the orders topic
    Requeue(RequeueArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Also those that were put back
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
    /// The letter's place, as listed
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
    /// The letters' places, as listed
    #[arg(value_name = "PARTITION:OFFSET", value_parser = place, required_unless_present = "all")]
    places: Vec<String>,
    /// All that were not put back
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
    letters: Vec<DeadLetter>,
    /// Places of letters that were put back.
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
            reader.read_all(&topic, |letter| all.push(letter))?;
            Ok::<_, BrokerError>(all)
        });
        let all = all.await?.with_context(|| format!("the broker at {brokers} (KAFKA_BROKERS)"))?;
        let (notes, letters): (Vec<DeadLetter>, Vec<DeadLetter>) =
            all.into_iter().partition(|letter| letter.notes_requeue_of().is_some());
        let requeued = notes.iter().filter_map(DeadLetter::notes_requeue_of).map(str::to_owned).collect();
        Ok(Self { kafka, letters, requeued })
    }

    fn waiting(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.iter().filter(|letter| !self.requeued.contains(&letter.place()))
    }

    fn find(&self, place: &str) -> anyhow::Result<&DeadLetter> {
        let found = self.letters.iter().find(|letter| letter.place() == place);
        found.with_context(|| format!("there is no letter at {place}; `dead-letters list --all` shows all"))
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let queue = DeadLetterQueue::open(&args.kafka).await?;
    let letters: Vec<&DeadLetter> =
        if args.all { queue.letters.iter().collect() } else { queue.waiting().collect() };
    if args.json {
        return output::print_json(&letters.iter().map(|letter| as_json(&queue, letter)).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for letter in letters {
        let header = |name| clean::line(letter.header(name).unwrap_or("?"));
        let done = if queue.requeued.contains(&letter.place()) { "  (put back)" } else { "" };
        let origin = format!("{} {}:{}", header("dlq_topic"), header("dlq_partition"), header("dlq_offset"));
        let (reason, detail) = (header("dlq_reason"), header("dlq_detail"));
        let _ = writeln!(text, "{:<10}{reason:<16}from {origin}  {detail}{done}", letter.place());
    }
    if text.is_empty() {
        output::note("there are no dead letters");
        return Ok(());
    }
    output::print(text.trim_end())
}

async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let queue = DeadLetterQueue::open(&args.kafka).await?;
    let letter = queue.find(&args.place)?;
    if args.json {
        return output::print_json(&as_json(&queue, letter));
    }
    let mut text = String::new();
    for (name, value) in &letter.headers {
        let _ = writeln!(text, "{}: {}", clean::line(name), clean::line(value));
    }
    let _ = writeln!(text, "key: {}", clean::line(&text_of(letter.record.key.as_deref())));
    // A value may have many lines, as JSON that somebody has laid out.
    let _ = writeln!(text, "\n{}", text_of(letter.record.value.as_deref()));
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
    for letter in &chosen {
        let requeued = async { Ok(publisher.requeued(&whole(&queue, letter).await?).await?) };
        if let Err(error) = requeued.await {
            failure = Some(error);
            break;
        }
        done.push(letter.place());
        // Whoever has left still wants the others put back.
        if told.is_ok() && !args.json {
            told = output::print(&format!("{} is put back", letter.place()));
        }
    }
    if args.json {
        told = output::print_json(&json!({"put_back": done}));
    }
    match failure {
        Some(error) => Err(error),
        None if chosen.is_empty() => bail!("there is nothing to put back"),
        None => told,
    }
}

/// The letter with its message; what was too large to copy is fetched from where it came from.
async fn whole(queue: &DeadLetterQueue, letter: &DeadLetter) -> anyhow::Result<DeadLetter> {
    if !letter.is_partial() {
        return Ok(letter.clone());
    }
    let header = |name| letter.header(name).with_context(|| format!("the letter has no header {name}"));
    let (topic, partition) = (header("dlq_topic")?.to_owned(), header("dlq_partition")?.parse()?);
    let (offset, kafka) = (header("dlq_offset")?.parse()?, Arc::clone(&queue.kafka));
    let original = tokio::task::spawn_blocking(move || kafka.read_one(&topic, partition, offset)).await??;
    let mut whole = letter.clone();
    (whole.record.key, whole.record.value) = (original.record.key, original.record.value);
    whole.record.headers = original.record.headers;
    Ok(whole)
}

fn as_json(queue: &DeadLetterQueue, letter: &DeadLetter) -> Value {
    let headers: serde_json::Map<String, Value> =
        letter.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({
        "place": letter.place(),
        "put_back": queue.requeued.contains(&letter.place()),
        "headers": headers,
        "key": text_of(letter.record.key.as_deref()),
        "value": text_of(letter.record.value.as_deref()),
    })
}

fn text_of(bytes: Option<&[u8]>) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.unwrap_or_default())
}
