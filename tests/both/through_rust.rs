//! The suite's API through Rust.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use vipool::capi::status::vipool_status;
use vipool::farm::{Farm, Report};
use vipool::interface::Interface;
use vipool::map::{
    CloseError, Closed, Journal, Leader, Leases, Map, MapError, OpenOptions, Plan, PoolStatus,
    Probe, Reader, Settings, SlotRow,
};
use vipool::os::client;
use vipool::os::lease::{self, Process};
use vipool::os::probe::SystemProbe;
use vipool::policy::{Executable, PathStyle, PortRange, ProgramView, Verdict, script_of};
use vipool::pool::PoolKind;
use vipool::range::{Range, RangeError};
use vipool::rewrite::{
    Bind, Connect, Listener, Outcome, Protocol, Refusal, Rewriter, Rules, World,
};
use vipool::session::{Addresses, Handle, Lease, SessionId, SessionIdError};

use crate::api::{Api, Call, Entry, Opened, Row, Status, Step};

pub struct Rust {
    map: Map,
    reader: Reader,
}

fn status<E>(error: E) -> Status
where
    for<'e> &'e E: Into<vipool_status>,
{
    let status: vipool_status = (&error).into();
    status as Status
}

/// Of an answer of the operating system.
fn io_status(error: std::io::Error) -> Status {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let not_found = vipool_status::VIPOOL_ERR_NOT_FOUND;
    (if missing { not_found } else { vipool_status::VIPOOL_ERR_IO }) as Status
}

fn list(leases: &Leases) -> Vec<Lease> {
    leases.iter().collect()
}

struct InUse<'a>(&'a [IpAddr]);

impl Probe for InUse<'_> {
    fn has_sockets(&mut self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
    fn is_gone(&mut self, _: &Leader) -> bool {
        false
    }
}

impl Rust {
    fn made(map: Result<Map, MapError>) -> Result<Self, Status> {
        let map = map.map_err(status)?;
        let reader = map.reader().map_err(status)?;
        Ok(Self { map, reader })
    }
}

impl Api for Rust {
    fn new(plan: &Plan) -> Result<Self, Status> {
        Self::made(Map::in_memory(plan))
    }

    fn followed(plan: &Plan) -> Result<Self, Status> {
        let mut plan = plan.clone();
        plan.policy.follow_links(|path| std::fs::canonicalize(path));
        Self::new(&plan)
    }

    fn created(plan: &Plan, directory: &Path) -> Result<Self, Status> {
        Self::made(Map::create(directory, plan))
    }

    fn copied(map: &[u8], sessions: &[u8]) -> Result<Self, Status> {
        Self::made(Map::from_bytes(map, sessions))
    }

    fn of_farm(
        farm: &Farm,
        host: &str,
        interfaces: Option<&[Interface]>,
    ) -> (Vec<(String, String)>, Result<Self, Status>) {
        let mut report = Report::default();
        report.extend(farm.validate());
        let planned = farm.plan(host, interfaces);
        report.extend(planned.findings);
        let findings = report.findings().iter();
        let findings = findings.map(|found| (found.key.clone(), found.code.to_owned()));
        let carried = planned.assignments.iter();
        let carried = carried.map(|found| (found.interface.clone(), found.index.to_string()));
        (findings.chain(carried).collect(), Self::new(&planned.plan))
    }

    fn fixed_ports(farm: &Farm) -> Vec<PortRange> {
        farm.fixed_ports()
    }

    fn alone(&mut self, steps: &[Step]) -> Vec<Result<Vec<Lease>, Status>> {
        let mut writer = self.map.writer().unwrap();
        let closed = |closed: Result<Closed, CloseError>| {
            closed.map(|closed| list(&closed.leases)).map_err(status)
        };
        let mut done = |step: &Step| match step {
            Step::Open(id, user) => {
                let options = OpenOptions { user: Some(user), ..OpenOptions::default() };
                let opened = writer.open_session(*id, &options, 100);
                opened.map(|opened| list(&opened.leases)).map_err(status)
            }
            Step::Close(id) => closed(writer.close_session(*id, 100)),
            Step::CloseHandle(handle) => closed(writer.close(handle, 100)),
        };
        steps.iter().map(&mut done).collect()
    }

