//! Runs a program as another user.
//!
//! If root runs `vipool run --user`, it starts a helper process, `vipool as-user`. The helper
//! changes to the user and then executes the program. So no code of vipool runs between fork and
//! exec, and only the program loads the hook.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use nix::unistd::{Uid, User, getgid, getuid, initgroups, setgid, setuid};

use super::status::{CANNOT_EXECUTE, report_exec_failure};
use crate::system::caller::find_user;

/// Change to a user, then execute a program (used by 'vipool run --user')
#[derive(clap::Args)]
#[command(hide = true)]
pub struct AsUser {
    /// The user
    user: String,
    /// A variable to add to the program's environment
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<OsString>,
    /// The program and its arguments
    #[arg(required = true, last = true)]
    program: Vec<OsString>,
}

impl AsUser {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let user = match find_user(&self.user).and_then(|user| become_user(&user).map(|()| user)) {
            Ok(user) => user,
            Err(error) => {
                errln!("vipool: {error:#}");
                return Ok(ExitCode::from(CANNOT_EXECUTE));
            }
        };
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        // Set the user's variables, as su(1) without --login does. Remove XDG_RUNTIME_DIR, because
        // that directory belongs to the caller.
        command.env("HOME", user.dir).env("SHELL", user.shell);
        command.env("USER", &user.name).env("LOGNAME", &user.name).env_remove("XDG_RUNTIME_DIR");
        for pair in &self.env {
            if let Some(separator) = pair.as_bytes().iter().position(|byte| *byte == b'=') {
                let (name, value) = pair.as_bytes().split_at(separator);
                command.env(OsStr::from_bytes(name), OsStr::from_bytes(&value[1..]));
            }
        }
        Ok(report_exec_failure(&self.program[0], &command.exec()))
    }
}

/// Checks that this process may run programs as the user.
///
/// # Errors
/// The user does not exist, or the caller is neither root nor that user.
pub fn check_may_become(name: &str) -> anyhow::Result<()> {
    let user = find_user(name)?;
    if !Uid::effective().is_root() && user.uid != Uid::effective() {
        bail!("cannot run programs as user {:?}: only root may (omit --user)", user.name);
    }
    Ok(())
}

/// Sets the supplementary groups, the group and the user of this process. The change cannot be
/// reverted.
fn become_user(user: &User) -> anyhow::Result<()> {
    let context = || format!("cannot change to user {:?} (this needs root)", user.name);
    let name = CString::new(user.name.as_str())?;
    initgroups(&name, user.gid).with_context(context)?;
    setgid(user.gid).with_context(context)?;
    setuid(user.uid).with_context(context)?;
    if getuid() != user.uid || getgid() != user.gid {
        bail!(context());
    }
    if !user.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        bail!("the process could become root again after changing to user {:?}", user.name);
    }
    Ok(())
}
