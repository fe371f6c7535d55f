//! Reading what a program points at, when it may point at nothing.
//!
//! The kernel answers a bad pointer with `EFAULT`; a hook that looks first must not turn that into
//! a signal. What lies on the caller's own stack is read as it is; of anything else the kernel is
//! asked whether it can be read.

use std::mem::{MaybeUninit, offset_of};
use std::net::SocketAddr;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use vipool::rewrite::sockaddr::{self, IPV4_LENGTH, IPV6_LENGTH, MAX_LENGTH};

use crate::system_call::system_call;

/// The end of the main thread's stack, or an address near it.
static MAIN_STACK_END: AtomicUsize = AtomicUsize::new(0);

/// How far above the stack pointer the end of a thread's stack may be to be taken for that of the
/// stack in use. Less than the smallest usual stack.
const THREAD_STACK_WINDOW: usize = 64 << 10;
/// The same for the main thread, whose stack has this much of the address space to itself.
const MAIN_STACK_WINDOW: usize = 128 << 20;
/// The smallest page there is.
const MIN_PAGE_SIZE: usize = 4096;
/// How many bytes a set of signals has for the kernel.
const SIGSET_SIZE: usize = 8;

/// Remembers where the main thread's stack is: `inside` is in its oldest frame.
pub fn record_main_stack(address: *const u8) {
    MAIN_STACK_END.store(address as usize, Ordering::Relaxed);
}

/// A socket address that the program gave, copied: as much of it as an IPv4 or IPv6 address needs.
/// Those of other families are not looked at any further.
#[derive(Clone, Copy)]
pub struct SockaddrBuf {
    bytes: [u8; IPV6_LENGTH],
    length: u32,
}

impl SockaddrBuf {
    /// Copies it; `None` if the kernel would refuse it or can't read it.
    #[inline]
    pub fn read(address: *const libc::sockaddr, length: libc::socklen_t) -> Option<Self> {
        let length = usize::try_from(length).ok()?;
        if !(2..=MAX_LENGTH).contains(&length)
            || address.is_null()
            || !is_readable(address.cast(), length)
        {
            return None;
        }
        let mut bytes = [0; IPV6_LENGTH];
        let length = length.min(IPV6_LENGTH);
        let target = bytes.as_mut_ptr();
        // SAFETY: this many bytes can be read there, and there is room for them.
        unsafe {
            match length {
                // Nearly all: no call for 16 bytes.
                IPV4_LENGTH => ptr::copy_nonoverlapping(address.cast(), target, IPV4_LENGTH),
                _ => ptr::copy_nonoverlapping(address.cast(), target, length),
            }
        }
        Some(Self { bytes, length: length as u32 })
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length as usize).unwrap_or_default()
    }

    /// As long, with this address.
    pub fn with_address(&self, address: &SocketAddr) -> Self {
        let mut new = *self;
        sockaddr::write(address, new.bytes.get_mut(..self.length as usize).unwrap_or_default());
        new
    }

    pub fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    pub fn length(&self) -> libc::socklen_t {
        self.length
    }
}

/// A copy of a value that the program points at; `None` if it can't be read.
#[inline]
pub fn read<T: Copy>(address: *const T) -> Option<T> {
    if !is_readable(address.cast(), size_of::<T>()) {
        return None;
    }
    let mut value: MaybeUninit<T> = MaybeUninit::uninit();
    // SAFETY: the bytes can be read, there is room for them, and the callers' types (numbers,
    // structs of numbers and pointers) are valid whatever they are.
    unsafe {
        ptr::copy_nonoverlapping(address.cast::<u8>(), value.as_mut_ptr().cast(), size_of::<T>());
        Some(value.assume_init())
    }
}

/// The structs of an array that the program gave, looked at in their order: the kernel is asked
/// about each page once.
pub struct CallerArray<T> {
    first: *mut T,
    /// Up to here it can be read, and written.
    readable: usize,
    writable: usize,
}

impl<T: Copy> CallerArray<T> {
    pub fn new(first: *mut T) -> Self {
        Self { first, readable: 0, writable: 0 }
    }

    pub fn element_ptr(&self, index: usize) -> *mut T {
        self.first.wrapping_add(index)
    }

