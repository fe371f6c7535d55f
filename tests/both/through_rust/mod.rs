//! Implements the API of the suite with the Rust API of the crate.

mod reads;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use vipool::Tick;
use vipool::capi::status::vipool_status;
use vipool::farm::{Farm, Report};
use vipool::interface::Interface;
use vipool::map::{
    CloseError, ClosedSession, Leader, Leases, Map, MapError, OpenOptions, Plan, Probe, Reader,
};
use vipool::policy::{Executable, PathStyle, ProgramView};
use vipool::pool::PoolKind;
use vipool::range::Range;
use vipool::rewrite::{
    Bind, Connect, ListenerMatch, Outcome, PacketInfo, Protocol, RewriteRules, Rewriter, SystemView,
};
use vipool::session::{Handle, Lease, SessionId};
use vipool::system::SystemProbe;

use crate::api::{Api, Call, OpenedSession, Status, WriterOperation};

pub struct RustApi {
    map: Map,
    reader: Reader,
}

/// Returns the status of an error of the library.
fn status<E>(error: E) -> Status
where
    for<'e> &'e E: Into<vipool_status>,
{
    let status: vipool_status = (&error).into();
    status as Status
}

/// Returns the status of an error of the operating system.
fn io_status(error: std::io::Error) -> Status {
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    let not_found = vipool_status::VIPOOL_ERR_NOT_FOUND;
    (if is_missing { not_found } else { vipool_status::VIPOOL_ERR_IO }) as Status
}

fn to_vec(leases: &Leases) -> Vec<Lease> {
    leases.iter().collect()
}

/// Reports sockets on these addresses only, and reports that every leader is alive.
struct InUseProbe<'a>(&'a [IpAddr]);

impl Probe for InUseProbe<'_> {
    fn has_sockets(&mut self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
    fn has_exited(&mut self, _: &Leader) -> bool {
        false
    }
}

impl RustApi {
    fn from_map(map: Result<Map, MapError>) -> Result<Self, Status> {
        let map = map.map_err(status)?;
        let reader = map.reader().map_err(status)?;
        Ok(Self { map, reader })
    }
}

impl Api for RustApi {
    fn new(plan: &Plan) -> Result<Self, Status> {
        Self::from_map(Map::in_memory(plan))
    }

    fn with_followed_links(plan: &Plan) -> Result<Self, Status> {
        let mut plan = plan.clone();
        plan.policy.resolve_links(|path| std::fs::canonicalize(path));
        Self::new(&plan)
    }

    fn create_in_files(plan: &Plan, directory: &Path) -> Result<Self, Status> {
        Self::from_map(Map::create(directory, plan))
    }

    fn open_bytes(map: &[u8], sessions: &[u8]) -> Result<Self, Status> {
        Self::from_map(Map::from_bytes(map, sessions))
    }

    fn from_farm(
        farm: &Farm,
        host: &str,
        interfaces: Option<&[Interface]>,
    ) -> (Vec<(String, String)>, Result<Self, Status>) {
        let mut report = Report::default();
        report.extend(farm.validate());
        let server_plan = farm.plan(host, interfaces);
        report.extend(server_plan.findings);
        let findings = report.findings().iter();
        let findings = findings.map(|finding| (finding.key.clone(), finding.code.to_owned()));
        let assignments = server_plan.assignments.iter();
        let assignments = assignments
            .map(|assignment| (assignment.interface.clone(), assignment.index.to_string()));
        let created_api = match report.has_errors() {
            true => Err(vipool_status::VIPOOL_ERR_FARM as Status),
            false => Self::new(&server_plan.plan),
        };
        (findings.chain(assignments).collect(), created_api)
    }

    fn new_exclusive(plan: &Plan, directory: Option<&Path>) -> Result<Self, Status> {
        directory
            .map_or_else(|| Self::new(plan), |directory| Self::create_in_files(plan, directory))
    }

