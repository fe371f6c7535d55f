//! Status numbers, fixed for ever, and which error becomes which.
//!
//! A number is never given a second meaning: what retires stays in the list as reserved. Every
//! error of the crate is turned into a number by a `match` without a wildcard, so that a new
//! error cannot be forgotten here.

use std::ffi::{CStr, c_char};

use crate::map::{ChangeError, CloseError, MapError, OpenError, Shortage};
use crate::pool::PoolError;
use crate::range::RangeError;
use crate::session::SessionIdError;

macro_rules! texts {
    ($($status:ident $text:expr,)*) => {
        impl vipool_status {
            /// Every status, for tables and tests.
            pub const ALL: &[vipool_status] = &[$(vipool_status::$status),*];

            /// Its name in the header.
            pub const fn name(self) -> &'static CStr {
                match self {
                    $(vipool_status::$status => c_text(concat!(stringify!($status), "\0")),)*
                }
            }

            /// What it means, in a sentence.
            pub const fn text(self) -> &'static CStr {
                match self {
                    $(vipool_status::$status => c_text(concat!($text, "\0")),)*
                }
            }
        }
    };
}

/// What a call came to: VIPOOL_OK or one of these. The numbers never change; -1 to -19 are
/// mistakes of the caller's, the others come from what it was called with.
///
/// vipool_status_text() has a sentence for each, vipool_last_error() the details of the last one.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum vipool_status {
    /// Done.
    VIPOOL_OK = 0,

    /// A pointer that must not be NULL is.
    VIPOOL_ERR_NULL = -1,
    /// The size at the start of a struct is none that any version of this struct ever had.
    VIPOOL_ERR_STRUCT_SIZE = -2,
    /// The caller's struct is newer than the library and uses a field that this one does not know.
    VIPOOL_ERR_UNKNOWN_FIELD = -3,
    /// A text is not UTF-8.
    VIPOOL_ERR_UTF8 = -4,
    /// A text is not UTF-16.
    VIPOOL_ERR_UTF16 = -5,
    /// A number that stands for a kind, a feature or a flag is none of those defined.
    VIPOOL_ERR_KIND = -6,
    /// Not an address: unknown family, wrong length, or text that does not say one.
    VIPOOL_ERR_ADDRESS = -7,
    /// The caller's buffer is too small; the length that is needed was written.
    VIPOOL_ERR_BUFFER = -8,
    /// There is no such element: past the end, or not known by this name.
    VIPOOL_ERR_NOT_FOUND = -9,
    /// A mistake inside the library. The call did not finish; please report the last error text.
    VIPOOL_ERR_PANIC = -10,
    /// This system has no such thing.
    VIPOOL_ERR_UNSUPPORTED = -11,

    /// Not a range: neither an address, a CIDR prefix nor first-last.
    VIPOOL_ERR_RANGE_SYNTAX = -20,
    /// A CIDR prefix with bits set behind the prefix length.
    VIPOOL_ERR_RANGE_HOST_BITS = -21,
    /// First address above last, or two families.
    VIPOOL_ERR_RANGE_ORDER = -22,
    /// IPv4 and IPv6 in one pool.
    VIPOOL_ERR_POOL_MIXED = -23,
    /// Two ranges of a pool share addresses.
    VIPOOL_ERR_POOL_OVERLAP = -24,
    /// A loopback pool reaches outside 127.0.0.2-127.255.255.254.
    VIPOOL_ERR_POOL_NOT_LOOPBACK = -25,
    /// Not a session id: zero, a value above 2^56-1, or a text that says none.
    VIPOOL_ERR_SESSION_ID = -26,
    /// The audit id 4294967295: the process has no session.
    VIPOOL_ERR_SESSION_UNSET = -27,
    /// Not the text of a handle.
    VIPOOL_ERR_HANDLE = -28,
    /// No interface has an address in the subnet of the range.
    VIPOOL_ERR_NO_INTERFACE = -29,
    /// Several interfaces are in the subnet of the range.
    VIPOOL_ERR_INTERFACE_TIE = -30,
    /// The range is not inside one subnet.
    VIPOOL_ERR_SPANS_SUBNETS = -31,

    /// Every address is in use, reserved or drained.
    VIPOOL_ERR_EXHAUSTED = -40,
    /// Every free address is cooling down; the last error text says until when.
    VIPOOL_ERR_COOLING = -41,
    /// Every free address may still have sockets on it: vipool_map_reap() looks.
    VIPOOL_ERR_LINGERING = -42,
    /// The pool is being drained.
    VIPOOL_ERR_DRAINING = -43,
    /// No pool has this name.
    VIPOOL_ERR_UNKNOWN_POOL = -44,
    /// The requested address is in no pool of this server.
    VIPOOL_ERR_EXCLUDED = -45,
    /// The requested address is leased to another session.
    VIPOOL_ERR_TAKEN = -46,
    /// The requested address is cooling down.
    VIPOOL_ERR_ADDRESS_COOLING = -47,
    /// The requested address may still have sockets of its last session on it.
    VIPOOL_ERR_ADDRESS_LINGERING = -48,
    /// The requested address is reserved for another user.
    VIPOOL_ERR_RESERVED = -49,
    /// The requested address is drained.
    VIPOOL_ERR_DRAINED = -50,
    /// The user has as many sessions as one may have.
    VIPOOL_ERR_QUOTA = -51,
    /// The server has as many sessions as it may have.
    VIPOOL_ERR_TOO_MANY_SESSIONS = -52,
    /// The sessions of the operating system have not been restored yet.
    VIPOOL_ERR_NOT_READY = -53,
    /// The address is not reserved.
    VIPOOL_ERR_NOT_RESERVED = -54,

    /// The session is not open.
    VIPOOL_ERR_NOT_OPEN = -60,
    /// The lease was closed before, or belongs to a later session by now. Nothing was freed.
    VIPOOL_ERR_STALE = -61,
    /// The handle is of another boot, network namespace or map. Nothing was freed.
    VIPOOL_ERR_FOREIGN = -62,

    /// The operating system said no; the last error text names the file and its answer.
    VIPOOL_ERR_IO = -70,
    /// There is no map in this directory.
    VIPOOL_ERR_MISSING = -71,
    /// Not a map file, damaged, or of a version this one does not know.
    VIPOOL_ERR_DAMAGED = -72,
    /// The map was made before the last start of the machine, or in another network namespace.
    VIPOOL_ERR_OTHER_BOOT = -73,
    /// The map file is planted or unsafe: a symlink, another owner, writable by others.
    VIPOOL_ERR_UNTRUSTED = -74,
    /// Another writer held the map for too long.
    VIPOOL_ERR_BUSY = -75,
    /// Another writer holds the map for itself.
    VIPOOL_ERR_BUSY_EXCLUSIVE = -76,
    /// The plan cannot be made into a map.
    VIPOOL_ERR_PLAN = -77,
    /// The map was opened by the parent of this process, which was forked since: open it again.
    VIPOOL_ERR_FORKED = -78,
}

