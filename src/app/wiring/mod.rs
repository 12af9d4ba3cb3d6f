//! Builds every part and starts every loop, from the inside out. The adapters of the service are chosen in this room.

mod listeners;

use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{App, Config, Shutdown, Supervisor, open_store};
use crate::{
    app::config::AuthMode,
    broker::{
        BrokerMonitor, DeadLetterMonitor, EmbeddedBroker, IN_FLIGHT, Kafka, KafkaPublisher, KafkaSettings,
        Publisher, Receipt,
    },
    keys::{Auth, KeyRing},
    ops::{Operations, overview::Overview},
    order::{IdMint, OrderPlaced, dead_letter::DeadLetterBacklog, promises::RELAY_QUEUE as FRESH},
    pipeline::{
        BatchWriter, Consumer, EventRelay, KeyReader, Migration, Relay, ReportWriter, Sampler, Scheduler,
        Upkeep, WRITTEN_AT_ONCE, simulator,
    },
    store::{Portion, Resilient, Store, StoreError},
    telemetry::{
        health::{Health, HealthRegistry, Part},
        metrics::Metrics,
    },
    time::{Alarm, SystemClock},
    tracker::{
        self, EventReader, Feed, Notifier, OrderLoader, PlaceQueue, PlaceRequests, Places, ReportBatches,
        ReportQueue, Search, Tracker, Transitions,
    },
};

/// Most connections at once.
const MAX_CONNECTIONS: usize = 8_192;

impl App {
    /// Builds every part and starts every loop. The broker may be away.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let max_connections = max_connections();
        let mut wiring = Wiring::open(config, max_connections).await?;
        let mut topic = wiring.connect()?;
        let (queue, requests) = tracker::place_queue();
        let (report_queue, reports) = tracker::report_queue();
        let tracker = wiring.tracker(queue, report_queue);
        let (operations, dead_letters) = wiring.operations();
        let overview = Arc::clone(&operations.overview);
        let address = wiring.serve(tracker.clone(), operations, max_connections).await?;
        let fresh = wiring.start_writers(requests);
        wiring.start_report_writer(reports);
        let (when_migrated, unfit) = wiring.start_migration();
        wiring.start_key_reader(&when_migrated);
        wiring.start_relay(&mut topic, fresh, &when_migrated);
        wiring.start_consumer(&topic, &when_migrated);
        wiring.start_scheduler(&when_migrated);
        wiring.start_reader(&when_migrated);
        wiring.start_event_relay(&topic, &when_migrated);
        wiring.start_upkeep(overview, &when_migrated);
        wiring.start_monitors(&topic, dead_letters);
        // With the last tracker the writers end, so none is kept here.
        wiring.start_simulator(tracker);
        let Wiring { store, tasks, shutdown, .. } = wiring;
        let Topic { brokers, publisher, embedded, .. } = topic;
        Ok(Self { address, brokers, store, publisher, tasks, shutdown, unfit, _embedded: embedded })
    }
}

/// How many connections may be served at once: most of the file descriptors that the process may have.
fn max_connections() -> usize {
    // As many as the system lets us ask for; without an answer the usual 1,024 is assumed.
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024);
    usize::try_from(descriptors / 4 * 3).unwrap_or(MAX_CONNECTIONS).min(MAX_CONNECTIONS)
}

/// Lets a task begin once the schema is up to date, or never if the service stops before.
#[derive(Clone)]
struct Gate {
    migrated: CancellationToken,
    stop: CancellationToken,
}

impl Gate {
    async fn open(self, task: impl Future<Output = ()>) {
        let Self { migrated, stop } = self;
        if stop.run_until_cancelled(migrated.cancelled()).await.is_some() {
            task.await;
        }
    }
}

/// The way to the topics and back.
struct Topic {
    kafka: Arc<Kafka>,
    publisher: Arc<KafkaPublisher>,
    /// The publisher's other end, until the relay has it.
    receipts: Option<mpsc::Receiver<Receipt>>,
    brokers: String,
    embedded: Option<EmbeddedBroker>,
}

/// What most parts need, and those that run already.
struct Wiring<'a> {
    config: &'a Config,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    parts: HealthRegistry,
    auth: Auth,
    loader: OrderLoader,
    notifier: Arc<Notifier>,
    feed: Arc<Feed>,
    alarm: Arc<Alarm>,
    transitions: Arc<Transitions>,
    shutdown: Shutdown,
    tasks: Supervisor,
}

