//! Settings for the allocation of addresses.

use super::error::{CallError, catch_panic};
use super::layout::layout;
use super::output::check_out;
use super::status::vipool_status::{self, *};
use super::text::check_flags;
use crate::map::{AllocationTime, ExhaustionPolicy, SessionPer, Settings};

/// What happens to a session when no address is free.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_exhaustion_policy {
    /// The session starts with the address of the host. The agent shows the user the message that
    /// vipool_status_get_text(VIPOOL_ERR_EXHAUSTED) returns.
    VIPOOL_EXHAUSTION_PASS = 0,
    /// The session does not start. If vipool_map_open_session() succeeds but
    /// vipool_opened_session.shortage is not VIPOOL_OK, the agent closes the session again.
    VIPOOL_EXHAUSTION_REFUSE = 1,
    /// The agent retries for up to wait_seconds. If there is still no address after this time, the
    /// session starts with the address of the host. The library does not retry.
    VIPOOL_EXHAUSTION_WAIT = 2,
}

/// When a session gets its addresses.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_allocation_time {
    /// At the logon.
    VIPOOL_ALLOCATE_LOGON = 0,
    /// At the start of the first listed program. The process that starts the program allocates the
    /// addresses. A hook never allocates addresses.
    VIPOOL_ALLOCATE_FIRST_USE = 1,
}

/// vipool_settings.flags: a cooled address becomes free only after vipool_map_reap() found no
/// socket on it.
pub const VIPOOL_SETTING_CHECK_IN_USE: u32 = 1;
/// vipool_settings.flags: vipool_map_open_session() returns VIPOOL_ERR_NOT_READY until
/// vipool_map_mark_restored() or vipool_map_reconcile() is called.
pub const VIPOOL_SETTING_AWAIT_RESTORE: u32 = 2;
/// vipool_settings.flags: all logons of a user share one session. For each logon, the agent opens
/// the session whose id vipool_session_make(VIPOOL_SESSION_USER, uid, ...) returns. The agent
/// closes the session when the last logon has ended.
pub const VIPOOL_SETTING_SESSION_PER_USER: u32 = 4;

/// Settings for the allocation of addresses. All writers of a map use the same settings. A zeroed
/// struct does not contain the defaults: it has no cool-down. vipool_settings_get_default() returns
/// the default settings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_settings {
    /// sizeof(vipool_settings), set by the caller.
    pub size: usize,
    /// Cool-down: seconds until a released address may be allocated to another user.
    pub cool_down: u32,
    /// Report VIPOOL_EVENT_LOW_WATER when the number of free and cooling addresses of a pool falls
    /// below this number; 0 for no report.
    pub low_water: u32,
    /// Maximum number of sessions of one user; 0 for no limit.
    pub sessions_per_user: u32,
    /// Maximum number of sessions of the server; 0 for no limit.
    pub max_sessions: u32,
    /// vipool_exhaustion_policy.
    pub on_exhausted: u32,
    /// Seconds to wait with VIPOOL_EXHAUSTION_WAIT; otherwise zero.
    pub wait_seconds: u32,
    /// vipool_allocation_time.
    pub allocate: u32,
    /// VIPOOL_SETTING_...
    pub flags: u32,
}
layout!(vipool_settings {
    size,
    cool_down,
    low_water,
    sessions_per_user,
    max_sessions,
    on_exhausted,
    wait_seconds,
    allocate,
    flags,
});

/// Returns the default settings: a cool-down of 120 seconds, VIPOOL_SETTING_CHECK_IN_USE, no
/// limits.
///
/// A new farm has these settings. A farm.toml without the section `[sessions]` has them too.
///
/// Parameters:
/// - `out`: receives the settings.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_settings_get_default(out: *mut vipool_settings) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the struct.
        unsafe { check_out(out) }?.write(&Settings::new().into());
        Ok(())
    })
}

impl From<Settings> for vipool_settings {
    fn from(settings: Settings) -> Self {
        let (on_exhausted, wait_seconds) = match settings.on_exhausted {
            ExhaustionPolicy::Pass => (vipool_exhaustion_policy::VIPOOL_EXHAUSTION_PASS, 0),
            ExhaustionPolicy::Refuse => (vipool_exhaustion_policy::VIPOOL_EXHAUSTION_REFUSE, 0),
            ExhaustionPolicy::Wait(seconds) => {
                (vipool_exhaustion_policy::VIPOOL_EXHAUSTION_WAIT, seconds)
            }
        };
        let allocate = match settings.allocate {
            AllocationTime::Logon => vipool_allocation_time::VIPOOL_ALLOCATE_LOGON,
            AllocationTime::FirstUse => vipool_allocation_time::VIPOOL_ALLOCATE_FIRST_USE,
        };
        let mut flags = 0;
        if settings.check_in_use {
            flags |= VIPOOL_SETTING_CHECK_IN_USE;
        }
        if settings.await_restore {
            flags |= VIPOOL_SETTING_AWAIT_RESTORE;
        }
        if settings.session_per == SessionPer::User {
            flags |= VIPOOL_SETTING_SESSION_PER_USER;
        }
        Self {
            size: size_of::<Self>(),
            cool_down: settings.cool_down,
            low_water: settings.low_water,
            sessions_per_user: settings.sessions_per_user,
            max_sessions: settings.max_sessions,
            on_exhausted: on_exhausted as u32,
            wait_seconds,
            allocate: allocate as u32,
            flags,
        }
    }
}

impl vipool_settings {
    pub(crate) fn decode_settings(&self) -> Result<Settings, CallError> {
        let known_flags = VIPOOL_SETTING_CHECK_IN_USE
            | VIPOOL_SETTING_AWAIT_RESTORE
            | VIPOOL_SETTING_SESSION_PER_USER;
        let flags = check_flags(self.flags, known_flags)?;
        let unknown_value = |member, value| {
            VIPOOL_ERR_KIND.with_message(format_args!("unknown value of {member}: {value}"))
        };
        Ok(Settings {
            cool_down: self.cool_down,
            check_in_use: flags & VIPOOL_SETTING_CHECK_IN_USE != 0,
            low_water: self.low_water,
            sessions_per_user: self.sessions_per_user,
            max_sessions: self.max_sessions,
            on_exhausted: match self.on_exhausted {
                0 => ExhaustionPolicy::Pass,
                1 => ExhaustionPolicy::Refuse,
                2 => ExhaustionPolicy::Wait(self.wait_seconds),
                value => return Err(unknown_value("on_exhausted", value)),
            },
            allocate: match self.allocate {
                0 => AllocationTime::Logon,
                1 => AllocationTime::FirstUse,
                value => return Err(unknown_value("allocate", value)),
            },
            session_per: if flags & VIPOOL_SETTING_SESSION_PER_USER != 0 {
                SessionPer::User
            } else {
                SessionPer::Logon
            },
            await_restore: flags & VIPOOL_SETTING_AWAIT_RESTORE != 0,
        })
    }
}
