//! Status numbers, their texts, and the status of each error of the crate.
//!
//! A number never gets a second meaning. -23 to -25 and -29 to -31 are retired. A `match` without a
//! wildcard maps each error type of the crate, so a new error without a status is a compile error.

use std::ffi::{CStr, c_char};

use crate::map::{ChangeError, CloseError, MapError, OpenError, Shortage};
use crate::range::RangeError;
use crate::session::SessionIdError;

macro_rules! status_texts {
    ($($status:ident $text:expr,)*) => {
        impl vipool_status {
            /// All statuses.
            pub const ALL: &[vipool_status] = &[$(vipool_status::$status),*];

            /// Returns the name of the constant in `vipool.h`.
            pub const fn name(self) -> &'static CStr {
                match self {
                    $(vipool_status::$status => c_text(concat!(stringify!($status), "\0")),)*
                }
            }

            /// Returns the description.
            pub const fn text(self) -> &'static CStr {
                match self {
                    $(vipool_status::$status => c_text(concat!($text, "\0")),)*
                }
            }
        }
    };
}

/// Result of a call. The numbers never change. -1 to -8 are mistakes of the caller.
/// VIPOOL_ERR_PANIC is a defect of the library. The other errors depend on the map, the system or
/// the input.
///
/// vipool_status_get_text() describes a status. vipool_last_error() describes the failure of the
/// last call of this thread. Signal-safe functions do not change that description.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum vipool_status {
    /// Success.
    VIPOOL_OK = 0,

    /// A pointer that must not be NULL is NULL.
    VIPOOL_ERR_NULL = -1,
    /// The size at the start of a struct is not the size of any version of this struct. VIPOOL_INIT
    /// sets the correct size. A common mistake is to pass the size of a pointer.
    VIPOOL_ERR_STRUCT_SIZE = -2,
    /// A struct sets a member that this library does not know, or a reserved member.
    VIPOOL_ERR_UNKNOWN_FIELD = -3,
    /// A text is not UTF-8.
    VIPOOL_ERR_UTF8 = -4,
    /// A text is not UTF-16.
    VIPOOL_ERR_UTF16 = -5,
    /// A kind or a flag has an undefined value.
    VIPOOL_ERR_KIND = -6,
    /// Not an address: unknown family, wrong length or invalid text.
    VIPOOL_ERR_ADDRESS = -7,
    /// A buffer is too small, or a path or an array of the caller is too long. If a buffer is too
    /// small, the call has still written the length or the count of the complete result.
    VIPOOL_ERR_BUFFER = -8,
    /// Nothing was found.
    VIPOOL_ERR_NOT_FOUND = -9,
    /// A defect inside the library. The call did not finish. Please report vipool_last_error().
    VIPOOL_ERR_PANIC = -10,
    /// This system does not support the call.
    VIPOOL_ERR_UNSUPPORTED = -11,

    /// Not a range: neither an address, a CIDR prefix nor first-last.
    VIPOOL_ERR_RANGE_SYNTAX = -20,
    /// The CIDR prefix has bits set after the prefix length.
    VIPOOL_ERR_RANGE_HOST_BITS = -21,
    /// The first address or port is above the last, or the families differ.
    VIPOOL_ERR_RANGE_ORDER = -22,
    /// Not a session id: zero, a number with an unknown kind, a value above 2^56-1, or invalid
    /// text.
    VIPOOL_ERR_SESSION_ID = -26,
    /// The audit session is 4294967295: the process has no session.
    VIPOOL_ERR_SESSION_UNSET = -27,
    /// Not a handle.
    VIPOOL_ERR_HANDLE = -28,

    /// Every address is in use, reserved or drained. The text of this status is the message for
    /// the user.
    VIPOOL_ERR_EXHAUSTED = -40,
    /// No address is free, but addresses are cooling down. vipool_last_error() reports when the
    /// first cool-down ends.
    VIPOOL_ERR_COOLING = -41,
    /// No address is free. Addresses have cooled down, but may still have sockets.
    /// vipool_map_reap() examines them.
    VIPOOL_ERR_LINGERING = -42,
    /// The pool or the server is draining.
    VIPOOL_ERR_DRAINING = -43,
    /// No pool has this name.
    VIPOOL_ERR_UNKNOWN_POOL = -44,
    /// The address is in no pool of this server.
    VIPOOL_ERR_EXCLUDED = -45,
    /// Another session holds the address.
    VIPOOL_ERR_TAKEN = -46,
    /// The address is cooling down.
    VIPOOL_ERR_ADDRESS_COOLING = -47,
    /// The address may still have sockets of its last session.
    VIPOOL_ERR_ADDRESS_LINGERING = -48,
    /// The address is reserved for another user.
    VIPOOL_ERR_RESERVED = -49,
    /// The address is drained.
    VIPOOL_ERR_DRAINED = -50,
    /// The user has the maximum number of sessions.
    VIPOOL_ERR_QUOTA = -51,
    /// The server has the maximum number of sessions.
    VIPOOL_ERR_TOO_MANY_SESSIONS = -52,
    /// The agent has not restored the sessions of the operating system yet.
    VIPOOL_ERR_NOT_READY = -53,
    /// The address is not reserved.
    VIPOOL_ERR_NOT_RESERVED = -54,
    /// A rule selects the pool by a group, and the user database did not return the groups of the
    /// user.
    VIPOOL_ERR_UNKNOWN_GROUPS = -55,
    /// The session is already open for another user.
    VIPOOL_ERR_OTHER_USER = -56,
    /// The session is already open with another address.
    VIPOOL_ERR_OTHER_ADDRESS = -57,

    /// The session is not open.
    VIPOOL_ERR_NOT_OPEN = -60,
    /// The lease is already released, and a later session may hold the address. The call released
    /// nothing.
    VIPOOL_ERR_STALE = -61,
    /// The handle is of another boot, network namespace or map. The call released nothing.
    VIPOOL_ERR_FOREIGN = -62,

    /// The operating system reported an error. vipool_last_error() names the file and the error.
    VIPOOL_ERR_IO = -70,
    /// The directory has no map.
    VIPOOL_ERR_MISSING = -71,
    /// The file is not a map, is damaged, or has an unknown version.
    VIPOOL_ERR_DAMAGED = -72,
    /// The map was created before the last boot, or in another network namespace.
    VIPOOL_ERR_OTHER_BOOT = -73,
    /// The map file is unsafe. For example, it is a symbolic link, belongs to another user, or
    /// other users can write to it.
    VIPOOL_ERR_UNTRUSTED = -74,
    /// Another writer held the lock of the map for too long, or another process creates or repairs
    /// the map.
    VIPOOL_ERR_BUSY = -75,
    /// Another writer holds the map exclusively.
    VIPOOL_ERR_BUSY_EXCLUSIVE = -76,
    /// No map can be made from the plan.
    VIPOOL_ERR_PLAN = -77,
    /// The parent of this process opened the map before fork(). Open the map again.
    VIPOOL_ERR_FORKED = -78,
    /// The lock no longer excludes other writers: this process has closed the descriptor of the
    /// lock file, or the lock file was removed. Open the map again.
    VIPOOL_ERR_LOCK_LOST = -79,
    /// The farm has errors: vipool_farm_list_findings() and vipool_farm_format_report() describe
    /// them.
    VIPOOL_ERR_FARM = -80,
    /// The directory for a map does not exist, or its name is empty.
    VIPOOL_ERR_DIRECTORY = -81,
}

