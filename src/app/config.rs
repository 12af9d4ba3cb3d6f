//! Every setting, declared once: environment variable, flag, default and meaning.
//!
//! A test holds `.env.example` and the README's table to this file.

use std::{fmt, net::IpAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::addresses::AddressConfig;
use crate::{
    broker::{Kafka, KafkaSettings, Properties},
    order::{Progression, Rules, StageDelays},
    store::{ParseDsnError, PgDsn, PgSettings},
};

/// Orders a second that the service may place by itself; the least is one in some three hours.
const SIMULATE_RATES: RangeInclusive<f64> = 0.0001..=1_000.0;

/// The settings of the service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub(crate) http: HttpConfig,
    #[command(flatten)]
    pub(crate) clients: ClientConfig,
    #[command(flatten)]
    pub(crate) addresses: AddressConfig,
    #[command(flatten)]
    pub(crate) store: StoreConfig,
    #[command(flatten)]
    pub(crate) kafka: KafkaConfig,
    #[command(flatten)]
    pub(crate) pipeline: PipelineConfig,
}

/// Where HTTP listens.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct HttpConfig {
    /// Where HTTP listens
    #[arg(long = "app-host", env = "APP_HOST", default_value = "127.0.0.1", value_name = "HOST")]
    pub(crate) host: String,
    /// Where HTTP listens; 0 takes a free port and prints it
    #[arg(long = "app-port", env = "APP_PORT", default_value_t = 8080, value_name = "PORT", value_parser = port)]
    pub(crate) port: u16,
}

/// Whose requests these are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct ClientConfig {
    /// Networks of proxies whose `X-Forwarded-For` is believed: a client's address is then the last in it that is
    /// none of theirs
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "CIDR,...", value_delimiter = ',', value_parser = network)]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Who may ask: `open`, everybody everything; `keys`, who has a key what its role may (`order-tracker keys create`)
    #[arg(long, env = "AUTH", default_value = "open", value_name = "BY", value_parser = auth)]
    pub(crate) auth: AuthMode,
}

/// Whether who asks must say who he is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthMode {
    /// Nobody must.
    Open,
    /// By a key.
    Keys,
}

/// Where orders are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub(crate) struct StoreConfig {
    /// PostgreSQL 15 or later; unset means the embedded database
    #[arg(
        long,
        env = "PG_DSN",
        value_name = "postgres://USER:PASSWORD@HOST:PORT/DB",
        hide_env_values = true
    )]
    pub(crate) pg_dsn: Option<PgDsn>,
    /// A file that holds the same alone, for secrets; read again when the database can't be reached
    #[arg(long, env = "PG_DSN_FILE", value_name = "FILE", hide_env_values = true)]
    pub(crate) pg_dsn_file: Option<PathBuf>,
    /// Most connections of this replica to PostgreSQL
    #[arg(long, env = "PG_MAX_CONNECTIONS", default_value_t = 8, value_name = "N", value_parser = whole(PgSettings::MIN_CONNECTIONS..=1_000))]
    pub(crate) pg_max_connections: u32,
    /// Where the embedded database lives
    #[arg(long, env = "DATA_DIR", default_value = "data", value_name = "FOLDER")]
    pub(crate) data_dir: PathBuf,
}

