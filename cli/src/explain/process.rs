//! What can be seen of a process, or of a program before it is started.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use vipool::os::identity;
use vipool::policy::{Executable, PathStyle, script_argument};

use super::binary::{self, Binary};
use crate::run::{HOOK, find_program};

/// The variables that the hook and the dynamic linker go by.
const VARIABLES: [&str; 4] = ["LD_PRELOAD", "VIPOOL_DISABLE", "VIPOOL_LEASE", "VIPOOL_MAP"];
/// Of the auxiliary vector (getauxval(3)).
const AT_SECURE: u64 = 23;
const AT_EXECFN: u64 = 31;
/// A file that is run by the program its first line names begins so (execve(2)).
const SCRIPT: &[u8] = b"#!";

/// What is seen. `None` is what the system does not let the caller see.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The process; none for a program that is not started.
    pub pid: Option<u32>,
    /// Its real user; the caller for a program.
    pub uid: u32,
    /// The name of the process.
    pub name: String,
    /// Its file.
    pub file: Option<PathBuf>,
    /// The path it was started by.
    pub started_as: Option<PathBuf>,
    /// The script that it runs.
    pub script: Option<PathBuf>,
    /// What the file says of itself.
    pub binary: Option<Binary>,
    /// Whether it has more rights than its user, so that its environment is not trusted.
    pub is_secure: Option<bool>,
    /// Those of [`VARIABLES`] that it was started with; none if it wrote over them.
    pub variables: Option<BTreeMap<&'static str, OsString>>,
    /// Whether the hook is loaded.
    pub is_hooked: Option<bool>,
    /// The directory of the map that is mapped into it.
    pub mapped: Option<PathBuf>,
    /// Boot and network namespace, hashed.
    pub place: Option<u64>,
    /// Whether it uses io_uring.
    pub has_ring: bool,
}

impl Subject {
    /// As the process list looks at it.
    pub fn executable(&self) -> Option<Executable<'_>> {
        Some(Executable {
            path: self.file.as_ref()?.as_os_str().as_bytes(),
            invoked_as: self.started_as.as_ref().map(|path| path.as_os_str().as_bytes()),
            script: self.script.as_ref().map(|path| path.as_os_str().as_bytes()),
            style: PathStyle::Posix,
        })
    }

    /// A variable of its environment, if it heeds it.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        let trusted = self.is_secure != Some(true);
        self.variables.as_ref()?.get(name).map(OsString::as_os_str).filter(|_| trusted)
    }
}

/// The path that a process was started by, as whoever started it wrote it.
pub fn started_as(pid: u32) -> Option<PathBuf> {
    let vector = auxiliary(&fs::read(format!("/proc/{pid}/auxv")).ok()?);
    text_at(Path::new(&format!("/proc/{pid}/mem")), *vector.get(&AT_EXECFN)?)
}