status_texts! {
    VIPOOL_OK "success",
    VIPOOL_ERR_NULL "a pointer that must not be NULL is NULL",
    VIPOOL_ERR_STRUCT_SIZE "the size at the start of a struct is not the size of any version of this struct",
    VIPOOL_ERR_UNKNOWN_FIELD "the struct sets a reserved member, or a member that this version of the library does not know",
    VIPOOL_ERR_UTF8 "the text is not UTF-8",
    VIPOOL_ERR_UTF16 "the text is not UTF-16",
    VIPOOL_ERR_KIND "a kind or a flag has an undefined value",
    VIPOOL_ERR_ADDRESS "not an address: unknown family, wrong length or invalid text",
    VIPOOL_ERR_BUFFER "a buffer is too small, or a path or an array is too long",
    VIPOOL_ERR_NOT_FOUND "nothing was found",
    VIPOOL_ERR_PANIC "a defect inside the library; the call did not finish",
    VIPOOL_ERR_UNSUPPORTED "this system does not support the call",
    VIPOOL_ERR_RANGE_SYNTAX "not a range: write a CIDR prefix, first-last or one address",
    VIPOOL_ERR_RANGE_HOST_BITS "the CIDR prefix has bits set after the prefix length",
    VIPOOL_ERR_RANGE_ORDER "the first address or port is above the last, or the families differ",
    VIPOOL_ERR_SESSION_ID "not a session id",
    VIPOOL_ERR_SESSION_UNSET "audit session 4294967295 means that the process has no session",
    VIPOOL_ERR_HANDLE "not a handle",
    VIPOOL_ERR_EXHAUSTED "No virtual IP address is available for this session, please contact your administrator.",
    VIPOOL_ERR_COOLING "every free address is cooling down",
    VIPOOL_ERR_LINGERING "every free address may still have sockets",
    VIPOOL_ERR_DRAINING "the server or the pool is draining: no new session gets an address",
    VIPOOL_ERR_UNKNOWN_POOL "there is no pool of this name",
    VIPOOL_ERR_EXCLUDED "the address is in no pool of this server",
    VIPOOL_ERR_TAKEN "another session holds the address",
    VIPOOL_ERR_ADDRESS_COOLING "the address is cooling down",
    VIPOOL_ERR_ADDRESS_LINGERING "the address may still have sockets of its last session",
    VIPOOL_ERR_RESERVED "the address is reserved for another user",
    VIPOOL_ERR_DRAINED "the address is drained",
    VIPOOL_ERR_QUOTA "the user has the maximum number of sessions",
    VIPOOL_ERR_TOO_MANY_SESSIONS "the server has the maximum number of sessions",
    VIPOOL_ERR_NOT_READY "the sessions of the operating system have not been restored yet",
    VIPOOL_ERR_NOT_RESERVED "the address is not reserved",
    VIPOOL_ERR_UNKNOWN_GROUPS "the groups of the user, which select the pool, are unknown",
    VIPOOL_ERR_OTHER_USER "the session is already open for another user",
    VIPOOL_ERR_OTHER_ADDRESS "the session is already open with another address",
    VIPOOL_ERR_NOT_OPEN "the session is not open",
    VIPOOL_ERR_STALE "stale: the lease was released before",
    VIPOOL_ERR_FOREIGN "the handle is of another boot, network namespace or map",
    VIPOOL_ERR_IO "the operating system reported an error",
    VIPOOL_ERR_MISSING "there is no map in this directory",
    VIPOOL_ERR_DAMAGED "not a usable map file",
    VIPOOL_ERR_OTHER_BOOT "the map is of another boot or network namespace",
    VIPOOL_ERR_UNTRUSTED "the map file is not safe to use",
    VIPOOL_ERR_BUSY "another process held the map for too long",
    VIPOOL_ERR_BUSY_EXCLUSIVE "another writer holds the map exclusively",
    VIPOOL_ERR_PLAN "no map can be made from the plan",
    VIPOOL_ERR_FORKED "the map was opened before this process was forked: open it again",
    VIPOOL_ERR_LOCK_LOST "the descriptor of the lock file was closed, or the file was removed: open the map again",
    VIPOOL_ERR_FARM "the farm has errors",
    VIPOOL_ERR_DIRECTORY "the directory for the map does not exist, or its name is empty",
}

