//! Tests of sessions that several logons share.

use std::collections::HashSet;
use std::net::IpAddr;

use vipool::Tick;
use vipool::map::{
    CloseError, LEADER_GRACE, Leader, Map, OpenError, OpenedSession, Probe, Settings,
};
use vipool::session::SessionId;

use crate::support::{for_user, memory_map, plan, session_id};

const NOW: Tick = Tick::from_secs(1000);

/// A system without sockets, in which the processes with these ids have exited.
struct ExitedProcesses(HashSet<u32>);

impl Probe for ExitedProcesses {
    fn has_sockets(&mut self, _: IpAddr) -> bool {
        false
    }
    fn has_exited(&mut self, process: &Leader) -> bool {
        self.0.contains(&process.pid)
    }
}

fn process(pid: u32) -> Leader {
    Leader::new(pid, u64::from(pid) * 100, 4_026_531_836)
}

/// A map in a directory. Each logon is a logon of ada, and her logons share one session.
struct Server {
    map: Map,
    directory: tempfile::TempDir,
    exited: ExitedProcesses,
}

impl Server {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(&["10.0.0.1-10.0.0.9"], Settings::without_cool_down());
        let map = Map::create(directory.path(), &plan).unwrap();
        Self { map, directory, exited: ExitedProcesses(HashSet::new()) }
    }

    fn session() -> SessionId {
        "user:1000".parse().unwrap()
    }

    fn log_on(&self, pid: u32) -> OpenedSession {
        self.map.join_session(Self::session(), &for_user("ada"), process(pid), NOW).unwrap()
    }

    /// Ends a logon. Returns whether the session was closed.
    fn log_off(&mut self, opened: &OpenedSession, pid: u32) -> bool {
        let has_exited = |leader: &Leader| self.exited.0.contains(&leader.pid);
        let result = self.map.leave_session(&opened.handle, &process(pid), has_exited, NOW);
        result.unwrap().is_some()
    }

    /// Reaps the map `seconds` after [`NOW`]. Returns the closed sessions.
    fn reap(&mut self, seconds: u32) -> Vec<SessionId> {
        self.map.reap(NOW.saturating_add(seconds), u32::MAX, &mut self.exited).unwrap().closed
    }

    fn leader_pid(&self) -> Option<u32> {
        let rows = self.map.sessions().unwrap();
        rows.first().and_then(|row| row.leader).map(|leader| leader.pid)
    }

    fn record_count(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("logons")).unwrap().count()
    }
}

#[test]
fn last_logoff_closes_a_shared_session() {
    let mut server = Server::new();
    let logons = [1, 2, 3].map(|pid| server.log_on(pid));
    assert_eq!(logons.map(|opened| opened.already_open), [false, true, true]);
    assert!(logons.iter().all(|opened| opened.handle == logons[0].handle));
    assert!(!server.log_off(&logons[0], 1));
    assert!(matches!(server.leader_pid(), Some(2 | 3)));
    assert!(!server.log_off(&logons[2], 3));
    assert_eq!(server.leader_pid(), Some(2));
    assert!(server.log_off(&logons[1], 2));
    assert_eq!(server.map.sessions().unwrap(), []);
    assert_eq!(server.record_count(), 0);
    // A second logoff of the same logon fails.
    let second_logoff = server.map.leave_session(&logons[1].handle, &process(2), |_| true, NOW);
    assert!(second_logoff.is_err());
}

#[test]
fn each_logon_of_one_process_counts() {
    let mut server = Server::new();
    let logons = [1, 1].map(|pid| server.log_on(pid));
    assert!(!server.log_off(&logons[0], 1));
    assert_eq!(server.leader_pid(), Some(1));
    assert!(server.log_off(&logons[1], 1));
}

#[test]
fn killed_logons_do_not_count() {
    let mut server = Server::new();
    let logons = [1, 2, 3].map(|pid| server.log_on(pid));
    // The first reap replaces the killed leader, so no later reap closes the session.
    server.exited.0.extend([1, 2]);
    assert_eq!(server.reap(0), []);
    assert_eq!((server.leader_pid(), server.record_count()), (Some(3), 1));
    assert_eq!(server.reap(LEADER_GRACE), []);
    assert_eq!(server.reap(2 * LEADER_GRACE), []);
    assert!(server.log_off(&logons[2], 3));
}

