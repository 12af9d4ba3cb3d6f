-- Orders that no broker has acknowledged yet. The message is made from the order itself.
CREATE TABLE outbox (
    order_id   TEXT PRIMARY KEY REFERENCES orders (order_id),
    created_at INTEGER NOT NULL,
    -- The process that is about to publish it from memory; rows of a process that is gone are anyone's.
    claimed_by INTEGER
) STRICT;

-- Keys that clients sent with their orders; the stored order tells whether a later body is the same.
CREATE TABLE idempotency_keys (
    key        TEXT PRIMARY KEY,
    order_id   TEXT NOT NULL REFERENCES orders (order_id),
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
