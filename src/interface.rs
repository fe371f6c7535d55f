//! Network interfaces as plain values, and which of them a range belongs to.
//!
//! A range belongs to the interface whose subnet holds all of it; of nested subnets the one with
//! the longest prefix. What can't be given out on that subnet is cut away: its network and
//! broadcast address and the host's own addresses.
//!
//! Addresses that vipool itself has put on an interface are not the host's own: who asks the
//! system for its interfaces leaves them out.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::range::{Range, subtract};

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

/// What one interface carries of the ranges that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The kernel's number for the interface.
    pub index: u32,
    /// The interface's name.
    pub interface: String,
    /// The subnet that the ranges belong to.
    pub subnet: IpNet,
    /// The usable addresses, in order. May be empty.
    pub ranges: Vec<Range>,
}

/// Why a range belongs to no interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatchError {
    /// No interface has an address in a subnet that the range touches.
    #[error("no interface has an address in the subnet of {0}")]
    NoInterface(Range),
    /// Several interfaces are in the same subnet.
    #[error("{range} belongs to {subnet}, which several interfaces are in: {}", .interfaces.join(", "))]
    Tie {
        /// The range.
        range: Range,
        /// The subnet.
        subnet: IpNet,
        /// The names of the interfaces.
        interfaces: Vec<String>,
    },
    /// A part of the range is in a subnet of its own.
    #[error("{range} is not inside one subnet: only a part of it is in {subnet} of {interface}")]
    Spans {
        /// The range.
        range: Range,
        /// The subnet that holds a part of it.
        subnet: IpNet,
        /// The interface that is in that subnet.
        interface: String,
    },
}

/// The interface that a range belongs to, and the subnet.
///
/// ```
/// use vipool::interface::{Interface, interface_of};
///
/// let eth0 = Interface {
///     index: 2,
///     name: "eth0".into(),
///     addresses: vec!["10.0.5.1/24".parse()?],
/// };
/// let (found, subnet) = interface_of(&"10.0.5.10-10.0.5.99".parse()?, std::slice::from_ref(&eth0))?;
/// assert_eq!((&*found.name, subnet.to_string()), ("eth0", "10.0.5.0/24".into()));
/// assert!(interface_of(&"10.0.6.10-10.0.6.99".parse()?, &[eth0]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When no subnet holds the whole range, when a longer prefix holds a part of it, and when several
/// interfaces are in the same subnet.
pub fn interface_of<'i>(
    range: &Range,
    interfaces: &'i [Interface],
) -> Result<(&'i Interface, IpNet), MatchError> {
    let touched: Vec<_> = interfaces
        .iter()
        .flat_map(|interface| interface.addresses.iter().map(move |net| (interface, net.trunc())))
        .filter(|(_, subnet)| Range::from(*subnet).intersection(range).is_some())
        .collect();
    let holds = |subnet: &IpNet| Range::from(*subnet).intersection(range) == Some(*range);
    // A prefix of full length is an address without a subnet: it can't divide a range.
    let part = touched
        .iter()
        .filter(|(_, subnet)| !holds(subnet) && subnet.prefix_len() < subnet.max_prefix_len())
        .max_by_key(|(_, subnet)| subnet.prefix_len());
    let whole = touched
        .iter()
        .filter(|(_, subnet)| holds(subnet))
        .max_by_key(|(_, subnet)| subnet.prefix_len());
    match (whole, part) {
        (None, None) => Err(MatchError::NoInterface(*range)),
        (Some((_, whole)), Some((interface, part))) if part.prefix_len() > whole.prefix_len() => {
            Err(spans(*range, *part, interface))
        }
        (None, Some((interface, part))) => Err(spans(*range, *part, interface)),
        (Some((found, subnet)), _) => {
            let mut names: Vec<_> = touched
                .iter()
                .filter(|(_, other)| other == subnet)
                .map(|(interface, _)| interface.name.clone())
                .collect();
            names.dedup();
            if names.len() > 1 {
                return Err(MatchError::Tie { range: *range, subnet: *subnet, interfaces: names });
            }
            Ok((found, *subnet))
        }
    }
}