impl<'a> Wiring<'a> {
    async fn open(config: &'a Config, max_connections: usize) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        // As many as a new topic gets, until it was looked at.
        metrics.partitions(config.kafka.partitions);
        let store: Arc<dyn Store> = Arc::new(Resilient::new(open_store(config).await?, Arc::clone(&metrics)));
        let shutdown = Shutdown::new(config.pipeline.shutdown_timeout, config.pipeline.shutdown_delay);
        let (loader, alarm) = (OrderLoader::new(store.clone()), Arc::new(Alarm::default()));
        // Streams are long: a quarter of the max_connections stays with those who only ask.
        let places = Places::new(max_connections / 4 * 3, shutdown.soft());
        let notifier = Notifier::new(loader.clone(), Arc::clone(&places));
        let feed = Feed::new(store.clone(), places);
        let transitions = Transitions::new(Arc::clone(&notifier), Arc::clone(&metrics), Arc::clone(&alarm));
        let (parts, tasks) = (HealthRegistry::default(), Supervisor::default());
        let auth = match config.clients.auth {
            AuthMode::Open => Auth::Open,
            AuthMode::Keys => Auth::Keys(Arc::<KeyRing>::default()),
        };
        Ok(Self {
            config,
            store,
            metrics,
            parts,
            auth,
            loader,
            notifier,
            feed,
            alarm,
            transitions,
            shutdown,
            tasks,
        })
    }

    fn connect(&self) -> anyhow::Result<Topic> {
        let (settings, embedded) = self.broker_settings()?;
        let brokers = settings.brokers.clone();
        let kafka = Arc::new(Kafka::new(settings, Arc::clone(&self.metrics)));
        let (receipts_in, receipts) = mpsc::channel(IN_FLIGHT);
        let publisher = Arc::new(kafka.publisher(receipts_in).context("the Kafka settings are not valid")?);
        Ok(Topic { kafka, publisher, receipts: Some(receipts), brokers, embedded })
    }

    fn broker_settings(&self) -> anyhow::Result<(KafkaSettings, Option<EmbeddedBroker>)> {
        let kafka = &self.config.kafka;
        if let Some(brokers) = &kafka.brokers {
            return Ok((kafka.settings(brokers.clone(), false), None));
        }
        let dlq_topic = kafka.dlq_topic();
        let topics = [&kafka.topic, &dlq_topic].into_iter().chain(kafka.events_topic());
        let topics: Vec<(&str, i32)> = topics.map(|topic| (topic.as_str(), kafka.partitions)).collect();
        let embedded = EmbeddedBroker::start(&topics)?;
        Ok((kafka.settings(embedded.address(), true), Some(embedded)))
    }

    fn tracker(&self, queue: PlaceQueue, reports: ReportQueue) -> Tracker {
        let search = Search::new(self.store.clone());
        let (notifier, feed) = (Arc::clone(&self.notifier), Arc::clone(&self.feed));
        Tracker::new(queue, reports, self.loader.clone(), notifier, feed, search)
    }

    /// And where the dead letters are told.
    fn operations(&self) -> (Operations, watch::Sender<Option<DeadLetterBacklog>>) {
        let (dead_letters, dead_letter_backlog) = watch::channel(None);
        let operations = Operations {
            overview: Overview::new(self.store.clone()),
            parts: self.parts.clone(),
            dead_letter_backlog,
            leaving: self.shutdown.leaving(),
        };
        (operations, dead_letters)
    }

    /// Answers where orders come from that are to be published. With the last writer that ends, and so does the relay.
    fn start_writers(&mut self, requests: PlaceRequests) -> mpsc::Receiver<OrderPlaced> {
        let ((fresh_in, fresh), mint) = (mpsc::channel(FRESH), Arc::new(Mutex::new(IdMint::default())));
        let start = self.config.pipeline.rules().start(self.config.pipeline.progression);
        for (name, requests) in [("writer", requests.keyless), ("writer of orders with keys", requests.keyed)]
        {
            let writer = BatchWriter {
                requests,
                store: self.store.clone(),
                fresh: fresh_in.clone(),
                transitions: Arc::clone(&self.transitions),
                start,
                clock: Arc::new(SystemClock),
                metrics: Arc::clone(&self.metrics),
                mint: Arc::clone(&mint),
                random: rand::make_rng(),
                hurry: self.shutdown.hard(),
                portion: Portion::new(WRITTEN_AT_ONCE),
            };
            self.tasks.spawn(name, writer.run());
        }
        fresh
    }

    fn start_report_writer(&mut self, batches: ReportBatches) {
        let writer = ReportWriter::new(
            batches,
            self.store.clone(),
            self.config.pipeline.rules(),
            Arc::clone(&self.transitions),
            Arc::clone(&self.metrics),
            self.shutdown.hard(),
        );
        self.tasks.spawn("writer of reports", writer.run());
    }

    /// Until the schema is there the other loops have nothing to do but to complain.
    /// Answers what they wait for, and where it is told why the database can never be used as it is.
    fn start_migration(&mut self) -> (Gate, oneshot::Receiver<StoreError>) {
        let (migration, migrated, unfit) = Migration::new(self.store.clone());
        self.tasks.spawn("schema migration", migration.run(self.shutdown.soft()));
        (Gate { migrated, stop: self.shutdown.soft() }, unfit)
    }

