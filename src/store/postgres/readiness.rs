//! Getting the database ready, and telling whether it is.

use futures::TryFutureExt as _;
use sqlx::Connection as _;
use tokio::time::timeout;

use super::{
    CALL, PgSettings, PgStore, StoreError, bounded, outbox, preconditions,
    preconditions::{Placing, Unfit},
    rehearsal::Kind,
    schema,
    session::Purpose,
};

impl PgStore {
    /// Describes a database for reading a schema that must be there already.
    pub async fn open_for_audit(settings: PgSettings) -> Result<Self, StoreError> {
        let store = Self::new(settings);
        drop(soon(preconditions::session_of_our_own(&store.access)).await?.close().await);
        bounded(&store.pools.read, preconditions::missing).await?.ground()?;
        if bounded(&store.pools.read, schema::is_of_an_earlier_version).await? {
            return Err(store.earlier_version());
        }
        store.preconditions.hold();
        Ok(store)
    }

    fn earlier_version(&self) -> StoreError {
        StoreError::EarlierVersion(self.access.address())
    }

    /// Looks at every precondition and brings about the schema. Answers what is missing for orders to be placed.
    pub(super) async fn prepare(&self) -> Result<Result<(), StoreError>, Unfit> {
        self.access.read_again().await;
        let mut db = soon(preconditions::session_of_our_own(&self.access)).await?;
        soon(self.access.adopt(&mut db, Purpose::Schema)).await?;
        let failed = |error| self.access.error(error);
        let mut missing = soon(preconditions::missing(&mut db).map_err(failed)).await?;
        missing.schema().map_err(Unfit::Absent)?;
        if soon(schema::is_of_an_earlier_version(&mut db).map_err(failed)).await? {
            return Err(Unfit::Absent(self.earlier_version()));
        }
        if !soon(schema::is_up_to_date(&mut db).map_err(failed)).await? {
            self.preconditions.explain("its schema is being brought up to date");
            schema::bring_up_to_date(&mut db, &self.access, &schema::MIGRATIONS)
                .await
                .map_err(Unfit::Absent)?;
            missing = soon(preconditions::missing(&mut db).map_err(failed)).await?;
        }
        missing.ground().map_err(Unfit::Absent)?;
        let placing = missing.placing();
        if placing.is_ok() {
            // The first sign of life: what is placed before the relay's first sweep is ours already. Where none can
            // be given nothing is lost, and the relay says so.
            drop(soon(outbox::stay_alive(&mut db, self.now(), self.replica).map_err(failed)).await);
        }
        // One that can't be told is gone all the same.
        drop(soon(db.close().map_err(failed)).await);
        Ok(placing)
    }

    fn silence(&self) -> String {
        format!(
            "no write has ended since one had no answer within {CALL:?}, {}: where others are answered, a \
             standby that synchronous_standby_names names may be away",
            self.access.address()
        )
    }

    /// Whether orders can be placed, as far as can be told without one; and if the last one could not, as one tells.
    pub(super) async fn can_place(&self) -> Result<(), StoreError> {
        let missing = bounded(&self.pools()?.read, preconditions::missing).await?;
        if missing.only_reads() {
            self.pools.doubt();
        }
        let found = missing.ground().and_then(|()| missing.placing());
        found.inspect_err(|_| self.preconditions.doubt()).map_err(|error| self.access.explained(error))?;
        for kind in Kind::ALL {
            match self.preconditions.placing(kind) {
                Placing::Well => {}
                Placing::Failed => self.rehearse(kind).await?,
                Placing::Silent => return Err(StoreError::Unavailable(self.silence())),
            }
        }
        Ok(())
    }
}

