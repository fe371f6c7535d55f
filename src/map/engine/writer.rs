//! The right to change a map, and the basic changes that the other modules use.

use std::ops::Deref;

use super::image::MapImage;
use super::table_writer::TableWriter;
use crate::Tick;
use crate::map::format::header::LAST_STAMP;
use crate::map::format::journal::{self, EventCore, EventLease};
use crate::map::format::layout::Layout;
use crate::map::format::region::WritableRegion;
use crate::map::format::slot::next_stamp;
use crate::map::format::words::store;
use crate::map::types::event::EventKind;
use crate::map::types::leases::PackedLease;
use crate::map::types::plan::OpenOptions;
use crate::os::trusted_file::FileIdentity;
use crate::raw::word::{OwnsWords, Word, WriteAccess};
use crate::session::SessionId;

/// A map that can be changed.
///
/// A change needs an exclusive borrow of this value, so two threads cannot change the map through
/// this value at the same time. The writer lock of the map excludes other processes.
#[derive(Debug)]
pub(crate) struct WritableMap {
    /// The regions of the image are writable, because they come from [`WritableRegion`]s.
    image: MapImage,
    /// Empty if the map has no journal. A map in memory never has a journal.
    journal: WritableRegion,
    /// The identity of the map file; `None` for a map in memory.
    identity: Option<FileIdentity>,
}

impl OwnsWords for WritableMap {}

impl Deref for WritableMap {
    type Target = MapImage;

    #[inline(always)]
    fn deref(&self) -> &MapImage {
        &self.image
    }
}

impl WritableMap {
    /// Returns a map with these regions. `sessions` and `journal` are empty if the files do not
    /// exist.
    pub(crate) fn new(
        map: WritableRegion,
        sessions: WritableRegion,
        journal: WritableRegion,
        layout: Layout,
    ) -> Self {
        let image = MapImage::new(map.into_region(), sessions.into_region(), layout);
        Self { image, journal, identity: None }
    }

    /// Returns a map in memory with copies of the bytes of a map file and of a sessions file.
    /// Ignores the sessions file if it belongs to another map.
    pub(crate) fn from_bytes(map: &[u8], sessions: &[u8]) -> Result<Self, &'static str> {
        let map = WritableRegion::from_bytes(map);
        let layout = Layout::read(map.words())?;
        let sessions = Some(WritableRegion::from_bytes(sessions))
            .filter(|sessions| layout.is_sessions_file(sessions.words()))
            .unwrap_or_default();
        Ok(Self::new(map, sessions, WritableRegion::default(), layout))
    }

    /// Adds a journal.
    pub(crate) fn set_journal(&mut self, journal: WritableRegion) {
        self.journal = journal;
    }

    /// Sets the identity of the map file.
    pub(crate) fn set_identity(&mut self, identity: FileIdentity) {
        self.identity = Some(identity);
    }

    /// Returns the identity of the map file; `None` for a map in memory.
    pub(crate) fn identity(&self) -> Option<FileIdentity> {
        self.identity
    }

    /// Returns the words of the journal.
    #[inline(always)]
    pub(crate) fn journal(&self) -> &[Word] {
        self.journal.words()
    }

    /// Returns the right to change the map.
    #[inline(always)]
    pub(crate) fn writer(&mut self) -> MapWriter<'_> {
        let (map, access) = WriteAccess::split(self);
        MapWriter { map, access }
    }
}

/// The right to change a map.
#[derive(Clone, Copy)]
pub(crate) struct MapWriter<'a> {
    map: &'a WritableMap,
    access: WriteAccess<'a>,
}

impl Deref for MapWriter<'_> {
    type Target = WritableMap;

    #[inline(always)]
    fn deref(&self) -> &WritableMap {
        self.map
    }
}

impl<'a> MapWriter<'a> {
    /// Returns the map without the right to change it. The result can outlive this `MapWriter`.
    #[inline(always)]
    pub(crate) fn map(&self) -> &'a WritableMap {
        self.map
    }

    /// Returns the right to store to the words of the map.
    #[inline(always)]
    pub(crate) fn access(&self) -> WriteAccess<'a> {
        self.access
    }

    /// Writes a header word.
    #[inline(always)]
    pub(crate) fn store_header(&self, offset: usize, value: u64) {
        store(self.access, self.words(), offset, value);
    }

    /// Returns the table of the pool with this number, and the right to change the table.
    #[inline(always)]
    pub(crate) fn table_writer(&self, pool: u16) -> Option<TableWriter<'a>> {
        Some(TableWriter::new(self.map.table(pool)?, self.access))
    }

    /// Returns the number and the table of each pool, and the right to change the tables.
    pub(crate) fn table_writers(
        &self,
    ) -> impl DoubleEndedIterator<Item = (u16, TableWriter<'a>)> + use<'a> {
        let access = self.access;
        self.map.tables().map(move |(number, table)| (number, TableWriter::new(table, access)))
    }

    /// Returns a stamp that is higher than all earlier stamps.
    #[inline(always)]
    pub(crate) fn new_stamp(&self, now: Tick) -> u64 {
        let stamp = next_stamp(self.header(LAST_STAMP), now);
        self.store_header(LAST_STAMP, stamp);
        stamp
    }

    /// Appends an event to the journal, if the map has a journal.
    #[inline(always)]
    pub(crate) fn record_event(
        &self,
        kind: EventKind,
        session: SessionId,
        pool: u16,
        lease: Option<&PackedLease>,
        options: &OpenOptions<'_>,
        now: Tick,
    ) {
        if self.journal().is_empty() {
            return;
        }
        let lease = lease.map(|lease| EventLease {
            generation: lease.generation,
            address_bits: lease.address_bits,
            is_ipv4: lease.is_ipv4 != 0,
        });
        let event = EventCore { kind, session, time: now, pool, lease };
        journal::append(self.access, self.journal(), event, options);
    }
}
