//! The assigner: binds a pool's addresses to the network interface whose subnet matches.

mod addresses;
mod arp;
mod netlink;
mod ports;
mod state;
