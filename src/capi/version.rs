//! The versions of the header and the library, and the clock.

use std::ffi::c_char;

/// Major version of this header. A new major version can break existing programs.
pub const VIPOOL_VERSION_MAJOR: u32 = 0;
/// Minor version of this header. A new minor version adds features.
pub const VIPOOL_VERSION_MINOR: u32 = 1;
/// Patch version of this header. A new patch version does not change the interface.
pub const VIPOOL_VERSION_PATCH: u32 = 0;
/// Version of this header as one number: major * 1000000 + minor * 1000 + patch.
pub const VIPOOL_VERSION_NUMBER: u32 = 1000;

/// Returns the version of the loaded library as a number.
///
/// Compare it with VIPOOL_VERSION_NUMBER to check that the header matches the library.
///
/// Returns: major * 1000000 + minor * 1000 + patch.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_version_number() -> u32 {
    VIPOOL_VERSION_NUMBER
}

/// Returns the version of the loaded library as text, such as "0.1.0".
///
/// Returns: a static text.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Returns the current tick.
///
/// A tick is the number of seconds since the machine was started, including the time that it was
/// asleep. Changes of the wall clock do not affect ticks. Every parameter `now` is a tick.
///
/// Returns: the tick.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_now() -> u32 {
    crate::Tick::now().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_function_and_crate_have_the_same_version() {
        let macro_text =
            format!("{VIPOOL_VERSION_MAJOR}.{VIPOOL_VERSION_MINOR}.{VIPOOL_VERSION_PATCH}");
        assert_eq!(macro_text, env!("CARGO_PKG_VERSION"));
        assert_eq!(
            vipool_version_number(),
            VIPOOL_VERSION_MAJOR * 1_000_000 + VIPOOL_VERSION_MINOR * 1000 + VIPOOL_VERSION_PATCH
        );
        // SAFETY: a static text that ends with a NUL.
        let version_text = unsafe { std::ffi::CStr::from_ptr(vipool_version()) };
        assert_eq!(version_text.to_str(), Ok(macro_text.as_str()));
    }
}