    fn journal(directory: &Path, first: u64) -> Result<(Vec<Entry>, u64, u64), Status> {
        let recent = Journal::open(directory).map_err(status)?.since(first);
        let entries = recent.events.into_iter().map(|event| Entry {
            number: event.number,
            at: event.at,
            kind: event.kind as u32,
            session: event.session,
            address: event.address,
            generation: event.generation,
            user: event.user,
            client: event.client,
        });
        Ok((entries.collect(), recent.lost, recent.next))
    }

    fn tell_client(directory: &Path, handle: &Handle, address: IpAddr) -> Result<(), Status> {
        client::write(directory, handle, address, None).map_err(io_status)
    }

    fn client(directory: &Path, handle: &Handle) -> Option<IpAddr> {
        client::read(directory, handle)
    }

    fn forget_client(directory: &Path, handle: &Handle) -> Result<(), Status> {
        client::remove(directory, handle).map_err(io_status)
    }

    fn open(&self, session: SessionId, options: &OpenOptions, now: u32) -> Result<Opened, Status> {
        let opened = self.map.open_session(session, options, now).map_err(status)?;
        Ok(Opened {
            handle: opened.handle,
            leases: list(&opened.leases),
            already_open: opened.already_open,
            low_water: opened.low_water,
            shortage: opened.shortage.map_or(0, status),
        })
    }

    fn close(&self, handle: &Handle, now: u32) -> Result<Vec<Lease>, Status> {
        self.map.close(handle, now).map(|closed| list(&closed.leases)).map_err(status)
    }

    fn close_session(&self, session: SessionId, now: u32) -> Result<Vec<Lease>, Status> {
        self.map.close_session(session, now).map(|closed| list(&closed.leases)).map_err(status)
    }

    fn choose_pool(&self, user: &str, program: Option<&str>) -> Option<String> {
        let style = PathStyle::Posix;
        let program = program.map(str::as_bytes);
        let program =
            program.map(|path| Executable { path, invoked_as: None, script: None, style });
        self.map.choose_pool(user, program.as_ref())
    }

    fn drain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status> {
        self.map.drain(range, now).map(|done| (done.addresses, done.held)).map_err(status)
    }

    fn undrain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status> {
        self.map.undrain(range, now).map(|done| (done.addresses, done.held)).map_err(status)
    }

    fn drain_server(&self, draining: bool) -> Result<(), Status> {
        self.map.drain_server(draining).map_err(status)
    }

    fn reserve(&self, address: IpAddr, user: &str, now: u32) -> Result<(), Status> {
        self.map.reserve(address, user, now).map(drop).map_err(status)
    }

    fn unreserve(&self, address: IpAddr, now: u32) -> Result<(), Status> {
        self.map.unreserve(address, now).map(drop).map_err(status)
    }

    fn restored(&self) -> Result<(), Status> {
        self.map.restored().map_err(status)
    }

    fn recover(&self) -> Result<(), Status> {
        self.map.recover().map_err(status)
    }

    fn reap(&self, now: u32, in_use: &[IpAddr]) -> Result<[usize; 3], Status> {
        let done = self.map.reap(now, 1000, &mut InUse(in_use)).map_err(status)?;
        Ok([done.freed as usize, done.lingering as usize, done.closed.len()])
    }

    fn reap_by_system(&self, now: u32) -> Result<[usize; 3], Status> {
        let mut probe = SystemProbe::new().map_err(io_status)?;
        let done = self.map.reap(now, 1000, &mut probe).map_err(status)?;
        Ok([done.freed as usize, done.lingering as usize, done.closed.len()])
    }

    fn reconcile(&self, now: u32, alive: &[SessionId]) -> Result<usize, Status> {
        let closed = self.map.reconcile(now, |session, _| alive.contains(&session));
        closed.map(|closed| closed.len()).map_err(status)
    }

