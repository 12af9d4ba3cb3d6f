-- As in 0003.
SET LOCAL lock_timeout = '5s';
LOCK TABLE order_events IN SHARE UPDATE EXCLUSIVE MODE;

SET LOCAL lock_timeout = '500ms';
ALTER TABLE order_events ADD CONSTRAINT order_events_timestamp_is_finite CHECK (isfinite("timestamp")) NOT VALID;
