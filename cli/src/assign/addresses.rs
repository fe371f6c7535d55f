//! Bringing a pool's addresses onto the interfaces, and taking them away again.
//!
//! Both begin with what an earlier run may have left half done. What a session uses is not taken
//! away, and what somebody else has, on this host or on the link, is not given out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::arp;
use super::netlink::{Bound, Link, Netlink};
use super::state::{Added, State};

/// How long IPv6 duplicate address detection may take (it begins within a second and waits one).
const DAD_LIMIT: Duration = Duration::from_secs(15);

/// What [`bring_up`] reached.
#[derive(Debug, Default)]
pub struct Assigned {
    /// On their interface and usable.
    pub usable: BTreeSet<Bound>,
    /// Not to be given out, and why.
    pub conflicts: BTreeMap<IpAddr, String>,
    /// How many were added by this run.
    pub added: usize,
}

/// Puts `wanted` onto the interfaces. With `probe`, neighbours are asked first. The host's own
/// source towards each of `destinations` must be the same afterwards.
///
/// # Errors
/// The kernel refuses, or the host's own source would change; then nothing new is left behind.
pub fn bring_up(
    state: &mut State,
    wanted: &BTreeSet<Bound>,
    probe: bool,
    destinations: &[IpAddr],
) -> anyhow::Result<Assigned> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let links: BTreeMap<u32, Link> =
        netlink.links()?.into_iter().map(|link| (link.index, link)).collect();
    let mut result = Assigned::default();
    let (mut have, elsewhere) = ours(&mut netlink, state, wanted)?;
    let by_address: BTreeMap<IpAddr, u32> =
        wanted.iter().map(|bound| (bound.address, bound.interface)).collect();
    // Its subnet is on another interface now.
    let moved: Vec<Bound> =
        elsewhere.iter().filter(|b| by_address.contains_key(&b.address)).copied().collect();
    delete(&mut netlink, &moved)?;

    let name = |index: u32| links.get(&index).map_or("an interface", |link| &link.name);
    for (bound, _) in netlink.addresses()? {
        if by_address.contains_key(&bound.address) && !have.contains(&bound) {
            let why = format!("this host has it already, on {}", name(bound.interface));
            result.conflicts.insert(bound.address, why);
        }
    }
    if probe {
        for (address, holder) in probe_all(wanted, &links)? {
            let holder = holder.map(|byte| format!("{byte:02x}")).join(":");
            result.conflicts.insert(address.into(), format!("{holder} has it on the network"));
        }
    }
    let fresh: Vec<Bound> = wanted
        .iter()
        .filter(|b| !have.contains(b) && !result.conflicts.contains_key(&b.address))
        .copied()
        .collect();

    let sources = sources(destinations);
    let before = state.added.clone();
    let intended = before.addresses.iter().chain(&have).chain(&fresh).copied().collect();
    state.write(Added { addresses: intended, ..before.clone() })?;
    let bar = bar(fresh.len() as u64, "adding");
    let answers = netlink.add(&fresh, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let mut news = Vec::new();
    for (bound, answer) in fresh.iter().zip(answers) {
        match answer {
            Ok(()) => news.push(*bound),
            Err(error) => {
                let why = format!("it cannot be added to {}: {error}", name(bound.interface));
                result.conflicts.insert(bound.address, why);
            }
        }
    }
    let checked = wait_usable(&mut netlink, &news).and_then(|duplicates| {
        delete(&mut netlink, &duplicates)?;
        same_sources(&sources)?;
        Ok(duplicates)
    });
    let duplicates = match checked {
        Ok(duplicates) => duplicates,
        Err(error) => {
            delete(&mut netlink, &news)?;
            state.write(before)?;
            return Err(error.context("what was added is taken away again"));
        }
    };
    for bound in &duplicates {
        let why = format!("duplicate address detection failed on {}", name(bound.interface));
        result.conflicts.insert(bound.address, why);
    }
    news.retain(|bound| !duplicates.contains(bound));
    result.added = news.len();
    announce(&news, &links);
    have.extend(&news);
    result.usable =
        have.into_iter().filter(|b| !result.conflicts.contains_key(&b.address)).collect();
    Ok(result)
}

/// Takes away what [`bring_up`] added, in whichever run, but for what is to `stay`. Returns how many
/// went and what stays.
///
/// # Errors
/// The kernel refuses.
pub fn take_down(
    state: &mut State,
    stay: impl Fn(&Bound) -> bool,
) -> anyhow::Result<(usize, BTreeSet<Bound>)> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let (_, ours) = ours(&mut netlink, state, &BTreeSet::new())?;
    let (stay, go): (BTreeSet<Bound>, BTreeSet<Bound>) = ours.into_iter().partition(stay);
    delete(&mut netlink, &Vec::from_iter(go.iter().copied()))?;
    state.write(Added { addresses: stay.clone(), ..state.added.clone() })?;
    Ok((go.len(), stay))
}

/// What is on the interfaces and was put there by an assigner: what is wanted (by the state file
/// or, when that was lost, by its mark), and what is not (by the state file alone: the mark could
/// be that of another map).
fn ours(
    netlink: &mut Netlink,
    state: &State,
    wanted: &BTreeSet<Bound>,
) -> io::Result<(BTreeSet<Bound>, BTreeSet<Bound>)> {
    let present = netlink.addresses()?;
    let named = |bound: &Bound| state.added.addresses.contains(bound);
    let ours = present.iter().filter(|(bound, it)| {
        it.pool_like && (named(bound) || wanted.contains(bound) && it.marked)
    });
    Ok(ours.map(|(bound, _)| *bound).partition(|bound| wanted.contains(bound)))
}

