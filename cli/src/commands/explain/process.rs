//! Observes a process, or a program before it is started.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use vipool::policy::{Executable, PathStyle, script_argument};
use vipool::system;

use crate::system::apparmor::confining_profile;
use crate::system::auxv::{AT_SECURE, read_auxv, started_as};
use crate::system::elf::{ElfInfo, read_elf};
use crate::system::exec_path::find_program;
use crate::system::hook::HOOK_FILE;
use crate::text::escape;

/// The variables that the hook and the dynamic linker read.
const VARIABLES: [&str; 4] = ["LD_PRELOAD", "VIPOOL_DISABLE", "VIPOOL_LEASE", "VIPOOL_MAP"];
/// The first two bytes of a script. The rest of the line contains the path of the interpreter
/// (execve(2)).
const SHEBANG: &[u8] = b"#!";

/// The observed process or program. Each `Option` is also `None` if the caller may not read the
/// value.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The pid; `None` for a program that is not started.
    pub pid: Option<u32>,
    /// The real user of the process; the caller for a program that is not started.
    pub uid: u32,
    /// The name of the process.
    pub name: String,
    /// The program's file.
    pub file: Option<PathBuf>,
    /// The path by which the program was started.
    pub started_as: Option<PathBuf>,
    /// The argument that an interpreter would use as its script or module, even if the program is
    /// no interpreter. The path is absolute if this file exists.
    pub script: Option<PathBuf>,
    /// Properties of the program's file, if it is an ELF file.
    pub elf: Option<ElfInfo>,
    /// Whether the program has more rights than its user. Such a program ignores `LD_PRELOAD` and
    /// the variables of the hook.
    pub is_secure: Option<bool>,
    /// The [`VARIABLES`] that the process was started with. `None` if the process overwrote its
    /// environment.
    pub variables: Option<BTreeMap<&'static str, OsString>>,
    /// Whether the process has loaded the hook.
    pub is_hooked: Option<bool>,
    /// The AppArmor profile that confines the process.
    pub apparmor_profile: Option<String>,
    /// The directory of the map file that the process has mapped.
    pub mapped_directory: Option<PathBuf>,
    /// A hash of the boot and the network namespace. The map contains the same kind of hash.
    pub boot: Option<u64>,
    /// Whether the process uses io_uring.
    pub uses_io_uring: bool,
}

impl Subject {
    /// Returns the properties that the rules of the process list are compared with.
    pub fn executable(&self) -> Option<Executable<'_>> {
        Some(
            Executable::new(self.file.as_ref()?.as_os_str().as_bytes(), PathStyle::Posix)
                .with_invoked_as(self.started_as.as_ref().map(|path| path.as_os_str().as_bytes()))
                .with_script(self.script.as_ref().map(|path| path.as_os_str().as_bytes())),
        )
    }

    /// Returns a variable of the environment, unless the program ignores its environment.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        let is_trusted = self.is_secure != Some(true);
        self.variables.as_ref()?.get(name).map(OsString::as_os_str).filter(|_| is_trusted)
    }
}

