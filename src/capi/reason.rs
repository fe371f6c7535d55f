//! The reasons why a socket call passes or is refused.

use std::ffi::{CStr, c_char};

use crate::rewrite::{Reason, Refusal};

/// The reason why a socket call passes or is refused. The numbers never change. Numbers below 64
/// concern the whole process. Of these, the rewriter returns only VIPOOL_REASON_LEASE_CLOSED. The
/// hook layer detects the other conditions itself. Numbers from 64 to 127 concern one call that
/// passes. Numbers from 128 on concern one call that is refused.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_reason {
    /// The environment has `VIPOOL_DISABLE=1`.
    VIPOOL_REASON_DISABLED = 1,
    /// There is no map file, or it cannot be used.
    VIPOOL_REASON_MAP_UNREADABLE = 2,
    /// No rule of the process list matches the program.
    VIPOOL_REASON_NOT_LISTED = 3,
    /// No session was found for the process.
    VIPOOL_REASON_NO_SESSION = 4,
    /// The session has no address.
    VIPOOL_REASON_NO_ADDRESS = 5,
    /// The lease of the session was released while the program ran.
    VIPOOL_REASON_LEASE_CLOSED = 6,
    /// The handle in the environment belongs to another boot, another map or an earlier session.
    VIPOOL_REASON_STALE_LEASE = 7,
    /// The address is neither IPv4 nor IPv6.
    VIPOOL_REASON_NOT_INET = 64,
    /// The socket is neither TCP nor UDP.
    VIPOOL_REASON_NOT_TCP_OR_UDP = 65,
    /// The rule of the program does not have the feature that the rewrite needs.
    VIPOOL_REASON_FEATURE_OFF = 66,
    /// The session has no address of the kind that the rewrite needs.
    VIPOOL_REASON_NO_ADDRESS_OF_KIND = 67,
    /// A loopback bind without a fixed port, with VIPOOL_PROGRAM_KEEP_EPHEMERAL.
    VIPOOL_REASON_EPHEMERAL_PORT = 68,
    /// A loopback port that the rule of the program lists in shared_ports.
    VIPOOL_REASON_SHARED_PORT = 69,
    /// A wildcard bind that passes because there is no virtual IP.
    VIPOOL_REASON_WILDCARD_UNCHANGED = 70,
    /// A wildcard UDP bind to a port of wildcard_udp_ports, or by a socket that can receive the
    /// same datagrams as other sockets (VIPOOL_SOCKET_SHARES_PORT).
    VIPOOL_REASON_SHARED_RECEIVER = 71,
    /// The address already belongs to the session.
    VIPOOL_REASON_OWN_ADDRESS = 72,
    /// An address that vipool does not rewrite.
    VIPOOL_REASON_OTHER_ADDRESS = 73,
    /// The socket is already bound to an address, so the hook cannot bind it.
    VIPOOL_REASON_ALREADY_BOUND = 74,
    /// The session does not listen on the port, so the call goes to the host's loopback address.
    VIPOOL_REASON_NO_OWN_LISTENER = 75,
    /// The socket is IPv6-only, and the replacement would be an IPv4 address.
    VIPOOL_REASON_V6ONLY = 77,
    /// An IPv6 address with link scope: unicast or multicast.
    VIPOOL_REASON_LINK_LOCAL = 78,
    /// A send on a stream socket: the data has no destination of its own.
    VIPOOL_REASON_STREAM_DATA = 79,
    /// The program sees the address that the kernel reports.
    VIPOOL_REASON_VISIBLE_UNCHANGED = 80,
    /// A name that is not the name of the host.
    VIPOOL_REASON_OTHER_NAME = 81,
    /// A bind of an IPv6 datagram socket to :: and port 0. The first destination on another host
    /// decides to which address of the session the hook binds the socket (VIPOOL_DO_REBIND).
    VIPOOL_REASON_FAMILY_UNKNOWN = 82,
    /// Refused: the address belongs to another session (EADDRNOTAVAIL, WSAEADDRNOTAVAIL).
    VIPOOL_REASON_OTHER_SESSION_ADDRESS = 129,
    /// Refused: the session has no IPv6 address, and an IPv6-only socket on :: would share the port
    /// with other sessions (EADDRNOTAVAIL, WSAEADDRNOTAVAIL).
    VIPOOL_REASON_SHARED_IPV6_WILDCARD = 130,
    /// Refused: the kernel did not report whether the session listens on the port (ENOBUFS,
    /// WSAENOBUFS).
    VIPOOL_REASON_LISTENERS_UNKNOWN = 131,
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
            Reason::NoSuchAddress => vipool_reason::VIPOOL_REASON_NO_ADDRESS_OF_KIND,
            Reason::EphemeralPort => vipool_reason::VIPOOL_REASON_EPHEMERAL_PORT,
            Reason::SharedPort => vipool_reason::VIPOOL_REASON_SHARED_PORT,
            Reason::WildcardUnchanged => vipool_reason::VIPOOL_REASON_WILDCARD_UNCHANGED,
            Reason::SharedReceiver => vipool_reason::VIPOOL_REASON_SHARED_RECEIVER,
            Reason::OwnAddress => vipool_reason::VIPOOL_REASON_OWN_ADDRESS,
            Reason::OtherAddress => vipool_reason::VIPOOL_REASON_OTHER_ADDRESS,
            Reason::AlreadyBound => vipool_reason::VIPOOL_REASON_ALREADY_BOUND,
            Reason::NoOwnListener => vipool_reason::VIPOOL_REASON_NO_OWN_LISTENER,
            Reason::V6Only => vipool_reason::VIPOOL_REASON_V6ONLY,
            Reason::LinkLocal => vipool_reason::VIPOOL_REASON_LINK_LOCAL,
            Reason::Stream => vipool_reason::VIPOOL_REASON_STREAM_DATA,
            Reason::VisibleUnchanged => vipool_reason::VIPOOL_REASON_VISIBLE_UNCHANGED,
            Reason::OtherName => vipool_reason::VIPOOL_REASON_OTHER_NAME,
            Reason::FamilyUnknown => vipool_reason::VIPOOL_REASON_FAMILY_UNKNOWN,
        }
    }
}

