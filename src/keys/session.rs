//! What a browser keeps of a key: who it is, until when, and a proof that only the service can make.
//!
//! No table: the proof is made with the key's stored hash, so a session ends with its key.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::DateTime;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{AuthError, KeyHash, KeyId, KeyRing, LiveKey, StoredKey};
use crate::order::Timestamp;

/// How long a session lasts after it was last used.
pub const LASTING: Duration = Duration::from_hours(12);
/// How old one is that is made anew when it is used.
const RENEWED_AFTER: Duration = Duration::from_mins(1);
/// In place of the hash of a key that is not there. Everybody knows it, so what it proves counts for nothing.
const NOBODYS: KeyHash = KeyHash([0; 32]);

/// A session that is good.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whose.
    pub key: Arc<LiveKey>,
    /// Until when.
    expires: Timestamp,
}

impl Session {
    /// A new one.
    pub fn begin(key: Arc<LiveKey>, now: Timestamp) -> Self {
        Self { key, expires: now + LASTING }
    }

    /// The one that a browser has sent.
    pub fn read(text: &str, ring: &KeyRing, now: Timestamp) -> Result<Self, AuthError> {
        let mut parts = text.split('.');
        let (Some(id), Some(expires), Some(proof), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AuthError::Unknown);
        };
        let seconds = expires.parse().map_err(|_| AuthError::Unknown)?;
        let expires = DateTime::from_timestamp(seconds, 0).filter(|expires| *expires > now);
        let expires = expires.ok_or(AuthError::Unknown)?;
        let proof = URL_SAFE_NO_PAD.decode(proof).map_err(|_| AuthError::Unknown)?;
        let id = id.parse().map_err(|_| AuthError::Unknown)?;
        let (key, is_proved) = proved(&id, expires, &proof, ring);
        let key = key?;
        if !is_proved {
            return Err(AuthError::Unknown);
        }
        key.used_at(now);
        Ok(Self { key, expires })
    }

    /// What a browser keeps: letters, digits, `-`, `_` and two dots.
    pub fn text(&self) -> String {
        let StoredKey { id, hash, .. } = &self.key.stored;
        let proof = URL_SAFE_NO_PAD.encode(proof(hash, id, self.expires).finalize().into_bytes());
        format!("{id}.{}.{proof}", self.expires.timestamp())
    }

    /// The same for longer, once it is worth it.
    pub fn renewed(&self, now: Timestamp) -> Option<Self> {
        let fresh = Self::begin(Arc::clone(&self.key), now);
        (fresh.expires > self.expires + RENEWED_AFTER).then_some(fresh)
    }
}

fn proof(hash: &KeyHash, id: &KeyId, expires: Timestamp) -> Hmac<Sha256> {
    let mut proof = Hmac::<Sha256>::new_from_slice(&hash.0).expect("takes a key of any length");
    proof.update(format!("session.{id}.{}", expires.timestamp()).as_bytes());
    proof
}

