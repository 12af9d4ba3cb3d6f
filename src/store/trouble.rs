//! The one place that tells passing trouble of a database from what a retry won't mend.

use sqlx::{error::DatabaseError, postgres::PgDatabaseError};

use super::StoreError;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_transient(&error) {
            Self::Unavailable(error.to_string())
        } else {
            Self::Refused(error.to_string())
        }
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(refusal) => refusal_is_transient(&**refusal),
        // A server that is going away, or is another one after a failover, breaks the protocol too.
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::BeginFailed
        | sqlx::Error::InvalidSavePointStatement
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

fn refusal_is_transient(refusal: &dyn DatabaseError) -> bool {
    match (refusal.try_downcast_ref::<PgDatabaseError>(), refusal.code()) {
        (Some(refusal), _) => sqlstate_is_transient(refusal.code()),
        (None, Some(code)) => code.parse().is_ok_and(sqlite_code_is_transient),
        (None, None) => false,
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn sqlstate_is_transient(code: &str) -> bool {
    // Whole classes: connection, transaction rollback (serialization, deadlock), resources (disk,
    // memory, connections), operator intervention (shutdown, crash, timeout), system error.
    const CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
    // Read-only server (after a failover), idle timeouts, lock not available, login not yet possible.
    const CODES: [&str; 5] = ["25006", "25P03", "25P04", "55P03", "55000"];
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
}

/// BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL:
/// <https://www.sqlite.org/rescode.html>
fn sqlite_code_is_transient(extended: i32) -> bool {
    matches!(extended & 0xff, 5..=10 | 13..=15)
}

/// Whether the connections themselves are to blame, so that new ones are needed: after a failover
/// they lead to a server that only reads.
pub(super) fn leads_nowhere(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| code == "25006"))
}

/// Whether other connections may have broken with the one that told: all do when a server goes away.
pub(super) fn breaks_connections(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| code.starts_with("57P")),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        for transient in
            ["08006", "40001", "40P01", "53100", "53300", "57014", "57P01", "57P03", "25006", "55P03"]
        {
            assert!(sqlstate_is_transient(transient), "{transient}");
        }
        for wrong in ["23505", "42P01", "42501", "22021", "28P01", "3D000", "P0001"] {
            assert!(!sqlstate_is_transient(wrong), "{wrong}");
        }
        // SQLITE_BUSY_SNAPSHOT, SQLITE_FULL, SQLITE_IOERR_FSYNC; then CONSTRAINT_UNIQUE, CORRUPT.
        assert!([517, 13, 1034].into_iter().all(sqlite_code_is_transient));
        assert!(![2067, 11].into_iter().any(sqlite_code_is_transient));
    }
}
