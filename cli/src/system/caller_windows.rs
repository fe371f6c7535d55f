//! The caller: the user and the session of this process.

use anyhow::Context;
use vipool::map::SessionPer;
use vipool::session::{Handle, SessionId};
use vipool::system;

/// Returns the session of the lease in the environment. Without a lease, returns the session that
/// belongs to the Windows session of this process. The map's `session-per` has no effect.
///
/// # Errors
/// The environment contains no lease, and the process is in no Windows session.
pub fn own_session(_: SessionPer) -> anyhow::Result<SessionId> {
    let lease = std::env::var("VIPOOL_LEASE").ok();
    if let Some(handle) = lease.and_then(|text| Handle::parse(text.as_bytes())) {
        return Ok(handle.session);
    }
    system::process_session(std::process::id()).context("this process is in no Windows session")
}

/// Returns false: Windows has no root.
pub fn is_root() -> bool {
    false
}

/// Returns the caller's user name. The name is empty if the environment does not contain it.
pub fn user_name() -> String {
    std::env::var("USERNAME").unwrap_or_default()
}
