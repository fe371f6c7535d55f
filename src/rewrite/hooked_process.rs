//! A program that is rewritten, as a hook layer in it holds it: its session, its rule, and one map
//! after another.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::connect::is_outside;
use super::{KernelListeners, LiveSystem, RewriteRules, Rewriter, SystemView, sockaddr};
use crate::client_file;
use crate::map::{Reader, VersionChain};
use crate::policy::ProgramView;
use crate::raw::set_once::SetOnce;
use crate::session::{Addresses, Handle, SessionId};

/// A program that is rewritten, under one map. Nothing here locks or allocates; threads may share
/// it.
#[derive(Debug)]
pub struct HookedProcess {
    system: LiveSystem<'static>,
    rules: RewriteRules,
    /// Whether the program is still on the process list, and within reach of it.
    listed: AtomicBool,
    known: Known,
    /// Its lease, once it has all that the program's features need.
    lease: SetOnce<(Handle, Addresses)>,
}

/// What is known of a session when a guest is made: it stays so, whatever becomes of the session.
#[derive(Clone, Copy, Debug)]
struct Known {
    session: SessionId,
    /// Its lease, as far as there is one. A later lease of a session of the same id is another's.
    handle: Option<Handle>,
    /// Those that it has, or had under older maps.
    addresses: Addresses,
    client: Option<IpAddr>,
}

impl HookedProcess {
    /// A program of a session, under a rule of the map in `directory`.
    pub fn new(system: LiveSystem<'static>, session: SessionId, directory: &Path) -> Self {
        let handle = system.reader.find(session).map(|(handle, _)| handle);
        let older = Known { session, handle, addresses: Addresses::default(), client: None };
        Self::build(system, true, older, directory)
    }

    fn build(system: LiveSystem<'static>, listed: bool, older: Known, directory: &Path) -> Self {
        let rules = RewriteRules::new(&system.program, &system.policy);
        let leases = older.handle.and_then(|handle| system.reader.leases_of(&handle));
        let held = leases.map_or(Addresses::default(), |leases| system.reader.addresses(&leases));
        let client = older.handle.filter(|_| rules.features.client_ip);
        let client =
            client.and_then(|handle| client_file::read(directory, &handle)).or(older.client);
        let known = Known { addresses: held.or(older.addresses), client, ..older };
        let listed = AtomicBool::new(listed);
        let guest = Self { system, rules, listed, known, lease: SetOnce::new() };
        if let Some(handle) = known.handle {
            guest.store_lease(handle, known.addresses);
        }
        guest
    }

    /// What is known by now.
    fn known(&self) -> Known {
        match self.lease.get() {
            Some((handle, addresses)) => {
                Known { handle: Some(*handle), addresses: *addresses, ..self.known }
            }
            None => self.known,
        }
    }

    /// To decide with: whether the lease is held is looked up, and addresses that were missing.
    #[inline]
    pub fn rewriter(&self) -> Rewriter<'_, LiveSystem<'static>> {
        if let Some((handle, addresses)) = self.lease.get() {
            return self.rewriter_with(self.system.reader.is_live(handle), *addresses);
        }
        let reader = self.system.reader;
        let is_closed = self.known.handle.is_some_and(|handle| !reader.is_live(&handle));
        let found = reader.find(self.known.session).filter(|_| !is_closed);
        let Some((handle, leases)) = found else {
            return self.rewriter_with(false, self.known.addresses);
        };
        let addresses = reader.addresses(&leases).or(self.known.addresses);
        self.store_lease(handle, addresses);
        self.rewriter_with(true, addresses)
    }

    /// To show names with: no matter whether the lease is held.
    #[inline]
    pub fn display_rewriter(&self) -> Rewriter<'_, LiveSystem<'static>> {
        match self.lease.get() {
            Some((_, addresses)) => self.rewriter_with(true, *addresses),
            None => self.rewriter(),
        }
    }

    /// How a name with this address is shown in nearly all cases, to be told at once: `None` where
    /// [`Rewriter::visible_address`] must be asked. `alone` where the other end is no reason to show it
    /// otherwise.
    #[inline]
    pub fn fast_visible_ipv4(&self, ip: Ipv4Addr, alone: bool) -> Option<Ipv4Addr> {
        let (_, Addresses { v4, loopback, loopback6, .. }) = self.lease.get()?;
        if *loopback == Some(ip) {
            return self.rules.features.loopback.then_some(Ipv4Addr::LOCALHOST);
        }
        let may_be_of_a_pair = *v4 == Some(ip) || ip == Ipv4Addr::LOCALHOST;
        (*loopback6 != Some(ip) && (alone || !may_be_of_a_pair)).then_some(ip)
    }

    /// Whether an unbound socket that goes there is bound first and a bound one goes as it is, as can
    /// be told at once: `false` says nothing.
    #[inline]
    pub fn is_known_outside(&self, to: IpAddr) -> bool {
        let Some((_, Addresses { v4, v6, .. })) = self.lease.get() else { return false };
        let has_source = match sockaddr::as_ipv4(to) {
            Some(_) => v4.is_some(),
            None => v6.is_some(),
        };
        let plain = sockaddr::as_ipv4(to).map_or(to, IpAddr::V4);
        has_source
            && self.rules.features.virtual_ip
            && is_outside(to)
            && !self.system.is_host_address(plain)
    }

