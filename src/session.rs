//! Session ids, handles and leases.
//!
//! A session id has 64 bits: the kind in the upper 8 and the value in the lower 56. Zero is never a
//! session id.
//!
//! Programs receive a [`Handle`] in the environment variable `VIPOOL_LEASE`, not the session id. A
//! handle names one lease of one boot. Processes such as tmux can outlive their session, and they
//! keep its environment. If the environment contained a session id, these processes would use the
//! addresses of the next session with the same id. A handle does not match a later session.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::hash::hash64;

const VALUE_BITS: u32 = 56;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;

/// The source of a session id. The numbers are part of the map file and of the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum SessionKind {
    /// A terminal services session of Windows (`ProcessIdToSessionId`).
    Windows = 1,
    /// An audit session of Linux (`/proc/self/sessionid`, see `pam_loginuid(8)`).
    Audit = 2,
    /// A session of logind (`XDG_SESSION_ID`, see `org.freedesktop.login1(5)`).
    Logind = 3,
    /// A number from a program that embeds this library.
    Embedder = 4,
    /// A number from an administrator on the command line.
    CommandLine = 5,
    /// A user id of Linux, for the session that all logons of the user share (`session-per =
    /// "user"`).
    User = 6,
}

impl SessionKind {
    const NAMES: [(SessionKind, &'static str); 6] = [
        (SessionKind::Windows, "windows"),
        (SessionKind::Audit, "audit"),
        (SessionKind::Logind, "logind"),
        (SessionKind::Embedder, "embedder"),
        (SessionKind::CommandLine, "cli"),
        (SessionKind::User, "user"),
    ];

    /// Returns the name of the kind in the text form of session ids, such as `audit`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize - 1].1
    }

    /// Returns the kind with this number, or `None` if there is no such kind.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::NAMES.iter().map(|(kind, _)| *kind).find(|kind| *kind as u8 == number)
    }
}

/// The id of a session: one logon of a user on a server, or all logons of a user.
///
/// The text form is a number for [`SessionKind::CommandLine`] and `kind:value` for other kinds.
///
/// ```
/// use vipool::session::{SessionId, SessionKind};
///
/// let session: SessionId = "audit:3".parse()?;
/// assert_eq!((session.kind(), session.value()), (SessionKind::Audit, 3));
/// assert_eq!(SessionId::new(SessionKind::CommandLine, 7)?.to_string(), "7");
/// # Ok::<(), vipool::session::SessionIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(NonZeroU64);

/// The reason why a number or a text is not a session id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionIdError {
    /// The value needs more than 56 bits.
    #[error("session value {0} does not fit in 56 bits")]
    TooLarge(u64),
    /// The value is the audit session id of processes without a session.
    #[error("audit session 4294967295 means that the process has no session")]
    Unset,
    /// The text names an unknown kind.
    #[error("unknown session kind {0:?} (known: windows, audit, logind, embedder, cli, user)")]
    UnknownKind(String),
    /// The value is not a number, or the name of a logind session is empty.
    #[error(
        "{0:?} is not a session: write a number (7) or a kind and a value (audit:7, logind:c1)"
    )]
    NotANumber(String),
}

impl SessionId {
    /// Creates a session id from a kind and a value. The value is from 0 to 2^56-1.
    ///
    /// # Errors
    /// Fails if the value is too large, or if it is the audit session id for "no session".
    pub fn new(kind: SessionKind, value: u64) -> Result<Self, SessionIdError> {
        if value > VALUE_MASK {
            return Err(SessionIdError::TooLarge(value));
        }
        if kind == SessionKind::Audit && value == u64::from(u32::MAX) {
            return Err(SessionIdError::Unset);
        }
        let raw = (kind as u64) << VALUE_BITS | value;
        Ok(Self(NonZeroU64::new(raw).expect("the number of a kind is not zero")))
    }

    /// Creates the session id for the name of a logind session.
    ///
    /// If the name is a 32-bit number, the value is this number. All other names have values in the
    /// upper half of the value space. If such a name consists of at most nine ASCII letters and
    /// digits, such as `c1`, the value encodes the name, and the text form contains the name.
    /// Otherwise the value contains a hash of the name.
    ///
    /// # Errors
    /// Fails if the name is empty.
    pub fn logind(name: &str) -> Result<Self, SessionIdError> {
        if name.is_empty() {
            return Err(SessionIdError::NotANumber(name.to_owned()));
        }
        let value = name
            .parse::<u32>()
            .map(u64::from)
            .unwrap_or_else(|_| encode_name(name).unwrap_or_else(|| hash_name(name)));
        Self::new(SessionKind::Logind, value)
    }

    /// Returns the session id with these 64 bits, or `None` for zero and for unknown kinds.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        SessionKind::from_number((raw >> VALUE_BITS) as u8)?;
        NonZeroU64::new(raw).map(Self)
    }

    /// Returns the 64 bits, as the map file contains them.
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0.get()
    }

    /// Returns the source of the session id.
    #[must_use]
    pub fn kind(self) -> SessionKind {
        SessionKind::from_number((self.raw() >> VALUE_BITS) as u8)
            .expect("the constructors check the kind")
    }

    /// Returns the value, which is the lower 56 bits.
    #[must_use]
    pub fn value(self) -> u64 {
        self.raw() & VALUE_MASK
    }
}

