//! The policy of hook layers: the process list and the settings for listed programs.
//!
//! A [`Policy`] contains plain values. [`Policy::encode`] compiles the policy for the map file, so
//! that a hook layer parses nothing. [`PolicyView`] reads the compiled form in place. A view never
//! allocates, and it never panics, even if the bytes are damaged.
//!
//! The module `path` compares paths, `matching` selects the rule for a program, `script` finds the
//! script of an interpreter, `pools` selects the pool of a session, `flags` declares the flags, and
//! `compiled` encodes the policy for the map file.
//!
//! ```
//! use vipool::policy::{Executable, Features, MatchKind, PathStyle, Policy, PolicyView, Program, MatchResult};
//!
//! let features = Features::default().with_virtual_ip(true).with_loopback(true);
//! let redis = Program::new("/usr/bin/redis-server")
//!     .with_features(features)
//!     .with_own_ports([6379.into()]);
//! let bytes = Policy::new([redis]).encode();
//!
//! let policy = PolicyView::new(&bytes);
//! let executable = |path: &'static str| Executable::new(path.as_bytes(), PathStyle::Posix);
//! let found = policy.find(&executable("/usr/bin/redis-server")).expect("listed");
//! assert_eq!(found.result, MatchResult::Matched { program: MatchKind::FullPath, script: None });
//! assert!(found.program.is_own_port(6379));
//!
//! assert!(policy.find(&executable("/home/eve/redis-server")).is_none());
//! let (_, result) = policy.explain(executable("/home/eve/redis-server")).next().expect("one rule");
//! assert_eq!(result, MatchResult::OtherDirectory);
//! ```

mod compiled;
pub(crate) mod flags;
mod matching;
pub mod path;
mod pools;
mod script;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::hash::hash64;
use path::PatternKind;

pub use compiled::{MatchedRule, PolicyView, ProgramView};
pub use flags::{Features, ProgramFlags, RewriteFlags};
pub use matching::{Executable, MatchKind, MatchResult};
pub use pools::{PoolRule, choose_pool};
pub(crate) use pools::{choose_pool_by, decode_rules, encode_rules};
pub use script::script_argument;

/// The result of a bind to the wildcard address (0.0.0.0 or ::) and a fixed port, if there is no
/// virtual IP (row 3 of docs/socket-matrix.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WildcardBind {
    /// The bind is not rewritten.
    #[default]
    Keep = 0,
    /// The bind uses the session's loopback address, which other hosts cannot reach.
    Loopback = 1,
}

/// The destination of a connect to 127.0.0.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LoopbackConnect {
    /// The session's own listener if the session listens on this port. Otherwise the host's
    /// listener.
    #[default]
    OwnFirst = 0,
    /// Always the session's loopback address.
    Own = 1,
}

/// A range of ports, including both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

/// The error for a text that is not a port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a port or a range first-last")]
pub struct PortRangeError(String);

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl std::str::FromStr for PortRange {
    type Err = PortRangeError;

    /// Parses `7000` or `7000-7010`. Ports are 1 to 65535.
    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let (first_text, last_text) = text.split_once('-').unwrap_or((text, text));
        match (first_text.trim().parse(), last_text.trim().parse()) {
            (Ok(first), Ok(last)) if 1 <= first && first <= last => Ok(Self { first, last }),
            _ => Err(PortRangeError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl PortRange {
    /// Returns the ports that both ranges contain.
    #[must_use]
    pub fn intersection(&self, other: &PortRange) -> Option<PortRange> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(PortRange { first, last })
    }

    /// Sorts ranges, and merges ranges that overlap or are adjacent.
    pub fn merge<'p>(ports: impl Iterator<Item = &'p PortRange>) -> Vec<PortRange> {
        let mut sorted: Vec<PortRange> = ports.copied().collect();
        sorted.sort_unstable_by_key(|range| (range.first, range.last));
        let mut merged: Vec<PortRange> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last_range) if range.first <= last_range.last.saturating_add(1) => {
                    last_range.last = last_range.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        merged
    }
}

/// The path rules of an operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PathStyle {
    /// `/` is the separator. Case matters.
    Posix = 0,
    /// `\` and `/` are separators. Case does not matter. The prefix `\\?\` is ignored, and so are
    /// trailing dots and spaces of each name.
    Windows = 1,
}

/// One rule of the process list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Program {
    /// The pattern: a full path (recommended) or a bare file name.
    pub pattern: String,
    /// The path without symbolic links, if `pattern` is a full path with a symbolic link. The
    /// system reports this path as the path of the running program. [`Policy::resolve_links`] sets
    /// this field. farm.toml has no key for this field.
    pub target: Option<String>,
    /// The script to which the rule is restricted, if `pattern` is an interpreter. The value is a
    /// full path or a bare name.
    pub script: Option<String>,
    /// The parts of vipool that the program uses.
    pub features: Features,
    /// The flags of the rule.
    pub flags: ProgramFlags,
    /// Loopback ports that always lead to the session's own address. For these ports, the rewriter
    /// does not look for a listener.
    pub own_ports: Vec<PortRange>,
    /// Loopback ports that belong to the host. Binds and connects to 127.0.0.1 or ::1 with these
    /// ports are not rewritten.
    pub shared_ports: Vec<PortRange>,
}

