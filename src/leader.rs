//! The identity of a process, which stays unambiguous when its process id is reused.

/// The leader of a session: a process whose exit closes the session.
///
/// The start time distinguishes the process from a later process with the same process id.
/// [`crate::system::identify_process`] returns the leader for a process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    /// Process id in the namespace `pid_namespace`.
    pub pid: u32,
    /// Start time. On Linux, the value is the number of clock ticks since boot (field 22 of
    /// `/proc/PID/stat`, see proc_pid_stat(5)). On Windows, the value is the number of 100 ns
    /// intervals since 1601.
    pub start_time: u64,
    /// Inode of the process id namespace. The value is 0 if the system has no such namespaces or
    /// the namespace is unknown.
    pub pid_namespace: u64,
}

impl Leader {
    /// Creates a leader from the identity of a process.
    #[must_use]
    pub const fn new(pid: u32, start_time: u64, pid_namespace: u64) -> Self {
        Self { pid, start_time, pid_namespace }
    }
}
