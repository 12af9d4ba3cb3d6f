//! What is answered about keys, the same for every adapter.

use crate::keys::KeyRecord;

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
