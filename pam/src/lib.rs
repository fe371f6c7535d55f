//! `pam_vipool.so` opens a vipool session at logon and closes the session at logoff.
//!
//! Administrators add the module to the PAM stack of services that start a logon: sshd, login,
//! xrdp-sesman and display managers. The module must not be in common-session, because services
//! without a logon, such as sudo and cron, use that file too. The module ignores only the services
//! of this kind that it knows (see `settings`).
//!
//! Invariants:
//! - No panic crosses an entry point.
//! - A logon fails only if the farm sets `when-exhausted = "refuse"`, and one of these is true: no
//!   address is available, a limit of sessions is reached, or the pool of the user is unknown.
//! - No thread, lock or descriptor outlives a call. The environment of the process is not changed.
//! - The process runs as root. A name that a client or user chooses can contain any bytes. The
//!   module never uses such a name as part of a path.
//!
//! Requirement: the conversation function of the application returns. It does not leave by
//! longjmp(3), and its thread is not cancelled in it.

#![cfg(target_os = "linux")]

mod logon;
mod settings;
mod transaction;

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use settings::Settings;
use transaction::{PAM_IGNORE, PAM_SUCCESS, PamHandle, Transaction};

/// Runs the body of an entry point. Returns `fallback` if the handle is NULL or the body panics.
///
/// # Safety
/// libpam called an entry point with these arguments, and that call has not returned. `pamh` is NULL
/// or a handle of libpam. `argv` is NULL or an array of `argc` C strings.
unsafe fn run_guarded(
    pamh: *mut PamHandle,
    argc: c_int,
    argv: *const *const c_char,
    fallback: c_int,
    body: impl FnOnce(&Transaction, Settings) -> c_int,
) -> c_int {
    if pamh.is_null() {
        return fallback;
    }
    let call_body = || {
        // SAFETY: guaranteed by the caller.
        let transaction = unsafe { Transaction::new(pamh) };
        let argument_count = if argv.is_null() { 0 } else { usize::try_from(argc).unwrap_or(0) };
        let arguments = (0..argument_count).map(|index| {
            // SAFETY: guaranteed by the caller (see pam_sm_open_session(3)).
            unsafe { CStr::from_ptr(*argv.add(index)) }
        });
        let settings =
            Settings::read(arguments, |message| transaction.log(libc::LOG_WARNING, message));
        body(&transaction, settings)
    };
    catch_unwind(AssertUnwindSafe(call_body)).unwrap_or(fallback)
}

/// Opens the session of a logon. See pam_sm_open_session(3).
///
/// # Safety
/// `pamh` is NULL or a handle of libpam. `argv` is NULL or an array of `argc` C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_open_session(
    pamh: *mut PamHandle,
    _flags: c_int,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: libpam passed these arguments.
    unsafe {
        run_guarded(pamh, argc, argv, PAM_SUCCESS, |transaction, settings| {
            logon::open(transaction, &settings)
        })
    }
}

/// Closes the session that [`pam_sm_open_session`] opened or joined in the same transaction. The
/// session stays open if another logon shares it. See pam_sm_close_session(3).
///
/// # Safety
/// `pamh` is NULL or a handle of libpam. `argv` is NULL or an array of `argc` C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_close_session(
    pamh: *mut PamHandle,
    _flags: c_int,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: libpam passed these arguments.
    unsafe {
        run_guarded(pamh, argc, argv, PAM_SUCCESS, |transaction, _| logon::close(transaction))
    }
}

/// Returns `PAM_IGNORE`, because the module handles sessions only. See pam_sm_authenticate(3).
///
/// # Safety
/// There are no requirements, because the function does not use its arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_authenticate(
    _pamh: *mut PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    PAM_IGNORE
}

/// Returns `PAM_IGNORE`, because the module handles sessions only. See pam_sm_setcred(3).
///
/// # Safety
/// There are no requirements, because the function does not use its arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_setcred(
    _pamh: *mut PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    PAM_IGNORE
}

/// Returns `PAM_IGNORE`, because the module handles sessions only. See pam_sm_acct_mgmt(3).
///
/// # Safety
/// There are no requirements, because the function does not use its arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_acct_mgmt(
    _pamh: *mut PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    PAM_IGNORE
}

/// Returns `PAM_IGNORE`, because the module handles sessions only. See pam_sm_chauthtok(3).
///
/// # Safety
/// There are no requirements, because the function does not use its arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_chauthtok(
    _pamh: *mut PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    PAM_IGNORE
}
