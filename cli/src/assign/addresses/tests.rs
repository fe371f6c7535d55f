//! Adding and taking away in network namespaces, seen from another host too.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use vipool_testing::ChildGuard;

use super::*;

/// This thread in a network namespace of its own, and another host on its link; both go with
/// the test.
struct Link2 {
    other: ChildGuard,
    directory: PathBuf,
}

fn run(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Link2 {
    fn new(name: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut sleep = Command::new("unshare");
        let mut other = ChildGuard::start(
            sleep
                .args(["--net", "sh", "-c", "echo; exec sleep 300"])
                .stdout(std::process::Stdio::piped()),
        );
        let mut ready = [0];
        other.0.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        let pid = other.0.id();
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
        Self { other, directory }
    }

    fn on_other(&self, command: &str) {
        run(&format!("nsenter -t {} -n {command}", self.other.0.id()));
    }

    /// Runs a function on the other host.
    fn there<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.other.0.id())).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                f()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Link2 {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn v0() -> u32 {
    let links = Netlink::open().unwrap().links().unwrap();
    links.iter().find(|link| link.name == "v0").unwrap().index
}

fn wanted(texts: impl Iterator<Item = String>) -> BTreeSet<Bound> {
    let interface = v0();
    texts.map(|text| Bound { interface, address: text.parse().unwrap() }).collect()
}

fn both(from: u32, to: u32) -> BTreeSet<Bound> {
    wanted((from..=to).flat_map(|i| [format!("10.77.0.{i}"), format!("fd77::{i}")]))
}

fn on_v0() -> BTreeSet<IpAddr> {
    let all = Netlink::open().unwrap().addresses().unwrap();
    let pool = all.iter().filter(|(_, state)| state.pool_like);
    pool.map(|(bound, _)| bound.address).collect()
}

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

const TO: [&str; 4] = ["10.77.0.50", "fd77::50", "192.0.2.1", "10.77.0.77"];

#[test]
fn addresses_are_reached_and_never_the_hosts_own_source() {
    if !vipool_testing::have(&["root", "ip"]) {
        return;
    }
    let net = Link2::new("reached");
    run("ip route add default via 10.77.0.50");
    net.on_other("ip address add 10.77.0.105/32 dev v1");
    net.on_other("ip address add fd77::106/128 dev v1 nodad");
    let to: Vec<IpAddr> = Vec::from_iter(TO.iter().map(|text| text.parse().unwrap()));
    let before = sources(&to);
    assert_eq!(before[0].1, Some("10.77.0.1".parse().unwrap()));

    let mut state = State::open(&net.directory).unwrap();
    let result = bring_up(&mut state, &both(100, 109), true, &to).unwrap();
    assert_eq!(
        result.conflicts.keys().copied().collect::<BTreeSet<_>>(),
        ips(&["10.77.0.105", "fd77::106"])
    );
    assert_eq!(result.usable.len(), 18);
    assert_eq!(sources(&to), before);

    // Delivery, and the source that the other host sees of a program that binds V.
    for v in ["10.77.0.100", "fd77::100"] {
        let v: IpAddr = v.parse().unwrap();
        let listener = TcpListener::bind((v, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        net.there(|| TcpStream::connect(at).unwrap().write_all(b"x").unwrap());
        assert_eq!(listener.accept().unwrap().1.ip().is_ipv4(), v.is_ipv4());
        let listener = net.there(|| TcpListener::bind(SocketAddr::new(v4_or_v6(v), 0)).unwrap());
        let to = listener.local_addr().unwrap();
        let socket = socket_on(v);
        socket.send_to(b"", to).unwrap();
        assert_eq!(socket.local_addr().unwrap().ip(), v);
    }

    // A later run that wants less takes the rest away, but not what is in use.
    let fewer = both(100, 103);
    let result = bring_up(&mut state, &fewer, false, &to).unwrap();
    assert_eq!((result.added, result.usable.len()), (0, 8));
    let in_use = ips(&["10.77.0.109"]);
    let (gone, stay) =
        take_down(&mut state, |b| fewer.contains(b) || in_use.contains(&b.address)).unwrap();
    assert_eq!((gone, stay.len(), on_v0().len()), (9, 9, 9));

    let (gone, stay) = take_down(&mut state, |b| in_use.contains(&b.address)).unwrap();
    assert_eq!((gone, stay.len()), (8, 1));
    take_down(&mut state, |_| false).unwrap();
    assert_eq!(on_v0(), BTreeSet::new());
    assert_eq!(sources(&to), before);
    assert!(!net.directory.join("assigned.json").exists());
}

fn v4_or_v6(v: IpAddr) -> IpAddr {
    if v.is_ipv4() { "10.77.0.50".parse().unwrap() } else { "fd77::50".parse().unwrap() }
}

fn socket_on(v: IpAddr) -> UdpSocket {
    UdpSocket::bind((v, 0)).unwrap()
}

#[test]
fn a_thousand_addresses_and_a_half_done_run() {
    if !vipool_testing::have(&["root", "ip"]) {
        return;
    }
    let net = Link2::new("thousand");
    run("ip address add 10.78.0.1/22 dev v0");
    let all = wanted((10..1010).map(|i| format!("10.78.{}.{}", i / 256, i % 256)));
    let mut state = State::open(&net.directory).unwrap();
    // Killed after the file was written and half the addresses were added.
    state.write(Added { addresses: all.clone(), ..Added::default() }).unwrap();
    let half: Vec<Bound> = all.iter().take(500).copied().collect();
    Netlink::open().unwrap().add(&half, |_| {}).unwrap();
    let result = bring_up(&mut state, &all, false, &[]).unwrap();
    assert_eq!((result.added, result.usable.len()), (500, 1000));
    assert_eq!(on_v0().len(), 1000);
    // The file is lost: the mark tells whose they are.
    if Netlink::open().unwrap().addresses().unwrap().values().any(|state| state.marked) {
        state.write(Added::default()).unwrap();
        let result = bring_up(&mut state, &all, false, &[]).unwrap();
        assert_eq!((result.added, result.usable.len()), (0, 1000));
    }
    // An administrator's own address is not taken away and not given out.
    run("ip address add 10.78.3.250/32 dev v0");
    let more = all.union(&wanted(["10.78.3.250".to_owned()].into_iter())).copied().collect();
    let result = bring_up(&mut state, &more, false, &[]).unwrap();
    assert_eq!(result.conflicts.len(), 1);
    assert_eq!(take_down(&mut state, |_| false).unwrap().0, 1000);
    assert_eq!(
        source_towards("10.78.3.250".parse().unwrap()),
        Some("10.78.3.250".parse().unwrap())
    );
}
