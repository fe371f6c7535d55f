//! Helpers of the tests that replace plans. The helpers create maps and options, and read the state
//! of pools.

use std::net::IpAddr;
use std::path::Path;

use vipool::Tick;
use vipool::map::{Leader, Map, OpenOptions, Plan, PoolStatus, Probe, Reader, Settings};
use vipool::pool::Pool;
use vipool::session::Handle;

use crate::support::{for_user, only_address, session_id};

/// Returns a temporary directory.
pub fn new_directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Creates a map with these pools, or replaces the plan of the map that `directory` contains.
pub fn create_map(directory: &tempfile::TempDir, pools: &[Pool], settings: Settings) -> Map {
    let plan = Plan::new(pools.to_vec()).with_settings(settings);
    Map::create(directory.path(), &plan).unwrap()
}

/// Opens the session `number` of the user `name`. Returns its handle and its only address.
pub fn open_for_user(map: &Map, number: u64, name: &str, now: u32) -> (Handle, String) {
    let opened =
        map.open_session(session_id(number), &for_user(name), Tick::from_secs(now)).unwrap();
    (opened.handle, only_address(&opened.leases))
}

/// Returns the options of a user who requests this address.
pub fn for_user_at<'a>(name: &'a str, address: &str) -> OpenOptions<'a> {
    for_user(name).with_address(address.parse().ok())
}

/// Returns the options of a user who requests this pool.
pub fn for_pool<'a>(name: &'a str, pool: &'a str) -> OpenOptions<'a> {
    for_user(name).with_pool(pool)
}

/// Returns the state of all pools of the map in the directory.
pub fn pool_statuses(directory: &Path) -> Vec<PoolStatus> {
    Reader::attach(directory).unwrap().pools()
}

/// Returns the names of all pools, in the order of the pool numbers. An unused number has an empty
/// name.
pub fn pool_names(directory: &tempfile::TempDir) -> Vec<String> {
    pool_statuses(directory.path()).into_iter().map(|pool| pool.name).collect()
}

/// Reports sockets on all addresses (`true`) or on no address (`false`).
pub struct FixedProbe(pub bool);

impl Probe for FixedProbe {
    fn has_sockets(&mut self, _address: IpAddr) -> bool {
        self.0
    }

    fn has_exited(&mut self, _leader: &Leader) -> bool {
        false
    }
}
