//! The clock of a map: whole seconds since the machine started.

use std::fmt;

use crate::os::clock;

/// A point in time, in whole seconds since the machine started.
///
/// The clock includes the time that the machine was asleep. Changes of the wall clock do not affect
/// a tick. A tick is meaningful only within one boot.
///
/// ```
/// use vipool::Tick;
///
/// let release = Tick::from_secs(1000);
/// let end_of_cool_down = release.saturating_add(60);
/// assert!(release < end_of_cool_down);
/// assert_eq!(end_of_cool_down.seconds_since(release), 60);
/// assert!(Tick::now() <= Tick::MAX);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u32);

impl Tick {
    /// The moment at which the machine started.
    pub const ZERO: Self = Self(0);
    /// The last tick, 136 years after the machine started.
    pub const MAX: Self = Self(u32::MAX);

    /// Returns the current tick.
    #[must_use]
    pub fn now() -> Self {
        Self(u32::try_from(clock::since_boot().as_secs()).unwrap_or(u32::MAX))
    }

    /// Returns the tick that is `seconds` after the start of the machine.
    #[must_use]
    #[inline]
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Returns the number of seconds between the start of the machine and this tick.
    #[must_use]
    #[inline]
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// Returns the tick that is `seconds` later, or [`Tick::MAX`] if the sum is larger.
    #[must_use]
    #[inline]
    pub const fn saturating_add(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Returns the tick that is `seconds` later, or earlier if the number is negative. The result
    /// is limited to the range from [`Tick::ZERO`] to [`Tick::MAX`].
    #[must_use]
    #[inline]
    pub const fn saturating_add_signed(self, seconds: i32) -> Self {
        Self(self.0.saturating_add_signed(seconds))
    }

    /// Returns the number of seconds from `earlier` to `self`, or 0 if `earlier` is later.
    #[must_use]
    #[inline]
    pub const fn seconds_since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