/// This bit is set in the values of logind sessions whose name is not a 32-bit number.
const NAME_BIT: u64 = 1 << (VALUE_BITS - 1);
/// This bit is set in values that contain a hash of the name instead of the encoded name.
const HASH_BIT: u64 = NAME_BIT >> 1;
/// The number of bits of an encoded character.
const CHARACTER_BITS: usize = 6;
/// The maximum length of an encoded name. The bits below [`HASH_BIT`] contain its characters.
const MAX_ENCODED_NAME_LENGTH: usize = 9;
/// The characters of encoded names. The code of a character is its position plus one.
const NAME_CHARACTERS: &[u8; 62] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Encodes the name of a logind session, with the last character in the lowest bits. Returns `None`
/// if the name is too long or contains a character that is not in [`NAME_CHARACTERS`].
fn encode_name(name: &str) -> Option<u64> {
    if name.len() > MAX_ENCODED_NAME_LENGTH {
        return None;
    }
    let code = name.bytes().try_fold(0, |code, byte| {
        let position = NAME_CHARACTERS.iter().position(|character| *character == byte)?;
        Some(code << CHARACTER_BITS | (position as u64 + 1))
    })?;
    Some(NAME_BIT | code)
}

/// Decodes the name that `value` encodes. The name is at the end of `buffer`. Returns `None` if
/// `value` contains a code that no character has. If `value` is a hash or a number, the result is
/// meaningless. So the caller must check that [`SessionId::logind`] gives the name this value.
fn decode_name(value: u64, buffer: &mut [u8; MAX_ENCODED_NAME_LENGTH]) -> Option<&str> {
    let mut code = value & (HASH_BIT - 1);
    let mut start = MAX_ENCODED_NAME_LENGTH;
    while code != 0 {
        let position = (code & ((1 << CHARACTER_BITS) - 1)).checked_sub(1)?;
        start = start.checked_sub(1)?;
        buffer[start] = *NAME_CHARACTERS.get(position as usize)?;
        code >>= CHARACTER_BITS;
    }
    str::from_utf8(&buffer[start..]).ok()
}

/// Returns a value for a name that cannot be encoded.
fn hash_name(name: &str) -> u64 {
    NAME_BIT | HASH_BIT | hash64(name.as_bytes(), 0) & (HASH_BIT - 1)
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            SessionKind::CommandLine => write!(f, "{}", self.value()),
            SessionKind::Logind if self.value() & NAME_BIT != 0 => {
                let mut buffer = [0; MAX_ENCODED_NAME_LENGTH];
                match decode_name(self.value(), &mut buffer) {
                    // A hash can decode to a name, and a value can be the code of digits such as
                    // "12". `logind` gives both names another session id.
                    Some(name) if Self::logind(name) == Ok(*self) => write!(f, "logind:{name}"),
                    _ => write!(f, "logind:{}", self.value()),
                }
            }
            kind => write!(f, "{}:{}", kind.name(), self.value()),
        }
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl FromStr for SessionId {
    type Err = SessionIdError;

    /// Parses the output of [`fmt::Display`]. Also accepts the kind of a command-line session
    /// (`cli:7`) and any name of a logind session that is not a number (`logind:my-session`).
    fn from_str(text: &str) -> Result<Self, SessionIdError> {
        let Some((kind, value)) = text.split_once(':') else {
            let value = text.parse().map_err(|_| SessionIdError::NotANumber(text.to_owned()))?;
            return Self::new(SessionKind::CommandLine, value);
        };
        let (kind, _) = SessionKind::NAMES
            .into_iter()
            .find(|(_, name)| *name == kind)
            .ok_or_else(|| SessionIdError::UnknownKind(kind.to_owned()))?;
        match (kind, value.parse::<u64>()) {
            (SessionKind::Logind, Err(_)) => Self::logind(value),
            (kind, Ok(value)) => Self::new(kind, value),
            (_, Err(_)) => Err(SessionIdError::NotANumber(text.to_owned())),
        }
    }
}

/// A reference to a lease, which the programs of the session receive.
///
/// A reader finds the lease in the map by the handle. The reader also detects that the lease was
/// released, even if the slot was leased again.
///
/// The pool, slot and generation are those of the *anchor*: the first lease of the session, in the
/// order of the pools, at the time when the handle was created. A reader finds the other leases by
/// the session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// The session that holds the lease.
    pub session: SessionId,
    /// The number of the pool in the map.
    pub pool: u16,
    /// The slot within the pool.
    pub slot: u32,
    /// The number of times that the slot was leased, including this lease. The number wraps around.
    pub generation: u32,
    /// The hash of the boot and the network namespace of the map.
    pub boot: u64,
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:016x}.{:x}.{:x}.{:x}.{:016x}",
            self.session.raw(),
            self.pool,
            self.slot,
            self.generation,
            self.boot
        )
    }
}

