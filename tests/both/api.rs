//! The operations that the suite tests in the Rust API and in the C ABI. Arguments and results are
//! plain values, and errors are status numbers of the C ABI.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use vipool::farm::Farm;
use vipool::interface::Interface;
use vipool::map::{Leader, OpenOptions, Plan, PoolStatus, Settings, SlotRow};
use vipool::policy::PortRange;
use vipool::pool::PoolKind;
use vipool::range::Range;
use vipool::rewrite::{PacketInfo, SocketProperties};
use vipool::session::{Addresses, Handle, Lease, SessionId};

/// The number of a `vipool_status`. Errors are below zero.
pub type Status = i32;

/// The result of an operation that opens a session.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenedSession {
    pub handle: Handle,
    pub leases: Vec<Lease>,
    pub was_already_open: bool,
    pub is_low_water: bool,
    /// The status that describes a shortage of addresses, or 0 if there is no shortage.
    pub shortage: Status,
    /// The number of the pool that has the shortage.
    pub shortage_pool: u16,
}

/// An open session in the list of sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRow {
    pub session: SessionId,
    pub handle: Handle,
    pub leases: Vec<Lease>,
    pub user: Option<String>,
    pub client: Option<IpAddr>,
}

/// An operation for an exclusive writer.
#[derive(Clone, Copy, Debug)]
pub enum WriterOperation<'a> {
    Open(SessionId, &'a str),
    Close(SessionId),
    CloseByHandle(Handle),
}

/// An event of a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    pub number: u64,
    pub tick: u32,
    pub kind: u32,
    pub session: SessionId,
    pub address: Option<IpAddr>,
    pub generation: u32,
    pub user: Option<String>,
    pub client: Option<IpAddr>,
    pub pool: u16,
}

/// A call to the rewriter. The `bool` of `Send` is true if the program uses TCP Fast Open.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Bind(SocketProperties, SocketAddr),
    Listen(SocketProperties),
    Connect(SocketProperties, SocketAddr),
    Send(SocketProperties, SocketAddr, bool),
    SendPacketInfo(SocketProperties, PacketInfo, Option<SocketAddr>),
    VisibleAddress(SocketAddr, Option<SocketAddr>),
    VisiblePacketInfo(PacketInfo, Option<SocketAddr>),
    VisibleIp(IpAddr),
    MulticastInterface(IpAddr),
    HostAddresses(Option<IpAddr>),
    IsOwnAddress(IpAddr),
    IsHidden(IpAddr),
    IsRetryAllowed(IpAddr),
}

/// The API under test. An implementation holds a map and a reader of this map.
pub trait Api: Reads + Machine + Sized + Sync {
    fn new(plan: &Plan) -> Result<Self, Status>;
    /// Resolves the symbolic links in the process list on this machine, then creates a map.
    fn with_followed_links(plan: &Plan) -> Result<Self, Status>;
    /// Creates a map in files.
    fn create_in_files(plan: &Plan, directory: &Path) -> Result<Self, Status>;
    /// Creates a map in memory from the bytes of the files `map` and `sessions`.
    fn open_bytes(map: &[u8], sessions: &[u8]) -> Result<Self, Status>;
    /// Creates the map of a server of a farm. The returned list contains the findings (key and
    /// code), then the interfaces that receive addresses (name and index). If the farm has errors,
    /// the status is VIPOOL_ERR_FARM.
    fn from_farm(
        farm: &Farm,
        host: &str,
        interfaces: Option<&[Interface]>,
    ) -> (Vec<(String, String)>, Result<Self, Status>);
    /// Creates a map for one thread. The map is in memory if `directory` is `None`.
    fn new_exclusive(plan: &Plan, directory: Option<&Path>) -> Result<Self, Status>;
    /// Runs operations with the exclusive writer of a map that `new_exclusive` created.
    fn run_exclusive(&mut self, operations: &[WriterOperation]) -> Vec<Result<Vec<Lease>, Status>>;
    fn open(
        &self,
        session: SessionId,
        options: &OpenOptions,
        now: u32,
    ) -> Result<OpenedSession, Status>;
    fn close(&self, handle: &Handle, now: u32) -> Result<Vec<Lease>, Status>;
    fn close_session(&self, session: SessionId, now: u32) -> Result<Vec<Lease>, Status>;
    fn choose_pool(&self, user: &str, program: Option<&str>) -> Result<Option<String>, Status>;
    /// Drains the addresses in `range`. Returns the number of these addresses, and the number of
    /// them that sessions hold.
    fn drain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status>;
    /// Ends the drain of the addresses in `range`. Returns the same numbers as `drain`.
    fn undrain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status>;
    fn set_draining(&self, is_draining: bool) -> Result<(), Status>;
    fn reserve(&self, address: IpAddr, user: &str, now: u32) -> Result<(), Status>;
    fn unreserve(&self, address: IpAddr, now: u32) -> Result<(), Status>;
    fn mark_restored(&self) -> Result<(), Status>;
    fn recover(&self) -> Result<(), Status>;
    /// Frees cooled addresses that have no sockets. Only `addresses_in_use` have sockets. Returns
    /// three numbers: freed addresses, lingering addresses and closed sessions.
    fn reap(&self, now: u32, addresses_in_use: &[IpAddr]) -> Result<[usize; 3], Status>;
    /// Same as `reap`, but checks the sockets and processes of this machine.
    fn reap_by_system(&self, now: u32) -> Result<[usize; 3], Status>;
    fn reconcile(&self, now: u32, live_sessions: &[SessionId]) -> Result<usize, Status>;
    /// Calls the rewriter for a program with this rule. Returns the outcome as text, for example an
    /// address with flags, the name of a reason, or `true`. `listening` contains the addresses that
    /// have a listener.
    fn rewrite(&self, handle: &Handle, rule: u64, listening: &[SocketAddr], call: Call) -> String;
}