fn spans(range: Range, subnet: IpNet, interface: &Interface) -> MatchError {
    MatchError::Spans { range, subnet, interface: interface.name.clone() }
}

/// The addresses of a subnet that no session can have: the network and the broadcast address of
/// IPv4, the subnet-router anycast address of IPv6 (RFC 4291, 2.6.1). Point-to-point subnets (/31
/// of RFC 3021, /127 of RFC 6164) and single addresses have none.
pub fn unusable(subnet: IpNet) -> impl Iterator<Item = IpAddr> {
    let has_hosts = subnet.prefix_len() + 2 <= subnet.max_prefix_len();
    let (network, broadcast) = match subnet {
        IpNet::V4(_) => (Some(subnet.network()), Some(subnet.broadcast())),
        IpNet::V6(_) => (Some(subnet.network()), None),
    };
    [network, broadcast].into_iter().flatten().filter(move |_| has_hosts)
}

/// What is usable of some ranges, per interface and subnet in the order of the ranges, and what
/// belongs to no interface. Touches no address one by one: an IPv6 /64 costs what a /32 costs.
pub fn assign(
    ranges: &[Range],
    exclude: &[Range],
    interfaces: &[Interface],
) -> (Vec<Assignment>, Vec<MatchError>) {
    let own = interfaces.iter().flat_map(|interface| &interface.addresses).map(IpNet::addr);
    let mut holes: Vec<Range> = own.map(Range::from).collect();
    holes.extend(exclude);
    let mut assignments: Vec<Assignment> = Vec::new();
    let mut errors = Vec::new();
    for range in ranges {
        let (interface, subnet) = match interface_of(range, interfaces) {
            Ok(found) => found,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let unusable: Vec<Range> = unusable(subnet).map(Range::from).collect();
        let usable = subtract(&subtract(&[*range], &holes), &unusable);
        match assignments.iter_mut().find(|a| a.index == interface.index && a.subnet == subnet) {
            Some(assignment) => assignment.ranges.extend(usable),
            None => assignments.push(Assignment {
                index: interface.index,
                interface: interface.name.clone(),
                subnet,
                ranges: usable,
            }),
        }
    }
    for assignment in &mut assignments {
        assignment.ranges.sort_unstable();
    }
    (assignments, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(table: &[(&str, &[&str])]) -> Vec<Interface> {
        let interface = |(place, (name, addresses)): (usize, &(&str, &[&str]))| Interface {
            index: place as u32 + 1,
            name: (*name).into(),
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        };
        table.iter().enumerate().map(interface).collect()
    }

    fn ranges(texts: &[&str]) -> Vec<Range> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn which_interface() {
        let office = interfaces(&[
            ("lo", &["127.0.0.1/8", "::1/128"]),
            ("eth0", &["10.0.5.1/16", "10.0.5.2/16", "2001:db8::1/64"]),
            ("eth1", &["10.0.9.1/24", "10.0.5.77/32"]),
            ("eth2", &["192.168.1.1/24"]),
            ("eth3", &["192.168.1.2/24"]),
            ("ppp0", &["172.16.0.1/31"]),
        ]);
        let table = [
            ("10.0.5.10-10.0.5.99", Ok("eth0")),
            ("10.0.9.10-10.0.9.20", Ok("eth1")),
            ("10.0.8.250-10.0.9.3", Err("only a part of it is in 10.0.9.0/24 of eth1")),
            ("10.0.9.255-10.0.10.3", Err("only a part of it is in 10.0.9.0/24 of eth1")),
            ("10.0.255.0-10.1.0.9", Err("only a part of it is in 10.0.0.0/16 of eth0")),
            ("10.0.0.0/16", Err("only a part of it is in 10.0.9.0/24 of eth1")),
            ("10.2.0.0/16", Err("no interface has an address in the subnet of")),
            ("192.168.1.10", Err("several interfaces are in: eth2, eth3")),
            ("172.16.0.0/31", Ok("ppp0")),
            ("10.0.5.77", Ok("eth1")),
            ("2001:db8::/64", Ok("eth0")),
            ("2001:db8::-2001:db8:0:1::", Err("only a part of it is in 2001:db8::/64 of eth0")),
            ("2001:db8:1::/64", Err("no interface")),
        ];
        for (range, expected) in table {
            match (interface_of(&range.parse().unwrap(), &office), expected) {
                (Ok((found, _)), Ok(name)) => assert_eq!(found.name, name, "{range}"),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (found, _) => panic!("{range}: {found:?}"),
            }
        }
        assert_eq!(
            interface_of(&"10.0.0.1".parse().unwrap(), &[]),
            Err(MatchError::NoInterface("10.0.0.1".parse().unwrap()))
        );
    }

    #[test]
    fn what_is_cut_away() {
        type Row = (
            &'static str,
            &'static [&'static str],
            &'static [&'static str],
            &'static [&'static str],
        );
        let table: [Row; 9] = [
            ("10.0.5.1/24", &["10.0.5.0/24"], &[], &["10.0.5.2-10.0.5.254"]),
            ("10.0.5.1/16", &["10.0.5.0/24"], &[], &["10.0.5.0", "10.0.5.2-10.0.5.255"]),
            (
                "10.0.5.20/24",
                &["10.0.5.10-10.0.5.29"],
                &["10.0.5.12-10.0.5.13"],
                &["10.0.5.10-10.0.5.11", "10.0.5.14-10.0.5.19", "10.0.5.21-10.0.5.29"],
            ),
            ("10.0.5.0/31", &["10.0.5.0/31"], &[], &["10.0.5.1"]),
            ("10.0.5.9/30", &["10.0.5.8/30"], &[], &["10.0.5.10"]),
            ("10.0.5.9/32", &["10.0.5.9"], &[], &[]),
            ("10.0.5.1/24", &["10.0.5.9"], &["10.0.5.0/24"], &[]),
            (
                "2001:db8::1/64",
                &["2001:db8::/64"],
                &[],
                &["2001:db8::2-2001:db8::ffff:ffff:ffff:ffff"],
            ),
            ("2001:db8::1/127", &["2001:db8::/127"], &[], &["2001:db8::"]),
        ];
        for (own, asked, exclude, usable) in table {
            let (assignments, errors) =
                assign(&ranges(asked), &ranges(exclude), &interfaces(&[("eth0", &[own])]));
            assert_eq!(errors, []);
            assert_eq!(assignments[0].ranges, ranges(usable), "{own} {asked:?}");
        }
    }

    #[test]
    fn ranges_of_several_subnets() {
        let office =
            interfaces(&[("eth0", &["10.0.5.1/24", "10.0.6.1/24"]), ("eth1", &["10.0.7.1/24"])]);
        let asked = ranges(&["10.0.7.9", "10.0.6.9", "10.0.5.9", "10.0.5.7", "10.0.9.9"]);
        let (assignments, errors) = assign(&asked, &[], &office);
        let found: Vec<_> = assignments
            .iter()
            .map(|a| (&*a.interface, a.subnet.to_string(), a.ranges.clone()))
            .collect();
        assert_eq!(
            found,
            [
                ("eth1", "10.0.7.0/24".to_owned(), ranges(&["10.0.7.9"])),
                ("eth0", "10.0.6.0/24".to_owned(), ranges(&["10.0.6.9"])),
                ("eth0", "10.0.5.0/24".to_owned(), ranges(&["10.0.5.7", "10.0.5.9"])),
            ]
        );
        assert_eq!(errors, [MatchError::NoInterface("10.0.9.9".parse().unwrap())]);
    }
}