use vipool_status::*;

const fn c_text(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a status text with NUL inside"),
    }
}

impl vipool_status {
    /// Returns the status with this number.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| *status as i32 == number)
    }
}

/// Returns the name of a status, such as "VIPOOL_ERR_BUSY".
///
/// Parameters:
/// - `status`: vipool_status.
///
/// Returns: a static text; "unknown status" for other numbers.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_status_get_name(status: i32) -> *const c_char {
    vipool_status::from_number(status).map_or(c"unknown status", vipool_status::name).as_ptr()
}

/// Returns the description of a status.
///
/// The text of VIPOOL_ERR_EXHAUSTED is the message for a user without an address.
///
/// Parameters:
/// - `status`: vipool_status.
///
/// Returns: a static text; "unknown status" for other numbers.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_status_get_text(status: i32) -> *const c_char {
    vipool_status::from_number(status).map_or(c"unknown status", vipool_status::text).as_ptr()
}

impl From<&RangeError> for vipool_status {
    fn from(error: &RangeError) -> Self {
        match error {
            RangeError::Syntax(_) | RangeError::Mistake(..) => VIPOOL_ERR_RANGE_SYNTAX,
            RangeError::HostBits(..) => VIPOOL_ERR_RANGE_HOST_BITS,
            RangeError::Order(_) => VIPOOL_ERR_RANGE_ORDER,
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
            OpenError::Shortage { shortage, .. } => shortage.into(),
            OpenError::UnknownPool(_) => VIPOOL_ERR_UNKNOWN_POOL,
            OpenError::Excluded(_) => VIPOOL_ERR_EXCLUDED,
            OpenError::Taken(_) => VIPOOL_ERR_TAKEN,
            OpenError::AddressCooling(..) => VIPOOL_ERR_ADDRESS_COOLING,
            OpenError::AddressLingering(_) => VIPOOL_ERR_ADDRESS_LINGERING,
            OpenError::ReservedForAnother(_) => VIPOOL_ERR_RESERVED,
            OpenError::AddressDrained(_) => VIPOOL_ERR_DRAINED,
            OpenError::OtherAddress(_) => VIPOOL_ERR_OTHER_ADDRESS,
            OpenError::OtherUser(_) => VIPOOL_ERR_OTHER_USER,
            OpenError::Quota { .. } => VIPOOL_ERR_QUOTA,
            OpenError::TooManySessions(_) => VIPOOL_ERR_TOO_MANY_SESSIONS,
            OpenError::NotReady => VIPOOL_ERR_NOT_READY,
            OpenError::UnknownGroups { .. } => VIPOOL_ERR_UNKNOWN_GROUPS,
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
            ChangeError::NotOpen(_) => VIPOOL_ERR_NOT_OPEN,
            ChangeError::Map(error) => error.into(),
        }
    }
}

