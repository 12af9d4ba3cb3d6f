//! A database and a topic of one's own, on the servers that the environment names.

use std::env;

use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use url::Url;

use crate::Topic;

/// Settings of the service, as environment variables.
pub type Settings = Vec<(&'static str, String)>;

/// A variable of the environment that is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A name for a database, a topic and a consumer group, for any number of replicas. Where the environment names no
/// PostgreSQL or no Kafka the service brings its own.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Of the database, the topic and the group.
    pub name: String,
    server: Option<Url>,
    /// Where the real Kafka is.
    pub brokers: Option<String>,
}

impl Stack {
    /// An empty database, and a topic that is not there yet, with a name that begins so.
    pub async fn make(prefix: &str) -> Result<Self> {
        let name = format!("{prefix}_{:012x}", rand::random::<u64>() >> 16);
        let server = variable("PG_DSN").map(|dsn| dsn.parse()).transpose().context("PG_DSN")?;
        let stack = Self { name, server, brokers: variable("KAFKA_BROKERS") };
        if stack.server.is_some() {
            stack.administer(&format!("CREATE DATABASE {}", stack.name)).await?;
        }
        Ok(stack)
    }

    /// The address of its database.
    pub fn dsn(&self) -> Option<String> {
        let mut dsn = self.server.clone()?;
        dsn.set_path(&self.name);
        Some(dsn.into())
    }

    /// `host:port` of PostgreSQL.
    pub fn postgres_address(&self) -> Option<String> {
        let server = self.server.as_ref()?;
        Some(format!("{}:{}", server.host_str()?, server.port().unwrap_or(5432)))
    }

    /// Its topic, on a real Kafka.
    pub fn topic(&self) -> Option<Topic> {
        Some(Topic::new(self.brokers.as_ref()?, &self.name))
    }

    /// What the service is told of it.
    pub fn settings(&self) -> Settings {
        let mut settings = vec![
            ("KAFKA_TOPIC", self.name.clone()),
            ("KAFKA_EVENTS_TOPIC", Topic::events_of(&self.name)),
            ("KAFKA_GROUP", self.name.clone()),
        ];
        settings.extend(self.dsn().map(|dsn| ("PG_DSN", dsn)));
        settings.extend(self.brokers.clone().map(|brokers| ("KAFKA_BROKERS", brokers)));
        settings
    }

    /// A connection to PostgreSQL that is in nobody's database.
    pub async fn console(&self) -> Result<PgConnection> {
        let server = self.server.as_ref().context("PG_DSN is not set")?;
        PgConnection::connect(server.as_str()).await.context("PG_DSN")
    }

    /// Runs a statement there.
    pub async fn administer(&self, statement: &str) -> Result<()> {
        let mut console = self.console().await?;
        console.execute(AssertSqlSafe(statement)).await?;
        Ok(console.close().await?)
    }

    /// Leaves nothing behind.
    pub async fn clean_up(self) -> Result<()> {
        if let Some(topic) = self.topic() {
            // One that was never made can't be deleted.
            drop(topic.delete().await);
            drop(topic.dead_letters().delete().await);
            drop(topic.events().delete().await);
        }
        if self.server.is_some() {
            self.administer(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await?;
        }
        Ok(())
    }
}
