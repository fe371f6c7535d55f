//! One slot: three words that are the truth about one address.
//!
//! | word | held by a session | not held |
//! |---|---|---|
//! | 0 owner | the session id | state in the top 8 bits, stamp below |
//! | 1 tenancy | generation, tag of the user and flags | the same, of the last user |
//! | 2 place | since when, tag of the user | neighbours in its queue; of a reserved one, who had it last |
//!
//! The store of word 0 commits a lease and its end. A *stamp* is unique and grows: 32 bits of
//! time in seconds, then 24 bits that count within a second (and run on into the next one if they
//! must), so that it gives both the order and the time of releases.

use crate::Tick;
use crate::map::types::plan::{pair, unpair};
use crate::session::{short_word, spread};
use crate::sync::AtomicU64;

/// Words of a slot.
pub(crate) const SLOT_WORDS: usize = 3;
/// A slot: see above.
pub(crate) type Slot = [AtomicU64; SLOT_WORDS];
/// Offset of the owner word in a slot.
pub(crate) const OWNER: usize = 0;
/// Offset of the tenancy word in a slot.
pub(crate) const TENANCY: usize = 1;
/// Offset of the place word in a slot.
pub(crate) const PLACE: usize = 2;

const STATE_SHIFT: u32 = 56;
const STAMP_MASK: u64 = (1 << STATE_SHIFT) - 1;
const STAMP_TIME_SHIFT: u32 = 24;

/// What an owner word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Held by the session with these bits.
    Session(u64),
    /// Free to be given out, since this stamp; 0 if never leased.
    Free(u64),
    /// Released at this stamp and cooling down (or cooled and not looked at yet).
    Cooling(u64),
    /// Cooled, but sockets were found on it, last at this stamp.
    Lingering(u64),
}

const STATE_COOLING: u64 = 0x80;
const STATE_LINGERING: u64 = 0x81;

impl Owner {
    /// Reads an owner word. Words that no version writes count as free.
    #[inline]
    pub(crate) fn from_word(word: u64) -> Self {
        match word >> STATE_SHIFT {
            1..=0x7f => Self::Session(word),
            STATE_COOLING => Self::Cooling(word & STAMP_MASK),
            STATE_LINGERING => Self::Lingering(word & STAMP_MASK),
            _ => Self::Free(word & STAMP_MASK),
        }
    }

    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Session(raw) => raw,
            Self::Free(stamp) => stamp,
            Self::Cooling(stamp) => STATE_COOLING << STATE_SHIFT | stamp,
            Self::Lingering(stamp) => STATE_LINGERING << STATE_SHIFT | stamp,
        }
    }

    /// Whether this is the owner word of a free slot, as versions write it.
    #[inline(always)]
    pub(crate) fn is_free(word: u64) -> bool {
        word <= STAMP_MASK
    }

    /// The same state, since another stamp.
    pub(crate) fn since(self, stamp: u64) -> Self {
        match self {
            Self::Session(_) => self,
            Self::Free(_) => Self::Free(stamp),
            Self::Cooling(_) => Self::Cooling(stamp),
            Self::Lingering(_) => Self::Lingering(stamp),
        }
    }

    /// The stamp, unless a session holds it.
    pub(crate) fn stamp(self) -> Option<u64> {
        match self {
            Self::Session(_) => None,
            Self::Free(stamp) | Self::Cooling(stamp) | Self::Lingering(stamp) => Some(stamp),
        }
    }
}

/// The stamp that follows `last` at this time.
#[inline]
pub(crate) fn next_stamp(last: u64, now: Tick) -> u64 {
    (u64::from(now.as_secs()) << STAMP_TIME_SHIFT).max((last & STAMP_MASK) + 1).min(STAMP_MASK)
}

/// The time in a stamp.
#[inline]
pub(crate) fn stamp_time(stamp: u64) -> Tick {
    Tick::from_secs((stamp >> STAMP_TIME_SHIFT) as u32)
}

/// Reserved for the user whose tag it bears.
pub(crate) const RESERVED: u32 = 1;
/// Beside [`RESERVED`]: by the configuration, not by a command.
pub(crate) const PLANNED: u32 = 8;
/// Drained by an administrator.
pub(crate) const DRAINED: u32 = 2;
/// No longer in the configuration.
pub(crate) const RETIRED: u32 = 4;
/// In the configuration, and out of use until the session gives the address back that holds it in
/// another pool. Not [`RESERVED`]: beside that, [`PLANNED`] means what it says there.
pub(crate) const AWAITING: u32 = RETIRED | PLANNED;
const FLAGS: u32 = RESERVED | DRAINED | RETIRED | PLANNED;

