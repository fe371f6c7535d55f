//! Information about the running machine for agents, hook layers and monitors.
//!
//! Most functions of this module query the operating system. Most other modules of the crate work
//! only on plain values and on the files of a map.

use std::io;
use std::net::IpAddr;
#[cfg(windows)]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::interface::Interface;
#[cfg(any(target_os = "linux", windows))]
use crate::map::{Leader, Probe};
use crate::os;
#[cfg(windows)]
use crate::session::{SessionId, SessionKind};

#[cfg(any(target_os = "linux", windows))]
pub use crate::os::probe::SystemProbe;
pub use crate::os::users::{UserId, user_id};

/// Returns the directory of the system's map.
///
/// The directory is `/run/vipool` on Unix and `ProgramData\vipool` on the Windows drive. The path
/// is fixed, because hook layers trust the map in this directory. An environment variable must not
/// replace it with another map.
#[must_use]
pub fn map_directory() -> PathBuf {
    os::map_directory::map_directory()
}

/// Returns the network interfaces that have at least one IP address, ordered by index.
///
/// The list contains addresses of every scope, such as loopback and link-local addresses, and the
/// addresses that vipool added. The function allocates and may block for a moment, so hooked calls
/// must not use it.
///
/// # Errors
/// Returns the error of getifaddrs(3) or GetAdaptersAddresses.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    os::interfaces::list()
}

/// Returns the time since the machine started, including the time that the machine was asleep.
#[must_use]
pub fn time_since_boot() -> Duration {
    os::clock::since_boot()
}

/// Returns the identity of this boot and, on Linux, of the network namespace of this process.
/// A map belongs to exactly one identity. The identity is never 0.
///
/// # Errors
/// Fails if the operating system does not provide the identity, for example because
/// `/proc` is missing.
pub fn current_boot_id() -> io::Result<u64> {
    os::identity::current_boot_id()
}

/// Returns the identity of this boot and of the network namespace of another process.
///
/// # Errors
/// Fails if the process does not exist, or if the process belongs to another user and the
/// caller is not root.
#[cfg(target_os = "linux")]
pub fn process_boot_id(pid: u32) -> io::Result<u64> {
    os::identity::process_boot_id(pid)
}

/// Returns the identity of the process that has this process id now.
///
/// On Linux, [`Leader::pid_namespace`] is the namespace of the caller, because `pid` is an id in
/// that namespace.
///
/// # Errors
/// Fails if the process cannot be examined. The kind `NotFound` means that no such process exists
/// or that the process has exited.
#[cfg(any(target_os = "linux", windows))]
pub fn identify_process(pid: u32) -> io::Result<Leader> {
    os::process::identify(pid)
}

/// Returns whether a process has exited. Returns false if its state is unknown, for example because
/// the process belongs to another process id namespace or `/proc` is not mounted.
#[cfg(any(target_os = "linux", windows))]
#[must_use]
pub fn has_exited(process: &Leader) -> bool {
    #[cfg(windows)]
    return os::process::has_exited(process);
    #[cfg(not(windows))]
    identify_process(std::process::id())
        .is_ok_and(|caller| os::process::has_exited(process, caller.pid_namespace))
}

/// Returns the terminal services session of a process (ProcessIdToSessionId).
///
/// # Errors
/// Fails if no such process exists, or if the caller has no access to the process.
#[cfg(windows)]
pub fn process_session(pid: u32) -> io::Result<SessionId> {
    let session_number = os::process::terminal_session(pid)?;
    SessionId::new(SessionKind::Windows, session_number.into()).map_err(io::Error::other)
}

/// Creates a directory for a map, or secures an existing directory.
///
/// The system, the administrators and the owner get full access. Users may read.
///
/// # Errors
/// Returns [`MapError::Untrusted`](crate::map::MapError::Untrusted) if the existing directory
/// belongs to another user. Returns [`MapError::Io`](crate::map::MapError::Io) if the directory
/// cannot be created or changed.
#[cfg(windows)]
pub fn secure_map_directory(path: &Path) -> Result<(), crate::map::MapError> {
    use crate::map::MapError;
    use crate::os::trust_error::TrustError;

    os::trusted_file::secure_directory(path).map_err(|error| match error {
        TrustError::Io(source) => {
            MapError::Io { failure: "cannot secure directory", path: path.to_owned(), source }
        }
        TrustError::Untrusted(reason) => MapError::Untrusted { path: path.to_owned(), reason },
    })
}

#[cfg(any(target_os = "linux", windows))]
impl Probe for SystemProbe {
    fn has_sockets(&mut self, address: IpAddr) -> bool {
        Self::has_sockets(self, address)
    }

    fn has_exited(&mut self, leader: &Leader) -> bool {
        Self::has_exited(self, leader)
    }
}
