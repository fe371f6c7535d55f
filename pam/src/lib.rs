//! `pam_vipool.so`: a logon opens a vipool session, a logoff closes it.
//!
//! For the services at which people come in (sshd, login, xrdp-sesman, display managers), never
//! for common-session: sudo and su inside a session would come by here too.
//!
//! Invariants: no panic crosses an entry point; nobody is kept from logging on unless the policy
//! of the farm says `refuse`; no thread, no lock and no descriptor outlives a call, and the
//! environment of the process is not written. The process is root's, so whatever a client or user
//! chose (names of any bytes) is data and never part of a path.

#![cfg(target_os = "linux")]

mod logon;
mod settings;
mod transaction;

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use settings::Settings;
use transaction::{PAM_IGNORE, PAM_SUCCESS, PamHandle, Transaction};

/// Runs an entry point's body; `fallback` answers for a NULL handle and a panic.
fn run_guarded(
    pamh: *mut PamHandle,
    argc: c_int,
    argv: *const *const c_char,
    fallback: c_int,
    body: impl FnOnce(&Transaction, Settings) -> c_int,
) -> c_int {
    if pamh.is_null() {
        return fallback;
    }
    let run = || {
        // SAFETY: libpam called an entry point with this handle, and that call is running.
        let transaction = unsafe { Transaction::new(pamh) };
        let count = if argv.is_null() { 0 } else { usize::try_from(argc).unwrap_or(0) };
        let arguments = (0..count).map(|i| {
            // SAFETY: by pam_sm_open_session(3), argv holds argc strings that end in NUL.
            unsafe { CStr::from_ptr(*argv.add(i)) }
        });
        let settings =
            Settings::read(arguments, |message| transaction.log(libc::LOG_WARNING, message));
        body(&transaction, settings)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(fallback)
}

/// Opens the session of a logon. See pam_sm_open_session(3).
///
/// # Safety
/// libpam calls it with its own handle and an array of `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_open_session(
    pamh: *mut PamHandle,
    _flags: c_int,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    run_guarded(pamh, argc, argv, PAM_SUCCESS, |transaction, settings| {
        logon::open(transaction, &settings)
    })
}

/// Closes what [`pam_sm_open_session`] opened in the same transaction, and nothing else. See
/// pam_sm_close_session(3).
///
/// # Safety
/// libpam calls it with its own handle and an array of `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_close_session(
    pamh: *mut PamHandle,
    _flags: c_int,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    run_guarded(pamh, argc, argv, PAM_SUCCESS, |transaction, _| logon::close(transaction))
}

/// Has no say: the module is for sessions. See pam_sm_authenticate(3).
///
/// # Safety
/// Reads nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_authenticate(
    _pamh: *mut PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    PAM_IGNORE
}

/// Has no say: the module is for sessions. See pam_sm_setcred(3).
///
/// # Safety
/// Reads nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_setcred(
    _pamh: *mut PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    PAM_IGNORE
}

/// Has no say: the module is for sessions. See pam_sm_acct_mgmt(3).
///
/// # Safety
/// Reads nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_acct_mgmt(
    _pamh: *mut PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    PAM_IGNORE
}

/// Has no say: the module is for sessions. See pam_sm_chauthtok(3).
///
/// # Safety
/// Reads nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_chauthtok(
    _pamh: *mut PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    PAM_IGNORE
}
