-- How far each reader of all events has come, and which process reads for it just now.
CREATE TABLE feed_cursors (
    name       TEXT CONSTRAINT feed_cursors_pkey PRIMARY KEY,
    -- Everything up to this event is done.
    cursor     INTEGER NOT NULL DEFAULT 0 CONSTRAINT feed_cursors_cursor_check CHECK (cursor >= 0),
    -- The process that has it until then; anybody may take it afterwards.
    held_by    INTEGER,
    held_until INTEGER NOT NULL,
    -- Rises with each process that takes it, so that an earlier one can change nothing.
    term       INTEGER NOT NULL DEFAULT 0 CONSTRAINT feed_cursors_term_check CHECK (term >= 0)
) STRICT;
