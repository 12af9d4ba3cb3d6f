//! What is known of the orders topic's partitions, and which one an order goes to.
//!
//! Partitions fail one by one. Whoever knows an order's partition before it is handed over can keep a partition
//! that is away from taking all the room that others need.

use std::collections::BTreeSet;

use crate::order::OrderId;

/// The topic as it was last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partitions {
    /// The topic's name.
    pub topic: String,
    /// How many partitions there are; 0 while nobody knows.
    pub count: i32,
    /// Those without a leader.
    pub leaderless: BTreeSet<i32>,
    /// Whether the cluster has answered the last question.
    pub reachable: bool,
}

impl Partitions {
    /// Which partition an order goes to; `None` while nobody knows how many there are.
    pub fn of(&self, order_id: OrderId) -> Option<i32> {
        (self.count > 0).then(|| partition(order_id.to_string().as_bytes(), self.count))
    }
}

/// The choice of every Java client, and of librdkafka's `murmur2_random`, for a key.
pub(super) fn partition(key: &[u8], count: i32) -> i32 {
    let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or_default();
    positive % count.max(1)
}

/// <https://github.com/apache/kafka/blob/4.0/clients/src/main/java/org/apache/kafka/common/utils/Utils.java>
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (n, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * n);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own `UtilsTest`.
    #[test]
    fn hashes_are_those_of_the_java_client() {
        for (text, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()), hash.cast_unsigned(), "{text}");
        }
    }

    #[test]
    fn nobody_guesses_while_the_number_of_partitions_is_unknown() {
        let id: OrderId = "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id");
        assert_eq!(Partitions::default().of(id), None);
        let of = |count| Partitions { count, ..Partitions::default() }.of(id).expect("known");
        assert!((0..6).contains(&of(6)) && of(1) == 0);
    }
}
