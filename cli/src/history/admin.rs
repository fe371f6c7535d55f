//! The actions of administrators in the history: drains, reservations, `vipool up` and
//! `vipool down`.
//!
//! `vipool down` removes the map together with its drains and reservations. So when `vipool up`
//! creates a new map, it reads the actions of this boot from the history ([`AdminState`]) and
//! applies them to the map.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use vipool::Tick;
use vipool::map::{ChangeError, Map, MapError};
use vipool::range::Range;

use super::log::HistoryLog;
use super::record::{Record, RecordKind};
use super::{history_file, read};

/// The value of [`Record::addresses`] for the whole server.
pub const WHOLE_SERVER: &str = "all";

/// An action of an administrator.
#[derive(Clone, Copy)]
pub enum AdminAction<'a> {
    /// Drains these addresses, or the whole server.
    Drain(Option<Range>),
    /// Ends the drain of these addresses, or of the whole server.
    Undrain(Option<Range>),
    /// Reserves an address for a user.
    Reserve(IpAddr, &'a str),
    /// Removes the reservation of an address.
    Unreserve(IpAddr),
    /// Runs `vipool up`.
    Up,
    /// Runs `vipool down`.
    Down,
}

impl AdminAction<'_> {
    fn kind(&self) -> RecordKind {
        match self {
            Self::Drain(_) => RecordKind::Drained,
            Self::Undrain(_) => RecordKind::Undrained,
            Self::Reserve(..) => RecordKind::Reserved,
            Self::Unreserve(_) => RecordKind::Unreserved,
            Self::Up => RecordKind::Up,
            Self::Down => RecordKind::Down,
        }
    }

    /// Returns `record` with the addresses and the user of the action.
    fn record(&self, record: Record) -> Record {
        match *self {
            Self::Drain(range) | Self::Undrain(range) => {
                let whole_server = || WHOLE_SERVER.to_owned();
                let addresses = range.map_or_else(whole_server, |range| range.to_string());
                Record { addresses: Some(addresses), ..record }
            }
            Self::Reserve(address, user) => {
                Record { address: Some(address), user: Some(user.to_owned()), ..record }
            }
            Self::Unreserve(address) => Record { address: Some(address), ..record },
            Self::Up | Self::Down => record,
        }
    }
}

/// Appends a record of each action to the history of the map in `directory`, and returns the
/// records. `boot` is the current boot.
///
/// # Errors
/// The history cannot be written.
pub fn append_actions(
    directory: &Path,
    boot: u64,
    actions: &[AdminAction<'_>],
    administrator: &str,
) -> anyhow::Result<Vec<Record>> {
    let mut log = HistoryLog::open(&history_file(directory))?;
    let boot = format_boot(boot);
    // Repeat the event number of the last record, because `collect` reads the journal from the next
    // number on.
    let number = match &log.state().last_position {
        Some(last) if last.boot == boot => last.number,
        _ => 0,
    };
    let new_record = |action: &AdminAction<'_>| Record {
        administrator: Some(administrator.to_owned()),
        ..action.record(Record::new(Timestamp::now(), action.kind(), boot.clone(), number))
    };
    let records: Vec<_> = actions.iter().map(new_record).collect();
    log.append(&records)?;
    Ok(records)
}

/// Formats the boot of a map as in [`Record::boot`].
pub fn format_boot(boot: u64) -> String {
    format!("{boot:016x}")
}

/// The drains and reservations that administrators made since the machine started.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AdminState {
    /// Whether the whole server is drained.
    pub is_server_drained: bool,
    /// The users of the reserved addresses.
    pub reservations: BTreeMap<IpAddr, String>,
    /// Drains (true) and ends of drains (false) of ranges, in the order of the records.
    range_drains: Vec<(Range, bool)>,
}

impl AdminState {
    /// Reads the state from the history of the map in `directory`. `boot` is the boot of the map.
    ///
    /// # Errors
    /// The history cannot be read.
    pub fn read(directory: &Path, boot: u64) -> anyhow::Result<Self> {
        Ok(Self::after(&read(&history_file(directory))?.0, &format_boot(boot)))
    }

    /// Returns the state after the records of a boot.
    fn after(records: &[Record], boot: &str) -> Self {
        let mut state = Self::default();
        for record in records.iter().filter(|record| record.boot == boot) {
            let is_drain = record.event == RecordKind::Drained;
            match (record.event, record.address, &record.user, record.addresses.as_deref()) {
                (RecordKind::Drained | RecordKind::Undrained, _, _, Some(WHOLE_SERVER)) => {
                    state.is_server_drained = is_drain;
                }
                (RecordKind::Drained | RecordKind::Undrained, _, _, Some(range)) => {
                    state.range_drains.extend(range.parse().ok().map(|range| (range, is_drain)));
                }
                (RecordKind::Reserved, Some(address), Some(user), _) => {
                    state.reservations.insert(address, user.clone());
                }
                (RecordKind::Unreserved, Some(address), ..) => {
                    state.reservations.remove(&address);
                }
                _ => {}
            }
        }
        state
    }

    /// Applies the drains and reservations to a new map. Skips addresses that the map does not have
    /// and addresses that the farm file reserves for another user.
    ///
    /// # Errors
    /// The map cannot be used.
    pub fn apply(&self, map: &Map) -> Result<(), MapError> {
        let now = Tick::now();
        for (range, is_drain) in &self.range_drains {
            if *is_drain { map.drain(range, now) } else { map.undrain(range, now) }?;
        }
        for (address, user) in &self.reservations {
            if let Err(ChangeError::Map(error)) = map.reserve(*address, user, now) {
                return Err(error);
            }
        }
        map.drain_server(self.is_server_drained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_action_of_this_boot_applies() {
        let directory = tempfile::tempdir().unwrap();
        let (alice_address, bob_address) =
            ("10.0.5.20".parse().unwrap(), "10.0.5.21".parse().unwrap());
        let range: Range = "10.0.5.0/28".parse().unwrap();
        for (boot, action) in [
            (1, AdminAction::Reserve(alice_address, "alice")),
            (2, AdminAction::Drain(Some(range))),
            (2, AdminAction::Drain(None)),
            (2, AdminAction::Reserve(alice_address, "eve")),
            (2, AdminAction::Unreserve(alice_address)),
            (2, AdminAction::Reserve(bob_address, "bob")),
            (2, AdminAction::Up),
            (2, AdminAction::Undrain(None)),
            (2, AdminAction::Down),
        ] {
            append_actions(directory.path(), boot, &[action], "root").unwrap();
        }
        let expected = AdminState {
            is_server_drained: false,
            reservations: [(bob_address, "bob".to_owned())].into(),
            range_drains: vec![(range, true)],
        };
        assert_eq!(AdminState::read(directory.path(), 2).unwrap(), expected);
        assert_eq!(AdminState::read(directory.path(), 3).unwrap(), AdminState::default());
    }
}
