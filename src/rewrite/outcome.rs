//! The outcome of a decision, as a value.

use std::fmt;

/// The action of a hook layer for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The call uses this value in place of the program's value, or the program sees this value.
    Rewritten(T),
    /// The hook layer makes the call exactly as the program made it.
    Passed(Reason),
    /// The hook layer does not make the call. The call fails with this error.
    Refused(Refusal),
}

impl<T> Outcome<T> {
    /// Returns the value of a rewritten call.
    pub fn rewritten(self) -> Option<T> {
        match self {
            Outcome::Rewritten(value) => Some(value),
            Outcome::Passed(_) | Outcome::Refused(_) => None,
        }
    }
}

/// An error that a hook layer returns without making the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The address belongs to another session (`EADDRNOTAVAIL`, `WSAEADDRNOTAVAIL`).
    OtherSessionAddress,
    /// An IPv6-only socket would listen on `::`, and sessions without an IPv6 address would share
    /// the port (`EADDRNOTAVAIL`, `WSAEADDRNOTAVAIL`; row 30).
    SharedIpv6Wildcard,
    /// The kernel did not report whether the session listens on the port, so the call could reach a
    /// service of the host in place of the session's own service.
    ListenersUnknown {
        /// The error number of the query, for example `EMFILE`.
        error: i32,
    },
}

impl Refusal {
    /// Returns the number. It is the same in every version.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Refusal::OtherSessionAddress => 1,
            Refusal::SharedIpv6Wildcard => 2,
            Refusal::ListenersUnknown { .. } => 3,
        }
    }

    /// Returns the machine-readable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::OtherSessionAddress => "other-session-address",
            Refusal::SharedIpv6Wildcard => "shared-ipv6-wildcard",
            Refusal::ListenersUnknown { .. } => "listeners-unknown",
        }
    }

    /// Returns a description in English.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::OtherSessionAddress => "the address belongs to another session",
            Refusal::SharedIpv6Wildcard => {
                "the session has no IPv6 address, and would share the port with other sessions"
            }
            Refusal::ListenersUnknown { .. } => {
                "the kernel did not report whether the session listens on this port"
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Declares [`Reason`] in one table: numbers, names and texts.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// The reason why a call passes. Numbers and names are the same in every version. Numbers
        /// below 64 apply to the whole process, the others to one call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Reason {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Reason {
            /// All reasons, ordered by number.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];

            /// Returns the machine-readable name.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// Returns a description in English.
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }

            /// Returns the name and the description, each with a NUL terminator, for C.
            #[cfg(feature = "capi")]
            pub(crate) const fn c_texts(self) -> [&'static str; 2] {
                match self {
                    $(Reason::$variant => [concat!($name, "\0"), concat!($text, "\0")],)*
                }
            }
        }
    };
}

reasons! {
    /// `VIPOOL_DISABLE=1` disables the hook layer.
    Disabled = 1, "disabled", "VIPOOL_DISABLE is set";
    /// There is no map file, or the hook layer cannot use the file.
    MapUnreadable = 2, "map-unreadable", "the map does not exist or cannot be read";
    /// No rule of the process list matches the program.
    NotListed = 3, "not-listed", "the program is not on the process list";
    /// No session was found for the process.
    NoSession = 4, "no-session", "the process belongs to no session";
    /// The session holds no address.
    NoAddress = 5, "no-address", "the session has no address";
    /// The session's lease was closed while the program ran.
    LeaseClosed = 6, "lease-closed", "the session's lease was closed";
    /// The handle in the environment belongs to another boot, another map or an earlier session.
    StaleLease = 7, "stale-lease", "the lease in the environment belongs to an earlier session or boot";

    /// The socket or the address is neither IPv4 nor IPv6, or their families do not match.
    NotInet = 64, "not-inet", "the address is neither IPv4 nor IPv6";
    /// The socket is neither TCP nor UDP.
    NotTcpOrUdp = 65, "not-tcp-or-udp", "the socket is neither TCP nor UDP";
    /// The program's rule lacks the feature that this call needs.
    FeatureOff = 66, "feature-off", "the program's rule does not use this feature";
    /// The session holds no address of the kind that this call needs.
    NoSuchAddress = 67, "no-such-address", "the session has no address of this kind";
    /// With `keep-ephemeral`, a loopback bind without a fixed port is not rewritten (row 23).
    EphemeralPort = 68, "ephemeral-port",
        "the program's rule keeps a loopback bind without a fixed port";
    /// The program's rule lists the loopback port as shared with the host.
    SharedPort = 69, "shared-port", "the port is listed as shared with the host";
    /// A bind to the wildcard address is not rewritten, because no address of the session can
    /// replace the wildcard address (row 3).
    WildcardUnchanged = 70, "wildcard-kept", "a wildcard bind is not rewritten without a virtual IP";
    /// A UDP bind to the wildcard address is not rewritten if the policy lists the port, or if
    /// other sockets can receive the same datagrams (row 26).
    SharedReceiver = 71, "shared-receiver",
        "a wildcard UDP bind for multicast, broadcast or a shared port is not rewritten";
    /// The address already belongs to the session.
    OwnAddress = 72, "own-address", "the address already belongs to the session";
    /// The hook layer does not rewrite this address.
    OtherAddress = 73, "other-address", "the hook layer does not rewrite this address";
    /// The socket is already bound to an address, so the hook layer cannot bind it.
    AlreadyBound = 74, "already-bound", "the socket is already bound";
    /// The session does not listen on the port, so the call uses the host's loopback address.
    NoOwnListener = 75, "no-own-listener", "the session does not listen on this port";
    // The number 76 is not used. It was a reason for the case that is now
    // `Refusal::ListenersUnknown`.
    /// The socket accepts only IPv6, and the replacement is an IPv4 address.
    V6Only = 77, "v6only", "the socket accepts only IPv6";
    /// The IPv6 address has link scope.
    LinkLocal = 78, "link-local", "the address has link scope";
    /// The call sends data on a stream, and the kernel ignores the destination.
    Stream = 79, "stream", "data on a stream has no destination of its own";
    /// The program sees the address that the kernel reports.
    VisibleUnchanged = 80, "shown-as-is", "the address is shown unchanged";
    /// The name that the program looks up is not the host's own name.
    OtherName = 81, "other-name", "the name is not the host's own";
    /// A bind of a UDP socket to `[::]:0` passes, because the socket may send to IPv4 or IPv6. When
    /// the first external destination is known, the hook layer binds the socket to an address of
    /// the session (row 30).
    FamilyUnknown = 82, "family-unknown", "the socket is bound when its first destination is known";
}

impl Reason {
    /// Returns the number. It is the same in every version.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Returns the reason with this number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.number() == number)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
