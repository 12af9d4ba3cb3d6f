//! What is answered about keys, the same for every adapter.

use crate::keys::{KeyHash, KeyRecord};

/// What became of a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCreation {
    /// It is stored, and good.
    Created,
    /// One that is good is called the same; nothing was written.
    NameTaken,
    /// There are [`MAX_LIVE_KEYS`](crate::keys::MAX_LIVE_KEYS) that are good; nothing was written.
    TooMany,
}

/// All keys, good or revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyList {
    /// Those that can be read, oldest first.
    pub keys: Vec<KeyRecord>,
    /// The ids of those that hold what no key can hold, as they are written.
    pub unreadable: Vec<String>,
}

/// The hash in a row; an error if it has another length.
pub(super) fn key_hash(bytes: &[u8]) -> sqlx::Result<KeyHash> {
    let hash = bytes
        .try_into()
        .map_err(|source| sqlx::Error::ColumnDecode { index: "hash".to_owned(), source: Box::new(source) })?;
    Ok(KeyHash(hash))
}

impl KeyList {
    /// Of these rows, each read by `key`, or else named by `id`.
    pub(super) fn of<R>(
        rows: &[R],
        id: impl Fn(&R) -> String,
        key: impl Fn(&R) -> sqlx::Result<KeyRecord>,
    ) -> Self {
        let mut list = Self::default();
        for row in rows {
            match key(row) {
                Ok(key) => list.keys.push(key),
                Err(_) => list.unreadable.push(id(row)),
            }
        }
        list
    }
}
