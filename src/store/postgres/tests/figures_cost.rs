//! What figures, sweeps and the clean-up read in the worst shape: very much has come and gone, and no vacuum may take
//! it since a session holds an old snapshot.

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, PgConnection};

use super::{super::PgStore, Database, plans::old_snapshot, run};
use crate::{
    order::{OrderId, PerStatus, Status},
    store::{
        Insight as _, Maintenance as _, OrderStore as _, Outbox, OutboxStore as _, UNSENT_LISTED,
        conformance::{new_orders, start},
    },
    time::{Clock as _, ManualClock},
};

/// Orders that have come and gone.
const GONE: i64 = 30_000;

struct Worst {
    database: Database,
    clock: Arc<ManualClock>,
    console: PgConnection,
    _backup: PgConnection,
}

impl Worst {
    /// Delivered orders of half an hour ago, and what is left of their way in every index; their keys have had
    /// their time.
    async fn make() -> Self {
        let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
        database.replica(&clock).await.close().await;
        let mut console = database.options().connect().await.expect("connects");
        for table in ["orders", "outbox", "idempotency_keys"] {
            run(&mut console, &format!("ALTER TABLE {table} SET (autovacuum_enabled = false)"))
                .await
                .expect("alters");
        }
        let backup = old_snapshot(database.options().connect().await.expect("connects")).await;
        let now = clock.now();
        let first = &OrderId::first_of(now - Duration::from_mins(30)).to_string()[..20];
        let at = now.to_rfc3339();
        for statement in [
            "SET session_replication_role = replica".to_owned(),
            // Ids rise; times do, too.
            format!(
                "INSERT INTO orders SELECT '{first}' || lpad(n::text, 10, '0'), 'Ada', 'here', 'pizza', 'large',
                     'PLACED', 2, timestamptz '{at}', timestamptz '{at}',
                     timestamptz '{at}' - interval '20 min' + n * interval '10 ms' FROM generate_series(1, {GONE}) AS n"
            ),
            "INSERT INTO outbox SELECT order_id, created_at FROM orders".to_owned(),
            "INSERT INTO idempotency_keys SELECT '', order_id, order_id, due_at - interval '1 day' FROM orders".to_owned(),
        ] {
            run(&mut console, &statement).await.expect(&statement);
        }
        for (status, due) in
            [("PREPARING", "1 s"), ("COOKING", "2 s"), ("OUT_FOR_DELIVERY", "3 s"), ("DELIVERED", "")]
        {
            let due_at =
                if due.is_empty() { "NULL".to_owned() } else { format!("due_at + interval '{due}'") };
            let step = format!("UPDATE orders SET status = '{status}', due_at = {due_at}");
            run(&mut console, &step).await.expect(&step);
        }
        run(&mut console, "DELETE FROM outbox").await.expect("deletes");
        Self { database, clock, console, _backup: backup }
    }

    /// Index entries and rows that a replica reads in all that `verbs` do.
    async fn read_by<T>(&mut self, verbs: impl AsyncFnOnce(&PgStore) -> T) -> (i64, T) {
        let before = all_read(&mut self.console).await;
        let store = self.database.replica(&self.clock).await;
        let answer = verbs(&store).await;
        store.close().await;
        (all_read(&mut self.console).await - before, answer)
    }
}

/// Index entries and rows that were read so far. Sessions of ours tell what they have read when they end.
pub(crate) async fn all_read(console: &mut PgConnection) -> i64 {
    let ours = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'order-tracker%'";
    while sqlx::query_scalar::<_, i64>(ours).fetch_one(&mut *console).await.expect("reads") > 0 {
        tokio::task::yield_now().await;
    }
    for statement in ["SELECT pg_stat_force_next_flush()", "SELECT pg_stat_clear_snapshot()"] {
        run(console, statement).await.expect(statement);
    }
    let sum = "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)::bigint
        + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)::bigint";
    sqlx::query_scalar(sum).fetch_one(console).await.expect("reads")
}

/// How often each is asked: a generic plan is made at the sixth execution.
const ASKED: i64 = 8;

