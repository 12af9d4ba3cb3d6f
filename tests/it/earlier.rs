//! A database that an earlier version has made, which this one can't take over.

use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, postgres::PgConnectOptions,
    sqlite::SqliteConnectOptions,
};

use crate::harness::{binary, ended, folder};

/// What 0.1 has made, as far as it matters, in both dialects: orders without a position.
const TABLES: &str = "
    CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL);
    INSERT INTO _sqlx_migrations VALUES (1, 'orders'), (2, 'outbox');
    CREATE TABLE orders (order_id text PRIMARY KEY, status text NOT NULL, due_at bigint);
    CREATE TABLE order_events (order_id text NOT NULL, event text NOT NULL);
    CREATE TABLE outbox (order_id text PRIMARY KEY);
    CREATE TABLE relays (replica bigint PRIMARY KEY);
    CREATE TABLE idempotency_keys (key text PRIMARY KEY);";

/// One line that says what it is and what to do, and the exit code of any start that fails.
async fn is_told(settings: &[(&str, &str)], line: &str) {
    for command in ["serve", "migrate", "verify"] {
        let output =
            ended(binary(&[command], &[settings, &[("APP_PORT", "0"), ("LOG_FORMAT", "json")]].concat()))
                .await;
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        let (logged, plain): (Vec<&str>, Vec<&str>) = said.lines().partition(|told| told.starts_with('{'));
        assert!(matches!(plain[..], [told] if told.ends_with(line)), "{command}: {said}");
        assert!(!logged.iter().any(|told| told.contains("version 0.1")), "{command}: {said}");
    }
}

/// Promise 6: it says what is wrong.
#[tokio::test]
async fn tables_of_an_earlier_version_are_told_and_left_alone() {
    let data = folder();
    let file = SqliteConnectOptions::new().filename(data.path().join("orders.db")).create_if_missing(true);
    let mut console = file.connect().await.expect("opens");
    console.execute(TABLES).await.expect("creates");
    console.close().await.expect("closes");
    let path = data.path().to_str().expect("text");
    let line = format!(
        "the data folder {path} can't be used: its tables are those of version 0.1, which this version can't take \
         over; move it away, or set DATA_DIR to another folder"
    );
    is_told(&[("DATA_DIR", path)], &line).await;
    let mut console = file.connect().await.expect("opens");
    console.execute("SELECT order_id, status, due_at FROM orders").await.expect("is as it was");
}

#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn tables_of_an_earlier_version_are_told_and_left_alone_on_postgres() {
    let server: PgConnectOptions = std::env::var("PG_DSN").expect("PG_DSN").parse().expect("a DSN");
    let name = format!("earlier_{:016x}", rand::random::<u64>());
    let mut administrator = server.connect().await.expect("connects");
    administrator.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("creates");
    let options = server.clone().database(&name);
    let mut console = options.connect().await.expect("connects");
    console.execute(TABLES).await.expect("creates");
    let dsn = options.to_url_lossy().to_string();
    let line = format!(
        "the database can't be used: its tables are those of version 0.1, which this version can't take over; name an \
         empty one, or drop these tables and all orders in them, {}:{} (PG_DSN)",
        server.get_host(),
        server.get_port()
    );
    is_told(&[("PG_DSN", &dsn)], &line).await;
    console.execute("SELECT order_id, status, due_at FROM orders").await.expect("is as it was");
    console.close().await.expect("closes");
    administrator
        .execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
        .await
        .expect("drops");
}
