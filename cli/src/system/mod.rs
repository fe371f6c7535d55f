//! Access to the operating system: the caller, processes, sockets, program files, file locks, the
//! hook layer.

#[cfg(target_os = "linux")]
pub mod apparmor;
#[cfg(target_os = "linux")]
pub mod arp_socket;
#[cfg(target_os = "linux")]
pub mod auxv;
#[cfg_attr(windows, path = "caller_windows.rs")]
pub mod caller;
#[cfg(target_os = "linux")]
pub mod disk_space;
#[cfg(target_os = "linux")]
pub mod elf;
#[cfg(unix)]
pub mod exec_path;
#[cfg(unix)]
pub mod file_lock;
#[cfg(unix)]
pub mod hook;
#[cfg(target_os = "linux")]
pub mod proc_net;
#[cfg(target_os = "linux")]
pub mod trace;