#[test]
fn logoff_beside_killed_logons_closes_a_shared_session() {
    let mut server = Server::new();
    let logons = [1, 2, 3].map(|pid| server.log_on(pid));
    server.exited.0.extend([1, 2]);
    assert!(server.log_off(&logons[2], 3));
}

#[test]
fn reap_closes_a_shared_session_without_running_logon() {
    let mut server = Server::new();
    for pid in [1, 2] {
        server.log_on(pid);
    }
    server.exited.0.extend([1, 2]);
    assert_eq!(server.reap(0), []);
    assert_eq!(server.reap(LEADER_GRACE), [Server::session()]);
    server.reap(LEADER_GRACE + 1);
    assert_eq!(server.record_count(), 0);
}

#[test]
fn shared_session_stays_open_while_its_logon_records_cannot_be_read() {
    let mut server = Server::new();
    let opened = server.log_on(1);
    server.log_on(2);
    let records_path = server.directory.path().join("logons");
    let renamed_records_path = server.directory.path().join("readable");
    std::fs::rename(&records_path, &renamed_records_path).unwrap();
    std::fs::write(&records_path, "").unwrap();
    server.exited.0.insert(1);
    for seconds in [0, LEADER_GRACE, 2 * LEADER_GRACE] {
        assert_eq!(server.reap(seconds), []);
    }
    assert!(!server.log_off(&opened, 1));
    std::fs::remove_file(&records_path).unwrap();
    std::fs::rename(&renamed_records_path, &records_path).unwrap();
    assert_eq!(server.reap(3 * LEADER_GRACE), []);
    assert_eq!(server.leader_pid(), Some(2));
}

#[test]
fn logoff_with_a_stale_handle_ends_no_logon_of_the_next_session() {
    let mut server = Server::new();
    let closed = server.log_on(1);
    server.map.close_session(Server::session(), NOW).unwrap();
    let opened = server.log_on(2);
    server.log_on(1);
    let result = server.map.leave_session(&closed.handle, &process(1), |_| false, NOW);
    assert!(matches!(result, Err(CloseError::Stale(_))), "{result:?}");
    assert!(!server.log_off(&opened, 2));
    assert_eq!(server.leader_pid(), Some(1));
}

#[test]
fn logons_survive_a_new_plan() {
    let mut server = Server::new();
    let logons = [1, 2].map(|pid| server.log_on(pid));
    let plan = plan(&["10.0.0.1-10.0.0.20"], Settings::without_cool_down());
    Map::create(server.directory.path(), &plan).unwrap();
    assert!(!server.log_off(&logons[0], 1));
    assert!(server.log_off(&logons[1], 2));
}

#[test]
fn logon_that_cannot_be_recorded_opens_nothing() {
    let server = Server::new();
    std::fs::write(server.directory.path().join("logons"), "").unwrap();
    let session = Server::session();
    let join = |map: &Map| map.join_session(session, &for_user("ada"), process(1), NOW);
    assert!(matches!(join(&server.map), Err(OpenError::Map(_))));
    assert_eq!(server.map.sessions().unwrap(), []);
    // If the session is open, the failed logon changes nothing.
    server.map.open_session(session, &for_user("ada"), NOW).unwrap();
    assert!(join(&server.map).is_err());
    assert_eq!(server.map.sessions().unwrap().len(), 1);
    let memory_map = memory_map(&["10.0.0.1"], Settings::without_cool_down());
    assert!(join(&memory_map).is_err());
    assert_eq!(memory_map.sessions().unwrap(), []);
}

#[test]
fn removal_of_the_map_removes_the_logon_records() {
    let mut server = Server::new();
    let opened = server.log_on(1);
    // An administrator closes the session while the logon runs.
    server.map.close_session(Server::session(), NOW).unwrap();
    assert!(server.map.leave_session(&opened.handle, &process(2), |_| false, NOW).is_err());
    assert_eq!(server.record_count(), 1);
    // A running logon of a closed session does not keep a new session open.
    let new_logon = server.log_on(2);
    assert_ne!(new_logon.handle, opened.handle);
    assert!(server.log_off(&new_logon, 2));
    server.map.open_session(session_id(7), &for_user("bob"), NOW).unwrap();
    server.map.close_session(session_id(7), NOW).unwrap();
    let Server { map, directory, .. } = server;
    map.remove().unwrap();
    assert!(!directory.path().join("logons").exists());
}
