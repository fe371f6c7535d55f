//! One slot: the three words that hold the state of one address.
//!
//! | word | while leased | while not leased |
//! |---|---|---|
//! | 0 owner | the session id | the state in the top 8 bits, a stamp below |
//! | 1 meta | generation, tag of the user, flags | generation, tag of the last user, flags |
//! | 2 link | start of the session | neighbours in its queue |
//!
//! The tag of a reserved slot is the tag of the user of the reservation.
//!
//! The store of the owner word commits the start and the end of a lease. A *stamp* contains a time
//! in seconds (32 bits) and a counter of the stamps of the same second (24 bits). If the counter is
//! full, the next stamp has the next second. Each new stamp is higher than all earlier stamps, so
//! recovery can sort the slots of a queue by their stamps. The stamp of a cooling slot is the start
//! of its cool-down.

use super::words::{join_halves, split_halves};
use crate::Tick;
use crate::raw::word::Word;

/// The number of words of a slot.
pub(crate) const SLOT_WORDS: usize = 3;
/// The words of one slot.
pub(crate) type Slot = [Word; SLOT_WORDS];
/// Offset of the owner word in a slot.
pub(crate) const OWNER: usize = 0;
/// Offset of the meta word in a slot.
pub(crate) const META: usize = 1;
/// Offset of the link word in a slot.
pub(crate) const LINK: usize = 2;

const STATE_SHIFT: u32 = 56;
const STAMP_MASK: u64 = (1 << STATE_SHIFT) - 1;
const STAMP_TIME_SHIFT: u32 = 24;

/// The content of an owner word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Leased to the session with this id.
    Session(u64),
    /// Free. The slot got this stamp when it became free, or at a later change of flags. The stamp
    /// is 0 if neither has happened, or if the state of the address moved to another pool.
    Free(u64),
    /// Cooling since this stamp, the stamp of the release or of a later change of flags. The slot
    /// cools down, or it has cooled down and no writer has changed its state yet.
    Cooling(u64),
    /// Cooled down, but a check found sockets on the address. The slot got this stamp at the last
    /// check, or at a later change of flags.
    Lingering(u64),
}

const STATE_COOLING: u64 = 0x80;
const STATE_LINGERING: u64 = 0x81;

impl Owner {
    /// Decodes an owner word. A word with an unknown state counts as free.
    #[inline]
    pub(crate) fn from_word(word: u64) -> Self {
        match word >> STATE_SHIFT {
            1..=0x7f => Self::Session(word),
            STATE_COOLING => Self::Cooling(word & STAMP_MASK),
            STATE_LINGERING => Self::Lingering(word & STAMP_MASK),
            _ => Self::Free(word & STAMP_MASK),
        }
    }

    /// Encodes an owner word.
    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Session(session_id) => session_id,
            Self::Free(stamp) => stamp,
            Self::Cooling(stamp) => STATE_COOLING << STATE_SHIFT | stamp,
            Self::Lingering(stamp) => STATE_LINGERING << STATE_SHIFT | stamp,
        }
    }

    /// Returns whether `word` is the encoding of [`Owner::Free`]. Returns false for unknown states,
    /// which [`Owner::from_word`] decodes as free.
    #[inline(always)]
    pub(crate) fn is_free_word(word: u64) -> bool {
        word <= STAMP_MASK
    }

    /// Returns whether a session holds the slot.
    #[inline(always)]
    pub(crate) fn is_session(self) -> bool {
        matches!(self, Self::Session(_))
    }

    /// Returns the same state with another stamp. The state `Session` has no stamp and stays as it
    /// is.
    pub(crate) fn with_stamp(self, stamp: u64) -> Self {
        match self {
            Self::Session(_) => self,
            Self::Free(_) => Self::Free(stamp),
            Self::Cooling(_) => Self::Cooling(stamp),
            Self::Lingering(_) => Self::Lingering(stamp),
        }
    }

    /// Returns the stamp; `None` if a session holds the slot.
    pub(crate) fn stamp(self) -> Option<u64> {
        match self {
            Self::Session(_) => None,
            Self::Free(stamp) | Self::Cooling(stamp) | Self::Lingering(stamp) => Some(stamp),
        }
    }
}

/// Returns the stamp after `last` at time `now`.
#[inline]
pub(crate) fn next_stamp(last: u64, now: Tick) -> u64 {
    (u64::from(now.as_secs()) << STAMP_TIME_SHIFT).max((last & STAMP_MASK) + 1).min(STAMP_MASK)
}

/// Returns the time in a stamp.
#[inline]
pub(crate) fn stamp_time(stamp: u64) -> Tick {
    Tick::from_secs((stamp >> STAMP_TIME_SHIFT) as u32)
}

