-- The first schema that later versions start from: what comes after it is a further file. The same as
-- migrations/sqlite, in this dialect. Ids are ASCII, so "C" sorts them by byte, and faster.

CREATE TABLE orders (
    order_id      text COLLATE "C" CONSTRAINT orders_pkey PRIMARY KEY,
    customer_name text,
    address       text,
    item          text NOT NULL,
    size          text NOT NULL CONSTRAINT orders_size_check CHECK (size IN ('small', 'medium', 'large')),
    status        text NOT NULL CONSTRAINT orders_status_check CHECK (
        status IN ('PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY', 'DELIVERED', 'CANCELLED')),
    -- The position of its last event.
    seq           integer NOT NULL CONSTRAINT orders_seq_check CHECK (seq >= 1),
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    -- When the service acts next, if it does.
    due_at        timestamptz,
    -- When people should have acted, if they move the order.
    expected_at   timestamptz,
    -- When the kitchen said that it is ready.
    ready_at      timestamptz,
    CONSTRAINT orders_due_at_check CHECK (due_at IS NULL OR status NOT IN ('DELIVERED', 'CANCELLED')),
    -- `infinity` is no moment that anything here can be reckoned with.
    CONSTRAINT orders_moments_are_finite CHECK (
        isfinite(created_at) AND isfinite(updated_at) AND isfinite(due_at) AND isfinite(expected_at)
        AND isfinite(ready_at))
) WITH (
    -- Every order is updated four times: room on its page keeps the new versions there.
    fillfactor = 70,
    -- Every order leaves four dead versions behind, and every outbox row one. By default they are cleared when
    -- they are a fifth of the table, which for a table of millions is never soon enough.
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000
);

-- Ids rise with time, so the newest of a status come first by id; no sorting, whatever the table's size.
CREATE INDEX orders_status_order_id ON orders (status, order_id);
CREATE INDEX orders_due_at ON orders (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX orders_status_expected_at ON orders (status, expected_at) WHERE expected_at IS NOT NULL;

CREATE TABLE order_events (
    id          bigserial CONSTRAINT order_events_pkey PRIMARY KEY,
    order_id    text COLLATE "C" NOT NULL
        CONSTRAINT order_events_order_id_fkey REFERENCES orders (order_id),
    event       text NOT NULL CONSTRAINT order_events_event_check CHECK (
        event IN ('CREATED', 'PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY', 'DELIVERED', 'CANCELLED',
            'READY', 'COURIER_ASSIGNED', 'COURIER_AT_PICKUP', 'COURIER_AT_DOOR', 'DELIVERY_FAILED', 'DELAYED',
            'REVERTED', 'ERASED')),
    -- 1, 2, 3, … within its order.
    seq         integer NOT NULL CONSTRAINT order_events_seq_check CHECK (seq >= 1),
    "timestamp" timestamptz NOT NULL
        CONSTRAINT order_events_timestamp_is_finite CHECK (isfinite("timestamp")),
    meta        jsonb,
    -- Also the index by order_id.
    CONSTRAINT order_events_order_id_seq_key UNIQUE (order_id, seq)
);

CREATE FUNCTION order_events_are_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'order_events are immutable: no row can be updated, deleted or truncated';
END
$$;

CREATE TRIGGER order_events_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON order_events
    FOR EACH STATEMENT EXECUTE FUNCTION order_events_are_immutable();

-- What people report beside an event and what must be erasable, as an event is not. Rows are written only beside
-- their event, so they carry no foreign key.
CREATE TABLE order_reports (
    order_id  text COLLATE "C" NOT NULL,
    seq       integer NOT NULL,
    -- The sender's name for the report: the same one again changes nothing.
    report_id text,
    said      jsonb NOT NULL,
    note      text,
    CONSTRAINT order_reports_pkey PRIMARY KEY (order_id, seq)
);

CREATE UNIQUE INDEX order_reports_order_id_report_id ON order_reports (order_id, report_id)
    WHERE report_id IS NOT NULL;

-- Orders that no broker has acknowledged yet. The message is made from the order itself. Rows live for
-- milliseconds and are written and deleted only beside their order, so they carry no foreign key.
CREATE TABLE outbox (
    order_id   text COLLATE "C" CONSTRAINT outbox_pkey PRIMARY KEY,
    created_at timestamptz NOT NULL CONSTRAINT outbox_created_at_is_finite CHECK (isfinite(created_at)),
    -- The replica that is about to publish it from memory; rows of one that is not alive are anyone's.
    claimed_by bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- The replicas that publish; each says every second that it is alive.
CREATE TABLE relays (
    replica     bigint CONSTRAINT relays_pkey PRIMARY KEY,
    alive_until timestamptz NOT NULL
);

-- Keys that clients sent with their orders, by who sent them; the stored order tells whether a later body is the
-- same. The key is taken before its order is written, hence the late check.
CREATE TABLE idempotency_keys (
    owner      text NOT NULL DEFAULT '',
    key        text NOT NULL,
    order_id   text COLLATE "C" NOT NULL
        CONSTRAINT idempotency_keys_order_id_fkey REFERENCES orders (order_id) DEFERRABLE INITIALLY DEFERRED,
    created_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (owner, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
