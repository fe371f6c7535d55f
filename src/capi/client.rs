//! The address of a session's client, for those of its programs that go by it.

use std::ffi::{CString, c_char};
use std::path::Path;

use super::address::vipool_ip;
use super::handle::not_null;
use super::outcome::{Failure, call};
use super::session::vipool_handle;
use super::status::vipool_status::{self, *};
use super::text::{optional_utf8, utf8};
use crate::client_file;
use crate::os::users::{self, UserId};
use crate::session::Handle;

/// Tells the user of a session, and nobody else, where its client is: in a file of the map's
/// directory that is named after the lease. For programs with VIPOOL_FEATURE_CLIENT_IP.
///
/// `user`: `user_length` bytes of UTF-8, on Windows "DOMAIN\\user" too; may be NULL for the user of this
/// process. May block while the user is looked up.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
/// VIPOOL_ERR_ADDRESS, VIPOOL_ERR_NOT_FOUND (the system knows no such user), VIPOOL_ERR_IO.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_client_write(
    directory: *const c_char,
    directory_length: usize,
    handle: *const vipool_handle,
    client: *const vipool_ip,
    user: *const c_char,
    user_length: usize,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for all of them.
        let (directory, handle, client, user) = unsafe {
            let (directory, handle) = file(directory, directory_length, handle)?;
            let client = client.as_ref().ok_or(VIPOOL_ERR_NULL)?.required()?;
            (directory, handle, client, optional_utf8(user, user_length)?)
        };
        let owner = match user {
            None => None,
            Some(user) => Some(identified(user).ok_or_else(|| {
                VIPOOL_ERR_NOT_FOUND.because(format_args!("there is no user {user:?}"))
            })?),
        };
        client_file::write(directory, &handle, client, owner).map_err(failure)
    })
}

fn identified(user: &str) -> Option<UserId> {
    users::user_id(&CString::new(user).ok()?)
}

/// Where the client of the session of this lease is, for vipool_rewrite_host_addresses().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
/// VIPOOL_ERR_NOT_FOUND (not known, or not to this user). May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_client_read(
    directory: *const c_char,
    directory_length: usize,
    handle: *const vipool_handle,
    out: *mut vipool_ip,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for all of them; the place is not NULL.
        unsafe {
            let (directory, handle) = file(directory, directory_length, handle)?;
            out.write(client_file::read(directory, &handle).ok_or(VIPOOL_ERR_NOT_FOUND)?.into());
        }
        Ok(())
    })
}

/// Takes away what vipool_client_write() wrote: to be called when the session is closed. What is
/// not there is no error.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
/// VIPOOL_ERR_IO. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_client_remove(
    directory: *const c_char,
    directory_length: usize,
    handle: *const vipool_handle,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for both.
        let (directory, handle) = unsafe { file(directory, directory_length, handle) }?;
        client_file::remove(directory, &handle).map_err(failure)
    })
}

/// The directory and the lease that name a file.
///
/// # Safety
/// As for [`utf8`]; `handle` is NULL or valid for reads.
unsafe fn file<'a>(
    directory: *const c_char,
    directory_length: usize,
    handle: *const vipool_handle,
) -> Result<(&'a Path, Handle), Failure> {
    // SAFETY: the caller's promise.
    unsafe {
        let handle = handle.as_ref().ok_or(VIPOOL_ERR_NULL)?.get()?;
        Ok((Path::new(utf8(directory, directory_length)?), handle))
    }
}

fn failure(error: std::io::Error) -> Failure {
    VIPOOL_ERR_IO.because(format_args!("the file with the client's address: {error}"))
}
