//! Network interfaces as plain values, and which of them a range belongs to.

use ipnet::IpNet;

/// A network interface with its addresses and prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its addresses, each with the prefix length of its subnet.
    pub addresses: Vec<IpNet>,
}