/// Looks at a process.
pub fn look_at(pid: u32) -> anyhow::Result<Subject> {
    let of = |file: &str| PathBuf::from(format!("/proc/{pid}/{file}"));
    let status = match fs::read_to_string(of("status")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no process {pid}")
        }
        other => other.with_context(|| format!("cannot look at process {pid}"))?,
    };
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(str::trim).unwrap_or_default()
    };
    // Real, effective, saved, of the file system.
    let ids = |name: &str| -> Vec<u32> {
        line(name).split_whitespace().filter_map(|id| id.parse().ok()).collect()
    };
    let (uids, gids) = (ids("Uid"), ids("Gid"));
    let differs = |ids: &[u32]| ids.first() != ids.get(1);
    let vector = fs::read(of("auxv")).ok().map(|bytes| auxiliary(&bytes)).unwrap_or_default();
    let mut subject = Subject {
        pid: Some(pid),
        uid: uids.first().copied().unwrap_or_default(),
        name: line("Name").to_owned(),
        is_secure: vector.get(&AT_SECURE).map(|value| *value != 0),
        ..Subject::default()
    };
    match fs::read_link(of("exe")) {
        Ok(file) => subject.file = Some(file),
        // What has changed its user is closed to others; that much is seen from outside.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if differs(&uids) || differs(&gids) {
                subject.is_secure = Some(true);
                return Ok(subject);
            }
            bail!(
                "process {pid} ({}) is not yours to look at: run this as root, or as its user",
                subject.name.escape_debug()
            );
        }
        Err(_) => bail!("process {pid} runs no program: it is the kernel's own, or has ended"),
    }
    let arguments = fs::read(of("cmdline")).unwrap_or_default();
    let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).skip(1).collect();
    subject.script =
        script_argument(arguments.into_iter().filter(|it| !it.is_empty())).map(|script| {
            // As it was when the program started, if it has not changed it since.
            fs::read_link(of("cwd")).unwrap_or_default().join(OsStr::from_bytes(script))
        });
    subject.started_as = started_as(pid);
    // Through the link: the file may have been replaced, or lie in another mount namespace.
    subject.binary = binary::look_into(&of("exe")).ok().flatten();
    subject.variables = fs::read(of("environ")).ok().and_then(|bytes| variables(&bytes));
    if let Ok(maps) = fs::read_to_string(of("maps")) {
        let files = || maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
        let name = |file: &str| file.trim_end_matches(" (deleted)").to_owned();
        subject.is_hooked = Some(files().any(|file| name(file).ends_with(&format!("/{HOOK}"))));
        let map = format!("/{}", vipool::map::MAP_FILE);
        subject.mapped = files().find_map(|file| name(file).strip_suffix(&map).map(PathBuf::from));
    }
    subject.place = identity::process_boot_id(pid).ok();
    let descriptors = fs::read_dir(of("fd")).into_iter().flatten().flatten();
    subject.has_ring = descriptors.into_iter().any(|file| {
        fs::read_link(file.path()).is_ok_and(|link| link == Path::new("anon_inode:[io_uring]"))
    });
    Ok(subject)
}

/// Looks at a program as it would be if it were started from here.
pub fn to_be_started(command: &[OsString]) -> anyhow::Result<Subject> {
    let (name, arguments) = command.split_first().context("no program is named")?;
    let path = find_program(name)
        .with_context(|| format!("cannot find the program {}", name.display()))?;
    let mut arguments: Vec<OsString> = arguments.to_vec();
    let mut started_as = path.clone();
    let mut file = canonical(&path)?;
    // The program that a script names in its first line is what is run; env(1) finds another.
    for _ in 0..4 {
        let Some(line) = first_line(&file)? else { break };
        let (interpreter, argument) = line;
        arguments.insert(0, started_as.clone().into_os_string());
        arguments.splice(0..0, argument.map(OsString::from));
        file = canonical(&interpreter)?;
        if file.file_name() == Some(OsStr::new("env")) {
            let at = arguments.iter().position(|word| {
                let word = word.as_bytes();
                word.first() != Some(&b'-') && !word.contains(&b'=')
            });
            let word = at.and_then(|at| arguments.drain(..=at).next_back());
            let word = word.with_context(|| format!("{}: env names no program", path.display()))?;
            started_as = find_program(&word)
                .with_context(|| format!("cannot find the program {}", word.display()))?;
            file = canonical(&started_as)?;
        }
    }
    let script = script_argument(arguments.iter().map(|argument| argument.as_bytes()));
    let data = fs::metadata(&file)?;
    let own = |mode: u32| data.permissions().mode() & mode != 0;
    let user = nix::unistd::Uid::current().as_raw();
    let group = nix::unistd::Gid::current().as_raw();
    Ok(Subject {
        uid: user,
        name: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        script: script.map(|script| {
            std::env::current_dir().unwrap_or_default().join(OsStr::from_bytes(script))
        }),
        binary: binary::look_into(&file).ok().flatten(),
        is_secure: Some(
            own(0o4000) && data.uid() != user
                || own(0o2000) && data.gid() != group
                || has_capabilities(&file),
        ),
        variables: Some(
            VARIABLES
                .into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?)))
                .collect(),
        ),
        place: identity::current_boot_id().ok(),
        started_as: Some(started_as),
        file: Some(file),
        ..Subject::default()
    })
}