/// Where messages go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub(crate) struct KafkaConfig {
    /// Bootstrap servers, comma-separated; unset means the embedded broker
    #[arg(long = "kafka-brokers", env = "KAFKA_BROKERS", value_name = "HOST:PORT,...", value_parser = brokers)]
    pub(crate) brokers: Option<String>,
    /// Where orders are published; created if missing
    #[arg(long = "kafka-topic", env = "KAFKA_TOPIC", default_value = "orders.v1", value_name = "TOPIC", value_parser = topic)]
    pub(crate) topic: String,
    /// Where messages go that can't become orders; `<topic>.dlq` if unset; created if missing
    #[arg(long = "kafka-dlq-topic", env = "KAFKA_DLQ_TOPIC", value_name = "TOPIC", value_parser = topic)]
    pub(crate) dlq_topic: Option<String>,
    /// Where every event goes, for others to follow; created if missing; `off` writes none
    #[arg(long = "kafka-events-topic", env = "KAFKA_EVENTS_TOPIC", default_value = "order-events.v1", value_name = "TOPIC", value_parser = topic)]
    pub(crate) events_topic: String,
    /// Used only when the topic is created
    #[arg(long = "kafka-topic-partitions", env = "KAFKA_TOPIC_PARTITIONS", default_value_t = 6, value_name = "N", value_parser = whole(1..=1_000))]
    pub(crate) partitions: i32,
    /// Used only when the topic is created
    #[arg(long = "kafka-topic-replication", env = "KAFKA_TOPIC_REPLICATION", default_value_t = 1, value_name = "N", value_parser = whole(1..=32_767))]
    pub(crate) replication: i32,
    /// Consumer group, shared by all replicas
    #[arg(long = "kafka-group", env = "KAFKA_GROUP", default_value = "order-tracker", value_name = "GROUP")]
    pub(crate) group: String,
    /// Handed to the Kafka client as they are (TLS, SASL, ...); a comma inside a value is `\,`
    #[arg(
        long = "kafka-properties",
        env = "KAFKA_PROPERTIES",
        value_name = "NAME=VALUE,...",
        hide_env_values = true
    )]
    pub(crate) properties: Vec<Properties>,
}

/// How orders move.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Orders")]
pub(crate) struct PipelineConfig {
    /// Time spent in each status before the last; one value stands for all
    #[arg(long, env = "STAGE_DELAYS", default_value_t = StageDelays::default(), value_name = "DURATION,...")]
    pub(crate) stage_delays: StageDelays,
    /// What moves new orders: `timer` by their delays, a report may come earlier; `reported` by reports alone
    #[arg(long, env = "PROGRESSION", default_value = "timer", value_name = "BY", value_parser = progression)]
    pub(crate) progression: Progression,
    /// After how long an order that is still PLACED is cancelled; only with PROGRESSION=reported; unset means never
    #[arg(long, env = "CANCEL_UNACCEPTED_AFTER", value_name = "DURATION", value_parser = cancel_unaccepted_after)]
    pub(crate) cancel_unaccepted_after: Option<Duration>,
    /// How young a step must be to be taken back; 0s means that none can be
    #[arg(long, env = "UNDO_WINDOW", default_value = "5m", value_name = "DURATION", value_parser = undo_window)]
    pub(crate) undo_window: Duration,
    /// Orders a second that the service places by itself; 0 means none
    #[arg(long, env = "SIMULATE_RATE", default_value_t = 0.0, value_name = "RATE", value_parser = rate)]
    pub(crate) simulate_rate: f64,
    /// How long SIGTERM may take
    #[arg(long, env = "SHUTDOWN_TIMEOUT", default_value = "10s", value_name = "DURATION", value_parser = shutdown_timeout)]
    pub(crate) shutdown_timeout: Duration,
    /// How long requests are served after SIGTERM while `/readyz` says 503 already, for balancers to hear of it
    #[arg(long, env = "SHUTDOWN_DELAY", default_value = "0s", value_name = "DURATION", value_parser = shutdown_delay)]
    pub(crate) shutdown_delay: Duration,
}

/// How the service logs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogConfig {
    /// `text` on a terminal, else `json`, if unset
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", global = true)]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged, such as `debug` or `info,order_tracker::http=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER", value_parser = log_filter, global = true)]
    pub(crate) rust_log: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs, one object a line.
    Json,
}

fn brokers(text: &str) -> Result<String, String> {
    let broker = |broker: &str| match broker.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && !host.contains(['/', '@']) && port.parse::<u16>().is_ok(),
        None => false,
    };
    let servers: Vec<&str> = text.split(',').map(str::trim).collect();
    if servers.iter().copied().all(broker) {
        Ok(servers.join(","))
    } else {
        Err("must be host:port pairs with commas between".to_owned())
    }
}

