//! The assigner: binds a pool's addresses to the network interface whose subnet matches.
//!
//! `up` adds the addresses, then makes the map, then takes away what no longer belongs: so an
//! address is in the map only while it is on its interface. `down` goes the other way. Either can
//! be killed at any moment; the next run finishes or undoes it (see `state`).

mod addresses;
mod arp;
mod netlink;
mod ports;
mod state;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use ipnet::IpNet;
use vipool::farm::{Farm, ServerPlan};
use vipool::interface::Interface;
use vipool::map::{MAP_FILE, Map, MapError, Plan, SESSIONS_FILE};
use vipool::os::clock;
use vipool::pool::{Pool, PoolKind};
use vipool::range::{Range, subtract};

use crate::place::{last_users, save_users, sweep_clients};
use addresses::{Assigned, bring_up, take_down};
use netlink::{Bound, Netlink};
use ports::Ports;
use state::{Added, State};

/// Put this server's addresses onto its interfaces and make the map
///
/// Each range of this server is matched to the interface whose subnet it is in, the network is
/// asked whether somebody else has the addresses (ARP, IPv6 duplicate address detection; about
/// eight seconds, however many there are), and they are added so that they never become the host's
/// own source. Then the map is made, from which logons are served. Run it again after a change of
/// farm.toml: open sessions keep their addresses.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool up
  vipool up --farm ./farm.toml --server ts1 --no-probe")]
pub struct Up {
    /// The farm file
    #[arg(long, value_name = "FILE", default_value = "/etc/vipool/farm.toml")]
    farm: PathBuf,
    /// This server's name in the farm file [default: the host name]
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The directory to make the map in
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/vipool")]
    map: PathBuf,
    /// Do not ask the network by ARP who has the addresses
    #[arg(long)]
    no_probe: bool,
}

/// Take away what `vipool up` added
///
/// What open sessions use stays, and so does the map; it gives out no more addresses. Run it again
/// when they are closed, or with --force.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool down")]
pub struct Down {
    /// The directory of the map
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/vipool")]
    map: PathBuf,
    /// Close open sessions and take their addresses away too
    #[arg(long)]
    force: bool,
}

impl Up {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (farm, mut report) = Farm::load(&self.farm);
        let server = match self.server {
            Some(server) => server,
            None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        };
        let interfaces = interfaces().context("cannot list the interfaces")?;
        let mut planned = farm.plan(&server, Some(&interfaces));
        planned.plan.policy.resolve_links(|path| fs::canonicalize(path));
        report.extend(planned.findings.iter().cloned());
        if !report.is_empty() {
            eprint!("{report}");
        }
        if report.has_errors() {
            bail!("nothing is changed: {} has errors", self.farm.display());
        }

        let mut state = State::open(&self.map)?;
        let wanted = wanted(&planned)?;
        let destinations = destinations(&planned, &interfaces);
        let assigned = bring_up(&mut state, &wanted, !self.no_probe, &destinations)?;
        let there = Map::open(&self.map).is_ok();
        let map = Map::create(&self.map, &without(planned.plan, &assigned))?;
        // A map that was there knows better than the file.
        if !there && let Err(error) = map.recall_users(&last_users(&self.map), clock::now()) {
            eprintln!("vipool: users may get other addresses than before: {error}");
        }
        sweep_clients(&map, &self.map);
        if state.added.draining {
            map.drain_server(false)?;
            state.write(Added { draining: false, ..state.added.clone() })?;
        }
        let in_use = in_use(&map)?.unwrap_or_default();
        let stays =
            |bound: &Bound| assigned.usable.contains(bound) || in_use.contains(&bound.address);
        let (removed, _) = take_down(&mut state, stays)?;
        let fixed = farm.fixed_ports();
        let fixed = Ports(fixed.iter().flat_map(|range| range.first..=range.last).collect());
        reserve(&mut state, &fixed)?;

