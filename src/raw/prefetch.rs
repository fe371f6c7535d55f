//! Prefetch of cache lines.

#![allow(unsafe_code)]

/// Asks the processor to load the cache lines that hold the first byte and the last byte of
/// `value`.
///
/// Does nothing on processors other than x86-64 and AArch64.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let first_byte = std::ptr::from_ref(value).cast::<u8>();
    prefetch_line(first_byte);
    prefetch_line(first_byte.wrapping_add(size_of::<T>().saturating_sub(1)));
}

#[inline(always)]
fn prefetch_line(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint. It has no effect that the program can observe, and no
    // address makes it fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: a prefetch is a hint. It has no effect that the program can observe, and no
    // address makes it fault.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags)
        );
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}
