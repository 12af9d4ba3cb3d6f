//! The rights that it takes to read events and to keep a reader's place, to write reports, and to know keys. Orders are
//! placed without them.

use sqlx::PgConnection;

use super::StoreError;

/// What of it the role lacks. Reads no table of ours.
pub(super) const OF_EVENTS: &str = "
    SELECT string_agg(privilege || ' on ' || relation, ', ' ORDER BY relation, privilege) FROM (
        SELECT relation, privilege FROM (VALUES
            ('order_events', 'SELECT'), ('orders', 'SELECT'),
            ('feed_cursors', 'SELECT'), ('feed_cursors', 'INSERT'), ('feed_cursors', 'UPDATE'))
            AS needed (relation, privilege)
        WHERE NOT has_table_privilege(to_regclass(relation), privilege)
        UNION ALL SELECT sequence, 'SELECT' FROM (VALUES ('order_events_id_seq')) AS s (sequence)
        WHERE NOT has_sequence_privilege(to_regclass(sequence), 'SELECT')) AS lacking";

/// The same of reports.
pub(super) const OF_REPORTS: &str = "
    SELECT string_agg(privilege || ' on ' || relation, ', ' ORDER BY relation, privilege) FROM (
        SELECT relation, privilege FROM (VALUES
            ('order_reports', 'SELECT'), ('order_reports', 'INSERT'), ('order_events', 'SELECT'),
            ('order_events', 'INSERT'), ('orders', 'SELECT')) AS needed (relation, privilege)
        WHERE NOT has_table_privilege(to_regclass(relation), privilege)
        UNION ALL SELECT 'orders (' || name || ')', 'UPDATE' FROM (VALUES
            ('status'), ('seq'), ('updated_at'), ('due_at'), ('expected_at'), ('ready_at')) AS c (name)
        WHERE NOT has_column_privilege(to_regclass('orders'), name, 'UPDATE')) AS lacking";

/// The same of knowing keys, and of noting their use.
pub(super) const OF_KEYS: &str = "
    SELECT string_agg(lacking, ', ') FROM (
        SELECT 'SELECT on api_keys' WHERE NOT has_table_privilege(to_regclass('api_keys'), 'SELECT')
        UNION ALL SELECT 'UPDATE on api_keys (last_used_at)'
        WHERE NOT has_column_privilege(to_regclass('api_keys'), 'last_used_at', 'UPDATE')) AS l (lacking)";

/// The same of making and revoking keys, which is for the owner of the tables.
pub(super) const OF_KEEPING_KEYS: &str = "
    SELECT string_agg(lacking, ', ') FROM (
        SELECT privilege || ' on api_keys' FROM (VALUES ('SELECT'), ('INSERT')) AS needed (privilege)
        WHERE NOT has_table_privilege(to_regclass('api_keys'), privilege)
        UNION ALL SELECT 'UPDATE on api_keys (revoked_at)'
        WHERE NOT has_column_privilege(to_regclass('api_keys'), 'revoked_at', 'UPDATE')) AS l (lacking)";