/// Flag: the slot is reserved for one user. The meta word contains the tag of this user.
pub(crate) const RESERVED: u32 = 1;
/// Flag in addition to [`RESERVED`]: the configuration made the reservation, not a command.
pub(crate) const PLANNED: u32 = 8;
/// Flag: an administrator drained the slot.
pub(crate) const DRAINED: u32 = 2;
/// Flag: the configuration no longer has the address in this pool.
pub(crate) const RETIRED: u32 = 4;
/// Flags: the configuration has the address in this pool, but a session still holds the address in
/// another pool. The slot is unusable until that session releases the address. [`RESERVED`] is not
/// set in this state: [`PLANNED`] has another meaning together with [`RESERVED`].
pub(crate) const AWAITING_RELEASE: u32 = RETIRED | PLANNED;
/// The flags of a meta word. The other bits of its lower half are the tag of a user.
pub(crate) const FLAGS: u32 = RESERVED | DRAINED | RETIRED | PLANNED;

/// The content of a meta word: the number of leases so far, the tag of a user, and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) generation: u32,
    /// The tag of the user ([`UserHash::tag`]), and flags in the low bits.
    ///
    /// [`UserHash::tag`]: super::user::UserHash::tag
    tag_and_flags: u32,
}

impl Meta {
    /// Decodes a meta word.
    #[inline]
    pub(crate) fn from_word(word: u64) -> Self {
        let (generation, tag_and_flags) = split_halves(word);
        Self { generation, tag_and_flags }
    }

    /// Encodes a meta word.
    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        join_halves(self.generation, self.tag_and_flags)
    }

    /// Returns the tag of the user; 0 if none is known.
    #[inline]
    pub(crate) fn user_tag(self) -> u32 {
        self.tag_and_flags & !FLAGS
    }

    /// Returns whether at least one of these flags is set.
    #[inline]
    pub(crate) fn has_any(self, flags: u32) -> bool {
        self.tag_and_flags & flags != 0
    }

    /// Returns whether the slot awaits the release of its address in another pool
    /// ([`AWAITING_RELEASE`]).
    pub(crate) fn is_awaiting_release(self) -> bool {
        self.tag_and_flags & (AWAITING_RELEASE | RESERVED) == AWAITING_RELEASE
    }

    /// Returns whether the user tag is 0 and no flag is set.
    #[inline(always)]
    pub(crate) fn has_no_user_or_flags(self) -> bool {
        self.tag_and_flags == 0
    }

    /// Returns those of these flags that are set.
    pub(crate) fn flags(self, flags: u32) -> u32 {
        self.tag_and_flags & flags
    }

    /// Returns a copy without `flags_to_clear` and with `flags_to_set`. A flag in both is set.
    pub(crate) fn with_flags(self, flags_to_set: u32, flags_to_clear: u32) -> Self {
        Self { tag_and_flags: self.tag_and_flags & !flags_to_clear | flags_to_set, ..self }
    }

    /// Returns a copy with another user tag.
    pub(crate) fn with_user(self, user_tag: u32) -> Self {
        Self { tag_and_flags: self.tag_and_flags & FLAGS | user_tag & !FLAGS, ..self }
    }

    /// Returns a copy with another generation.
    pub(crate) fn with_generation(self, generation: u32) -> Self {
        Self { generation, ..self }
    }

    /// Returns the meta word for the next lease of the slot, for the user with this tag.
    #[inline]
    pub(crate) fn next_lease(self, user_tag: u32) -> Self {
        Self { generation: self.generation.wrapping_add(1), ..self.with_user(user_tag) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::user::UserHash;
    use super::*;

    #[test]
    fn owner_words_round_trip() {
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
    fn stamps_increase_when_the_clock_goes_back_or_the_counter_is_full() {
        let stamp = next_stamp(0, Tick::from_secs(100));
        let stamp_in_same_second = next_stamp(stamp, Tick::from_secs(100));
        let stamp_after_clock_step = next_stamp(stamp_in_same_second, Tick::from_secs(5));
        assert!(stamp < stamp_in_same_second && stamp_in_same_second < stamp_after_clock_step);
        assert_eq!(stamp_time(stamp), Tick::from_secs(100));
        assert_eq!(stamp_time(stamp_after_clock_step), Tick::from_secs(100));
        let stamp_with_full_counter = 100 << 24 | 0xff_ffff;
        let stamp_after_full_counter = next_stamp(stamp_with_full_counter, Tick::from_secs(100));
        assert_eq!(stamp_time(stamp_after_full_counter), Tick::from_secs(101));
    }

    #[test]
    fn flags_and_user_tag_are_independent() {
        let tag = UserHash::of("ann", [1, 2]).tag();
        let meta = Meta::from_word(0).with_flags(DRAINED | RESERVED, 0).next_lease(tag);
        assert_eq!(meta.user_tag(), tag);
        assert_eq!(meta.generation, 1);
        assert!(meta.has_any(DRAINED) && meta.has_any(RESERVED) && !meta.has_any(RETIRED));
        let undrained = meta.with_flags(0, DRAINED);
        assert!(!undrained.has_any(DRAINED) && undrained.has_any(RESERVED));
        assert_eq!(Meta::from_word(undrained.to_word()), undrained);
    }
}
