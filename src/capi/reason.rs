//! Why a call passes or is refused, as C has it.

use std::ffi::{CStr, c_char};

use crate::rewrite::{Reason, Refusal};

/// Why a call goes on untouched. The numbers never change; those below 64 are of the whole process
/// and set by hooks themselves, the others of one call.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_reason {
    /// Turned off by `VIPOOL_DISABLE=1`.
    VIPOOL_REASON_DISABLED = 1,
    /// No map file, or not one that can be used.
    VIPOOL_REASON_MAP_UNREADABLE = 2,
    /// The program is on no rule of the process list.
    VIPOOL_REASON_NOT_LISTED = 3,
    /// The process belongs to no session that could be found.
    VIPOOL_REASON_NO_SESSION = 4,
    /// The session holds no address.
    VIPOOL_REASON_NO_ADDRESS = 5,
    /// The session's lease was closed while the program ran.
    VIPOOL_REASON_LEASE_CLOSED = 6,
    /// The handle in the environment is of another boot, another map or an earlier session.
    VIPOOL_REASON_STALE_LEASE = 7,
    /// Not an IPv4 or IPv6 address.
    VIPOOL_REASON_NOT_INET = 64,
    /// Neither TCP nor UDP.
    VIPOOL_REASON_NOT_TCP_OR_UDP = 65,
    /// The program's rule does not have the feature that would apply.
    VIPOOL_REASON_FEATURE_OFF = 66,
    /// The session holds no address of the kind that would apply.
    VIPOOL_REASON_NO_SUCH_ADDRESS = 67,
    /// A loopback bind without a fixed port (row 23).
    VIPOOL_REASON_EPHEMERAL_PORT = 68,
    /// A loopback port that is the host's.
    VIPOOL_REASON_SHARED_PORT = 69,
    /// A wildcard bind that stays one: there is no virtual IP (row 3).
    VIPOOL_REASON_WILDCARD_KEPT = 70,
    /// A wildcard UDP bind of a multicast or broadcast receiver (row 26).
    VIPOOL_REASON_SHARED_RECEIVER = 71,
    /// The address is the session's own already.
    VIPOOL_REASON_OWN_ADDRESS = 72,
    /// An address that the hook has no business with.
    VIPOOL_REASON_OTHER_ADDRESS = 73,
    /// The program bound the socket itself.
    VIPOOL_REASON_ALREADY_BOUND = 74,
    /// Nothing of the session's listens there: the real loopback is meant.
    VIPOOL_REASON_NO_OWN_LISTENER = 75,
    /// The kernel did not say what listens.
    VIPOOL_REASON_LISTENERS_UNKNOWN = 76,
    /// An IPv6 socket for IPv6 alone, where only an IPv4 address could stand.
    VIPOOL_REASON_V6ONLY = 77,
    /// An IPv6 address that belongs to one link.
    VIPOOL_REASON_LINK_LOCAL = 78,
    /// An established stream takes no destination.
    VIPOOL_REASON_STREAM = 79,
    /// What the program sees is what there is.
    VIPOOL_REASON_SHOWN_AS_IS = 80,
    /// A name that is not the host's own.
    VIPOOL_REASON_OTHER_NAME = 81,
}

/// Why a call is not made. The numbers never change.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_refusal {
    /// The address belongs to another session (EADDRNOTAVAIL, WSAEADDRNOTAVAIL).
    VIPOOL_REFUSAL_ADDRESS_OF_ANOTHER = 1,
}