    /// A copy of one, as [`read`].
    pub fn read(&mut self, index: usize) -> Option<T> {
        let address = self.element_ptr(index);
        let end = (address as usize).checked_add(size_of::<T>())?;
        if end > self.readable {
            let unchecked = self.readable.max(address as usize);
            if !is_readable(unchecked as *const u8, end - unchecked) {
                return None;
            }
            self.readable = end.next_multiple_of(MIN_PAGE_SIZE);
        }
        // SAFETY: its bytes can be read; the type is one of those of `read`.
        Some(unsafe { address.read_unaligned() })
    }
}

impl CallerArray<libc::mmsghdr> {
    /// Writes how much of a message was sent, where the kernel would; whether that can be written.
    pub fn write_sent_length(&mut self, index: usize, length: libc::c_uint) -> bool {
        const { assert!(offset_of!(libc::mmsghdr, msg_len) + SIGSET_SIZE == size_of::<libc::mmsghdr>()) }
        let address = self.element_ptr(index).wrapping_byte_add(offset_of!(libc::mmsghdr, msg_len));
        let address = address.cast::<libc::c_uint>();
        let last = (address as usize).wrapping_add(SIGSET_SIZE - 1);
        let stack_byte = 0u8;
        let stack_pointer = &raw const stack_byte as usize;
        if last >= self.writable {
            let is_known_writable =
                address as usize >= stack_pointer && is_within_stack(stack_pointer, last);
            if !is_known_writable && !probe_writable(address as usize) {
                return false;
            }
            self.writable = last.next_multiple_of(MIN_PAGE_SIZE);
        }
        // SAFETY: it can be written.
        unsafe { address.write_unaligned(length) };
        true
    }
}

/// Whether these bytes can be read.
#[inline]
pub fn is_readable(address: *const u8, length: usize) -> bool {
    let stack_byte = 0u8;
    let (start, stack_pointer) = (address as usize, &raw const stack_byte as usize);
    let Some(last) = start.checked_add(length.saturating_sub(1)) else { return false };
    if length == 0 {
        return true;
    }
    // The stack is mapped from here to its end.
    if start >= stack_pointer
        && (last / MIN_PAGE_SIZE == stack_pointer / MIN_PAGE_SIZE
            || is_within_stack(stack_pointer, last))
    {
        return true;
    }
    probe_readable(start) && (start / MIN_PAGE_SIZE == last / MIN_PAGE_SIZE || probe_readable(last))
}

/// Whether the last byte is on the same stack as the one in use, above it.
fn is_within_stack(stack_pointer: usize, last: usize) -> bool {
    let main_end = MAIN_STACK_END.load(Ordering::Relaxed);
    if last < main_end && main_end - stack_pointer < MAIN_STACK_WINDOW {
        return true;
    }
    // SAFETY: takes nothing, and answers the address of the thread's own data, which lies at the
    // end of its stack.
    let thread_end = unsafe { libc::pthread_self() } as usize;
    last < thread_end && thread_end - stack_pointer < THREAD_STACK_WINDOW
}

/// Asks the kernel about the page that this byte is on. rt_sigprocmask(2) reads its set before it
/// looks at what it is to do, and refuses to do nothing known: `EFAULT` or `EINVAL`.
#[cold]
fn probe_readable(byte: usize) -> bool {
    const INVALID_HOW: usize = usize::MAX;
    let arguments = [INVALID_HOW, byte & !(SIGSET_SIZE - 1), 0, SIGSET_SIZE, 0, 0];
    // SAFETY: with this operation nothing is changed; the pointer is for the kernel to check.
    let result = unsafe { system_call(libc::SYS_rt_sigprocmask, arguments) };
    result == -(libc::EINVAL as isize)
}

/// Has the kernel write its set of signals there, a number that nobody wants and that is
/// overwritten next.
#[cold]
fn probe_writable(address: usize) -> bool {
    // SAFETY: without a new set nothing is changed; the pointer is for the kernel to check.
    unsafe { system_call(libc::SYS_rt_sigprocmask, [0, 0, address, SIGSET_SIZE, 0, 0]) == 0 }
}
