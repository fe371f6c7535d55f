//! What becomes of a call, as a value.

use std::fmt;

/// What a hook layer does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The call goes on with this in place of what the program gave (or is shown).
    Rewritten(T),
    /// The call goes on exactly as the program made it.
    Passed(Reason),
    /// The call is not made; the program gets this error.
    Refused(Refusal),
}

impl<T> Outcome<T> {
    /// What the call goes on with, if it was rewritten.
    pub fn rewritten(self) -> Option<T> {
        match self {
            Outcome::Rewritten(value) => Some(value),
            Outcome::Passed(_) | Outcome::Refused(_) => None,
        }
    }
}

/// An error that a hook layer returns in place of making a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Refusal {
    /// The address belongs to another session (`EADDRNOTAVAIL`, `WSAEADDRNOTAVAIL`).
    OtherSessionAddress = 1,
}

impl Refusal {
    /// Its number, the same in every version.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// A name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::OtherSessionAddress => "other-session-address",
        }
    }

    /// A sentence for people.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::OtherSessionAddress => "the address belongs to another session",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Declares [`Reason`] with its numbers, names and texts in one table.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// Why a call goes on untouched. Numbers and names are the same in every version: those
        /// below 64 are of the whole process, the others of one call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Reason {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Reason {
            /// All of them, by number.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];

            /// A name for programs.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// A sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }

            /// Name and text as C has them.
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
    /// Turned off by `VIPOOL_DISABLE=1`.
    Disabled = 1, "disabled", "VIPOOL_DISABLE is set";
    /// No map file, or not one that can be used.
    MapUnreadable = 2, "map-unreadable", "the map can't be read: is this server set up ('vipool up')?";
    /// The program is on no rule of the process list.
    NotListed = 3, "not-listed", "the program is not on the process list";
    /// The process belongs to no session that could be found.
    NoSession = 4, "no-session", "the process belongs to no session";
    /// The session holds no address.
    NoAddress = 5, "no-address", "the session has no address";
    /// The session's lease was closed while the program ran.
    LeaseClosed = 6, "lease-closed", "the session's lease was closed";
    /// The handle in the environment is of another boot, another map or an earlier session.
    StaleLease = 7, "stale-lease", "the lease in the environment is of an earlier session or boot";

    /// Not an IPv4 or IPv6 address.
    NotInet = 64, "not-inet", "not an IPv4 or IPv6 address";
    /// Neither TCP nor UDP.
    NotTcpOrUdp = 65, "not-tcp-or-udp", "the socket is neither TCP nor UDP";
    /// The program's rule does not have the feature that would apply.
    FeatureOff = 66, "feature-off", "the program's rule does not use this feature";
    /// The session holds no address of the kind that would apply.
    NoSuchAddress = 67, "no-such-address", "the session has no address of this kind";
    /// A loopback bind without a fixed port (row 23).
    EphemeralPort = 68, "ephemeral-port", "a loopback bind without a fixed port stays as it is";
    /// A loopback port that is the host's.
    SharedPort = 69, "shared-port", "the port is listed as shared with the host";
    /// A wildcard bind that stays one: there is no virtual IP (row 3).
    WildcardKept = 70, "wildcard-kept", "without a virtual IP the wildcard address stays as it is";
    /// A wildcard UDP bind of a multicast or broadcast receiver (row 26).
    SharedReceiver = 71, "shared-receiver",
        "a UDP socket for multicast, broadcast or a shared port stays on the wildcard address";
    /// The address is the session's own already.
    OwnAddress = 72, "own-address", "the address is the session's own";
    /// An address that the hook has no business with.
    OtherAddress = 73, "other-address", "the address is none of those that are rewritten";
    /// The program bound the socket itself.
    AlreadyBound = 74, "already-bound", "the socket is bound already";
    /// Nothing of the session's listens there: the real loopback is meant.
    NoOwnListener = 75, "no-own-listener", "nothing of the session's own listens on this port";
    /// The kernel did not say what listens.
    ListenersUnknown = 76, "listeners-unknown",
        "the kernel did not say whether something of the session's own listens";
    /// An IPv6 socket for IPv6 alone, where only an IPv4 address could stand.
    V6Only = 77, "v6only", "the socket is for IPv6 alone";
    /// An IPv6 address that belongs to one link.
    LinkLocal = 78, "link-local", "the address belongs to one link";
    /// An established stream takes no destination.
    Stream = 79, "stream", "data on a stream has no destination of its own";
    /// What the program sees is what there is.
    ShownAsIs = 80, "shown-as-is", "the address is shown as it is";
    /// A name that is not the host's own.
    OtherName = 81, "other-name", "the name is not the host's own";
}

impl Reason {
    /// Its number, the same in every version.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The reason with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.number() == number)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