texts! {
    VIPOOL_OK "done",
    VIPOOL_ERR_NULL "a pointer that must not be NULL is",
    VIPOOL_ERR_STRUCT_SIZE "the size at the start of a struct is none that this struct ever had",
    VIPOOL_ERR_UNKNOWN_FIELD "the struct uses a field that this version of the library does not know",
    VIPOOL_ERR_UTF8 "the text is not UTF-8",
    VIPOOL_ERR_UTF16 "the text is not UTF-16",
    VIPOOL_ERR_KIND "the number is none of those defined for this argument",
    VIPOOL_ERR_ADDRESS "not an address: unknown family, wrong length or unreadable text",
    VIPOOL_ERR_BUFFER "the buffer is too small",
    VIPOOL_ERR_NOT_FOUND "there is no such element",
    VIPOOL_ERR_PANIC "a mistake inside the library; the call did not finish",
    VIPOOL_ERR_UNSUPPORTED "this system has no such thing",
    VIPOOL_ERR_RANGE_SYNTAX "not a range: write a CIDR prefix, first-last or one address",
    VIPOOL_ERR_RANGE_HOST_BITS "the CIDR prefix has bits set behind its length",
    VIPOOL_ERR_RANGE_ORDER "the first address is above the last, or they are of two families",
    VIPOOL_ERR_POOL_MIXED "the pool mixes IPv4 and IPv6",
    VIPOOL_ERR_POOL_OVERLAP "two ranges of the pool overlap",
    VIPOOL_ERR_POOL_NOT_LOOPBACK "a loopback pool must lie inside 127.0.0.2-127.255.255.254",
    VIPOOL_ERR_SESSION_ID "not a session id",
    VIPOOL_ERR_SESSION_UNSET "audit session 4294967295 means that the process has no session",
    VIPOOL_ERR_HANDLE "not the text of a handle",
    VIPOOL_ERR_NO_INTERFACE "no interface has an address in the subnet of the range",
    VIPOOL_ERR_INTERFACE_TIE "several interfaces are in the subnet of the range",
    VIPOOL_ERR_SPANS_SUBNETS "the range is not inside one subnet",
    VIPOOL_ERR_EXHAUSTED "No virtual IP address is available for this session, please contact your administrator.",
    VIPOOL_ERR_COOLING "every free address is cooling down",
    VIPOOL_ERR_LINGERING "every free address may still have sockets on it",
    VIPOOL_ERR_DRAINING "the pool is draining: no new session gets an address",
    VIPOOL_ERR_UNKNOWN_POOL "there is no pool of this name",
    VIPOOL_ERR_EXCLUDED "the address is in no pool of this server",
    VIPOOL_ERR_TAKEN "the address is leased to another session",
    VIPOOL_ERR_ADDRESS_COOLING "the address is cooling down",
    VIPOOL_ERR_ADDRESS_LINGERING "the address may still have sockets of its last session on it",
    VIPOOL_ERR_RESERVED "the address is reserved for another user",
    VIPOOL_ERR_DRAINED "the address is drained",
    VIPOOL_ERR_QUOTA "the user has as many sessions as sessions-per-user allows",
    VIPOOL_ERR_TOO_MANY_SESSIONS "the server has as many sessions as max-sessions allows",
    VIPOOL_ERR_NOT_READY "the sessions of the operating system have not been restored yet",
    VIPOOL_ERR_NOT_RESERVED "the address is not reserved",
    VIPOOL_ERR_NOT_OPEN "the session is not open",
    VIPOOL_ERR_STALE "stale: the lease was closed before",
    VIPOOL_ERR_FOREIGN "the handle is of another boot or another map",
    VIPOOL_ERR_IO "the operating system refused",
    VIPOOL_ERR_MISSING "there is no map in this directory",
    VIPOOL_ERR_DAMAGED "not a usable map file",
    VIPOOL_ERR_OTHER_BOOT "the map is of another boot or network namespace",
    VIPOOL_ERR_UNTRUSTED "the map file is not safe to use",
    VIPOOL_ERR_BUSY "another writer held the map for too long",
    VIPOOL_ERR_BUSY_EXCLUSIVE "another writer holds the map for itself",
    VIPOOL_ERR_PLAN "the plan cannot be made into a map",
    VIPOOL_ERR_FORKED "the map was opened before this process was forked: open it again",
}

