//! Memory asked for before it is needed.

#![allow(unsafe_code)]

/// Has the processor fetch what lies here into its caches, both lines where it lies across two.
/// Nothing happens on processors for which nothing is written here.
#[inline(always)]
pub fn prefetch<T>(at: &T) {
    let first = std::ptr::from_ref(at).cast::<u8>();
    line(first);
    line(first.wrapping_add(size_of::<T>().saturating_sub(1)));
}

#[inline(always)]
fn line(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint: it reads nothing as far as the program can tell, and faults nowhere.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, readonly, preserves_flags));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = at;
}
