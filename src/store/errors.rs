//! The one place that tells trouble of a database from the fault of a row.

use std::borrow::Cow;

use sqlx::postgres::PgDatabaseError;

use super::StoreError;

pub(super) use crate::time::deadlines::STATEMENT as STATEMENT_TIMEOUT;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = told(&error);
        match blame(&error) {
            Blame::Database => Self::Unavailable(text),
            Blame::Time => Self::Timeout(STATEMENT_TIMEOUT),
            Blame::Set => Self::Failed(text),
            Blame::Row => Self::Refused(text),
        }
    }
}

/// What the database says, without the driver's words around it.
fn told(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(refusal) => match refusal.code() {
            Some(code) => format!("{} ({code})", refusal.message()),
            None => refusal.message().to_owned(),
        },
        error => error.to_string(),
    }
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The database's, its network's or its operator's: it waits.
    Database,
    /// Too much at once, or somebody holds a lock.
    Time,
    /// Nobody's for sure; without one of its members the set may go.
    Set,
    /// The row's: it can't be written as it is.
    Row,
}

fn blame(error: &sqlx::Error) -> Blame {
    match error {
        sqlx::Error::Database(refusal) => {
            match (refusal.try_downcast_ref::<PgDatabaseError>(), refusal.code()) {
                (Some(refusal), _) => blame_of_sqlstate(refusal.code(), refusal.constraint()),
                (None, Some(code)) => code.parse().map_or(Blame::Database, blame_of_sqlite_code),
                (None, None) => Blame::Database,
            }
        }
        // A stored value that is not ours: whoever asks for others gets his answer.
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Blame::Set,
        _ => Blame::Database,
    }
}

/// Constraints of ours that what is in one row can break.
const OURS: [&str; 10] = [
    "orders_size_check",
    "orders_status_check",
    "orders_seq_check",
    "orders_due_at_check",
    "orders_moments_are_finite",
    "order_events_event_check",
    "order_events_seq_check",
    "order_events_timestamp_is_finite",
    "order_events_order_id_seq_key",
    "outbox_created_at_is_finite",
];

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>: only what is wrong with the data (22),
/// breaks a constraint of ours (23) or exceeds a limit of the program (54) is said of a row.
fn blame_of_sqlstate(code: &str, constraint: Option<&str>) -> Blame {
    match (code, constraint) {
        // Canceled by the statement timeout; lock not available.
        ("57014" | "55P03", _) => Blame::Time,
        // A character that the database's encoding has not: every order may have one. A sequence at its end. A
        // column that somebody has added. A sequence that lags behind, as after a restore.
        ("22P05" | "2200H" | "23502", _) | ("23505", Some("order_events_pkey")) => Blame::Database,
        (_, Some(name)) if code.starts_with("23") && OURS.contains(&name) => Blame::Row,
        _ if ["22", "54"].iter().any(|class| code.starts_with(class)) => Blame::Row,
        // Somebody's constraint, or a partition that is missing; raised by somebody's trigger; a damaged page, an
        // internal error.
        _ if ["23", "P0", "XX", "38", "39"].iter().any(|class| code.starts_with(class)) => Blame::Set,
        _ => Blame::Database,
    }
}

/// TOOBIG, MISMATCH and a broken CHECK or UNIQUE are the row's; CORRUPT, what a trigger raises and other
/// constraints may be, but for a column that somebody has added: <https://www.sqlite.org/rescode.html>
fn blame_of_sqlite_code(extended: i32) -> Blame {
    match (extended, extended & 0xff) {
        (1299, _) => Blame::Database,
        (275 | 2067, _) | (_, 18 | 20) => Blame::Row,
        (_, 11 | 19) => Blame::Set,
        _ => Blame::Database,
    }
}

/// Whether the connections themselves are to blame, so that new ones are needed: after a failover
/// they lead to a server that only reads.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| code == "25006"))
}

/// Whether a statement that stood alone has failed and nothing else: its session can make the next one.
pub(super) fn leaves_session(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(_)) && blame(error) != Blame::Database
}

/// Whether other connections may have broken with the one that told: all do when a server goes away, and all
/// have statements prepared that no longer fit when a table was changed or a pooler lies between.
pub(super) fn invalidates_pool(error: &sqlx::Error) -> bool {
    let told = |code: &str| {
        code.starts_with("57P") || code.starts_with("08") || ["0A000", "26000", "42P05"].contains(&code)
    };
    match error {
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| told(&code)),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => false,
        _ => true,
    }
}

/// The SQLSTATE by which what was found before the first call may not hold any more: the schema, a right, the encoding, that
/// a session is ours alone, or that this is the server that writes.
pub(super) fn questions_preconditions(error: &sqlx::Error) -> Option<String> {
    let explained =
        ["42P01", "42703", "42883", "42704", "3F000", "3D000", "42501", "26000", "42P05", "22P05", "25006"];
    let sqlx::Error::Database(refusal) = error else { return None };
    refusal.code().filter(|code| explained.contains(&&**code)).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_is_the_fault_of_a_row() {
        let blame = |code| blame_of_sqlstate(code, None);
        for code in ["22021", "22001", "54000"] {
            assert_eq!(blame(code), Blame::Row, "{code}");
        }
        for name in OURS {
            assert_eq!(blame_of_sqlstate("23514", Some(name)), Blame::Row, "{name}");
        }
        // A lagging sequence; others' constraints, and a partition that is missing.
        assert_eq!(blame_of_sqlstate("23505", Some("order_events_pkey")), Blame::Database);
        assert_eq!(blame_of_sqlstate("23514", Some("theirs")), Blame::Set);
        assert_eq!(["23514", "23503"].map(blame), [Blame::Set; 2]);
        // A login refused, a database renamed, a grant revoked, a table gone, and what passes by itself.
        for code in [
            "28000", "28P01", "3D000", "42501", "42P01", "08006", "40001", "40P01", "53100", "53300",
            "57P01", "57P03", "25006", "0A000", "22P05", "2200H", "23502",
        ] {
            assert_eq!(blame(code), Blame::Database, "{code}");
        }
        assert_eq!(["57014", "55P03"].map(blame), [Blame::Time; 2]);
        assert_eq!(["P0001", "XX001"].map(blame), [Blame::Set; 2]);
        // SQLITE_BUSY_SNAPSHOT, SQLITE_FULL, SQLITE_IOERR_FSYNC; CONSTRAINT_NOTNULL; then _UNIQUE, _TRIGGER and CORRUPT.
        assert!([517, 13, 1034, 1299].into_iter().all(|code| blame_of_sqlite_code(code) == Blame::Database));
        assert_eq!([2067, 1811, 11].map(blame_of_sqlite_code), [Blame::Row, Blame::Set, Blame::Set]);
    }
}
