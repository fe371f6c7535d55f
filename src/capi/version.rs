//! The version, as macros in the header and as a call into the library.

use super::status::vipool_status;

/// Major part of the version of this header: it changes when a program must be changed.
pub const VIPOOL_VERSION_MAJOR: u32 = 0;
/// Minor part of the version of this header: it changes when something is added.
pub const VIPOOL_VERSION_MINOR: u32 = 1;
/// Patch part of the version of this header: it changes when only the insides changed.
pub const VIPOOL_VERSION_PATCH: u32 = 0;
/// The version of this header as one number: major * 1000000 + minor * 1000 + patch.
pub const VIPOOL_VERSION_NUMBER: u32 = 1000;

/// The version of the library that is loaded, as one number: major * 1000000 + minor * 1000 +
/// patch. Compare it with VIPOOL_VERSION_NUMBER to find out whether header and library belong
/// together.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_version_number() -> u32 {
    VIPOOL_VERSION_NUMBER
}

/// The version of the library that is loaded as text, such as "0.1.0". Static: nothing to free.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_version() -> *const std::ffi::c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The text for a user when no address is left, word for word. Static: nothing to free.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_exhausted_message() -> *const std::ffi::c_char {
    vipool_status::VIPOOL_ERR_EXHAUSTED.text().as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_call_and_crate_agree() {
        let text = format!("{VIPOOL_VERSION_MAJOR}.{VIPOOL_VERSION_MINOR}.{VIPOOL_VERSION_PATCH}");
        assert_eq!(text, env!("CARGO_PKG_VERSION"));
        assert_eq!(
            vipool_version_number(),
            VIPOOL_VERSION_MAJOR * 1_000_000 + VIPOOL_VERSION_MINOR * 1000 + VIPOOL_VERSION_PATCH
        );
        // SAFETY: the library's own static, NUL-terminated text.
        let loaded = unsafe { std::ffi::CStr::from_ptr(vipool_version()) };
        assert_eq!(loaded.to_str(), Ok(text.as_str()));
    }
}
