//! What both APIs can do, over plain values. Errors are status numbers of the C ABI.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use vipool::farm::Farm;
use vipool::interface::Interface;
use vipool::map::{Leader, OpenOptions, Plan, PoolStatus, Settings, SlotRow};
use vipool::policy::PortRange;
use vipool::pool::PoolKind;
use vipool::range::Range;
use vipool::rewrite::SocketProperties;
use vipool::session::{Addresses, Handle, Lease, SessionId};

/// A number of `vipool_status`, below zero.
pub type Status = i32;

/// What an opening gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    pub handle: Handle,
    pub leases: Vec<Lease>,
    pub already_open: bool,
    pub low_water: bool,
    /// A status; 0 for none.
    pub shortage: Status,
}

/// One open session, as a monitor sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub session: SessionId,
    pub handle: Handle,
    pub leases: Vec<Lease>,
    pub user: Option<String>,
    pub client: Option<IpAddr>,
}

/// What a writer that has a map to itself does.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    Open(SessionId, &'a str),
    Close(SessionId),
    CloseHandle(Handle),
}

/// One event of a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub number: u64,
    pub at: u32,
    pub kind: u32,
    pub session: SessionId,
    pub address: Option<IpAddr>,
    pub generation: u32,
    pub user: Option<String>,
    pub client: Option<IpAddr>,
}

/// A socket call of a program, or a question about an address.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Bind(SocketProperties, SocketAddr),
    Listen(SocketProperties),
    Connect(SocketProperties, SocketAddr),
    Send(SocketProperties, SocketAddr, bool),
    SendSource(IpAddr, Option<SocketAddr>),
    Shown(SocketAddr, Option<SocketAddr>),
    ShownIp(IpAddr),
    Multicast(IpAddr),
    Hosts(Option<IpAddr>),
    IsOwn(IpAddr),
    Hides(IpAddr),
    Retries(IpAddr),
}

/// The API. An implementation holds a map in memory and a reader of it.
pub trait Api: Reads + Machine + Sized + Sync {
    fn new(plan: &Plan) -> Result<Self, Status>;
    /// The same after links among the listed programs were followed on this machine.
    fn followed(plan: &Plan) -> Result<Self, Status>;
    /// In files.
    fn created(plan: &Plan, directory: &Path) -> Result<Self, Status>;
    /// A copy of the bytes of files.
    fn copied(map: &[u8], sessions: &[u8]) -> Result<Self, Status>;
    /// The map of a server of a farm that is built by calls; with it all findings (key and code)
    /// and after them the interfaces that carry addresses (name and number).
    fn of_farm(
        farm: &Farm,
        host: &str,
        interfaces: Option<&[Interface]>,
    ) -> (Vec<(String, String)>, Result<Self, Status>);
    /// A map that one thread has to itself, in memory or in files.
    fn exclusive(plan: &Plan, directory: Option<&Path>) -> Result<Self, Status>;
    /// Without a lock, on such a map.
    fn alone(&mut self, steps: &[Step]) -> Vec<Result<Vec<Lease>, Status>>;
    fn open(&self, session: SessionId, options: &OpenOptions, now: u32) -> Result<Opened, Status>;
    fn close(&self, handle: &Handle, now: u32) -> Result<Vec<Lease>, Status>;
    fn close_session(&self, session: SessionId, now: u32) -> Result<Vec<Lease>, Status>;
    fn choose_pool(&self, user: &str, program: Option<&str>) -> Option<String>;
    fn drain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status>;
    fn undrain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status>;
    fn drain_server(&self, draining: bool) -> Result<(), Status>;
    fn reserve(&self, address: IpAddr, user: &str, now: u32) -> Result<(), Status>;
    fn unreserve(&self, address: IpAddr, now: u32) -> Result<(), Status>;
    fn restored(&self) -> Result<(), Status>;
    fn recover(&self) -> Result<(), Status>;
    /// Freed, lingering and closed.
    fn reap(&self, now: u32, in_use: &[IpAddr]) -> Result<[usize; 3], Status>;
    /// With what this machine says of its sockets and processes.
    fn reap_by_system(&self, now: u32) -> Result<[usize; 3], Status>;
    fn reconcile(&self, now: u32, alive: &[SessionId]) -> Result<usize, Status>;
    /// What becomes of a call of the program under a rule, where these addresses are listened on:
    /// an address and how, or a reason, a refusal, yes or no.
    fn rewrite(&self, handle: &Handle, rule: u64, listening: &[SocketAddr], call: Call) -> String;
}

/// What is read of a map.
pub trait Reads {
    fn find(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status>;
    fn find_in_map(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status>;
    fn leases_of(&self, handle: &Handle) -> Option<Vec<Lease>>;
    fn boot(&self) -> u64;
    /// The session of a process (0: of this one), and by what the operating system says so.
    fn session_of(&self, pid: u32) -> Option<(SessionId, u32)>;
    /// The rule that a parent of this process hands down, and that parent.
    fn parents_rule(&self) -> Option<(u64, u32)>;
    fn addresses(&self, session: SessionId) -> Result<Addresses, Status>;
    fn is_live(&self, handle: &Handle) -> bool;
    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind>;
    fn settings(&self) -> Settings;
    fn sessions(&self) -> Vec<Row>;
    fn pools(&self) -> Vec<PoolStatus>;
    /// Slots 1 to 4 of a pool.
    fn slots(&self, pool: u16) -> Vec<SlotRow>;
    fn is_draining(&self) -> bool;
    /// Of every rule its id, its pattern, and in words what it says of a program at this path.
    fn explain(&self, path: &str) -> Vec<(u64, String, String)>;
    /// Returns the bits of `RewriteFlags`.
    fn rule_flags(&self) -> u32;
    /// The id of the rule that a program at this path is under, and its features as bits.
    fn rule(&self, path: &str, windows: bool) -> Option<(u64, u32)>;
}

/// What needs no map, and what the machine says.
pub trait Machine {
    fn fixed_ports(farm: &Farm) -> Vec<PortRange>;
    /// The events from a number on, how many were lost, and the number to ask for next.
    fn journal(directory: &Path, first: u64) -> Result<(Vec<Entry>, u64, u64), Status>;
    fn tell_client(directory: &Path, handle: &Handle, client: IpAddr) -> Result<(), Status>;
    fn client(directory: &Path, handle: &Handle) -> Option<IpAddr>;
    fn forget_client(directory: &Path, handle: &Handle) -> Result<(), Status>;
    fn parse_session(text: &str) -> Result<u64, Status>;
    fn parse_range(text: &str) -> Result<(IpAddr, IpAddr), Status>;
    fn range_text(range: &Range) -> String;
    fn intersection(range: &Range, other: &Range) -> Option<(IpAddr, IpAddr)>;
    fn script_of(arguments: &[&str]) -> Option<String>;
    /// A handle as text and back.
    fn through_text(handle: &Handle) -> Option<Handle>;
    fn interfaces() -> Vec<Interface>;
    fn map_directory() -> String;
    fn leader_of(pid: u32) -> Result<Leader, Status>;
}
