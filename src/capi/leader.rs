//! Processes that stand for sessions.

use super::handle::not_null;
use super::outcome::{Failure, call};
use super::status::vipool_status::{self, *};
use crate::map::Leader;

/// A process, so named that a later one with the same pid is not taken for it. Plain data; see
/// vipool_leader_of().
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_leader {
    /// Its pid, in its own pid namespace; 0 for none.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
    /// Its start time in the kernel's unit (field 22 of /proc/PID/stat).
    pub start_time: u64,
    /// The inode of its pid namespace; 0 where there are none.
    pub pid_namespace: u64,
}

impl From<&Leader> for vipool_leader {
    fn from(leader: &Leader) -> Self {
        let Leader { pid, start_time, pid_namespace } = *leader;
        Self { pid, reserved: 0, start_time, pid_namespace }
    }
}

impl vipool_leader {
    pub(crate) fn get(self) -> Option<Leader> {
        let Self { pid, start_time, pid_namespace, .. } = self;
        (pid != 0).then_some(Leader { pid, start_time, pid_namespace })
    }
}

/// The process that has this pid now, on Linux and Windows.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND (there is no such process, or it has ended),
/// VIPOOL_ERR_IO, VIPOOL_ERR_UNSUPPORTED (other systems). May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_leader_of(pid: u32, out: *mut vipool_leader) -> vipool_status {
    call(|| {
        not_null(out)?;
        let leader = identify(pid)?;
        // SAFETY: not NULL.
        unsafe { out.write(leader) };
        Ok(())
    })
}

#[cfg(any(target_os = "linux", windows))]
fn identify(pid: u32) -> Result<vipool_leader, Failure> {
    use std::io::ErrorKind;
    crate::system::identify_process(pid).map(|leader| (&leader).into()).map_err(|error| {
        let missing = error.kind() == ErrorKind::NotFound;
        let status = if missing { VIPOOL_ERR_NOT_FOUND } else { VIPOOL_ERR_IO };
        status.because(format_args!("process {pid}: {error}"))
    })
}

#[cfg(not(any(target_os = "linux", windows)))]
fn identify(_pid: u32) -> Result<vipool_leader, Failure> {
    Err(VIPOOL_ERR_UNSUPPORTED.into())
}