/// Observes a process.
///
/// # Errors
/// The process does not exist, or the caller may not observe it.
pub fn observe_process(pid: u32) -> anyhow::Result<Subject> {
    let proc_path = |file: &str| PathBuf::from(format!("/proc/{pid}/{file}"));
    let status = match fs::read_to_string(proc_path("status")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no process {pid}")
        }
        status => status.with_context(|| format!("cannot read the status of process {pid}"))?,
    };
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim).unwrap_or_default()
    };
    // The lines `Uid` and `Gid` contain the real, effective, saved and file system ID.
    let ids = |name: &str| -> Vec<u32> {
        field(name).split_whitespace().filter_map(|id| id.parse().ok()).collect()
    };
    let (uids, gids) = (ids("Uid"), ids("Gid"));
    let has_other_effective_id = |ids: &[u32]| ids.first() != ids.get(1);
    let auxv = read_auxv(pid).unwrap_or_default();
    let mut subject = Subject {
        pid: Some(pid),
        uid: uids.first().copied().unwrap_or_default(),
        name: field("Name").to_owned(),
        is_secure: auxv.get(&AT_SECURE).map(|value| *value != 0),
        ..Subject::default()
    };
    match fs::read_link(proc_path("exe")) {
        Ok(file) => subject.file = Some(file),
        // The kernel hides the program file of a process that changed its user or group. The
        // changed IDs are still visible in `status`.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if has_other_effective_id(&uids) || has_other_effective_id(&gids) {
                subject.is_secure = Some(true);
                return Ok(subject);
            }
            bail!(
                "cannot observe process {pid} ({}): permission denied (run as root, or as its user)",
                escape(&subject.name)
            );
        }
        Err(_) => bail!("process {pid} has no program file: it is a kernel thread, or has exited"),
    }
    let arguments = fs::read(proc_path("cmdline")).unwrap_or_default();
    let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).skip(1).collect();
    subject.script = script_argument(arguments.into_iter().filter(|argument| !argument.is_empty()))
        // The result for a relative path is wrong if the program changed its working directory.
        .map(|script| script_path(&proc_path("cwd"), script));
    subject.started_as = started_as(pid);
    // The kernel resolves the link `exe` to the running program's file, even if the file was
    // replaced or is in another mount namespace.
    subject.elf = read_elf(&proc_path("exe")).ok().flatten();
    subject.variables =
        fs::read(proc_path("environ")).ok().and_then(|bytes| parse_environment(&bytes));
    if let Ok(maps) = fs::read_to_string(proc_path("maps")) {
        let mapped_files =
            || maps.lines().filter_map(|line| line.find('/').map(|index| &line[index..]));
        let without_deleted_suffix = |file: &str| file.trim_end_matches(" (deleted)").to_owned();
        subject.is_hooked = Some(
            mapped_files()
                .any(|file| without_deleted_suffix(file).ends_with(&format!("/{HOOK_FILE}"))),
        );
        let map_file = format!("/{}", vipool::map::MAP_FILE);
        subject.mapped_directory = mapped_files().find_map(|file| {
            without_deleted_suffix(file).strip_suffix(&map_file).map(PathBuf::from)
        });
    }
    subject.apparmor_profile = confining_profile(&proc_path(""));
    subject.boot = system::process_boot_id(pid).ok();
    let descriptors = fs::read_dir(proc_path("fd")).into_iter().flatten().flatten();
    subject.uses_io_uring = descriptors.into_iter().any(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link == Path::new("anon_inode:[io_uring]"))
    });
    Ok(subject)
}

/// Observes a program as the caller would start it.
///
/// # Errors
/// The program or its interpreter cannot be found or read.
pub fn observe_command(command: &[OsString]) -> anyhow::Result<Subject> {
    let (name, arguments) = command.split_first().context("no program is named")?;
    let path = find_program(name)
        .with_context(|| format!("cannot find the program {}", name.display()))?;
    let mut arguments: Vec<OsString> = arguments.to_vec();
    let mut started_as = path.clone();
    let mut file = canonicalize(&path)?;
    // The kernel runs the interpreter that a script's first line names. The interpreter may be
    // env(1), which searches the PATH for another program. The interpreter may also be a
    // script, but the kernel limits the length of such a chain.
    for _ in 0..4 {
        let Some((interpreter, argument)) = read_shebang(&file)? else { break };
        arguments.insert(0, started_as.clone().into_os_string());
        arguments.splice(0..0, argument.map(OsString::from));
        file = canonicalize(&interpreter)?;
        if file.file_name() == Some(OsStr::new("env")) {
            let index = arguments.iter().position(|word| {
                let word = word.as_bytes();
                word.first() != Some(&b'-') && !word.contains(&b'=')
            });
            let program = index.and_then(|index| arguments.drain(..=index).next_back());
            let program = program.with_context(|| {
                format!("the first line of {} names no program after env", path.display())
            })?;
            started_as = find_program(&program)
                .with_context(|| format!("cannot find the program {}", program.display()))?;
            file = canonicalize(&started_as)?;
        }
    }
    let script = script_argument(arguments.iter().map(|argument| argument.as_bytes()));
    let metadata = fs::metadata(&file)?;
    let has_mode_bit = |mode: u32| metadata.permissions().mode() & mode != 0;
    let uid = nix::unistd::Uid::current().as_raw();
    let gid = nix::unistd::Gid::current().as_raw();
    Ok(Subject {
        uid,
        name: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        script: script.map(|script| script_path(Path::new("/proc/self/cwd"), script)),
        elf: read_elf(&file).ok().flatten(),
        is_secure: Some(
            has_mode_bit(0o4000) && metadata.uid() != uid
                || has_mode_bit(0o2000) && metadata.gid() != gid
                || has_capabilities(&file),
        ),
        variables: Some(
            VARIABLES
                .into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?)))
                .collect(),
        ),
        boot: system::current_boot_id().ok(),
        started_as: Some(started_as),
        file: Some(file),
        ..Subject::default()
    })
}

