//! Implements the operations that read a map, the functions that need no map, and the functions
//! that read the state of the machine.

use std::net::IpAddr;
use std::path::Path;

use vipool::capi::status::vipool_status;
use vipool::client_file;
use vipool::discovery::{self, Process};
use vipool::farm::Farm;
use vipool::interface::Interface;
use vipool::map::{Journal, Leader, PoolStatus, Settings, SlotRow};
use vipool::policy::{Executable, MatchResult, PathStyle, PortRange, ProgramView, script_argument};
use vipool::pool::PoolKind;
use vipool::range::{Range, RangeError};
use vipool::session::{Addresses, Handle, Lease, SessionId, SessionIdError};

use super::{RustApi, io_status, status, to_vec};
use crate::api::{JournalEntry, Machine, Reads, SessionRow, Status};

impl Reads for RustApi {
    fn find(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status> {
        let handle_and_leases =
            self.reader.find(session).map(|(handle, leases)| (handle, to_vec(&leases)));
        handle_and_leases.ok_or(vipool_status::VIPOOL_ERR_NOT_OPEN as Status)
    }

    fn find_in_map(&self, session: SessionId) -> Result<(Handle, Vec<Lease>), Status> {
        let found_session = self.map.find(session).map_err(status)?;
        let handle_and_leases = found_session.map(|(handle, leases)| (handle, to_vec(&leases)));
        handle_and_leases.ok_or(vipool_status::VIPOOL_ERR_NOT_OPEN as Status)
    }

    fn find_by_handle(&self, handle: &Handle) -> Option<Vec<Lease>> {
        self.reader.leases_of(handle).map(|leases| to_vec(&leases))
    }

    fn boot(&self) -> u64 {
        self.reader.boot()
    }

    fn process_session(&self, pid: u32) -> Option<(SessionId, u32)> {
        let process = if pid == 0 { Process::This } else { Process::Other(pid) };
        let (session, found_by) = discovery::session_of_process(&self.reader, process)?;
        Some((session, found_by as u32 + 1))
    }

    fn parent_rule(&self) -> Option<(u64, u32)> {
        let (rule, ancestor_pid) = discovery::inherited_rule(&self.reader.policy(), Process::This)?;
        Some((rule.id(), ancestor_pid))
    }

    fn addresses(&self, session: SessionId) -> Result<Addresses, Status> {
        let (_, leases) =
            self.reader.find(session).ok_or(vipool_status::VIPOOL_ERR_NOT_OPEN as Status)?;
        Ok(self.reader.addresses(&leases))
    }

    fn is_live(&self, handle: &Handle) -> bool {
        self.reader.is_live(handle)
    }

    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind> {
        self.reader.pool_kind(address)
    }

    fn settings(&self) -> Settings {
        self.reader.settings()
    }

    fn sessions(&self) -> Vec<SessionRow> {
        let rows = self.map.sessions().unwrap().into_iter();
        rows.map(|row| SessionRow {
            session: row.session,
            handle: row.handle,
            leases: to_vec(&row.leases),
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

    fn match_results(&self, path: &str) -> Vec<(u64, String, String)> {
        let style = PathStyle::Posix;
        let program = Executable::new(path.as_bytes(), style);
        let row = |(rule, result): (ProgramView<'_>, MatchResult)| {
            let pattern = String::from_utf8(rule.pattern().to_vec()).unwrap();
            (rule.id(), pattern, result.to_string())
        };
        self.reader.policy().explain(program).map(row).collect()
    }

    fn rewrite_flags(&self) -> u32 {
        self.reader.policy().rewrite_flags().bits()
    }

    fn rule(&self, path: &str, is_windows: bool) -> Option<(u64, u32)> {
        let style = if is_windows { PathStyle::Windows } else { PathStyle::Posix };
        let program = Executable::new(path.as_bytes(), style);
        let rule = self.reader.policy().find(&program)?.program;
        let features = rule.features();
        let flags = [features.virtual_ip, features.loopback, features.client_ip];
        let bits = flags.iter().enumerate().map(|(index, is_set)| u32::from(*is_set) << index);
        Some((rule.id(), bits.sum()))
    }
}

impl Machine for RustApi {
    fn fixed_ports(farm: &Farm) -> Vec<PortRange> {
        farm.fixed_ports()
    }

    fn journal(
        directory: &Path,
        first_number: u64,
    ) -> Result<(Vec<JournalEntry>, u64, u64), Status> {
        let journal_tail = Journal::open(directory).map_err(status)?.since(first_number);
        let entries = journal_tail.events.into_iter().map(|event| JournalEntry {
            number: event.number,
            tick: event.time.as_secs(),
            kind: event.kind as u32,
            session: event.session,
            address: event.address,
            generation: event.generation,
            user: event.user,
            client: event.client,
            pool: event.pool.unwrap(),
        });
        Ok((entries.collect(), journal_tail.lost, journal_tail.next))
    }

    fn set_client(directory: &Path, handle: &Handle, address: IpAddr) -> Result<(), Status> {
        client_file::write(directory, handle, address, None).map_err(io_status)
    }

    fn get_client(directory: &Path, handle: &Handle) -> Option<IpAddr> {
        client_file::read(directory, handle)
    }

    fn remove_client(directory: &Path, handle: &Handle) -> Result<(), Status> {
        client_file::remove(directory, handle).map_err(io_status)
    }

    fn parse_session(text: &str) -> Result<u64, Status> {
        let session: Result<SessionId, SessionIdError> = text.parse();
        session.map(SessionId::raw).map_err(status)
    }

    fn parse_range(text: &str) -> Result<(IpAddr, IpAddr), Status> {
        let range: Result<Range, RangeError> = text.parse();
        range.map(|range| (range.first(), range.last())).map_err(status)
    }

    fn format_range(range: &Range) -> String {
        range.to_string()
    }

    fn intersection(range: &Range, other_range: &Range) -> Option<(IpAddr, IpAddr)> {
        range.intersection(other_range).map(|range| (range.first(), range.last()))
    }

    fn find_script(arguments: &[&str]) -> Option<String> {
        let script = script_argument(arguments.iter().map(|text| text.as_bytes()))?;
        Some(String::from_utf8(script.to_vec()).unwrap())
    }

    fn format_and_parse(handle: &Handle) -> Option<Handle> {
        Handle::parse(handle.to_string().as_bytes())
    }

    fn interfaces() -> Vec<Interface> {
        vipool::system::interfaces().unwrap()
    }

    fn map_directory() -> String {
        vipool::system::map_directory().to_str().unwrap().to_owned()
    }

    fn leader_from_pid(pid: u32) -> Result<Leader, Status> {
        vipool::system::identify_process(pid).map_err(io_status)
    }
}
