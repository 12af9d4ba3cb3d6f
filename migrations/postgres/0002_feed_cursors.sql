-- How far each reader of all events has come, and which replica reads for it just now.
CREATE TABLE feed_cursors (
    name       text CONSTRAINT feed_cursors_pkey PRIMARY KEY,
    -- Everything up to this event is done.
    cursor     bigint NOT NULL DEFAULT 0 CONSTRAINT feed_cursors_cursor_check CHECK (cursor >= 0),
    -- The replica that has it until then; anybody may take it afterwards.
    held_by    bigint,
    held_until timestamptz NOT NULL
        CONSTRAINT feed_cursors_held_until_is_finite CHECK (isfinite(held_until)),
    -- Rises with each replica that takes it, so that an earlier one can change nothing.
    term       bigint NOT NULL DEFAULT 0 CONSTRAINT feed_cursors_term_check CHECK (term >= 0)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
