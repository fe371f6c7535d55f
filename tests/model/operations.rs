//! The random operations, the plans, and the state of the simulated operating system.

use std::net::IpAddr;

use proptest::prelude::*;
use vipool::map::{ExhaustionPolicy, Leader, Plan, Settings};
use vipool::pool::{Pool, PoolKind, Reservation};
use vipool::range::Range;
use vipool::session::{SessionId, SessionKind};

pub const USERS: [&str; 4] = ["ann", "bob", "eve", "joe"];
pub const POOLS: [&str; 5] = ["default", "lab", "annex", "office", "nowhere"];
pub const PLAN_COUNT: usize = 9;

/// A random operation. An index selects a user, pool, address or handle when the operation runs.
#[derive(Clone, Debug)]
pub enum Operation {
    Open {
        session: u64,
        user: Option<usize>,
        pool: Option<usize>,
        address: Option<usize>,
        leader: Option<u32>,
    },
    /// Closes a session by a handle that the map has returned. The handle can be current or stale.
    Close(usize),
    /// Tries to close a session by a handle of another boot.
    CloseForeign(usize),
    CloseSession(u64),
    /// Drains (`true`) or undrains addresses. The first number is the index of the first address.
    /// The second number is the count of further addresses.
    Drain(usize, usize, bool),
    DrainServer(bool),
    /// Reserves an address for a user. The numbers are the indices of the address and of the user.
    Reserve(usize, usize),
    Unreserve(usize),
    /// Both fields are bit sets, see [`has_exited`] and [`is_in_use`].
    Reap {
        exited_leaders: u32,
        addresses_in_use: u64,
    },
    /// Closes the sessions whose bit is not set.
    Reconcile(u32),
    Recover,
    Restart,
    /// Replaces the map with a map of the plan with this number.
    Configure(usize),
    /// Adds seconds to the current time. The number can be negative.
    Advance(i32),
}

/// Returns the strategy that generates operations.
pub fn operation() -> impl Strategy<Value = Operation> {
    let frequent_index = |end: usize| prop::option::weighted(0.7, 0..end);
    let rare_index = |end: usize| prop::option::weighted(0.15, 0..end);
    prop_oneof![
        12 => (0u64..14, frequent_index(4), rare_index(5), rare_index(40), prop::option::weighted(0.3, 1u32..5))
            .prop_map(|(session, user, pool, address, leader)| Operation::Open { session, user, pool, address, leader }),
        5 => any::<prop::sample::Index>().prop_map(|index| Operation::Close(index.index(1 << 16))),
        1 => any::<prop::sample::Index>().prop_map(|index| Operation::CloseForeign(index.index(1 << 16))),
        4 => (0u64..14).prop_map(Operation::CloseSession),
        1 => (0usize..40, 0usize..6, any::<bool>()).prop_map(|(first_index, further_count, is_drain)| Operation::Drain(first_index, further_count, is_drain)),
        1 => prop::bool::weighted(0.3).prop_map(Operation::DrainServer),
        1 => (0usize..40, 0usize..4).prop_map(|(address, user)| Operation::Reserve(address, user)),
        1 => (0usize..40).prop_map(Operation::Unreserve),
        2 => (any::<u32>(), any::<u64>()).prop_map(|(exited_leaders, addresses_in_use)| Operation::Reap { exited_leaders, addresses_in_use }),
        1 => any::<u32>().prop_map(Operation::Reconcile),
        1 => Just(Operation::Recover),
        1 => Just(Operation::Restart),
        1 => (0..PLAN_COUNT).prop_map(Operation::Configure),
        4 => prop_oneof![9 => 0i32..8, 1 => -20i32..100].prop_map(Operation::Advance),
    ]
}

pub fn pool(name: &str, kind: PoolKind, ranges: &[&str]) -> Pool {
    let ranges: Vec<Range> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Pool::new(name, kind, &ranges, u32::MAX).unwrap()
}

