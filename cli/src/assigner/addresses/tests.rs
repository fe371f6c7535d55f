//! Tests that add and remove addresses in network namespaces. A second namespace acts as another
//! host.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use vipool_testing::ChildGuard;

use super::super::source_addresses::source_address;
use super::*;

/// A network of two hosts. One host is the new network namespace of this thread. The other host,
/// the peer, is a second network namespace. The kernel removes both namespaces after the test.
struct TestNetwork {
    peer: ChildGuard,
    directory: PathBuf,
}

fn run(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

impl TestNetwork {
    fn new(name: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut peer_command = Command::new("unshare");
        let mut peer = ChildGuard::start(
            peer_command
                .args(["--net", "sh", "-c", "echo; exec sleep 300"])
                .stdout(std::process::Stdio::piped()),
        );
        let mut ready_byte = [0];
        peer.0.stdout.take().unwrap().read_exact(&mut ready_byte).unwrap();
        let pid = peer.0.id();
        run("ip link set lo up");
        run(&format!("ip link add v0 type veth peer name v1 netns {pid}"));
        run("ip link set v0 up");
        run("ip address add 10.77.0.1/24 dev v0");
        run("ip address add fd77::1/64 dev v0 nodad");
        for command in [
            "link set lo up",
            "link set v1 up",
            "address add 10.77.0.50/24 dev v1",
            "address add fd77::50/64 dev v1 nodad",
        ] {
            run(&format!("nsenter -t {pid} -n ip {command}"));
        }
        let directory = format!("vipool-up-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        let _ = fs::remove_dir_all(&directory);
        Self { peer, directory }
    }

    fn run_on_peer(&self, command: &str) {
        run(&format!("nsenter -t {} -n {command}", self.peer.0.id()));
    }

    /// Runs a function on the peer host.
    fn call_on_peer<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.peer.0.id())).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                function()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn v0_index() -> u32 {
    let links = Netlink::open().unwrap().links().unwrap();
    links.iter().find(|link| link.name == "v0").unwrap().index
}

fn addresses_on_v0(texts: impl Iterator<Item = String>) -> BTreeSet<InterfaceAddress> {
    let interface = v0_index();
    texts.map(|text| InterfaceAddress { interface, address: text.parse().unwrap() }).collect()
}

fn dual_stack_addresses(first_host: u32, last_host: u32) -> BTreeSet<InterfaceAddress> {
    let hosts = first_host..=last_host;
    addresses_on_v0(hosts.flat_map(|host| [format!("10.77.0.{host}"), format!("fd77::{host}")]))
}

fn pool_addresses_on_v0() -> BTreeSet<IpAddr> {
    let addresses = Netlink::open().unwrap().addresses().unwrap();
    let pool_addresses = addresses.iter().filter(|(_, state)| state.is_pool_like);
    pool_addresses.map(|(entry, _)| entry.address).collect()
}

fn parse_addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn add(
    state: &mut AssignerState,
    desired_addresses: &BTreeSet<InterfaceAddress>,
    should_probe: bool,
    destinations: &[IpAddr],
) -> AssignResult {
    add_addresses(
        state,
        desired_addresses,
        should_probe,
        destinations,
        &mut StepTimer::start(false),
    )
    .unwrap()
}

const DESTINATIONS: [&str; 4] = ["10.77.0.50", "fd77::50", "192.0.2.1", "10.77.0.77"];

#[test]
fn pool_addresses_are_reachable_and_never_the_hosts_own_source() {
    if !vipool_testing::have(&["root", "ip"]) {
        return;
    }
    let network = TestNetwork::new("reached");
    run("ip route add default via 10.77.0.50");
    network.run_on_peer("ip address add 10.77.0.105/32 dev v1");
    network.run_on_peer("ip address add fd77::106/128 dev v1 nodad");
    let destinations: Vec<IpAddr> =
        Vec::from_iter(DESTINATIONS.iter().map(|text| text.parse().unwrap()));
    let sources_before = source_addresses(&destinations);
    assert_eq!(sources_before[0].1, Some("10.77.0.1".parse().unwrap()));

    let mut state = AssignerState::open(&network.directory).unwrap();
    let result = add(&mut state, &dual_stack_addresses(100, 109), true, &destinations);
    assert_eq!(
        result.conflict_reasons.keys().copied().collect::<BTreeSet<_>>(),
        parse_addresses(&["10.77.0.105", "fd77::106"])
    );
    assert_eq!(result.usable_addresses.len(), 18);
    assert_eq!(source_addresses(&destinations), sources_before);

    // The peer can connect to a listener on a pool address. A datagram socket that is bound to a
    // pool address keeps this address when it sends.
    for pool_address in ["10.77.0.100", "fd77::100"] {
        let pool_address: IpAddr = pool_address.parse().unwrap();
        let listener = TcpListener::bind((pool_address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        network.call_on_peer(|| TcpStream::connect(address).unwrap().write_all(b"x").unwrap());
        assert_eq!(listener.accept().unwrap().1.ip().is_ipv4(), pool_address.is_ipv4());
        let listener = network.call_on_peer(|| {
            TcpListener::bind(SocketAddr::new(peer_address(pool_address), 0)).unwrap()
        });
        let destination = listener.local_addr().unwrap();
        let socket = bind_udp(pool_address);
        socket.send_to(b"", destination).unwrap();
        assert_eq!(socket.local_addr().unwrap().ip(), pool_address);
    }

    // A later run with fewer desired addresses adds none. It removes the addresses that are neither
    // desired nor in use.
    let fewer_addresses = dual_stack_addresses(100, 103);
    let result = add(&mut state, &fewer_addresses, false, &destinations);
    assert_eq!((result.added_addresses.len(), result.usable_addresses.len()), (0, 8));
    let addresses_in_use = parse_addresses(&["10.77.0.109"]);
    let (removed_addresses, kept_addresses) = remove_addresses(&mut state, |entry| {
        fewer_addresses.contains(entry) || addresses_in_use.contains(&entry.address)
    })
    .unwrap();
    assert_eq!(
        (removed_addresses.len(), kept_addresses.len(), pool_addresses_on_v0().len()),
        (9, 9, 9)
    );

    let (removed_addresses, kept_addresses) =
        remove_addresses(&mut state, |entry| addresses_in_use.contains(&entry.address)).unwrap();
    assert_eq!((removed_addresses.len(), kept_addresses.len()), (8, 1));
    remove_addresses(&mut state, |_| false).unwrap();
    assert_eq!(pool_addresses_on_v0(), BTreeSet::new());
    assert_eq!(source_addresses(&destinations), sources_before);
    assert!(!network.directory.join("assigned.json").exists());
}

#[test]
fn preview_predicts_the_changes_and_existing_addresses_are_not_probed() {
    if !vipool_testing::have(&["root", "ip"]) {
        return;
    }
    let network = TestNetwork::new("preview");
    let desired_addresses = dual_stack_addresses(100, 103);
    let mut state = AssignerState::open(&network.directory).unwrap();
    let predicted_result = preview_addition(&state, &desired_addresses).unwrap();
    assert_eq!(pool_addresses_on_v0(), BTreeSet::new());
    let first_result = add(&mut state, &desired_addresses, false, &[]);
    assert_eq!(
        (&predicted_result.added_addresses, &predicted_result.usable_addresses),
        (&first_result.added_addresses, &first_result.usable_addresses)
    );

    let mut timer = StepTimer::start(false);
    let second_result =
        add_addresses(&mut state, &desired_addresses, true, &[], &mut timer).unwrap();
    assert_eq!(
        (second_result.added_addresses.len(), second_result.usable_addresses),
        (0, first_result.usable_addresses)
    );
    let steps = timer.into_steps();
    let descriptions: Vec<_> = steps.iter().map(|step| &*step.description).collect();
    assert_eq!(descriptions, ["added to the interfaces: 0 addresses"]);

    let is_needed = |entry: &InterfaceAddress| entry.address.is_ipv6();
    let predicted_removal = preview_removal(&state, is_needed).unwrap();
    assert_eq!(pool_addresses_on_v0().len(), 8);
    assert_eq!(remove_addresses(&mut state, is_needed).unwrap().0, predicted_removal);
}

fn peer_address(pool_address: IpAddr) -> IpAddr {
    if pool_address.is_ipv4() { "10.77.0.50".parse().unwrap() } else { "fd77::50".parse().unwrap() }
}

fn bind_udp(address: IpAddr) -> UdpSocket {
    UdpSocket::bind((address, 0)).unwrap()
}

#[test]
fn interrupted_run_is_completed_and_foreign_addresses_are_kept() {
    if !vipool_testing::have(&["root", "ip"]) {
        return;
    }
    let network = TestNetwork::new("thousand");
    run("ip address add 10.78.0.1/22 dev v0");
    let all_addresses =
        addresses_on_v0((10..1010).map(|host| format!("10.78.{}.{}", host / 256, host % 256)));
    let mut state = AssignerState::open(&network.directory).unwrap();
    // Simulate a run that was killed after it wrote the state file and added half of the addresses.
    state
        .write(AssignedResources {
            addresses: all_addresses.clone(),
            ..AssignedResources::default()
        })
        .unwrap();
    let first_half: Vec<InterfaceAddress> = all_addresses.iter().take(500).copied().collect();
    Netlink::open().unwrap().add(&first_half, |_| {}).unwrap();
    let result = add(&mut state, &all_addresses, false, &[]);
    assert_eq!((result.added_addresses.len(), result.usable_addresses.len()), (500, 1000));
    assert_eq!(pool_addresses_on_v0().len(), 1000);
    // If the state file is lost, the mark of vipool on each address identifies it. Kernels before
    // 5.18 drop the mark.
    if Netlink::open().unwrap().addresses().unwrap().values().any(|state| state.is_marked) {
        state.write(AssignedResources::default()).unwrap();
        let result = add(&mut state, &all_addresses, false, &[]);
        assert_eq!((result.added_addresses.len(), result.usable_addresses.len()), (0, 1000));
    }
    // An address that the administrator added is neither leased nor removed.
    run("ip address add 10.78.3.250/32 dev v0");
    let addresses_with_foreign_address = all_addresses
        .union(&addresses_on_v0(["10.78.3.250".to_owned()].into_iter()))
        .copied()
        .collect();
    let result = add(&mut state, &addresses_with_foreign_address, false, &[]);
    assert_eq!(result.conflict_reasons.len(), 1);
    assert_eq!(remove_addresses(&mut state, |_| false).unwrap().0.len(), 1000);
    assert_eq!(
        source_address("10.78.3.250".parse().unwrap()),
        Some("10.78.3.250".parse().unwrap())
    );
}
