//! Who holds an address: session ids, the handle a program is told, and the leases behind it.
//!
//! A session id is 64 bits, kind in the top 8 and value in the lower 56; zero is no session. A
//! program never gets the bare id but a [`Handle`], which names one lease of one boot, so that an
//! environment that outlived its session (tmux, nohup) cannot reach the session that comes after.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::hash::hash64;

const VALUE_BITS: u32 = 56;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;

/// Where a session id comes from. The numbers are part of the map file and of the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum SessionKind {
    /// A Windows terminal services session id (`ProcessIdToSessionId`).
    Windows = 1,
    /// A Linux audit session id (`/proc/self/sessionid`, see `pam_loginuid(8)`).
    Audit = 2,
    /// A logind session (`XDG_SESSION_ID`, see `org.freedesktop.login1(5)`).
    Logind = 3,
    /// Chosen by the program that embeds this library.
    Embedder = 4,
    /// Chosen by an administrator on the command line.
    CommandLine = 5,
}

impl SessionKind {
    const ALL: [(SessionKind, &'static str); 5] = [
        (SessionKind::Windows, "windows"),
        (SessionKind::Audit, "audit"),
        (SessionKind::Logind, "logind"),
        (SessionKind::Embedder, "embedder"),
        (SessionKind::CommandLine, "cli"),
    ];

    /// The name used in texts, such as `audit`.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize - 1].1
    }

    /// The kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().map(|(kind, _)| *kind).find(|kind| *kind as u8 == number)
    }
}

/// One user's logon on a server: kind and value. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(NonZeroU64);

/// Why a number or text is not a session id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionIdError {
    /// The value needs more than 56 bits.
    #[error("session value {0} does not fit in 56 bits")]
    TooLarge(u64),
    /// The audit id that the kernel uses for "no login session".
    #[error("audit session 4294967295 means that the process has no session")]
    Unset,
    /// Not a kind this version knows.
    #[error("unknown session kind {0:?} (known: windows, audit, logind, embedder, cli)")]
    UnknownKind(String),
    /// Neither a number nor, for logind, a name.
    #[error(
        "{0:?} is not a session: write a number (7) or a kind and a value (audit:7, logind:c1)"
    )]
    NotANumber(String),
}

impl SessionId {
    /// The session of this kind with this value (0 to 2^56-1).
    pub fn new(kind: SessionKind, value: u64) -> Result<Self, SessionIdError> {
        if value > VALUE_MASK {
            return Err(SessionIdError::TooLarge(value));
        }
        if kind == SessionKind::Audit && value == u64::from(u32::MAX) {
            return Err(SessionIdError::Unset);
        }
        let raw = (kind as u64) << VALUE_BITS | value;
        Ok(Self(NonZeroU64::new(raw).expect("no kind is zero")))
    }

    /// A logind session by its name. Numeric names keep their number; others ("c1") are hashed
    /// into the upper half of the value space, where no number of logind's reaches.
    pub fn logind(name: &str) -> Result<Self, SessionIdError> {
        if name.is_empty() {
            return Err(SessionIdError::NotANumber(name.to_owned()));
        }
        let value = name
            .parse::<u32>()
            .map(u64::from)
            .unwrap_or_else(|_| hash64(name.as_bytes(), 0) & VALUE_MASK | 1 << (VALUE_BITS - 1));
        Self::new(SessionKind::Logind, value)
    }

    /// The session with these 64 bits; `None` for zero and for kinds this version does not know.
    pub fn from_raw(raw: u64) -> Option<Self> {
        SessionKind::from_number((raw >> VALUE_BITS) as u8)?;
        NonZeroU64::new(raw).map(Self)
    }

    /// The 64 bits, as in the map file.
    pub fn raw(self) -> u64 {
        self.0.get()
    }

    /// Where the id comes from.
    pub fn kind(self) -> SessionKind {
        SessionKind::from_number((self.raw() >> VALUE_BITS) as u8).expect("checked when made")
    }

