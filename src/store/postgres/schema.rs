//! Brings the schema up to date, or finds that somebody with the right to has done so.

use sqlx::{
    PgConnection,
    migrate::{MigrateError, Migrator},
};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Runs what is missing. The migrator holds an advisory lock, so replicas take turns.
pub(super) async fn bring_up_to_date(db: &mut PgConnection) -> Result<(), MigrateError> {
    MIGRATIONS.run_direct(None, db, false).await
}

/// Whether nothing is missing: the serving role of a two-role setup may look, but not create.
pub(super) async fn is_up_to_date(db: &mut PgConnection) -> sqlx::Result<bool> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *db).await?;
    if !exists {
        return Ok(false);
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success").fetch_all(db).await?;
    let is_applied = |version, checksum: &[u8]| {
        applied.iter().any(|(found, sum)| *found == version && sum.as_slice() == checksum)
    };
    Ok(MIGRATIONS.iter().all(|migration| is_applied(migration.version, &migration.checksum)))
}