/// The policy of all hook layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The process list, in the order of farm.toml. The most specific match wins. Among equally
    /// specific matches, the first wins.
    pub programs: Vec<Program>,
    /// The host's own addresses on the interfaces that the server's ranges belong to (row 5 of
    /// docs/socket-matrix.md).
    pub host_addresses: Vec<IpAddr>,
    /// UDP ports on which a bind to the wildcard address (0.0.0.0 or ::) is not rewritten (row 26).
    pub wildcard_udp_ports: Vec<PortRange>,
    /// The flags for all listed programs.
    pub rewrite: RewriteFlags,
    /// The rules that select the pool of a session. The compiled form does not contain these rules,
    /// because every user can read the map file and the rules name users.
    pub pool_rules: Vec<PoolRule>,
}

impl Policy {
    /// Creates a policy with this process list and default flags.
    #[must_use]
    pub fn new(programs: impl IntoIterator<Item = Program>) -> Self {
        Self { programs: programs.into_iter().collect(), ..Self::default() }
    }

    /// Sets the host's own addresses on the interfaces that the server's ranges belong to.
    #[must_use]
    pub fn with_host_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.host_addresses = addresses.into_iter().collect();
        self
    }

    /// Sets the UDP ports on which a bind to the wildcard address is not rewritten.
    #[must_use]
    pub fn with_wildcard_udp_ports(mut self, ports: impl IntoIterator<Item = PortRange>) -> Self {
        self.wildcard_udp_ports = ports.into_iter().collect();
        self
    }

    /// Sets the flags for all listed programs.
    #[must_use]
    pub fn with_rewrite(mut self, flags: RewriteFlags) -> Self {
        self.rewrite = flags;
        self
    }

    /// Sets the rules that select the pool of a session.
    #[must_use]
    pub fn with_pool_rules(mut self, rules: impl IntoIterator<Item = PoolRule>) -> Self {
        self.pool_rules = rules.into_iter().collect();
        self
    }

    /// Returns the index of the rule for a program, and how the rule matched. [`PolicyView::find`]
    /// returns the same result from the compiled form.
    #[must_use]
    pub fn find(&self, executable: &Executable<'_>) -> Option<(usize, MatchResult)> {
        let paths = matching::ExecutablePaths::of(executable);
        matching::most_specific(
            self.programs.iter().map(|rule| paths.match_rule(rule.rule_pattern())),
        )
    }
}

impl Policy {
    /// Sets the [`Program::target`] of every rule to the result of `resolve` for its pattern.
    ///
    /// The target is `None` for a bare name. It is also `None` if `resolve` fails, returns the same
    /// path, or returns a path that is not UTF-8. If the policy is for this machine, pass
    /// [`std::fs::canonicalize`] as `resolve`.
    ///
    /// ```
    /// use vipool::policy::{Policy, Program};
    ///
    /// let nc = Program::new("/bin/nc");
    /// let mut policy = Policy::new([nc]);
    /// policy.resolve_links(|path| {
    ///     assert_eq!(path.to_str(), Some("/bin/nc"));
    ///     Ok("/usr/bin/nc.openbsd".into())
    /// });
    /// assert_eq!(policy.programs[0].target.as_deref(), Some("/usr/bin/nc.openbsd"));
    /// ```
    pub fn resolve_links(&mut self, resolve: impl Fn(&Path) -> io::Result<PathBuf>) {
        for program in &mut self.programs {
            let is_path = path::pattern_kind(program.pattern.as_bytes()) != PatternKind::BareName;
            let target = is_path.then(|| resolve(Path::new(&program.pattern)).ok()).flatten();
            program.target = target
                .and_then(|target| target.into_os_string().into_string().ok())
                .filter(|target| *target != program.pattern);
        }
    }
}

impl Program {
    /// Creates a rule without features. `pattern` is a full path or a bare file name.
    #[must_use]
    pub fn new(pattern: impl Into<String>) -> Self {
        Self { pattern: pattern.into(), ..Self::default() }
    }

    /// Sets the path without symbolic links, for a pattern that contains a symbolic link.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// Restricts the rule for an interpreter to this script.
    #[must_use]
    pub fn with_script(mut self, script: impl Into<String>) -> Self {
        self.script = Some(script.into());
        self
    }

    /// Sets the parts of vipool that the program uses.
    #[must_use]
    pub fn with_features(mut self, features: Features) -> Self {
        self.features = features;
        self
    }

    /// Sets the flags of the rule.
    #[must_use]
    pub fn with_flags(mut self, flags: ProgramFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Sets the loopback ports that always belong to the session.
    #[must_use]
    pub fn with_own_ports(mut self, ports: impl IntoIterator<Item = PortRange>) -> Self {
        self.own_ports = ports.into_iter().collect();
        self
    }

    /// Sets the loopback ports that always belong to the host.
    #[must_use]
    pub fn with_shared_ports(mut self, ports: impl IntoIterator<Item = PortRange>) -> Self {
        self.shared_ports = ports.into_iter().collect();
        self
    }
}

impl Program {
    fn rule_pattern(&self) -> matching::RulePattern<'_> {
        matching::RulePattern {
            pattern: self.pattern.as_bytes(),
            target: self.target.as_deref().map(str::as_bytes),
            script: self.script.as_deref().map(str::as_bytes),
        }
    }

    /// Returns the id of the rule: a hash of pattern and script. Reloads do not change the id.
    #[must_use]
    pub fn id(&self) -> u64 {
        let script_hash = self.script.as_deref().map_or(0, |script| hash64(script.as_bytes(), 1));
        hash64(self.pattern.as_bytes(), script_hash)
    }
}
