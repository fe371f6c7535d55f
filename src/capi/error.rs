//! The result of a call: errors, panics, and the last error message of each thread.
//!
//! Invariants:
//!
//! - No panic leaves `catch_panic` or `silent`. `PanicValue` defines the value that C receives
//!   after a panic, for each return type.
//! - `silent` uses neither the heap nor thread-locals unless its closure does. Signal-safe
//!   functions use `silent`.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use super::status::vipool_status::{self, *};

/// The error of a call: the status, and an optional message with the details.
#[derive(Debug)]
pub(crate) struct CallError {
    pub(crate) status: vipool_status,
    pub(crate) message: Option<String>,
}

impl From<vipool_status> for CallError {
    fn from(status: vipool_status) -> Self {
        CallError { status, message: None }
    }
}

impl vipool_status {
    /// Returns an error with this status and a message.
    pub(crate) fn with_message(self, message: impl fmt::Display) -> CallError {
        CallError { status: self, message: Some(message.to_string()) }
    }
}

macro_rules! impl_from_errors {
    ($($error:ty,)*) => {
        $(impl From<$error> for CallError {
            fn from(error: $error) -> Self {
                vipool_status::from(&error).with_message(error)
            }
        })*
    };
}

impl_from_errors! {
    crate::map::ChangeError,
    crate::map::CloseError,
    crate::map::MapError,
    crate::map::OpenError,
    crate::range::RangeError,
    crate::session::SessionIdError,
}

/// A return type of the C ABI, with the value that C receives after a panic.
pub(crate) trait PanicValue {
    const AFTER_PANIC: Self;
}

impl PanicValue for vipool_status {
    const AFTER_PANIC: Self = VIPOOL_ERR_PANIC;
}

impl PanicValue for () {
    const AFTER_PANIC: Self = ();
}

/// Runs the body of a function that can fail.
///
/// After an error or a panic, records the message for the thread. After success, clears the message
/// of the previous call.
#[inline]
pub(crate) fn catch_panic(body: impl FnOnce() -> Result<(), CallError>) -> vipool_status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {
            clear_last_error();
            VIPOOL_OK
        }
        Ok(Err(error)) => record_error(error),
        Err(payload) => record_panic(payload),
    }
}

#[cold]
fn record_error(CallError { status, message }: CallError) -> vipool_status {
    match message {
        Some(message) => set_last_error(&message),
        None => set_last_error(status.text().to_str().unwrap_or_default()),
    }
    status
}

#[cold]
fn record_panic(payload: Box<dyn Any + Send>) -> vipool_status {
    let message = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    set_last_error(message);
    // Do not drop the payload, because its destructor may panic too.
    std::mem::forget(payload);
    VIPOOL_ERR_PANIC
}

/// Runs the body of a function that records no message, such as a signal-safe function.
#[inline]
pub(crate) fn silent<T: PanicValue>(body: impl FnOnce() -> T) -> T {
    silent_or(T::AFTER_PANIC, body)
}

/// Same as [`silent`], but returns `after_panic` after a panic.
#[inline]
pub(crate) fn silent_or<T>(after_panic: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            std::mem::forget(payload);
            after_panic
        }
    }
}

/// Same as [`silent`], but converts the result of `body` to a status.
#[inline]
pub(crate) fn silent_status(body: impl FnOnce() -> Result<(), vipool_status>) -> vipool_status {
    silent(|| body().err().unwrap_or(VIPOOL_OK))
}

/// Stops panics of this crate from printing to standard error.
///
/// Descriptor 2 of the host program may be any file, and printing allocates and takes locks.
/// [`vipool_last_error`] returns the message of a panic instead.
///
/// In a C program, only this library uses the replaced panic hook, because the library contains a
/// private copy of the Rust standard library. A Rust program shares the standard library with this
/// crate. The program's own panic hook still receives every panic outside this crate. The source
/// file of a panic shows which crate panicked.
pub(crate) fn silence_panics() {
    // Not a `Once`: if the process forked while another thread was in a `Once`, the child would wait
    // for this thread forever. With the flag, panics of such a child, or of a thread that calls this
    // function at the same time, can print.
    static IS_SILENCED: AtomicBool = AtomicBool::new(false);
    if IS_SILENCED.swap(true, Ordering::Relaxed) {
        return;
    }
    let previous_hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic_info| {
        let is_from_this_crate =
            panic_info.location().is_some_and(|place| place.file().starts_with(SOURCE_FOLDER));
        if !is_from_this_crate {
            previous_hook(panic_info);
        }
    }));
}

/// The source folder of this crate in the file names of panic locations.
const SOURCE_FOLDER: &str = {
    let (file, suffix_length) = (file!().as_bytes(), "capi/error.rs".len());
    match std::str::from_utf8(file.split_at(file.len() - suffix_length).0) {
        Ok(folder) => folder,
        Err(_) => panic!("file names are UTF-8"),
    }
};

