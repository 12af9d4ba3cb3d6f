-- One table in each transaction, and no queue behind it: what waits for an exclusive lock on a table makes everybody
-- else wait behind it. Who does not get it soon tries again later (`schema.rs`). What comes first stands in nobody's
-- way but a vacuum's, which gives way after a second.
SET LOCAL lock_timeout = '5s';
-- Every order leaves four dead versions behind, and every outbox row one. By default they are cleared when they
-- are a fifth of the table, which for a table of millions is never soon enough.
ALTER TABLE orders SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000);

-- `infinity` is no moment that anything here can be reckoned with. Rows that are there are not read for it.
SET LOCAL lock_timeout = '500ms';
ALTER TABLE orders
    ADD CONSTRAINT orders_moments_are_finite
        CHECK (isfinite(created_at) AND isfinite(updated_at) AND isfinite(due_at)) NOT VALID;
