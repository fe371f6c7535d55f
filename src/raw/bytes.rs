//! Sixteen bytes compared at once, where the processor can.

#![allow(unsafe_code)]

/// A bit for each of these bytes, from the lowest of the first word on, that is this one.
#[inline(always)]
pub fn equal(words: [u64; 2], byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has SSE2.
    unsafe {
        use std::arch::x86_64::{
            _mm_cmpeq_epi8, _mm_cvtsi64_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm_unpacklo_epi64,
        };
        let [first, second] = words.map(|word| _mm_cvtsi64_si128(word.cast_signed()));
        let wanted = _mm_set1_epi8(byte.cast_signed());
        let found = _mm_cmpeq_epi8(_mm_unpacklo_epi64(first, second), wanted);
        _mm_movemask_epi8(found).cast_unsigned()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let [first, second] = words.map(|word| equal_of_word(word, byte));
        first | second << 8
    }
}

/// The same of one word.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn equal_of_word(word: u64, byte: u8) -> u32 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7f * EACH;
    // The upper bit of each byte that differs: set by a carry from below, or there already.
    let differing = word ^ (u64::from(byte) * EACH);
    let differs = (((differing & LOW) + LOW) | differing) & !LOW;
    // The upper bits of the others, side by side in the top byte.
    (((differs ^ !LOW) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_found_and_no_other() {
        for byte in [0, 1, 0x7f, 0x80, 0x81, 0xff] {
            for set in [0u32, 1, 0x8000, 0xffff, 0x5a5a, 0x0180] {
                for other in [0u8, 1, 0x7f, 0x80, 0xfe, 0xff].into_iter().filter(|b| *b != byte) {
                    let bytes: [u8; 16] =
                        std::array::from_fn(|at| if set >> at & 1 == 1 { byte } else { other });
                    let words = [0, 8].map(|at| {
                        u64::from_le_bytes(std::array::from_fn(|place| bytes[at + place]))
                    });
                    assert_eq!(equal(words, byte), set, "{bytes:x?}");
                    let portable = words.map(|word| equal_of_word(word, byte));
                    assert_eq!(portable[0] | portable[1] << 8, set, "{bytes:x?}");
                }
            }
        }
    }
}
