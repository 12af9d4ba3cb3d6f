//! Keys in memory: as fresh as the last reading, and no older than two.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::start;
use crate::{
    keys::{ApiKey, AuthError, KeyCreation, KeyId, KeyList, KeyRecord, KeyRing, KeyUse, StoredKey},
    order::Role,
    pipeline::KeyReader,
    store::{
        KeyStore, StoreError,
        conformance::keys::drawn,
        memory::{Database, MemoryStore},
    },
    telemetry::{
        captured::Captured,
        health::{self, Health},
        metrics::Metrics,
    },
    time::ManualClock,
};

/// Replicas on one database, and a key.
struct Replicas {
    database: Arc<Mutex<Database>>,
    store: Arc<MemoryStore>,
    key: ApiKey,
    stored: StoredKey,
}

impl Replicas {
    async fn with_a_key() -> Self {
        let database: Arc<Mutex<Database>> = Arc::default();
        let clock = Arc::new(ManualClock::new(start()));
        let store = Arc::new(MemoryStore::new(Arc::clone(&database), clock, 1));
        let (key, stored) = drawn("till", Role::Shop);
        assert_eq!(store.create_key(&stored).await, Ok(KeyCreation::Created));
        Self { database, store, key, stored }
    }

    fn away(&self, away: bool) {
        self.database.lock().expect("no panic").away = away;
    }

    fn reader(&self) -> (KeyReader, Arc<KeyRing>) {
        let ring = Arc::<KeyRing>::default();
        (KeyReader::new(self.store.clone(), Arc::clone(&ring), Arc::new(Metrics::new())), ring)
    }

    fn proved(&self, ring: &KeyRing) -> Option<AuthError> {
        ring.authenticate(&self.key, start()).err()
    }

    async fn last_used(&self) -> Option<crate::order::Timestamp> {
        self.store.list_keys().await.expect("reads").keys[0].last_used_at
    }
}

/// Promise 9: who may not, can't. A key that is revoked ends on every replica with its next reading, and what was begun
/// with it, too.
#[tokio::test]
async fn a_revoked_key_ends_on_every_replica_with_its_next_reading() {
    let t = Replicas::with_a_key().await;
    let mut replicas = [t.reader(), t.reader()];
    for (reader, ring) in &mut replicas {
        assert_eq!(t.proved(ring), Some(AuthError::NotReadYet));
        assert_eq!(reader.step().await, Health::Up);
        assert_eq!(t.proved(ring), None);
    }
    let begun = replicas[1].1.authenticate(&t.key, start()).expect("is good");
    t.store.revoke_key("till").await.expect("revokes").expect("is there");
    let (other, other_stored) = drawn("till", Role::Shop);
    t.store.create_key(&other_stored).await.expect("creates");
    for (reader, ring) in &mut replicas {
        assert_eq!(reader.step().await, Health::Up);
        assert_eq!(t.proved(ring), Some(AuthError::Unknown));
        assert!(ring.authenticate(&other, start()).is_ok());
    }
    assert!(begun.revoked.is_cancelled());
}

/// Promise 6: it says what is wrong. Without the database what is known stays as it is, and is told once.
#[tokio::test]
async fn a_reading_that_fails_keeps_what_is_known_and_is_told_once() {
    let (log, _guard) = Captured::start();
    let t = Replicas::with_a_key().await;
    let (mut reader, ring) = t.reader();
    t.away(true);
    assert!(matches!(reader.step().await, Health::Down(_)));
    assert_eq!(t.proved(&ring), Some(AuthError::NotReadYet), "nobody is told that his key is not good");
    t.away(false);
    assert_eq!(reader.step().await, Health::Up);
    t.store.revoke_key("till").await.expect("revokes");
    t.away(true);
    for _ in 0..3 {
        let down = reader.step().await;
        assert_eq!(down, Health::Down("can't be read: the database is unavailable: away".to_owned()));
        assert_eq!(t.proved(&ring), None, "it is known");
    }
    t.away(false);
    reader.step().await;
    assert_eq!(t.proved(&ring), Some(AuthError::Unknown));
    let said = "the keys can't be read; those that are known stay as they are";
    assert_eq!(log.saying(said).len(), 2, "once for each series: {}", log.text());
    assert_eq!(log.saying("the keys are read again").len(), 2);
}