impl Handle {
    /// Parses the output of [`fmt::Display`]: five hexadecimal numbers, separated by dots. Returns
    /// `None` for any other text.
    ///
    /// The function does not allocate, because hook layers call it while a program starts.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut fields = text.split(|byte| *byte == b'.');
        let mut next_field = |max: u64| parse_hex(fields.next()?).filter(|value| *value <= max);
        let handle = Self {
            session: SessionId::from_raw(next_field(u64::MAX)?)?,
            pool: next_field(u16::MAX.into())? as u16,
            slot: next_field(u32::MAX.into())? as u32,
            generation: next_field(u32::MAX.into())? as u32,
            boot: next_field(u64::MAX)?,
        };
        fields.next().is_none().then_some(handle)
    }
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = (*digit as char).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

/// The right of a session to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The session that holds the lease.
    pub session: SessionId,
    /// The number of the pool in the map.
    pub pool: u16,
    /// The slot within the pool.
    pub slot: u32,
    /// The number of times that the slot was leased, including this lease. The number wraps around.
    pub generation: u32,
    /// The address.
    pub address: IpAddr,
}

/// The addresses of one session, in the form that a hook layer uses. Each address may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// V: the virtual IP of IPv4.
    pub v4: Option<Ipv4Addr>,
    /// The virtual IP of IPv6.
    pub v6: Option<Ipv6Addr>,
    /// L: the virtual loopback address, in 127.0.0.0/8.
    pub loopback: Option<Ipv4Addr>,
    /// L6: a second address in 127.0.0.0/8. In the form `::ffff:L6` it represents `::1`, because
    /// Linux has only one IPv6 loopback address (row 32 of docs/socket-matrix.md).
    pub loopback6: Option<Ipv4Addr>,
}

impl Addresses {
    /// Returns these addresses. Takes missing addresses from `fallback`.
    #[must_use]
    pub fn or(self, fallback: Self) -> Self {
        Self {
            v4: self.v4.or(fallback.v4),
            v6: self.v6.or(fallback.v6),
            loopback: self.loopback.or(fallback.loopback),
            loopback6: self.loopback6.or(fallback.loopback6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_id_texts_round_trip() {
        for text in ["7", "audit:3", "windows:1", "user:1000", "embedder:72057594037927935"] {
            assert_eq!(text.parse::<SessionId>().unwrap().to_string(), text);
        }
        assert_eq!("cli:7".parse::<SessionId>(), "7".parse());
        assert_eq!(SessionId::logind("12").unwrap().value(), 12);
        assert_eq!("logind:c1".parse(), SessionId::logind("c1"));
        assert_ne!(SessionId::logind("c1"), SessionId::logind("c2"));
    }

    #[test]
    fn logind_sessions_are_displayed_by_name() {
        for name in ["1", "4294967295", "c1", "C1", "z", "0a", "zzzzzzzzz", "abcdefghi"] {
            let session = SessionId::logind(name).unwrap();
            assert_eq!(session.to_string(), format!("logind:{name}"));
            assert_eq!(session.to_string().parse(), Ok(session));
        }
        for name in ["tencharact", "c-1", "ä", "4294967296"] {
            let session = SessionId::logind(name).unwrap();
            assert!(session.value() > NAME_BIT, "{name}");
            assert_eq!(session.to_string().parse(), Ok(session), "{name}");
        }
        assert_ne!(SessionId::logind("tencharact"), SessionId::logind("tencharacu"));
    }

    #[test]
    fn values_without_a_name_are_displayed_as_numbers() {
        let encoded_digits = encode_name("12").unwrap();
        for value in [NAME_BIT, NAME_BIT | 63, NAME_BIT | 1 << 12 | 1, encoded_digits, VALUE_MASK] {
            let session = SessionId::new(SessionKind::Logind, value).unwrap();
            assert_eq!(session.to_string(), format!("logind:{value}"));
            assert_eq!(session.to_string().parse(), Ok(session));
        }
    }

    #[test]
    fn invalid_session_ids_are_rejected() {
        assert_eq!("audit:4294967295".parse::<SessionId>(), Err(SessionIdError::Unset));
        for text in ["", "x", "7 ", "-1", "72057594037927936", "pts:3", "audit:", "logind:"] {
            assert!(text.parse::<SessionId>().is_err(), "{text:?}");
        }
        assert_eq!(SessionId::from_raw(0), None);
        assert_eq!(SessionId::from_raw(7), None);
    }

    #[test]
    fn only_valid_handles_are_parsed() {
        let handle = Handle {
            session: "7".parse().unwrap(),
            pool: 1,
            slot: 0xfffe,
            generation: u32::MAX,
            boot: 0x0123_4567_89ab_cdef,
        };
        let text = handle.to_string();
        assert_eq!(Handle::parse(text.as_bytes()), Some(handle));
        assert_eq!(Handle::parse(format!("{text}.0").as_bytes()), None);
        assert_eq!(Handle::parse(&text.as_bytes()[..20]), None);
        assert_eq!(Handle::parse(b""), None);
        assert_eq!(Handle::parse(text.replacen("05", "0g", 1).as_bytes()), None);
        assert_eq!(Handle::parse(b"0500000000000007.10000.0.0.0"), None);
    }
}
