//! The process in which a hook layer runs: its session, its rule, and one version of this state for
//! each map that the process has used.
//!
//! When a new map supersedes the current map, the next call adds a version for the new map. This
//! version keeps the addresses that the process already knows. Versions are never freed, because
//! another thread can be using them. On Linux, the functions neither lock nor use the heap, so
//! signal handlers may call them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::connect::is_external;
use super::{KernelListeners, LiveSystem, RewriteRules, Rewriter, SystemView, sockaddr};
use crate::client_file;
use crate::map::{Reader, VersionChain};
use crate::policy::ProgramView;
use crate::raw::set_once::SetOnce;
use crate::session::{Addresses, Handle, SessionId};

/// The state of a hooked process under one map: one version in a [`VersionChain`]. Threads may
/// share a version.
#[derive(Debug)]
pub struct HookedProcess {
    system: LiveSystem<'static>,
    rules: RewriteRules,
    /// False if the map of this version has no rule for the program.
    is_listed: bool,
    initial_state: SessionState,
    /// The lease, once it has every address that the program's features need.
    complete_lease: SetOnce<(Handle, Addresses)>,
}

/// The state of a session when a version is created. Later changes of the session do not change
/// this value.
#[derive(Clone, Copy, Debug)]
struct SessionState {
    session: SessionId,
    /// The handle, if the session has a lease. After this lease is released, a lease with the same
    /// session id belongs to another session.
    handle: Option<Handle>,
    /// The addresses of the lease, and the addresses that the lease had under older maps.
    addresses: Addresses,
    client_address: Option<IpAddr>,
}

impl HookedProcess {
    /// Creates the first version. `system` contains the rule of the program and the reader of the
    /// map in `directory`.
    #[must_use]
    pub fn new(system: LiveSystem<'static>, session: SessionId, directory: &Path) -> Self {
        let handle = system.reader.find(session).map(|(handle, _)| handle);
        let previous =
            SessionState { session, handle, addresses: Addresses::default(), client_address: None };
        Self::build(system, true, previous, directory)
    }

    fn build(
        system: LiveSystem<'static>,
        is_listed: bool,
        previous: SessionState,
        directory: &Path,
    ) -> Self {
        let rules = RewriteRules::new(&system.program, &system.policy);
        let leases = previous.handle.and_then(|handle| system.reader.leases_of(&handle));
        let leased_addresses =
            leases.map_or(Addresses::default(), |leases| system.reader.addresses(&leases));
        let client_address = previous
            .handle
            .filter(|_| rules.features.client_ip)
            .and_then(|handle| client_file::read(directory, &handle))
            .or(previous.client_address);
        let initial_state = SessionState {
            addresses: leased_addresses.or(previous.addresses),
            client_address,
            ..previous
        };
        let process =
            Self { system, rules, is_listed, initial_state, complete_lease: SetOnce::new() };
        if let Some(handle) = initial_state.handle {
            process.store_complete_lease(handle, initial_state.addresses);
        }
        process
    }

    fn session_state(&self) -> SessionState {
        match self.complete_lease.get() {
            Some((handle, addresses)) => {
                SessionState { handle: Some(*handle), addresses: *addresses, ..self.initial_state }
            }
            None => self.initial_state,
        }
    }

    /// Returns the rewriter that decides how a call is made. Checks whether the session still holds
    /// the lease, and looks up addresses that are still missing.
    ///
    /// For an address that a call such as getsockname returns, use [`Self::display_rewriter`].
    #[inline]
    pub fn rewriter(&self) -> Rewriter<'_, LiveSystem<'static>> {
        if let Some((handle, addresses)) = self.complete_lease.get() {
            return self.rewriter_with(self.system.reader.is_live(handle), *addresses);
        }
        let reader = self.system.reader;
        let is_closed = self.initial_state.handle.is_some_and(|handle| !reader.is_live(&handle));
        let live_lease = reader.find(self.initial_state.session).filter(|_| !is_closed);
        let Some((handle, leases)) = live_lease else {
            return self.rewriter_with(false, self.initial_state.addresses);
        };
        let addresses = reader.addresses(&leases).or(self.initial_state.addresses);
        self.store_complete_lease(handle, addresses);
        self.rewriter_with(true, addresses)
    }

    /// Returns the rewriter for addresses that calls such as getsockname return to the program.
    ///
    /// If the lease has every address that the program needs, the result does not depend on whether
    /// the session still holds the lease.
    #[inline]
    pub fn display_rewriter(&self) -> Rewriter<'_, LiveSystem<'static>> {
        match self.complete_lease.get() {
            Some((_, addresses)) => self.rewriter_with(true, *addresses),
            None => self.rewriter(),
        }
    }

    /// Returns the address that the program sees for `ip`, if the lease alone determines it.
    ///
    /// Otherwise returns `None`, and the caller must use [`Rewriter::visible_address`].
    /// `ignores_other_end` states that the other end of the socket does not change the result.
    #[inline]
    pub fn fast_visible_ipv4(&self, ip: Ipv4Addr, ignores_other_end: bool) -> Option<Ipv4Addr> {
        let (_, Addresses { v4, loopback, loopback6, .. }) = self.complete_lease.get()?;
        if *loopback == Some(ip) {
            return self.rules.features.loopback.then_some(Ipv4Addr::LOCALHOST);
        }
        let may_depend_on_other_end = *v4 == Some(ip) || ip == Ipv4Addr::LOCALHOST;
        (*loopback6 != Some(ip) && (ignores_other_end || !may_depend_on_other_end)).then_some(ip)
    }