/// Runs a verb; where it is refused for want of one of these rights, says which.
pub(super) async fn naming<T>(
    db: &mut PgConnection,
    rights: &'static str,
    verb: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> sqlx::Result<Result<T, StoreError>> {
    match verb(&mut *db).await {
        Ok(answer) => Ok(Ok(answer)),
        Err(error) if is_for_want_of_a_right(&error) => {
            let lacking: Option<String> = sqlx::query_scalar(rights).fetch_one(db).await?;
            let lacking = lacking.ok_or(error)?;
            let reason = format!("the role lacks the right to {lacking} (docs/roles.sql)");
            Ok(Err(StoreError::Unavailable(reason)))
        }
        Err(error) => Err(error),
    }
}

fn is_for_want_of_a_right(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| code == "42501"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            PgSettings, PgStore,
            tests::{
                Database, run,
                settling::{LASTING, console, held_by, pid, place, read, replica, settled_to, step},
            },
        },
        *,
    };
    use crate::{
        keys::{KeyCreation, KeyUse},
        order::{Cursor, OrderId, Role},
        store::{
            EventLog as _, Insight as _, KeyStore as _, Maintenance as _, Span,
            conformance::{keys::drawn, start},
        },
    };

    /// Promise 6: it says what is wrong. The rights in `docs/roles.sql` are enough to read events; what is missing is
    /// named, and orders are placed without it.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn a_right_that_reading_events_takes_is_named() {
        let (database, owner_store) = replica().await;
        let mut owner = console(&database).await;
        let role = serving(&database).await;
        let store = PgStore::new(store_settings(&database, &role));
        store.migrate().await.expect("finds the schema up to date");
        let order_id = place(&store).await;
        every_question_is_answered(&store, order_id).await;
        // Of a session of somebody else's that much may be seen.
        let mut open = console(&database).await;
        step(&mut open, order_id).await;
        let session = format!("pid {}", pid(&mut open).await);
        assert_eq!(held_by(&store, &session).await.age, None);
        run(&mut open, "ROLLBACK").await.expect("ends");

        for (right, on) in [
            ("SELECT", "order_events_id_seq"),
            ("SELECT", "feed_cursors"),
            ("INSERT", "feed_cursors"),
            ("UPDATE", "feed_cursors"),
        ] {
            let kind = if on.ends_with("seq") { "SEQUENCE" } else { "TABLE" };
            run(&mut owner, &format!("REVOKE {right} ON {kind} {on} FROM {role}")).await.expect("revokes");
            let begun = PgStore::new(store_settings(&database, &role));
            begun.migrate().await.expect("orders can be placed");
            place(&begun).await;
            let refused = [
                begun.horizon().await.map(drop),
                begun.lease("new", LASTING).await.map(drop),
                begun.place_of("new").await.map(drop),
            ];
            let named = format!("the role lacks the right to {right} on {on} (docs/roles.sql)");
            let errors: Vec<_> = refused.into_iter().filter_map(Result::err).collect();
            assert!(!errors.is_empty(), "{right} on {on}");
            for error in errors {
                assert_eq!(error, StoreError::Unavailable(named.clone()));
            }
            begun.ping().await.expect("it is fit to serve");
            run(&mut owner, &format!("GRANT {right} ON {kind} {on} TO {role}")).await.expect("grants");
            every_question_is_answered(&begun, order_id).await;
            begun.close().await;
        }
        drop(owner_store);
        store.close().await;
        end(&mut owner, &role).await;
    }

    /// Promise 9: who may not, can't. The role that serves knows keys and notes their use; it makes and revokes none, and
    /// is told why. Without the right to know them orders are placed all the same.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn who_serves_reads_keys_and_makes_none() {
        let (database, owner_store) = replica().await;
        let (mut owner, role) = (console(&database).await, serving(&database).await);
        let (_, key) = drawn("site", Role::Shop);
        assert_eq!(owner_store.create_key(&key).await, Ok(KeyCreation::Created));
        let store = PgStore::new(store_settings(&database, &role));
        store.migrate().await.expect("finds the schema up to date");
        let used = [KeyUse { id: key.id.clone(), at: start() }];
        assert_eq!(store.live_keys().await, Ok(vec![key.clone()]));
        assert_eq!(store.note_uses(&used).await, Ok(Vec::new()));
        assert_eq!(
            store.list_keys().await.expect("reads").keys[0].last_used_at,
            Some("2026-01-02T03:04:00Z".parse().expect("a moment"))
        );
        let lacks = |right: &str| {
            StoreError::Unavailable(format!("the role lacks the right to {right} (docs/roles.sql)"))
        };
        let both = lacks("INSERT on api_keys, UPDATE on api_keys (revoked_at)");
        assert_eq!(store.create_key(&drawn("mine", Role::Admin).1).await, Err(both.clone()));
        assert_eq!(store.revoke_key("site").await, Err(both));
        assert_eq!(store.live_keys().await, Ok(vec![key]), "nothing has happened");

        run(&mut owner, &format!("REVOKE UPDATE (last_used_at) ON api_keys FROM {role}"))
            .await
            .expect("revokes");
        assert_eq!(store.note_uses(&used).await, Err(lacks("UPDATE on api_keys (last_used_at)")));
        store.live_keys().await.expect("reads");
        run(&mut owner, &format!("REVOKE SELECT ON api_keys FROM {role}")).await.expect("revokes");
        let begun = PgStore::new(store_settings(&database, &role));
        begun.migrate().await.expect("orders can be placed");
        place(&begun).await;
        let refused = begun.live_keys().await.expect_err("may not");
        assert_eq!(refused, lacks("SELECT on api_keys, UPDATE on api_keys (last_used_at)"));
        begun.ping().await.expect("it is fit to serve");
        begun.close().await;
        store.close().await;
        end(&mut owner, &role).await;
    }

    /// A role that may do what `docs/roles.sql` says.
    async fn serving(database: &Database) -> String {
        let (mut owner, role) = (console(database).await, format!("serving_{:016x}", rand::random::<u64>()));
        run(&mut owner, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await.expect("creates");
        for statement in include_str!("../../../docs/roles.sql").replace(":role", &role).split_inclusive(';')
        {
            run(&mut owner, statement).await.expect(statement);
        }
        role
    }

    async fn end(owner: &mut PgConnection, role: &str) {
        run(owner, &format!("DROP OWNED BY {role}")).await.expect("revokes");
        run(owner, &format!("DROP ROLE {role}")).await.expect("drops");
    }

    fn store_settings(database: &Database, role: &str) -> PgSettings {
        let dsn = database.options().username(role).password("secret").into();
        PgSettings { dsn, ..database.settings() }
    }

    async fn every_question_is_answered(store: &PgStore, order_id: OrderId) {
        let last = store.horizon().await.expect("looks").last;
        settled_to(store, last.0).await;
        assert!(!read(store, 0, last.0).await.is_empty());
        store.arrivals(&[Span { after: Cursor::START, upto: last }], 9).await.expect("reads");
        assert_eq!(store.facts(&[order_id]).await.expect("reads").len(), 1);
        store.holder().await.expect("looks");
        let name = "reader";
        let lease = store.lease(name, LASTING).await.expect("leases").expect("is free");
        let moved = store.move_on(name, lease, last, LASTING).await.expect("moves").expect("is held");
        store.give_back(name, moved).await.expect("gives back");
        assert_eq!(store.place_of(name).await, Ok(Some(last)));
    }
}
