//! What those who keep keys are told: each key without its hash.

use serde::{Serialize, Serializer};

use super::KeyId;
use crate::order::{Role, Timestamp, rfc3339, rfc3339_millis};

/// What is told of a stored key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRecord {
    /// What programs call it.
    #[serde(serialize_with = "as_text")]
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    #[serde(serialize_with = "as_text")]
    pub role: Role,
    /// When it was made.
    #[serde(serialize_with = "rfc3339_millis")]
    pub created_at: Timestamp,
    /// In which minute it was last used.
    #[serde(serialize_with = "rfc3339_if_any")]
    pub last_used_at: Option<Timestamp>,
    /// Since when it is good for nothing.
    #[serde(serialize_with = "rfc3339_if_any")]
    pub revoked_at: Option<Timestamp>,
}

/// What became of a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCreation {
    /// It is stored, and good.
    Created,
    /// One that is good is called the same; nothing was written.
    NameTaken,
    /// There are [`MAX_LIVE_KEYS`](super::MAX_LIVE_KEYS) that are good; nothing was written.
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

impl KeyList {
    /// Of these rows, each read by `key`, or else named by `id`.
    pub(crate) fn of<R, E>(
        rows: &[R],
        id: impl Fn(&R) -> String,
        key: impl Fn(&R) -> Result<KeyRecord, E>,
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

fn as_text<S: Serializer>(value: &impl std::fmt::Display, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

fn rfc3339_if_any<S: Serializer>(
    at: &(impl Into<Option<Timestamp>> + Copy),
    out: S,
) -> Result<S::Ok, S::Error> {
    (*at).into().map(rfc3339).serialize(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_tells_what_the_contract_names_and_no_hash() {
        let at: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a moment");
        let record = KeyRecord {
            id: "AbCdEfGhIjK1".parse().expect("an id"),
            name: "stove".to_owned(),
            role: Role::Kitchen,
            created_at: at,
            last_used_at: None,
            revoked_at: Some(at),
        };
        let shown = json!({"id": "AbCdEfGhIjK1", "name": "stove", "role": "kitchen",
            "created_at": "2026-01-02T03:04:05.000Z", "last_used_at": null, "revoked_at": "2026-01-02T03:04:05.000Z"});
        assert_eq!(serde_json::to_value(&record).expect("is JSON"), shown);
    }
}
