//! A key as its holder has it, and what is kept of it.

use std::{array::from_fn, fmt, str::FromStr};

use rand::{Rng, RngExt as _};
use sha2::{Digest as _, Sha256};

/// What every key begins with, so that one that leaked is found.
const PREFIX: &str = "otk_";
/// Characters that are drawn: some 178 bits.
const SECRET_CHARS: usize = 30;
/// Characters of the checksum.
const CHECK_CHARS: usize = 6;
/// Characters of a whole key.
const KEY_CHARS: usize = PREFIX.len() + SECRET_CHARS + 1 + CHECK_CHARS;
/// The alphabet, its digits in this order.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key. Nothing prints it by mistake.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey([u8; KEY_CHARS]);

/// The SHA-256 of a whole key: enough to know it again, and no way back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// The text is no key of ours, or was mistyped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a key as `order-tracker keys create` shows it: otk_, 30 letters and digits, _ and 6 more")]
pub struct ParseKeyError;

impl ApiKey {
    /// A new one.
    pub fn random(random: &mut impl Rng) -> Self {
        let drawn: [u8; SECRET_CHARS] = from_fn(|_| ALPHABET[random.random_range(0..ALPHABET.len())]);
        let secret = [PREFIX.as_bytes(), &drawn].concat();
        let text = [&secret[..], b"_", &check(&secret)].concat();
        Self(from_fn(|at| text[at]))
    }

    /// The key itself, to be shown once, or sent.
    pub fn reveal(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// What is kept of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0).into())
    }
}

impl FromStr for ApiKey {
    type Err = ParseKeyError;

    /// A mistyped one is found here, without asking anybody.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (secret, checked) = text.rsplit_once('_').ok_or(ParseKeyError)?;
        let drawn = secret.strip_prefix(PREFIX).ok_or(ParseKeyError)?;
        let legal = drawn.len() == SECRET_CHARS && drawn.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if legal && check(secret.as_bytes()) == *checked.as_bytes() {
            text.as_bytes().try_into().map(Self).map_err(|_| ParseKeyError)
        } else {
            Err(ParseKeyError)
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(***)")
    }
}

/// The CRC-32 of it, in six digits of the alphabet.
fn check(text: &[u8]) -> [u8; CHECK_CHARS] {
    let mut rest = usize::try_from(crc32fast::hash(text)).unwrap_or_default();
    let mut digits = [b'0'; CHECK_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % ALPHABET.len()];
        rest /= ALPHABET.len();
    }
    digits
}

/// What a key is called by programs: 12 characters, no part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    const CHARS: usize = 12;

    /// A new one.
    pub fn random(random: &mut impl Rng) -> Self {
        Self((0..Self::CHARS).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect())
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = text.len() == Self::CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if legal { Ok(Self(text.to_owned())) } else { Err(ParseKeyError) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    /// The checksum by another hand: Python's `zlib.crc32(b"otk_" + b"0" * 30)` in base 62.
    #[test]
    fn a_key_ends_with_its_checksum() {
        let text = format!("{PREFIX}{}", "0".repeat(SECRET_CHARS));
        assert_eq!(&check(text.as_bytes()), b"2YksSr");
        let key: ApiKey = format!("{text}_2YksSr").parse().expect("a key");
        assert_eq!(key.reveal().len(), 41);
        assert_eq!(format!("{key:?} {:?}", key.hash()), "ApiKey(***) KeyHash(***)");
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_read_and_a_mistyped_one_is_not(seed: u64, at in 0_usize..41, to in "[0-9A-Za-z_ ]") {
            let key = ApiKey::random(&mut StdRng::seed_from_u64(seed));
            prop_assert_eq!(key.reveal().parse::<ApiKey>(), Ok(key.clone()));
            let mut wrong = key.reveal().to_owned();
            wrong.replace_range(at..=at, &to);
            prop_assert_eq!(wrong.parse::<ApiKey>().is_ok(), wrong == key.reveal());
        }
    }

    #[test]
    fn what_is_no_key_is_not_read() {
        let key = ApiKey::random(&mut StdRng::seed_from_u64(1));
        for text in ["", "otk_", "otk__", "Bearer", &key.reveal()[1..], &format!("{} ", key.reveal())] {
            assert_eq!(text.parse::<ApiKey>(), Err(ParseKeyError), "{text:?}");
        }
        let id = KeyId::random(&mut StdRng::seed_from_u64(1));
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert!("a".parse::<KeyId>().is_err());
    }
}
