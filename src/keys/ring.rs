//! The keys that are good just now, all in memory: to prove one costs no query.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::DateTime;
use tokio_util::sync::CancellationToken;

use super::{ApiKey, KeyHash, KeyId};
use crate::order::{Role, Timestamp};

/// A key that is not revoked, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// What programs call it.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// What it is known by.
    pub hash: KeyHash,
}

/// When a key was last used, to the minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// Which key.
    pub id: KeyId,
    /// The minute's beginning.
    pub at: Timestamp,
}

/// A key that is good, for as long as `revoked` is not cancelled.
#[derive(Debug)]
pub struct LiveKey {
    /// As it is stored.
    pub stored: StoredKey,
    /// Cancelled once it is not good any more: what was begun with it ends.
    pub revoked: CancellationToken,
    /// Minutes since 1970, of the last use and of the last that is stored.
    used: AtomicI64,
    noted: AtomicI64,
}

/// Why nobody can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// No such key is good.
    Unknown,
    /// The keys could not be read yet.
    NotReadYet,
}

/// All keys that are good.
#[derive(Debug, Default)]
pub struct KeyRing {
    live: RwLock<Option<Arc<Index>>>,
}

#[derive(Debug, Default)]
struct Index {
    // By hash, so that how long a look takes says nothing of keys that are near.
    by_hash: HashMap<KeyHash, Arc<LiveKey>>,
    by_id: HashMap<KeyId, Arc<LiveKey>>,
}

impl KeyRing {
    fn live(&self) -> Option<Arc<Index>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key that this is, used now.
    pub fn authenticate(&self, key: &ApiKey, now: Timestamp) -> Result<Arc<LiveKey>, AuthError> {
        let hash = key.hash();
        // Inside of the lock: a count that all cores share would cost more than the look.
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let key = live.as_ref().ok_or(AuthError::NotReadYet)?.by_hash.get(&hash).ok_or(AuthError::Unknown)?;
        key.used_at(now);
        Ok(Arc::clone(key))
    }

    /// The key with this id, which proves nothing.
    pub fn named(&self, id: &KeyId) -> Result<Arc<LiveKey>, AuthError> {
        let live = self.live().ok_or(AuthError::NotReadYet)?;
        live.by_id.get(id).map(Arc::clone).ok_or(AuthError::Unknown)
    }

    /// Whether the keys were read at all.
    pub fn is_read(&self) -> bool {
        self.live().is_some()
    }

    /// From here on these are good, and no others.
    pub fn replace(&self, keys: Vec<StoredKey>) {
        let old = self.live().unwrap_or_default();
        let mut new = Index::default();
        for stored in keys {
            let same = old.by_id.get(&stored.id).filter(|key| key.stored == stored);
            let key = same.map_or_else(|| Arc::new(LiveKey::new(stored)), Arc::clone);
            new.by_hash.insert(key.stored.hash, Arc::clone(&key));
            new.by_id.insert(key.stored.id.clone(), key);
        }
        let stays =
            |key: &Arc<LiveKey>| new.by_id.get(&key.stored.id).is_some_and(|other| Arc::ptr_eq(key, other));
        let gone: Vec<Arc<LiveKey>> = old.by_id.values().filter(|key| !stays(key)).map(Arc::clone).collect();
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(new));
        for key in gone {
            key.revoked.cancel();
        }
    }

    /// The uses that are not stored yet.
    pub fn uses(&self) -> Vec<KeyUse> {
        let live = self.live().unwrap_or_default();
        live.by_id.values().filter_map(|key| key.unnoted()).collect()
    }

    /// These are stored.
    pub fn noted(&self, uses: &[KeyUse]) {
        let live = self.live().unwrap_or_default();
        for KeyUse { id, at } in uses {
            if let Some(key) = live.by_id.get(id) {
                key.noted.fetch_max(at.timestamp() / 60, Ordering::Relaxed);
            }
        }
    }
}

impl LiveKey {
    fn new(stored: StoredKey) -> Self {
        Self { stored, revoked: CancellationToken::new(), used: AtomicI64::new(0), noted: AtomicI64::new(0) }
    }

    pub(super) fn used_at(&self, now: Timestamp) {
        let minute = now.timestamp() / 60;
        // A write that all cores share only once a minute.
        if self.used.load(Ordering::Relaxed) < minute {
            self.used.fetch_max(minute, Ordering::Relaxed);
        }
    }

    fn unnoted(&self) -> Option<KeyUse> {
        let used = self.used.load(Ordering::Relaxed);
        let at = DateTime::from_timestamp(used * 60, 0).filter(|_| used > self.noted.load(Ordering::Relaxed));
        Some(KeyUse { id: self.stored.id.clone(), at: at? })
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn drawn(seed: u64, name: &str) -> (ApiKey, StoredKey) {
        let random = &mut StdRng::seed_from_u64(seed);
        let (key, id) = (ApiKey::random(random), KeyId::random(random));
        let stored = StoredKey { id, name: name.to_owned(), role: Role::Kitchen, hash: key.hash() };
        (key, stored)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    #[test]
    fn a_key_is_good_until_it_is_revoked() {
        let (ring, now) = (KeyRing::default(), at("2026-01-02T03:04:05Z"));
        let ((key, stored), (other, other_stored)) = (drawn(1, "stove"), drawn(2, "bar"));
        assert_eq!(ring.authenticate(&key, now).err(), Some(AuthError::NotReadYet));
        ring.replace(vec![stored.clone()]);
        let live = ring.authenticate(&key, now).expect("is good");
        assert_eq!(live.stored, stored);
        assert_eq!(ring.authenticate(&other, now).err(), Some(AuthError::Unknown));
        ring.replace(vec![stored.clone(), other_stored]);
        assert!(Arc::ptr_eq(&live, &ring.named(&stored.id).expect("is good")), "it stays the same");
        assert!(!live.revoked.is_cancelled());
        ring.replace(Vec::new());
        assert!(live.revoked.is_cancelled());
        assert_eq!(ring.authenticate(&key, now).err(), Some(AuthError::Unknown));
        assert_eq!(ring.named(&stored.id).err(), Some(AuthError::Unknown));
    }

    #[test]
    fn a_use_is_told_once_a_minute() {
        let ring = KeyRing::default();
        let (key, stored) = drawn(1, "stove");
        ring.replace(vec![stored.clone()]);
        assert_eq!(ring.uses(), []);
        let use_at = |text| KeyUse { id: stored.id.clone(), at: at(text) };
        ring.authenticate(&key, at("2026-01-02T03:04:05Z")).expect("is good");
        let uses = ring.uses();
        assert_eq!(uses, [use_at("2026-01-02T03:04:00Z")]);
        assert_eq!(ring.uses(), uses, "until it is stored");
        ring.noted(&uses);
        ring.authenticate(&key, at("2026-01-02T03:04:59Z")).expect("is good");
        assert_eq!(ring.uses(), []);
        ring.authenticate(&key, at("2026-01-02T03:05:00Z")).expect("is good");
        ring.authenticate(&key, at("2026-01-02T03:04:00Z")).expect("is good");
        assert_eq!(ring.uses(), [use_at("2026-01-02T03:05:00Z")], "it never goes back");
    }
}
