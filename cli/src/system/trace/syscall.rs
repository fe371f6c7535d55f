//! Decodes the system calls of traced threads.

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, pid_t};

use super::call::SocketCall;

/// A system call in progress, with its arguments. The tracer reads the arguments at the entry of
/// the call, because the kernel does not report them at the exit.
pub struct PendingCall {
    number: c_long,
    fd: c_int,
    /// The socket address in the arguments.
    address: Option<SocketAddr>,
    /// The call to report on success, if the report does not depend on the socket.
    reported_call: Option<SocketCall>,
}

impl PendingCall {
    /// Reads the arguments at the entry of a call. Returns `None` if the call is not of interest.
    pub fn read(thread: pid_t, number: c_long, arguments: &[u64; 6]) -> Option<Self> {
        let fd = arguments[0] as c_int;
        let mut call = Self { number, fd, address: None, reported_call: None };
        match number {
            libc::SYS_bind | libc::SYS_connect => {
                call.address = Some(read_address(thread, arguments[1], arguments[2])?);
            }
            libc::SYS_sendto if arguments[4] != 0 => {
                match read_address(thread, arguments[4], arguments[5]) {
                    Some(address) => call.address = Some(address),
                    // glibc sends its netlink requests with an address of family AF_NETLINK.
                    None => call.reported_call = Some(decode_link_request(thread, arguments[1])?),
                }
            }
            libc::SYS_sendto => {
                call.reported_call = Some(decode_link_request(thread, arguments[1])?)
            }
            libc::SYS_ioctl => {
                let requests = [libc::SIOCGIFCONF, libc::SIOCGIFADDR];
                let lists_interfaces = requests.contains(&arguments[1]);
                call.reported_call = Some(lists_interfaces.then_some(SocketCall::ListInterfaces)?);
            }
            libc::SYS_uname => call.reported_call = Some(SocketCall::GetHostName),
            libc::SYS_io_uring_setup => call.reported_call = Some(SocketCall::CreateIoUring),
            libc::SYS_openat => {
                let path = read_memory(thread, arguments[1], 11)?;
                let is_hosts_file = path == b"/etc/hosts\0";
                call.reported_call = Some(is_hosts_file.then_some(SocketCall::ResolveName)?);
            }
            _ => return None,
        }
        Some(call)
    }

    /// Returns the call to report after the system call returned `result`.
    pub fn complete(&self, thread: pid_t, result: i64) -> Option<SocketCall> {
        if let Some(call) = self.reported_call {
            return (result >= 0).then_some(call);
        }
        let address = self.address?;
        let is_tcp = is_tcp(thread, self.fd)?;
        let error = result.checked_neg().and_then(|error| i32::try_from(error).ok()).unwrap_or(0);
        match (self.number, error) {
            (libc::SYS_bind, libc::EADDRINUSE) => {
                Some(SocketCall::Bind { is_tcp, address, has_succeeded: false })
            }
            (libc::SYS_bind, ..=0) => {
                Some(SocketCall::Bind { is_tcp, address, has_succeeded: true })
            }
            (
                libc::SYS_connect | libc::SYS_sendto,
                ..=0 | libc::EINPROGRESS | libc::ECONNREFUSED,
            ) => Some(SocketCall::Connect { is_tcp, destination: address }),
            _ => None,
        }
    }
}

/// Recognizes a netlink request for all interfaces, which is the first request of getifaddrs(3).
///
/// A request for addresses alone is not reported: getaddrinfo(3) makes this request, and nearly
/// every program calls getaddrinfo(3).
fn decode_link_request(thread: pid_t, address: u64) -> Option<SocketCall> {
    let message = read_memory(thread, address, 16)?;
    let message_type = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let flags = u16::from_ne_bytes(message.get(6..8)?.try_into().ok()?);
    let dump_flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let is_dump = flags & dump_flags == dump_flags;
    (message_type == libc::RTM_GETLINK && is_dump).then_some(SocketCall::ListInterfaces)
}