    /// Until the keys were read nobody who sends one is told that it is not good.
    fn start_key_reader(&mut self, when_migrated: &Gate) {
        let Auth::Keys(ring) = &self.auth else { return };
        let reader = KeyReader::new(self.store.clone(), Arc::clone(ring), Arc::clone(&self.metrics));
        let health = self.parts.reporter(Part::Keys);
        health.send_replace(Health::Down("not read yet".to_owned()));
        let reader = reader.run(self.shutdown.soft(), health);
        self.tasks.spawn("key reader", when_migrated.clone().open(reader));
    }

    fn start_relay(&mut self, topic: &mut Topic, fresh: mpsc::Receiver<OrderPlaced>, when_migrated: &Gate) {
        let relay = Relay::new(
            Arc::clone(&self.store),
            topic.publisher.clone(),
            fresh,
            topic.receipts.take().expect("there is one relay"),
            Arc::clone(&self.metrics),
            Arc::new(SystemClock),
            self.shutdown.give_up(),
        );
        let relay = relay.out_of_step(rand::random()).run(self.parts.reporter(Part::Relay));
        self.tasks.spawn("relay", when_migrated.clone().open(relay));
    }

    fn start_consumer(&mut self, topic: &Topic, when_migrated: &Gate) {
        let to_topic: Arc<dyn Publisher> = topic.publisher.clone();
        let consumer = Consumer::new(
            Box::new(topic.kafka.subscribe()),
            Arc::clone(&self.store),
            to_topic,
            Arc::clone(&self.transitions),
            Arc::clone(&self.metrics),
            self.config.pipeline.rules().start(self.config.pipeline.progression),
        );
        let consumer = consumer.run(self.shutdown.soft(), self.parts.reporter(Part::Consumer));
        self.tasks.spawn("consumer", when_migrated.clone().open(consumer));
    }

    fn start_scheduler(&mut self, when_migrated: &Gate) {
        let scheduler = Scheduler::new(
            self.store.clone(),
            Arc::clone(&self.alarm),
            Arc::clone(&self.transitions),
            Arc::clone(&self.metrics),
            self.config.pipeline.stage_delays,
        );
        let scheduler = scheduler.run(self.shutdown.soft(), self.parts.reporter(Part::Scheduler));
        self.tasks.spawn("scheduler", when_migrated.clone().open(scheduler));
    }

    /// Without it nobody hears of steps that other replicas make.
    fn start_reader(&mut self, when_migrated: &Gate) {
        let reader = EventReader {
            log: self.store.clone(),
            notifier: Arc::clone(&self.notifier),
            feed: Arc::clone(&self.feed),
            metrics: Arc::clone(&self.metrics),
        };
        let reader = reader.run(self.shutdown.soft());
        self.tasks.spawn("event reader", when_migrated.clone().open(reader));
    }

    /// Without a topic of events there is none.
    fn start_event_relay(&mut self, topic: &Topic, when_migrated: &Gate) {
        let (Some(publisher), Some(name)) = (topic.kafka.events(), self.config.kafka.events_topic()) else {
            self.metrics.without_events_topic();
            return;
        };
        let relay = EventRelay::new(
            self.store.clone(),
            Arc::clone(&self.feed),
            Arc::new(publisher),
            name.clone(),
            Arc::clone(&self.metrics),
            Arc::new(SystemClock),
            self.parts.reporter(Part::Events),
        );
        let relay = relay.run(self.shutdown.soft(), self.shutdown.give_up());
        self.tasks.spawn("event relay", when_migrated.clone().open(relay));
    }

    fn start_upkeep(&mut self, overview: Arc<Overview>, when_migrated: &Gate) {
        let sampler = Sampler::new(overview, Arc::clone(&self.metrics)).run(self.shutdown.soft());
        self.tasks.spawn("sampler", when_migrated.clone().open(sampler));
        let upkeep = Upkeep::new(self.store.clone()).run(self.shutdown.soft());
        self.tasks.spawn("upkeep", when_migrated.clone().open(upkeep));
    }

    fn start_monitors(&mut self, topic: &Topic, dead_letters: watch::Sender<Option<DeadLetterBacklog>>) {
        let (kafka, publisher) = (&topic.kafka, &topic.publisher);
        let broker_monitor =
            BrokerMonitor::new(Arc::clone(kafka), Arc::clone(publisher), self.parts.reporter(Part::Broker));
        self.tasks.spawn("broker monitor", broker_monitor.run(self.shutdown.soft()));
        let dead_letter_monitor = DeadLetterMonitor::new(
            Arc::clone(kafka),
            Arc::clone(publisher),
            self.parts.watcher(Part::Broker),
            dead_letters,
            Arc::clone(&self.metrics),
            self.parts.reporter(Part::DeadLetters),
        );
        self.tasks.spawn("dead-letter monitor", dead_letter_monitor.run(self.shutdown.soft()));
    }

    fn start_simulator(&mut self, tracker: Tracker) {
        let rate = self.config.pipeline.simulate_rate;
        if rate > 0.0 {
            self.tasks.spawn("simulator", simulator::run(tracker, rate, self.shutdown.soft()));
        }
    }
}
