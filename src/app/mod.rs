//! Wiring: builds every part, runs the loops, and takes them down in order.
//!
//! Concrete types are named here and nowhere else. The shutdown is a chain of closing queues: no
//! requests, so no place queue; no queue, so the batch writer ends; no writer, so the relay drains and ends.

pub mod config;
mod shutdown;
mod supervisor;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, bail};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use shutdown::Shutdown;
use supervisor::Supervisor;

use crate::{
    app::config::{Config, HttpConfig, StoreConfig},
    broker::{
        BrokerMonitor, DeadLetterMonitor, EmbeddedBroker, IN_FLIGHT, Kafka, KafkaPublisher, KafkaSettings,
        Publisher,
    },
    http::{self, AppState, RequestLog, Server, TrustedProxies},
    ops::overview::Overview,
    order::{IdMint, Status, dead_letter},
    pipeline::{
        BatchWriter, Consumer, Migration, Relay, Sampler, Scheduler, Upkeep, WRITTEN_AT_ONCE, simulator,
    },
    store::{PgSettings, PgStore, Portion, Resilient, SqliteStore, Store, StoreError},
    telemetry::{health, metrics::Metrics},
    time::{Alarm, SystemClock},
    tracker::{self, Notifier, OrderLoader, Search},
};

/// How many orders may wait between writer and relay; more are found through the outbox.
const FRESH: usize = 4_096;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 8_192;

/// The service, started.
pub struct App {
    address: SocketAddr,
    brokers: String,
    store: Arc<dyn Store>,
    publisher: Arc<KafkaPublisher>,
    tasks: Supervisor,
    shutdown: Shutdown,
    /// Why the database can't ever be used as it is.
    unfit: oneshot::Receiver<StoreError>,
    /// Forgets its messages when it is dropped, so it goes last.
    _embedded: Option<EmbeddedBroker>,
}

/// The store that the settings name; not migrated yet.
pub async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(dsn) = config.store.dsn()? {
        let max_connections = config.store.pg_max_connections;
        return Ok(Arc::new(PgStore::new(PgSettings { dsn, max_connections })));
    }
    let store = SqliteStore::open(&config.store.data_dir, Arc::new(SystemClock)).await?;
    Ok(Arc::new(store))
}

/// The same for reading only, beside the service that uses it.
pub(crate) async fn open_for_audit(config: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(dsn) = config.dsn()? {
        let max_connections = PgSettings::MIN_CONNECTIONS;
        return Ok(Arc::new(PgStore::open_for_audit(PgSettings { dsn, max_connections }).await?));
    }
    Ok(Arc::new(SqliteStore::open_read_only(&config.data_dir, Arc::new(SystemClock)).await?))
}

/// The same for writing what is not there yet, beside a running service where the database allows that.
pub(crate) async fn open_for_repair(config: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    if !config.is_embedded() {
        return open_for_audit(config).await;
    }
    let store = SqliteStore::open_existing(&config.data_dir, Arc::new(SystemClock));
    let store =
        store.await.context("the embedded database is written to while the service is stopped only")?;
    Ok(Arc::new(store))
}

fn broker_settings(config: &Config) -> anyhow::Result<(KafkaSettings, Option<EmbeddedBroker>)> {
    if let Some(brokers) = &config.kafka.brokers {
        return Ok((config.kafka.settings(brokers.clone(), false), None));
    }
    let (topic, dlq_topic) = (&config.kafka.topic, config.kafka.dlq_topic());
    let partitions = config.kafka.partitions;
    let embedded = EmbeddedBroker::start(&[(topic, partitions), (&dlq_topic, partitions)])?;
    Ok((config.kafka.settings(embedded.address(), true), Some(embedded)))
}

/// Takes the port, so that whoever starts the service learns at once that it is taken.
async fn listen(
    HttpConfig { host, port }: &HttpConfig,
    state: AppState,
    seats: usize,
    log: Arc<RequestLog>,
) -> anyhow::Result<Server> {
    let server = Server::bind((host.as_str(), *port), http::router(state), seats, log).await;
    server.with_context(|| format!("can't listen on {host}:{port} (APP_HOST, APP_PORT)"))
}

