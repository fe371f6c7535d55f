//! 64-bit hash functions. Only [`keyed_hash`] resists input that an attacker chooses.
//!
//! [`hash64`], [`folded_multiply`] and [`load_padded_le`] are part of the format of the map file:
//! their results are the same on every machine and in every version.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The secret key of [`keyed_hash`].
pub(crate) type HashKey = [u64; 2];

/// Returns the hash of some bytes under a secret key (SipHash-2-4). Without the key, nobody can
/// compute the hash, or find bytes that have a certain hash.
pub(crate) fn keyed_hash(bytes: &[u8], [key0, key1]: HashKey) -> u64 {
    #[allow(deprecated, reason = "the standard library has no other hasher with a key")]
    let mut hasher = std::hash::SipHasher::new_with_keys(key0, key1);
    hasher.write(bytes);
    hasher.finish()
}

/// Returns a key that nobody can predict. The standard library seeds [`RandomState`] with random
/// numbers of the operating system.
pub(crate) fn random_key() -> HashKey {
    if cfg!(loom) {
        // The model checker repeats an execution, so every execution needs the same key.
        return [1, 2];
    }
    std::array::from_fn(|_| RandomState::new().build_hasher().finish())
}

/// Returns the hash of some bytes. Different seeds give different hashes of the same bytes.
///
/// Computes FNV-1a (with the parameters of RFC 9923) and mixes the result, because the low bits of
/// FNV-1a alone are weak.
pub(crate) fn hash64(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mix64(hash)
}

/// Multiplies the word by a constant and returns the XOR of both halves of the product.
///
/// The constant is 2^64 divided by the golden ratio, so consecutive words give evenly distributed
/// results.
#[inline(always)]
pub(crate) fn folded_multiply(word: u64) -> u64 {
    let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

/// Returns up to 8 bytes as a little-endian number, padded with zeros.
///
/// The function uses two or three overlapping loads, because a copy of variable length would call
/// memcpy.
#[inline(always)]
pub(crate) fn load_padded_le(bytes: &[u8]) -> u64 {
    let shift = |word: u64, byte_offset: usize| word << (byte_offset % 8 * 8);
    if let (Some(low), Some(high)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let [low_word, high_word] = [low, high].map(|chunk| u32::from_le_bytes(*chunk).into());
        return low_word | shift(high_word, bytes.len() - 4);
    }
    let [first_byte, last_byte] =
        [bytes.first(), bytes.last()].map(|byte| byte.copied().unwrap_or(0).into());
    let middle_index = bytes.len() / 2;
    let middle_byte = bytes.get(middle_index).copied().unwrap_or(0).into();
    let last_index = bytes.len().saturating_sub(1);
    first_byte | shift(middle_byte, middle_index) | shift(last_byte, last_index)
}

/// Distributes the bits of a word over all 64 bits (the finalizer of SplitMix64).
#[inline]
pub(crate) fn mix64(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_hash_is_siphash() {
        // The test vector in appendix A of the SipHash paper.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes: [u8; 15] = std::array::from_fn(|index| index as u8);
        assert_eq!(keyed_hash(&bytes, key), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn random_keys_differ() {
        assert_ne!(random_key(), random_key());
    }

    #[test]
    fn bytes_are_padded_with_zeros() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 0x88];
        for length in 0..=8 {
            let mut padded = [0; 8];
            padded[..length].copy_from_slice(&bytes[..length]);
            assert_eq!(load_padded_le(&bytes[..length]), u64::from_le_bytes(padded));
        }
    }
}