impl From<&MapError> for vipool_status {
    fn from(error: &MapError) -> Self {
        match error {
            MapError::Io { .. } => VIPOOL_ERR_IO,
            MapError::Missing(_) => VIPOOL_ERR_MISSING,
            MapError::NoDirectory(_) => VIPOOL_ERR_DIRECTORY,
            MapError::Damaged { .. } => VIPOOL_ERR_DAMAGED,
            MapError::OtherBoot(_) => VIPOOL_ERR_OTHER_BOOT,
            MapError::Untrusted { .. } => VIPOOL_ERR_UNTRUSTED,
            MapError::Busy { exclusive: false, .. } | MapError::BeingReplaced { .. } => {
                VIPOOL_ERR_BUSY
            }
            MapError::Busy { exclusive: true, .. } => VIPOOL_ERR_BUSY_EXCLUSIVE,
            MapError::Forked => VIPOOL_ERR_FORKED,
            MapError::LockLost { .. } => VIPOOL_ERR_LOCK_LOST,
            MapError::Plan(_) => VIPOOL_ERR_PLAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_distinct_and_have_texts() {
        for (index, status) in vipool_status::ALL.iter().enumerate() {
            assert_eq!(vipool_status::from_number(*status as i32), Some(*status));
            assert!(!vipool_status::ALL[..index].contains(status));
            assert!(!status.text().is_empty());
        }
        assert_eq!(VIPOOL_ERR_EXHAUSTED.text().to_str(), Ok(crate::EXHAUSTED_MESSAGE));
        assert_eq!(vipool_status::from_number(1), None);
    }
}
