//! The identity of a user in a map.
//!
//! A map identifies a user by the [`UserHash`]: a hash of the complete name under the secret key of
//! the sessions file. A record of the sessions file keeps only the first bytes of a name. The hash
//! also distinguishes two names that have these bytes in common.
//!
//! Every user can read the map file, so it contains only a *tag*: 28 bits of the hash. Without the
//! key, a tag does not reveal the name. Several users can have the same tag: the tag finds
//! candidates, and the hash in the sessions file decides.

use super::slot::FLAGS;
use crate::hash::{HashKey, keyed_hash};

/// The hash of the name of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserHash(u64);

impl UserHash {
    /// No user, or an unknown user.
    pub(crate) const NONE: Self = Self(0);

    /// Returns the hash of a user name, which is never [`UserHash::NONE`].
    pub(crate) fn of(name: &str, key: HashKey) -> Self {
        Self(keyed_hash(name.as_bytes(), key).max(1))
    }

    /// Decodes a word of the sessions file.
    #[inline]
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Encodes the hash as a word of the sessions file.
    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        self.0
    }

    /// Returns the tag for the map file; 0 for [`UserHash::NONE`] only.
    #[inline]
    pub(crate) fn tag(self) -> u32 {
        match (self, self.0 as u32 & !FLAGS) {
            (Self::NONE, _) => 0,
            (_, 0) => FLAGS + 1,
            (_, tag) => tag,
        }
    }
}