/// Who has or last had the address, how often it was leased, and the flags on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tenancy {
    pub(crate) generation: u32,
    /// Tag of the user ([`user_tag`]) and, in the low bits, flags.
    tag_and_flags: u32,
}

impl Tenancy {
    #[inline]
    pub(crate) fn from_word(word: u64) -> Self {
        let (generation, tag_and_flags) = unpair(word);
        Self { generation, tag_and_flags }
    }

    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        pair(self.generation, self.tag_and_flags)
    }

    /// Tag of the user; 0 if none is known.
    #[inline]
    pub(crate) fn user(self) -> u32 {
        self.tag_and_flags & !FLAGS
    }

    #[inline]
    pub(crate) fn has(self, flags: u32) -> bool {
        self.tag_and_flags & flags != 0
    }

    /// Whether its flags are [`AWAITING`].
    pub(crate) fn is_awaiting(self) -> bool {
        self.tag_and_flags & (AWAITING | RESERVED) == AWAITING
    }

    /// Whether it is nobody's, and without flags.
    #[inline(always)]
    pub(crate) fn is_bare(self) -> bool {
        self.tag_and_flags == 0
    }

    pub(crate) fn with_flags(self, set: u32, clear: u32) -> Self {
        Self { tag_and_flags: self.tag_and_flags & !clear | set, ..self }
    }

    pub(crate) fn with_user(self, user: u32) -> Self {
        Self { tag_and_flags: self.tag_and_flags & FLAGS | user & !FLAGS, ..self }
    }

    pub(crate) fn of_generation(self, generation: u32) -> Self {
        Self { generation, ..self }
    }

    /// The tenancy that follows when this user gets the address.
    #[inline]
    pub(crate) fn next(self, user: u32) -> Self {
        Self { generation: self.generation.wrapping_add(1), ..self.with_user(user) }
    }
}

/// 28 bits that stand for a user's name, never 0. Two users in 250 million share a tag; each
/// would then count as the other for stickiness and cool-down, never for who holds what. Part of
/// the file of [`super::last_users`].
#[inline(always)]
pub(crate) fn user_tag(name: &str) -> u32 {
    let (words, rest) = name.as_bytes().as_chunks();
    let whole =
        words.iter().fold(name.len() as u64, |hash, word| spread(hash ^ u64::from_le_bytes(*word)));
    let tag = spread(spread(whole ^ short_word(rest))) as u32 & !FLAGS;
    if tag == 0 { FLAGS + 1 } else { tag }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_words_come_back() {
        for owner in [
            Owner::Session(5 << 56 | 7),
            Owner::Free(0),
            Owner::Free(STAMP_MASK),
            Owner::Cooling(3),
            Owner::Lingering(9 << 24),
        ] {
            assert_eq!(Owner::from_word(owner.to_word()), owner);
        }
        assert_eq!(Owner::from_word(0xff << 56 | 3), Owner::Free(3));
    }

    #[test]
    fn stamps_grow_whatever_the_clock_does() {
        let first = next_stamp(0, Tick::from_secs(100));
        let second = next_stamp(first, Tick::from_secs(100));
        let back = next_stamp(second, Tick::from_secs(5));
        assert!(first < second && second < back);
        assert_eq!(
            (stamp_time(first), stamp_time(back)),
            (Tick::from_secs(100), Tick::from_secs(100))
        );
        assert_eq!(
            stamp_time(next_stamp(100 << 24 | 0xff_ffff, Tick::from_secs(100))),
            Tick::from_secs(101)
        );
    }

    #[test]
    fn flags_and_user_do_not_touch() {
        let tenancy = Tenancy::from_word(0).with_flags(DRAINED | RESERVED, 0).next(user_tag("ann"));
        assert_eq!(tenancy.user(), user_tag("ann"));
        assert_eq!(tenancy.generation, 1);
        assert!(tenancy.has(DRAINED) && tenancy.has(RESERVED) && !tenancy.has(RETIRED));
        let cleared = tenancy.with_flags(0, DRAINED);
        assert!(!cleared.has(DRAINED) && cleared.has(RESERVED));
        assert_eq!(Tenancy::from_word(cleared.to_word()), cleared);
    }
}
