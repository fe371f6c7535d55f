//! [`Reader`]: looks up sessions in a map while writers change the map.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::engine::files::{self, OpenFailure};
use super::engine::image::MapImage;
use super::engine::table::Table;
use super::format::counters::Counter;
use super::format::header::SUPERSEDED;
use super::format::slot::{DRAINED, Owner, RESERVED, RETIRED};
use super::types::error::MapError;
use super::types::leases::{Leases, MAX_LEASES};
use super::types::plan::Settings;
use super::types::status::{PoolStatus, SessionRow, SlotRow, SlotState};
use crate::policy::PolicyView;
use crate::pool::PoolKind;
use crate::raw::private_bytes::PrivateBytes;
use crate::raw::word::Word;
use crate::session::{Addresses, Handle, SessionId};

/// A read-only view of a map. It never blocks and never writes.
///
/// Threads may share a reader. A method allocates only if its documentation states this. Methods
/// that do not allocate are safe in signal handlers and after a fork.
#[derive(Debug)]
pub struct Reader {
    map: MapImage,
    /// A copy of the compiled process list. A write to the map file cannot change this copy.
    policy: PrivateBytes,
}

impl Reader {
    /// Maps the file `map` in a directory. On Unix, allocates only if it returns an error.
    ///
    /// # Errors
    /// Fails if there is no map, if it is damaged or not trusted, or if it belongs to another boot
    /// or network namespace.
    pub fn attach(directory: &Path) -> Result<Self, MapError> {
        Self::try_attach(directory).map_err(|failure| failure.at(directory.join(files::MAP_FILE)))
    }

    /// Same as [`Reader::attach`], but errors contain no path. So this function never allocates on
    /// Unix.
    pub(crate) fn try_attach(directory: &Path) -> Result<Self, OpenFailure> {
        let map = files::open_image(directory)?;
        files::check_boot(map.layout())?;
        Self::new(map).map_err(|error| OpenFailure::Io("cannot copy the process list of", error))
    }

    /// Returns a reader of this map. Fails if the system has no memory left.
    pub(crate) fn new(map: MapImage) -> io::Result<Self> {
        let (words, length) = map.layout().policy(map.words());
        let policy = PrivateBytes::copy(words.iter().map(Word::load), length)?;
        Ok(Self { map, policy })
    }

    /// Returns the leases of a session. The result is empty if the session is not open.
    #[must_use]
    pub fn lookup(&self, session: SessionId) -> Leases {
        self.map.lookup(session)
    }

    /// Returns the handle and the leases of a session if it is open.
    #[must_use]
    pub fn find(&self, session: SessionId) -> Option<(Handle, Leases)> {
        self.with_session(session, |handle, leases| (handle, *leases))
    }

    /// Calls `use_session` with the handle and the leases of a session if the session is open.
    /// Passes the leases by reference, because copying a value directly after building it stalls
    /// the processor.
    #[inline(always)]
    pub(crate) fn with_session<T>(
        &self,
        session: SessionId,
        use_session: impl FnOnce(Handle, &Leases) -> T,
    ) -> Option<T> {
        let leases = self.lookup(session);
        Some(use_session(self.map.handle(&leases)?, &leases))
    }

    /// Returns the leases of the session of a handle; `None` if the handle is stale.
    #[must_use]
    pub fn leases_of(&self, handle: &Handle) -> Option<Leases> {
        let leases = self.lookup(handle.session);
        self.is_live(handle).then_some(leases)
    }

    /// Returns whether the session of a handle still holds the lease of the handle. Costs a few
    /// loads.
    #[inline]
    #[must_use]
    pub fn is_live(&self, handle: &Handle) -> bool {
        self.map.is_live(handle)
    }