/// What is asked before the first call has its deadline, too.
async fn soon<T, E: From<StoreError>>(call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timeout(CALL, call).await.unwrap_or_else(|_| Err(StoreError::Timeout(CALL).into()))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use sqlx::{ConnectOptions as _, Connection as _};
    use tokio::{task::yield_now, time::timeout};

    use super::super::{
        IdempotencyKey, NewOrder, PgDsn, PgSettings, PgStore, StoreError,
        tests::{Database, fixture, new_order, run},
    };
    use crate::{
        store::{
            Insight as _, Maintenance as _, OrderStore as _, Outbox, OutboxStore as _, conformance::start,
        },
        time::ManualClock,
    };

    /// Where the server takes fewer connections than there are kinds of calls, these lend each other theirs, and give
    /// them up where something must be looked at again.
    ///
    /// Promise 5: memory, queues and time are bounded.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn two_connections_are_enough() {
        let database = Database::create().await;
        database.replica(&Arc::new(ManualClock::new(start()))).await.close().await;
        let mut console = database.options().connect().await.expect("connects");
        let role = format!("few_{:016x}", rand::random::<u64>());
        for statement in [
            "CREATE ROLE {} LOGIN CONNECTION LIMIT 2",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO {}",
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {}",
        ] {
            run(&mut console, &statement.replace("{}", &role)).await.expect(statement);
        }
        let dsn = database.options().username(&role).into();
        let store = PgStore::new(PgSettings { dsn, ..database.settings() });
        let looks = async || {
            while store.migrate().await.is_err() {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), looks()).await.expect("finds all there");
        for _ in 0..3 {
            let keyed = NewOrder {
                key: Some(IdempotencyKey::open(format!("{:032x}", rand::random::<u128>()))),
                ..new_order()
            };
            store.place(&[keyed], Outbox::Mine).await.expect("places with a key");
            store.place(&[new_order()], Outbox::Mine).await.expect("places");
            assert!(store.find_all(&[new_order().order_id]).await.expect("reads").orders.is_empty());
            store.heartbeat().await.expect("says that it lives");
        }
        let crowded = store.migrate().await.expect_err("no connection is left").to_string();
        assert!(
            crowded.contains("too many connections") && crowded.contains("PG_MAX_CONNECTIONS"),
            "{crowded}"
        );
        // Nothing was found, so all goes on.
        store.place(&[new_order()], Outbox::Mine).await.expect("places");
        store.close().await;
        for statement in ["DROP OWNED BY {}", "DROP ROLE {}"] {
            run(&mut console, &statement.replace("{}", &role)).await.expect(statement);
        }
    }

    /// Whatever keeps orders from being placed, it is not ready; and ready again without one.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn where_orders_can_not_be_placed_nobody_is_told_that_it_is_ready() {
        let t = fixture().await;
        (t.by_hand)(
            "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$",
        )
        .await
        .expect("creates");
        let no_space = StoreError::Unavailable("no space left (53100)".to_owned());
        let refused = "new row for relation \"orders\" violates check constraint \"never\" (23514)";
        for (trouble, mend, why) in [
            (
                "CREATE TRIGGER no_space BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION no_space()",
                "DROP TRIGGER no_space ON outbox",
                no_space,
            ),
            (
                "ALTER TABLE orders ADD CONSTRAINT never CHECK (false)",
                "ALTER TABLE orders DROP CONSTRAINT never",
                StoreError::Unavailable(refused.to_owned()),
            ),
        ] {
            (t.by_hand)(trouble).await.expect(trouble);
            t.store.ping().await.expect("nobody has tried");
            t.store.place(&[new_order()], Outbox::Mine).await.expect_err(trouble);
            for _ in 0..2 {
                assert_eq!(t.store.ping().await, Err(why.clone()));
            }
            (t.by_hand)(mend).await.expect(mend);
            t.store.ping().await.expect("ready");
        }
        assert!(t.store.audit(None, 10).await.expect("reads").orders.is_empty(), "taken back");
    }

    /// Each kind of order is tried for itself, and as far as a commit goes.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn what_only_some_orders_meet_is_not_forgotten_for_others() {
        let t = fixture().await;
        let keyed = || NewOrder {
            key: Some(IdempotencyKey::open(format!("{:032x}", rand::random::<u128>()))),
            ..new_order()
        };
        let deferred = "AFTER INSERT ON idempotency_keys DEFERRABLE INITIALLY DEFERRED";
        (t.by_hand)(
            "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'never'; END $$",
        )
        .await
        .expect("creates");
        let create =
            format!("CREATE CONSTRAINT TRIGGER never {deferred} FOR EACH ROW EXECUTE FUNCTION never()");
        (t.by_hand)(&create).await.expect("creates");
        for _ in 0..2 {
            t.store.place(&[keyed()], Outbox::Mine).await.expect_err("fails at the commit");
            t.store.place(&[new_order()], Outbox::Mine).await.expect("needs no key");
            assert_eq!(t.store.ping().await, Err(StoreError::Unavailable("never (P0001)".to_owned())));
        }
        (t.by_hand)("DROP TRIGGER never ON idempotency_keys").await.expect("drops");
        t.store.ping().await.expect("ready");
    }

    /// Where a commit has no answer, only another that has one tells that orders can be placed.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn a_commit_that_hangs_is_not_forgotten_before_another_ends() {
        let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
        let store = database.replica(&clock).await;
        let mut console = database.options().connect().await.expect("connects");
        for statement in [
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION hang()",
        ] {
            run(&mut console, statement).await.expect(statement);
        }
        store.place(&[new_order()], Outbox::Mine).await.expect_err("no answer");
        run(&mut console, "ALTER TABLE outbox DISABLE TRIGGER hang").await.expect("alters");
        let mut holder = console.begin().await.expect("begins");
        run(&mut holder, "SELECT 1 FROM relays FOR UPDATE").await.expect("locks");
        for _ in 0..2 {
            let silence = store.ping().await.expect_err("nothing has been committed").to_string();
            assert!(silence.contains("no write has ended since") && silence.contains("PG_DSN"), "{silence}");
            store.heartbeat().await.expect_err("somebody holds its row");
        }
        holder.rollback().await.expect("ends");
        store.heartbeat().await.expect("lives");
        store.ping().await.expect("ready");
    }

    /// The file is read again whatever has failed, also where a login still works.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn a_file_that_names_another_server_is_followed() {
        let (old, new) = (Database::create().await, Database::create().await);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("dsn");
        let write = |text: &str| std::fs::write(&file, text).expect("writes");
        let dsn = |database: &Database| database.options().to_url_lossy().to_string();
        let read_only = async |database: &Database| {
            let mut console = database.options().connect().await.expect("connects");
            let name = database.options().get_database().expect("a name").to_owned();
            let statement = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
            run(&mut console, &statement).await.expect("alters");
            run(&mut console, &format!("ALTER DATABASE {name} SET search_path = nowhere"))
                .await
                .expect("alters");
        };
        write(&dsn(&old));
        let settings = || PgSettings { dsn: PgDsn::from_file(&file).expect("a DSN"), ..old.settings() };
        let running = PgStore::new(settings());
        running.migrate().await.expect("migrates");
        running.place(&[new_order()], Outbox::Mine).await.expect("places");
        read_only(&old).await;
        let starting = PgStore::new(settings());
        write("postgres://me:se/cret@other/food");
        for _ in 0..2 {
            let why = starting.migrate().await.expect_err("only reads").to_string();
            assert_eq!(why.matches("PG_DSN_FILE").count(), 1, "{why}");
            assert!(why.contains("must be %-encoded") && !why.contains("cret"), "{why}");
        }
        write(&dsn(&new));
        for (store, orders) in [(&starting, 1), (&running, 2)] {
            store.migrate().await.expect("follows");
            store.place(&[new_order()], Outbox::Mine).await.expect("places");
            assert_eq!(store.audit(None, 9).await.expect("reads").orders.len(), orders);
        }
    }

    /// A right that only one of the loops needs is missed by that one.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn a_small_right_that_is_missing_stops_nothing_else() {
        let database = Database::create().await;
        database.replica(&Arc::new(ManualClock::new(start()))).await.close().await;
        let mut console = database.options().connect().await.expect("connects");
        let role = format!("mute_{:016x}", rand::random::<u64>());
        for statement in [
            "CREATE ROLE {} LOGIN",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO {}",
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {}",
            "REVOKE INSERT, UPDATE ON relays FROM {}",
        ] {
            run(&mut console, &statement.replace("{}", &role)).await.expect(statement);
        }
        let dsn = database.options().username(&role).into();
        let store = PgStore::new(PgSettings { dsn, ..database.settings() });
        for _ in 0..2 {
            store.migrate().await.expect("all else is there");
            store.heartbeat().await.expect_err("lacks the right");
            store.place(&[new_order()], Outbox::Mine).await.expect("places");
            store.ping().await.expect("ready");
        }
        store.close().await;
        for statement in ["DROP OWNED BY {}", "DROP ROLE {}"] {
            run(&mut console, &statement.replace("{}", &role)).await.expect(statement);
        }
    }
}
