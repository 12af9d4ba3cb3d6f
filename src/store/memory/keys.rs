//! The keys of the model.

use async_trait::async_trait;
use chrono::DurationRound as _;

use super::{
    super::{KeyStore, StoreError},
    MemoryStore,
};
use crate::keys::{KeyCreation, KeyId, KeyList, KeyRecord, KeyUse, MAX_LIVE_KEYS, StoredKey};

const MINUTE: chrono::TimeDelta = chrono::TimeDelta::minutes(1);

#[async_trait]
impl KeyStore for MemoryStore {
    async fn live_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let (database, _) = self.lock();
        let keys = database.reached()?.api_keys.values();
        let live = keys.filter(|(_, record)| record.revoked_at.is_none());
        Ok(live.take(MAX_LIVE_KEYS).map(|(stored, _)| stored.clone()).collect())
    }

    async fn note_uses(&self, uses: &[KeyUse]) -> Result<Vec<KeyId>, StoreError> {
        let (mut database, now) = self.lock();
        database.reached()?;
        for KeyUse { id, at } in uses {
            if let Some((_, record)) = database.api_keys.get_mut(id) {
                let at = (*at).min(now).duration_trunc(MINUTE).expect("within the years that count");
                record.last_used_at = record.last_used_at.max(Some(at));
            }
        }
        Ok(Vec::new())
    }

    async fn list_keys(&self) -> Result<KeyList, StoreError> {
        let (database, _) = self.lock();
        let mut keys: Vec<KeyRecord> =
            database.reached()?.api_keys.values().map(|(_, record)| record.clone()).collect();
        keys.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        Ok(KeyList { keys, unreadable: Vec::new() })
    }

    async fn create_key(&self, key: &StoredKey) -> Result<KeyCreation, StoreError> {
        let (mut database, created_at) = self.lock();
        if database.reached()?.api_keys.contains_key(&key.id) {
            return Ok(KeyCreation::Created);
        }
        let live = || database.api_keys.values().filter(|(_, record)| record.revoked_at.is_none());
        if live().count() >= MAX_LIVE_KEYS {
            return Ok(KeyCreation::TooMany);
        }
        if live().any(|(_, record)| record.name == key.name) {
            return Ok(KeyCreation::NameTaken);
        }
        let StoredKey { id, name, role, .. } = key.clone();
        let record = KeyRecord { id, name, role, created_at, last_used_at: None, revoked_at: None };
        database.api_keys.insert(key.id.clone(), (key.clone(), record));
        Ok(KeyCreation::Created)
    }

    async fn revoke_key(&self, id_or_name: &str) -> Result<Option<KeyRecord>, StoreError> {
        let (mut database, now) = self.lock();
        database.reached()?;
        let records = database.api_keys.values_mut().map(|(_, record)| record);
        let named = records.filter(|key| key.id.as_str() == id_or_name || key.name == id_or_name);
        let rank =
            |key: &&mut KeyRecord| (key.id.as_str() == id_or_name, key.revoked_at.is_none(), key.revoked_at);
        let Some(key) = named.max_by_key(rank) else { return Ok(None) };
        key.revoked_at = key.revoked_at.or(Some(now));
        Ok(Some(key.clone()))
    }
}
