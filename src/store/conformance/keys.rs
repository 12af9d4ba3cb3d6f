//! Keys: made once, good until they are revoked.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;

use super::{Fixture, seconds, start};
use crate::{
    keys::{ApiKey, KeyCreation, KeyId, KeyList, KeyRecord, KeyUse, MAX_LIVE_KEYS, StoredKey},
    order::{Role, Timestamp},
    time::Clock as _,
};

/// A new key.
pub(crate) fn drawn(name: &str, role: Role) -> (ApiKey, StoredKey) {
    let random = &mut rand::rng();
    let (key, id) = (ApiKey::random(random), KeyId::random(random));
    let stored = StoredKey { id, name: name.to_owned(), role, hash: key.hash() };
    (key, stored)
}

fn record(key: &StoredKey, created_at: Timestamp) -> KeyRecord {
    let StoredKey { id, name, role, .. } = key.clone();
    KeyRecord { id, name, role, created_at, last_used_at: None, revoked_at: None }
}

impl Fixture {
    async fn create(&self, name: &str, role: Role) -> StoredKey {
        let (_, key) = drawn(name, role);
        assert_eq!(self.store.create_key(&key).await, Ok(KeyCreation::Created), "{name}");
        key
    }

    /// By name.
    async fn live(&self) -> Vec<StoredKey> {
        let mut live = self.replica.live_keys().await.expect("reads");
        live.sort_by(|one, other| one.name.cmp(&other.name));
        live
    }

    async fn listed(&self) -> Vec<KeyRecord> {
        let KeyList { keys, unreadable } = self.replica.list_keys().await.expect("reads");
        assert_eq!(unreadable, Vec::<String>::new());
        keys
    }
}

/// Promise 9: who may not, can't.
pub(crate) async fn a_key_is_good_until_it_is_revoked(t: Fixture) {
    assert_eq!((t.live().await, t.listed().await), (vec![], vec![]));
    let mut keys = Vec::new();
    for (role, name) in Role::ALL.into_iter().zip(["a", "b \"'ü", "c", "d", "e", "f"]) {
        keys.push(t.create(name, role).await);
        t.clock.advance(seconds(1));
    }
    assert_eq!(t.live().await, keys);
    let mut records: Vec<KeyRecord> =
        (0..).zip(&keys).map(|(n, key)| record(key, start() + seconds(n))).collect();
    assert_eq!(t.listed().await, records, "oldest first");

    let now = Some(t.clock.now());
    (records[0].revoked_at, records[1].revoked_at) = (now, now);
    assert_eq!(t.store.revoke_key(keys[0].id.as_str()).await, Ok(Some(records[0].clone())));
    assert_eq!(t.store.revoke_key("b \"'ü").await, Ok(Some(records[1].clone())));
    assert_eq!(t.live().await, keys[2..]);
    t.clock.advance(seconds(1));
    for again in [keys[0].id.as_str(), "a", "b \"'ü"] {
        let found = t.store.revoke_key(again).await.expect("looks").expect("is there");
        assert!(records[..2].contains(&found), "{again}: {found:?}");
    }
    for none in ["", "A", "g", "000000000000"] {
        assert_eq!(t.store.revoke_key(none).await, Ok(None), "{none}");
    }
    assert_eq!(t.listed().await, records);
}

/// What is good is called by one name; an id comes before a name.
pub(crate) async fn a_name_is_of_one_good_key(t: Fixture) {
    let first = t.create("till", Role::Shop).await;
    let (_, second) = drawn("till", Role::Staff);
    assert_eq!(t.store.create_key(&second).await, Ok(KeyCreation::NameTaken));
    assert_eq!(t.store.create_key(&first).await, Ok(KeyCreation::Created), "the answer was lost");
    assert_eq!(t.live().await, std::slice::from_ref(&first));
    t.store.revoke_key("till").await.expect("revokes");
    t.clock.advance(seconds(1));
    assert_eq!(t.store.create_key(&second).await, Ok(KeyCreation::Created));
    t.clock.advance(seconds(1));
    let like_an_id = t.create(second.id.as_str(), Role::Reader).await;
    let revoked = t.store.revoke_key(second.id.as_str()).await.expect("revokes").expect("is there");
    assert_eq!(revoked.id, second.id);
    assert_eq!(t.live().await, [like_an_id]);
    let ids: Vec<KeyId> = t.listed().await.into_iter().map(|key| key.id).collect();
    assert_eq!(ids[..2], [first.id, second.id]);
    let again = t.store.revoke_key("till").await.expect("looks").expect("is there");
    assert_eq!(again.id, ids[1], "the one that was revoked last");
}

pub(crate) async fn racing_makers_make_one_key_of_a_name(t: Fixture) {
    let keys: Vec<StoredKey> = (0..8).map(|_| drawn("till", Role::Shop).1).collect();
    let stores = [&t.store, &t.replica].into_iter().cycle();
    let makers = keys.iter().zip(stores).map(|(key, store)| {
        let store = Arc::clone(store);
        async move { store.create_key(key).await.expect("answers") }
    });
    let made = join_all(makers).await;
    assert_eq!(made.iter().filter(|made| **made == KeyCreation::Created).count(), 1, "{made:?}");
    assert_eq!(made.iter().filter(|made| **made == KeyCreation::NameTaken).count(), 7, "{made:?}");
    assert_eq!(t.live().await.len(), 1);
}