/// Returns one of [`PLAN_COUNT`] plans. The plans differ in pools, settings and reservations. Some
/// addresses are in different pools in different plans.
pub fn plan(number: usize) -> Plan {
    use PoolKind::{Loopback, VirtualIp};
    let ipv6_pool = || pool("default", VirtualIp, &["fd00::8/126"]);
    let settings = Settings::without_cool_down();
    let checked_settings = settings.with_cool_down(9).with_check_in_use(true).with_low_water(2);
    let cooling_settings = settings.with_cool_down(5).with_low_water(3).with_max_sessions(6);
    let limited_settings = settings
        .with_sessions_per_user(2)
        .with_await_restore(true)
        .with_on_exhausted(ExhaustionPolicy::Wait(3));
    let reserve =
        |user: &str, address: &str| Reservation::new(address.parse().unwrap(), user.to_owned());
    let (pools, settings, reservations) = match number {
        0 => (vec![pool("default", VirtualIp, &["10.0.0.1-10.0.0.5"])], settings, vec![]),
        1 => (
            vec![
                pool("default", VirtualIp, &["10.0.0.1-10.0.0.4"]),
                pool("lab", VirtualIp, &["10.0.1.0/31"]),
                ipv6_pool(),
                pool("loop", Loopback, &["127.77.0.0/29"]),
            ],
            checked_settings,
            vec![reserve("ann", "10.0.0.2"), reserve("bob", "fd00::9")],
        ),
        2 => (
            vec![
                pool("default", VirtualIp, &["10.0.0.3-10.0.0.8"]),
                pool("default", Loopback, &["127.77.0.0/29", "127.77.1.0/30"]),
            ],
            cooling_settings,
            vec![reserve("bob", "10.0.0.3")],
        ),
        3 => (
            vec![pool("lab", VirtualIp, &["10.0.1.0/30"]), pool("annex", VirtualIp, &["10.0.2.7"])],
            limited_settings,
            vec![],
        ),
        4 => (
            vec![pool("default", VirtualIp, &["10.0.0.1", "10.0.0.7-10.0.0.9"]), ipv6_pool()],
            cooling_settings,
            vec![reserve("ann", "10.0.0.7"), reserve("ann", "10.0.0.8")],
        ),
        5 => (vec![pool("office", VirtualIp, &["10.0.0.1-10.0.0.5"])], cooling_settings, vec![]),
        6 => (
            vec![
                pool("annex", VirtualIp, &["10.0.1.0/31"]),
                pool("annex", VirtualIp, &["fd00::8/127"]),
                pool("lab", VirtualIp, &["10.0.0.1-10.0.0.3", "10.0.2.7"]),
                pool("loop", Loopback, &["127.77.0.0/29"]),
            ],
            checked_settings,
            vec![reserve("ann", "10.0.0.2"), reserve("eve", "10.0.1.1")],
        ),
        7 => (
            vec![
                pool("office", VirtualIp, &["10.0.0.4-10.0.0.9"]),
                pool("default", VirtualIp, &["10.0.0.2-10.0.0.3", "10.0.1.0"]),
                pool("lab", VirtualIp, &["fd00::8/126"]),
            ],
            limited_settings,
            vec![reserve("bob", "10.0.0.8")],
        ),
        _ => {
            let settings = settings.with_check_in_use(true);
            (vec![pool("loop", Loopback, &["127.77.1.0/30"])], settings, vec![])
        }
    };
    Plan::new(pools).with_settings(settings).with_reservations(reservations)
}

pub fn session_id(number: u64) -> SessionId {
    SessionId::new(SessionKind::Embedder, number).unwrap()
}

pub fn leader(pid: u32) -> Leader {
    Leader { pid, start_time: 3, pid_namespace: 4 }
}

/// Returns whether bit `leader.pid` of `exited_leaders` is set.
pub fn has_exited(exited_leaders: u32, leader: &Leader) -> bool {
    exited_leaders >> leader.pid & 1 == 1
}

/// Selects a bit of `addresses_in_use` by a hash of the address. Returns whether the bit is set.
pub fn is_in_use(addresses_in_use: u64, address: IpAddr) -> bool {
    let hash = match address {
        IpAddr::V4(address) => address.octets().iter().map(|byte| u32::from(*byte)).sum::<u32>(),
        IpAddr::V6(address) => u32::from(address.octets()[15]),
    };
    addresses_in_use >> (hash % 64) & 1 == 1
}
