//! What other people's databases do: they are not there yet, shut us out, lose a right, a schema or themselves,
//! and come back. Everything waits for them, says why, and goes on by itself; no order is to blame.

use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    harness::{Service, binary, details, ended, eventually, folder},
    kafka::{DLQ, Kafka, foreign},
};

const FOREIGN: &str = "ORD-01ARZ3NDEK0000000000000000";

/// A database and its owner, both the test's own.
pub(crate) struct Database {
    server: PgConnectOptions,
    name: String,
}

impl Database {
    /// Only the names; neither role nor database is there.
    fn planned() -> Self {
        let server = std::env::var("PG_DSN").expect("PG_DSN").parse().expect("a DSN");
        Self { server, name: format!("own_{:016x}", rand::random::<u64>()) }
    }

    pub(crate) async fn make() -> Self {
        let planned = Self::planned();
        planned.create().await;
        planned
    }

    async fn create(&self) {
        self.by_hand(&["CREATE ROLE {} LOGIN", "CREATE DATABASE {} OWNER {}"]).await;
    }

    pub(crate) fn dsn(&self) -> String {
        self.server.clone().username(&self.name).database(&self.name).to_url_lossy().to_string()
    }

    /// As the superuser, elsewhere on the server; `{}` is the name of database and role.
    async fn by_hand(&self, statements: &[&str]) {
        self.run(self.server.connect().await.expect("connects"), statements).await;
    }

    /// The same in the database.
    pub(crate) async fn inside(&self, statements: &[&str]) {
        let inside = self.server.clone().database(&self.name);
        self.run(inside.connect().await.expect("connects"), statements).await;
    }

    async fn run(&self, mut console: PgConnection, statements: &[&str]) {
        for statement in statements {
            let statement = statement.replace("{}", &self.name);
            sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut console).await.expect(&statement);
        }
        console.close().await.expect("closes");
    }

    async fn service(&self) -> Service {
        let service = Service::start(&[("PG_DSN", &self.dsn()), ("STAGE_DELAYS", "1h")]).await;
        ready(&service).await;
        service
    }
}

const END_SESSIONS: &str =
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{}'";

async fn ready(service: &Service) {
    eventually("it is ready", async || (service.get("/readyz").await.status() == 200).then_some(())).await;
}

/// Waits until no requests should come here for this reason, and answers the reason.
async fn unready(service: &Service, why: &str) -> String {
    eventually(&format!("not ready: {why}"), async || {
        let ready = service.get("/readyz").await;
        let status = ready.status();
        let ready: Value = ready.json().await.expect("JSON");
        let reason = ready["reason"].as_str().unwrap_or_default().to_owned();
        (status == 503 && reason.contains(why)).then_some(reason)
    })
    .await
}

async fn is_unavailable(answer: reqwest::Response) {
    assert!(answer.headers().contains_key("retry-after"), "{answer:?}");
    assert_eq!(answer.status(), 503, "{}", answer.text().await.unwrap_or_default());
}

/// Trouble comes, a good order arrives on the topic, the trouble is mended.
async fn trouble_is_waited_for(trouble: &[&str], why: &str, mend: &[&str]) {
    let database = Database::make().await;
    let service = database.service().await;
    let kafka = Kafka::of(&service);
    let id = service.place("pizza").await;
    database.by_hand(trouble).await;
    unready(&service, why).await;
    kafka.put(Some(FOREIGN), Some(foreign(FOREIGN).to_string().as_bytes())).await;
    is_unavailable(service.post(&details("ramen")).await).await;
    is_unavailable(service.get(&format!("/orders/{id}")).await).await;
    database.by_hand(mend).await;
    ready(&service).await;
    service.reached(FOREIGN, "PLACED").await;
    service.reached(&id, "PLACED").await;
    service.place("ramen").await;
    assert_eq!(kafka.all(DLQ).await.len(), 0, "{}", service.logged());
    service.stop().await;
}

/// Promise 5: memory, queues and time are bounded. The fault of a right is never taken for that of a message.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_role_that_is_shut_out_on_postgres() {
    let why = "the role does not exist or may not log in, 127.0.0.1:";
    trouble_is_waited_for(&["ALTER ROLE {} NOLOGIN", END_SESSIONS], why, &["ALTER ROLE {} LOGIN"]).await;
}

#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_database_that_is_renamed_on_postgres() {
    let trouble =
        ["ALTER DATABASE {} ALLOW_CONNECTIONS false", END_SESSIONS, "ALTER DATABASE {} RENAME TO {}_x"];
    let mend = ["ALTER DATABASE {}_x RENAME TO {}", "ALTER DATABASE {} ALLOW_CONNECTIONS true"];
    trouble_is_waited_for(&trouble, "there is no database", &mend).await;
}

