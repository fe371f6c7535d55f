//! Reads memory at addresses that the program passed to a hook. Such an address may be invalid.
//!
//! For an invalid pointer, the kernel fails the system call with `EFAULT`. A hook reads the memory
//! before the system call, and this read must not raise a signal. The caller's own stack needs no
//! check. For all other memory, the hook first makes a system call that checks whether the memory
//! is accessible.
//!
//! The check for the caller's own stack is a heuristic. It assumes that all memory from the stack
//! pointer to the upper end of the stack is mapped, and that a stack pointer shortly below the
//! upper end of a stack lies in that stack. A program that switches to a stack of its own directly
//! below another stack can break the second assumption. In such a program, an invalid pointer to
//! the gap between the two stacks raises SIGSEGV instead of `EFAULT`.

use std::mem::{MaybeUninit, offset_of};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::c_int;

use crate::system_call::system_call;

/// An address in the stack of the main thread, above all its frames. 0 if it is unknown.
static MAIN_STACK_END: AtomicUsize = AtomicUsize::new(0);
/// pthread_self(3) of the main thread. 0 if it is unknown.
static MAIN_THREAD: AtomicUsize = AtomicUsize::new(0);

/// If the stack pointer is less than this many bytes below the upper end of the thread's stack, the
/// hook assumes that the stack pointer lies in that stack. Thread stacks are larger than this limit
/// in practice. With a larger distance, the code may run in a signal handler on another stack.
const THREAD_STACK_WINDOW: usize = 64 << 10;
/// The same limit for the main thread. The usual limit of its stack is 8 MiB (`ulimit -s`). The
/// kernel places mappings without a requested address at least 128 MiB below the end of the address
/// space, so other stacks are usually further away.
const MAIN_STACK_WINDOW: usize = 4 << 20;
/// The smallest page size of all supported processors.
const MIN_PAGE_SIZE: usize = 4096;
/// The size of the kernel's signal set in bytes.
const SIGSET_SIZE: usize = 8;

/// Records the main thread and the position of its stack. Records no thread if another thread loads
/// this library with dlopen(3).
pub fn record_main_thread() {
    // The kernel stores these random bytes above the first frame of the main thread.
    // SAFETY: the function has no preconditions.
    let random_bytes = unsafe { libc::getauxval(libc::AT_RANDOM) };
    MAIN_STACK_END.store(random_bytes as usize, Ordering::Relaxed);
    // SAFETY: the functions have no preconditions.
    unsafe {
        if libc::syscall(libc::SYS_gettid) == libc::c_long::from(libc::getpid()) {
            MAIN_THREAD.store(libc::pthread_self() as usize, Ordering::Relaxed);
        }
    }
}

/// A type for which every bit pattern is a valid value.
///
/// # Safety
/// Every bit pattern must be a valid value of the type.
pub unsafe trait Pod: Copy {}

// SAFETY: the type is a number.
unsafe impl Pod for libc::socklen_t {}
// SAFETY: the struct contains only numbers.
unsafe impl Pod for libc::ip_mreqn {}
// SAFETY: the struct contains only numbers and raw pointers.
unsafe impl Pod for libc::msghdr {}
// SAFETY: the struct contains only numbers and raw pointers.
unsafe impl Pod for libc::mmsghdr {}

/// Returns a copy of the value at `address`, or `None` if the memory cannot be read.
///
/// # Safety
/// No other thread changes or unmaps the memory during the call. The memory may be unmapped or
/// protected.
#[inline]
pub unsafe fn read<T: Pod>(address: *const T) -> Option<T> {
    if !is_readable(address.cast(), size_of::<T>()) {
        return None;
    }
    let mut value: MaybeUninit<T> = MaybeUninit::uninit();
    // SAFETY: the bytes are readable, and the caller guarantees that they stay unchanged. `value`
    // has the same size. Every bit pattern is a valid value of a `Pod` type.
    unsafe {
        ptr::copy_nonoverlapping(address.cast::<u8>(), value.as_mut_ptr().cast(), size_of::<T>());
        Some(value.assume_init())
    }
}

/// The maximum number of messages that the hooks handle in one sendmmsg or recvmmsg. It is the
/// kernel's limit for sendmmsg (`UIO_MAXIOV`). The kernel has no limit for recvmmsg.
pub const MAX_MESSAGES: usize = 1024;

/// An array of structs in the program's memory. A hook accesses the elements in ascending order. So
/// each page needs at most one probe for reading and one for writing.
pub struct CallerArray<T> {
    first_element: *mut T,
    length: usize,
    /// The array is readable up to this address.
    readable_end: usize,
    /// The array is writable up to this address.
    writable_end: usize,
}

impl<T: Pod> CallerArray<T> {
    /// Returns the array of `length` elements at `first_element`. The memory may be unmapped or
    /// protected.
    ///
    /// # Safety
    /// The program passed the array to a function that reads and writes it. No other thread uses or
    /// unmaps the memory as long as the result is in use.
    pub unsafe fn new(first_element: *mut T, length: usize) -> Self {
        Self { first_element, length, readable_end: 0, writable_end: 0 }
    }

    pub fn element_ptr(&self, index: usize) -> *mut T {
        self.first_element.wrapping_add(index)
    }

