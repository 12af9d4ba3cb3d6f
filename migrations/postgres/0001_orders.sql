-- The same story as migrations/sqlite, in this dialect. Ids are ASCII, so "C" sorts them by byte, and faster.

CREATE TABLE orders (
    order_id      text COLLATE "C" PRIMARY KEY,
    customer_name text NOT NULL,
    address       text NOT NULL,
    item          text NOT NULL,
    size          text NOT NULL CHECK (size IN ('small', 'medium', 'large')),
    status        text NOT NULL
        CHECK (status IN ('PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY', 'DELIVERED')),
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    -- The timer of the next step; none once delivered.
    due_at        timestamptz,
    CHECK ((due_at IS NULL) = (status = 'DELIVERED'))
    -- Every order is updated four times: room on its page keeps the new versions there.
) WITH (fillfactor = 70);

-- Ids rise with time, so the newest of a status come first by id; no sorting, whatever the table's size.
CREATE INDEX orders_status_order_id ON orders (status, order_id);
CREATE INDEX orders_due_at ON orders (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE order_events (
    id          bigserial PRIMARY KEY,
    order_id    text COLLATE "C" NOT NULL REFERENCES orders (order_id),
    event       text NOT NULL
        CHECK (event IN ('CREATED', 'PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY', 'DELIVERED')),
    "timestamp" timestamptz NOT NULL,
    meta        jsonb,
    -- Also the index by order_id.
    UNIQUE (order_id, event)
);

CREATE FUNCTION order_events_are_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'order_events are immutable: no row can be updated, deleted or truncated';
END
$$;

CREATE TRIGGER order_events_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON order_events
    FOR EACH STATEMENT EXECUTE FUNCTION order_events_are_immutable();