fn delete(netlink: &mut Netlink, addresses: &[Bound]) -> anyhow::Result<()> {
    let bar = bar(addresses.len() as u64, "removing");
    let answers = netlink.delete(addresses, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    for (bound, answer) in addresses.iter().zip(answers) {
        match answer {
            Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => {
                return Err(error).context(format!("cannot take {} away", bound.address));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Asks on every interface at once who has the IPv4 addresses.
fn probe_all(
    wanted: &BTreeSet<Bound>,
    links: &BTreeMap<u32, Link>,
) -> anyhow::Result<BTreeMap<Ipv4Addr, arp::Hardware>> {
    let mut by_link: BTreeMap<u32, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for bound in wanted {
        if let IpAddr::V4(address) = bound.address {
            by_link.entry(bound.interface).or_default().insert(address);
        }
    }
    by_link.retain(|index, _| links.get(index).is_some_and(|link| link.up && link.arp.is_some()));
    let host: BTreeSet<arp::Hardware> = links.values().filter_map(|link| link.arp).collect();
    let count: usize = by_link.values().map(BTreeSet::len).sum();
    let bar = bar(1000, &format!("asking the network for {count} addresses"));
    let taken = thread::scope(|scope| {
        let threads: Vec<_> = by_link
            .iter()
            .map(|(index, addresses)| {
                let (link, bar, host) = (&links[index], &bar, &host);
                let own = link.arp.expect("kept above");
                scope.spawn(move || {
                    arp::probe(*index, own, host, addresses, |part| {
                        bar.set_position((part * 1000.0) as u64)
                    })
                    .with_context(|| format!("cannot send ARP on {}", link.name))
                })
            })
            .collect();
        let mut taken = BTreeMap::new();
        for thread in threads {
            taken.extend(thread.join().expect("probing does not panic")?);
        }
        anyhow::Ok(taken)
    });
    bar.finish_and_clear();
    taken
}

/// Tells the neighbours twice (RFC 5227, section 2.3). Nothing hangs on it: an old entry of theirs
/// goes away by itself.
fn announce(addresses: &[Bound], links: &BTreeMap<u32, Link>) {
    for round in 0..2 {
        if round > 0 && addresses.iter().any(|bound| bound.address.is_ipv4()) {
            thread::sleep(Duration::from_secs(2));
        }
        for (index, link) in links {
            let Some(own) = link.arp.filter(|_| link.up) else { continue };
            let here = addresses.iter().filter(|bound| bound.interface == *index);
            let _ = arp::announce(
                *index,
                own,
                here.filter_map(|bound| match bound.address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                }),
            );
        }
    }
}

/// Waits until every address can be bound; returns those that IPv6 found to be somebody else's.
fn wait_usable(netlink: &mut Netlink, addresses: &[Bound]) -> anyhow::Result<Vec<Bound>> {
    let limit = Instant::now() + DAD_LIMIT;
    loop {
        let present = netlink.addresses()?;
        let state = |bound: &&Bound| present.get(bound);
        let waiting =
            addresses.iter().find(|b| state(b).is_some_and(|it| it.tentative && !it.duplicate));
        match waiting {
            Some(bound) if Instant::now() >= limit => bail!(
                "{} is still not usable: is there a carrier on its interface? ('ip link')",
                bound.address
            ),
            Some(_) => thread::sleep(Duration::from_millis(100)),
            None => {
                let duplicates: Vec<Bound> = addresses
                    .iter()
                    .filter(|bound| state(bound).is_none_or(|it| it.duplicate))
                    .copied()
                    .collect();
                for bound in addresses.iter().filter(|bound| !duplicates.contains(bound)) {
                    UdpSocket::bind((bound.address, 0)).with_context(|| {
                        format!("{} was added but cannot be used", bound.address)
                    })?;
                }
                return Ok(duplicates);
            }
        }
    }
}

/// The source that the host uses by itself towards a destination. Nothing is sent: connecting a
/// UDP socket only looks up the route.
pub fn source_towards(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((destination, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn sources(destinations: &[IpAddr]) -> Vec<(IpAddr, Option<IpAddr>)> {
    destinations.iter().map(|to| (*to, source_towards(*to))).collect()
}

/// # Errors
/// The host's own source towards a destination is another one now.
fn same_sources(before: &[(IpAddr, Option<IpAddr>)]) -> anyhow::Result<()> {
    let text = |source: Option<IpAddr>| source.map_or("none".to_owned(), |ip| ip.to_string());
    for (to, was) in before {
        let is = source_towards(*to);
        if is != *was {
            let (was, is) = (text(*was), text(is));
            bail!(
                "with the pool's addresses the host's own source towards {to} would change from \
                 {was} to {is}"
            );
        }
    }
    Ok(())
}

/// A bar on a terminal; on anything else nothing is drawn.
fn bar(length: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}%");
    ProgressBar::new(length)
        .with_style(style.expect("a constant template"))
        .with_message(what.to_owned())
}

#[cfg(test)]
mod tests;
