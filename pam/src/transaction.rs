//! A safe interface to the functions of libpam that the module calls (pam(3), pam_get_item(3)).
//!
//! PAM strings end in NUL and can contain any other bytes. A value that libpam returns lives until
//! it is replaced or the transaction ends. The application can replace an item in its conversation
//! function.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

/// `pam_handle_t`, an opaque type of libpam.
#[repr(C)]
pub struct PamHandle {
    _private: [u8; 0],
}

/// The call succeeded. `<security/_pam_types.h>` defines this value and the following values.
pub const PAM_SUCCESS: c_int = 0;
/// The session cannot be opened.
pub const PAM_SESSION_ERR: c_int = 14;
/// libpam ignores the result of this module.
pub const PAM_IGNORE: c_int = 25;

/// A text item of the transaction.
#[derive(Clone, Copy)]
#[repr(i32)]
pub enum Item {
    /// The name of the service, such as `sshd`.
    Service = 1,
    /// The name of the user.
    User = 2,
    /// The host of the user's client.
    RemoteHost = 4,
}

/// The item that contains the conversation function of the application.
const PAM_CONV: c_int = 5;
/// The style of an error message in a conversation.
const PAM_ERROR_MSG: c_int = 3;

/// `struct pam_message`.
#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

/// `struct pam_response`.
#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

/// `struct pam_conv`.
#[repr(C)]
struct Conversation {
    converse: Option<
        unsafe extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int,
    >,
    data: *mut c_void,
}

type Cleanup = unsafe extern "C" fn(*mut PamHandle, *mut c_void, c_int);

// The name of the library contains its version, because only the development package installs
// `libpam.so`.
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

/// A PAM transaction. The value is valid during one call of an entry point.
pub struct Transaction(*mut PamHandle);

impl Transaction {
    /// Wraps a handle of libpam.
    ///
    /// # Safety
    /// libpam called an entry point with `handle`, and that call has not returned.
    pub unsafe fn new(handle: *mut PamHandle) -> Self {
        Self(handle)
    }

    /// Returns a copy of an item of the transaction. Returns `None` if the item is unset or empty.
    pub fn item(&self, item: Item) -> Option<CString> {
        let mut value = ptr::null();
        // SAFETY: the handle is valid (see `new`). libpam writes one pointer.
        let status = unsafe { pam_get_item(self.0, item as c_int, &mut value) };
        if status != PAM_SUCCESS || value.is_null() {
            return None;
        }
        // SAFETY: these items are C strings. This function copies the string, because the
        // application can replace the item in its conversation function, and libpam then frees the
        // string.
        let text = unsafe { CStr::from_ptr(value.cast()) }.to_owned();
        Some(text).filter(|text| !text.is_empty())
    }

    /// Returns an environment variable of the new session. Returns `None` if the variable is unset
    /// or empty.
    pub fn env(&self, name: &CStr) -> Option<CString> {
        // SAFETY: the handle is valid. The result is NULL or a C string of the transaction. This
        // function copies the string, because a later `set_env` can free it.
        let text = unsafe {
            let text = pam_getenv(self.0, name.as_ptr());
            (!text.is_null()).then(|| CStr::from_ptr(text).to_owned())
        };
        text.filter(|text| !text.is_empty())
    }

    /// Sets an environment variable of the new session. The environment of this process does not
    /// change. Returns whether the call succeeded.
    pub fn set_env(&self, name: &str, value: &[u8]) -> bool {
        let Ok(text) = CString::new([name.as_bytes(), b"=", value].concat()) else { return false };
        // SAFETY: the handle is valid, and libpam copies the text.
        unsafe { pam_putenv(self.0, text.as_ptr()) == PAM_SUCCESS }
    }

