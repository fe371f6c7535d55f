//! Replaces functions of the C library, so that one call of a thread can fail.
//!
//! The linker prefers the functions of a program and of its preloaded objects to those of the C
//! library. Each function in this file calls the original, unless the thread has armed a fault that
//! makes this call fail. Only calls on files fail: pipes, sockets and terminals work.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::io;

/// The effect of a fault on the call that it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this value of errno.
    Error(c_int),
    /// The call fails with ENOSPC. Applies only to functions that can need space on a file system.
    // Only the preloaded object uses this variant.
    #[allow(dead_code)]
    NoSpace,
    /// The call fails with EINTR, as if a signal had interrupted it. Applies only to functions that
    /// can return this error.
    Interrupt,
    /// The call of read(2) or write(2) transfers only half of the bytes.
    ShortTransfer,
}

/// The call number of a fault that hits every call. An interrupted call succeeds when the program
/// repeats it.
pub const EVERY_CALL: u32 = 0;

thread_local! {
    /// The armed fault, and the number of calls until it happens. The number includes the call that
    /// the fault hits. Calls to which the fault does not apply are not counted.
    static ARMED_FAULT: Cell<Option<(Fault, u32)>> = const { Cell::new(None) };
    /// Whether a fault that hits every call has interrupted the last call.
    static HAS_INTERRUPTED: Cell<bool> = const { Cell::new(false) };
    /// The name of the function that the fault hit.
    static HIT_FUNCTION: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs `body` and injects `fault` into one call.
///
/// `call_number` counts the calls to which the fault applies, from 1. Returns the name of the
/// function that the fault hit, or `None` if `body` made fewer such calls.
pub fn with_fault(fault: Fault, call_number: u32, body: impl FnOnce()) -> Option<&'static str> {
    HIT_FUNCTION.set(None);
    arm(fault, call_number);
    body();
    disarm()
}

/// Arms a fault of this thread, which hits the call with this number, or [`EVERY_CALL`].
pub fn arm(fault: Fault, call_number: u32) {
    ARMED_FAULT.set(Some((fault, call_number)));
}

/// Disarms the fault of this thread. Returns the name of the function that the fault hit, or `None`
/// if it hit none.
pub fn disarm() -> Option<&'static str> {
    ARMED_FAULT.set(None);
    HIT_FUNCTION.take()
}

/// Properties of an interposed function.
struct Function {
    name: &'static CStr,
    is_interruptible: bool,
    is_transfer: bool,
}

/// The functions that can need space on a file system.
const SPACE_FUNCTIONS: [&CStr; 11] = [
    c"open",
    c"open64",
    c"mkdir",
    c"rename",
    c"write",
    c"fsync",
    c"fdatasync",
    c"ftruncate64",
    c"fsetxattr",
    c"posix_fallocate",
    c"fchown",
];

impl Function {
    /// Counts a call. Returns the fault if it hits this call.
    fn next_fault(&self) -> Option<Fault> {
        let (fault, remaining_call_count) = ARMED_FAULT.get()?;
        let applies = match fault {
            Fault::Error(_) => true,
            Fault::NoSpace => SPACE_FUNCTIONS.contains(&self.name),
            Fault::Interrupt => self.is_interruptible,
            Fault::ShortTransfer => self.is_transfer,
        };
        if !applies {
            return None;
        }
        if remaining_call_count == EVERY_CALL {
            let is_repeated = HAS_INTERRUPTED.get();
            HAS_INTERRUPTED.set(fault == Fault::Interrupt && !is_repeated);
            HIT_FUNCTION.set(self.name.to_str().ok());
            return (!is_repeated).then_some(fault);
        }
        if remaining_call_count > 1 {
            ARMED_FAULT.set(Some((fault, remaining_call_count - 1)));
            return None;
        }
        ARMED_FAULT.set(None);
        HIT_FUNCTION.set(self.name.to_str().ok());
        Some(fault)
    }

    /// Counts a call. Returns the error code of the fault if the fault hits this call.
    fn next_error(&self) -> Option<c_int> {
        match self.next_fault()? {
            Fault::Error(error) => Some(error),
            Fault::NoSpace => Some(libc::ENOSPC),
            Fault::Interrupt => Some(libc::EINTR),
            Fault::ShortTransfer => None,
        }
    }

    fn original(&self) -> *mut c_void {
        // SAFETY: the name ends with NUL.
        let original = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        assert!(!original.is_null(), "{:?}", self.name);
        original
    }
}

