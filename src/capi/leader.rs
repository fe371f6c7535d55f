//! Session leaders.

use super::error::{CallError, catch_panic};
use super::handle::check_not_null;
use super::layout::any_bytes;
use super::status::vipool_status::{self, *};
use super::text::check_reserved;
use crate::map::Leader;

/// The leader of a session: vipool_map_reap() closes the session when this process has exited. The
/// start time distinguishes the leader from a later process with the same pid. Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_leader {
    /// Pid of the process in the namespace pid_namespace; 0 for no leader.
    pub pid: u32,
    /// Reserved: zero.
    pub reserved: u32,
    /// Start time in the unit of the kernel (on Linux, field 22 of /proc/PID/stat).
    pub start_time: u64,
    /// Inode of a pid namespace; 0 if the namespace is unknown, and on systems without pid
    /// namespaces.
    pub pid_namespace: u64,
}
any_bytes!(vipool_leader { pid, reserved, start_time, pid_namespace });

impl From<&Leader> for vipool_leader {
    fn from(leader: &Leader) -> Self {
        let Leader { pid, start_time, pid_namespace } = *leader;
        Self { pid, reserved: 0, start_time, pid_namespace }
    }
}

impl vipool_leader {
    #[inline]
    pub(crate) fn decode_leader(self) -> Result<Option<Leader>, vipool_status> {
        let Self { pid, reserved, start_time, pid_namespace } = self;
        check_reserved(reserved)?;
        Ok((pid != 0).then_some(Leader { pid, start_time, pid_namespace }))
    }
}

/// Returns the identity of the process that has this pid now. Available on Linux and Windows.
///
/// Parameters:
/// - `pid`: the pid.
/// - `out`: receives the identity, for use as the leader of a session.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND (no such process; on Windows also a process that
/// has exited), VIPOOL_ERR_IO, VIPOOL_ERR_UNSUPPORTED (a system other than Linux and Windows).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_leader_from_pid(
    pid: u32,
    out: *mut vipool_leader,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        let leader = identify_leader(pid)?;
        // SAFETY: not NULL.
        unsafe { out.write(leader) };
        Ok(())
    })
}

#[cfg(any(target_os = "linux", windows))]
fn identify_leader(pid: u32) -> Result<vipool_leader, CallError> {
    use std::io::ErrorKind;
    crate::system::identify_process(pid).map(|leader| (&leader).into()).map_err(|error| {
        let is_missing = error.kind() == ErrorKind::NotFound;
        let status = if is_missing { VIPOOL_ERR_NOT_FOUND } else { VIPOOL_ERR_IO };
        status.with_message(format_args!("process {pid}: {error}"))
    })
}

#[cfg(not(any(target_os = "linux", windows)))]
fn identify_leader(_pid: u32) -> Result<vipool_leader, CallError> {
    Err(VIPOOL_ERR_UNSUPPORTED.into())
}
