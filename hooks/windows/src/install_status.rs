//! What became of the attempt to set the hooks, as a value that fits a thread's exit code.

/// Whether this process is hooked, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum InstallStatus {
    /// The socket calls are hooked.
    Hooked = 1,
    /// `VIPOOL_DISABLE` is set.
    Disabled = 2,
    /// There is no map, or it can't be read.
    NoMap = 3,
    /// The program is not on the process list; only the programs that it starts are looked at.
    NotListed = 4,
    /// MinHook could not set the hooks.
    HookFailed = 5,
    /// The lease that its environment names is closed, or of another boot.
    NoSession = 6,
    /// A number that this version does not know.
    Unknown = 0,
}

impl InstallStatus {
    const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Hooked,
        Self::Disabled,
        Self::NoMap,
        Self::NotListed,
        Self::HookFailed,
        Self::NoSession,
    ];

    /// What an exit code stands for.
    pub fn from_code(code: u32) -> Self {
        Self::ALL.get(code as usize).copied().unwrap_or(Self::Unknown)
    }

    /// For people.
    #[allow(dead_code, reason = "only the launcher tells people")]
    pub fn description(self) -> &'static str {
        match self {
            Self::Hooked => "its socket calls are rewritten",
            Self::Disabled => "VIPOOL_DISABLE is set: nothing is rewritten",
            Self::NoMap => "there is no map that can be read: nothing is rewritten",
            Self::NotListed => "it is not on the process list: nothing is rewritten",
            Self::HookFailed => "the hooks could not be set: nothing is rewritten",
            Self::NoSession => "its lease is closed or of another boot: nothing is rewritten",
            Self::Unknown => "the hook layer in it is of another version",
        }
    }
}
