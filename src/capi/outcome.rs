//! How a call ends: what a failure or a panic becomes, and the last-error text of a thread.
//!
//! Invariants: no panic leaves `call` or `quiet`; what comes out instead is decided once per
//! return type (`Answer`). `quiet` touches neither heap nor thread-locals as long as its
//! closure does not, so that hook-side functions may run in a signal handler.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::status::vipool_status::{self, *};

/// Why a call failed: the status, and a text that says more than the status does.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: vipool_status,
    pub(crate) text: Option<String>,
}

impl From<vipool_status> for Failure {
    fn from(status: vipool_status) -> Self {
        Failure { status, text: None }
    }
}

impl vipool_status {
    /// This status with a text of its own.
    pub(crate) fn because(self, text: impl fmt::Display) -> Failure {
        Failure { status: self, text: Some(text.to_string()) }
    }
}

macro_rules! failures {
    ($($error:ty,)*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                vipool_status::from(&error).because(error)
            }
        })*
    };
}

failures! {
    crate::map::ChangeError,
    crate::map::CloseError,
    crate::map::MapError,
    crate::map::OpenError,
    crate::pool::PoolError,
    crate::range::RangeError,
    crate::session::SessionIdError,
}

/// A type that functions of the C ABI return: what each of them gives back after a panic.
pub(crate) trait Answer {
    const AFTER_PANIC: Self;
}

impl Answer for vipool_status {
    const AFTER_PANIC: Self = VIPOOL_ERR_PANIC;
}

impl Answer for () {
    const AFTER_PANIC: Self = ();
}

/// Counts: nothing is there.
impl Answer for usize {
    const AFTER_PANIC: Self = 0;
}

/// What a callback of ours answers: not known.
impl Answer for i32 {
    const AFTER_PANIC: Self = super::rewriter::VIPOOL_LISTENER_UNKNOWN;
}

/// Runs the body of a function that can fail. A failure leaves its text for the thread.
#[inline]
pub(crate) fn call(body: impl FnOnce() -> Result<(), Failure>) -> vipool_status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => VIPOOL_OK,
        Ok(Err(failure)) => failed(failure),
        Err(panic) => panicked(panic),
    }
}

#[cold]
fn failed(Failure { status, text }: Failure) -> vipool_status {
    match text {
        Some(text) => remember(&text),
        None => remember(status.text().to_str().unwrap_or_default()),
    }
    status
}

#[cold]
fn panicked(panic: Box<dyn Any + Send>) -> vipool_status {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    remember(what);
    // A payload may panic once more when it is dropped.
    std::mem::forget(panic);
    VIPOOL_ERR_PANIC
}

/// Runs the body of a function that may be called where nothing is allowed: no text is left.
#[inline]
pub(crate) fn quiet<T: Answer>(body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(answer) => answer,
        Err(panic) => {
            std::mem::forget(panic);
            T::AFTER_PANIC
        }
    }
}

/// Keeps panics of ours off the host program's standard error: descriptor 2 may be a database by
/// now, and what prints allocates and locks. Their text is in [`vipool_last_error`] where there is
/// one.
///
/// A C program's copy of the standard library is this library's own, so that nothing of the program's
/// is changed. A Rust program shares it: there the hook that was set goes on to see all panics of
/// other code, known by where they are.
pub(crate) fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let is_ours = |file: &str| file.strip_prefix(FOLDER).is_some();
            if !panic.location().is_some_and(|place| is_ours(place.file())) {
                others(panic);
            }
        }));
    });
}

/// The folder of this crate's sources, as places in it are named.
const FOLDER: &str = {
    let (file, this) = (file!().as_bytes(), "capi/outcome.rs".len());
    match std::str::from_utf8(file.split_at(file.len() - this).0) {
        Ok(folder) => folder,
        Err(_) => panic!("file names are UTF-8"),
    }
};

/// A mistake inside the library, made on purpose: in a build of the tests alone.
///
/// cbindgen:ignore
#[cfg(vipool_panic)]
#[unsafe(no_mangle)]
pub extern "C" fn vipool_panic() -> vipool_status {
    call(|| panic!("made on purpose"))
}

/// The same in a function that may be called in a signal handler.
///
/// cbindgen:ignore
#[cfg(vipool_panic)]
#[unsafe(no_mangle)]
pub extern "C" fn vipool_panic_quietly() -> vipool_status {
    quiet(|| panic!("made on purpose"))
}

/// Room for a text, its NUL included.
const ROOM: usize = 1024;

/// A text cut to fit, always NUL-terminated.
struct LastError {
    bytes: [u8; ROOM],
    length: usize,
}

impl Write for LastError {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(ROOM - 1 - self.length);
        self.bytes[self.length..self.length + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.length += fits;
        self.bytes[self.length] = 0;
        Ok(())
    }
}

thread_local! {
    // Const and without a destructor: the first use registers nothing.
    static LAST: RefCell<LastError> =
        const { RefCell::new(LastError { bytes: [0; ROOM], length: 0 }) };
}

fn remember(text: &str) {
    LAST.with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            last.length = 0;
            // A NUL inside would cut the text where C stops reading.
            for (place, piece) in text.split('\0').enumerate() {
                let _ = last.write_str(if place > 0 { "\u{fffd}" } else { "" });
                let _ = last.write_str(piece);
            }
        }
    });
}

/// The details of the last call of this thread that failed: what is wrong, where, and what to do,
/// in English, NUL-terminated, at most 1023 bytes of UTF-8. Empty before the first failure; kept
/// until the next one.
///
/// The text belongs to the library and is valid until the next call of this thread. Functions
/// that may be called in a signal handler leave it alone.
///
/// May be called from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_last_error() -> *const c_char {
    LAST.with(|last| last.as_ptr().cast_const().cast())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn last() -> String {
        // SAFETY: the text is NUL-terminated and this thread makes no call while it reads.
        unsafe { CStr::from_ptr(vipool_last_error()) }.to_str().unwrap().to_owned()
    }

    extern "C" fn panics() -> vipool_status {
        call(|| panic!("slot {} has no address", 7))
    }

    extern "C" fn panics_quietly() -> usize {
        quiet(|| panic!("never seen"))
    }

    #[test]
    fn panics_come_out_as_values() {
        let forced: extern "C" fn() -> vipool_status = panics;
        assert_eq!(forced(), VIPOOL_ERR_PANIC);
        assert_eq!(last(), "slot 7 has no address");
        let forced: extern "C" fn() -> usize = panics_quietly;
        assert_eq!(forced(), 0);
        assert_eq!(last(), "slot 7 has no address");
    }

    #[test]
    fn texts_are_cut_and_belong_to_the_thread() {
        call(|| Err(VIPOOL_ERR_PLAN.because("é".repeat(ROOM))));
        assert_eq!(last(), "é".repeat((ROOM - 1) / 2));
        call(|| Err(VIPOOL_ERR_PLAN.because("a\0b")));
        assert_eq!(last(), "a\u{fffd}b");
        call(|| Err(VIPOOL_ERR_NULL.into()));
        assert_eq!(last(), "a pointer that must not be NULL is");
        std::thread::spawn(|| assert_eq!(last(), "")).join().unwrap();
    }
}
