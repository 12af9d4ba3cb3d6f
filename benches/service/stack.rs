//! A database and a topic of our own, on what is configured.

use anyhow::Result;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection,
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;
use testkit::{Settings, Topic, proc};

/// Empty at first; embedded parts live in a folder that is deleted at the end.
pub(crate) struct Stack {
    own: testkit::Stack,
    data: TempDir,
    /// The process that all of PostgreSQL's are children of, if it runs on this machine.
    postmaster: Option<u32>,
}

impl Stack {
    pub(crate) async fn make() -> Result<Self> {
        let own = testkit::Stack::make("bench").await?;
        let mut postmaster = None;
        if own.dsn().is_some() {
            let mut console = own.console().await?;
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut console).await?;
            let pid = u32::try_from(pid)?;
            // The same number may be anybody's here if the server runs elsewhere.
            postmaster = proc::name(pid).filter(|name| name == "postgres").and(proc::parent(pid));
            console.close().await?;
        }
        Ok(Self { own, data: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?, postmaster })
    }

    /// What it is, in words.
    pub(crate) fn words(&self) -> String {
        let database = if self.own.dsn().is_some() { "PostgreSQL" } else { "embedded database" };
        let broker = if self.broker_is_embedded() { "embedded broker" } else { "Kafka" };
        format!("{database}, {broker}")
    }

    /// The settings of a service that works on it.
    pub(crate) fn settings(&self, delays: &str) -> Settings {
        let mut settings = self.own.settings();
        settings.push(("STAGE_DELAYS", delays.to_owned()));
        settings.push(("DATA_DIR", self.data.path().display().to_string()));
        settings
    }

    /// The topic, on this cluster.
    pub(crate) fn topic(&self, brokers: &str) -> Topic {
        Topic::new(brokers, &self.own.name)
    }

    /// Where the broker is, unless the service brings its own.
    pub(crate) fn brokers(&self) -> Option<String> {
        self.own.brokers.clone()
    }

    /// Whether the service brings its own broker.
    pub(crate) fn broker_is_embedded(&self) -> bool {
        self.own.brokers.is_none()
    }

    /// Seconds of processor time of PostgreSQL so far.
    pub(crate) fn database_cpu(&self) -> Option<f64> {
        proc::family_cpu_ms(self.postmaster?).map(|ms| ms as f64 / 1e3)
    }

    /// Makes so many orders due that were not; no service may run.
    pub(crate) async fn make_due(&self, orders: u64) -> Result<()> {
        let (database, orders) = (self.own.dsn(), orders.to_string());
        let now = if database.is_some() { "now()" } else { "0" };
        let statement = AssertSqlSafe(format!(
            "UPDATE orders SET due_at = {now} WHERE order_id IN \
             (SELECT order_id FROM orders WHERE due_at IS NOT NULL ORDER BY order_id LIMIT {orders})"
        ));
        if let Some(dsn) = database {
            let mut console = PgConnection::connect(&dsn).await?;
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
        self.own.clean_up().await
    }
}