/// How many connections may be served at once: most of the file descriptors that the process may have.
fn seats() -> usize {
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

impl App {
    /// Builds every part and starts every loop. The broker may be away.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        // As many as a new topic gets, until it was looked at.
        metrics.partitions(config.kafka.partitions);
        let store: Arc<dyn Store> = Arc::new(Resilient::new(open_store(config).await?, Arc::clone(&metrics)));
        let (settings, embedded) = broker_settings(config)?;
        let brokers = settings.brokers.clone();
        let kafka = Arc::new(Kafka::new(settings, Arc::clone(&metrics)));
        let (receipts, receipts_out) = mpsc::channel(IN_FLIGHT);
        let publisher = Arc::new(kafka.publisher(receipts).context("the Kafka settings are not valid")?);
        let (condition, broker) = health::channel();
        let (pace, scheduler) = health::channel();
        let (flow, relaying) = health::channel();
        let (reading, consumer) = health::channel();
        let (usable, dead_letters) = health::channel();
        let (waiting, dead_letter_backlog) = dead_letter::channel();
        let (queue, requests) = tracker::place_queue();

        let shutdown = Shutdown::new(config.pipeline.shutdown_timeout, config.pipeline.shutdown_delay);

        let (loader, overview) = (OrderLoader::new(Arc::clone(&store)), Overview::new(Arc::clone(&store)));
        let seats = seats();
        // Streams are long: a quarter of the seats stays with those who only ask.
        let notifier = Notifier::new(Arc::clone(&store), loader.clone(), seats / 4 * 3, shutdown.soft());
        let log = RequestLog::new();
        let state = AppState {
            store: Arc::clone(&store),
            loader,
            notifier: Arc::clone(&notifier),
            queue: queue.clone(),
            metrics: Arc::clone(&metrics),
            broker: broker.clone(),
            scheduler,
            relay: relaying,
            consumer,
            dead_letters,
            dead_letter_backlog,
            overview: Arc::clone(&overview),
            leaving: shutdown.leaving(),
            delays: config.pipeline.stage_delays,
            clock: Arc::new(SystemClock),
            proxies: TrustedProxies::new(config.clients.trusted_proxies.clone()),
            log: Arc::clone(&log),
            demo: config.store.is_embedded(),
            search: Search::new(Arc::clone(&store)),
        };
        let server = listen(&config.http, state, seats, log).await?;
        let address = server.address()?;
        let (mut tasks, alarm) = (Supervisor::default(), Arc::new(Alarm::default()));
        let ((fresh, fresh_out), mint) = (mpsc::channel(FRESH), Arc::new(Mutex::new(IdMint::default())));
        let delays = config.pipeline.stage_delays;
        let first_delay = delays.after(Status::Placed).unwrap_or_default();
        let writer = |requests| BatchWriter {
            requests,
            store: Arc::clone(&store),
            fresh: fresh.clone(),
            alarm: Arc::clone(&alarm),
            first_delay,
            clock: Arc::new(SystemClock),
            metrics: Arc::clone(&metrics),
            mint: Arc::clone(&mint),
            random: rand::make_rng(),
            hurry: shutdown.hard(),
            portion: Portion::new(WRITTEN_AT_ONCE),
        };
        let (writer, keyed_writer) = (writer(requests.keyless), writer(requests.keyed));
        // The relay ends with the last writer.
        drop(fresh);
        let to_topic: Arc<dyn Publisher> = publisher.clone();
        let relay = Relay::new(
            Arc::clone(&store),
            Arc::clone(&to_topic),
            fresh_out,
            receipts_out,
            Arc::clone(&metrics),
            Arc::new(SystemClock),
            shutdown.give_up(),
        )
        .out_of_step(rand::random());
        let (subscription, kept, of_consumer) = (Box::new(kafka.subscribe()), store.clone(), alarm.clone());
        let consumer = Consumer::new(subscription, kept, to_topic, of_consumer, metrics.clone(), first_delay);
        let scheduler = Scheduler::new(store.clone(), alarm, notifier.clone(), metrics.clone(), delays);
        let sampler = Sampler::new(overview, Arc::clone(&metrics));
        let watch = BrokerMonitor::new(Arc::clone(&kafka), Arc::clone(&publisher), condition);
        let dead_letter_monitor =
            DeadLetterMonitor::new(kafka, Arc::clone(&publisher), broker, waiting, metrics, usable);

        tasks.spawn("http server", server.run(shutdown.soft(), shutdown.hard()));
        tasks.spawn("writer", writer.run());
        tasks.spawn("writer of orders with keys", keyed_writer.run());
        // Until the schema is there the loops have nothing to do but to complain.
        let (migration, migrated, unfit) = Migration::new(store.clone());
        let when_migrated = Gate { migrated, stop: shutdown.soft() };
        tasks.spawn("schema migration", migration.run(shutdown.soft()));
        tasks.spawn("relay", when_migrated.clone().open(relay.run(flow)));
        tasks.spawn("consumer", when_migrated.clone().open(consumer.run(shutdown.soft(), reading)));
        tasks.spawn("scheduler", when_migrated.clone().open(scheduler.run(shutdown.soft(), pace)));
        tasks.spawn("poller", when_migrated.clone().open(notifier.poll()));
        tasks.spawn("sampler", when_migrated.clone().open(sampler.run(shutdown.soft())));
        tasks.spawn("upkeep", when_migrated.open(Upkeep::new(store.clone()).run(shutdown.soft())));
        tasks.spawn("broker watch", watch.run(shutdown.soft()));
        tasks.spawn("dead-letter monitor", dead_letter_monitor.run(shutdown.soft()));
        if config.pipeline.simulate_rate > 0.0 {
            tasks.spawn("simulator", simulator::run(queue, config.pipeline.simulate_rate, shutdown.soft()));
        }
        Ok(Self { address, brokers, store, publisher, tasks, shutdown, unfit, _embedded: embedded })
    }

    /// Where HTTP listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the broker listens; `kcat -b` takes it.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Works until `stop` is ready or a part dies, then drains. An error means that a part died or
    /// that draining took too long.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let died = tokio::select! {
            () = stop => None,
            Ok(error) = &mut self.unfit => return Err(error.into()),
            name = self.tasks.first_end() => Some(name),
        };
        info!("stopping");
        if died.is_none() {
            self.shutdown.take_leave().await;
        }
        let drained = self.shutdown.drain(&mut self.tasks).await;
        // Dropping the Kafka client waits for its threads, which have been seen to take for ever.
        let (store, publisher) = (self.store, self.publisher);
        let farewell =
            async { tokio::join!(store.close(), tokio::task::spawn_blocking(move || drop(publisher))) };
        drop(timeout(self.shutdown.rest(), farewell).await);
        if let Some(name) = died {
            bail!("the {name} ended by itself; the service can't go on without it");
        }
        drained?;
        info!("stopped");
        Ok(())
    }
}
