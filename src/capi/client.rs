//! The client address of a session, for programs with VIPOOL_FEATURE_CLIENT_IP.

use std::ffi::{CString, c_char};
use std::path::Path;

use super::address::vipool_ip;
use super::error::{CallError, catch_panic};
use super::handle::check_not_null;
use super::session::vipool_handle;
use super::status::vipool_status::{self, *};
use super::text::{read_directory, read_optional_utf8};
use crate::client_file;
use crate::os::users::{self, UserId};
use crate::session::Handle;

/// Stores the client address of a session in a file.
///
/// The file is in the directory of the map. Its name is random. Hooks in programs with
/// VIPOOL_FEATURE_CLIENT_IP search for the file that contains the handle of their session.
///
/// On Linux and Windows, the file belongs to the user of this process. If `user` is another user,
/// this user can only read the file. On Linux, such a file requires a file system with access
/// control lists.
///
/// Parameters:
/// - `directory`, `directory_length`: the directory of the map, UTF-8.
/// - `handle`: the handle of the session.
/// - `client`: the address.
/// - `user`, `user_length`: the user of the session, UTF-8. On Windows, the name can contain a
///   domain ("DOMAIN\\user"). NULL means the user of this process.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID,
/// VIPOOL_ERR_HANDLE, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_NOT_FOUND
/// (unknown user), VIPOOL_ERR_IO.
///
/// Threads: any. May block for the lookup of the user.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_client_set(
    directory: *const c_char,
    directory_length: usize,
    handle: *const vipool_handle,
    client: *const vipool_ip,
    user: *const c_char,
    user_length: usize,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees texts, handle and address.
        let (directory, handle, client, user) = unsafe {
            let (directory, handle) =
                read_directory_and_handle(directory, directory_length, handle)?;
            let client = client.as_ref().ok_or(VIPOOL_ERR_NULL)?.decode_required_ip()?;
            (directory, handle, client, read_optional_utf8(user, user_length)?)
        };
        let file_reader = match user {
            None => None,
            Some(user) => Some(find_user(user).ok_or_else(|| {
                VIPOOL_ERR_NOT_FOUND.with_message(format_args!("there is no user {user:?}"))
            })?),
        };
        client_file::write(directory, &handle, client, file_reader).map_err(io_error)
    })
}

fn find_user(user: &str) -> Option<UserId> {
    users::user_id(&CString::new(user).ok()?)
}

/// Returns the client address of a session, for vipool_rewrite_host_addresses().
///
/// Parameters:
/// - `directory`, `directory_length`: the directory of the map, UTF-8.
/// - `handle`: the handle of the session.
/// - `out`: receives the address.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID,
/// VIPOOL_ERR_HANDLE, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_NOT_FOUND (not stored, or not
/// readable by this user).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_client_get(
    directory: *const c_char,
    directory_length: usize,
    handle: *const vipool_handle,
    out: *mut vipool_ip,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees text and handle; `out` is not NULL.
        unsafe {
            let (directory, handle) =
                read_directory_and_handle(directory, directory_length, handle)?;
            out.write(client_file::read(directory, &handle).ok_or(VIPOOL_ERR_NOT_FOUND)?.into());
        }
        Ok(())
    })
}

/// Removes the client address of a session. Call this function when the session is closed.
///
/// If no address is stored, the call succeeds.
///
/// Parameters:
/// - `directory`, `directory_length`: the directory of the map, UTF-8.
/// - `handle`: the handle of the session.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID,
/// VIPOOL_ERR_HANDLE, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_IO.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_client_remove(
    directory: *const c_char,
    directory_length: usize,
    handle: *const vipool_handle,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees text and handle.
        let (directory, handle) =
            unsafe { read_directory_and_handle(directory, directory_length, handle) }?;
        client_file::remove(directory, &handle).map_err(io_error)
    })
}

/// Reads the directory of the map and the handle of a session.
///
/// # Safety
/// As for [`read_directory`]; `handle` is NULL or valid for reads.
unsafe fn read_directory_and_handle<'a>(
    directory: *const c_char,
    directory_length: usize,
    handle: *const vipool_handle,
) -> Result<(&'a Path, Handle), CallError> {
    // SAFETY: the caller guarantees text and handle.
    unsafe {
        let handle = handle.as_ref().ok_or(VIPOOL_ERR_NULL)?.decode_handle()?;
        Ok((read_directory(directory, directory_length)?, handle))
    }
}

fn io_error(error: std::io::Error) -> CallError {
    VIPOOL_ERR_IO.with_message(format_args!("file with the client address: {error}"))
}
