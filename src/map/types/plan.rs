//! What a map is made from, and what is asked of it: plain values.

use std::net::IpAddr;

use crate::policy::Policy;
use crate::pool::{Pool, Reservation};

/// What a map is made from: `Farm::plan` gives one for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The pools, which share no address. The number of a pool is its place here, unless the map
    /// takes the place of another one: pools that were there keep their numbers. At most
    /// [`crate::map::MAX_POOLS`].
    pub pools: Vec<Pool>,
    /// What hook layers go by.
    pub policy: Policy,
    /// How addresses are given out.
    pub settings: Settings,
    /// Addresses kept for a user.
    pub reservations: Vec<Reservation>,
}

/// How addresses are given out. The same for every writer of a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Seconds until a released address goes to another user.
    pub cool_down: u32,
    /// Whether a cooled address becomes free only when [`crate::map::Map::reap`] found no socket on it.
    pub check_in_use: bool,
    /// Warn once when fewer than this many addresses of a pool are left; 0 never warns.
    pub low_water: u32,
    /// The most sessions of one user; 0 sets no limit.
    pub sessions_per_user: u32,
    /// The most sessions of the server at once; 0 sets no limit.
    pub max_sessions: u32,
    /// What becomes of a session when no address is left.
    pub on_exhausted: ExhaustionPolicy,
    /// When a session gets its addresses.
    pub allocate: AllocationTime,
    /// Whether the map answers "not ready" until [`crate::map::Map::mark_restored`] was called.
    pub await_restore: bool,
}

/// What becomes of a session when no address is left. The loop that waits is the caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExhaustionPolicy {
    /// It starts all the same, with the host's address, and the user is told.
    #[default]
    Pass,
    /// It does not start.
    Refuse,
    /// The caller tries again for up to this many seconds, then passes.
    Wait(u32),
}

/// When a session gets its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllocationTime {
    /// When the user logs on.
    #[default]
    Logon,
    /// When somebody starts a listed program in the session. A hook never allocates.
    FirstUse,
}

/// What [`crate::map::Map::open_session`] is told of a session, beside its id.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions<'a> {
    /// The user's name: for stickiness, reservations and the quota. At most 63 bytes are kept.
    pub user: Option<&'a str>,
    /// Name of the pool to take virtual IPs from; `default` if not given, or the first of the plan
    /// if there is none of that name. Loopback pools serve every session.
    pub pool: Option<&'a str>,
    /// This very address, or an error.
    pub address: Option<IpAddr>,
    /// The address of the user's client.
    pub client: Option<IpAddr>,
    /// The process that stands for the session; [`crate::map::Map::reap`] closes the session when it
    /// is gone.
    pub leader: Option<Leader>,
}

/// A process, so named that a later one with the same pid is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its pid, in its own pid namespace.
    pub pid: u32,
    /// Its start time in the kernel's unit (field 22 of `/proc/PID/stat`, proc_pid_stat(5)).
    pub start_time: u64,
    /// The inode of its pid namespace; 0 where there are none.
    pub pid_namespace: u64,
}

impl OpenOptions<'_> {
    /// Whether nothing is told and nothing asked for.
    #[inline(always)]
    pub(crate) fn is_nothing(&self) -> bool {
        !self.is_of_somebody() && self.pool.is_none() && self.address.is_none()
    }

    /// Whether anything is told that the private file keeps.
    #[inline]
    pub(crate) fn is_of_somebody(&self) -> bool {
        self.user.is_some() || self.client.is_some() || self.leader.is_some()
    }
}

impl Settings {
    /// The settings as three words of the map file.
    pub(crate) fn to_words(self) -> [u64; 3] {
        let (exhausted, wait) = match self.on_exhausted {
            ExhaustionPolicy::Pass => (0, 0),
            ExhaustionPolicy::Refuse => (1, 0),
            ExhaustionPolicy::Wait(seconds) => (2, seconds),
        };
        let flags = u32::from(self.check_in_use)
            | u32::from(self.await_restore) << 1
            | u32::from(self.allocate == AllocationTime::FirstUse) << 2
            | exhausted << 3;
        [
            pair(self.cool_down, self.low_water),
            pair(self.sessions_per_user, self.max_sessions),
            pair(flags, wait),
        ]
    }

    /// The settings in three words of the map file; any words make some settings.
    pub(crate) fn from_words(words: [u64; 3]) -> Self {
        let [(cool_down, low_water), (sessions_per_user, max_sessions), (flags, wait)] =
            words.map(unpair);
        Self {
            cool_down,
            check_in_use: flags & 1 != 0,
            low_water,
            sessions_per_user,
            max_sessions,
            on_exhausted: match flags >> 3 & 3 {
                1 => ExhaustionPolicy::Refuse,
                2 => ExhaustionPolicy::Wait(wait),
                _ => ExhaustionPolicy::Pass,
            },
            allocate: if flags & 4 != 0 { AllocationTime::FirstUse } else { AllocationTime::Logon },
            await_restore: flags & 2 != 0,
        }
    }
}

/// Two halves in one word, the first in the upper half.
pub(crate) const fn pair(upper: u32, lower: u32) -> u64 {
    (upper as u64) << 32 | lower as u64
}

/// The upper and the lower half of a word.
pub(crate) const fn unpair(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back() {
        let settings = Settings {
            cool_down: 60,
            check_in_use: true,
            low_water: 5,
            sessions_per_user: 2,
            max_sessions: 9,
            on_exhausted: ExhaustionPolicy::Wait(7),
            allocate: AllocationTime::FirstUse,
            await_restore: true,
        };
        assert_eq!(Settings::from_words(settings.to_words()), settings);
        assert_eq!(Settings::from_words(Settings::default().to_words()), Settings::default());
    }
}
