-- Keys by which programs and people say who they are. Of a key only its SHA-256 is kept.
CREATE TABLE api_keys (
    id           TEXT NOT NULL CONSTRAINT api_keys_pkey PRIMARY KEY,
    name         TEXT NOT NULL CONSTRAINT api_keys_name_check CHECK (length(name) BETWEEN 1 AND 64),
    role         TEXT NOT NULL
        CONSTRAINT api_keys_role_check CHECK (role IN ('shop', 'kitchen', 'courier', 'reader', 'staff', 'admin')),
    hash         BLOB NOT NULL CONSTRAINT api_keys_hash_key UNIQUE
        CONSTRAINT api_keys_hash_check CHECK (length(hash) = 32),
    created_at   INTEGER NOT NULL,
    -- To the minute.
    last_used_at INTEGER,
    -- From then on it is good for nothing.
    revoked_at   INTEGER,
    CONSTRAINT api_keys_moments_are_finite CHECK (
        created_at BETWEEN -62167219200000 AND 253402300799999
        AND last_used_at BETWEEN -62167219200000 AND 253402300799999
        AND revoked_at BETWEEN -62167219200000 AND 253402300799999)
) STRICT;

-- Nobody can tell two keys apart that are good and called the same.
CREATE UNIQUE INDEX api_keys_live_name ON api_keys (name) WHERE revoked_at IS NULL;