/// Figures that are read less far back read what is there, and say what they have left out.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn figures_read_what_is_there() {
    let mut worst = Worst::make().await;
    let live = new_orders(20);
    let (read, ()) = worst
        .read_by(async |store| {
            store.place(&live, Outbox::Mine).await.expect("places");
            let backlog = store.backlog().await.expect("reads");
            assert_eq!((backlog.unsent, backlog.since), (20, None));
        })
        .await;
    assert!(read > GONE, "that is what it costs from the beginning: {read}");
    for analyzed in [false, true] {
        if analyzed {
            run(&mut worst.console, "ANALYZE").await.expect("analyzes");
        }
        let (read, ()) = worst
            .read_by(async |store| {
                let figures = &store.figures;
                for reach in
                    [&figures.backlog, &figures.overdue, &figures.late, &figures.counts, &figures.lost]
                {
                    (0..3).for_each(|_| reach.too_slow());
                }
                for _ in 0..ASKED {
                    let backlog = store.backlog().await.expect("reads");
                    assert!(backlog.unsent == 20 && backlog.first.len() == UNSENT_LISTED, "{backlog:?}");
                    let late = store.overdue(Duration::from_secs(2), 5).await.expect("reads");
                    assert!(late.orders == 0 && late.known().is_none(), "that is not known: {late:?}");
                    let expected = store.late(5).await.expect("reads");
                    assert!(expected.known().is_none() && expected.first.is_empty(), "{expected:?}");
                    let counts = store.count(&Status::open().collect::<Vec<_>>()).await.expect("reads");
                    assert_eq!(counts.orders, PerStatus::from_iter([(Status::Placed, 20)]));
                    assert!([backlog.since, late.since, counts.since].iter().all(Option::is_some));
                    assert_eq!(store.lost(&[], 10).await.expect("reads"), []);
                }
            })
            .await;
        assert!(read < ASKED * 20 * 6, "{read} entries read");
    }
}

/// The relay's sweep, from where it was, and what it clears.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn the_outbox_is_swept_and_cleared_at_the_price_of_what_is_there() {
    let mut worst = Worst::make().await;
    let live = new_orders(80);
    let ids: Vec<OrderId> = live.iter().map(|order| order.order_id).collect();
    let (read, ()) = worst
        .read_by(async |store| {
            store.place(&live, Outbox::Anyones).await.expect("places");
            for part in ids.chunks(10) {
                let after = OrderId::first_of(start() - Duration::from_mins(1));
                assert_eq!(store.unclaimed(Some(after), 10).await.expect("reads"), part);
                assert_eq!(store.claim(part).await.expect("claims").len(), 10);
                assert_eq!(store.release(part).await.expect("releases"), []);
                assert_eq!(store.mark_sent(part).await.expect("marks"), []);
            }
        })
        .await;
    // Those that were cleared are dead, too.
    assert!(read < 80 * 30, "{read} entries read");
}

/// Each slice of keys begins where the last one ended.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn keys_are_thrown_away_at_the_price_of_each() {
    let mut worst = Worst::make().await;
    let (read, ()) = worst
        .read_by(async |store| {
            let mut expired = 0;
            while expired < GONE.unsigned_abs() {
                let slice = store.expire_idempotency_keys(1_000).await.expect("expires");
                assert_eq!(slice, 1_000);
                expired += slice;
            }
            assert_eq!(store.expire_idempotency_keys(1_000).await.expect("expires"), 0);
        })
        .await;
    assert!(read < GONE * 6, "{read} entries read");
}

/// A page of an audit costs what is on it, with all that its orders have been.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn an_audit_reads_its_page() {
    let mut worst = Worst::make().await;
    let (read, ()) = worst
        .read_by(async |store| {
            let mut after: Option<String> = None;
            for _ in 0..ASKED {
                let page = store.audit(after.as_deref(), 100).await.expect("reads");
                assert_eq!(page.orders.len(), 100);
                after = page.last;
            }
        })
        .await;
    assert!(read < ASKED * 100 * 10, "{read} entries read");
}
