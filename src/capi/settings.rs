//! How addresses are given out.

use super::layout::layout;
use super::outcome::Failure;
use super::status::vipool_status::*;
use super::text::flags;
use crate::map::{AllocationTime, ExhaustionPolicy, Settings};

/// What becomes of a session when no address is left; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_on_exhausted {
    /// It starts all the same, with the host's address, and the user is told
    /// (vipool_exhausted_message()).
    VIPOOL_ON_EXHAUSTED_PASS = 0,
    /// It does not start.
    VIPOOL_ON_EXHAUSTED_REFUSE = 1,
    /// The agent tries again for up to wait_seconds, then passes. The loop is the agent's.
    VIPOOL_ON_EXHAUSTED_WAIT = 2,
}

/// When a session gets its addresses; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_allocate {
    /// When the user logs on.
    VIPOOL_ALLOCATE_LOGON = 0,
    /// When somebody starts a listed program in the session. A hook never allocates.
    VIPOOL_ALLOCATE_FIRST_USE = 1,
}

/// Of vipool_settings.flags: a cooled address becomes free only when vipool_map_reap() found no
/// socket on it.
pub const VIPOOL_SETTING_CHECK_IN_USE: u32 = 1;
/// Of vipool_settings.flags: vipool_map_open_session() answers VIPOOL_ERR_NOT_READY until
/// vipool_map_restored() was called.
pub const VIPOOL_SETTING_AWAIT_RESTORE: u32 = 2;

/// How addresses are given out; the same for every writer of a map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_settings {
    /// sizeof(vipool_settings), set by the caller.
    pub size: usize,
    /// Seconds until a released address goes to another user.
    pub cool_down: u32,
    /// Warn once when fewer than this many addresses of a pool are left; 0 never warns.
    pub low_water: u32,
    /// The most sessions of one user; 0 sets no limit.
    pub sessions_per_user: u32,
    /// The most sessions of the server at once; 0 sets no limit.
    pub max_sessions: u32,
    /// vipool_on_exhausted.
    pub on_exhausted: u32,
    /// For VIPOOL_ON_EXHAUSTED_WAIT; zero with the others.
    pub wait_seconds: u32,
    /// vipool_allocate.
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

impl From<Settings> for vipool_settings {
    fn from(settings: Settings) -> Self {
        let (on_exhausted, wait_seconds) = match settings.on_exhausted {
            ExhaustionPolicy::Pass => (vipool_on_exhausted::VIPOOL_ON_EXHAUSTED_PASS, 0),
            ExhaustionPolicy::Refuse => (vipool_on_exhausted::VIPOOL_ON_EXHAUSTED_REFUSE, 0),
            ExhaustionPolicy::Wait(seconds) => {
                (vipool_on_exhausted::VIPOOL_ON_EXHAUSTED_WAIT, seconds)
            }
        };
        let allocate = match settings.allocate {
            AllocationTime::Logon => vipool_allocate::VIPOOL_ALLOCATE_LOGON,
            AllocationTime::FirstUse => vipool_allocate::VIPOOL_ALLOCATE_FIRST_USE,
        };
        let mut flags = 0;
        if settings.check_in_use {
            flags |= VIPOOL_SETTING_CHECK_IN_USE;
        }
        if settings.await_restore {
            flags |= VIPOOL_SETTING_AWAIT_RESTORE;
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
    pub(crate) fn get(&self) -> Result<Settings, Failure> {
        let flags = flags(self.flags, VIPOOL_SETTING_CHECK_IN_USE | VIPOOL_SETTING_AWAIT_RESTORE)?;
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
                other => {
                    return Err(VIPOOL_ERR_KIND.because(format_args!("on_exhausted is {other}")));
                }
            },
            allocate: match self.allocate {
                0 => AllocationTime::Logon,
                1 => AllocationTime::FirstUse,
                other => return Err(VIPOOL_ERR_KIND.because(format_args!("allocate is {other}"))),
            },
            await_restore: flags & VIPOOL_SETTING_AWAIT_RESTORE != 0,
        })
    }
}
