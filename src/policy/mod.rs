//! What a hook layer goes by: the process list and the rules beside it.
//!
//! [`Policy`] is what farm.toml says of programs; [`Policy::encode`] compiles it into the map file
//! so that a hook parses nothing, and [`PolicyView`] reads it there without allocating. A view of
//! damaged bytes finds no program; it never panics.
//!
//! ```
//! use vipool::policy::{Executable, Features, MatchKind, PathStyle, Policy, PolicyView, Program, MatchResult};
//!
//! let redis = Program {
//!     pattern: "/usr/bin/redis-server".into(),
//!     features: Features { virtual_ip: true, loopback: true, client_ip: false },
//!     own_ports: vec![6379.into()],
//!     ..Program::default()
//! };
//! let bytes = Policy { programs: vec![redis], ..Policy::default() }.encode();
//!
//! let policy = PolicyView::new(&bytes);
//! let started = |path: &'static str| Executable {
//!     path: path.as_bytes(),
//!     invoked_as: None,
//!     script: None,
//!     style: PathStyle::Posix,
//! };
//! let found = policy.find(&started("/usr/bin/redis-server")).expect("listed");
//! assert_eq!(found.result, MatchResult::Matched { by: MatchKind::FullPath, script: None });
//! assert!(found.program.is_own_port(6379));
//!
//! assert!(policy.find(&started("/home/eve/redis-server")).is_none());
//! let (_, why) = policy.explain(started("/home/eve/redis-server")).next().expect("one rule");
//! assert_eq!(why, MatchResult::OtherDirectory);
//! ```
//!
//! `path` compares paths, `list` decides which rule holds, `compiled` is the form in the map file.

mod compiled;
pub mod flags;
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
pub use script::script_argument;

/// What a bind to 0.0.0.0 with a fixed port becomes without a virtual IP (SOCKET-MATRIX row 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WildcardBind {
    /// It stays as it is.
    #[default]
    Keep = 0,
    /// The session's loopback address; the network cannot reach it.
    Loopback = 1,
}

/// Where a connect to 127.0.0.1 goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LoopbackConnect {
    /// To the session's own listener if there is one, else to the host's.
    #[default]
    OwnFirst = 0,
    /// Always to the session's own address.
    Own = 1,
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

/// Why a text is not a port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a port or first-last")]
pub struct PortRangeError(String);

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl std::str::FromStr for PortRange {
    type Err = PortRangeError;

    /// Reads `7000` and `7000-7010`, from 1 to 65535.
    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
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
    /// The ports in both.
    pub fn intersection(&self, other: &PortRange) -> Option<PortRange> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(PortRange { first, last })
    }

    /// The same ports in order, without overlaps and gaps of nothing.
    pub fn merge<'p>(ports: impl Iterator<Item = &'p PortRange>) -> Vec<PortRange> {
        let mut sorted: Vec<PortRange> = ports.copied().collect();
        sorted.sort_unstable_by_key(|range| (range.first, range.last));
        let mut merged: Vec<PortRange> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        merged
    }
}

/// Whose rules a path follows: separators, case, prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PathStyle {
    /// `/` separates, case matters.
    Posix = 0,
    /// `\` and `/` separate, case does not matter, `\\?\` and trailing dots and spaces are dropped.
    Windows = 1,
}

/// One rule of the process list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// A full path (recommended) or a bare file name.
    pub pattern: String,
    /// Where `pattern` is a symbolic link, the file that it leads to: what the system shows as the
    /// path of the running program. Found when the map is made; not a key of farm.toml.
    pub target: Option<String>,
    /// For an interpreter: the rule holds only when it runs this script (full path or bare name).
    pub script: Option<String>,
    /// What the program uses.
    pub features: Features,
    /// The flags of the rule.
    pub flags: ProgramFlags,
    /// Loopback ports that always go to the session's own address, without asking the kernel.
    pub own_ports: Vec<PortRange>,
    /// Loopback ports to leave alone: they are the host's.
    pub shared_ports: Vec<PortRange>,
}

/// All that hook layers go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The process list, in the order of the file; the first full match wins.
    pub programs: Vec<Program>,
    /// The addresses of the host itself on the matched interfaces (row 5).
    pub host_addresses: Vec<IpAddr>,
    /// UDP ports whose wildcard binds stay wildcard (row 26).
    pub wildcard_udp_ports: Vec<PortRange>,
    /// The flags for all programs.
    pub rewrite: RewriteFlags,
    /// Which pool a session takes its virtual IPs from. Of user and group names only hashes are
    /// compiled.
    pub pool_rules: Vec<PoolRule>,
}

impl Policy {
    /// The rule that holds for a program, with its place in the list and by what it matched.
    /// [`PolicyView::find`] answers the same from the compiled form.
    pub fn find(&self, program: &Executable<'_>) -> Option<(usize, MatchResult)> {
        let paths = matching::ExecutablePaths::of(program);
        matching::most_specific(
            self.programs.iter().map(|rule| paths.match_rule(rule.rule_pattern())),
        )
    }
}

impl Policy {
    /// Finds the [`Program::target`] of every listed path that is a symbolic link. `resolve` is
    /// [`std::fs::canonicalize`] on the machine that the policy is for.
    ///
    /// ```
    /// use vipool::policy::{Policy, Program};
    ///
    /// let nc = Program { pattern: "/bin/nc".into(), ..Program::default() };
    /// let mut policy = Policy { programs: vec![nc], ..Policy::default() };
    /// policy.resolve_links(|path| {
    ///     assert_eq!(path.to_str(), Some("/bin/nc"));
    ///     Ok("/usr/bin/nc.openbsd".into())
    /// });
    /// assert_eq!(policy.programs[0].target.as_deref(), Some("/usr/bin/nc.openbsd"));
    /// ```
    pub fn resolve_links(&mut self, resolve: impl Fn(&Path) -> io::Result<PathBuf>) {
        for program in &mut self.programs {
            let is_full = path::pattern_kind(program.pattern.as_bytes()) != PatternKind::BareName;
            let target = is_full.then(|| resolve(Path::new(&program.pattern)).ok()).flatten();
            program.target = target
                .and_then(|target| target.into_os_string().into_string().ok())
                .filter(|target| *target != program.pattern);
        }
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

    /// What names this rule across reloads of the list: a hash of its pattern and script.
    pub fn id(&self) -> u64 {
        let script = self.script.as_deref().map_or(0, |script| hash64(script.as_bytes(), 1));
        hash64(self.pattern.as_bytes(), script)
    }
}