/// Operations that read a map.
pub trait Reads {
    fn find(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status>;
    /// Same as `find`, but calls the function of `Map`, not the function of `Reader`.
    fn find_in_map(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status>;
    fn find_by_handle(&self, handle: &Handle) -> Option<Vec<Lease>>;
    fn boot(&self) -> u64;
    /// Returns the session of a process, and a number for the way in which it was found (1 for the
    /// audit session). The pid 0 means this process.
    fn process_session(&self, pid: u32) -> Option<(SessionId, u32)>;
    /// Returns the id of the rule that this process inherits from an ancestor, and the pid of the
    /// ancestor.
    fn parent_rule(&self) -> Option<(u64, u32)>;
    fn addresses(&self, session: SessionId) -> Result<Addresses, Status>;
    fn is_live(&self, handle: &Handle) -> bool;
    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind>;
    fn settings(&self) -> Settings;
    fn sessions(&self) -> Vec<SessionRow>;
    fn pools(&self) -> Vec<PoolStatus>;
    /// Returns slots 1 to 4 of a pool.
    fn slots(&self, pool: u16) -> Vec<SlotRow>;
    fn is_draining(&self) -> bool;
    /// Returns the id, the pattern and the match result of every rule for a program at this path.
    fn match_results(&self, path: &str) -> Vec<(u64, String, String)>;
    /// Returns the bits of `RewriteFlags`.
    fn rewrite_flags(&self) -> u32;
    /// Returns the id and the feature bits of the rule that applies to a program at this path.
    fn rule(&self, path: &str, is_windows: bool) -> Option<(u64, u32)>;
}

/// Functions that need no map, and functions that read the state of the machine.
pub trait Machine {
    fn fixed_ports(farm: &Farm) -> Vec<PortRange>;
    /// Returns three values: the events from number `first_number` on, the count of lost events,
    /// and the number of the next event.
    fn journal(
        directory: &Path,
        first_number: u64,
    ) -> Result<(Vec<JournalEntry>, u64, u64), Status>;
    fn set_client(directory: &Path, handle: &Handle, client: IpAddr) -> Result<(), Status>;
    fn get_client(directory: &Path, handle: &Handle) -> Option<IpAddr>;
    fn remove_client(directory: &Path, handle: &Handle) -> Result<(), Status>;
    fn parse_session(text: &str) -> Result<u64, Status>;
    fn parse_range(text: &str) -> Result<(IpAddr, IpAddr), Status>;
    fn format_range(range: &Range) -> String;
    fn intersection(range: &Range, other_range: &Range) -> Option<(IpAddr, IpAddr)>;
    fn find_script(arguments: &[&str]) -> Option<String>;
    /// Formats a handle as text, then parses the text.
    fn format_and_parse(handle: &Handle) -> Option<Handle>;
    fn interfaces() -> Vec<Interface>;
    fn map_directory() -> String;
    fn leader_from_pid(pid: u32) -> Result<Leader, Status>;
}
