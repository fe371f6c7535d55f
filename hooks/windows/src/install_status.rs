//! The result of installing the hooks in a process. `vipool_hook_install` returns the result as a
//! number. If a remote thread runs the function, the number is the exit code of the thread.

/// Whether a process is hooked, and the reason if it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum InstallStatus {
    /// The socket calls are hooked.
    Hooked = 1,
    /// The value of `VIPOOL_DISABLE` is 1.
    Disabled = 2,
    /// The map does not exist, is not readable, or belongs to another boot.
    NoMap = 3,
    /// The program is not on the process list. Only the functions that start processes are hooked.
    NotListed = 4,
    /// MinHook could not install the hooks.
    HookFailed = 5,
    /// The session of the process is unknown. A test build also reports this status if the handle
    /// in `VIPOOL_LEASE` is invalid, names a closed session, or belongs to another boot.
    NoSession = 6,
    /// The hooks are not installed, or another version of the DLL reported an unknown number.
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

    /// Returns the status with this number.
    pub fn from_code(code: u32) -> Self {
        Self::ALL.get(code as usize).copied().unwrap_or(Self::Unknown)
    }

    /// Returns a description for users, to be appended to the name of the program.
    #[allow(dead_code, reason = "only the launcher prints it")]
    pub fn description(self) -> &'static str {
        match self {
            Self::Hooked => "its socket calls are rewritten",
            Self::Disabled => "VIPOOL_DISABLE is set: nothing is rewritten",
            Self::NoMap => "there is no readable map: nothing is rewritten",
            Self::NotListed => "it is not on the process list: nothing is rewritten",
            Self::HookFailed => "the hooks could not be installed: nothing is rewritten",
            Self::NoSession => {
                "its session is unknown, or its lease is closed or from another boot: nothing is \
                 rewritten"
            }
            Self::Unknown => "its hook layer is of another version",
        }
    }
}