/// The key with this id, and whether the proof is right. It is looked at for a key that is not there, too: how long it takes
/// tells neither which keys there are nor how much of a proof is right.
fn proved(
    id: &KeyId,
    expires: Timestamp,
    given: &[u8],
    ring: &KeyRing,
) -> (Result<Arc<LiveKey>, AuthError>, bool) {
    let key = ring.named(id);
    let hash = key.as_ref().map_or(&NOBODYS, |key| &key.stored.hash);
    let is_right = proof(hash, id, expires).verify_slice(given).is_ok();
    (key, is_right)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::{super::ApiKey, *};
    use crate::order::Role;

    fn ring() -> (KeyRing, [StoredKey; 2]) {
        let random = &mut StdRng::seed_from_u64(1);
        let stored = [Role::Staff, Role::Reader].map(|role| StoredKey {
            id: KeyId::random(random),
            name: role.to_string(),
            role,
            hash: ApiKey::random(random).hash(),
        });
        let ring = KeyRing::default();
        ring.replace(stored.to_vec());
        (ring, stored)
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().expect("a moment")
    }

    #[test]
    fn a_session_lasts_for_its_time_and_no_longer_than_its_key() {
        let (ring, [staff, reader]) = ring();
        let session = Session::begin(ring.named(&staff.id).expect("is good"), now());
        let text = session.text();
        let read = |at| Session::read(&text, &ring, at).map(|session| session.key.stored.clone());
        assert_eq!(read(now() + LASTING - Duration::from_secs(1)), Ok(staff));
        assert_eq!(read(now() + LASTING), Err(AuthError::Unknown));
        ring.replace(vec![reader]);
        assert_eq!(read(now()), Err(AuthError::Unknown), "its key is revoked");
    }

    #[test]
    fn a_session_can_not_be_made_by_hand() {
        let (ring, [staff, reader]) = ring();
        let text = Session::begin(ring.named(&reader.id).expect("is good"), now()).text();
        let parts: Vec<&str> = text.split('.').collect();
        let later = (now() + Duration::from_hours(1_000)).timestamp();
        for forged in [
            String::new(),
            format!("{}.{}.{}", staff.id, parts[1], parts[2]),
            format!("{}.{later}.{}", reader.id, parts[2]),
            format!("{}.{}.", reader.id, parts[1]),
            format!("{}.{}", reader.id, parts[1]),
            format!("{text}."),
            format!("{text}A"),
        ] {
            assert_eq!(Session::read(&forged, &ring, now()).err(), Some(AuthError::Unknown), "{forged}");
        }
        assert_eq!(ring.uses(), [], "who proves nothing has used nothing");
        assert!(Session::read(&text, &ring, now()).is_ok());
        assert_eq!(ring.uses().len(), 1);
    }

    /// So that the time it takes does not tell which keys there are; and what everybody can make opens nothing.
    #[test]
    fn a_proof_is_looked_at_for_a_key_that_is_not_there_too() {
        let (ring, [staff, _]) = ring();
        let nobody = KeyId::random(&mut StdRng::seed_from_u64(2));
        let expires = now() + LASTING;
        let made = |hash: &KeyHash, id: &KeyId| proof(hash, id, expires).finalize().into_bytes();
        let look = |id: &KeyId, given: &[u8]| {
            let (key, is_right) = proved(id, expires, given, &ring);
            (key.map(|key| key.stored.id.clone()), is_right)
        };
        assert_eq!(look(&staff.id, &made(&staff.hash, &staff.id)), (Ok(staff.id.clone()), true));
        assert_eq!(look(&staff.id, &made(&NOBODYS, &staff.id)), (Ok(staff.id.clone()), false));
        assert_eq!(look(&nobody, &made(&NOBODYS, &nobody)), (Err(AuthError::Unknown), true));
        assert_eq!(look(&nobody, &made(&staff.hash, &nobody)), (Err(AuthError::Unknown), false));
        for id in [&nobody, &staff.id] {
            let proof = URL_SAFE_NO_PAD.encode(made(&NOBODYS, id));
            let text = format!("{id}.{}.{proof}", expires.timestamp());
            assert_eq!(Session::read(&text, &ring, now()).err(), Some(AuthError::Unknown), "{text}");
        }
        assert_eq!(ring.uses(), []);
    }

    #[test]
    fn who_goes_on_stays() {
        let (ring, [staff, _]) = ring();
        let session = Session::begin(ring.named(&staff.id).expect("is good"), now());
        assert!(session.renewed(now() + RENEWED_AFTER).is_none());
        let later = now() + RENEWED_AFTER + Duration::from_secs(1);
        let renewed = session.renewed(later).expect("it is worth it");
        let at = later + LASTING - Duration::from_secs(1);
        assert!(Session::read(&renewed.text(), &ring, at).is_ok());
    }
}
