//! The SQL of keys.

use async_trait::async_trait;
use sqlx::{FromRow, Row as _, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{
    super::{KeyStore, StoreError, odd_rows},
    SqliteStore,
    rows::{json, moment, moment_if_any, parsed, written},
};
use crate::{
    keys::{KeyCreation, KeyId, KeyList, KeyRecord, KeyUse, MAX_LIVE_KEYS, StoredKey},
    order::Timestamp,
};

const MINUTE: i64 = 60_000;

impl<'r> FromRow<'r, SqliteRow> for StoredKey {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        let hash = odd_rows::key_hash(row.try_get("hash")?)?;
        let (id, name, role) = (parsed(row, "id")?, written(row, "name")?, parsed(row, "role")?);
        Ok(Self { id, name, role, hash })
    }
}

impl<'r> FromRow<'r, SqliteRow> for KeyRecord {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            name: written(row, "name")?,
            role: parsed(row, "role")?,
            created_at: moment(row, "created_at")?,
            last_used_at: moment_if_any(row, "last_used_at")?,
            revoked_at: moment_if_any(row, "revoked_at")?,
        })
    }
}

fn id_of(row: &SqliteRow) -> String {
    row.try_get("id").unwrap_or_default()
}

async fn live(read: &SqlitePool) -> Result<Vec<StoredKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, name, role, hash FROM api_keys WHERE revoked_at IS NULL ORDER BY created_at LIMIT ?1",
    )
    .bind(i64::try_from(MAX_LIVE_KEYS).unwrap_or(i64::MAX))
    .fetch_all(read)
    .await?;
    Ok(odd_rows::readable_keys(&rows, id_of, |row| StoredKey::from_row(row)))
}

/// One statement, so one transaction.
async fn note_uses(write: &SqlitePool, uses: &[KeyUse], now: Timestamp) -> Result<(), StoreError> {
    let now = now.timestamp_millis();
    let uses: Vec<(&str, i64)> = uses
        .iter()
        .map(|used| {
            let at = used.at.timestamp_millis().min(now);
            (used.id.as_str(), at - at.rem_euclid(MINUTE))
        })
        .collect();
    sqlx::query(
        "UPDATE api_keys SET last_used_at = used.value ->> 1 FROM json_each(?1) AS used
         WHERE api_keys.id = used.value ->> 0
             AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at < used.value ->> 1)",
    )
    .bind(json(&uses)?)
    .execute(write)
    .await?;
    Ok(())
}

async fn list(read: &SqlitePool) -> Result<KeyList, StoreError> {
    let rows = sqlx::query(
        "SELECT id, name, role, created_at, last_used_at, revoked_at FROM api_keys ORDER BY created_at, id",
    )
    .fetch_all(read)
    .await?;
    Ok(KeyList::of(&rows, id_of, |row| KeyRecord::from_row(row)))
}

async fn create(
    tx: &mut SqliteConnection,
    key: &StoredKey,
    now: Timestamp,
) -> Result<KeyCreation, StoreError> {
    let (known, live): (bool, i64) = sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = ?1 AND hash = ?2),
             (SELECT count(*) FROM api_keys WHERE revoked_at IS NULL)",
    )
    .bind(key.id.as_str())
    .bind(&key.hash.0[..])
    .fetch_one(&mut *tx)
    .await?;
    if known {
        return Ok(KeyCreation::Created);
    }
    if live.unsigned_abs() >= MAX_LIVE_KEYS as u64 {
        return Ok(KeyCreation::TooMany);
    }
    let written = sqlx::query(
        "INSERT INTO api_keys (id, name, role, hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING",
    )
    .bind(key.id.as_str())
    .bind(&key.name)
    .bind(key.role.as_str())
    .bind(&key.hash.0[..])
    .bind(now.timestamp_millis())
    .execute(tx)
    .await?;
    Ok(if written.rows_affected() == 0 { KeyCreation::NameTaken } else { KeyCreation::Created })
}

/// By id first; of a name the one that is good, else the one that was revoked last.
const REVOKE: &str = "
    UPDATE api_keys SET revoked_at = COALESCE(revoked_at, ?2)
    WHERE id = (
        SELECT id FROM api_keys WHERE id = ?1 OR name = ?1
        ORDER BY id = ?1 DESC, revoked_at IS NULL DESC, revoked_at DESC LIMIT 1)
    RETURNING id, name, role, created_at, last_used_at, revoked_at";

async fn revoke(
    write: &SqlitePool,
    id_or_name: &str,
    now: Timestamp,
) -> Result<Option<KeyRecord>, StoreError> {
    let rows = sqlx::query(REVOKE).bind(id_or_name).bind(now.timestamp_millis()).fetch_all(write).await?;
    Ok(rows.first().map(KeyRecord::from_row).transpose()?)
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn live_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        live(&self.read).await
    }

    async fn note_uses(&self, uses: &[KeyUse]) -> Result<Vec<KeyId>, StoreError> {
        note_uses(&self.write, uses, self.clock.now()).await.map(|()| Vec::new())
    }

    async fn list_keys(&self) -> Result<KeyList, StoreError> {
        list(&self.read).await
    }

    async fn create_key(&self, key: &StoredKey) -> Result<KeyCreation, StoreError> {
        let mut tx = self.begin().await?;
        let created = create(&mut tx, key, self.clock.now()).await?;
        tx.commit().await?;
        Ok(created)
    }

    async fn revoke_key(&self, id_or_name: &str) -> Result<Option<KeyRecord>, StoreError> {
        revoke(&self.write, id_or_name, self.clock.now()).await
    }
}
