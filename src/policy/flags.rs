//! The flags of a policy: settings with two possible values. Each call of the macro `flags`
//! contains a table with one row per flag.
//!
//! A row generates the field, its bit in the map file, its bit in the C ABI and its key in
//! farm.toml. The documentation comment of a row is the documentation of the field. To add a flag,
//! add a row and use the field. A test checks that `examples/farm.toml` contains every key. The
//! feature `capi` compiles only if every bit has a constant in the C ABI.
//!
//! After a release has used a bit, the meaning of the bit never changes.

use super::{LoopbackConnect, WildcardBind};

/// A type with two values. One bit represents the value.
pub trait BitValue: Copy + PartialEq + 'static {
    /// The value for a cleared bit, and the value for a set bit.
    const VALUES: [Self; 2];
    /// The keywords for both values in farm.toml, or `None` for a boolean.
    #[cfg(feature = "farm")]
    const KEYWORDS: Option<[&'static str; 2]>;
}

impl BitValue for bool {
    const VALUES: [Self; 2] = [false, true];
    #[cfg(feature = "farm")]
    const KEYWORDS: Option<[&'static str; 2]> = None;
}

impl BitValue for WildcardBind {
    const VALUES: [Self; 2] = [WildcardBind::Keep, WildcardBind::Loopback];
    #[cfg(feature = "farm")]
    const KEYWORDS: Option<[&'static str; 2]> = Some(["keep", "loopback"]);
}

impl BitValue for LoopbackConnect {
    const VALUES: [Self; 2] = [LoopbackConnect::OwnFirst, LoopbackConnect::Own];
    #[cfg(feature = "farm")]
    const KEYWORDS: Option<[&'static str; 2]> = Some(["own-first", "own"]);
}

/// Visits the fields of a set of flags, each with its farm.toml key.
#[cfg(feature = "farm")]
pub trait VisitFlags {
    /// Receives one field and can change its value.
    fn visit<T: BitValue>(&mut self, key: &'static str, field: &mut T);
}

/// Declares a struct of flags: `field, setter: type = bit, "farm.toml key";`.
macro_rules! flags {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[$doc:meta])* $field:ident, $setter:ident: $type:ty = $bit:literal, $key:literal;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl $name {
            /// The bits that have a meaning.
            pub const ALL_BITS: u32 = $(1 << $bit)|*;
            /// Every flag: its farm.toml key and its bit.
            pub const TABLE: &[(&'static str, u32)] = &[$(($key, 1 << $bit),)*];

            /// Returns the flags as bits of the map file and of the C ABI.
            #[inline]
            pub fn bits(self) -> u32 {
                $((u32::from(self.$field == <$type>::VALUES[1]) << $bit))|*
            }

            /// Returns the flags for these bits. Bits without a meaning are ignored.
            #[inline]
            pub fn from_bits(bits: u32) -> Self {
                Self { $($field: <$type>::VALUES[usize::from(bits & (1 << $bit) != 0)],)* }
            }

            $(
                #[doc = concat!("Sets the flag `", stringify!($field), "`.")]
                #[must_use]
                pub const fn $setter(mut self, value: $type) -> Self {
                    self.$field = value;
                    self
                }
            )*

            /// Calls `visitor.visit` for each flag, in the order of the table.
            // farm.toml lists the features by name, so nothing visits `Features`.
            #[cfg(feature = "farm")]
            #[allow(dead_code)]
            pub(crate) fn visit(&mut self, visitor: &mut impl VisitFlags) {
                $(visitor.visit($key, &mut self.$field);)*
            }
        }

        const _: () = assert!(
            $name::ALL_BITS.count_ones() as usize == $name::TABLE.len(),
            "two flags share a bit"
        );
    };
}

flags! {
    /// The parts of vipool that a program uses.
    Features {
        /// The program uses the session's virtual IP in place of the host's address.
        virtual_ip, with_virtual_ip: bool = 0, "virtual-ip";
        /// The program uses the session's loopback address in place of 127.0.0.1.
        loopback, with_loopback: bool = 1, "loopback";
        /// The host's own name resolves to the address of the session's client.
        client_ip, with_client_ip: bool = 2, "client-ip";
    }
}

flags! {
    /// The flags of one rule of the process list: keys of `[[program]]`.
    ProgramFlags {
        /// The rule also applies to child processes that match no rule.
        inherit, with_inherit: bool = 0, "inherit";
        /// A bind to 127.0.0.1 or ::1 with port 0 is not rewritten, so unlisted programs can reach
        /// the port (row 23).
        keep_ephemeral, with_keep_ephemeral: bool = 1, "keep-ephemeral";
        /// The result of a bind to the wildcard address if the session has no virtual IP (row 3).
        wildcard, with_wildcard: WildcardBind = 2, "wildcard";
        /// The destination of a connect to 127.0.0.1 (row 11).
        loopback_connect, with_loopback_connect: LoopbackConnect = 3, "loopback-connect";
    }
}

flags! {
    /// The flags for all listed programs: keys of `[rewrite]`.
    RewriteFlags {
        /// If no interface has the virtual IP, a bind passes unchanged (row 6). Without this flag,
        /// the bind fails.
        pass_when_missing, with_pass_when_missing: bool = 0, "pass-when-missing";
        /// In lists of interfaces, listed programs see no virtual IP except that of their session
        /// (row 43).
        hide_addresses, with_hide_addresses: bool = 1, "hide-addresses";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_convert_back_to_the_same_flags() {
        for bits in 0..=ProgramFlags::ALL_BITS {
            assert_eq!(ProgramFlags::from_bits(bits).bits(), bits);
        }
        assert_eq!(ProgramFlags::default().bits(), 0);
        assert_eq!(RewriteFlags::from_bits(u32::MAX).bits(), RewriteFlags::ALL_BITS);
        let inherit_only = ProgramFlags { inherit: true, ..ProgramFlags::default() };
        assert_eq!(inherit_only.bits(), 1);
    }

    #[test]
    fn example_contains_every_key() {
        let example = include_str!("../../examples/farm.toml");
        for (key, _) in Features::TABLE {
            assert!(example.contains(&format!("\"{key}\"")), "{key}");
        }
        for (key, _) in ProgramFlags::TABLE.iter().chain(RewriteFlags::TABLE) {
            assert!(example.contains(&format!("# {key} = ")), "{key}");
        }
    }
}
