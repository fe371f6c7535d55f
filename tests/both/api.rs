//! What both APIs can do, over plain values. Errors are status numbers of the C ABI.

use std::net::{IpAddr, SocketAddr};

use vipool::map::{OpenOptions, Plan, PoolStatus, Settings, SlotRow};
use vipool::pool::PoolKind;
use vipool::range::Range;
use vipool::rewrite::SocketFacts;
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

/// A socket call of a program, or a question about an address.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Bind(SocketFacts, SocketAddr),
    Listen(SocketFacts),
    Connect(SocketFacts, SocketAddr),
    Send(SocketFacts, SocketAddr, bool),
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
pub trait Api: Sized + Sync {
    fn new(plan: &Plan) -> Result<Self, Status>;

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
    fn reconcile(&self, now: u32, alive: &[SessionId]) -> Result<usize, Status>;

    fn find(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status>;
    fn addresses(&self, session: SessionId) -> Result<Addresses, Status>;
    fn is_live(&self, handle: &Handle) -> bool;
    fn kind_of(&self, address: IpAddr) -> Option<PoolKind>;
    fn settings(&self) -> Settings;
    fn sessions(&self) -> Vec<Row>;
    fn pools(&self) -> Vec<PoolStatus>;
    /// Slots 1 to 4 of a pool.
    fn slots(&self, pool: u16) -> Vec<SlotRow>;
    fn is_draining(&self) -> bool;

    fn parse_session(text: &str) -> Result<u64, Status>;
    fn parse_range(text: &str) -> Result<(IpAddr, IpAddr), Status>;
    /// A handle as text and back.
    fn through_text(handle: &Handle) -> Option<Handle>;

    /// The id of the rule that a program at this path is under, and its features as bits.
    fn rule(&self, path: &str, windows: bool) -> Option<(u64, u32)>;
    /// What becomes of a call of the program under a rule, where these addresses are listened on:
    /// an address and how, or a reason, a refusal, yes or no.
    fn rewrite(&self, handle: &Handle, rule: u64, listening: &[SocketAddr], call: Call) -> String;
}