use vipool_status::*;

const fn c_text(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a status text with NUL inside"),
    }
}

impl vipool_status {
    /// The status with this number.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| *status as i32 == number)
    }
}

/// The name of a status, such as "VIPOOL_ERR_BUSY"; "unknown status" for other numbers. Static:
/// nothing to free.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_status_name(status: i32) -> *const c_char {
    vipool_status::from_number(status).map_or(c"unknown status", vipool_status::name).as_ptr()
}

/// What a status means, in an English sentence; "unknown status" for other numbers. Static:
/// nothing to free. For the details of a failure see vipool_last_error().
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_status_text(status: i32) -> *const c_char {
    vipool_status::from_number(status).map_or(c"unknown status", vipool_status::text).as_ptr()
}

impl From<&RangeError> for vipool_status {
    fn from(error: &RangeError) -> Self {
        match error {
            RangeError::Syntax(_) => VIPOOL_ERR_RANGE_SYNTAX,
            RangeError::HostBits(..) => VIPOOL_ERR_RANGE_HOST_BITS,
            RangeError::Order(_) => VIPOOL_ERR_RANGE_ORDER,
        }
    }
}

impl From<&PoolError> for vipool_status {
    fn from(error: &PoolError) -> Self {
        match error {
            PoolError::MixedFamilies(_) => VIPOOL_ERR_POOL_MIXED,
            PoolError::Overlap(..) => VIPOOL_ERR_POOL_OVERLAP,
            PoolError::NotLoopback(..) => VIPOOL_ERR_POOL_NOT_LOOPBACK,
        }
    }
}

