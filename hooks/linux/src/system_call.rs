//! System calls of the hook's own: past the C library, so that nothing of it is touched, `errno`
//! least of all.

use libc::c_long;

/// Makes a system call and answers what the kernel does: a negative number is an error.
///
/// # Safety
/// As of that call.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn system_call(number: c_long, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: these are the registers of syscall(2) for this processor; the rest is the caller's
    // promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As of that call.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn system_call(number: c_long, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack)
        );
    }
    result
}

/// As above, by the C library.
///
/// # Safety
/// As of that call.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub unsafe fn system_call(number: c_long, arguments: [usize; 6]) -> isize {
    use crate::errno;

    let [a, b, c, d, e, f] = arguments;
    let saved_errno = errno::get();
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result != -1 {
        return result as isize;
    }
    let error = errno::get();
    errno::set(saved_errno);
    -(error as isize)
}