    /// Whether another map has taken the place of this one's: see [`VersionChain::hooked_process`].
    #[inline]
    pub fn is_superseded(&self) -> bool {
        self.system.reader.is_superseded()
    }

    /// The address of the session's client, as far as this user may know it.
    pub fn client(&self) -> Option<IpAddr> {
        self.known.client
    }

    /// The rule that the program is under.
    pub fn program(&self) -> &ProgramView<'static> {
        &self.system.program
    }

    #[inline]
    fn rewriter_with(
        &self,
        lease_held: bool,
        addresses: Addresses,
    ) -> Rewriter<'_, LiveSystem<'static>> {
        let lease_held = lease_held && self.listed.load(Ordering::Relaxed);
        Rewriter { addresses, rules: self.rules, lease_held, system: &self.system }
    }

    /// Notes the lease, if it is all that the program needs.
    fn store_lease(&self, handle: Handle, addresses: Addresses) {
        let features = self.rules.features;
        let complete = (!features.virtual_ip || addresses.v4.is_some() || addresses.v6.is_some())
            && (!features.loopback || addresses.loopback.is_some());
        if complete {
            self.lease.set((handle, addresses));
        }
    }
}

impl VersionChain<HookedProcess> {
    /// The program as it is under the newest map; `None` for one that is not rewritten. `rule`
    /// finds its rule there: without one it goes on under the older rule as one that is no longer
    /// listed, so that its names stay as they were. So it does once there is no room for another
    /// map: what is said of leases in one that is over is not true for long.
    #[inline]
    pub fn hooked_process(
        &'static self,
        maps: &'static VersionChain<Reader>,
        directory: &Path,
        rule: impl FnOnce(&'static Reader) -> Option<ProgramView<'static>>,
    ) -> Option<&'static HookedProcess> {
        let last = self.newest()?;
        let newer = |reader: &'static Reader, old: &HookedProcess| {
            if std::ptr::eq(reader, old.system.reader) {
                return None;
            }
            let (policy, rule) = (reader.policy(), rule(reader));
            let system = match rule {
                Some(program) => LiveSystem { reader, policy, program, listeners: KernelListeners },
                None => LiveSystem { reader, ..old.system },
            };
            let mut known = old.known();
            known.handle = known.handle.or_else(|| Some(reader.find(known.session)?.0));
            Some(HookedProcess::build(system, rule.is_some(), known, directory))
        };
        let map = maps.map(directory);
        let guest = map.and_then(|reader| {
            self.current(HookedProcess::is_superseded, |old| newer(reader, old?))
        });
        guest.or_else(|| {
            last.listed.store(false, Ordering::Relaxed);
            Some(last)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tick;
    use crate::map::{Map, OpenOptions, Plan};
    use crate::policy::{Features, Policy, Program};
    use crate::pool::{Pool, PoolKind};

    #[test]
    fn maps_are_followed_while_there_is_room_and_then_calls_pass() {
        static MAPS: VersionChain<Reader> = VersionChain::new();
        static PROCESSES: VersionChain<HookedProcess> = VersionChain::new();
        let features = Features { virtual_ip: true, ..Features::default() };
        let program = Program { pattern: "nc".into(), features, ..Program::default() };
        let range = "10.0.0.1-10.0.0.4".parse().unwrap();
        let mut plan = Plan {
            pools: vec![Pool::new("default", PoolKind::VirtualIp, &[range], u32::MAX).unwrap()],
            policy: Policy { programs: vec![program], ..Policy::default() },
            ..Plan::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let map = Map::create(directory, &plan).unwrap();
        let session = "7".parse().unwrap();
        map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
        let rule = |reader: &'static Reader| reader.policy().programs().next();
        let reader = MAPS.map(directory).unwrap();
        let (policy, program) = (reader.policy(), rule(reader).unwrap());
        let system = LiveSystem { reader, policy, program, listeners: KernelListeners };
        PROCESSES.current(|_| true, |_| Some(HookedProcess::new(system, session, directory)));
        for round in 1..128 {
            // Another plan each time: the map stays for the same.
            plan.settings.low_water = round;
            Map::create(directory, &plan).unwrap();
            let guest = PROCESSES.hooked_process(&MAPS, directory, rule).unwrap();
            assert!(!guest.is_superseded() && guest.rewriter().lease_held);
        }
        plan.settings.low_water = 0;
        Map::create(directory, &plan).unwrap();
        let guest = PROCESSES.hooked_process(&MAPS, directory, rule).unwrap();
        assert!(!guest.rewriter().lease_held);
        // What it has bound is shown as before.
        assert_eq!(guest.display_rewriter().addresses.v4, "10.0.0.1".parse().ok());
    }
}