#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_role_without_a_connection_left_on_postgres() {
    let trouble = ["ALTER ROLE {} CONNECTION LIMIT 0", END_SESSIONS];
    trouble_is_waited_for(&trouble, "too many connections", &["ALTER ROLE {} CONNECTION LIMIT -1"]).await;
}

/// What no order can have brought about empties no topic into the dead letters.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_rule_that_no_order_can_keep_on_postgres() {
    let database = Database::make().await;
    let service = database.service().await;
    let kafka = Kafka::of(&service);
    database.inside(&["ALTER TABLE order_events ADD CONSTRAINT never CHECK (false) NOT VALID"]).await;
    kafka.put(Some(FOREIGN), Some(foreign(FOREIGN).to_string().as_bytes())).await;
    is_unavailable(service.post(&details("ramen")).await).await;
    unready(&service, "violates check constraint \"never\"").await;
    eventually("the message waits", async || {
        service.get("/readyz").await.text().await.expect("text").contains("consumer").then_some(())
    })
    .await;
    database.inside(&["ALTER TABLE order_events DROP CONSTRAINT never"]).await;
    ready(&service).await;
    service.reached(FOREIGN, "PLACED").await;
    assert_eq!(kafka.all(DLQ).await.len(), 0, "{}", service.logged());
    service.stop().await;
}

/// A right that is gone is seen by who asks, before an order meets it.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_right_that_is_taken_away_on_postgres() {
    let database = Database::make().await;
    let service = database.service().await;
    let kafka = Kafka::of(&service);
    database.inside(&["REVOKE USAGE, UPDATE ON SEQUENCE order_events_id_seq FROM {}"]).await;
    unready(&service, "the role lacks the right to USAGE on order_events_id_seq").await;
    database.inside(&["GRANT USAGE ON SEQUENCE order_events_id_seq TO {}"]).await;
    ready(&service).await;
    database.inside(&["REVOKE INSERT ON orders, outbox FROM {}"]).await;
    unready(&service, "the role lacks the right to INSERT on orders, INSERT on outbox").await;
    kafka.put(Some(FOREIGN), Some(foreign(FOREIGN).to_string().as_bytes())).await;
    is_unavailable(service.post(&details("ramen")).await).await;
    // What needs no such right goes on.
    assert_eq!(service.json("/orders").await, json!([]));
    database.inside(&["GRANT INSERT ON orders, outbox TO {}"]).await;
    ready(&service).await;
    service.reached(FOREIGN, "PLACED").await;
    service.place("ramen").await;
    assert_eq!(kafka.all(DLQ).await.len(), 0, "{}", service.logged());
    service.stop().await;
}

#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn neither_role_nor_database_is_there_yet_on_postgres() {
    let database = Database::planned();
    let service = Service::start(&[("PG_DSN", &database.dsn())]).await;
    unready(&service, "the role does not exist or may not log in").await;
    is_unavailable(service.post(&details("ramen")).await).await;
    database.by_hand(&["CREATE ROLE {} LOGIN"]).await;
    unready(&service, "there is no database").await;
    database.by_hand(&["CREATE DATABASE {} OWNER {}", "REVOKE ALL ON DATABASE {} FROM PUBLIC, {}"]).await;
    unready(&service, "the right to connect").await;
    database.by_hand(&["GRANT ALL ON DATABASE {} TO {}"]).await;
    ready(&service).await;
    service.place("pizza").await;
    service.stop().await;
}

/// "Created if missing" holds at any time.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_schema_or_a_database_that_is_lost_is_made_again_on_postgres() {
    let database = Database::make().await;
    let service = database.service().await;
    let placed = async || {
        eventually("an order is taken", async || {
            let status = service.post(&details("pizza")).await.status();
            assert!(status == 201 || status == 503, "{status}");
            (status == 201).then_some(())
        })
        .await;
    };
    placed().await;
    database.inside(&["DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION {}"]).await;
    placed().await;
    database.by_hand(&["DROP DATABASE {} WITH (FORCE)", "CREATE DATABASE {} OWNER {}"]).await;
    placed().await;
    ready(&service).await;
    // One table alone is not made again: what it held is missed elsewhere.
    database.inside(&["DROP TABLE outbox"]).await;
    unready(&service, "tables are not there, or not to be seen by the role: outbox").await;
    is_unavailable(service.post(&details("ramen")).await).await;
    service.stop().await;
}