    /// The value within its kind.
    pub fn value(self) -> u64 {
        self.raw() & VALUE_MASK
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            SessionKind::CommandLine => write!(f, "{}", self.value()),
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

    /// Reads what [`fmt::Display`] writes: `7` (command line) or `kind:value`; `logind:c1` too.
    fn from_str(text: &str) -> Result<Self, SessionIdError> {
        let Some((kind, value)) = text.split_once(':') else {
            let value = text.parse().map_err(|_| SessionIdError::NotANumber(text.to_owned()))?;
            return Self::new(SessionKind::CommandLine, value);
        };
        let (kind, _) = SessionKind::ALL
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

/// What a program is told of its lease: enough to find it in the map, and to notice that it is
/// no longer the same one.
///
/// Pool, slot and generation are those of the session's *anchor*, the first of its leases (in the
/// order of the pools) when the handle was made; the other leases are found by the session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// The session the address was leased to.
    pub session: SessionId,
    /// Number of the pool in the map.
    pub pool: u16,
    /// Slot within the pool.
    pub slot: u32,
    /// How often the slot had been leased, this lease included (wraps).
    pub generation: u32,
    /// The boot and network namespace the map belongs to, hashed.
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
    /// Reads what [`fmt::Display`] writes (five hexadecimal numbers with dots between them),
    /// without allocating: a hook layer calls this while its host process starts.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut fields = text.split(|byte| *byte == b'.');
        let mut next = |most: u64| hex(fields.next()?).filter(|value| *value <= most);
        let handle = Self {
            session: SessionId::from_raw(next(u64::MAX)?)?,
            pool: next(u16::MAX.into())? as u16,
            slot: next(u32::MAX.into())? as u32,
            generation: next(u32::MAX.into())? as u32,
            boot: next(u64::MAX)?,
        };
        fields.next().is_none().then_some(handle)
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = (*digit as char).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

/// One address given to one session: (session, pool, slot, generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The session the address was leased to.
    pub session: SessionId,
    /// Number of the pool in the map.
    pub pool: u16,
    /// Slot within the pool.
    pub slot: u32,
    /// How often the slot had been leased, this lease included (wraps).
    pub generation: u32,
    /// The address.
    pub address: IpAddr,
}

/// The addresses of one session, as a hook layer uses them. Any of them may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// V: the session's virtual IP, IPv4.
    pub v4: Option<Ipv4Addr>,
    /// The session's virtual IP, IPv6.
    pub v6: Option<Ipv6Addr>,
    /// L: the session's virtual loopback address, in 127.0.0.0/8.
    pub loopback: Option<Ipv4Addr>,
    /// L6: a second address in 127.0.0.0/8, which stands for `::1` as `::ffff:L6`: Linux has one
    /// IPv6 loopback address only (SOCKET-MATRIX row 32).
    pub loopback6: Option<Ipv4Addr>,
}

impl Addresses {
    /// These, with what is missing from others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            v4: self.v4.or(others.v4),
            v6: self.v6.or(others.v6),
            loopback: self.loopback.or(others.loopback),
            loopback6: self.loopback6.or(others.loopback6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        for text in ["7", "audit:3", "windows:1", "embedder:72057594037927935"] {
            assert_eq!(text.parse::<SessionId>().unwrap().to_string(), text);
        }
        assert_eq!("cli:7".parse::<SessionId>(), "7".parse());
        assert_eq!(SessionId::logind("12").unwrap().value(), 12);
        assert_eq!("logind:c1".parse(), SessionId::logind("c1"));
        assert_ne!(SessionId::logind("c1"), SessionId::logind("c2"));
    }

    #[test]
    fn what_is_no_session_is_refused() {
        assert_eq!("audit:4294967295".parse::<SessionId>(), Err(SessionIdError::Unset));
        for text in ["", "x", "7 ", "-1", "72057594037927936", "pts:3", "audit:", "logind:"] {
            assert!(text.parse::<SessionId>().is_err(), "{text:?}");
        }
        assert_eq!(SessionId::from_raw(0), None);
        assert_eq!(SessionId::from_raw(7), None);
    }

    #[test]
    fn handles_come_back_and_nothing_else_does() {
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
