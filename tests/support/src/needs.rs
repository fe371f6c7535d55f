//! The prerequisites of all tests and of the steps of `cargo xtask test`, with the commands that
//! install them.
//!
//! A test declares its needs with [`crate::have`]. `cargo xtask test` lists the missing needs.
//! `cargo xtask test --all` first installs them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A prerequisite of a test or a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The name that tests and steps use: the program, the target triple, or a short word.
    pub name: &'static str,
    kind: Kind,
}

/// The kind of a need, with the data to detect and install it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The effective user is root.
    Root,
    /// A program that [`find_program`] finds, from this Debian package.
    Program(&'static str),
    /// A file, from this Debian package.
    File { path: &'static str, package: &'static str },
    /// A target of the active Rust toolchain.
    RustTarget,
    /// The nightly toolchain.
    Nightly,
    /// A component of the nightly toolchain.
    Component,
    /// A cargo subcommand, installed with cargo.
    CargoCommand,
    /// A Debian source package, downloaded to [`source_directory`].
    Source(&'static str),
}

const fn need(name: &'static str, kind: Kind) -> Need {
    Need { name, kind }
}

const fn program(name: &'static str, package: &'static str) -> Need {
    need(name, Kind::Program(package))
}

const fn file(name: &'static str, path: &'static str, package: &'static str) -> Need {
    need(name, Kind::File { path, package })
}

/// All needs. If a need requires another need for its installation, the required need comes first.
pub const ALL: &[Need] = &[
    need("root", Kind::Root),
    program("cc", "gcc"),
    program("c++", "g++"),
    program("python3", "python3"),
    program("ip", "iproute2"),
    program("ss", "iproute2"),
    program("pkg-config", "pkg-config"),
    program("nm", "binutils"),
    program("curl", "curl"),
    program("nc", "netcat-openbsd"),
    program("setpriv", "util-linux"),
    program("valgrind", "valgrind"),
    program("strace", "strace"),
    // Servers for the tests that run a server twice on one port.
    program("redis-server", "redis-server"),
    program("nginx", "nginx-light"),
    program("memcached", "memcached"),
    program("dnsmasq", "dnsmasq-base"),
    program("sshd", "openssh-server"),
    program("node", "nodejs"),
    program("java", "default-jdk-headless"),
    program("javac", "default-jdk-headless"),
    program("postgres", "postgresql"),
    // Libraries that the hook bench compares with the hook layer.
    program("torsocks", "torsocks"),
    program("proxychains4", "proxychains4"),
    file("socket_wrapper", "/usr/lib/x86_64-linux-gnu/libsocket_wrapper.so", "libsocket-wrapper"),
    // Needs of the logon tests.
    program("pamtester", "pamtester"),
    program("sudo", "sudo"),
    program("login", "login"),
    program("script", "bsdutils"),
    program("openssl", "openssl"),
    file("lightdm", "/etc/pam.d/lightdm", "lightdm"),
    program("xrdp-sesrun", "xrdp"),
    program("Xvnc", "tigervnc-standalone-server"),
    program("unshare", "util-linux"),
    file("systemd", "/lib/systemd/systemd", "systemd"),
    program("systemd-nspawn", "systemd-container"),
    // Source packages that contain socket tests.
    need("node-source", Kind::Source("nodejs")),
    need("libuv-source", Kind::Source("libuv1")),
    // Tools that download servers for Windows.
    program("pip3", "python3-pip"),
    program("npm", "npm"),
    // Needs of the tests for other platforms.
    program("wine", "wine"),
    program("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64"),
    program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    program("qemu-aarch64", "qemu-user"),
    need("x86_64-pc-windows-gnu", Kind::RustTarget),
    need("x86_64-pc-windows-msvc", Kind::RustTarget),
    need("aarch64-apple-darwin", Kind::RustTarget),
    need("aarch64-unknown-linux-gnu", Kind::RustTarget),
    // Needs of Miri, the sanitizers and the fuzz targets.
    need("nightly", Kind::Nightly),
    need("rust-src", Kind::Component),
    need("miri", Kind::Component),
    // Tools that check packages and dependencies.
    need("cargo-cinstall", Kind::CargoCommand),
    need("cargo-deb", Kind::CargoCommand),
    need("cargo-deny", Kind::CargoCommand),
    program("dpkg-deb", "dpkg"),
    program("lintian", "lintian"),
];

/// Returns the need of this name.
///
/// # Panics
/// Panics if the name is not in [`ALL`].
pub fn by_name(name: &str) -> Need {
    *ALL.iter()
        .find(|need| need.name == name)
        .unwrap_or_else(|| panic!("{name:?} is not in the table of tests/support/src/needs.rs"))
}

impl Need {
    /// Returns whether the need is present.
    pub fn is_present(&self) -> bool {
        match self.kind {
            Kind::Root => is_root(),
            Kind::Program(_) => find_program(self.name).is_some(),
            Kind::File { path, .. } => Path::new(path).exists(),
            Kind::RustTarget => {
                let libdir =
                    command_output("rustc", &["--print", "target-libdir", "--target", self.name]);
                libdir.is_some_and(|dir| {
                    Path::new(dir.trim()).read_dir().is_ok_and(|mut files| files.next().is_some())
                })
            }
            Kind::Nightly => {
                command_output("rustup", &["run", "nightly", "rustc", "--version"]).is_some()
            }
            Kind::Component => command_output(
                "rustup",
                &["component", "list", "--installed", "--toolchain", "nightly"],
            )
            .is_some_and(|list| list.lines().any(|line| line.starts_with(self.name))),
            Kind::CargoCommand => find_program(self.name).is_some(),
            Kind::Source(package) => source_archive(package).is_some(),
        }
    }

    /// Returns the Debian package that contains the need, if there is such a package.
    pub fn debian_package(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Program(package) | Kind::File { package, .. } => Some(package),
            _ => None,
        }
    }

    /// Returns the name of the Debian source package, if the need is a source package.
    pub fn source_package(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Source(package) => Some(package),
            _ => None,
        }
    }

    /// Returns the command that installs the need. For `root`, returns an instruction.
    pub fn install_command(&self) -> String {
        match self.kind {
            Kind::Root => "run the tests as root".to_owned(),
            Kind::Program(package) | Kind::File { package, .. } => {
                format!("apt-get install {package}")
            }
            Kind::RustTarget => format!("rustup target add {}", self.name),
            Kind::Nightly => "rustup toolchain install nightly --profile minimal".to_owned(),
            Kind::Component => format!("rustup component add --toolchain nightly {}", self.name),
            Kind::CargoCommand => {
                // Newer versions of cargo-c need a newer compiler than the workspace needs.
                let package = match self.name {
                    "cargo-cinstall" => "cargo-c --version 0.10.24+cargo-0.98.0",
                    // On two processors, an unoptimised build takes two minutes. An optimised build
                    // takes four minutes.
                    "cargo-deny" => "cargo-deny --no-default-features --debug",
                    name => name,
                };
                format!("cargo install --locked {package}")
            }
            // apt-get requires a `deb-src` entry in its list of sources.
            Kind::Source(package) => {
                let directory = source_directory();
                let directory = directory.display();
                format!(
                    "mkdir -p {directory} && cd {directory} && apt-get source --download-only {package}"
                )
            }
        }
    }
}

/// Returns the directory of the downloaded source packages.
pub fn source_directory() -> PathBuf {
    crate::target_dir().join("sources")
}

/// Returns the archive of a downloaded source package, if it is present.
pub fn source_archive(package: &str) -> Option<PathBuf> {
    let files = source_directory().read_dir().into_iter().flatten().flatten();
    files.map(|file| file.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("{package}_")) && name.contains(".orig.tar.")
    })
}

/// Finds a program on the PATH, then in directories that the PATH of a user may lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let admin_dirs = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/wine"].map(PathBuf::from);
    // Debian installs the PostgreSQL server into a directory per version.
    let postgres_dirs = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    env::split_paths(&path)
        .chain(admin_dirs)
        .chain(postgres_dirs.map(|version| version.path().join("bin")))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

#[cfg(unix)]
fn is_root() -> bool {
    // SAFETY: geteuid takes no arguments and always succeeds.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Returns the standard output of a command, or `None` if the command fails.
fn command_output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
