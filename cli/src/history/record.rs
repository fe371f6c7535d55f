//! The records of the history, and the state after a sequence of records.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The time of the event.
    pub time: Timestamp,
    /// The kind of the event.
    pub event: RecordKind,
    /// The session id, as the command line prints it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<String>,
    /// The address of the lease, or an address of the pool that is low.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    /// The user of the session.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// The address of the user's client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<IpAddr>,
    /// True if the journal did not contain the event, and a comparison of the history with the map
    /// found it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub reconciled: bool,
    /// The number of lost events, for a gap.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<u64>,
    /// The boot id of the map in hexadecimal: a hash of the boot and the network namespace.
    pub boot: String,
    /// Number of the last journal event of that boot that the history contains.
    pub number: u64,
}

/// The state after a sequence of records.
#[derive(Clone, Debug, Default)]
pub struct HistoryState {
    /// The open leases. Each address has the record that opened its lease.
    pub open_leases: BTreeMap<IpAddr, Record>,
    /// The last time at which each session got no address.
    pub last_exhausted: BTreeMap<String, Timestamp>,
    /// Boot id and event number of the last record.
    pub last_position: Option<(String, u64)>,
    /// The time of the first record.
    pub first_time: Option<Timestamp>,
}

impl HistoryState {
    /// Applies a record to the state.
    pub fn apply(&mut self, record: &Record) {
        match (record.event, record.address, &record.session) {
            (RecordKind::Assigned, Some(address), _) => {
                self.open_leases.insert(address, record.clone());
            }
            (RecordKind::Released, Some(address), _) => {
                self.open_leases.remove(&address);
            }
            (RecordKind::Exhausted, _, Some(session)) => {
                self.last_exhausted.insert(session.clone(), record.time);
            }
            _ => {}
        }
        self.last_position = Some((record.boot.clone(), record.number));
        self.first_time.get_or_insert(record.time);
    }
}