/// The number of a refusal in [`vipool_reason`] is [`Refusal::number`] plus this base.
const REFUSAL_BASE: u32 = 128;

/// Returns the number of a refusal in [`vipool_reason`].
#[inline]
pub(crate) const fn refusal_number(refusal: Refusal) -> u32 {
    REFUSAL_BASE + refusal.number() as u32
}

/// Returns the machine-readable name of a reason, such as "not-listed".
///
/// Parameters:
/// - `reason`: vipool_reason.
///
/// Returns: a static text; "unknown" if the number is not a vipool_reason.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_reason_get_name(reason: u32) -> *const c_char {
    name_and_text(reason)[0].as_ptr()
}

/// Returns the human-readable description of a reason.
///
/// Parameters:
/// - `reason`: vipool_reason.
///
/// Returns: a static text; "unknown" if the number is not a vipool_reason.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_reason_get_text(reason: u32) -> *const c_char {
    name_and_text(reason)[1].as_ptr()
}

/// Returns the name and the text of a reason.
fn name_and_text(number: u32) -> [&'static CStr; 2] {
    const OTHER_SESSION_ADDRESS: u32 = refusal_number(Refusal::OtherSessionAddress);
    const SHARED_IPV6_WILDCARD: u32 = refusal_number(Refusal::SharedIpv6Wildcard);
    const LISTENERS_UNKNOWN: u32 = refusal_number(Refusal::ListenersUnknown { error: 0 });
    match number {
        OTHER_SESSION_ADDRESS => {
            return [c"other-session-address", c"the address belongs to another session"];
        }
        SHARED_IPV6_WILDCARD => {
            return [
                c"shared-ipv6-wildcard",
                c"the session has no IPv6 address, and would share the port with other sessions",
            ];
        }
        LISTENERS_UNKNOWN => {
            return [
                c"listeners-unknown",
                c"the kernel did not report whether the session listens on this port",
            ];
        }
        _ => {}
    }
    match u16::try_from(number).ok().and_then(Reason::from_number) {
        Some(reason) => reason
            .c_texts()
            .map(|text| CStr::from_bytes_with_nul(text.as_bytes()).unwrap_or(c"unknown")),
        None => [c"unknown", c"unknown"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_equal_those_of_the_rewriter() {
        let text = |pointer: *const c_char| {
            // SAFETY: a static text with a NUL.
            unsafe { CStr::from_ptr(pointer) }.to_str().unwrap()
        };
        for reason in Reason::ALL {
            let number = vipool_reason::from(*reason) as u32;
            assert_eq!(number, u32::from(reason.number()));
            assert!(number < REFUSAL_BASE);
            assert_eq!(text(vipool_reason_get_name(number)), reason.name());
            assert_eq!(text(vipool_reason_get_text(number)), reason.text());
        }
        for (refusal, reason) in [
            (Refusal::OtherSessionAddress, vipool_reason::VIPOOL_REASON_OTHER_SESSION_ADDRESS),
            (Refusal::SharedIpv6Wildcard, vipool_reason::VIPOOL_REASON_SHARED_IPV6_WILDCARD),
            (
                Refusal::ListenersUnknown { error: 1 },
                vipool_reason::VIPOOL_REASON_LISTENERS_UNKNOWN,
            ),
        ] {
            let number = reason as u32;
            assert_eq!(number, refusal_number(refusal));
            assert_eq!(text(vipool_reason_get_name(number)), refusal.name());
            assert_eq!(text(vipool_reason_get_text(number)), refusal.text());
        }
        assert_eq!(text(vipool_reason_get_text(0)), "unknown");
    }
}
