//! The suite's API through Rust.

use std::net::{IpAddr, SocketAddr};

use vipool::capi::status::vipool_status;
use vipool::map::{
    Leader, Leases, Map, OpenOptions, Plan, PoolStatus, Probe, Reader, Settings, SlotRow,
};
use vipool::policy::{Executable, PathStyle, ProgramView};
use vipool::pool::PoolKind;
use vipool::range::{Range, RangeError};
use vipool::rewrite::{
    Bind, Connect, Listener, Outcome, Protocol, Refusal, Rewriter, Rules, World,
};
use vipool::session::{Addresses, Handle, Lease, SessionId, SessionIdError};

use crate::api::{Api, Call, Opened, Row, Status};

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

impl Api for Rust {
    fn new(plan: &Plan) -> Result<Self, Status> {
        let map = Map::in_memory(plan).map_err(status)?;
        let reader = map.reader().map_err(status)?;
        Ok(Self { map, reader })
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

    fn reconcile(&self, now: u32, alive: &[SessionId]) -> Result<usize, Status> {
        let closed = self.map.reconcile(now, |session, _| alive.contains(&session));
        closed.map(|closed| closed.len()).map_err(status)
    }

    fn find(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status> {
        let found = self.reader.find(session).map(|(handle, leases)| (handle, list(&leases)));
        found.ok_or(vipool_status::VIPOOL_ERR_NOT_OPEN as Status)
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

    fn through_text(handle: &Handle) -> Option<Handle> {
        Handle::parse(handle.to_string().as_bytes())
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