impl From<&SessionIdError> for vipool_status {
    fn from(error: &SessionIdError) -> Self {
        match error {
            SessionIdError::Unset => VIPOOL_ERR_SESSION_UNSET,
            SessionIdError::UnknownKind(_) => VIPOOL_ERR_KIND,
            SessionIdError::TooLarge(_) | SessionIdError::NotANumber(_) => VIPOOL_ERR_SESSION_ID,
        }
    }
}

impl From<&Shortage> for vipool_status {
    fn from(shortage: &Shortage) -> Self {
        match shortage {
            Shortage::Exhausted => VIPOOL_ERR_EXHAUSTED,
            Shortage::Cooling { .. } => VIPOOL_ERR_COOLING,
            Shortage::Lingering => VIPOOL_ERR_LINGERING,
            Shortage::Draining => VIPOOL_ERR_DRAINING,
        }
    }
}

impl From<&OpenError> for vipool_status {
    fn from(error: &OpenError) -> Self {
        match error {
            OpenError::Shortage(shortage) => shortage.into(),
            OpenError::UnknownPool(_) => VIPOOL_ERR_UNKNOWN_POOL,
            OpenError::Excluded(_) => VIPOOL_ERR_EXCLUDED,
            OpenError::Taken(_) => VIPOOL_ERR_TAKEN,
            OpenError::AddressCooling(..) => VIPOOL_ERR_ADDRESS_COOLING,
            OpenError::AddressLingering(_) => VIPOOL_ERR_ADDRESS_LINGERING,
            OpenError::ReservedForAnother(_) => VIPOOL_ERR_RESERVED,
            OpenError::AddressDrained(_) => VIPOOL_ERR_DRAINED,
            OpenError::Quota { .. } => VIPOOL_ERR_QUOTA,
            OpenError::TooManySessions(_) => VIPOOL_ERR_TOO_MANY_SESSIONS,
            OpenError::NotReady => VIPOOL_ERR_NOT_READY,
            OpenError::Map(error) => error.into(),
        }
    }
}

impl From<&CloseError> for vipool_status {
    fn from(error: &CloseError) -> Self {
        match error {
            CloseError::NotOpen(_) => VIPOOL_ERR_NOT_OPEN,
            CloseError::Stale(_) => VIPOOL_ERR_STALE,
            CloseError::Foreign => VIPOOL_ERR_FOREIGN,
            CloseError::Map(error) => error.into(),
        }
    }
}

impl From<&ChangeError> for vipool_status {
    fn from(error: &ChangeError) -> Self {
        match error {
            ChangeError::NotInPool(_) => VIPOOL_ERR_EXCLUDED,
            ChangeError::ReservedForAnother(_) => VIPOOL_ERR_RESERVED,
            ChangeError::NotReserved(_) => VIPOOL_ERR_NOT_RESERVED,
            ChangeError::Map(error) => error.into(),
        }
    }
}

impl From<&MapError> for vipool_status {
    fn from(error: &MapError) -> Self {
        match error {
            MapError::Io { .. } => VIPOOL_ERR_IO,
            MapError::Missing(_) => VIPOOL_ERR_MISSING,
            MapError::Damaged { .. } => VIPOOL_ERR_DAMAGED,
            MapError::OtherBoot(_) => VIPOOL_ERR_OTHER_BOOT,
            MapError::Untrusted { .. } => VIPOOL_ERR_UNTRUSTED,
            MapError::Busy { exclusive: false, .. } => VIPOOL_ERR_BUSY,
            MapError::Busy { exclusive: true, .. } => VIPOOL_ERR_BUSY_EXCLUSIVE,
            MapError::Forked => VIPOOL_ERR_FORKED,
            MapError::Plan(_) => VIPOOL_ERR_PLAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_apart_and_have_texts() {
        for (index, status) in vipool_status::ALL.iter().enumerate() {
            assert_eq!(vipool_status::from_number(*status as i32), Some(*status));
            assert!(!vipool_status::ALL[..index].contains(status));
            assert!(!status.text().is_empty());
        }
        assert_eq!(VIPOOL_ERR_EXHAUSTED.text().to_str(), Ok(crate::EXHAUSTED_MESSAGE));
        assert_eq!(vipool_status::from_number(1), None);
    }
}