    /// Returns the hash of the boot and the network namespace of the map. Every handle contains it.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.map.layout().boot
    }

    /// Returns the addresses of these leases, including the second loopback address
    /// ([`Pool::loopback6`](crate::pool::Pool::loopback6)).
    #[must_use]
    pub fn addresses(&self, leases: &Leases) -> Addresses {
        let mut addresses = Addresses::default();
        for lease in leases.iter() {
            let Some(pool) = self.map.layout().pool(lease.pool) else { continue };
            match (lease.address, pool.is_loopback) {
                (IpAddr::V4(address), true) => {
                    addresses.loopback = Some(address);
                    addresses.loopback6 = match pool.loopback6(self.map.words(), lease.slot) {
                        Some(IpAddr::V4(loopback6)) => Some(loopback6),
                        _ => None,
                    };
                }
                (IpAddr::V4(address), false) => addresses.v4 = Some(address),
                (IpAddr::V6(address), _) => addresses.v6 = Some(address),
            }
        }
        addresses
    }

    /// Returns the kind of the pool whose ranges contain an address, whether or not the address is
    /// leased. Second loopback addresses are included.
    #[must_use]
    pub fn pool_kind(&self, address: IpAddr) -> Option<PoolKind> {
        let words = self.map.words();
        let mut pools = self.map.layout().pools().iter();
        let pool = pools.find(|pool| pool.contains(words, address))?;
        Some(if pool.is_loopback { PoolKind::Loopback } else { PoolKind::VirtualIp })
    }

    /// Returns the address of the slot to which an address belongs. For a second loopback address,
    /// this is the first address of the slot. Returns `None` if no pool contains the address.
    #[must_use]
    pub fn slot_address(&self, address: IpAddr) -> Option<IpAddr> {
        let words = self.map.words();
        self.map.layout().pools().iter().find_map(|pool| {
            let slot = match pool.slot_of(words, address) {
                Some(slot) => slot,
                None => pool.slot_of_loopback6(words, address)?,
            };
            pool.address(words, slot)
        })
    }

    /// Returns whether a newer file replaces this map, or the map was removed. The newer file may
    /// not be in place yet. The leases in a superseded map no longer change. Call
    /// [`Reader::attach`] again to read the current leases.
    #[inline]
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.superseded_mark() != 0
    }

    /// Returns 0 if the map is not superseded. Otherwise returns a mark, which changes when a newer
    /// file is in place.
    #[inline]
    pub(crate) fn superseded_mark(&self) -> u64 {
        self.map.header(SUPERSEDED)
    }

    /// Returns the compiled process list.
    #[must_use]
    pub fn policy(&self) -> PolicyView<'_> {
        PolicyView::new(self.policy.bytes())
    }

    /// Returns the settings of the map.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.map.layout().settings
    }

    /// Returns the counters of each pool. Allocates.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.map.tables().map(|(_, table)| self.pool_status(table)).collect()
    }

    fn pool_status(&self, table: Table<'_>) -> PoolStatus {
        PoolStatus {
            name: table.pool.name(self.map.words()),
            loopback: table.pool.is_loopback,
            ipv4: table.pool.is_ipv4,
            slots: table.pool.slot_count,
            free: table.count(Counter::Free),
            leased: table.count(Counter::Leased),
            cooling: table.count(Counter::Cooling),
            lingering: table.count(Counter::Lingering),
            reserved: table.count(Counter::Reserved),
            drained: table.count(Counter::Drained),
            peak: table.count(Counter::PeakLeased),
        }
    }

    /// Returns the state of every address of the pool with this number. The result is empty if the
    /// pool does not exist. Allocates.
    #[must_use]
    pub fn slots(&self, pool: u16) -> Vec<SlotRow> {
        let Some(table) = self.map.table(pool) else { return Vec::new() };
        let row = |slot| {
            let address = table.pool.address(self.map.words(), slot)?;
            let state = match table.owner(slot) {
                Owner::Session(_) => SlotState::Leased,
                Owner::Free(_) => SlotState::Free,
                Owner::Cooling(_) => SlotState::Cooling,
                Owner::Lingering(_) => SlotState::Lingering,
            };
            let meta = table.meta(slot);
            Some(SlotRow {
                address,
                state,
                reserved: meta.has_any(RESERVED),
                drained: meta.has_any(DRAINED | RETIRED),
            })
        };
        (0..table.pool.slot_count).filter_map(row).collect()
    }

    /// Returns whether the server drains. While it drains, no new session gets an address.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.map.is_draining()
    }

    /// Returns the open sessions, without their users, clients and leaders. Allocates.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRow> {
        self.map.sessions().collect()
    }
}

const _: () = assert!(MAX_LEASES <= 8, "leases are passed by value");
