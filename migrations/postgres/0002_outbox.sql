-- Orders that no broker has acknowledged yet. The message is made from the order itself. Rows live for
-- milliseconds and are written and deleted only beside their order, so they carry no foreign key.
CREATE TABLE outbox (
    order_id   text COLLATE "C" PRIMARY KEY,
    created_at timestamptz NOT NULL,
    -- The replica that is about to publish it from memory; rows of one that is not alive are anyone's.
    claimed_by bigint
);

-- The replicas that publish; each says every second that it is alive.
CREATE TABLE relays (
    replica     bigint PRIMARY KEY,
    alive_until timestamptz NOT NULL
);

-- Keys that clients sent with their orders; the stored order tells whether a later body is the same.
-- The key is taken before its order is written, hence the late check.
CREATE TABLE idempotency_keys (
    key        text PRIMARY KEY,
    order_id   text COLLATE "C" NOT NULL REFERENCES orders (order_id) DEFERRABLE INITIALLY DEFERRED,
    created_at timestamptz NOT NULL
);

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