    fn run_exclusive(&mut self, operations: &[WriterOperation]) -> Vec<Result<Vec<Lease>, Status>> {
        let mut writer = self.map.exclusive_writer().unwrap();
        let leases_of = |result: Result<ClosedSession, CloseError>| {
            result.map(|closed| to_vec(&closed.leases)).map_err(status)
        };
        let mut run = |operation: &WriterOperation| match operation {
            WriterOperation::Open(id, user) => {
                let options = OpenOptions::new().with_user(*user);
                let opened = writer.open_session(*id, &options, Tick::from_secs(100));
                opened.map(|opened| to_vec(&opened.leases)).map_err(status)
            }
            WriterOperation::Close(id) => {
                leases_of(writer.close_session(*id, Tick::from_secs(100)))
            }
            WriterOperation::CloseByHandle(handle) => {
                leases_of(writer.close_by_handle(handle, Tick::from_secs(100)))
            }
        };
        operations.iter().map(&mut run).collect()
    }

    fn open(
        &self,
        session: SessionId,
        options: &OpenOptions,
        now: u32,
    ) -> Result<OpenedSession, Status> {
        let opened =
            self.map.open_session(session, options, Tick::from_secs(now)).map_err(status)?;
        Ok(OpenedSession {
            handle: opened.handle,
            leases: to_vec(&opened.leases),
            was_already_open: opened.already_open,
            is_low_water: opened.is_low_water(),
            shortage: opened.shortage.map_or(0, status),
            shortage_pool: opened.shortage_pool,
        })
    }

    fn close(&self, handle: &Handle, now: u32) -> Result<Vec<Lease>, Status> {
        self.map
            .close_by_handle(handle, Tick::from_secs(now))
            .map(|closed| to_vec(&closed.leases))
            .map_err(status)
    }

    fn close_session(&self, session: SessionId, now: u32) -> Result<Vec<Lease>, Status> {
        self.map
            .close_session(session, Tick::from_secs(now))
            .map(|closed| to_vec(&closed.leases))
            .map_err(status)
    }

    fn choose_pool(&self, user: &str, program: Option<&str>) -> Result<Option<String>, Status> {
        let executable = program.map(|path| Executable::new(path.as_bytes(), PathStyle::Posix));
        self.map.choose_pool(user, executable.as_ref()).map_err(status)
    }

    fn drain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status> {
        self.map
            .drain(range, Tick::from_secs(now))
            .map(|change| (change.addresses, change.held))
            .map_err(status)
    }

    fn undrain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status> {
        self.map
            .undrain(range, Tick::from_secs(now))
            .map(|change| (change.addresses, change.held))
            .map_err(status)
    }

    fn set_draining(&self, is_draining: bool) -> Result<(), Status> {
        self.map.drain_server(is_draining).map_err(status)
    }

    fn reserve(&self, address: IpAddr, user: &str, now: u32) -> Result<(), Status> {
        self.map.reserve(address, user, Tick::from_secs(now)).map(drop).map_err(status)
    }

    fn unreserve(&self, address: IpAddr, now: u32) -> Result<(), Status> {
        self.map.unreserve(address, Tick::from_secs(now)).map(drop).map_err(status)
    }

    fn mark_restored(&self) -> Result<(), Status> {
        self.map.mark_restored().map_err(status)
    }

    fn recover(&self) -> Result<(), Status> {
        self.map.recover().map_err(status)
    }

    fn reap(&self, now: u32, addresses_in_use: &[IpAddr]) -> Result<[usize; 3], Status> {
        let mut probe = InUseProbe(addresses_in_use);
        let report = self.map.reap(Tick::from_secs(now), 1000, &mut probe).map_err(status)?;
        Ok([report.freed as usize, report.lingering as usize, report.closed.len()])
    }

    fn reap_by_system(&self, now: u32) -> Result<[usize; 3], Status> {
        let mut probe = SystemProbe::new().map_err(io_status)?;
        let report = self.map.reap(Tick::from_secs(now), 1000, &mut probe).map_err(status)?;
        Ok([report.freed as usize, report.lingering as usize, report.closed.len()])
    }

    fn reconcile(&self, now: u32, live_sessions: &[SessionId]) -> Result<usize, Status> {
        let closed_sessions =
            self.map.reconcile(Tick::from_secs(now), |session, _| live_sessions.contains(&session));
        closed_sessions.map(|sessions| sessions.len()).map_err(status)
    }

