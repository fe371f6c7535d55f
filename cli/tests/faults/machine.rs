//! A machine with one network interface, whose files are in memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::Ipv6Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use vipool_testing::namespace::in_namespace;
use vipool_testing::{fault_preload_path, preload_path};

/// The directory of the map.
pub const MAP_DIRECTORY: &str = "/run/vipool";
/// The directory of the history and of the last users.
pub const HISTORY_DIRECTORY: &str = "/var/lib/vipool";
/// The parent directory of the private map.
const PRIVATE_DIRECTORY: &str = "/run/private";
/// The directories whose files the tests save and compare.
const DIRECTORIES: [&str; 3] = [MAP_DIRECTORY, HISTORY_DIRECTORY, PRIVATE_DIRECTORY];
/// The directory of the farm files.
pub const FARM_DIRECTORY: &str = "/run/farm";
/// The ports that the kernel does not choose for a program that binds port 0.
pub const RESERVED_PORTS_FILE: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A farm of four virtual IPs. They are IPv6 addresses, and the interface does no duplicate address
/// detection, so `vipool up` never waits.
const FARM: &str = "
[[range]]
addresses = \"fd77::100-fd77::103\"
[loopback]
ranges = \"127.77.0.2-127.77.0.21\"
[sessions]
cool-down = 0
check-in-use = false
[[program]]
path = \"/bin/true\"
features = [\"loopback\"]
own-ports = [4000]
";

/// The age of the files at the start of a command. The commands treat very young files differently.
const MIN_AGE: Duration = Duration::from_secs(3600);

/// A file at the time when the state was saved.
struct SavedFile {
    path: PathBuf,
    contents: Vec<u8>,
    mode: u32,
    modified: SystemTime,
}

/// The files of vipool at one time.
pub struct SavedFiles(Vec<SavedFile>);

/// Runs the test `name` in its own namespaces, where it can create the machine.
pub fn on_test_machine(name: &str, body: impl FnOnce()) {
    let build_programs = || {
        preload_path();
        fault_preload_path();
    };
    in_namespace(name, &[], build_programs, body);
}

/// Creates the interface, and hides the files of the real machine. Call this function once, inside
/// the namespaces. The kernel adds no link-local address (`addrgenmode`), because
/// [`interface_addresses`] can mistake a random address for an address of the pool.
pub fn set_up() {
    let script = format!(
        "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mkdir {FARM_DIRECTORY}
         ip link set lo up && ip link add v0 type veth peer name v1
         ip link set v0 addrgenmode none
         ip link set v0 arp off up && ip link set v1 arp off up
         echo 0 > /proc/sys/net/ipv6/conf/v0/accept_dad
         ip -6 address add fd77::1/64 dev v0"
    );
    let status = Command::new("sh").args(["-ec", &script]).status().unwrap();
    assert!(status.success());
    let path = Path::new(FARM_DIRECTORY);
    fs::write(path.join("farm.toml"), FARM).unwrap();
    fs::write(path.join("smaller.toml"), FARM.replace("::103", "::102")).unwrap();
}

/// Removes the files and the addresses of vipool, and restores the saved files.
pub fn restore(files: &SavedFiles) {
    if !interface_addresses().is_empty() {
        let mut command = Command::new("ip");
        command.args(["-6", "address", "flush", "dev", "v0", "to", "fd77::100/120"]);
        assert!(command.status().unwrap().success());
    }
    fs::write(RESERVED_PORTS_FILE, "\n").unwrap();
    for directory in DIRECTORIES {
        let _ = fs::remove_dir_all(directory);
    }
    for file in &files.0 {
        fs::create_dir_all(file.path.parent().unwrap()).unwrap();
        fs::write(&file.path, &file.contents).unwrap();
        fs::set_permissions(&file.path, fs::Permissions::from_mode(file.mode)).unwrap();
        File::options().append(true).open(&file.path).unwrap().set_modified(file.modified).unwrap();
    }
}

impl SavedFiles {
    /// No files.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Reads the files of vipool.
    pub fn read() -> Self {
        let read_file = |path: PathBuf| {
            let metadata = path.metadata().unwrap();
            SavedFile {
                contents: fs::read(&path).unwrap(),
                mode: metadata.permissions().mode(),
                modified: metadata.modified().unwrap() - MIN_AGE,
                path,
            }
        };
        Self(file_paths().into_iter().map(read_file).collect())
    }
}

/// Returns the pool addresses on the interface.
pub fn interface_addresses() -> BTreeSet<Ipv6Addr> {
    let text = fs::read_to_string("/proc/net/if_inet6").unwrap();
    let addresses = text.lines().map(|line| {
        let hexadecimal = line.split_whitespace().next().unwrap();
        Ipv6Addr::from(u128::from_str_radix(hexadecimal, 16).unwrap())
    });
    addresses.filter(|address| (0x100..0x200).contains(&address.segments()[7])).collect()
}

/// Returns the sorted paths of the files of vipool.
pub fn file_paths() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut directories: Vec<PathBuf> = DIRECTORIES.map(PathBuf::from).into();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { paths.push(path) }
        }
    }
    paths.sort();
    paths
}

/// Returns the directory of the private map in this network namespace.
pub fn private_map_directory() -> PathBuf {
    let namespace = fs::metadata("/proc/self/ns/net").unwrap().ino();
    Path::new(PRIVATE_DIRECTORY).join(format!("net-{namespace}"))
}

/// Returns a `vipool` command with these arguments, which spaces separate.
pub fn vipool(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vipool"));
    command
        .args(arguments.split_whitespace())
        .env("VIPOOL_PRELOAD", preload_path())
        .env("VIPOOL_PRIVATE", PRIVATE_DIRECTORY)
        .env("TZ", "UTC");
    for name in ["VIPOOL_LEASE", "VIPOOL_MAP", "VIPOOL_CLIENT", "VIPOOL_DISABLE", "LD_PRELOAD"] {
        command.env_remove(name);
    }
    command
}

/// Runs `vipool` with these arguments. The command must succeed.
pub fn run(arguments: &str) -> Output {
    let output = vipool(arguments).output().unwrap();
    assert!(output.status.success(), "vipool {arguments}: {output:?}");
    output
}
