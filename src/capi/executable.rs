//! A running program, as a hook or an agent describes it.

use std::ffi::{CStr, c_char, c_void};

use super::error::silent_status;
use super::handle::check_not_null;
use super::layout::layout;
use super::status::vipool_status::{self, *};
use super::text::{read_bytes, read_slice, read_utf16_units};
use crate::policy::path::utf16_to_wtf8;
use crate::policy::{Executable, PathStyle, script_argument};

/// How paths are compared.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_path_style {
    /// "/" separates components; case matters.
    VIPOOL_PATHS_POSIX = 0,
    /// "\" and "/" separate components; case does not matter. The prefix "\\?\" is ignored, and so
    /// are trailing dots and spaces of each component.
    VIPOOL_PATHS_WINDOWS = 1,
}

/// Encoding of the texts of a vipool_executable.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_encoding {
    /// Bytes, like POSIX paths. Lengths are in bytes. The library compares the bytes with the UTF-8
    /// texts of the process list.
    VIPOOL_ENCODING_BYTES = 0,
    /// UTF-16, like Windows paths. Lengths are in units of two bytes. A path that needs more than
    /// 4096 bytes of UTF-8 causes VIPOOL_ERR_BUFFER. A path that is not aligned to two bytes causes
    /// VIPOOL_ERR_UTF16.
    VIPOOL_ENCODING_UTF16 = 1,
}

/// A running program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_executable {
    /// sizeof(vipool_executable), set by the caller.
    pub size: usize,
    /// Path of the program file: the target of /proc/self/exe, or the result of GetModuleFileNameW.
    pub path: *const c_void,
    /// Length of `path`.
    pub path_length: usize,
    /// Path by which the program was started: getauxval(AT_EXECFN) on Linux. If this path is a
    /// symbolic link, it differs from `path`. May be NULL.
    pub invoked_as: *const c_void,
    /// Length of `invoked_as`.
    pub invoked_as_length: usize,
    /// For an interpreter: the script that the interpreter runs. May be NULL.
    pub script: *const c_void,
    /// Length of `script`.
    pub script_length: usize,
    /// vipool_path_style.
    pub style: u32,
    /// vipool_encoding.
    pub encoding: u32,
}
layout!(vipool_executable {
    size,
    path,
    path_length,
    invoked_as,
    invoked_as_length,
    script,
    script_length,
    style,
    encoding,
});

/// Maximum length in bytes of a path that is converted from UTF-16.
const PATH_CAPACITY: usize = 4096;

/// Returns the bytes of a path. Converts UTF-16 to WTF-8 in `buffer`.
///
/// # Safety
/// `text` is NULL or valid for reads of `length` bytes or units while the result is used.
unsafe fn read_path(
    text: *const c_void,
    length: usize,
    encoding: u32,
    buffer: &mut [u8; PATH_CAPACITY],
) -> Result<&[u8], vipool_status> {
    match encoding {
        // SAFETY: the caller guarantees the text.
        0 => unsafe { read_bytes(text.cast(), length) },
        1 => {
            // SAFETY: the caller guarantees the text.
            let units = unsafe { read_utf16_units(text.cast(), length) }?;
            utf16_to_wtf8(units, buffer).ok_or(VIPOOL_ERR_BUFFER)
        }
        _ => Err(VIPOOL_ERR_KIND),
    }
}

/// Converts the texts of a program to bytes and passes the program to `body`.
///
/// # Safety
/// Each text in `caller_program` is NULL or valid for reads of its length.
pub(crate) unsafe fn with_executable<R>(
    caller_program: &vipool_executable,
    body: impl FnOnce(&Executable<'_>) -> R,
) -> Result<R, vipool_status> {
    let style = match caller_program.style {
        0 => PathStyle::Posix,
        1 => PathStyle::Windows,
        _ => return Err(VIPOOL_ERR_KIND),
    };
    let mut buffers = [[0; PATH_CAPACITY]; 3];
    let [path_buffer, invoked_as_buffer, script_buffer] = &mut buffers;
    // SAFETY: the caller guarantees the texts.
    let program = unsafe {
        Executable {
            path: read_path(
                caller_program.path,
                caller_program.path_length,
                caller_program.encoding,
                path_buffer,
            )?,
            invoked_as: match caller_program.invoked_as.is_null() {
                true => None,
                false => Some(read_path(
                    caller_program.invoked_as,
                    caller_program.invoked_as_length,
                    caller_program.encoding,
                    invoked_as_buffer,
                )?),
            },
            script: match caller_program.script.is_null() {
                true => None,
                false => Some(read_path(
                    caller_program.script,
                    caller_program.script_length,
                    caller_program.encoding,
                    script_buffer,
                )?),
            },
            style,
        }
    };
    Ok(body(&program))
}

/// Finds the script that an interpreter runs, for vipool_executable.script.
///
/// Recognises a script, a module (-m) and an archive (-jar).
///
/// Parameters:
/// - `arguments`, `count`: the arguments after the name of the program, each with a NUL.
/// - `out`: receives the element of `arguments` that names the script.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND (code on the command line, or no script).
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_executable_find_script(
    arguments: *const *const c_char,
    count: usize,
    out: *mut *const c_char,
) -> vipool_status {
    silent_status(|| {
        check_not_null(out)?;
        check_not_null(arguments)?;
        // SAFETY: the caller guarantees the array.
        let arguments = unsafe { read_slice(arguments, count) }?;
        if arguments.iter().any(|argument| argument.is_null()) {
            return Err(VIPOOL_ERR_NULL);
        }
        // SAFETY: not NULL; the caller guarantees the NUL of each argument.
        let texts = arguments.iter().map(|text| unsafe { CStr::from_ptr(*text) }.to_bytes());
        let script = script_argument(texts).ok_or(VIPOOL_ERR_NOT_FOUND)?;
        // SAFETY: not NULL.
        unsafe { out.write(script.as_ptr().cast()) };
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf16_that_is_not_aligned_is_rejected() {
        let units = ['x' as u16; 4];
        let path: *const c_void = (&raw const units).cast();
        for (offset, expected) in [(0, Ok(b"xx".to_vec())), (1, Err(VIPOOL_ERR_UTF16))] {
            let caller_program = vipool_executable {
                size: size_of::<vipool_executable>(),
                path: path.wrapping_byte_add(offset),
                path_length: 2,
                invoked_as: std::ptr::null(),
                invoked_as_length: 0,
                script: std::ptr::null(),
                script_length: 0,
                style: vipool_path_style::VIPOOL_PATHS_WINDOWS as u32,
                encoding: vipool_encoding::VIPOOL_ENCODING_UTF16 as u32,
            };
            // SAFETY: the array has two units after the offset.
            let result =
                unsafe { with_executable(&caller_program, |program| program.path.to_vec()) };
            assert_eq!(result, expected, "offset {offset}");
        }
    }
}
