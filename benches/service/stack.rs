//! A database and a topic of our own, on what is configured.

use std::env;

use anyhow::{Context as _, Result};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _,
    postgres::{PgConnectOptions, PgConnection},
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;

use crate::process;

/// Empty at first; embedded parts live in a folder that is deleted at the end.
pub(crate) struct Stack {
    name: String,
    data: TempDir,
    postgres: Option<PgConnectOptions>,
    brokers: Option<String>,
    /// The process that all of PostgreSQL's are children of, if it runs on this machine.
    postmaster: Option<u32>,
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

impl Stack {
    pub(crate) async fn make() -> Result<Self> {
        let name = format!("bench_{:08x}", rand::random::<u32>());
        let server: Option<PgConnectOptions> = variable("PG_DSN").map(|dsn| dsn.parse()).transpose()?;
        let mut postmaster = None;
        if let Some(server) = &server {
            let mut console = server.connect().await.context("PG_DSN")?;
            console.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut console).await?;
            let pid = u32::try_from(pid)?;
            // The same number may be anybody's here if the server runs elsewhere.
            postmaster = process::name(pid).filter(|name| name == "postgres").and(process::parent(pid));
            console.close().await?;
        }
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        Ok(Self { name, data, postgres: server, brokers: variable("KAFKA_BROKERS"), postmaster })
    }

    /// What it is, in words.
    pub(crate) fn words(&self) -> String {
        let database = if self.postgres.is_some() { "PostgreSQL" } else { "embedded database" };
        let broker = if self.brokers.is_some() { "Kafka" } else { "embedded broker" };
        format!("{database}, {broker}")
    }

    fn database(&self) -> Option<PgConnectOptions> {
        self.postgres.clone().map(|server| server.database(&self.name))
    }

    /// The settings of a service that works on it.
    pub(crate) fn settings(&self, delays: &str) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("APP_PORT", "0".to_owned()),
            ("LOG_FORMAT", "json".to_owned()),
            ("STAGE_DELAYS", delays.to_owned()),
            ("DATA_DIR", self.data.path().display().to_string()),
            ("KAFKA_TOPIC", self.name.clone()),
            ("KAFKA_GROUP", self.name.clone()),
        ];
        settings.extend(self.database().map(|dsn| ("PG_DSN", dsn.to_url_lossy().to_string())));
        settings.extend(self.brokers.clone().map(|brokers| ("KAFKA_BROKERS", brokers)));
        settings
    }

    /// The topic.
    pub(crate) fn topic(&self) -> &str {
        &self.name
    }

    /// Whether the service brings its own broker.
    pub(crate) fn broker_is_embedded(&self) -> bool {
        self.brokers.is_none()
    }

    /// Seconds of processor time of PostgreSQL so far.
    pub(crate) fn database_cpu(&self) -> Option<f64> {
        process::family_cpu(self.postmaster?)
    }

    /// Makes so many orders due that were not; no service may run.
    pub(crate) async fn make_due(&self, orders: u64) -> Result<()> {
        let (now, orders) = (if self.postgres.is_some() { "now()" } else { "0" }, orders.to_string());
        let statement = AssertSqlSafe(format!(
            "UPDATE orders SET due_at = {now} WHERE order_id IN \
             (SELECT order_id FROM orders WHERE due_at IS NOT NULL ORDER BY order_id LIMIT {orders})"
        ));
        if let Some(database) = self.database() {
            let mut console: PgConnection = database.connect().await?;
            console.execute(statement).await?;
            console.close().await?;
        } else {
            let file = SqliteConnectOptions::new().filename(self.data.path().join("orders.db"));
            let mut console = file.connect().await?;
            console.execute(statement).await?;
            console.close().await?;
        }
        Ok(())
    }

    /// Leaves nothing behind.
    pub(crate) async fn clean_up(self) -> Result<()> {
        if let Some(brokers) = &self.brokers {
            let admin: AdminClient<DefaultClientContext> =
                ClientConfig::new().set("bootstrap.servers", brokers).set("log_level", "0").create()?;
            drop(
                admin.delete_topics(&[&self.name, &format!("{}.dlq", self.name)], &AdminOptions::new()).await,
            );
        }
        if let Some(server) = &self.postgres {
            let mut console = server.connect().await?;
            console.execute(AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name))).await?;
            console.close().await?;
        }
        Ok(())
    }
}