    fn find(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status> {
        let found = self.reader.find(session).map(|(handle, leases)| (handle, list(&leases)));
        found.ok_or(vipool_status::VIPOOL_ERR_NOT_OPEN as Status)
    }

    fn find_in_map(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status> {
        let found = self.map.find(session).map_err(status)?;
        let found = found.map(|(handle, leases)| (handle, list(&leases)));
        found.ok_or(vipool_status::VIPOOL_ERR_NOT_OPEN as Status)
    }

    fn leases_of(&self, handle: &Handle) -> Option<Vec<Lease>> {
        self.reader.leases_of(handle).map(|leases| list(&leases))
    }

    fn boot(&self) -> u64 {
        self.reader.boot()
    }

    fn session_of(&self, pid: u32) -> Option<(SessionId, u32)> {
        let process = if pid == 0 { Process::This } else { Process::Other(pid) };
        let (session, by) = lease::of_process(&self.reader, process)?;
        Some((session, by as u32 + 1))
    }

    fn parents_rule(&self) -> Option<(u64, u32)> {
        let (rule, parent) = lease::inherited(&self.reader.policy(), Process::This)?;
        Some((rule.id(), parent))
    }

    fn addresses(&self, session: SessionId) -> Result<Addresses, Status> {
        let (_, leases) =
            self.reader.find(session).ok_or(vipool_status::VIPOOL_ERR_NOT_OPEN as Status)?;
        Ok(self.reader.addresses(&leases))
    }

    fn is_live(&self, handle: &Handle) -> bool {
        self.reader.is_live(handle)
    }

    fn kind_of(&self, address: IpAddr) -> Option<PoolKind> {
        self.reader.kind_of(address)
    }

    fn settings(&self) -> Settings {
        self.reader.settings()
    }

    fn sessions(&self) -> Vec<Row> {
        let rows = self.map.sessions().unwrap().into_iter();
        rows.map(|row| Row {
            session: row.session,
            handle: row.handle,
            leases: list(&row.leases),
            user: row.user,
            client: row.client,
        })
        .collect()
    }

    fn pools(&self) -> Vec<PoolStatus> {
        self.reader.pools()
    }

    fn slots(&self, pool: u16) -> Vec<SlotRow> {
        self.reader.slots(pool).into_iter().skip(1).take(4).collect()
    }

    fn is_draining(&self) -> bool {
        self.reader.is_draining()
    }

    fn parse_session(text: &str) -> Result<u64, Status> {
        let session: Result<SessionId, SessionIdError> = text.parse();
        session.map(SessionId::raw).map_err(status)
    }

    fn parse_range(text: &str) -> Result<(IpAddr, IpAddr), Status> {
        let range: Result<Range, RangeError> = text.parse();
        range.map(|range| (range.first(), range.last())).map_err(status)
    }

    fn range_text(range: &Range) -> String {
        range.to_string()
    }

    fn intersection(range: &Range, other: &Range) -> Option<(IpAddr, IpAddr)> {
        range.intersection(other).map(|range| (range.first(), range.last()))
    }

    fn script_of(arguments: &[&str]) -> Option<String> {
        let script = script_of(arguments.iter().map(|text| text.as_bytes()))?;
        Some(String::from_utf8(script.to_vec()).unwrap())
    }

    fn through_text(handle: &Handle) -> Option<Handle> {
        Handle::parse(handle.to_string().as_bytes())
    }

    fn interfaces() -> Vec<Interface> {
        vipool::os::interfaces::list().unwrap()
    }

    fn map_directory() -> String {
        vipool::os::place::map_directory().to_str().unwrap().to_owned()
    }

    fn leader_of(pid: u32) -> Result<Leader, Status> {
        vipool::os::process::identify(pid).map_err(io_status)
    }

    fn explain(&self, path: &str) -> Vec<(u64, String, String)> {
        let style = PathStyle::Posix;
        let program = Executable { path: path.as_bytes(), invoked_as: None, script: None, style };
        let row = |(rule, verdict): (ProgramView<'_>, Verdict)| {
            let pattern = String::from_utf8(rule.pattern().to_vec()).unwrap();
            (rule.id(), pattern, verdict.to_string())
        };
        self.reader.policy().explain(program).map(row).collect()
    }

    fn rule_flags(&self) -> [bool; 3] {
        let policy = self.reader.policy();
        [policy.pass_when_missing(), policy.hide_addresses(), policy.session_override()]
    }

    fn rule(&self, path: &str, windows: bool) -> Option<(u64, u32)> {
        let style = if windows { PathStyle::Windows } else { PathStyle::Posix };
        let program = Executable { path: path.as_bytes(), invoked_as: None, script: None, style };
        let rule = self.reader.policy().find(&program)?.program;
        let features = rule.features();
        let bits = [features.virtual_ip, features.loopback, features.client_ip];
        let bits = bits.iter().enumerate().map(|(place, on)| u32::from(*on) << place).sum();
        Some((rule.id(), bits))
    }

    fn rewrite(&self, handle: &Handle, rule: u64, listening: &[SocketAddr], call: Call) -> String {
        let policy = self.reader.policy();
        let program = policy.programs().find(|program| program.id() == rule).unwrap();
        let mut rules = Rules::of(&program, &policy);
        rules.defer_wildcard = false;
        let rewriter = Rewriter {
            addresses: self.reader.addresses(&self.reader.lookup(handle.session)),
            rules,
            live: self.reader.is_live(handle),
            world: &Surroundings { reader: &self.reader, program, listening },
        };
        match call {
            Call::Bind(socket, address) => text(rewriter.bind(&socket, address), bind),
            Call::Listen(socket) => text(rewriter.listen(&socket), bind),
            Call::Connect(socket, to) => text(rewriter.connect(&socket, to), connect),
            Call::Send(socket, to, fast) => text(rewriter.send(&socket, to, fast), connect),
            Call::SendSource(source, to) => {
                text(rewriter.send_source(source, to), |ip| SocketAddr::new(ip, 0).to_string())
            }
            Call::Shown(end, other) => text(rewriter.shown(end, || other), |end| end.to_string()),
            Call::ShownIp(ip) => {
                text(rewriter.shown_ip(ip), |ip| SocketAddr::new(ip, 0).to_string())
            }
            Call::Multicast(to) => {
                text(rewriter.multicast_interface(to), |v| SocketAddr::new(v.into(), 0).to_string())
            }
            Call::Hosts(client) => text(rewriter.host_addresses(client), |hosts| {
                format!("{:?} {:?}", hosts.v4.map(IpAddr::V4), hosts.v6.map(IpAddr::V6))
            }),
            Call::IsOwn(ip) => rewriter.is_own_address(ip).to_string(),
            Call::Hides(ip) => rewriter.hides(ip).to_string(),
            Call::Retries(ip) => rewriter.retries_untouched(ip).to_string(),
        }
    }
}

fn text<T>(outcome: Outcome<T>, rewritten: impl FnOnce(T) -> String) -> String {
    match outcome {
        Outcome::Rewritten(value) => rewritten(value),
        Outcome::Passed(reason) => reason.name().to_owned(),
        Outcome::Refused(refusal @ Refusal::AddressOfAnother) => refusal.name().to_owned(),
    }
}

fn bind(bind: Bind) -> String {
    let v6only = if bind.clear_v6only { " v6only" } else { "" };
    let defer = if bind.defer { " defer" } else { "" };
    format!("{}{v6only}{defer}", bind.address)
}

fn connect(connect: Connect) -> String {
    let v6only = if connect.clear_v6only { " v6only" } else { "" };
    let late = if connect.late_port { " late" } else { "" };
    let first = connect.bind.map_or(String::new(), |ip| format!(" from {ip}{late}"));
    format!("{}{v6only}{first}", connect.to)
}

struct Surroundings<'a> {
    reader: &'a Reader,
    program: ProgramView<'a>,
    listening: &'a [SocketAddr],
}

impl World for Surroundings<'_> {
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
    fn kind_of(&self, address: IpAddr) -> Option<PoolKind> {
        self.reader.kind_of(address)
    }
    fn find_listener(&self, wanted: &[SocketAddr], _: Protocol, _: Option<SocketAddr>) -> Listener {
        let place = wanted.iter().position(|wanted| self.listening.contains(wanted));
        place.map_or(Listener::None, Listener::At)
    }
}
