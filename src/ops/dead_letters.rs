//! What lies on the dead-letter topic, read whole, and requeued on the topic of orders.

use std::{collections::HashSet, sync::Arc};

use anyhow::Context as _;
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::broker::{DeadLetter, Kafka, KafkaPublisher};

/// The dead-letter topic, read.
pub struct DeadLetterQueue {
    kafka: Arc<Kafka>,
    /// Every dead letter, in the order that it was read in.
    pub all: Vec<QueuedLetter>,
}

/// A dead letter, and what became of it.
pub struct QueuedLetter {
    /// As it lies there.
    pub dead_letter: DeadLetter,
    /// Whether it was requeued.
    pub is_requeued: bool,
}

impl DeadLetterQueue {
    /// Reads this topic from its beginning to its end.
    pub async fn read(kafka: Arc<Kafka>, topic: String) -> anyhow::Result<Self> {
        let reader = Arc::clone(&kafka);
        let read = spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_all(&topic, |dead_letter| all.push(dead_letter)).map(|_| all)
        });
        let (notes, dead_letters): (Vec<DeadLetter>, Vec<DeadLetter>) =
            read.await??.into_iter().partition(|dead_letter| dead_letter.notes_requeue_of().is_some());
        let requeued: HashSet<&str> = notes.iter().filter_map(DeadLetter::notes_requeue_of).collect();
        let queued = |dead_letter: DeadLetter| {
            let is_requeued = requeued.contains(dead_letter.place().as_str());
            QueuedLetter { dead_letter, is_requeued }
        };
        Ok(Self { all: dead_letters.into_iter().map(queued).collect(), kafka })
    }

    /// Those that were not requeued.
    pub fn waiting(&self) -> impl Iterator<Item = &QueuedLetter> {
        self.all.iter().filter(|queued| !queued.is_requeued)
    }

    /// The one at this place, `partition:offset`.
    pub fn find(&self, place: &str) -> Option<&QueuedLetter> {
        self.all.iter().find(|queued| queued.dead_letter.place() == place)
    }

    /// What puts them back.
    pub fn publisher(&self) -> anyhow::Result<KafkaPublisher> {
        // Nobody sends orders through it.
        Ok(self.kafka.publisher(mpsc::channel(1).0)?)
    }

    /// Puts one back and waits until the broker has it; what was too large to copy is fetched from where it came from.
    pub async fn requeue(&self, queued: &QueuedLetter, publisher: &KafkaPublisher) -> anyhow::Result<()> {
        Ok(publisher.requeued(&self.whole(&queued.dead_letter).await?).await?)
    }

    async fn whole(&self, dead_letter: &DeadLetter) -> anyhow::Result<DeadLetter> {
        let mut whole = dead_letter.clone();
        if whole.is_partial() {
            let header = |name| {
                dead_letter.header(name).with_context(|| format!("the dead letter has no header {name}"))
            };
            let (topic, partition) = (header("dlq_topic")?.to_owned(), header("dlq_partition")?.parse()?);
            let (offset, kafka) = (header("dlq_offset")?.parse()?, Arc::clone(&self.kafka));
            let original = spawn_blocking(move || kafka.read_one(&topic, partition, offset)).await??;
            (whole.record.key, whole.record.value) = (original.record.key, original.record.value);
            whole.record.headers = original.record.headers;
        }
        Ok(whole)
    }
}
