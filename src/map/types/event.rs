//! The events of a map. The journal is the file that records the latest events.

use std::net::IpAddr;

use crate::Tick;
use crate::session::SessionId;

/// The kind of an event. The journal file stores these numbers, so a number must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum EventKind {
    /// A session got an address.
    Assigned = 1,
    /// A session released an address.
    Released = 2,
    /// A session got no address from a pool, because the pool had no available address.
    Exhausted = 3,
    /// An assignment brought the number of free and cooling addresses of a pool below the low-water
    /// mark.
    LowWater = 4,
}

/// An event of a map, as the journal records it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The number of the event. The first event of a boot has the number 1.
    pub number: u64,
    /// The time of the event.
    pub time: Tick,
    /// The kind of the event.
    pub kind: EventKind,
    /// The session.
    pub session: SessionId,
    /// The number of the pool. `None` if an earlier version of vipool recorded the event.
    pub pool: Option<u16>,
    /// The address. Set for all kinds except `Exhausted`.
    pub address: Option<IpAddr>,
    /// The generation of the lease. 0 for the kind `Exhausted`.
    pub generation: u32,
    /// The user, if known. Not set for the kind `Released`.
    pub user: Option<String>,
    /// The client of the user, if known. Not set for the kind `Released`.
    pub client: Option<IpAddr>,
}

/// The result of `Journal::since`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecentEvents {
    /// The events, in order.
    pub events: Vec<Event>,
    /// The number of requested events that writers had overwritten before the call could read them.
    pub lost: u64,
    /// The number to pass to the next call of `Journal::since`.
    pub next: u64,
}