/// Kafka's own rule for names.
fn topic(text: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let named = (1..=249).contains(&text.len()) && text.bytes().all(legal) && text != "." && text != "..";
    match text {
        text if text.starts_with("__") => Err("must not be one of Kafka's own topics".to_owned()),
        text if named => Ok(text.to_owned()),
        _ => Err("must be 1 to 249 letters, digits, dots, dashes or underscores".to_owned()),
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "must be a port from 0 to 65535".to_owned())
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let (text, allowed) =
        (text.trim(), "must be networks or addresses with commas between, such as 10.0.0.0/8,192.0.2.7");
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| allowed.to_owned())
}

/// A whole number within these bounds.
pub(crate) fn whole<T>(bounds: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + fmt::Display + Clone,
{
    move |text: &str| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("must be a whole number from {} to {}", bounds.start(), bounds.end()))
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| *rate == 0.0 || SIMULATE_RATES.contains(rate));
    let (least, most) = (SIMULATE_RATES.start(), SIMULATE_RATES.end());
    rate.ok_or_else(|| format!("must be 0 or a number from {least} to {most}"))
}

fn shutdown_timeout(text: &str) -> Result<Duration, String> {
    let allowed = "must be a duration from 1s to 1h, such as 10s";
    let timeout = humantime::parse_duration(text).map_err(|_| allowed.to_owned())?;
    let range = Duration::from_secs(1)..=Duration::from_hours(1);
    if range.contains(&timeout) { Ok(timeout) } else { Err(allowed.to_owned()) }
}

fn shutdown_delay(text: &str) -> Result<Duration, String> {
    let allowed = "must be a duration up to 1h, such as 5s";
    let delay = humantime::parse_duration(text).map_err(|_| allowed.to_owned())?;
    if delay <= Duration::from_hours(1) { Ok(delay) } else { Err(allowed.to_owned()) }
}

fn progression(text: &str) -> Result<Progression, String> {
    match text {
        "timer" => Ok(Progression::Timer),
        "reported" => Ok(Progression::Reported),
        _ => Err("must be timer or reported".to_owned()),
    }
}

fn auth(text: &str) -> Result<AuthMode, String> {
    match text {
        "open" => Ok(AuthMode::Open),
        "keys" => Ok(AuthMode::Keys),
        _ => Err("must be open or keys".to_owned()),
    }
}

fn cancel_unaccepted_after(text: &str) -> Result<Duration, String> {
    let allowed = "must be a duration from 1s to 365 days, such as 10m";
    let after = humantime::parse_duration(text).map_err(|_| allowed.to_owned())?;
    let range = Duration::from_secs(1)..=Duration::from_hours(365 * 24);
    if range.contains(&after) { Ok(after) } else { Err(allowed.to_owned()) }
}

fn undo_window(text: &str) -> Result<Duration, String> {
    let allowed = "must be a duration up to 365 days, such as 5m, or 0s";
    let window = humantime::parse_duration(text).map_err(|_| allowed.to_owned())?;
    if window <= Duration::from_hours(365 * 24) { Ok(window) } else { Err(allowed.to_owned()) }
}

fn log_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        // What is wrong with it may be told with a part of it.
        Err(_) => Err("must be a filter such as info or order_tracker=debug".to_owned()),
    }
}

