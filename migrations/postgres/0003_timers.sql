-- `infinity` is no moment that anything here can be reckoned with. Rows that are there are not read for it.
ALTER TABLE orders
    ADD CONSTRAINT orders_moments_are_finite
        CHECK (isfinite(created_at) AND isfinite(updated_at) AND isfinite(due_at)) NOT VALID;
ALTER TABLE order_events ADD CONSTRAINT order_events_timestamp_is_finite CHECK (isfinite("timestamp")) NOT VALID;
ALTER TABLE outbox ADD CONSTRAINT outbox_created_at_is_finite CHECK (isfinite(created_at)) NOT VALID;

-- Every order leaves four dead versions behind, and every outbox row one. By default they are cleared when they
-- are a fifth of the table, which for a table of millions is never soon enough.
ALTER TABLE orders SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000);
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
ALTER TABLE idempotency_keys SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);