/// Panics on purpose. Exists only in builds for the tests.
///
/// cbindgen:ignore
#[cfg(vipool_panic)]
#[unsafe(no_mangle)]
pub extern "C" fn vipool_panic() -> vipool_status {
    catch_panic(|| panic!("made on purpose"))
}

/// Panics on purpose in a signal-safe function. Exists only in builds for the tests.
///
/// cbindgen:ignore
#[cfg(vipool_panic)]
#[unsafe(no_mangle)]
pub extern "C" fn vipool_panic_silent() -> vipool_status {
    silent(|| panic!("made on purpose"))
}

/// Capacity of the last error message in bytes, including the NUL.
const MESSAGE_CAPACITY: usize = 1024;

/// The last error message, truncated to [`MESSAGE_CAPACITY`]. It always ends with a NUL.
/// [`vipool_last_error`] returns a pointer to the struct as a pointer to the text, so the text is at
/// its start.
#[repr(C)]
struct LastError {
    bytes: [u8; MESSAGE_CAPACITY],
    length: usize,
}

impl Write for LastError {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let length = text.floor_char_boundary(MESSAGE_CAPACITY - 1 - self.length);
        self.bytes[self.length..self.length + length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        self.bytes[self.length] = 0;
        Ok(())
    }
}

thread_local! {
    // The value is const and has no destructor. So on systems with native thread-locals, the first
    // use in a thread does not register a destructor and does not allocate. The Windows target of
    // the GNU toolchain has none: there the first use allocates, so `silent` must not use the value.
    static LAST_ERROR: RefCell<LastError> =
        const { RefCell::new(LastError { bytes: [0; MESSAGE_CAPACITY], length: 0 }) };
}

#[inline]
fn clear_last_error() {
    LAST_ERROR.with(|last_error| {
        if let Ok(mut last_error) = last_error.try_borrow_mut()
            && last_error.length > 0
        {
            last_error.length = 0;
            last_error.bytes[0] = 0;
        }
    });
}

fn set_last_error(text: &str) {
    LAST_ERROR.with(|last_error| {
        if let Ok(mut last_error) = last_error.try_borrow_mut() {
            last_error.length = 0;
            // For C, a NUL inside the text would end the text early.
            for (index, part) in text.split('\0').enumerate() {
                let _ = last_error.write_str(if index > 0 { "\u{fffd}" } else { "" });
                let _ = last_error.write_str(part);
            }
        }
    });
}

/// Returns the error message of the last call of this thread.
///
/// The message is in English. It names what failed, and where known also the value, the reason and
/// the remedy. It is UTF-8, has at most 1023 bytes, and ends with a NUL. It is empty if the call
/// succeeded.
///
/// A function that returns a vipool_status replaces the message, unless the function is signal-safe
/// or its description excludes this. No other function changes the message. For a status without a
/// message, use vipool_status_get_text().
///
/// Returns: a text of the library, valid until the next call of this thread.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_last_error() -> *const c_char {
    LAST_ERROR.with(|last_error| last_error.as_ptr().cast_const().cast())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn last_error() -> String {
        // SAFETY: the text ends with a NUL, and this thread makes no call while it reads.
        unsafe { CStr::from_ptr(vipool_last_error()) }.to_str().unwrap().to_owned()
    }

    extern "C" fn panicking_call() -> vipool_status {
        catch_panic(|| panic!("slot {} has no address", 7))
    }

    extern "C" fn panicking_silent_call() -> vipool_status {
        silent(|| panic!("never seen"))
    }

    #[test]
    fn panic_becomes_a_status() {
        let function: extern "C" fn() -> vipool_status = panicking_call;
        assert_eq!(function(), VIPOOL_ERR_PANIC);
        assert_eq!(last_error(), "slot 7 has no address");
        let function: extern "C" fn() -> vipool_status = panicking_silent_call;
        assert_eq!(function(), VIPOOL_ERR_PANIC);
        assert_eq!(last_error(), "slot 7 has no address");
        assert_eq!(silent_or(-2, || panic!("never seen")), -2);
    }

    #[test]
    fn message_is_truncated_and_thread_local() {
        catch_panic(|| Err(VIPOOL_ERR_PLAN.with_message("é".repeat(MESSAGE_CAPACITY))));
        assert_eq!(last_error(), "é".repeat((MESSAGE_CAPACITY - 1) / 2));
        catch_panic(|| Err(VIPOOL_ERR_PLAN.with_message("a\0b")));
        assert_eq!(last_error(), "a\u{fffd}b");
        catch_panic(|| Err(VIPOOL_ERR_NULL.into()));
        assert_eq!(last_error(), "a pointer that must not be NULL is NULL");
        assert_eq!(catch_panic(|| Ok(())), VIPOOL_OK);
        assert_eq!(last_error(), "");
        catch_panic(|| Err(VIPOOL_ERR_PLAN.with_message("")));
        assert_eq!(last_error(), "");
        std::thread::spawn(|| assert_eq!(last_error(), "")).join().unwrap();
    }
}