/// Reads an IPv4 or IPv6 socket address from a traced thread's memory.
fn read_address(thread: pid_t, address: u64, length: u64) -> Option<SocketAddr> {
    let bytes = read_memory(thread, address, length.min(28) as usize)?;
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip: IpAddr = match i32::from(family) {
        libc::AF_INET => <[u8; 4]>::try_from(bytes.get(4..8)?).ok()?.into(),
        libc::AF_INET6 => <[u8; 16]>::try_from(bytes.get(8..24)?).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads a traced thread's memory. Returns `None` if not all bytes can be read.
fn read_memory(thread: pid_t, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0u8; length];
    let local_buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let remote_buffer = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: length };
    // SAFETY: the local buffer has the given length. The kernel checks the remote address.
    let bytes_read =
        unsafe { libc::process_vm_readv(thread, &local_buffer, 1, &remote_buffer, 1, 0) };
    (bytes_read == length as isize).then_some(bytes)
}

/// Returns true if a traced thread's descriptor is a TCP socket, and false if it is a UDP socket.
/// Returns `None` for all other descriptors.
fn is_tcp(thread: pid_t, fd: c_int) -> Option<bool> {
    let process = process_of_thread(thread);
    // SAFETY: the system calls take only integers. Each returns a new descriptor or an error.
    let duplicate_fd = unsafe {
        let pidfd = fd_from_result(libc::syscall(libc::SYS_pidfd_open, process, 0))?;
        fd_from_result(libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0))?
    };
    let mut protocol: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the pointers are valid for one int and its length.
    let status = unsafe {
        libc::getsockopt(
            duplicate_fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PROTOCOL,
            (&raw mut protocol).cast(),
            &mut length,
        )
    };
    match (status, protocol) {
        (0, libc::IPPROTO_TCP) => Some(true),
        (0, libc::IPPROTO_UDP) => Some(false),
        _ => None,
    }
}

/// Takes ownership of the descriptor that a system call returned.
///
/// # Safety
/// `result` must come from a system call that returns a new descriptor or a negative error.
unsafe fn fd_from_result(result: c_long) -> Option<OwnedFd> {
    // SAFETY: by the contract of this function, nothing else owns the descriptor.
    (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result as c_int) })
}

/// Returns the process of a thread. Returns `thread` if the thread no longer exists.
pub fn process_of_thread(thread: pid_t) -> pid_t {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(thread)
}

/// A ptrace(2) request whose data argument is a number.
pub enum TraceRequest {
    /// Sets the `PTRACE_O_` options (`PTRACE_SETOPTIONS`).
    SetOptions(c_int),
    /// Continues a stopped thread until its next system call (`PTRACE_SYSCALL`). Delivers the
    /// signal, unless it is 0.
    Continue { signal: c_int },
}

impl TraceRequest {
    /// Makes the request for a traced thread.
    pub fn send(self, thread: pid_t) -> io::Result<()> {
        let (request, data) = match self {
            Self::SetOptions(options) => (libc::PTRACE_SETOPTIONS, options),
            Self::Continue { signal } => (libc::PTRACE_SYSCALL, signal),
        };
        // SAFETY: these requests take numbers and access no memory of this process.
        match unsafe { libc::ptrace(request, thread, 0usize, data as usize) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Returns the information of the kernel about the system call at which a thread has stopped.
pub fn syscall_info(thread: pid_t) -> Option<libc::ptrace_syscall_info> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `size` bytes, and the buffer has that size.
    let written_length =
        unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, info.as_mut_ptr()) };
    if written_length < offset_of!(libc::ptrace_syscall_info, u) as c_long {
        return None;
    }
    // SAFETY: the struct contains only integers. The struct was zeroed, and the kernel has written
    // a part of the struct.
    Some(unsafe { info.assume_init() })
}
