//! Direct system calls for the hook's own use. A direct system call bypasses the C library. So
//! `errno` keeps its value, the call is not a cancellation point, and no hook of another library
//! runs.

use libc::c_long;

/// Makes a system call and returns the kernel's result. A negative result is a negated error
/// number.
///
/// # Safety
/// The caller upholds the contract of the system call.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn system_call(number: c_long, arguments: [usize; 6]) -> isize {
    let [arg1, arg2, arg3, arg4, arg5, arg6] = arguments;
    let result;
    // SAFETY: the registers follow syscall(2) for x86-64. The code declares the two registers that
    // the kernel overwrites. The caller upholds the contract of the system call.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arg1, in("rsi") arg2, in("rdx") arg3,
            in("r10") arg4, in("r8") arg5, in("r9") arg6,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// Makes a system call and returns the kernel's result. A negative result is a negated error
/// number.
///
/// # Safety
/// The caller upholds the contract of the system call.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn system_call(number: c_long, arguments: [usize; 6]) -> isize {
    let [arg1, arg2, arg3, arg4, arg5, arg6] = arguments;
    let result;
    // SAFETY: the registers follow syscall(2) for arm64. The caller upholds the contract of the
    // system call.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arg1 => result,
            in("x1") arg2, in("x2") arg3, in("x3") arg4, in("x4") arg5, in("x5") arg6,
            options(nostack)
        );
    }
    result
}

/// Makes a system call through the C library, and restores `errno`. This implementation is for
/// processors without an implementation above. A negative result is a negated error number.
///
/// # Safety
/// The caller upholds the contract of the system call.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub unsafe fn system_call(number: c_long, arguments: [usize; 6]) -> isize {
    use crate::errno;

    let [arg1, arg2, arg3, arg4, arg5, arg6] = arguments;
    let saved_errno = errno::get();
    // SAFETY: the caller upholds the contract of the system call.
    let result = unsafe { libc::syscall(number, arg1, arg2, arg3, arg4, arg5, arg6) };
    if result != -1 {
        return result as isize;
    }
    let error = errno::get();
    errno::set(saved_errno);
    -(error as isize)
}
