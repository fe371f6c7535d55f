//! Comparison of sixteen bytes with one byte. On x86-64, SSE2 instructions compare all bytes at
//! once.

#![allow(unsafe_code)]

/// Returns a bit mask of the bytes in `words` that equal `byte`. Bit 0 represents the least
/// significant byte of the first word.
#[inline(always)]
#[must_use]
pub fn equality_mask(words: [u64; 2], byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of the x86-64 architecture.
    unsafe {
        use std::arch::x86_64::{
            _mm_cmpeq_epi8, _mm_cvtsi64_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm_unpacklo_epi64,
        };
        let [lower_half, upper_half] = words.map(|word| _mm_cvtsi64_si128(word.cast_signed()));
        let pattern = _mm_set1_epi8(byte.cast_signed());
        let equality = _mm_cmpeq_epi8(_mm_unpacklo_epi64(lower_half, upper_half), pattern);
        _mm_movemask_epi8(equality).cast_unsigned()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let [first_mask, second_mask] = words.map(|word| word_equality_mask(word, byte));
        first_mask | second_mask << 8
    }
}

/// Returns the mask of [`equality_mask`] for one word.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn word_equality_mask(word: u64, byte: u8) -> u32 {
    const ONE_PER_BYTE: u64 = 0x0101_0101_0101_0101;
    const LOW_SEVEN_BITS: u64 = 0x7f * ONE_PER_BYTE;
    // Set the top bit of every byte that differs. The carry of the addition sets this bit, or the
    // difference already has it.
    let difference = word ^ (u64::from(byte) * ONE_PER_BYTE);
    let top_bits =
        (((difference & LOW_SEVEN_BITS) + LOW_SEVEN_BITS) | difference) & !LOW_SEVEN_BITS;
    // Gather the inverted top bits in the top byte.
    (((top_bits ^ !LOW_SEVEN_BITS) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_has_exactly_the_bits_of_equal_bytes() {
        for byte in [0, 1, 0x7f, 0x80, 0x81, 0xff] {
            for mask in [0u32, 1, 0x8000, 0xffff, 0x5a5a, 0x0180] {
                for other_byte in
                    [0u8, 1, 0x7f, 0x80, 0xfe, 0xff].into_iter().filter(|other| *other != byte)
                {
                    let bytes: [u8; 16] =
                        std::array::from_fn(
                            |index| if mask >> index & 1 == 1 { byte } else { other_byte },
                        );
                    let words = [0, 8].map(|start| {
                        u64::from_le_bytes(std::array::from_fn(|index| bytes[start + index]))
                    });
                    assert_eq!(equality_mask(words, byte), mask, "{bytes:x?}");
                    let [first_mask, second_mask] =
                        words.map(|word| word_equality_mask(word, byte));
                    assert_eq!(first_mask | second_mask << 8, mask, "{bytes:x?}");
                }
            }
        }
    }
}
