-- Keys by which programs and people say who they are. Of a key only its SHA-256 is kept.
CREATE TABLE api_keys (
    id           text COLLATE "C" CONSTRAINT api_keys_pkey PRIMARY KEY,
    name         text NOT NULL CONSTRAINT api_keys_name_check CHECK (char_length(name) BETWEEN 1 AND 64),
    role         text NOT NULL
        CONSTRAINT api_keys_role_check CHECK (role IN ('shop', 'kitchen', 'courier', 'reader', 'staff', 'admin')),
    hash         bytea NOT NULL CONSTRAINT api_keys_hash_key UNIQUE
        CONSTRAINT api_keys_hash_check CHECK (octet_length(hash) = 32),
    created_at   timestamptz NOT NULL,
    -- To the minute.
    last_used_at timestamptz,
    -- From then on it is good for nothing.
    revoked_at   timestamptz,
    CONSTRAINT api_keys_moments_are_finite
        CHECK (isfinite(created_at) AND isfinite(last_used_at) AND isfinite(revoked_at))
);

-- Nobody can tell two keys apart that are good and called the same.
CREATE UNIQUE INDEX api_keys_live_name ON api_keys (name) WHERE revoked_at IS NULL;
