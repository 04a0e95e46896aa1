//! Shards: hash key ranges, ids and sequence numbers.

use md5::{Digest, Md5};

/// Returns the first and last hash key of shard `index` of `count`. Together, the ranges cover 0 to
/// 2^128 - 1.
pub fn hash_range(index: u32, count: u32) -> (u128, u128) {
    if count == 1 {
        return (0, u128::MAX);
    }
    let width = u128::MAX / u128::from(count)
        + u128::from(u128::MAX % u128::from(count) == u128::from(count) - 1);
    let start = width * u128::from(index);
    let end = if index + 1 == count { u128::MAX } else { start + (width - 1) };
    (start, end)
}

/// Returns the index of the shard of a hash key.
pub fn for_hash_key(hash: u128, count: u32) -> u32 {
    if count == 1 {
        return 0;
    }
    let (_, first_end) = hash_range(0, count);
    let index = hash / (first_end + 1);
    u32::try_from(index).unwrap_or(count - 1).min(count - 1)
}

/// Returns the hash key of a partition key: its MD5 hash as a number.
pub fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

/// Returns the id of a shard, such as `shardId-000000000000`.
pub fn id(index: u32) -> String {
    format!("shardId-{index:012}")
}

/// Returns the index of the shard with this id, or `None` if it does not exist. Like Kinesis,
/// accepts ids without leading zeros.
pub fn index(id: &str, count: u32) -> Option<u32> {
    let digits = id.strip_prefix("shardId-")?;
    let is_number = (1..=12).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|index| is_number && *index < count)
}

/// Returns the sequence number of a counter: 56 digits. The width is constant, so that sequence
/// numbers also sort as strings.
pub fn sequence_number(created_ms: i64, shard: u32, counter: i64) -> String {
    format!("49{created_ms:018}{shard:016}{counter:020}")
}

/// Returns the counter of a sequence number, or `None` if it is not of this stream and shard.
pub fn counter(created_ms: i64, shard: u32, sequence_number: &str) -> Option<i64> {
    let start = sequence_number.get(..36)?;
    if start != format!("49{created_ms:018}{shard:016}") || sequence_number.len() != 56 {
        return None;
    }
    sequence_number.get(36..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn computes_the_ranges_of_the_service() {
        assert_eq!(hash_range(0, 1), (0, u128::MAX));
        assert_eq!(hash_range(0, 2).1.to_string(), "170141183460469231731687303715884105727");
        assert_eq!(hash_range(1, 2).0.to_string(), "170141183460469231731687303715884105728");
        assert_eq!(hash_range(1, 4).0.to_string(), "85070591730234615865843651857942052864");
        assert_eq!(hash_range(1, 3).0.to_string(), "113427455640312821154458202477256070485");
    }

    #[test]
    fn finds_shards_by_their_ids() {
        assert_eq!(index("shardId-000000000002", 3), Some(2));
        assert_eq!(index("shardId-2", 3), Some(2));
        for wrong in
            ["shardId-000000000003", "shardId-", "shardId-+2", "shardId-0000000000002", "2"]
        {
            assert_eq!(index(wrong, 3), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn covers_all_hash_keys_without_gaps(count in 1u32..600, hash: u128) {
            let mut next = 0u128;
            for index in 0..count {
                let (start, end) = hash_range(index, count);
                prop_assert_eq!(start, next);
                prop_assert!(end >= start);
                next = end.wrapping_add(1);
            }
            prop_assert_eq!(next, 0);
            let (start, end) = hash_range(for_hash_key(hash, count), count);
            prop_assert!((start..=end).contains(&hash));
        }

        #[test]
        fn parses_sequence_numbers_that_sort_like_their_counters(created in 0i64..4_000_000_000_000, shard in 0u32..10_000, counter_a in 0i64..i64::MAX, counter_b in 0i64..i64::MAX) {
            let (a, b) = (sequence_number(created, shard, counter_a), sequence_number(created, shard, counter_b));
            prop_assert_eq!(a.cmp(&b), counter_a.cmp(&counter_b));
            prop_assert_eq!(counter(created, shard, &a), Some(counter_a));
            prop_assert_eq!(counter(created, shard + 1, &a), None);
        }
    }
}
