//! Orders made by SQL: as many as a row needs, in the state that it needs, in seconds.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::{
    app::SECRET,
    check::{DELAYS_MS, SIX},
};

/// The statuses of orders that are not done.
pub(crate) const OPEN: &[&str] = &["PLACED", "PREPARING", "COOKING", "OUT_FOR_DELIVERY"];
/// Begins the ids of orders that are only there: rows neither wait for them nor examine them.
pub(crate) const UNEXAMINED: &str = "ORD-00";
/// The smallest id of the others.
pub(crate) const FIRST_EXAMINED: &str = "ORD-01";
/// Characters of an id.
const WIDTH: usize = 30;
/// Orders made in one transaction.
const PART: usize = 50_000;

/// Orders to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed {
    /// Begins the ids.
    pub(crate) prefix: &'static str,
    pub(crate) count: usize,
    /// They have these in turn.
    pub(crate) statuses: &'static [&'static str],
    /// When the next step is due: SQL that may name `n`, the number of the order.
    pub(crate) due: &'static str,
    /// Whether they wait to be published.
    pub(crate) unsent: bool,
}

impl Seed {
    /// The id of an order by its number, from 1 on.
    pub(crate) fn order_id(&self, n: usize) -> String {
        format!("{}{n:0width$}", self.prefix, width = WIDTH - self.prefix.len())
    }

    /// Makes them a part at a time: what one long transaction writes is in the way of those who count, until it ends,
    /// and no load looks like that. The tables are analysed then, as those are that grew row by row.
    pub(crate) async fn insert(&self, dsn: &str) -> Result<()> {
        let mut db = PgConnection::connect(dsn).await?;
        // Foreign keys and triggers need not be asked for each of millions of rows.
        db.execute("SET session_replication_role = replica").await?;
        for first in (1..=self.count).step_by(PART) {
            let mut tx = db.begin().await?;
            for statement in self.statements(first, self.count.min(first + PART - 1)) {
                tx.execute(AssertSqlSafe(statement)).await?;
            }
            tx.commit().await?;
        }
        db.execute("ANALYZE orders, order_events, outbox").await?;
        Ok(db.close().await?)
    }

    /// Events are written in their order; their stamps are those of steps that were made in time.
    fn statements(&self, first: usize, last: usize) -> Vec<String> {
        let Self { prefix, due, .. } = self;
        let statuses: Vec<String> = self.statuses.iter().map(|status| format!("'{status}'")).collect();
        let (width, turns) = (WIDTH - prefix.len(), statuses.len());
        let life: Vec<String> =
            stamps().iter().map(|(event, reached, at)| format!("('{event}', {reached}, {at})")).collect();
        let seeds = format!(
            "CREATE TEMPORARY TABLE seeds ON COMMIT DROP AS
            SELECT n, '{prefix}' || lpad(n::text, {width}, '0') AS order_id, status, reached,
                placed_at, placed_at + millis * interval '1 ms' AS reached_at
            FROM (SELECT date_trunc('milliseconds', now()) - interval '700 ms' AS placed_at) AS t,
                generate_series({first}, {last}) AS n JOIN (VALUES {}) AS life (status, reached, millis)
                ON status = (ARRAY[{}])[1 + n % {turns}]",
            life.join(", "),
            statuses.join(", "),
        );
        let orders = format!(
            "INSERT INTO orders (order_id, customer_name, address, item, size, status, seq, created_at, updated_at, due_at)
            SELECT order_id, '{SECRET} ' || order_id, '{SECRET} Lane', 'pizza', 'large', status, reached, placed_at, reached_at,
                CASE status WHEN 'DELIVERED' THEN NULL ELSE {due} END FROM seeds"
        );
        let events = stamps().map(|(event, position, at)| {
            format!(
                r#"INSERT INTO order_events (order_id, event, seq, "timestamp")
                SELECT order_id, '{event}', {position}, placed_at + {at} * interval '1 ms' FROM seeds WHERE reached >= {position}"#
            )
        });
        let unsent =
            "INSERT INTO outbox (order_id, created_at) SELECT order_id, placed_at FROM seeds".to_owned();
        [seeds, orders].into_iter().chain(events).chain(self.unsent.then_some(unsent)).collect()
    }
}

/// Every event with its position and the milliseconds after which it comes.
fn stamps() -> [(&'static str, usize, u64); 6] {
    let mut at = 0;
    std::array::from_fn(|index| {
        at += index.checked_sub(2).map_or(0, |step| DELAYS_MS[step]);
        (SIX[index], index + 1, at)
    })
}