impl From<Reason> for vipool_reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Disabled => vipool_reason::VIPOOL_REASON_DISABLED,
            Reason::MapUnreadable => vipool_reason::VIPOOL_REASON_MAP_UNREADABLE,
            Reason::NotListed => vipool_reason::VIPOOL_REASON_NOT_LISTED,
            Reason::NoSession => vipool_reason::VIPOOL_REASON_NO_SESSION,
            Reason::NoAddress => vipool_reason::VIPOOL_REASON_NO_ADDRESS,
            Reason::LeaseClosed => vipool_reason::VIPOOL_REASON_LEASE_CLOSED,
            Reason::StaleLease => vipool_reason::VIPOOL_REASON_STALE_LEASE,
            Reason::NotInet => vipool_reason::VIPOOL_REASON_NOT_INET,
            Reason::NotTcpOrUdp => vipool_reason::VIPOOL_REASON_NOT_TCP_OR_UDP,
            Reason::FeatureOff => vipool_reason::VIPOOL_REASON_FEATURE_OFF,
            Reason::NoSuchAddress => vipool_reason::VIPOOL_REASON_NO_SUCH_ADDRESS,
            Reason::EphemeralPort => vipool_reason::VIPOOL_REASON_EPHEMERAL_PORT,
            Reason::SharedPort => vipool_reason::VIPOOL_REASON_SHARED_PORT,
            Reason::WildcardKept => vipool_reason::VIPOOL_REASON_WILDCARD_KEPT,
            Reason::SharedReceiver => vipool_reason::VIPOOL_REASON_SHARED_RECEIVER,
            Reason::OwnAddress => vipool_reason::VIPOOL_REASON_OWN_ADDRESS,
            Reason::OtherAddress => vipool_reason::VIPOOL_REASON_OTHER_ADDRESS,
            Reason::AlreadyBound => vipool_reason::VIPOOL_REASON_ALREADY_BOUND,
            Reason::NoOwnListener => vipool_reason::VIPOOL_REASON_NO_OWN_LISTENER,
            Reason::ListenersUnknown => vipool_reason::VIPOOL_REASON_LISTENERS_UNKNOWN,
            Reason::V6Only => vipool_reason::VIPOOL_REASON_V6ONLY,
            Reason::LinkLocal => vipool_reason::VIPOOL_REASON_LINK_LOCAL,
            Reason::Stream => vipool_reason::VIPOOL_REASON_STREAM,
            Reason::ShownAsIs => vipool_reason::VIPOOL_REASON_SHOWN_AS_IS,
            Reason::OtherName => vipool_reason::VIPOOL_REASON_OTHER_NAME,
        }
    }
}

/// The name of a vipool_reason for programs, such as "not-listed"; "unknown" for other numbers.
/// Static: nothing to free.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_reason_name(reason: u32) -> *const c_char {
    known(reason).map_or(c"unknown".as_ptr(), |reason| reason.c_texts()[0].as_ptr().cast())
}

/// A vipool_reason in a sentence for people; "unknown" for other numbers. Static: nothing to free.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_reason_text(reason: u32) -> *const c_char {
    known(reason).map_or(c"unknown".as_ptr(), |reason| reason.c_texts()[1].as_ptr().cast())
}

fn known(number: u32) -> Option<Reason> {
    u16::try_from(number).ok().and_then(Reason::from_number)
}

/// The name of a vipool_refusal for programs; "unknown" for other numbers. Static: nothing to free.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_refusal_name(refusal: u32) -> *const c_char {
    refusal_texts(refusal)[0].as_ptr()
}

/// A vipool_refusal in a sentence for people; "unknown" for other numbers. Static: nothing to free.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_refusal_text(refusal: u32) -> *const c_char {
    refusal_texts(refusal)[1].as_ptr()
}

fn refusal_texts(number: u32) -> [&'static CStr; 2] {
    const ADDRESS_OF_ANOTHER: u32 = Refusal::OtherSessionAddress as u32;
    match number {
        ADDRESS_OF_ANOTHER => [c"other-session-address", c"the address belongs to another session"],
        _ => [c"unknown", c"unknown"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_those_of_the_rewriter() {
        let text = |pointer: *const c_char| {
            // SAFETY: static texts with a NUL.
            unsafe { CStr::from_ptr(pointer) }.to_str().unwrap()
        };
        for reason in Reason::ALL {
            let number = vipool_reason::from(*reason) as u32;
            assert_eq!(number, u32::from(reason.number()));
            assert_eq!(text(vipool_reason_name(number)), reason.name());
            assert_eq!(text(vipool_reason_text(number)), reason.text());
        }
        let refusal = Refusal::OtherSessionAddress;
        assert_eq!(vipool_refusal::VIPOOL_REFUSAL_ADDRESS_OF_ANOTHER as u32, refusal as u32);
        assert_eq!(text(vipool_refusal_name(1)), refusal.name());
        assert_eq!(text(vipool_refusal_text(1)), refusal.text());
        assert_eq!(text(vipool_reason_text(0)), "unknown");
    }
}
