//! What those who read events cost the database, however many are stored.

use super::{super::figures_cost::all_read, *};
use crate::order::EventKind;

/// A generic plan is made at the sixth execution.
const ASKED: i64 = 8;
/// How many are asked for.
const LIMIT: i64 = 50;
/// What comes with every start of a replica.
const START: i64 = 60;

const _: () = assert!(FeedQuery::EXAMINED == 10_000, "one of the questions asks for so many");
/// What is asked, and how many entries one answer may read.
const QUESTIONS: [(&str, i64); 8] = [
    ("horizon", 2),
    ("arrivals", 3 * LIMIT),
    ("arrivals above", 2),
    ("events", 2 * LIMIT),
    ("events of a kind", 10_002),
    ("facts", 2),
    ("lease", 6),
    ("move on", 4),
];

async fn ask(store: &PgStore, question: &str, last: i64) {
    let span = |after: i64, upto: i64| Span { after: Cursor(after), upto: Cursor(upto) };
    let (middle, limit) = (last / 2, usize::try_from(LIMIT).expect("small"));
    let query = FeedQuery { span: span(middle, last), event: None, limit };
    for _ in 0..ASKED {
        match question {
            "horizon" => drop(store.horizon().await.expect("looks")),
            "arrivals" => {
                let gaps =
                    [span(middle, middle + 9), span(middle + 20, middle + 90), span(last - 9, i64::MAX)];
                assert_eq!(store.arrivals(&gaps, limit).await.expect("reads").len(), limit);
            }
            "arrivals above" => {
                let above = span(last, i64::MAX);
                assert_eq!(store.arrivals(&[above], 1_000).await.expect("reads"), []);
            }
            "events" => assert_eq!(store.events(&query).await.expect("reads").events.len(), limit),
            "events of a kind" => {
                let none = FeedQuery { event: Some(EventKind::Reached(Status::Delivered)), ..query };
                assert_eq!(store.events(&none).await.expect("reads").events, []);
            }
            "facts" => drop(store.facts(&[new_order().order_id]).await.expect("reads")),
            "lease" => {
                let lease = store.lease("reader", LASTING).await.expect("leases").expect("is free");
                store.give_back("reader", lease).await.expect("gives back");
            }
            _ => {
                let lease = store.lease("mover", LASTING).await.expect("leases").expect("is its own");
                store.move_on("mover", lease, Cursor(last), LASTING).await.expect("moves").expect("is held");
            }
        }
    }
    if question == "move on" {
        let lease = store.lease("mover", LASTING).await.expect("leases").expect("is its own");
        store.give_back("mover", lease).await.expect("gives back");
    }
}

/// Orders up to this one, each with two events.
fn fill(from: i64, to: i64) -> [String; 2] {
    let numbers = format!("generate_series({from}, {to}) AS n");
    let id = "'ORD-0' || lpad(n::text, 25, '0')";
    [
        format!(
            "INSERT INTO orders SELECT {id}, 'Ada', 'here', 'pizza', 'large', 'PLACED', 2, $$2026-01-02$$, $$2026-01-02$$
             FROM {numbers}"
        ),
        format!(
            "INSERT INTO order_events (order_id, event, seq, \"timestamp\")
             SELECT {id}, (ARRAY['CREATED', 'PLACED'])[seq], seq, $$2026-01-02$$ FROM {numbers}, generate_series(1, 2) AS seq
             ORDER BY n, seq"
        ),
    ]
}

/// Promise 5: memory, queues and time are bounded. In generic plans and in those made for one answer, on tables that
/// were never analysed and on those that were.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn reading_events_costs_the_same_however_many_there_are() {
    let (database, store) = replica().await;
    store.close().await;
    let clock = Arc::new(ManualClock::new(start()));
    let mut console = console(&database).await;
    let name = database.options().get_database().expect("has a name").to_owned();
    run(&mut console, "SET session_replication_role = replica").await.expect("no foreign key is checked");
    for table in ["orders", "order_events", "feed_cursors"] {
        run(&mut console, &format!("ALTER TABLE {table} SET (autovacuum_enabled = false)"))
            .await
            .expect("alters");
    }
    let mut orders = 0;
    for (count, analyzed) in [(500, false), (5_000, false), (50_000, false), (50_000, true)] {
        for statement in fill(orders + 1, count) {
            run(&mut console, &statement).await.expect("fills");
        }
        orders = count;
        if analyzed {
            run(&mut console, "ANALYZE").await.expect("analyzes");
        }
        for mode in ["force_generic_plan", "force_custom_plan"] {
            run(&mut console, &format!("ALTER DATABASE {name} SET plan_cache_mode = {mode}"))
                .await
                .expect("sets");
            for (question, most) in QUESTIONS {
                let before = all_read(&mut console).await;
                let store = database.replica(&clock).await;
                ask(&store, question, 2 * count).await;
                store.close().await;
                let read = all_read(&mut console).await - before;
                assert!(
                    read <= START + ASKED * most,
                    "{question}, {count} orders, {mode}: {read} entries read"
                );
            }
        }
    }
}