#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_database_that_can_not_hold_every_name_on_postgres() {
    let database = Database::planned();
    let latin =
        "CREATE DATABASE {} OWNER {} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    database.by_hand(&["CREATE ROLE {} LOGIN", latin]).await;
    let service = Service::start(&[("PG_DSN", &database.dsn())]).await;
    let reason = unready(&service, "the database's encoding is LATIN1").await;
    assert!(reason.contains("ENCODING 'UTF8'"), "{reason}");
    is_unavailable(service.post(&details("ramen")).await).await;
    database.by_hand(&["DROP DATABASE {} WITH (FORCE)", "CREATE DATABASE {} OWNER {}"]).await;
    ready(&service).await;
    service.stop().await;
}

/// Statements keep to what they rely on, whatever somebody has made the default.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn options_are_followed_and_defaults_are_not_relied_on_postgres() {
    let database = Database::make().await;
    database.inside(&["CREATE SCHEMA food AUTHORIZATION {}"]).await;
    for setting in [
        "statement_timeout = 1",
        "standard_conforming_strings = off",
        "default_transaction_isolation = serializable",
        "search_path = nowhere",
    ] {
        database.by_hand(&[&format!("ALTER ROLE {{}} SET {setting}")]).await;
    }
    let service = Service::start(&[("PG_DSN", &database.dsn()), ("STAGE_DELAYS", "0s")]).await;
    unready(&service, "no schema of the search_path is there").await;
    service.stop().await;

    let dsn = format!("{}&options=-c%20search_path%3Dfood", database.dsn());
    let service = Service::start(&[("PG_DSN", &dsn), ("STAGE_DELAYS", "0s")]).await;
    ready(&service).await;
    let id = service.place("pizza").await;
    service.reached(&id, "DELIVERED").await;
    database.inside(&["SELECT count(*) FROM food.orders"]).await;
    service.stop().await;
}

/// A password is changed in the secret store first, and then in the database.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_dsn_in_a_file_is_read_again_on_postgres() {
    let (database, secrets) = (Database::make().await, folder());
    let file = secrets.path().join("dsn");
    let other = format!("{}_other", database.name);
    std::fs::write(&file, format!("{}\n", database.dsn())).expect("writes");
    let service = Service::start(&[("PG_DSN_FILE", file.to_str().expect("text"))]).await;
    ready(&service).await;
    database.by_hand(&["CREATE ROLE {}_other LOGIN IN ROLE {}"]).await;
    let dsn = database.server.clone().username(&other).database(&database.name).to_url_lossy();
    database.by_hand(&["ALTER ROLE {} NOLOGIN", END_SESSIONS]).await;
    let reason = unready(&service, "may not log in").await;
    assert!(reason.contains("(PG_DSN_FILE)"), "{reason}");
    std::fs::write(&file, dsn.as_str()).expect("writes");
    ready(&service).await;
    service.place("pizza").await;
    service.stop().await;
}

/// Listens and says this to whoever comes; `None` says nothing, ever.
async fn listener(answer: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            match answer {
                Some(answer) => {
                    // What is not read before the end makes it a reset; who has given up meanwhile asks nothing.
                    if stream.read_exact(&mut [0; 8]).await.is_ok() {
                        drop(stream.write_all(answer).await);
                    }
                }
                None => held.push(stream),
            }
        }
    });
    address
}

/// The reason of the lowest layer, with the address and the setting that holds it: once in every place.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn why_the_database_is_away_is_told_once_everywhere() {
    let silent = listener(None).await;
    let (hasty, web) = (listener(Some(b"")).await, listener(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await);
    let cases = [
        ("127.0.0.1:9", "connection refused"),
        ("nobody.invalid:5432", "the host's name can't be resolved"),
        (&*silent, "no answer within 1.5 s"),
        (&*hasty, "the server closed the connection"),
        (&*web, "what answers there is not PostgreSQL"),
    ];
    join_all(cases.map(|(address, cause)| is_told_once_everywhere(address, cause))).await;
}

async fn is_told_once_everywhere(address: &str, cause: &str) {
    let dsn = format!("postgres://nobody:secret@{address}/none");
    let once = |place: &str, text: &str| {
        assert_eq!(text.matches(cause).count(), 1, "{cause}, {place}: {text}");
        let told = text.contains(&format!(", {address} (PG_DSN)"));
        assert!(told && !text.contains("secret") && !text.contains("pool timed out"), "{place}: {text}");
    };
    for command in ["migrate", "verify"] {
        let output = ended(binary(&[command], &[("PG_DSN", &dsn)])).await;
        assert_eq!(output.status.code(), Some(1));
        once(command, &String::from_utf8(output.stderr).expect("text"));
    }
    let service = Service::start(&[("PG_DSN", &dsn)]).await;
    once("/readyz", &unready(&service, cause).await);
    let board = eventually("the board says why", async || {
        let board = service.get("/").await.text().await.expect("text").replace("&#39;", "'");
        board.contains(cause).then_some(board)
    })
    .await;
    once("the board", &board);
    once("the log", &service.logged());
    service.stop().await;
}