    /// Returns whether this destination is certainly external.
    ///
    /// A call with an external destination keeps this destination, but the hook layer first binds
    /// an unbound socket to the session's virtual IP. If the result is false, only the rewriter can
    /// decide whether the destination changes.
    #[inline]
    pub fn is_known_external(&self, destination: IpAddr) -> bool {
        let Some((_, Addresses { v4, v6, .. })) = self.complete_lease.get() else { return false };
        let destination_v4 = sockaddr::as_ipv4(destination);
        let has_source = match destination_v4 {
            Some(_) => v4.is_some(),
            None => v6.is_some(),
        };
        has_source
            && self.rules.features.virtual_ip
            && is_external(destination)
            && !self.system.is_host_address(destination_v4.map_or(destination, IpAddr::V4))
    }

    /// Returns whether a newer map replaces the map of this version. The caller can get the version
    /// for the newer map from [`VersionChain::hooked_process`].
    #[inline]
    pub fn is_superseded(&self) -> bool {
        self.system.reader.is_superseded()
    }

    #[inline]
    fn superseded_mark(&self) -> u64 {
        self.system.reader.superseded_mark()
    }

    /// Returns the address of the session's client. Returns `None` if the program does not use
    /// `client-ip`, or if the process cannot read the session's client file.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.initial_state.client_address
    }

    /// Returns the rule that matches the program.
    pub fn program(&self) -> &ProgramView<'static> {
        &self.system.program
    }

    #[inline]
    fn rewriter_with(
        &self,
        lease_held: bool,
        addresses: Addresses,
    ) -> Rewriter<'_, LiveSystem<'static>> {
        let lease_held = lease_held && self.is_listed;
        Rewriter { addresses, rules: self.rules, lease_held, system: &self.system }
    }

    /// Stores the lease if the lease has every address that the program needs.
    fn store_complete_lease(&self, handle: Handle, addresses: Addresses) {
        let features = self.rules.features;
        let is_complete =
            (!features.virtual_ip || addresses.v4.is_some() || addresses.v6.is_some())
                && (!features.loopback || addresses.loopback.is_some());
        if is_complete {
            self.complete_lease.set((handle, addresses));
        }
    }
}

impl VersionChain<HookedProcess> {
    /// Returns the process under the newest map, or `None` if the chain has no version.
    ///
    /// `find_rule` finds the rule in the newest map. If that map has no rule, the process keeps its
    /// older rule but counts as unlisted: its calls pass, and the program sees its addresses as
    /// before. If the newest map cannot be used, the process stays under the older map, and a later
    /// call tries again ([`VersionChain::follow`]).
    #[inline]
    pub fn hooked_process(
        &self,
        maps: &VersionChain<Reader>,
        directory: &Path,
        find_rule: impl FnOnce(&'static Reader) -> Option<ProgramView<'static>>,
    ) -> Option<&'static HookedProcess> {
        let newest = self.newest()?;
        let Some(reader) =
            maps.map(directory).filter(|reader| !std::ptr::eq(*reader, newest.system.reader))
        else {
            return Some(newest);
        };
        let next_version = |previous: &'static HookedProcess| {
            // Another thread may already have appended a version for a newer map.
            if !std::ptr::eq(previous, newest) {
                return None;
            }
            let (policy, rule) = (reader.policy(), find_rule(reader));
            let system = match rule {
                Some(program) => LiveSystem { reader, policy, program, listeners: KernelListeners },
                None => LiveSystem { reader, ..previous.system },
            };
            let mut state = previous.session_state();
            state.handle = state.handle.or_else(|| Some(reader.find(state.session)?.0));
            Some(HookedProcess::build(system, rule.is_some(), state, directory))
        };
        self.follow(HookedProcess::superseded_mark, next_version)
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
    fn process_follows_each_new_map_and_survives_its_removal() {
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
        let find_rule = |reader: &'static Reader| reader.policy().programs().next();
        let reader = MAPS.map(directory).unwrap();
        let (policy, program) = (reader.policy(), find_rule(reader).unwrap());
        let system = LiveSystem { reader, policy, program, listeners: KernelListeners };
        PROCESSES.get_or_init(|| Some(HookedProcess::new(system, session, directory)));
        for round in 1..300 {
            // Change the plan: an unchanged plan would keep the map.
            plan.settings.low_water = round;
            Map::create(directory, &plan).unwrap();
            let process = PROCESSES.hooked_process(&MAPS, directory, find_rule).unwrap();
            assert!(!process.is_superseded() && process.rewriter().lease_held);
        }
        let map = Map::open(directory).unwrap();
        map.close_session(session, Tick::ZERO).unwrap();
        map.mark_superseded();
        std::fs::remove_file(directory.join(crate::map::MAP_FILE)).unwrap();
        for _ in 0..1000 {
            let process = PROCESSES.hooked_process(&MAPS, directory, find_rule).unwrap();
            assert!(process.is_superseded() && !process.rewriter().lease_held);
            assert_eq!(process.display_rewriter().addresses.v4, "10.0.0.1".parse().ok());
        }
    }
}