/// Sets errno and returns `result`.
fn fail<T>(error: c_int, result: T) -> T {
    // SAFETY: the pointer is valid for this thread.
    unsafe { *libc::__errno_location() = error };
    result
}

/// Defines functions that fail by setting errno and returning a value.
macro_rules! interpose {
    ($($name:ident($($argument:ident: $argument_type:ty),*) -> $result:ty, fails with $failure:expr,
       interruptible: $is_interruptible:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $argument_type),*) -> $result {
            const NAME: &str = concat!(stringify!($name), "\0");
            const FUNCTION: Function = Function {
                name: match CStr::from_bytes_with_nul(NAME.as_bytes()) {
                    Ok(name) => name,
                    Err(_) => unreachable!(),
                },
                is_interruptible: $is_interruptible,
                is_transfer: false,
            };
            if let Some(error) = FUNCTION.next_error() {
                return fail(error, $failure);
            }
            // SAFETY: the C library declares the function with compatible types. On the processors
            // of these tests, a variadic function receives its arguments as other functions do.
            unsafe {
                let original: unsafe extern "C" fn($($argument_type),*) -> $result =
                    std::mem::transmute(FUNCTION.original());
                original($($argument),*)
            }
        }
    )*};
}

interpose! {
    open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int,
        fails with -1, interruptible: true;
    open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int,
        fails with -1, interruptible: true;
    fstat(descriptor: c_int, status: *mut c_void) -> c_int, fails with -1, interruptible: false;
    fstat64(descriptor: c_int, status: *mut c_void) -> c_int, fails with -1, interruptible: false;
    stat64(path: *const c_char, status: *mut c_void) -> c_int, fails with -1, interruptible: false;
    lstat64(path: *const c_char, status: *mut c_void) -> c_int,
        fails with -1, interruptible: false;
    statx(directory: c_int, path: *const c_char, flags: c_int, mask: c_uint, status: *mut c_void)
        -> c_int, fails with -1, interruptible: false;
    fchmod(descriptor: c_int, mode: c_uint) -> c_int, fails with -1, interruptible: false;
    fchown(descriptor: c_int, user: c_uint, group: c_uint) -> c_int,
        fails with -1, interruptible: false;
    mkdir(path: *const c_char, mode: c_uint) -> c_int, fails with -1, interruptible: false;
    rename(from: *const c_char, to: *const c_char) -> c_int, fails with -1, interruptible: false;
    unlink(path: *const c_char) -> c_int, fails with -1, interruptible: false;
    fsync(descriptor: c_int) -> c_int, fails with -1, interruptible: true;
    fdatasync(descriptor: c_int) -> c_int, fails with -1, interruptible: true;
    ftruncate64(descriptor: c_int, length: i64) -> c_int, fails with -1, interruptible: true;
    lseek64(descriptor: c_int, offset: i64, origin: c_int) -> i64,
        fails with -1, interruptible: false;
    flock(descriptor: c_int, operation: c_int) -> c_int, fails with -1, interruptible: false;
    futimens(descriptor: c_int, times: *const c_void) -> c_int,
        fails with -1, interruptible: false;
    fsetxattr(descriptor: c_int, name: *const c_char, value: *const c_void, length: usize,
        flags: c_int) -> c_int, fails with -1, interruptible: false;
    opendir(path: *const c_char) -> *mut c_void,
        fails with std::ptr::null_mut(), interruptible: false;
    readdir64(directory: *mut c_void) -> *mut c_void,
        fails with std::ptr::null_mut(), interruptible: false;
    madvise(start: *mut c_void, length: usize, advice: c_int) -> c_int,
        fails with -1, interruptible: false;
    mmap(start: *mut c_void, length: usize, protection: c_int, flags: c_int, descriptor: c_int,
        offset: i64) -> *mut c_void, fails with libc::MAP_FAILED, interruptible: false;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_fallocate(descriptor: c_int, offset: i64, length: i64) -> c_int {
    const FUNCTION: Function =
        Function { name: c"posix_fallocate", is_interruptible: true, is_transfer: false };
    if let Some(error) = FUNCTION.next_error() {
        return error;
    }
    // SAFETY: the C library declares the function with these types.
    unsafe {
        let original: unsafe extern "C" fn(c_int, i64, i64) -> c_int =
            std::mem::transmute(FUNCTION.original());
        original(descriptor, offset, length)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int {
    const FUNCTION: Function =
        Function { name: c"fcntl", is_interruptible: true, is_transfer: false };
    // SAFETY: with this command, the argument points to a valid `flock`.
    let is_lock = command == libc::F_OFD_SETLK
        && unsafe { (*argument.cast::<libc::flock>()).l_type } != libc::F_UNLCK as i16;
    if let Some(error) = is_lock.then(|| FUNCTION.next_error()).flatten() {
        return fail(error, -1);
    }
    // SAFETY: the caller passes the arguments of fcntl(2), and a variadic function receives its
    // arguments as other functions do.
    unsafe {
        let original: unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int =
            std::mem::transmute(FUNCTION.original());
        original(descriptor, command, argument)
    }
}

/// Returns whether the descriptor refers to a regular file.
fn is_file(descriptor: c_int) -> bool {
    const FUNCTION: Function =
        Function { name: c"fstat64", is_interruptible: false, is_transfer: false };
    // SAFETY: the C library declares the function with these types, all-zero bytes are a valid
    // `stat64`, and the call writes only this value.
    unsafe {
        let mut status: libc::stat64 = std::mem::zeroed();
        let original: unsafe extern "C" fn(c_int, *mut libc::stat64) -> c_int =
            std::mem::transmute(FUNCTION.original());
        original(descriptor, &mut status) == 0 && status.st_mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// Returns whether the descriptor refers to a file in /proc.
fn is_in_proc(descriptor: c_int) -> bool {
    // SAFETY: all-zero bytes are a valid `statfs`, and the call writes only this value.
    unsafe {
        let mut status: libc::statfs = std::mem::zeroed();
        libc::fstatfs(descriptor, &mut status) == 0 && status.f_type == libc::PROC_SUPER_MAGIC
    }
}

/// Defines functions that transfer bytes.
macro_rules! interpose_transfer {
    ($($name:ident($buffer_type:ty), $c_name:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            descriptor: c_int,
            buffer: $buffer_type,
            length: usize,
        ) -> isize {
            const FUNCTION: Function =
                Function { name: $c_name, is_interruptible: true, is_transfer: true };
            let fault = is_file(descriptor).then(|| FUNCTION.next_fault()).flatten();
            // The kernel accepts only complete values for its settings in /proc.
            let fault = fault.filter(|fault| *fault != Fault::ShortTransfer || !is_in_proc(descriptor));
            let length = match fault {
                Some(Fault::Error(error)) => return fail(error, -1),
                Some(Fault::NoSpace) => return fail(libc::ENOSPC, -1),
                Some(Fault::Interrupt) => return fail(libc::EINTR, -1),
                Some(Fault::ShortTransfer) => length.div_ceil(2),
                None => length,
            };
            // SAFETY: the C library declares the function with these types, and the length is not
            // above that of the buffer.
            unsafe {
                let original: unsafe extern "C" fn(c_int, $buffer_type, usize) -> isize =
                    std::mem::transmute(FUNCTION.original());
                original(descriptor, buffer, length)
            }
        }
    )*};
}

interpose_transfer! {
    read(*mut c_void), c"read";
    write(*const c_void), c"write";
}

/// In functions that hooks call, the crate opens and reads files through syscall(2). Such a call
/// counts as a call of open(2) or read(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    arg1: usize,
    arg2: usize,
    arg3: usize,
    arg4: usize,
    arg5: usize,
    arg6: usize,
) -> c_long {
    const OPEN: Function = Function { name: c"open", is_interruptible: true, is_transfer: false };
    const SYSCALL: Function =
        Function { name: c"syscall", is_interruptible: false, is_transfer: false };
    if number == libc::SYS_read {
        // SAFETY: these are the arguments of read(2).
        return unsafe { read(arg1 as c_int, arg2 as *mut c_void, arg3) as c_long };
    }
    if number == libc::SYS_openat
        && let Some(error) = OPEN.next_error()
    {
        return fail(error, -1);
    }
    // SAFETY: the caller passes the arguments of the system call. On the processors of these tests,
    // a variadic function receives its arguments as other functions do.
    unsafe {
        let original: unsafe extern "C" fn(
            c_long,
            usize,
            usize,
            usize,
            usize,
            usize,
            usize,
        ) -> c_long = std::mem::transmute(SYSCALL.original());
        original(number, arg1, arg2, arg3, arg4, arg5, arg6)
    }
}

/// Returns the text of an error code, as an error message contains it.
pub fn error_text(error: c_int) -> String {
    io::Error::from_raw_os_error(error).to_string()
}