        for (address, why) in &assigned.conflicts {
            crate::events::conflict(*address, &why.to_string());
            eprintln!("{address} is not given out: {why}");
        }
        println!(
            "{} addresses are usable ({} added, {removed} taken away, {} not usable)",
            assigned.usable.len(),
            assigned.added,
            assigned.conflicts.len()
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl Down {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if !self.map.exists() {
            println!("nothing is up: there is no {}", self.map.display());
            return Ok(ExitCode::SUCCESS);
        }
        let mut state = State::open(&self.map)?;
        let mut open = false;
        let in_use = match Map::open(&self.map) {
            Ok(map) => {
                // Before the look at who is in: nobody comes in after it.
                state.write(Added { draining: true, ..state.added.clone() })?;
                map.drain_server(true)?;
                if self.force {
                    for row in map.sessions()? {
                        // One that was closed meanwhile is as good.
                        let _ = map.close_session(row.session, clock::now());
                    }
                }
                save_users(&map, &self.map);
                sweep_clients(&map, &self.map);
                match in_use(&map)? {
                    None => {
                        retire(&self.map)?;
                        BTreeSet::new()
                    }
                    Some(addresses) => {
                        open = true;
                        addresses
                    }
                }
            }
            Err(MapError::Missing(_) | MapError::OtherBoot(_)) => BTreeSet::new(),
            Err(error) if self.force => {
                eprintln!("{error}: its sessions are not asked for");
                BTreeSet::new()
            }
            Err(error) => return Err(error).context("who is in cannot be told (--force goes on)"),
        };
        let (gone, stay) = take_down(&mut state, |bound| in_use.contains(&bound.address))?;
        println!("{gone} addresses are taken away");
        if open {
            println!(
                "sessions are open and keep {}: run 'vipool down' again later, or with --force",
                stay.len()
            );
        } else {
            reserve(&mut state, &Ports::default())?;
            state.write(Added::default())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The interfaces as the kernel has them, without what an assigner put there: those addresses are
/// not the host's own.
pub fn interfaces() -> anyhow::Result<Vec<Interface>> {
    let mut netlink = Netlink::open()?;
    let addresses = netlink.addresses()?;
    let of = |index: u32| {
        addresses
            .iter()
            .filter(move |(bound, it)| bound.interface == index && !it.pool_like)
            .filter_map(|(bound, it)| IpNet::new(bound.address, it.prefix).ok())
            .collect()
    };
    let links = netlink.links()?.into_iter();
    Ok(links
        .map(|it| Interface { index: it.index, addresses: of(it.index), name: it.name })
        .collect())
}

/// Every address of the pools, with the interface of its subnet.
fn wanted(planned: &ServerPlan) -> anyhow::Result<BTreeSet<Bound>> {
    let interface = |address: IpAddr| {
        let mut assignments = planned.assignments.iter();
        let of = assignments.find(|it| it.ranges.iter().any(|range| range.contains(address)));
        of.map(|assignment| Bound { interface: assignment.index, address })
    };
    let pools = planned.plan.pools.iter().filter(|pool| pool.kind() == PoolKind::VirtualIp);
    pools
        .flat_map(|pool| (0..pool.slots()).filter_map(|slot| pool.address(slot)))
        .map(|address| interface(address).with_context(|| format!("{address} has no interface")))
        .collect()
}

/// The plan without what cannot be given out.
fn without(mut plan: Plan, assigned: &Assigned) -> Plan {
    let holes: Vec<Range> =
        assigned.conflicts.keys().map(|address| Range::from(*address)).collect();
    for pool in plan.pools.iter_mut().filter(|pool| pool.kind() == PoolKind::VirtualIp) {
        // The slots of a sparse pool end long before its range.
        let last = |first: u32, range: &Range, next: u32| {
            let last = range.nth(u128::from(next - first) - 1).expect("a slot");
            Range::new(range.first(), last).expect("in order")
        };
        let nexts = pool.blocks().iter().skip(1).map(|(first, _)| *first).chain([pool.slots()]);
        let ranges: Vec<Range> = pool
            .blocks()
            .iter()
            .zip(nexts)
            .map(|((f, range), next)| last(*f, range, next))
            .collect();
        *pool = Pool::new(pool.name(), pool.kind(), &subtract(&ranges, &holes), u32::MAX)
            .expect("parts of a pool's ranges make a pool");
    }
    plan.reservations.retain(|it| !assigned.conflicts.contains_key(&it.address));
    plan
}

/// Where the host's own source is looked at before and after: a neighbour on each subnet, and the
/// far world (addresses for documentation, RFC 5737 and RFC 3849).
fn destinations(planned: &ServerPlan, interfaces: &[Interface]) -> Vec<IpAddr> {
    let own = |address: &IpAddr| {
        interfaces.iter().flat_map(|i| &i.addresses).any(|n| n.addr() == *address)
    };
    let given =
        |address: &IpAddr| planned.plan.pools.iter().any(|pool| pool.slot_of(*address).is_some());
    let neighbours = planned.assignments.iter().filter_map(|assignment| {
        let subnet = Range::from(assignment.subnet);
        let mut hosts = (1..=subnet.span().min(1 << 16)).filter_map(|offset| subnet.nth(offset));
        hosts.find(|address| !own(address) && !given(address))
    });
    let far = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().expect("an address"));
    neighbours.chain(far).collect()
}

/// The addresses that open sessions have; `None` when there are no sessions.
fn in_use(map: &Map) -> anyhow::Result<Option<BTreeSet<IpAddr>>> {
    let rows = map.sessions()?;
    let addresses = rows.iter().flat_map(|row| row.leases.iter()).map(|lease| lease.address);
    Ok((!rows.is_empty()).then(|| addresses.collect()))
}

/// Reserves these ports for listed programs and gives back those that are not reserved for them
/// any more.
fn reserve(state: &mut State, fixed: &Ports) -> anyhow::Result<()> {
    let others = ports::reserved()?.without(&state.added.ports);
    let added = fixed.without(&others);
    // Written ahead, as ever: what is named and not there is no harm.
    let both = added.with(&state.added.ports);
    state.write(Added { ports: both, ..state.added.clone() })?;
    ports::reserve(&others.with(&added))?;
    state.write(Added { ports: added, ..state.added.clone() })
}

/// Ends a map without sessions: its readers are told, then the files go.
fn retire(directory: &Path) -> anyhow::Result<()> {
    Map::create(directory, &Plan::default())?;
    for file in [MAP_FILE, SESSIONS_FILE] {
        let file = directory.join(file);
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}
