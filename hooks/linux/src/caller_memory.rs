//! Reads memory that the program passed to a hook and that may be invalid.
//!
//! The kernel answers an invalid pointer with `EFAULT`. A hook that reads the memory first must not
//! turn this into a signal. Memory on the caller's own stack is read directly. For all other memory
//! the hook asks the kernel whether it is accessible.

use std::mem::{MaybeUninit, offset_of};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::system_call::system_call;

/// The end of the main thread's stack, or an address close to it.
static MAIN_STACK_END: AtomicUsize = AtomicUsize::new(0);

/// A stack pointer at most this far below the end of the thread's stack lies on that stack, because
/// thread stacks are larger than this in practice. A signal handler may run on another stack.
const THREAD_STACK_WINDOW: usize = 64 << 10;
/// The same distance for the main thread. The kernel keeps this much address space free for its
/// stack.
const MAIN_STACK_WINDOW: usize = 128 << 20;
/// The smallest page size of all supported processors.
const MIN_PAGE_SIZE: usize = 4096;
/// The size of the kernel's signal set in bytes.
const SIGSET_SIZE: usize = 8;

/// Records the position of the main thread's stack. `address` lies in its oldest frame.
pub fn record_main_stack(address: *const u8) {
    MAIN_STACK_END.store(address as usize, Ordering::Relaxed);
}

/// Returns a copy of the value at `address`, or `None` if the memory cannot be read.
///
/// `T` must be valid for every bit pattern: a number, or a C struct of numbers and raw pointers.
#[inline]
pub fn read<T: Copy>(address: *const T) -> Option<T> {
    if !is_readable(address.cast(), size_of::<T>()) {
        return None;
    }
    let mut value: MaybeUninit<T> = MaybeUninit::uninit();
    // SAFETY: the bytes are readable and `value` has room for them. All callers use types that are
    // valid for every bit pattern.
    unsafe {
        ptr::copy_nonoverlapping(address.cast::<u8>(), value.as_mut_ptr().cast(), size_of::<T>());
        Some(value.assume_init())
    }
}

/// The kernel's limit of messages in one sendmmsg or recvmmsg (`UIO_MAXIOV`).
pub const MAX_MESSAGES: usize = 1024;

/// An array of structs in the program's memory, accessed in ascending order. The hook asks the kernel
/// at most once per page.
pub struct CallerArray<T> {
    first: *mut T,
    /// Addresses below this one are readable.
    readable_end: usize,
    /// Addresses below this one are writable.
    writable_end: usize,
}

impl<T: Copy> CallerArray<T> {
    pub fn new(first: *mut T) -> Self {
        Self { first, readable_end: 0, writable_end: 0 }
    }

    pub fn element_ptr(&self, index: usize) -> *mut T {
        self.first.wrapping_add(index)
    }

    /// Returns a copy of an element. The contract of [`read`] applies.
    pub fn read(&mut self, index: usize) -> Option<T> {
        let element = self.element_ptr(index);
        let end = (element as usize).checked_add(size_of::<T>())?;
        if end > self.readable_end {
            let unchecked = self.readable_end.max(element as usize);
            if !is_readable(unchecked as *const u8, end - unchecked) {
                return None;
            }
            self.readable_end = end.next_multiple_of(MIN_PAGE_SIZE);
        }
        // SAFETY: all bytes of the element are readable, and the type is valid for every bit
        // pattern.
        Some(unsafe { element.read_unaligned() })
    }
}

impl CallerArray<libc::mmsghdr> {
    /// Stores the sent length of a message, as the kernel does. Returns `false` if the memory is
    /// not writable.
    pub fn write_sent_length(&mut self, index: usize, length: libc::c_uint) -> bool {
        // The probe writes SIGSET_SIZE bytes, which must not reach into the next element.
        const { assert!(offset_of!(libc::mmsghdr, msg_len) + SIGSET_SIZE == size_of::<libc::mmsghdr>()) }
        let field = self.element_ptr(index).wrapping_byte_add(offset_of!(libc::mmsghdr, msg_len));
        let field = field.cast::<libc::c_uint>();
        let last = (field as usize).wrapping_add(SIGSET_SIZE - 1);
        let local = 0u8;
        let stack_pointer = &raw const local as usize;
        if last >= self.writable_end {
            let is_on_stack =
                field as usize >= stack_pointer && is_within_stack(stack_pointer, last);
            if !is_on_stack && !probe_writable(field as usize) {
                return false;
            }
            self.writable_end = last.next_multiple_of(MIN_PAGE_SIZE);
        }
        // SAFETY: the field is writable.
        unsafe { field.write_unaligned(length) };
        true
    }
}

/// Returns whether all `length` bytes at `address` are readable.
#[inline]
pub fn is_readable(address: *const u8, length: usize) -> bool {
    let local = 0u8;
    let (start, stack_pointer) = (address as usize, &raw const local as usize);
    let Some(last) = start.checked_add(length.saturating_sub(1)) else { return false };
    if length == 0 {
        return true;
    }
    // A stack is mapped from the stack pointer to its end.
    if start >= stack_pointer
        && (last / MIN_PAGE_SIZE == stack_pointer / MIN_PAGE_SIZE
            || is_within_stack(stack_pointer, last))
    {
        return true;
    }
    probe_readable(start) && (start / MIN_PAGE_SIZE == last / MIN_PAGE_SIZE || probe_readable(last))
}

/// Returns whether `last` lies on the current stack, given that it is above `stack_pointer`.
fn is_within_stack(stack_pointer: usize, last: usize) -> bool {
    let main_end = MAIN_STACK_END.load(Ordering::Relaxed);
    if last < main_end && main_end - stack_pointer < MAIN_STACK_WINDOW {
        return true;
    }
    // SAFETY: pthread_self has no preconditions. glibc returns the address of the thread's control
    // block, which lies at the end of the thread's stack.
    let thread_end = unsafe { libc::pthread_self() } as usize;
    last < thread_end && thread_end - stack_pointer < THREAD_STACK_WINDOW
}

/// Asks the kernel whether the page of this byte is readable.
///
/// rt_sigprocmask(2) reads its new set before it checks the operation. With an invalid operation it
/// fails with `EFAULT` for an unreadable set and with `EINVAL` for a readable one.
#[cold]
fn probe_readable(byte: usize) -> bool {
    const INVALID_HOW: usize = usize::MAX;
    let arguments = [INVALID_HOW, byte & !(SIGSET_SIZE - 1), 0, SIGSET_SIZE, 0, 0];
    // SAFETY: an invalid operation changes nothing, and the kernel checks the pointer.
    let result = unsafe { system_call(libc::SYS_rt_sigprocmask, arguments) };
    result == -(libc::EINVAL as isize)
}

/// Asks the kernel whether [`SIGSET_SIZE`] bytes at `address` are writable. The kernel stores the
/// current signal mask there, and the caller overwrites it next.
#[cold]
fn probe_writable(address: usize) -> bool {
    // SAFETY: without a new set the mask does not change, and the kernel checks the pointer.
    unsafe { system_call(libc::SYS_rt_sigprocmask, [0, 0, address, SIGSET_SIZE, 0, 0]) == 0 }
}