    fn rewrite(&self, handle: &Handle, rule: u64, listening: &[SocketAddr], call: Call) -> String {
        let policy = self.reader.policy();
        let program = policy.programs().find(|program| program.id() == rule).unwrap();
        let mut rules = RewriteRules::new(&program, &policy);
        (rules.defer_wildcard, rules.rebind_datagrams) = (false, false);
        let rewriter = Rewriter {
            addresses: self.reader.addresses(&self.reader.lookup(handle.session)),
            rules,
            lease_held: self.reader.is_live(handle),
            system: &TestSystem { reader: &self.reader, program, listening },
        };
        match call {
            Call::Bind(socket, address) => describe(rewriter.bind(&socket, address), describe_bind),
            Call::Listen(socket) => describe(rewriter.listen(&socket), describe_bind),
            Call::Connect(socket, destination) => {
                describe(rewriter.connect(&socket, destination), describe_connect)
            }
            Call::Send(socket, destination, is_fast_open) => {
                describe(rewriter.send(&socket, destination, is_fast_open), describe_connect)
            }
            Call::SendPacketInfo(socket, info, destination) => describe(
                rewriter.send_packet_info(&socket, info, destination),
                describe_packet_info,
            ),
            Call::VisiblePacketInfo(info, source) => {
                describe(rewriter.visible_packet_info(info, || source), describe_packet_info)
            }
            Call::VisibleAddress(address, other_end) => {
                describe(rewriter.visible_address(address, || other_end), |address| {
                    address.to_string()
                })
            }
            Call::VisibleIp(ip) => {
                describe(rewriter.visible_ip(ip), |ip| SocketAddr::new(ip, 0).to_string())
            }
            Call::MulticastInterface(destination) => {
                describe(rewriter.multicast_interface(destination), |ip| {
                    SocketAddr::new(ip.into(), 0).to_string()
                })
            }
            Call::HostAddresses(client) => describe(rewriter.resolve_host_name(client), |hosts| {
                format!("{:?} {:?}", hosts.v4.map(IpAddr::V4), hosts.v6.map(IpAddr::V6))
            }),
            Call::IsOwnAddress(ip) => rewriter.is_virtual_ip(ip).to_string(),
            Call::IsHidden(ip) => rewriter.is_hidden(ip).to_string(),
            Call::IsRetryAllowed(ip) => rewriter.retries_original(ip).to_string(),
        }
    }
}

/// Returns the outcome as text. `describe_value` formats the result of a rewritten call.
fn describe<T>(outcome: Outcome<T>, describe_value: impl FnOnce(T) -> String) -> String {
    match outcome {
        Outcome::Rewritten(value) => describe_value(value),
        Outcome::Passed(reason) => reason.name().to_owned(),
        Outcome::Refused(refusal) => refusal.name().to_owned(),
    }
}

fn describe_bind(bind: Bind) -> String {
    let v6only_suffix = if bind.clear_v6only { " v6only" } else { "" };
    let defer_suffix = if bind.defer { " defer" } else { "" };
    format!("{}{v6only_suffix}{defer_suffix}", bind.address)
}

fn describe_connect(connect: Connect) -> String {
    let v6only_suffix = if connect.clear_v6only { " v6only" } else { "" };
    let late_suffix = if connect.defer_port { " late" } else { "" };
    let source = connect.source.map_or(String::new(), |ip| format!(" from {ip}{late_suffix}"));
    format!("{}{v6only_suffix}{source}", connect.destination)
}

fn describe_packet_info(info: PacketInfo) -> String {
    format!("{} via {}", info.address, info.interface)
}

/// A system with the map of `reader`, the rule `program`, and a listener on each address of
/// `listening`.
struct TestSystem<'a> {
    reader: &'a Reader,
    program: ProgramView<'a>,
    listening: &'a [SocketAddr],
}

impl SystemView for TestSystem<'_> {
    fn is_own_port(&self, port: u16) -> bool {
        self.program.is_own_port(port)
    }
    fn is_shared_port(&self, port: u16) -> bool {
        self.program.is_shared_port(port)
    }
    fn is_wildcard_udp_port(&self, port: u16) -> bool {
        self.reader.policy().is_wildcard_udp_port(port)
    }
    fn is_host_address(&self, address: IpAddr) -> bool {
        self.reader.policy().is_host_address(address)
    }
    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind> {
        self.reader.pool_kind(address)
    }
    fn find_listener(
        &self,
        addresses: &[SocketAddr],
        _: Protocol,
        _: Option<SocketAddr>,
    ) -> ListenerMatch {
        let index = addresses.iter().position(|address| self.listening.contains(address));
        index.map_or(ListenerMatch::NotFound, ListenerMatch::Index)
    }
}
