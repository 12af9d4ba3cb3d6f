-- As in 0003.
SET LOCAL lock_timeout = '5s';
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

SET LOCAL lock_timeout = '500ms';
ALTER TABLE outbox ADD CONSTRAINT outbox_created_at_is_finite CHECK (isfinite(created_at)) NOT VALID;
