//! The logons of a shared session (`session-per = "user"`).
//!
//! A shared session stays open until its last logon has ended. A counter of logons would be wrong
//! after a logon is killed. So each logon has a *logon record* instead: an empty file whose name
//! contains the handle of the session and the process of the logon. A record counts only while that
//! process runs. The leader of the session is the process of one logon. When this process exits,
//! the process of another logon becomes the leader.
//!
//! Writers create and search records under the writer lock. So no writer can close a session
//! between the moment when a logon joins it and the moment when the record of that logon exists.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::transaction::Transaction;
use crate::map::types::plan::{Leader, OpenOptions};
use crate::os::directory::for_each_name;
use crate::session::{Handle, SessionId};
use crate::trusted_file::{self, remove_files};

/// The name of the directory of the logon records, in the directory of the map. Only the owner of
/// the records can list them.
pub(crate) const LOGONS_DIRECTORY: &str = "logons";
/// Maximum number of logons of one process that share a session.
const MAX_LOGONS_PER_PROCESS: u32 = 1 << 16;

/// One logon of a shared session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Logon {
    /// The handle of the session at the time of the logon. Logons of one session can have different
    /// handles, because a later logon can add a lease.
    pub(crate) handle: Handle,
    /// The process of the logon.
    pub(crate) process: Leader,
}

impl Logon {
    /// Returns the name of the record. `number` distinguishes the logons of one process.
    fn file_name(&self, number: u32) -> String {
        let Leader { pid, start_time, pid_namespace } = self.process;
        format!("{}.{pid:x}.{start_time:x}.{pid_namespace:x}.{number:x}", self.handle)
    }

    /// Parses the name of a record.
    fn parse(name: &str) -> Option<Self> {
        let mut fields = name.rsplitn(5, '.');
        let _number = fields.next()?;
        let mut next_number = || u64::from_str_radix(fields.next()?, 16).ok();
        let (pid_namespace, start_time) = (next_number()?, next_number()?);
        let pid = next_number()?.try_into().ok()?;
        let handle = Handle::parse(fields.next()?.as_bytes())?;
        Some(Self { handle, process: Leader { pid, start_time, pid_namespace } })
    }
}

/// The logon records of a map.
pub(crate) struct Logons(PathBuf);

impl Logons {
    /// Returns the records of the map in a directory.
    pub(crate) fn of_map(map_directory: &Path) -> Self {
        Self(map_directory.join(LOGONS_DIRECTORY))
    }

    /// Adds the record of a logon.
    pub(crate) fn add(&self, logon: &Logon) -> io::Result<()> {
        trusted_file::create_directory(&self.0, 0o700)?;
        for number in 0..MAX_LOGONS_PER_PROCESS {
            match File::create_new(self.0.join(logon.file_name(number))) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(drop),
            }
        }
        Err(io::Error::other("the process has too many logons"))
    }

    /// Removes the record of one logon of a process in a session.
    pub(crate) fn remove_one(&self, session: SessionId, process: &Leader) -> io::Result<()> {
        let is_of_process =
            |logon: &Logon| logon.handle.session == session && logon.process == *process;
        match self.find(is_of_process)? {
            Some((name, _)) => fs::remove_file(self.0.join(name)),
            None => Ok(()),
        }
    }

    /// Removes all records and their directory. Call this only if no session is open.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns a logon that `matches` accepts, with the name of its record.
    fn find(&self, mut matches: impl FnMut(&Logon) -> bool) -> io::Result<Option<(String, Logon)>> {
        let mut found = None;
        let search_result = for_each_name(&self.0, |name| match Logon::parse(name) {
            Some(logon) if matches(&logon) => {
                found = Some((name.to_owned(), logon));
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        match search_result {
            // The first logon creates the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(|()| found),
        }
    }
}

impl Transaction<'_> {
    /// Makes a running process of a logon the leader of a shared session. Returns whether the
    /// session must stay open: such a process runs, or the logon records cannot be read.
    pub(crate) fn replace_leader(
        &self,
        session: SessionId,
        logons: &Logons,
        mut has_exited: impl FnMut(&Leader) -> bool,
    ) -> bool {
        let can_lead = |logon: &Logon| {
            logon.handle.session == session
                && self.is_live(&logon.handle)
                && !has_exited(&logon.process)
        };
        // If the records cannot be read, the process of a logon may be running, so the session must
        // stay open. The next reap tries again.
        let Ok(found) = logons.find(can_lead) else { return true };
        let Some((_, logon)) = found else { return false };
        let Some(identity) = self.session_identity(session) else { return false };
        let options = OpenOptions::new().with_leader(logon.process);
        self.update_records(session, &identity.complete(&options), identity.user);
        true
    }

    /// Removes the records of closed sessions, and the records of processes that have exited.
    pub(crate) fn remove_stale_logons(
        &self,
        logons: &Logons,
        mut has_exited: impl FnMut(&Leader) -> bool,
    ) {
        // A later call removes the records that remain after an error.
        let _ = remove_files(&logons.0, |name| {
            Logon::parse(name)
                .is_some_and(|logon| !self.is_live(&logon.handle) || has_exited(&logon.process))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logon(pid: u32) -> Logon {
        let session = "user:1000".parse().unwrap();
        Logon {
            handle: Handle { session, pool: 1, slot: 3, generation: 7, boot: u64::MAX },
            process: Leader { pid, start_time: u64::MAX, pid_namespace: 4_026_531_836 },
        }
    }

    #[test]
    fn record_names_round_trip() {
        for number in [0, 77] {
            let name = logon(u32::MAX).file_name(number);
            assert!(name.len() < 255, "{name}");
            assert_eq!(Logon::parse(&name), Some(logon(u32::MAX)));
        }
        for name in ["", ".", "1.2.3.4", "x.1.2.3.0", "0.0.0.0.0.1.2.3.0"] {
            assert_eq!(Logon::parse(name), None, "{name}");
        }
    }

    #[test]
    fn each_logon_of_a_process_has_a_record() {
        let directory = tempfile::tempdir().unwrap();
        let logons = Logons::of_map(directory.path());
        let session = logon(1).handle.session;
        let is_recorded = || logons.find(|found| *found == logon(1)).unwrap().is_some();
        logons.remove_one(session, &logon(1).process).unwrap();
        for _ in 0..2 {
            logons.add(&logon(1)).unwrap();
        }
        logons.add(&logon(2)).unwrap();
        logons.remove_one(session, &logon(1).process).unwrap();
        assert!(is_recorded());
        logons.remove_one(session, &logon(1).process).unwrap();
        assert!(!is_recorded());
        logons.remove_all().unwrap();
        logons.remove_all().unwrap();
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
    }
}
