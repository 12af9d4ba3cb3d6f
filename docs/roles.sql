-- Two roles: the owner of the tables runs `order-tracker migrate` and `order-tracker keys`, this one serves. Run it as the owner after the first
-- migration, and again after each later one: psql --single-transaction -v role=serving -f docs/roles.sql
-- What is granted here is all that the role has: rights of an earlier version go.
REVOKE ALL ON orders, order_events, order_reports, outbox, relays, idempotency_keys, feed_cursors, api_keys, _sqlx_migrations FROM :role;
REVOKE ALL ON SEQUENCE order_events_id_seq FROM :role;
GRANT SELECT, INSERT, UPDATE (status, seq, updated_at, due_at, expected_at, ready_at) ON orders TO :role;
GRANT SELECT, INSERT ON order_events, order_reports TO :role;
-- SELECT so that the feed knows how far it may be read.
GRANT USAGE, SELECT ON SEQUENCE order_events_id_seq TO :role;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox, relays TO :role;
GRANT SELECT, INSERT, UPDATE ON feed_cursors TO :role;
-- UPDATE so that keys can be locked before they are thrown away: those that somebody holds are passed over.
GRANT SELECT, INSERT, UPDATE (created_at), DELETE ON idempotency_keys TO :role;
-- Who may make and revoke keys may do everything: not the role that serves.
GRANT SELECT, UPDATE (last_used_at) ON api_keys TO :role;
GRANT SELECT ON _sqlx_migrations TO :role;
