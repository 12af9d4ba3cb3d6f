-- As in 0003.
SET LOCAL lock_timeout = '5s';
ALTER TABLE idempotency_keys SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);