    /// Stores a value in the transaction under this name, and drops the previous value. Returns
    /// whether the call succeeded.
    pub fn set_data<T: Send + 'static>(&self, name: &CStr, value: T) -> bool {
        let data = Box::into_raw(Box::new(value));
        // SAFETY: the handle is valid. The data is a box of `T`, which `drop_box::<T>` frees.
        let status =
            unsafe { pam_set_data(self.0, name.as_ptr(), data.cast(), Some(drop_box::<T>)) };
        if status != PAM_SUCCESS {
            // SAFETY: libpam did not store the pointer, so this function is the only owner of the
            // box.
            drop(unsafe { Box::from_raw(data) });
        }
        status == PAM_SUCCESS
    }

    /// Returns the value stored under this name.
    ///
    /// # Safety
    /// Every value that [`Transaction::set_data`] stores under this name has type `T`, also in
    /// another version of this module that the transaction uses. The caller does not use the result
    /// after the value is replaced or cleared.
    pub unsafe fn data<T: 'static>(&self, name: &CStr) -> Option<&T> {
        let mut data = ptr::null();
        // SAFETY: the handle is valid. libpam writes one pointer.
        let status = unsafe { pam_get_data(self.0, name.as_ptr(), &mut data) };
        if status != PAM_SUCCESS {
            return None;
        }
        // SAFETY: the caller guarantees that the pointer is NULL or a box of `T`. libpam frees the
        // box only when the value is replaced or the transaction ends.
        unsafe { data.cast::<T>().as_ref() }
    }

    /// Drops the value stored under this name.
    pub fn clear_data(&self, name: &CStr) {
        // SAFETY: the handle is valid. A NULL value needs no cleanup function.
        unsafe { pam_set_data(self.0, name.as_ptr(), ptr::null_mut(), None) };
    }

    /// Writes a line to the system log, with the names of this module and of the service. Escapes
    /// control characters, so that the text can neither forge a log line nor control a terminal.
    pub fn log(&self, priority: c_int, text: &str) {
        let text = escape_control_characters(text);
        // SAFETY: the handle is valid. The format takes one C string.
        unsafe { pam_syslog(self.0, priority, c"%s".as_ptr(), text.as_ptr()) };
    }

    /// Shows the user an error message, if the application supports it.
    ///
    /// See the requirement on the conversation function in the documentation of the crate. If the
    /// application does not meet it, the behaviour is undefined.
    pub fn show_error(&self, text: &str) {
        let mut value = ptr::null();
        // SAFETY: the handle is valid. libpam writes one pointer.
        if unsafe { pam_get_item(self.0, PAM_CONV, &mut value) } != PAM_SUCCESS {
            return;
        }
        // SAFETY: this item is NULL or a `pam_conv` that lives as long as the transaction.
        let conversation = unsafe { value.cast::<Conversation>().as_ref() };
        let Some((converse, data)) =
            conversation.and_then(|conversation| Some((conversation.converse?, conversation.data)))
        else {
            return;
        };
        let text = escape_control_characters(text);
        let message = Message { style: PAM_ERROR_MSG, text: text.as_ptr() };
        let mut messages: *const Message = &message;
        let mut responses: *mut Response = ptr::null_mut();
        // SAFETY: pam_conv(3) requires these arguments: an array of one message, a pointer for the
        // responses, and the application's own pointer. It also requires that the caller frees the
        // responses with free(3).
        unsafe {
            converse(1, &mut messages, &mut responses, data);
            if !responses.is_null() {
                libc::free((*responses).text.cast());
                libc::free(responses.cast());
            }
        }
    }
}

/// Frees a value that [`Transaction::set_data`] stored.
///
/// # Safety
/// `data` is NULL or the box that `set_data` passed to libpam. libpam calls this function once for
/// each box.
unsafe extern "C" fn drop_box<T>(_: *mut PamHandle, data: *mut c_void, _: c_int) {
    if !data.is_null() {
        // SAFETY: the pointer is a box of `T` from `set_data`, and this function is its only owner.
        drop(unsafe { Box::from_raw(data.cast::<T>()) });
    }
}

/// Converts a text to a C string and escapes its control characters.
pub fn escape_control_characters(text: &str) -> CString {
    let escape = |character: char| {
        if character.is_control() {
            character.escape_default().to_string()
        } else {
            character.into()
        }
    };
    CString::new(text.chars().map(escape).collect::<String>()).expect("NUL is a control character")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
    unsafe extern "C" {
        fn pam_start(
            service: *const c_char,
            user: *const c_char,
            conversation: *const Conversation,
            pamh: *mut *mut PamHandle,
        ) -> c_int;
        fn pam_end(pamh: *mut PamHandle, status: c_int) -> c_int;
        fn pam_set_item(pamh: *mut PamHandle, item: c_int, value: *const c_void) -> c_int;
    }

    /// A conversation function that replaces the user of the transaction in `data`.
    unsafe extern "C" fn replace_user(
        _: c_int,
        _: *mut *const Message,
        _: *mut *mut Response,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: the test passes a cell with the handle of its transaction.
        let handle = unsafe { &*data.cast::<Cell<*mut PamHandle>>() }.get();
        let user = c"mallory".as_ptr().cast();
        // SAFETY: the handle is valid, and libpam copies the string.
        unsafe { pam_set_item(handle, Item::User as c_int, user) }
    }

    #[test]
    fn item_outlives_its_replacement_in_the_conversation() {
        let handle_cell = Cell::new(ptr::null_mut());
        let data = (&raw const handle_cell).cast_mut().cast();
        let conversation = Conversation { converse: Some(replace_user), data };
        let mut handle = ptr::null_mut();
        // SAFETY: the strings are C strings, and the conversation outlives the transaction.
        let status = unsafe {
            pam_start(c"vipool-test".as_ptr(), c"alice".as_ptr(), &conversation, &mut handle)
        };
        assert_eq!(status, PAM_SUCCESS);
        handle_cell.set(handle);
        // SAFETY: the transaction ends at the end of this test.
        let transaction = unsafe { Transaction::new(handle) };
        let user = transaction.item(Item::User).unwrap();
        transaction.show_error("no address");
        assert_eq!(user.to_str(), Ok("alice"));
        assert_eq!(transaction.item(Item::User).unwrap().to_str(), Ok("mallory"));
        // SAFETY: the handle is not used afterwards.
        unsafe { pam_end(handle, PAM_SUCCESS) };
    }
}
