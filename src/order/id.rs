//! Order ids: `ORD-` and 26 characters of Crockford base 32, a ULID.
//!
//! The first 48 bits are milliseconds since 1970, so ids rise and index well; the rest is random,
//! so nobody guesses one. The layout is that of <https://github.com/ulid/spec>.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Timestamp;

const PREFIX: &str = "ORD-";
const DIGITS: usize = 26;
const TEXT_LEN: usize = PREFIX.len() + DIGITS;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RANDOM_BITS: u32 = 80;
/// The last moment that fits before them: 48 bits.
const LAST_MILLIS: u128 = (1 << 48) - 1;
/// How far apart two ids of the same millisecond are, at random: the promised 74 random bits.
const STEP_BITS: u32 = 74;

/// The business key of an order. Later ids are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(u128);

impl OrderId {
    /// An id as people type it: in any case, without the prefix, with space around.
    pub fn typed(text: &str) -> Result<Self, ParseIdError> {
        let text = text.trim().to_ascii_uppercase();
        format!("{PREFIX}{}", text.strip_prefix(PREFIX).unwrap_or(&text)).parse()
    }

    /// The smallest id that was made at this moment: ids rise with time.
    pub fn first_of(at: Timestamp) -> Self {
        // What no id can tell is later than all ids.
        let millis = u128::try_from(at.timestamp_millis().max(0)).unwrap_or_default().min(LAST_MILLIS);
        Self(millis << RANDOM_BITS)
    }

    /// The greatest id that is smaller; none before the first.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// The text form in a buffer of its own, without an allocation.
    fn text(self) -> [u8; TEXT_LEN] {
        let mut text = [0; TEXT_LEN];
        text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
        for (place, digit) in text[PREFIX.len()..].iter_mut().rev().enumerate() {
            *digit = ALPHABET[(self.0 >> (5 * place)) as usize & 31];
        }
        text
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an order id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be ORD- and 26 characters out of 0-9 and A-Z without I, L, O and U")]
pub struct ParseIdError;

impl FromStr for OrderId {
    type Err = ParseIdError;

    /// Strict: upper case only, so that an id has exactly one spelling in databases and topics.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(PREFIX).ok_or(ParseIdError)?.as_bytes();
        // 26 digits hold 130 bits; the first may only use three of its five.
        if digits.len() != DIGITS || digits[0] > b'7' {
            return Err(ParseIdError);
        }
        digits
            .iter()
            .try_fold(0, |value: u128, digit| {
                let bits = ALPHABET.iter().position(|known| known == digit).ok_or(ParseIdError)?;
                Ok(value << 5 | bits as u128)
            })
            .map(Self)
    }
}

impl Serialize for OrderId {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OrderId {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(input)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Makes ids that strictly rise within one process, also inside a millisecond and when the clock
/// steps back.
#[derive(Debug, Default)]
pub struct IdMint {
    last: u128,
}

impl IdMint {
    /// Makes the next id from milliseconds since 1970 and 128 random bits.
    pub fn mint(&mut self, unix_millis: u64, random: u128) -> OrderId {
        let fresh = u128::from(unix_millis) << RANDOM_BITS | low_bits(random, RANDOM_BITS);
        let after_last = self.last.saturating_add(1 + low_bits(random, STEP_BITS));
        self.last = if fresh >> RANDOM_BITS > self.last >> RANDOM_BITS { fresh } else { after_last };
        OrderId(self.last)
    }
}

fn low_bits(value: u128, bits: u32) -> u128 {
    value & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_form_is_the_one_of_a_ulid() {
        // Time part from the example in the ULID specification: 01ARZ3NDEK is 1469922850259.
        let id = IdMint::default().mint(1_469_922_850_259, 0);
        assert_eq!(id.to_string(), "ORD-01ARZ3NDEK0000000000000000");
    }

    #[test]
    fn ids_of_a_moment_begin_with_the_first() {
        let at = Timestamp::from_timestamp_millis(1_469_922_850_259).expect("a moment");
        assert_eq!(OrderId::first_of(at).to_string(), "ORD-01ARZ3NDEK0000000000000000");
        let before = Timestamp::from_timestamp_millis(-1).expect("a moment");
        assert_eq!(OrderId::first_of(before), OrderId(0));
        let last = OrderId::first_of(Timestamp::MAX_UTC);
        assert_eq!(last.to_string().parse(), Ok(last), "no moment leads past the ids");
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for bad in [
            "",
            "ORD-",
            "01ARZ3NDEK0000000000000000",
            "ORD-01ARZ3NDEK000000000000000",
            "ORD-01ARZ3NDEK00000000000000000",
            "ORD-01arz3ndek0000000000000000",
            "ORD-81ARZ3NDEK0000000000000000",
            "ORD-01ARZ3NDEKU000000000000000",
            "ORD-01ARZ3NDEKé00000000000000",
        ] {
            assert_eq!(bad.parse::<OrderId>(), Err(ParseIdError), "{bad:?}");
        }
    }

    #[test]
    fn people_type_ids_in_any_case() {
        let id: OrderId = "ORD-01ARZ3NDEK0000000000000000".parse().expect("an id");
        for typed in [
            "ord-01arz3ndek0000000000000000",
            " 01ARZ3NDEK0000000000000000 ",
            "Ord-01arz3ndek0000000000000000",
        ] {
            assert_eq!(OrderId::typed(typed), Ok(id), "{typed}");
        }
        for bad in ["", "ord-", "ORD-ORD-01ARZ3NDEK0000000000000000", "7"] {
            assert_eq!(OrderId::typed(bad), Err(ParseIdError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_survives_a_round_trip(value: u128) {
            prop_assert_eq!(OrderId(value).to_string().parse(), Ok(OrderId(value)));
        }

        #[test]
        fn text_sorts_as_the_id_does(a: u128, b: u128) {
            let texts = OrderId(a).to_string().cmp(&OrderId(b).to_string());
            prop_assert_eq!(texts, OrderId(a).cmp(&OrderId(b)));
        }

        #[test]
        fn ids_rise_whatever_the_clock_does(times in prop::collection::vec((0_u64..1 << 42, any::<u128>()), 2..50)) {
            let mut mint = IdMint::default();
            let ids: Vec<_> = times.into_iter().map(|(at, random)| mint.mint(at, random)).collect();
            prop_assert!(ids.is_sorted_by(|a, b| a < b), "{:?}", ids);
        }
    }
}
