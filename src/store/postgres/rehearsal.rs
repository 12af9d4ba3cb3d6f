//! Whose fault it is that an order was refused: one that is surely good is placed and taken back. If that fails,
//! too, it is the database's trouble, and no order is to blame.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use sqlx::Connection as _;
use tokio::time::Instant;

use super::{
    IdempotencyKey, NewOrder, OrderReport, PgStore, StoreError, arrive, bounded, pools::Slot, reports,
};
use crate::order::{EventKind, IdMint, OrderDetails, OrderId, Report, Rules, Source, Start};

/// How long it counts that a good order could not be placed.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Orders that are written in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// With an idempotency key.
    Keyed,
    /// Without one.
    Keyless,
    /// One that is reported on.
    Reported,
}

impl Kind {
    /// Those that are placed.
    pub(super) const ALL: [Self; 2] = [Self::Keyed, Self::Keyless];

    /// Of a set that is written at once.
    pub(super) fn of(orders: &[NewOrder]) -> Self {
        if orders.iter().any(|order| order.key.is_some()) { Self::Keyed } else { Self::Keyless }
    }
}

/// How a good order of each kind has fared when one was last tried.
#[derive(Default)]
pub(super) struct Rehearsals([Mutex<Option<Rehearsed>>; 3]);

struct Rehearsed {
    at: Instant,
    outcome: Result<(), StoreError>,
}

impl Rehearsals {
    fn last(&self, kind: Kind) -> MutexGuard<'_, Option<Rehearsed>> {
        self.0[kind as usize].lock().expect("no holder panics")
    }

    /// That one went well a moment ago acquits nobody of what happened since; it only spares a set that is
    /// halved next.
    fn known(&self, kind: Kind, alone: bool) -> Option<Result<(), StoreError>> {
        let last = self.last(kind);
        let known = last.as_ref().filter(|last| last.at.elapsed() < REMEMBERED)?;
        (known.outcome.is_err() || !alone).then(|| known.outcome.clone())
    }
}

impl PgStore {
    /// An order that is refused alone, or a set that may hold one, is to blame only where a good order is not
    /// refused as well.
    pub(super) async fn blamed<T>(
        &self,
        outcome: Result<Vec<T>, StoreError>,
        (kind, slot, count): (Kind, &Slot, usize),
    ) -> Result<Vec<T>, StoreError> {
        let Err(error @ (StoreError::Refused(_) | StoreError::Failed(_))) = outcome else { return outcome };
        let rehearsed = match self.rehearsals.known(kind, count == 1) {
            Some(known) => known,
            None => self.rehearse_on(kind, slot).await,
        };
        Err(rehearsed.err().unwrap_or(error))
    }

    /// Places an order and takes it back: whatever keeps orders from being placed, it meets.
    pub(super) async fn rehearse(&self, kind: Kind) -> Result<(), StoreError> {
        let rehearsed = self.rehearse_on(kind, self.pools()?.placing(kind)).await;
        self.preconditions.judge_rehearsal(kind, &rehearsed);
        rehearsed
    }

    async fn rehearse_on(&self, kind: Kind, slot: &Slot) -> Result<(), StoreError> {
        let now = self.now();
        let details = OrderDetails::new("nobody", "nowhere", "nothing", "small").expect("valid");
        let order_id = IdMint::default().mint(0, rand::random());
        let key = (kind == Kind::Keyed)
            .then(|| IdempotencyKey::new("", format!("{:032x}", rand::random::<u128>())));
        let start = Start::timer(Duration::ZERO);
        let order = [NewOrder { order_id, details, key, meta: None, start }];
        let at = Instant::now();
        let rehearsed = bounded(slot, async |db| {
            let mut tx = db.begin().await?;
            arrive::place(&mut tx, &order, now, None).await?;
            if kind == Kind::Reported {
                reports::report(&mut tx, &[good_report(order_id)], &Rules::default(), (now, None)).await?;
            }
            // What a commit would find out.
            sqlx::query("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *tx).await?;
            tx.rollback().await
        });
        let outcome = rehearsed.await.map_err(|error| match error {
            StoreError::Refused(reason) | StoreError::Failed(reason) => StoreError::Unavailable(reason),
            error => error,
        });
        *self.rehearsals.last(kind) = Some(Rehearsed { at, outcome: outcome.clone() });
        outcome
    }
}

/// One that writes wherever a report writes.
fn good_report(order_id: OrderId) -> OrderReport {
    let mut report = Report::of(EventKind::Ready, Source::Kitchen);
    (report.id, report.note) = (Some("rehearsal".to_owned()), Some("nothing".to_owned()));
    OrderReport { order_id, report, if_match: None }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{fixture, new_order},
        *,
    };
    use crate::{
        order::{OrderPlaced, Timestamp},
        store::{Incoming, Outbox, Store},
    };

