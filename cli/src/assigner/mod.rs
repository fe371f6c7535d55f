//! The assigner: adds pool addresses to the network interface whose subnet contains them, and
//! removes them.
//!
//! `vipool up` adds the addresses, then creates the map, then removes addresses that no longer
//! belong to a pool. So an address is in the map only while it is on its interface. `vipool down`
//! works in the reverse order. Either command can be killed at any moment. The next run completes
//! or reverts the work of the killed run ([`state`]).

mod addresses;
mod arp;
mod netlink;
pub mod plan;
mod port_set;
pub mod reserved_ports;
pub mod state;

pub use addresses::{add_addresses, remove_addresses};
pub use netlink::InterfaceAddress;
pub use port_set::PortSet;
