//! Looking things up in a map, beside whatever its writers are doing.

use std::net::IpAddr;
use std::path::Path;

use super::engine::files;
use super::engine::state::State;
use super::engine::table::Table;
use super::format::counters::Counter;
use super::format::layout::{DRAINING, Layout, SUPERSEDED};
use super::format::region::{Region, load};
use super::format::slot::{DRAINED, Owner, RESERVED, RETIRED};
use super::types::outcome::{Leases, MapError, PoolStatus, SessionRow, SlotRow, SlotState};
use super::types::plan::Settings;
use super::{MAP_FILE, MAX_LEASES};
use crate::policy::PolicyView;
use crate::pool::PoolKind;
use crate::session::{Addresses, Handle, SessionId};

/// A read-only view of a map: never blocks, never writes. Threads may share it; look-ups allocate
/// nothing and are safe in signal handlers and after fork, unless they say otherwise.
#[derive(Debug)]
pub struct Reader {
    state: State,
}

impl Reader {
    /// Maps the file `map` in this directory read-only. Allocates only for an error.
    pub fn attach(directory: &Path) -> Result<Self, MapError> {
        let (region, layout) = files::open(directory, MAP_FILE, false)?;
        files::check_identity(directory, &layout)?;
        Ok(Self::new(region, layout))
    }

    pub(crate) fn new(region: Region, layout: Layout) -> Self {
        Self { state: State::of_reader(region, layout) }
    }

    /// The leases of a session; none if it is not open.
    pub fn lookup(&self, session: SessionId) -> Leases {
        self.state.lookup(session)
    }

    /// The handle and leases of a session, if it is open.
    pub fn find(&self, session: SessionId) -> Option<(Handle, Leases)> {
        self.with_session(session, |handle, leases| (handle, *leases))
    }

    /// What `then` makes of the handle and the leases of a session, if it is open. Leases that were
    /// just put together are waited for when they are moved.
    #[inline(always)]
    pub(crate) fn with_session<T>(
        &self,
        session: SessionId,
        then: impl FnOnce(Handle, &Leases) -> T,
    ) -> Option<T> {
        let leases = self.lookup(session);
        Some(then(self.state.handle(&leases)?, &leases))
    }

    /// The leases of the session of this handle, if the handle is still good.
    pub fn leases_of(&self, handle: &Handle) -> Option<Leases> {
        let leases = self.lookup(handle.session);
        self.is_live(handle).then_some(leases)
    }

    /// Whether the lease of this handle is still held. Costs a few loads.
    #[inline]
    pub fn is_live(&self, handle: &Handle) -> bool {
        handle.boot == self.state.layout.boot && self.state.is_live(handle)
    }

    /// The boot and network namespace of the map, hashed; part of every handle.
    pub fn boot(&self) -> u64 {
        self.state.layout.boot
    }

    /// The addresses behind leases, the twin of the loopback address included.
    pub fn addresses(&self, leases: &Leases) -> Addresses {
        let mut addresses = Addresses::default();
        for lease in leases.iter() {
            let Some(pool) = self.state.layout.pool(lease.pool) else { continue };
            match (lease.address, pool.loopback) {
                (IpAddr::V4(own), true) => {
                    addresses.loopback = Some(own);
                    addresses.loopback6 = match pool.twin(self.state.words(), lease.slot) {
                        Some(IpAddr::V4(twin)) => Some(twin),
                        _ => None,
                    };
                }
                (IpAddr::V4(own), false) => addresses.v4 = Some(own),
                (IpAddr::V6(own), _) => addresses.v6 = Some(own),
            }
        }
        addresses
    }

    /// Whether an address is in one of the pools' ranges, and of which kind: the V or L (or twin)
    /// of some session, or to be.
    pub fn pool_kind(&self, address: IpAddr) -> Option<PoolKind> {
        let words = self.state.words();
        let pool = self.state.layout.pools().iter().find(|pool| pool.contains(words, address))?;
        Some(if pool.loopback { PoolKind::Loopback } else { PoolKind::VirtualIp })
    }

    /// Whether a newer file has taken the place of this one: attach again. The leases in this one
    /// are as they were then.
    #[inline]
    pub fn is_superseded(&self) -> bool {
        load(self.state.words(), SUPERSEDED) != 0
    }

    /// The compiled process list.
    pub fn policy(&self) -> PolicyView<'_> {
        let (at, length) = (self.state.layout.policy_at, self.state.layout.policy_bytes);
        let words = self.state.words().get(at..at + length.div_ceil(8)).unwrap_or_default();
        #[cfg(not(loom))]
        let bytes = crate::raw::mapping::bytes_of(words).get(..length).unwrap_or_default();
        // The model checker's words are no bytes.
        #[cfg(loom)]
        let bytes = if words.is_empty() { &[][..] } else { &[] };
        PolicyView::new(bytes)
    }

    /// How addresses are given out.
    pub fn settings(&self) -> Settings {
        self.state.layout.settings
    }

    /// The numbers of each pool. Allocates.
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.state.tables().map(|(_, table)| self.pool_status(table)).collect()
    }

    fn pool_status(&self, table: Table<'_>) -> PoolStatus {
        let name = table.pool.name_text(self.state.words());
        PoolStatus {
            name,
            loopback: table.pool.loopback,
            ipv4: table.pool.ipv4,
            slots: table.pool.slots,
            free: table.count(Counter::Free),
            used: table.count(Counter::Used),
            cooling: table.count(Counter::Cooling),
            lingering: table.count(Counter::Lingering),
            reserved: table.count(Counter::Reserved),
            drained: table.count(Counter::Drained),
            peak: table.count(Counter::Peak),
        }
    }

    /// Every address of a pool, given by its number, as it is now. Allocates; none if there is no
    /// such pool.
    pub fn slots(&self, pool: u16) -> Vec<SlotRow> {
        let Some(table) = self.state.table(pool) else { return Vec::new() };
        let row = |slot| {
            let address = table.pool.address(self.state.words(), slot)?;
            let state = match table.owner(slot) {
                Owner::Session(_) => SlotState::Used,
                Owner::Free(_) => SlotState::Free,
                Owner::Cooling(_) => SlotState::Cooling,
                Owner::Lingering(_) => SlotState::Lingering,
            };
            let tenancy = table.tenancy(slot);
            let (reserved, drained) = (tenancy.has(RESERVED), tenancy.has(DRAINED | RETIRED));
            Some(SlotRow { address, state, reserved, drained })
        };
        (0..table.pool.slots).filter_map(row).collect()
    }

    /// Whether the whole server drains: no new session gets an address.
    pub fn is_draining(&self) -> bool {
        load(self.state.words(), DRAINING) != 0
    }

    /// The open sessions, without what the private file knows of them. Allocates.
    pub fn sessions(&self) -> Vec<SessionRow> {
        self.state.rows().collect()
    }
}

const _: () = assert!(MAX_LEASES <= 8, "leases are passed by value");