#[tokio::test]
async fn a_use_is_noted_once_a_minute() {
    let t = Replicas::with_a_key().await;
    let (mut reader, ring) = t.reader();
    reader.step().await;
    assert_eq!(t.last_used().await, None);
    t.proved(&ring);
    reader.step().await;
    assert_eq!(t.last_used().await, Some("2026-01-02T03:04:00Z".parse().expect("a moment")));
    assert_eq!(ring.uses(), []);
}

/// A database whose keys are read, and noted as `trouble` says.
struct Stiff {
    inner: Arc<MemoryStore>,
    /// Somebody holds every row.
    held: AtomicBool,
    /// The right to note is missing.
    shut: AtomicBool,
}

#[async_trait]
impl KeyStore for Stiff {
    async fn live_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.inner.live_keys().await
    }

    async fn note_uses(&self, uses: &[KeyUse]) -> Result<Vec<KeyId>, StoreError> {
        if self.shut.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("no right".to_owned()));
        }
        if self.held.load(Ordering::Relaxed) {
            return Ok(uses.iter().map(|used| used.id.clone()).collect());
        }
        self.inner.note_uses(uses).await
    }

    async fn list_keys(&self) -> Result<KeyList, StoreError> {
        self.inner.list_keys().await
    }

    async fn create_key(&self, key: &StoredKey) -> Result<KeyCreation, StoreError> {
        self.inner.create_key(key).await
    }

    async fn revoke_key(&self, id_or_name: &str) -> Result<Option<KeyRecord>, StoreError> {
        self.inner.revoke_key(id_or_name).await
    }
}

/// What can't be noted is noted later, and keeps no key from being read.
#[tokio::test]
async fn a_use_that_can_not_be_noted_is_noted_later() {
    let (log, _guard) = Captured::start();
    let t = Replicas::with_a_key().await;
    let stiff = Arc::new(Stiff { inner: t.store.clone(), held: true.into(), shut: false.into() });
    let ring = Arc::<KeyRing>::default();
    let mut reader = KeyReader::new(stiff.clone(), Arc::clone(&ring), Arc::new(Metrics::new()));
    reader.step().await;
    t.proved(&ring);
    assert_eq!(reader.step().await, Health::Up, "somebody holds the row");
    assert_eq!(ring.uses().len(), 1);
    stiff.shut.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let Health::Degraded(issues) = reader.step().await else { panic!("is told") };
        assert!(issues.to_string().contains("no right"), "{issues}");
    }
    assert_eq!(log.saying("when keys were last used can't be noted").len(), 1);
    stiff.shut.store(false, Ordering::Relaxed);
    stiff.held.store(false, Ordering::Relaxed);
    assert_eq!(reader.step().await, Health::Up);
    assert!(t.last_used().await.is_some() && ring.uses().is_empty());
    assert_eq!(t.stored.name, "till");
}

/// Promise 9: who may not, can't. In time: at once after the start, every two seconds, and soon after trouble.
#[tokio::test(start_paused = true)]
async fn the_loop_reads_in_time_and_notes_before_it_ends() {
    let t = Replicas::with_a_key().await;
    let (reader, ring) = t.reader();
    let ((health, mut watcher), stop) = (health::channel(), CancellationToken::new());
    t.away(true);
    let running = tokio::spawn(reader.run(stop.clone(), health));
    watcher.wait_for(|now| matches!(now, Health::Down(_))).await.expect("it lives");
    sleep(Duration::from_mins(1)).await;
    t.away(false);
    let mended = Instant::now();
    watcher.wait_for(|now| *now == Health::Up).await.expect("it lives");
    assert!(mended.elapsed() <= Duration::from_secs(1), "{:?}", mended.elapsed());
    assert_eq!(t.proved(&ring), None);
    t.store.revoke_key("till").await.expect("revokes");
    let begun = ring.authenticate(&t.key, start()).expect("is known");
    let revoked = Instant::now();
    begun.revoked.cancelled().await;
    assert!(revoked.elapsed() <= Duration::from_secs(2), "{:?}", revoked.elapsed());
    let (key, stored) = drawn("site", Role::Shop);
    t.store.create_key(&stored).await.expect("creates");
    sleep(Duration::from_secs(3)).await;
    ring.authenticate(&key, start()).expect("is good");
    stop.cancel();
    running.await.expect("it ends");
    let listed = t.store.list_keys().await.expect("reads").keys;
    let used = listed.iter().find(|key| key.name == "site").and_then(|key| key.last_used_at);
    assert!(used.is_some(), "{listed:?}");
}
