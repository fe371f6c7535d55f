//! Running a program as another user.
//!
//! Ids are given up in a process of their own: `vipool` starts itself as `vipool as-user`, which
//! becomes the user and then the program. So nothing runs between fork and exec here, and the
//! hook is loaded by the program alone.

use std::ffi::{CString, OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use nix::unistd::{Uid, User, getgid, getuid, initgroups, setgid, setuid};
use vipool::os::client;
use vipool::session::Handle;

use super::{CANNOT_RUN, exec_failure};

/// Become a user, then a program (used by `run --user`).
#[derive(clap::Args)]
#[command(hide = true)]
pub struct AsUser {
    /// The user.
    user: String,
    /// What is added to the program's environment.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<OsString>,
    /// The program and its arguments.
    #[arg(required = true, last = true)]
    program: Vec<OsString>,
}

impl AsUser {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let user = match find(&self.user).and_then(|user| become_user(&user).map(|()| user)) {
            Ok(user) => user,
            Err(error) => {
                eprintln!("vipool: {error:#}");
                return Ok(ExitCode::from(CANNOT_RUN));
            }
        };
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        // As su(1) does without --login; the directory below /run/user is the caller's.
        command.env("HOME", user.dir).env("SHELL", user.shell);
        command.env("USER", &user.name).env("LOGNAME", &user.name).env_remove("XDG_RUNTIME_DIR");
        for pair in &self.env {
            if let Some(at) = pair.as_bytes().iter().position(|byte| *byte == b'=') {
                let (name, value) = pair.as_bytes().split_at(at);
                command.env(OsStr::from_bytes(name), OsStr::from_bytes(&value[1..]));
            }
        }
        Ok(exec_failure(&self.program[0], &command.exec()))
    }
}

/// The user of this name, or with this uid.
pub fn find(name: &str) -> anyhow::Result<User> {
    let user = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    user.with_context(|| format!("cannot look up user {name:?}"))?
        .with_context(|| format!("there is no user {name:?} (see: getent passwd)"))
}

/// Whether this process may run programs as that user.
pub fn may_become(name: &str) -> anyhow::Result<()> {
    let user = find(name)?;
    if !Uid::effective().is_root() && user.uid != Uid::effective() {
        bail!("only root may run programs as user {:?}: leave out --user", user.name);
    }
    Ok(())
}

/// The name of the user whose process this is; its uid where it has no name.
pub fn own_name() -> String {
    let uid = Uid::effective();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// Lets the programs of a session, and nobody else's, know where its client is (`client-ip`).
/// `user` is whose session it is, where that is not ours.
pub fn tell_client(directory: &Path, lease: &Handle, address: IpAddr, user: Option<&str>) {
    // A session may be recorded to somebody whom this machine does not know; then it is ours.
    let owner = user.filter(|_| Uid::effective().is_root()).and_then(|user| find(user).ok());
    let owner = owner.map(|user| user.uid.as_raw());
    if let Err(error) = client::write(directory, lease, address, owner) {
        eprintln!("vipool: programs of the session are not told of its client: {error}");
    }
}

/// Takes groups, group and user of `user`, for good.
fn become_user(user: &User) -> anyhow::Result<()> {
    let cannot = || format!("cannot become user {:?}: this needs root", user.name);
    let name = CString::new(user.name.as_str())?;
    initgroups(&name, user.gid).with_context(cannot)?;
    setgid(user.gid).with_context(cannot)?;
    setuid(user.uid).with_context(cannot)?;
    if getuid() != user.uid || getgid() != user.gid {
        bail!(cannot());
    }
    if !user.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        bail!("root could be had back after becoming user {:?}: not run", user.name);
    }
    Ok(())
}