fn canonical(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot find {}", path.display()))
}

/// The program that the first line of a script names, and its argument.
fn first_line(file: &Path) -> anyhow::Result<Option<(PathBuf, Option<String>)>> {
    let mut start = [0; 256];
    let mut opened =
        fs::File::open(file).with_context(|| format!("cannot look into {}", file.display()))?;
    let length = opened.read(&mut start)?;
    let Some(line) = start[..length].strip_prefix(SCRIPT) else { return Ok(None) };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let (program, argument) = match line.trim().split_once([' ', '\t']) {
        Some((program, argument)) => (program, Some(argument.trim().to_owned())),
        None => (line.trim(), None),
    };
    Ok(Some((PathBuf::from(program), argument)))
}

/// Whether the file gives capabilities to who runs it (capabilities(7)).
fn has_capabilities(file: &Path) -> bool {
    let mut none = [0u8; 0];
    rustix::fs::getxattr(file, "security.capability", &mut none).is_ok_and(|length| length > 0)
}

/// The auxiliary vector: pairs of words, up to a pair of zeros.
fn auxiliary(bytes: &[u8]) -> BTreeMap<u64, u64> {
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    bytes.chunks_exact(16).map(|pair| (word(&pair[..8]), word(&pair[8..]))).collect()
}

/// The C string at this place of a process's memory.
fn text_at(memory: &Path, at: u64) -> Option<PathBuf> {
    let mut bytes = [0; 4096];
    let length = fs::File::open(memory).ok()?.read_at(&mut bytes, at).ok()?;
    let end = bytes[..length].iter().position(|byte| *byte == 0)?;
    Some(PathBuf::from(OsString::from_vec(bytes[..end].to_vec())))
}

/// What the environment says of the variables that matter; `None` if the program has written
/// something else over it, as servers do that show their state in the list of processes.
fn variables(bytes: &[u8]) -> Option<BTreeMap<&'static str, OsString>> {
    let mut found = BTreeMap::new();
    if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    for entry in bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        let known = VARIABLES.into_iter().find(|name| name.as_bytes() == &entry[..at]);
        if let Some(name) = known {
            found.insert(name, OsString::from_vec(entry[at + 1..].to_vec()));
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_that_was_written_over_says_nothing() {
        let found = variables(b"PATH=/bin\0VIPOOL_DISABLE=1\0").unwrap();
        assert_eq!(found.get("VIPOOL_DISABLE").unwrap(), "1");
        assert!(variables(b"").unwrap().is_empty());
        assert_eq!(variables(b"nginx: worker process\0\0\0"), None);
        assert_eq!(variables(b"\0\0\0"), None);
    }

    #[test]
    fn a_script_is_its_interpreter_and_itself() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("tool");
        fs::write(&script, "#!/usr/bin/env sh\necho\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let subject = to_be_started(&[script.clone().into_os_string(), "one".into()]).unwrap();
        assert_eq!(subject.script.as_deref(), Some(&*script));
        assert_eq!(subject.started_as, find_program(OsStr::new("sh")));
        assert_eq!(subject.is_secure, Some(false));
        fs::write(&script, "#!/bin/sh -u\necho\n").unwrap();
        let subject = to_be_started(&[script.clone().into_os_string()]).unwrap();
        assert_eq!(subject.script.as_deref(), Some(&*script));
        assert_eq!(subject.started_as.as_deref(), Some(&*script));
        assert!(to_be_started(&["/no/such/program".into()]).is_err());
    }

    #[test]
    fn this_process_is_seen() {
        let own = look_at(std::process::id()).unwrap();
        assert_eq!(own.file, std::env::current_exe().ok());
        assert_eq!(own.is_secure, Some(false));
        assert_eq!(own.binary, Some(Binary::default()));
        assert_eq!(own.place, identity::current_boot_id().ok());
    }
}
