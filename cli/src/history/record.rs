//! The records of the history, and the state after a sequence of records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// The address was leased to the session.
    Assigned,
    /// The session released the address.
    Released,
    /// No address was available for the session.
    Exhausted,
    /// The pool of the address fell below its low-water mark.
    LowWater,
    /// `lost` events before this time are missing.
    Gap,
    /// An administrator drained `addresses`.
    Drained,
    /// An administrator ended the drain of `addresses`.
    Undrained,
    /// An administrator reserved the address for the user.
    Reserved,
    /// An administrator removed the reservation of the address.
    Unreserved,
    /// An administrator ran `vipool up`.
    Up,
    /// An administrator ran `vipool down`.
    Down,
}

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The time of the event.
    pub time: Timestamp,
    /// The kind of the event.
    pub event: RecordKind,
    /// The session id, as the command line prints it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<String>,
    /// The address of the lease or the reservation, or an address of the pool that fell below its
    /// low-water mark.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    /// The user of the session or the reservation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// The address of the user's client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<IpAddr>,
    /// True if the journal did not contain the event, so that the record was reconstructed from
    /// later events, the map or a restart.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub reconciled: bool,
    /// The number of lost events, for a gap.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<u64>,
    /// For a drain or its end: a range, or `all` for the whole server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub addresses: Option<String>,
    /// For an action of an administrator: the user who logged on, even if the command ran under
    /// sudo(8). For a command without a logon, the user of its process.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub administrator: Option<String>,
    /// The boot in hexadecimal: a hash of the boot id and the network namespace.
    pub boot: String,
    /// Number of the last journal event of this boot that this record or an earlier record covers.
    pub number: u64,
}

impl Record {
    /// Creates a record without the optional fields.
    pub fn new(time: Timestamp, event: RecordKind, boot: String, number: u64) -> Self {
        Self {
            time,
            event,
            session: None,
            address: None,
            user: None,
            client: None,
            reconciled: false,
            lost: None,
            addresses: None,
            administrator: None,
            boot,
            number,
        }
    }
}

/// A position in the journal of a map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The boot in hexadecimal.
    pub boot: String,
    /// The number of the last event before this position.
    pub number: u64,
}

/// The state after a sequence of records. A lease is open if no record shows its end.
#[derive(Clone, Debug, Default)]
pub struct HistoryState {
    /// For each address with an open lease, the record of the kind `Assigned`.
    open_leases: BTreeMap<IpAddr, Record>,
    /// The addresses of the open leases of each session.
    addresses_by_session: HashMap<String, BTreeSet<IpAddr>>,
    /// For each session, the last time at which no address was available.
    pub last_exhausted: BTreeMap<String, Timestamp>,
    /// The boot and the event number of the last record.
    pub last_position: Option<Position>,
    /// The time of the first record.
    pub first_time: Option<Timestamp>,
}

impl HistoryState {
    /// Applies a record to the state.
    pub fn apply(&mut self, record: &Record) {
        match (record.event, record.address, &record.session) {
            (RecordKind::Assigned, Some(address), session) => {
                self.end_lease(address);
                self.open_leases.insert(address, record.clone());
                if let Some(session) = session {
                    self.addresses_by_session.entry(session.clone()).or_default().insert(address);
                }
            }
            (RecordKind::Released, Some(address), _) => self.end_lease(address),
            (RecordKind::Exhausted, _, Some(session)) => {
                self.last_exhausted.insert(session.clone(), record.time);
            }
            _ => {}
        }
        self.last_position = Some(Position { boot: record.boot.clone(), number: record.number });
        self.first_time.get_or_insert(record.time);
    }

    fn end_lease(&mut self, address: IpAddr) {
        let lease = self.open_leases.remove(&address);
        let Some(session) = lease.and_then(|record| record.session) else { return };
        if let Some(addresses) = self.addresses_by_session.get_mut(&session) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.addresses_by_session.remove(&session);
            }
        }
    }

    /// Returns the `Assigned` records of the open leases, in the order of their addresses.
    pub fn open_leases(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.open_leases.values()
    }

    /// Returns the `Assigned` record of the open lease of an address.
    pub fn open_lease(&self, address: IpAddr) -> Option<&Record> {
        self.open_leases.get(&address)
    }

    /// Returns the `Assigned` records of the open leases of a session. Does not examine the leases
    /// of other sessions.
    pub fn leases_of(&self, session: &str) -> impl Iterator<Item = &Record> {
        let addresses = self.addresses_by_session.get(session).into_iter().flatten();
        addresses.filter_map(|address| self.open_leases.get(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_index_contains_exactly_the_open_leases() {
        let mut state = HistoryState::default();
        for number in 0..1000u64 {
            // Sessions and addresses repeat with different periods. So some addresses pass from one
            // session to another without a release record.
            let (session, address) = (number * number % 7, number * number % 11);
            let event = if number % 3 == 0 { RecordKind::Released } else { RecordKind::Assigned };
            state.apply(&Record {
                session: Some(session.to_string()),
                address: Some(IpAddr::from([10, 0, 0, address as u8])),
                ..Record::new(Timestamp::UNIX_EPOCH, event, String::new(), number)
            });
            for session in 0..7 {
                let session = session.to_string();
                let is_holder = |record: &&Record| record.session.as_ref() == Some(&session);
                assert!(state.leases_of(&session).eq(state.open_leases().filter(is_holder)));
            }
        }
        assert!(state.open_leases().len() > 0);
    }
}
