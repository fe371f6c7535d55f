//! The assigner: adds pool addresses to the network interface whose subnet contains them, and
//! removes them.
//!
//! `vipool up` adds the addresses, then creates the map, then removes addresses that no longer
//! belong to a pool. `vipool down` first drains or removes the map, and then removes addresses. So
//! a session can lease an address only while the address is on its interface. Either command can
//! be killed at any moment. The next run completes or reverts the work of the killed run
//! ([`state`]).

mod addresses;
mod arp;
mod netlink;
pub mod plan;
mod port_set;
pub mod reserved_ports;
mod source_addresses;
pub mod state;
mod steps;

pub use addresses::{
    add_addresses, format_address_count, preview_addition, preview_removal, remove_addresses,
};
pub use netlink::InterfaceAddress;
pub use port_set::PortSet;
pub use steps::{Step, StepTimer};
