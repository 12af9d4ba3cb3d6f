//! The SQL of keys, and the rights that it takes. Their owner makes and revokes them; who serves reads them and notes
//! their use.

use async_trait::async_trait;
use sqlx::{Connection as _, FromRow, PgConnection, Row as _, postgres::PgRow};

use super::{
    super::{KeyStore, StoreError, odd_rows},
    PgStore, bounded, rights,
    rows::{moment, moment_if_any, parsed},
};
use crate::{
    keys::{KeyCreation, KeyId, KeyList, KeyRecord, KeyUse, MAX_LIVE_KEYS, StoredKey},
    order::Timestamp,
};

/// One maker of keys at a time, or two would each find room for the last one.
const MAKERS: i64 = 0x6b65_7973;

impl<'r> FromRow<'r, PgRow> for StoredKey {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let hash = odd_rows::key_hash(row.try_get("hash")?)?;
        let (id, name, role) = (parsed(row, "id")?, row.try_get("name")?, parsed(row, "role")?);
        Ok(Self { id, name, role, hash })
    }
}

impl<'r> FromRow<'r, PgRow> for KeyRecord {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            name: row.try_get("name")?,
            role: parsed(row, "role")?,
            created_at: moment(row, "created_at")?,
            last_used_at: moment_if_any(row, "last_used_at")?,
            revoked_at: moment_if_any(row, "revoked_at")?,
        })
    }
}

fn id_of(row: &PgRow) -> String {
    row.try_get("id").unwrap_or_default()
}

async fn live(db: &mut PgConnection) -> sqlx::Result<Vec<StoredKey>> {
    let rows = sqlx::query(
        "SELECT id, name, role, hash FROM api_keys WHERE revoked_at IS NULL ORDER BY created_at LIMIT $1",
    )
    .bind(i64::try_from(MAX_LIVE_KEYS).unwrap_or(i64::MAX))
    .fetch_all(db)
    .await?;
    Ok(odd_rows::readable_keys(&rows, id_of, |row| StoredKey::from_row(row)))
}

/// A replica whose clock is ahead notes no use that is still to come.
const NOTE: &str = "
    WITH used AS MATERIALIZED (
        SELECT u.id, date_trunc('minute', LEAST(u.at, COALESCE($3, clock_timestamp()))) AS at
        FROM unnest($1::text[], $2::timestamptz[]) AS u (id, at)
    ), held AS MATERIALIZED (
        SELECT k.id, u.at FROM api_keys AS k JOIN used AS u USING (id)
        ORDER BY k.id FOR NO KEY UPDATE OF k SKIP LOCKED
    ), noted AS (
        UPDATE api_keys AS k SET last_used_at = h.at FROM held AS h
        WHERE k.id = h.id AND (k.last_used_at IS NULL OR k.last_used_at < h.at)
    )
    SELECT k.id FROM api_keys AS k JOIN used USING (id) WHERE k.id NOT IN (SELECT id FROM held)";

async fn note_uses(
    db: &mut PgConnection,
    uses: &[KeyUse],
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<KeyId>> {
    let rows = sqlx::query(NOTE)
        .bind(uses.iter().map(|used| used.id.as_str()).collect::<Vec<_>>())
        .bind(uses.iter().map(|used| used.at).collect::<Vec<_>>())
        .bind(now)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| parsed(row, "id")).collect()
}

async fn list(db: &mut PgConnection) -> sqlx::Result<KeyList> {
    let rows = sqlx::query(
        "SELECT id, name, role, created_at, last_used_at, revoked_at FROM api_keys ORDER BY created_at, id",
    )
    .fetch_all(db)
    .await?;
    Ok(KeyList::of(&rows, id_of, |row| KeyRecord::from_row(row)))
}

async fn create(db: &mut PgConnection, key: &StoredKey, now: Option<Timestamp>) -> sqlx::Result<KeyCreation> {
    let mut tx = db.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MAKERS).execute(&mut *tx).await?;
    let (known, live): (bool, i64) = sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = $1 AND hash = $2),
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
        "INSERT INTO api_keys (id, name, role, hash, created_at)
         VALUES ($1, $2, $3, $4, COALESCE($5, date_trunc('milliseconds', clock_timestamp())))
         ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING",
    )
    .bind(key.id.as_str())
    .bind(&key.name)
    .bind(key.role.as_str())
    .bind(&key.hash.0[..])
    .bind(now)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(if written.rows_affected() == 0 { KeyCreation::NameTaken } else { KeyCreation::Created })
}

/// By id first; of a name the one that is good, else the one that was revoked last.
const REVOKE: &str = "
    UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $2, date_trunc('milliseconds', clock_timestamp()))
    WHERE id = (
        SELECT id FROM api_keys WHERE id = $1 OR name = $1
        ORDER BY id = $1 DESC, revoked_at IS NULL DESC, revoked_at DESC LIMIT 1)
    RETURNING id, name, role, created_at, last_used_at, revoked_at";

async fn revoke(
    db: &mut PgConnection,
    id_or_name: &str,
    now: Option<Timestamp>,
) -> sqlx::Result<Option<KeyRecord>> {
    sqlx::query_as(REVOKE).bind(id_or_name).bind(now).fetch_optional(db).await
}

impl PgStore {
    /// What the owner of the tables does.
    async fn as_owner<T>(
        &self,
        verb: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, StoreError> {
        let named = async |db: &mut PgConnection| rights::naming(db, rights::OF_KEEPING_KEYS, verb).await;
        bounded(&self.pools()?.loops, named).await?
    }

    /// What whoever serves does as well.
    async fn as_reader<T>(
        &self,
        verb: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, StoreError> {
        let named = async |db: &mut PgConnection| rights::naming(db, rights::OF_KEYS, verb).await;
        bounded(&self.pools()?.loops, named).await?
    }
}

#[async_trait]
impl KeyStore for PgStore {
    async fn live_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.as_reader(live).await
    }

    async fn note_uses(&self, uses: &[KeyUse]) -> Result<Vec<KeyId>, StoreError> {
        let now = self.now();
        self.as_reader(async |db| note_uses(db, uses, now).await).await
    }

    async fn list_keys(&self) -> Result<KeyList, StoreError> {
        self.as_reader(list).await
    }

    async fn create_key(&self, key: &StoredKey) -> Result<KeyCreation, StoreError> {
        let now = self.now();
        self.as_owner(async |db| create(db, key, now).await).await
    }

    async fn revoke_key(&self, id_or_name: &str) -> Result<Option<KeyRecord>, StoreError> {
        let now = self.now();
        self.as_owner(async |db| revoke(db, id_or_name, now).await).await
    }
}
