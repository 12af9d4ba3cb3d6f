-- Moments are whole milliseconds since 1970 in UTC: look with datetime(created_at / 1000, 'unixepoch').

CREATE TABLE orders (
    order_id      TEXT PRIMARY KEY,
    customer_name TEXT NOT NULL,
    address       TEXT NOT NULL,
    item          TEXT NOT NULL,
    size          TEXT NOT NULL CHECK (size IN ('small', 'medium', 'large')),
    status        TEXT NOT NULL
        CHECK (status IN ('PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY', 'DELIVERED')),
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    -- The timer of the next step; none once delivered.
    due_at        INTEGER,
    CHECK ((due_at IS NULL) = (status = 'DELIVERED'))
) STRICT;

-- Ids rise with time, so the newest of a status come first by id; no sorting, whatever the table's size.
CREATE INDEX orders_status_order_id ON orders (status, order_id);
CREATE INDEX orders_due_at ON orders (due_at, status) WHERE due_at IS NOT NULL;

CREATE TABLE order_events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id    TEXT NOT NULL REFERENCES orders (order_id),
    event       TEXT NOT NULL
        CHECK (event IN ('CREATED', 'PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY', 'DELIVERED')),
    "timestamp" INTEGER NOT NULL,
    meta        TEXT CHECK (meta IS NULL OR json_valid(meta)),
    -- Also the index by order_id.
    UNIQUE (order_id, event)
) STRICT;

CREATE TRIGGER order_events_no_update BEFORE UPDATE ON order_events
BEGIN
    SELECT RAISE(ABORT, 'order_events are immutable: no row can be updated');
END;

CREATE TRIGGER order_events_no_delete BEFORE DELETE ON order_events
BEGIN
    SELECT RAISE(ABORT, 'order_events are immutable: no row can be deleted');
END;

-- INSERT OR REPLACE deletes without the trigger above; an event that is there already stays instead.
CREATE TRIGGER order_events_no_replace BEFORE INSERT ON order_events
WHEN EXISTS (SELECT 1 FROM order_events WHERE id = NEW.id)
    OR EXISTS (SELECT 1 FROM order_events WHERE order_id = NEW.order_id AND event = NEW.event)
BEGIN
    SELECT RAISE(IGNORE);
END;