    /// Returns a copy of an element, or `None` if the array has no such element or the memory
    /// cannot be read.
    pub fn read(&mut self, index: usize) -> Option<T> {
        let element = self.element_ptr(index);
        let end = (element as usize).checked_add(size_of::<T>()).filter(|_| index < self.length)?;
        if end > self.readable_end {
            let probe_start = self.readable_end.max(element as usize);
            if !is_readable(probe_start as *const u8, end - probe_start) {
                return None;
            }
            self.readable_end = end.next_multiple_of(MIN_PAGE_SIZE);
        }
        // SAFETY: all bytes of the element are readable, and no other thread changes them (see
        // `new`). Every bit pattern is a valid value of a `Pod` type.
        Some(unsafe { element.read_unaligned() })
    }
}

impl CallerArray<libc::mmsghdr> {
    /// Stores the sent length of a message in `msg_len`, as the kernel does. Returns `false` if the
    /// array has no such element or the memory is not writable.
    pub fn write_sent_length(&mut self, index: usize, length: libc::c_uint) -> bool {
        // The probe writes SIGSET_SIZE bytes. These bytes must not overlap the next element.
        const { assert!(offset_of!(libc::mmsghdr, msg_len) + SIGSET_SIZE == size_of::<libc::mmsghdr>()) }
        if index >= self.length {
            return false;
        }
        let field = self.element_ptr(index).wrapping_byte_add(offset_of!(libc::mmsghdr, msg_len));
        let field = field.cast::<libc::c_uint>();
        let last_byte = (field as usize).wrapping_add(SIGSET_SIZE - 1);
        let frame_variable = 0u8;
        let stack_pointer = &raw const frame_variable as usize;
        if last_byte >= self.writable_end {
            let is_on_stack =
                field as usize >= stack_pointer && is_within_stack(stack_pointer, last_byte);
            if !is_on_stack && !probe_writable(field as usize) {
                return false;
            }
            self.writable_end = last_byte.next_multiple_of(MIN_PAGE_SIZE);
        }
        // SAFETY: the field is writable, and no other thread uses it (see `new`).
        unsafe { field.write_unaligned(length) };
        true
    }
}

/// Returns whether all `length` bytes at `address` are readable. Outside the stack, this function
/// checks only the pages of the first and the last byte, so the bytes must be on at most two pages.
#[inline]
pub fn is_readable(address: *const u8, length: usize) -> bool {
    let frame_variable = 0u8;
    let (start, stack_pointer) = (address as usize, &raw const frame_variable as usize);
    let Some(last_byte) = start.checked_add(length.saturating_sub(1)) else { return false };
    if length == 0 {
        return true;
    }
    if start >= stack_pointer
        && (last_byte / MIN_PAGE_SIZE == stack_pointer / MIN_PAGE_SIZE
            || is_within_stack(stack_pointer, last_byte))
    {
        return true;
    }
    probe_readable(start)
        && (start / MIN_PAGE_SIZE == last_byte / MIN_PAGE_SIZE || probe_readable(last_byte))
}

/// Returns whether `last_byte`, which is not below `stack_pointer`, lies on the current stack.
fn is_within_stack(stack_pointer: usize, last_byte: usize) -> bool {
    let main_stack_end = MAIN_STACK_END.load(Ordering::Relaxed);
    if last_byte < main_stack_end && main_stack_end - stack_pointer < MAIN_STACK_WINDOW {
        return true;
    }
    // glibc returns the address of the thread's control block. In all threads but the main thread,
    // it lies at the upper end of the thread's stack.
    // SAFETY: pthread_self has no preconditions.
    let control_block = unsafe { libc::pthread_self() } as usize;
    let main_thread = MAIN_THREAD.load(Ordering::Relaxed);
    main_thread != 0
        && control_block != main_thread
        && last_byte < control_block
        && control_block - stack_pointer < THREAD_STACK_WINDOW
}

/// Makes a system call that probes whether the page that contains `address` is readable.
///
/// `FUTEX_CMP_REQUEUE` (futex(2)) reads the word at its address and compares the word with a value.
/// The call fails with `EFAULT` if the word is not readable. With the limits 0 and 0, it wakes and
/// moves no thread. Sandboxes permit futex, and tools such as valgrind accept this valid call.
#[cold]
fn probe_readable(address: usize) -> bool {
    const OPERATION: c_int = libc::FUTEX_CMP_REQUEUE | libc::FUTEX_PRIVATE_FLAG;
    let word = address & !(size_of::<u32>() - 1);
    let (max_woken, max_moved, expected_value) = (0, 0, 0);
    let arguments = [word, OPERATION as usize, max_woken, max_moved, word, expected_value];
    // SAFETY: the call changes nothing, and the kernel checks the pointer.
    let result = unsafe { system_call(libc::SYS_futex, arguments) };
    // The result is EAGAIN if the word differs from the value.
    result == 0 || result == -(libc::EAGAIN as isize)
}

/// Makes a system call that probes whether [`SIGSET_SIZE`] bytes at `address` are writable. The
/// kernel overwrites these bytes with the current signal mask, so the program must not need their
/// old value.
#[cold]
fn probe_writable(address: usize) -> bool {
    // SAFETY: a call without a new set does not change the mask, and the kernel checks the pointer.
    unsafe { system_call(libc::SYS_rt_sigprocmask, [0, 0, address, SIGSET_SIZE, 0, 0]) == 0 }
}
