//! The settings of a map as three words of its header.

use super::words::{join_halves, split_halves};
use crate::map::types::plan::{AllocationTime, ExhaustionPolicy, SessionPer, Settings};

/// The number of words of the settings.
pub(crate) const SETTINGS_WORDS: usize = 3;

// Flags in the upper half of the last word.
const CHECK_IN_USE: u32 = 1;
const AWAIT_RESTORE: u32 = 2;
const FIRST_USE: u32 = 4;
/// The position of the exhaustion policy, which has two bits.
const EXHAUSTION_SHIFT: u32 = 3;
const SESSION_PER_USER: u32 = 32;

/// Encodes settings.
pub(crate) fn encode(settings: &Settings) -> [u64; SETTINGS_WORDS] {
    let (exhaustion_code, wait_seconds) = match settings.on_exhausted {
        ExhaustionPolicy::Pass => (0, 0),
        ExhaustionPolicy::Refuse => (1, 0),
        ExhaustionPolicy::Wait(seconds) => (2, seconds),
    };
    let flag_if = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let flags = flag_if(settings.check_in_use, CHECK_IN_USE)
        | flag_if(settings.await_restore, AWAIT_RESTORE)
        | flag_if(settings.allocate == AllocationTime::FirstUse, FIRST_USE)
        | flag_if(settings.session_per == SessionPer::User, SESSION_PER_USER)
        | exhaustion_code << EXHAUSTION_SHIFT;
    [
        join_halves(settings.cool_down, settings.low_water),
        join_halves(settings.sessions_per_user, settings.max_sessions),
        join_halves(flags, wait_seconds),
    ]
}

/// Decodes settings. Any words are valid.
pub(crate) fn decode(words: [u64; SETTINGS_WORDS]) -> Settings {
    let [(cool_down, low_water), (sessions_per_user, max_sessions), (flags, wait_seconds)] =
        words.map(split_halves);
    Settings {
        cool_down,
        check_in_use: flags & CHECK_IN_USE != 0,
        low_water,
        sessions_per_user,
        max_sessions,
        on_exhausted: match flags >> EXHAUSTION_SHIFT & 3 {
            1 => ExhaustionPolicy::Refuse,
            2 => ExhaustionPolicy::Wait(wait_seconds),
            _ => ExhaustionPolicy::Pass,
        },
        allocate: if flags & FIRST_USE != 0 {
            AllocationTime::FirstUse
        } else {
            AllocationTime::Logon
        },
        session_per: if flags & SESSION_PER_USER != 0 {
            SessionPer::User
        } else {
            SessionPer::Logon
        },
        await_restore: flags & AWAIT_RESTORE != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip() {
        let settings = Settings {
            cool_down: 60,
            check_in_use: true,
            low_water: 5,
            sessions_per_user: 2,
            max_sessions: 9,
            on_exhausted: ExhaustionPolicy::Wait(7),
            allocate: AllocationTime::FirstUse,
            session_per: SessionPer::User,
            await_restore: true,
        };
        assert_eq!(decode(encode(&settings)), settings);
        assert_eq!(decode(encode(&Settings::default())), Settings::default());
    }
}
