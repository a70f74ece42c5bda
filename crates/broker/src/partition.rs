//! Which partition a key belongs to: the same as the Java clients' own choice, on every broker.

/// The partition of `key` among `partitions`, as Kafka's Java producer picks it.
///
/// `partitions` is at least 1.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// `org.apache.kafka.common.utils.Utils.murmur2`.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // A key is far below 4 GiB; Java's own length is 32 bits too.
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("a chunk of four")).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `tests/kafka/Murmur2Vectors.java` with the Java client's own function: hash, toPositive(hash), key.
    const VECTORS: &str = include_str!("../../../tests/kafka/murmur2.txt");

    #[test]
    fn a_keys_hash_is_that_of_the_java_client() {
        let mut count = 0;
        for line in VECTORS.lines() {
            let mut fields = line.splitn(3, ' ');
            let mut field = || fields.next().unwrap();
            let (hash, positive, key) = (field(), field(), field());
            assert_eq!(
                murmur2(key.as_bytes()).cast_signed(),
                hash.parse::<i32>().unwrap(),
                "{key}"
            );
            for partitions in [1, 2, 3, 7, 16, 1000] {
                let expected = positive.parse::<u32>().unwrap() % partitions;
                assert_eq!(partition_of(key.as_bytes(), partitions), expected, "{key}");
            }
            count += 1;
        }
        assert!(count > 20);
    }
}