impl Config {
    /// What no single setting can tell; the error names the setting and what is allowed.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.store.check()?;
        let unaccepted = self.pipeline.cancel_unaccepted_after;
        if let Some(after) = unaccepted.filter(|_| self.pipeline.progression == Progression::Timer) {
            return Err(format!(
                "CANCEL_UNACCEPTED_AFTER (--cancel-unaccepted-after): {:?} is not valid: needs PROGRESSION=reported, \
                 since timers take every order themselves",
                humantime::format_duration(after).to_string()
            ));
        }
        let kafka = &self.kafka;
        if kafka.dlq_topic() == kafka.topic {
            return Err(format!(
                "KAFKA_DLQ_TOPIC (--kafka-dlq-topic): {:?} is not valid: must be another topic than KAFKA_TOPIC",
                kafka.topic
            ));
        }
        if kafka.events_topic().is_some_and(|events| *events == kafka.topic || *events == kafka.dlq_topic()) {
            return Err(format!(
                "KAFKA_EVENTS_TOPIC (--kafka-events-topic): {:?} is not valid: must be another topic than KAFKA_TOPIC \
                 and KAFKA_DLQ_TOPIC, or off",
                kafka.events_topic
            ));
        }
        let settings = kafka.settings(kafka.brokers.clone().unwrap_or_default(), false);
        Kafka::check_properties(&settings).map_err(|error| {
            format!("KAFKA_PROPERTIES (--kafka-properties): must be properties of librdkafka: {error}")
        })
    }
}

impl HttpConfig {
    /// Whether others than programs of this machine can reach it.
    pub(crate) fn is_reached_by_others(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => !address.to_canonical().is_loopback(),
            Err(_) => self.host != "localhost",
        }
    }
}

impl StoreConfig {
    /// Whether orders are kept in the embedded database.
    pub(crate) fn is_embedded(&self) -> bool {
        self.pg_dsn.is_none() && self.pg_dsn_file.is_none()
    }

    /// Where PostgreSQL is, unless the embedded database is used.
    pub(crate) fn dsn(&self) -> Result<Option<PgDsn>, WrongDsn> {
        match (&self.pg_dsn, &self.pg_dsn_file) {
            (Some(_), Some(_)) => Err(WrongDsn::Both),
            (Some(dsn), None) => Ok(Some(dsn.clone())),
            (None, Some(file)) => PgDsn::from_file(file).map(Some).map_err(WrongDsn::File),
            (None, None) => Ok(None),
        }
    }

    /// What no single setting can tell.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.dsn().map(drop).map_err(|error| error.to_string())
    }
}

/// The settings name no database; never shows what they hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WrongDsn {
    /// Nobody could tell which one holds.
    #[error("PG_DSN (--pg-dsn) and PG_DSN_FILE (--pg-dsn-file) are both set: set one of them")]
    Both,
    /// A file that is not there, or does not hold a DSN. A path may be a DSN that was set in the wrong place.
    #[error("PG_DSN_FILE (--pg-dsn-file): what was given is not valid: {0}")]
    File(ParseDsnError),
}

impl PipelineConfig {
    /// What reports are judged by.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            delays: self.stage_delays,
            undo_window: self.undo_window,
            cancel_unaccepted_after: self.cancel_unaccepted_after,
        }
    }
}

impl KafkaConfig {
    /// The settings of a cluster at `brokers`.
    pub(crate) fn settings(&self, brokers: String, embedded: bool) -> KafkaSettings {
        let properties = self.properties.iter().flat_map(Properties::iter).cloned();
        KafkaSettings {
            brokers,
            topic: self.topic.clone(),
            dlq_topic: self.dlq_topic(),
            events_topic: self.events_topic().cloned(),
            partitions: self.partitions,
            replication: self.replication,
            group: self.group.clone(),
            // TLS and passwords are for a real cluster; the embedded one speaks in the clear.
            properties: if embedded { Vec::new() } else { properties.collect() },
            embedded,
        }
    }

    /// The dead-letter topic, by default named after the topic.
    pub(crate) fn dlq_topic(&self) -> String {
        self.dlq_topic.clone().unwrap_or_else(|| format!("{}.dlq", self.topic))
    }

    /// The topic of events, if they are written.
    pub(crate) fn events_topic(&self) -> Option<&String> {
        Some(&self.events_topic).filter(|topic| !topic.eq_ignore_ascii_case("off"))
    }
}