    fn keyed() -> NewOrder {
        NewOrder {
            key: Some(IdempotencyKey::open(format!("{:032x}", rand::random::<u128>()))),
            ..new_order()
        }
    }

    fn incoming(item: &str) -> Incoming {
        let details = OrderDetails::new("Ada", "1 High St", item, "large").expect("valid");
        let order_id = IdMint::default().mint(1, rand::random());
        Incoming {
            placed: OrderPlaced::new(order_id, details, Timestamp::default()),
            meta: None,
            start: Start::default(),
        }
    }

    /// What every way in which an order arrives says.
    async fn outcomes(store: &dyn Store) -> Vec<Result<(), StoreError>> {
        vec![
            store.place(&[new_order()], Outbox::Mine).await.map(drop),
            store.place(&[keyed(), keyed()], Outbox::Anyones).await.map(drop),
            store.admit(&[incoming("ramen")]).await.map(drop),
            store.admit(&[incoming("ramen"), incoming("pizza")]).await.map(drop),
        ]
    }

    const TO_THE_END: &str = "SELECT setval('order_events_id_seq', (SELECT max(id) FROM order_events))";

    /// What no order can have brought about: each would be refused alone, too.
    const TROUBLES: [(&[&str], &[&str]); 6] = [
        // After a restore, or a failover to a subscriber.
        (&["SELECT setval('order_events_id_seq', 1, false)"], &[TO_THE_END]),
        (&["SELECT setval('order_events_id_seq', 9223372036854775807)"], &[TO_THE_END]),
        (
            &[
                "ALTER TABLE orders ADD COLUMN extra text NOT NULL DEFAULT ''",
                "ALTER TABLE orders ALTER COLUMN extra DROP DEFAULT",
            ],
            &["ALTER TABLE orders DROP COLUMN extra"],
        ),
        (
            &["ALTER TABLE order_events ADD CONSTRAINT never CHECK (false) NOT VALID"],
            &["ALTER TABLE order_events DROP CONSTRAINT never"],
        ),
        (
            &["ALTER TABLE orders ADD CONSTRAINT never CHECK (false) NOT VALID"],
            &["ALTER TABLE orders DROP CONSTRAINT never"],
        ),
        (
            &[
                "ALTER TABLE order_events RENAME TO whole",
                "CREATE TABLE order_events (LIKE whole INCLUDING DEFAULTS) PARTITION BY RANGE (id)",
            ],
            &["DROP TABLE order_events", "ALTER TABLE whole RENAME TO order_events"],
        ),
    ];

    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn no_order_is_to_blame_where_a_good_one_is_refused_too() {
        let t = fixture().await;
        for _ in 0..25 {
            t.store.place(&[new_order()], Outbox::Mine).await.expect("places");
        }
        for (trouble, mend) in TROUBLES {
            for statement in trouble {
                (t.by_hand)(statement).await.expect(statement);
            }
            for outcome in outcomes(&*t.store).await {
                assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{trouble:?}: {outcome:?}");
            }
            for statement in mend {
                (t.by_hand)(statement).await.expect(statement);
            }
            // That one could not be placed is remembered by another.
            for outcome in outcomes(&*t.replica).await {
                assert_eq!(outcome, Ok(()), "{trouble:?}");
            }
        }
    }

    /// A broken table of keys is no fault of who sends one.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn trouble_with_keys_is_found_by_who_has_one() {
        let t = fixture().await;
        (t.by_hand)("ALTER TABLE idempotency_keys ADD CONSTRAINT never CHECK (false)").await.expect("alters");
        let refused = t.store.place(&[keyed()], Outbox::Mine).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        t.store.place(&[new_order()], Outbox::Mine).await.expect("needs no key");
    }

    /// What only some orders break is theirs, or waits alone where the rule is somebody else's.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn an_order_is_to_blame_where_good_ones_go() {
        let t = fixture().await;
        (t.by_hand)("ALTER TABLE orders ALTER COLUMN item TYPE varchar(8)").await.expect("alters");
        let long = t.store.admit(&[incoming("far too long")]).await;
        assert!(matches!(long, Err(StoreError::Refused(_))), "{long:?}");
        (t.by_hand)("ALTER TABLE orders ADD CONSTRAINT no_pizza CHECK (item <> 'pizza')")
            .await
            .expect("alters");
        let pizza = t.store.admit(&[incoming("pizza")]).await;
        assert!(matches!(pizza, Err(StoreError::Failed(_))), "{pizza:?}");
        t.store.admit(&[incoming("ramen")]).await.expect("admits");
    }
}