/// To the minute, by the database's clock, and never back.
pub(crate) async fn uses_are_noted_and_never_go_back(t: Fixture) {
    let keys = [t.create("a", Role::Shop).await, t.create("b", Role::Shop).await];
    let at = |text: &str| -> Timestamp { text.parse().expect("a moment") };
    let of = |key: &StoredKey, when| KeyUse { id: key.id.clone(), at: at(when) };
    let noted = async || {
        let mut listed = t.listed().await;
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        listed.into_iter().map(|key| key.last_used_at).collect::<Vec<_>>()
    };
    t.store.note_uses(&[]).await.expect("nothing is valid");
    let unknown = drawn("nobody", Role::Shop).1;
    let uses = [
        of(&keys[1], "2026-01-02T03:03:00Z"),
        of(&unknown, "2026-01-02T03:03:00Z"),
        of(&keys[0], "2026-01-02T03:02:00Z"),
    ];
    assert_eq!(t.store.note_uses(&uses).await, Ok(Vec::new()));
    let [first, second] = [at("2026-01-02T03:02:00Z"), at("2026-01-02T03:03:00Z")];
    assert_eq!(noted().await, [Some(first), Some(second)]);
    // One from a slow replica, one from a replica whose clock is an hour ahead.
    let uses = [of(&keys[1], "2026-01-02T03:00:00Z"), of(&keys[0], "2026-01-02T04:04:00Z")];
    assert_eq!(t.replica.note_uses(&uses).await, Ok(Vec::new()));
    assert_eq!(noted().await, [Some(at("2026-01-02T03:04:00Z")), Some(second)]);
    t.clock.advance(Duration::from_mins(5));
    t.store.note_uses(&[of(&keys[1], "2026-01-02T03:09:00Z")]).await.expect("notes");
    assert_eq!(noted().await[1], Some(at("2026-01-02T03:09:00Z")));
}

/// A key that somebody has made odd by hand is good for nothing, and takes no other away.
pub(crate) async fn an_odd_key_takes_no_other_away(t: Fixture) {
    let Some(dialect) = &t.dialect else { return };
    for statement in dialect.allow_odd {
        (t.by_hand)(statement).await.expect(statement);
    }
    let good = t.create("good", Role::Kitchen).await;
    for (n, change) in
        ["role = 'boss'", "hash = substr(hash, 1, 31)", "hash = substr(hash, 1, 0)", "id = '?'"]
            .into_iter()
            .enumerate()
    {
        let odd = t.create(&format!("odd {n}"), Role::Staff).await;
        let change = format!("UPDATE api_keys SET {change} WHERE id = '{}'", odd.id);
        (t.by_hand)(&change).await.unwrap_or_else(|refusal| panic!("{change}: {refusal}"));
        assert_eq!(t.live().await, std::slice::from_ref(&good), "{change}");
        let KeyList { keys, unreadable } = t.store.list_keys().await.expect("reads");
        let named = keys.iter().map(|key| key.id.to_string()).chain(unreadable).collect::<Vec<_>>();
        assert_eq!(named.len(), 2, "{change}: {named:?}");
        assert_eq!(t.store.note_uses(&[KeyUse { id: good.id.clone(), at: start() }]).await, Ok(vec![]));
        (t.by_hand)("DELETE FROM api_keys WHERE name <> 'good'").await.expect("deletes");
    }
}

/// The tables take the roles that the code knows and nothing else; what is no key is refused.
pub(crate) async fn what_is_no_key_is_refused_by_the_table(t: Fixture) {
    let Some(dialect) = &t.dialect else { return };
    let key = t.create("good", Role::Kitchen).await;
    let name = "x".repeat(64);
    let change = async |change: &str| {
        let update = format!("{}UPDATE api_keys SET {change} WHERE id = '{}'", dialect.checked, key.id);
        (t.by_hand)(&update).await.is_ok()
    };
    for role in Role::ALL {
        assert!(change(&format!("role = '{role}'")).await, "{role}");
    }
    assert!(change(&format!("name = '{name}'")).await);
    for odd in [
        "role = 'boss'",
        "role = NULL",
        "hash = substr(hash, 1, 31)",
        "name = ''",
        &format!("name = '{name}x'"),
    ] {
        assert!(!change(odd).await, "{odd}");
    }
    for column in ["created_at", "last_used_at", "revoked_at"] {
        for odd in dialect.odd_moments.iter().filter(|odd| odd.contains("infinity") || !odd.contains('\'')) {
            assert!(!change(&format!("{column} = {odd}")).await, "{column} {odd}");
        }
    }
}

/// Promise 5: memory, queues and time are bounded.
pub(crate) async fn only_so_many_keys_are_good_at_a_time(t: Fixture) {
    let Some(dialect) = &t.dialect else { return };
    let fill = format!(
        "INSERT INTO api_keys (id, name, role, hash, created_at)
         WITH RECURSIVE n (i) AS (SELECT 100000000000 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000000 + {})
         SELECT CAST(i AS text), CAST(i AS text), 'shop', {}, {} FROM n",
        MAX_LIVE_KEYS - 2,
        dialect.hash_of_i,
        (dialect.stamp)(start()),
    );
    (t.by_hand)(&fill).await.expect("fills");
    let last = t.create("the last one", Role::Staff).await;
    let (_, one_more) = drawn("one more", Role::Staff);
    assert_eq!(t.store.create_key(&one_more).await, Ok(KeyCreation::TooMany));
    assert_eq!(t.live().await.len(), MAX_LIVE_KEYS);
    t.store.revoke_key(last.id.as_str()).await.expect("revokes");
    assert_eq!(t.store.create_key(&one_more).await, Ok(KeyCreation::Created));
}
