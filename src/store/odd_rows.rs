//! Rows that somebody has made unreadable by hand: each is its own trouble, and hides no other.

use std::{collections::BTreeSet, sync::Mutex};

use tracing::warn;

use crate::keys::KeyHash;

/// How many unreadable rows are named in the log.
const NAMED: usize = 100;

/// The log, in which each is named once.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static KEYS_TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Leaves out rows that can't be read; `order_id` answers whose row it is, as it is written.
pub(super) fn readable<R, T>(
    rows: &[R],
    order_id: impl Fn(&R) -> String,
    decode: impl Fn(&R) -> sqlx::Result<T>,
) -> Vec<T> {
    let tell = |row: &R, error: &sqlx::Error| tell(&order_id(row), error);
    rows.iter().filter_map(|row| decode(row).inspect_err(|error| tell(row, error)).ok()).collect()
}

/// The same of keys.
pub(super) fn readable_keys<R, T>(
    rows: &[R],
    id: impl Fn(&R) -> String,
    decode: impl Fn(&R) -> sqlx::Result<T>,
) -> Vec<T> {
    let tell = |row: &R, error: &sqlx::Error| {
        let id = id(row);
        if is_news(&KEYS_TOLD, &id) {
            warn!(id, %error, "a stored key can't be read and is good for nothing; `keys revoke` ends it");
        }
    };
    rows.iter().filter_map(|row| decode(row).inspect_err(|error| tell(row, error)).ok()).collect()
}

/// The hash in a row; an error if it has another length.
pub(super) fn key_hash(bytes: &[u8]) -> sqlx::Result<KeyHash> {
    let hash = bytes
        .try_into()
        .map_err(|source| sqlx::Error::ColumnDecode { index: "hash".to_owned(), source: Box::new(source) })?;
    Ok(KeyHash(hash))
}

fn tell(order_id: &str, error: &sqlx::Error) {
    if is_news(&TOLD, order_id) {
        warn!(order_id, %error, "a stored order can't be read and is left out; `verify` finds all of them");
    }
}

/// Whether it was not told yet, and may be.
fn is_news(told: &Mutex<BTreeSet<String>>, id: &str) -> bool {
    let mut told = told.lock().expect("no holder panics");
    told.len() < NAMED && told.insert(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::captured::Captured;

    /// However often they are read: keys are, every two seconds.
    #[test]
    fn an_odd_row_is_told_once() {
        let (log, _guard) = Captured::start();
        let read = |rows: &[(&str, bool)]| {
            let decode = |row: &(&str, bool)| row.1.then_some(row.0.len()).ok_or(sqlx::Error::RowNotFound);
            readable_keys(rows, |row| row.0.to_owned(), decode)
        };
        for _ in 0..3 {
            assert_eq!(
                read(&[("a", true), ("odd key 1", false), ("bcd", true), ("odd key 2", false)]),
                [1, 3]
            );
        }
        let told = log.saying("a stored key can't be read and is good for nothing; `keys revoke` ends it");
        let ids: Vec<_> = told.iter().map(|line| line["id"].clone()).collect();
        assert_eq!(ids, ["odd key 1", "odd key 2"]);
    }
}
