-- The first schema that later versions start from: what comes after it is a further file. Moments are whole
-- milliseconds since 1970 in UTC: look with datetime(created_at / 1000, 'unixepoch').

CREATE TABLE orders (
    order_id      TEXT CONSTRAINT orders_pkey PRIMARY KEY,
    customer_name TEXT,
    address       TEXT,
    item          TEXT NOT NULL,
    size          TEXT NOT NULL CONSTRAINT orders_size_check CHECK (size IN ('small', 'medium', 'large')),
    status        TEXT NOT NULL CONSTRAINT orders_status_check CHECK (
        status IN ('PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY', 'DELIVERED', 'CANCELLED')),
    -- The position of its last event.
    seq           INTEGER NOT NULL CONSTRAINT orders_seq_check CHECK (seq >= 1),
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    -- When the service acts next, if it does.
    due_at        INTEGER,
    -- When people should have acted, if they move the order.
    expected_at   INTEGER,
    -- When the kitchen said that it is ready.
    ready_at      INTEGER,
    CONSTRAINT orders_due_at_check CHECK (due_at IS NULL OR status NOT IN ('DELIVERED', 'CANCELLED'))
) STRICT;

-- Ids rise with time, so the newest of a status come first by id; no sorting, whatever the table's size.
CREATE INDEX orders_status_order_id ON orders (status, order_id);
CREATE INDEX orders_due_at ON orders (due_at, status) WHERE due_at IS NOT NULL;
CREATE INDEX orders_status_expected_at ON orders (status, expected_at) WHERE expected_at IS NOT NULL;

CREATE TABLE order_events (
    id          INTEGER CONSTRAINT order_events_pkey PRIMARY KEY AUTOINCREMENT,
    order_id    TEXT NOT NULL CONSTRAINT order_events_order_id_fkey REFERENCES orders (order_id),
    event       TEXT NOT NULL CONSTRAINT order_events_event_check CHECK (
        event IN ('CREATED', 'PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY', 'DELIVERED', 'CANCELLED',
            'READY', 'COURIER_ASSIGNED', 'COURIER_AT_PICKUP', 'COURIER_AT_DOOR', 'DELIVERY_FAILED', 'DELAYED',
            'REVERTED', 'ERASED')),
    -- 1, 2, 3, … within its order.
    seq         INTEGER NOT NULL CONSTRAINT order_events_seq_check CHECK (seq >= 1),
    "timestamp" INTEGER NOT NULL,
    meta        TEXT CONSTRAINT order_events_meta_check CHECK (meta IS NULL OR json_valid(meta)),
    -- Also the index by order_id.
    CONSTRAINT order_events_order_id_seq_key UNIQUE (order_id, seq)
) STRICT;

CREATE TRIGGER order_events_no_update BEFORE UPDATE ON order_events
BEGIN
    SELECT RAISE(ABORT, 'order_events are immutable: no row can be updated');
END;

CREATE TRIGGER order_events_no_delete BEFORE DELETE ON order_events
BEGIN
    SELECT RAISE(ABORT, 'order_events are immutable: no row can be deleted');
END;

-- INSERT OR REPLACE deletes without the trigger above.
CREATE TRIGGER order_events_no_replace BEFORE INSERT ON order_events
WHEN EXISTS (SELECT 1 FROM order_events WHERE id = NEW.id)
    OR EXISTS (SELECT 1 FROM order_events WHERE order_id = NEW.order_id AND seq = NEW.seq)
BEGIN
    SELECT RAISE(ABORT, 'order_events are immutable: no row can be replaced');
END;

-- What people report beside an event and what must be erasable, as an event is not. Rows are written only beside
-- their event, so they carry no foreign key.
CREATE TABLE order_reports (
    order_id  TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    -- The sender's name for the report: the same one again changes nothing.
    report_id TEXT,
    said      TEXT NOT NULL CONSTRAINT order_reports_said_check CHECK (json_valid(said)),
    note      TEXT,
    CONSTRAINT order_reports_pkey PRIMARY KEY (order_id, seq)
) STRICT;

CREATE UNIQUE INDEX order_reports_order_id_report_id ON order_reports (order_id, report_id)
    WHERE report_id IS NOT NULL;

-- Orders that no broker has acknowledged yet. The message is made from the order itself.
CREATE TABLE outbox (
    order_id   TEXT CONSTRAINT outbox_pkey PRIMARY KEY
        CONSTRAINT outbox_order_id_fkey REFERENCES orders (order_id),
    created_at INTEGER NOT NULL,
    -- The process that is about to publish it from memory; rows of a process that is gone are anyone's.
    claimed_by INTEGER
) STRICT;

-- Keys that clients sent with their orders, by who sent them; the stored order tells whether a later body is the
-- same.
CREATE TABLE idempotency_keys (
    owner      TEXT NOT NULL DEFAULT '',
    key        TEXT NOT NULL,
    order_id   TEXT NOT NULL CONSTRAINT idempotency_keys_order_id_fkey REFERENCES orders (order_id),
    created_at INTEGER NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (owner, key)
) STRICT;

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
