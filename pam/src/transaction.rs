//! The few functions of libpam that the module calls (pam(3), pam_get_item(3)), and safe names
//! for them.
//!
//! Strings of PAM are bytes that end in NUL and can hold anything else; what libpam returns lives
//! as long as the transaction, so longer than any function of ours.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

/// `pam_handle_t`: libpam's own.
#[repr(C)]
pub struct PamHandle {
    _private: [u8; 0],
}

/// Values of `<security/_pam_types.h>`.
pub const PAM_SUCCESS: c_int = 0;
/// The session is refused.
pub const PAM_SESSION_ERR: c_int = 14;
/// The module has no say.
pub const PAM_IGNORE: c_int = 25;

/// What can be asked of the transaction.
#[derive(Clone, Copy)]
#[repr(i32)]
pub enum Item {
    /// Name of the service, such as `sshd`.
    Service = 1,
    /// Name of the user.
    User = 2,
    /// Where the user's client is.
    RemoteHost = 4,
}

const PAM_CONV: c_int = 5;
const PAM_ERROR_MSG: c_int = 3;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

#[repr(C)]
struct Conversation {
    converse: Option<
        unsafe extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int,
    >,
    data: *mut c_void,
}

type Cleanup = unsafe extern "C" fn(*mut PamHandle, *mut c_void, c_int);

// By its full name: the link without a version comes with the headers only.
#[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    fn pam_get_item(pamh: *const PamHandle, item: c_int, value: *mut *const c_void) -> c_int;
    fn pam_getenv(pamh: *mut PamHandle, name: *const c_char) -> *const c_char;
    fn pam_putenv(pamh: *mut PamHandle, text: *const c_char) -> c_int;
    fn pam_set_data(
        pamh: *mut PamHandle,
        name: *const c_char,
        data: *mut c_void,
        cleanup: Option<Cleanup>,
    ) -> c_int;
    fn pam_get_data(pamh: *const PamHandle, name: *const c_char, data: *mut *const c_void)
    -> c_int;
    fn pam_syslog(pamh: *const PamHandle, priority: c_int, format: *const c_char, ...);
}

/// A PAM transaction, for as long as one of the module's entry points runs.
pub struct Transaction(*mut PamHandle);

impl Transaction {
    /// # Safety
    /// `raw` is the handle that libpam called an entry point with, and that call has not returned.
    pub unsafe fn new(raw: *mut PamHandle) -> Self {
        Self(raw)
    }

    /// A text of the transaction; empty ones are none.
    pub fn item(&self, item: Item) -> Option<&CStr> {
        let mut value = ptr::null();
        // SAFETY: the handle is libpam's (see `new`), and one pointer is written.
        let status = unsafe { pam_get_item(self.0, item as c_int, &mut value) };
        if status != PAM_SUCCESS || value.is_null() {
            return None;
        }
        // SAFETY: the items of the enum are strings that end in NUL and live with the transaction.
        let text = unsafe { CStr::from_ptr(value.cast()) };
        Some(text).filter(|text| !text.is_empty())
    }

    /// A variable of the session to be; empty ones are none.
    pub fn env(&self, name: &CStr) -> Option<&CStr> {
        // SAFETY: the handle is libpam's; the result is NULL or a string of the transaction's.
        let text = unsafe {
            let text = pam_getenv(self.0, name.as_ptr());
            (!text.is_null()).then(|| CStr::from_ptr(text))
        };
        text.filter(|text| !text.is_empty())
    }

    /// Sets a variable of the session to be. It is libpam's list, not this process's environment.
    /// Whether that succeeded.
    pub fn set_env(&self, name: &str, value: &[u8]) -> bool {
        let Ok(text) = CString::new([name.as_bytes(), b"=", value].concat()) else { return false };
        // SAFETY: the handle is libpam's, and libpam copies the text.
        unsafe { pam_putenv(self.0, text.as_ptr()) == PAM_SUCCESS }
    }

    /// Keeps a value with the transaction under this name, dropping the one before.
    pub fn set_data<T: Send + 'static>(&self, name: &CStr, value: T) -> bool {
        let data = Box::into_raw(Box::new(value));
        // SAFETY: the handle is libpam's; the data is a box that `drop_box` takes back.
        let status =
            unsafe { pam_set_data(self.0, name.as_ptr(), data.cast(), Some(drop_box::<T>)) };
        if status != PAM_SUCCESS {
            // SAFETY: libpam did not take the box, so it is still ours alone.
            drop(unsafe { Box::from_raw(data) });
        }
        status == PAM_SUCCESS
    }

    /// What was kept under this name.
    ///
    /// # Safety
    /// `T` is the type that [`Transaction::set_data`] was given for this name.
    pub unsafe fn data<T: 'static>(&self, name: &CStr) -> Option<&T> {
        let mut data = ptr::null();
        // SAFETY: the handle is libpam's, and one pointer is written.
        let status = unsafe { pam_get_data(self.0, name.as_ptr(), &mut data) };
        if status != PAM_SUCCESS {
            return None;
        }
        // SAFETY: NULL, or a box of `T` by the caller's promise; libpam drops it only when it is
        // replaced or the transaction ends.
        unsafe { data.cast::<T>().as_ref() }
    }

    /// Forgets what was kept under this name.
    pub fn clear_data(&self, name: &CStr) {
        // SAFETY: the handle is libpam's; NULL without a cleanup function stands for nothing.
        unsafe { pam_set_data(self.0, name.as_ptr(), ptr::null_mut(), None) };
    }

    /// Writes a line to the system's log, as this module and service. Bytes that could fake
    /// another line or drive a terminal are escaped.
    pub fn log(&self, priority: c_int, text: &str) {
        let text = escape_control_characters(text);
        // SAFETY: the format takes one string, which ends in NUL.
        unsafe { pam_syslog(self.0, priority, c"%s".as_ptr(), text.as_ptr()) };
    }

    /// Shows the user a message, where the application has a way to.
    pub fn show_error(&self, text: &str) {
        let mut value = ptr::null();
        // SAFETY: the handle is libpam's, and one pointer is written.
        if unsafe { pam_get_item(self.0, PAM_CONV, &mut value) } != PAM_SUCCESS {
            return;
        }
        // SAFETY: this item is NULL or a `pam_conv` that lives with the transaction.
        let conversation = unsafe { value.cast::<Conversation>().as_ref() };
        let Some((converse, data)) = conversation.and_then(|c| Some((c.converse?, c.data))) else {
            return;
        };
        let text = escape_control_characters(text);
        let message = Message { style: PAM_ERROR_MSG, text: text.as_ptr() };
        let mut messages: *const Message = &message;
        let mut responses: *mut Response = ptr::null_mut();
        // SAFETY: by pam_conv(3): an array of one message, a pointer for the answers and the
        // application's own pointer; the answers come from malloc(3) and are ours to free.
        unsafe {
            converse(1, &mut messages, &mut responses, data);
            if !responses.is_null() {
                libc::free((*responses).text.cast());
                libc::free(responses.cast());
            }
        }
    }
}

/// # Safety
/// libpam calls it once, with what [`Transaction::set_data`] gave it.
unsafe extern "C" fn drop_box<T>(_: *mut PamHandle, data: *mut c_void, _: c_int) {
    if !data.is_null() {
        // SAFETY: by the caller's promise a box of `T` that nobody else has.
        drop(unsafe { Box::from_raw(data.cast::<T>()) });
    }
}

/// The text without control characters, as a C string.
pub fn escape_control_characters(text: &str) -> CString {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    CString::new(text.chars().map(escape).collect::<String>()).expect("NUL is a control character")
}