/// Returns the full path of `script` if this file exists. Otherwise returns `script` unchanged: it
/// may be the name of a module (`python3 -m http.server`). `directory_link` is the link in `/proc`
/// to the working directory, for a relative path.
fn script_path(directory_link: &Path, script: &[u8]) -> PathBuf {
    let script = Path::new(OsStr::from_bytes(script));
    match fs::read_link(directory_link) {
        Ok(directory) if directory_link.join(script).exists() => directory.join(script),
        _ => script.to_owned(),
    }
}

fn canonicalize(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot find {}", path.display()))
}

/// Returns the interpreter and its argument if the file is a script (execve(2)).
fn read_shebang(file: &Path) -> anyhow::Result<Option<(PathBuf, Option<String>)>> {
    let mut header = [0; 256];
    let mut reader =
        fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let length = reader.read(&mut header)?;
    let Some(line) = header[..length].strip_prefix(SHEBANG) else { return Ok(None) };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let (program, argument) = match line.trim().split_once([' ', '\t']) {
        Some((program, argument)) => (program, Some(argument.trim().to_owned())),
        None => (line.trim(), None),
    };
    Ok(Some((PathBuf::from(program), argument)))
}

/// Returns whether the file has capabilities (capabilities(7)).
fn has_capabilities(file: &Path) -> bool {
    // With an empty buffer, the call returns the length of the attribute.
    let mut empty_buffer = [0u8; 0];
    rustix::fs::getxattr(file, "security.capability", &mut empty_buffer)
        .is_ok_and(|length| length > 0)
}

/// Returns the [`VARIABLES`] of an environment. Returns `None` if the program has overwritten its
/// environment: some servers write a status text there for ps(1).
fn parse_environment(bytes: &[u8]) -> Option<BTreeMap<&'static str, OsString>> {
    let mut variables = BTreeMap::new();
    if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    for entry in bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let separator = entry.iter().position(|byte| *byte == b'=')?;
        let variable_name =
            VARIABLES.into_iter().find(|name| name.as_bytes() == &entry[..separator]);
        if let Some(name) = variable_name {
            variables.insert(name, OsString::from_vec(entry[separator + 1..].to_vec()));
        }
    }
    Some(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwritten_environment_is_recognized() {
        let variables = parse_environment(b"PATH=/bin\0VIPOOL_DISABLE=1\0").unwrap();
        assert_eq!(variables.get("VIPOOL_DISABLE").unwrap(), "1");
        assert!(parse_environment(b"").unwrap().is_empty());
        assert_eq!(parse_environment(b"nginx: worker process\0\0\0"), None);
        assert_eq!(parse_environment(b"\0\0\0"), None);
    }

    #[test]
    fn script_is_resolved_to_its_interpreter() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("tool");
        fs::write(&script, "#!/usr/bin/env sh\necho\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let subject = observe_command(&[script.clone().into_os_string(), "one".into()]).unwrap();
        assert_eq!(subject.script.as_deref(), Some(&*script));
        assert_eq!(subject.started_as, find_program(OsStr::new("sh")));
        assert_eq!(subject.is_secure, Some(false));
        fs::write(&script, "#!/bin/sh -u\necho\n").unwrap();
        let subject = observe_command(&[script.clone().into_os_string()]).unwrap();
        assert_eq!(subject.script.as_deref(), Some(&*script));
        assert_eq!(subject.started_as.as_deref(), Some(&*script));
        assert!(observe_command(&["/no/such/program".into()]).is_err());
    }

    #[test]
    fn own_process_is_observed() {
        let observed = observe_process(std::process::id()).unwrap();
        assert_eq!(observed.file, std::env::current_exe().ok());
        assert_eq!(observed.is_secure, Some(false));
        assert_eq!(observed.elf, Some(ElfInfo::default()));
        assert_eq!(observed.boot, system::current_boot_id().ok());
    }
}
