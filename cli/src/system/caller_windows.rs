//! The caller: the user and the session that this process runs in.

use anyhow::Context;
use vipool::session::{Handle, SessionId};
use vipool::system;

/// Returns the caller's session: that of the lease in the environment, else that of Windows.
///
/// # Errors
/// The process is in no session.
pub fn own_session() -> anyhow::Result<SessionId> {
    let lease = std::env::var("VIPOOL_LEASE").ok();
    if let Some(handle) = lease.and_then(|text| Handle::parse(text.as_bytes())) {
        return Ok(handle.session);
    }
    system::process_session(std::process::id()).context("this process is in no Windows session")
}

/// Returns the caller's user name; empty if the environment does not have it.
pub fn own_name() -> String {
    std::env::var("USERNAME").unwrap_or_default()
}
