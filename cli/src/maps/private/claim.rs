//! Claims on loopback blocks. A claim assigns a block to one map of one user.
//!
//! Each network namespace has its own 127.0.0.0/8 and its own abstract AF_UNIX names (unix(7)).
//! The processes that listen on the name `vipool/127.x.y` own the block 127.x.y.0/24. Invariants:
//!
//! - The kernel frees the name when the last process closes the listening socket. So the block is
//!   free again even after `kill -9`.
//! - All `vipool run` processes of one private map share the *same* socket. A new process connects
//!   to the name, and an owner passes the socket to the new process (SCM_RIGHTS). So the name stays
//!   in use until all of these processes have exited.
//! - The kernel reports the uid of an owner (SO_PEERCRED). The owner reports the map for which it
//!   owns the block: device and inode of the map's directory. A process never uses a block of
//!   another user or another map.
//!
//! A session can be open while no program runs in it. Its block then has no owner, and no socket
//! uses its addresses. The next `vipool run` claims the same block again.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Uid;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::block::{BLOCK_COUNT, Block};

/// Maximum wait for the answer of an owner that has the uid of this process. A stopped owner does
/// not answer. The claim is valid nevertheless ([`ClaimState::Requested`]).
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Identifies a private map: device and inode of its directory.
type MapIdentity = [u8; 16];

/// The claim on a block, shared by all processes of one map.
#[derive(Debug)]
pub struct Claim {
    /// The block.
    pub block: Block,
    identity: MapIdentity,
    state: ClaimState,
}

#[derive(Debug)]
enum ClaimState {
    /// This process has the listening socket and passes it to processes that connect.
    Owned(OwnedFd),
    /// A process of this user owns the socket, and has not answered on this connection yet.
    Requested(OwnedFd),
    /// Another user or another map took the block.
    Lost,
}

/// The result of one attempt to claim a block.
enum Attempt {
    Claimed(ClaimState),
    /// The block belongs to another user or another map.
    Foreign,
}

impl Claim {
    /// Claims a block for the map in `directory`.
    ///
    /// First tries `preferred`, the block that the map had before. If other processes of the map
    /// own this block, they share it with this process. If the block is not available, tries all
    /// other blocks. Skips blocks for which `is_excluded` returns true.
    ///
    /// # Errors
    /// No block is available, or a system call fails.
    pub fn acquire(
        directory: &Path,
        preferred: Option<Block>,
        is_excluded: impl Fn(Block) -> bool,
    ) -> io::Result<Self> {
        let metadata = fs::metadata(directory).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot examine {}: {error}", directory.display()))
        })?;
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&metadata.dev().to_ne_bytes());
        identity[8..].copy_from_slice(&metadata.ino().to_ne_bytes());
        if let Some(block) = preferred.filter(|block| !is_excluded(*block))
            && let Attempt::Claimed(state) = try_claim(block, &identity)?
        {
            return Ok(Self { block, identity, state });
        }
        for block in Block::candidates().filter(|block| !is_excluded(*block)) {
            if let Some(listener) = try_bind(block)? {
                return Ok(Self { block, identity, state: ClaimState::Owned(listener) });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("other users own all {BLOCK_COUNT} private blocks of 127.0.0.0/8"),
        ))
    }

    /// Returns the descriptor that becomes readable when [`Claim::serve`] has work. Returns `None`
    /// if the block is lost.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            ClaimState::Owned(fd) | ClaimState::Requested(fd) => Some(fd.as_fd()),
            ClaimState::Lost => None,
        }
    }

    /// If this process owns the socket, passes it to the processes that have connected. Otherwise
    /// receives the socket from its owner.
    ///
    /// Can block for [`ANSWER_TIMEOUT`] and a few milliseconds. Returns `false` if the block is
    /// lost.
    ///
    /// # Errors
    /// A system call fails.
    pub fn serve(&mut self) -> io::Result<bool> {
        match &self.state {
            ClaimState::Owned(listener) => pass_to_peers(listener, &self.identity)?,
            ClaimState::Requested(stream) => match receive_socket(stream, &self.identity)? {
                Answer::Socket(listener) => self.state = ClaimState::Owned(listener),
                Answer::Pending => {}
                Answer::Closed => match try_claim(self.block, &self.identity)? {
                    Attempt::Claimed(state) => self.state = state,
                    Attempt::Foreign => self.state = ClaimState::Lost,
                },
                Answer::Foreign => self.state = ClaimState::Lost,
            },
            ClaimState::Lost => {}
        }
        Ok(!matches!(self.state, ClaimState::Lost))
    }
}

/// Binds the name of the block. If a process of this user owns the name, requests the socket from
/// that process.
fn try_claim(block: Block, identity: &MapIdentity) -> io::Result<Attempt> {
    // Two attempts are needed, because the owner may exit between the bind and the connect.
    for _ in 0..2 {
        if let Some(listener) = try_bind(block)? {
            return Ok(Attempt::Claimed(ClaimState::Owned(listener)));
        }
        let stream = unix_socket()?;
        match rustix::net::connect(&stream, &abstract_name(block)?) {
            Ok(()) => return request_socket(stream, identity),
            // The owner has not called listen(2) yet, or has exited.
            Err(Errno::CONNREFUSED) => std::thread::sleep(Duration::from_millis(5)),
            // The accept queue is full. A vipool process would accept the connections, so the owner
            // is probably another program.
            Err(Errno::AGAIN) => return Ok(Attempt::Foreign),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Attempt::Foreign)
}

/// Binds the name of the block, and listens. Returns `None` if a process owns the name.
fn try_bind(block: Block) -> io::Result<Option<OwnedFd>> {
    let listener = unix_socket()?;
    match rustix::net::bind(&listener, &abstract_name(block)?) {
        Ok(()) => {}
        Err(Errno::ADDRINUSE) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    rustix::net::listen(&listener, 64)?;
    Ok(Some(listener))
}

/// Waits up to [`ANSWER_TIMEOUT`] for the owner at the other end of `stream` to pass its socket. If
/// a process of this user does not answer in this time, the block counts as claimed.
fn request_socket(stream: OwnedFd, identity: &MapIdentity) -> io::Result<Attempt> {
    if getsockopt(&stream, PeerCredentials)?.uid() != Uid::effective().as_raw() {
        return Ok(Attempt::Foreign);
    }
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(ANSWER_TIMEOUT).expect("a small number");
    nix::poll::poll(&mut fds, timeout)?;
    Ok(match receive_socket(&stream, identity)? {
        Answer::Socket(listener) => Attempt::Claimed(ClaimState::Owned(listener)),
        Answer::Pending | Answer::Closed => Attempt::Claimed(ClaimState::Requested(stream)),
        Answer::Foreign => Attempt::Foreign,
    })
}

/// An owner's answer to a connection.
enum Answer {
    /// The owner passed its listening socket.
    Socket(OwnedFd),
    /// No answer has arrived yet.
    Pending,
    /// The owner closed the connection.
    Closed,
    /// The owner uses the block for another map.
    Foreign,
}

/// Reads the owner's answer, without blocking.
fn receive_socket(stream: &OwnedFd, identity: &MapIdentity) -> io::Result<Answer> {
    let mut peer_identity: MapIdentity = [0; 16];
    let mut control_buffer = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut control_buffer);
    let received = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut peer_identity)],
        &mut control,
        RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
    );
    match received {
        Err(Errno::AGAIN) => return Ok(Answer::Pending),
        Err(Errno::CONNRESET) => return Ok(Answer::Closed),
        Err(error) => return Err(error.into()),
        Ok(message) if message.bytes == 0 => return Ok(Answer::Closed),
        Ok(_) => {}
    }
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(match socket {
        Some(socket) if peer_identity == *identity => Answer::Socket(socket),
        _ => Answer::Foreign,
    })
}

/// Passes the listening socket to every process of this user that has connected to it.
fn pass_to_peers(listener: &OwnedFd, identity: &MapIdentity) -> io::Result<()> {
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream = match rustix::net::accept_with(listener, flags) {
            Ok(stream) => stream,
            // No connection is waiting (another owner may have accepted it), or the peer has
            // exited.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let fds = [listener.as_fd()];
        let mut control_buffer = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut control_buffer);
        if getsockopt(&stream, PeerCredentials)?.uid() == Uid::effective().as_raw() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
            // Ignore a failure, because the peer may have exited.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::sendmsg(&stream, &[IoSlice::new(identity)], &mut control, flags);
        }
    }
}

fn abstract_name(block: Block) -> io::Result<SocketAddrUnix> {
    let octets = block.network().octets();
    let name = format!("vipool/{}.{}.{}", octets[0], octets[1], octets[2]);
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a block that depends on the pid, so that concurrent test runs use different blocks.
    fn test_block() -> Block {
        Block::from_end(std::process::id() % 4096)
    }

    #[test]
    fn claim_is_shared_within_one_map_and_outlives_its_first_owner() {
        let own_directory = tempfile::tempdir().unwrap();
        let other_directory = tempfile::tempdir().unwrap();
        let block = test_block();
        let mut first_claim = Claim::acquire(own_directory.path(), Some(block), |_| false).unwrap();
        assert_eq!(first_claim.block, block);

        let directory = own_directory.path().to_owned();
        let second_thread =
            std::thread::spawn(move || Claim::acquire(&directory, Some(block), |_| false).unwrap());
        while !second_thread.is_finished() {
            first_claim.serve().unwrap();
            std::thread::yield_now();
        }
        let mut second_claim = second_thread.join().unwrap();
        assert_eq!(second_claim.block, block);
        assert!(matches!(second_claim.state, ClaimState::Owned(_)));
        drop(first_claim);

        let directory = other_directory.path().to_owned();
        let other_map_thread =
            std::thread::spawn(move || Claim::acquire(&directory, Some(block), |_| false).unwrap());
        while !other_map_thread.is_finished() {
            second_claim.serve().unwrap();
            std::thread::yield_now();
        }
        let other_claim = other_map_thread.join().unwrap();
        assert_ne!(other_claim.block, block, "the block is owned for another map");
    }

    #[test]
    fn claim_is_taken_over_from_an_owner_that_exits_without_an_answer() {
        let directory = tempfile::tempdir().unwrap();
        let block = Block::from_end(4096 + std::process::id() % 4096);
        let first_claim = Claim::acquire(directory.path(), Some(block), |_| false).unwrap();
        let mut second_claim = Claim::acquire(directory.path(), Some(block), |_| false).unwrap();
        assert!(matches!(second_claim.state, ClaimState::Requested(_)));
        drop(first_claim);
        assert!(second_claim.serve().unwrap());
        assert!(matches!(second_claim.state, ClaimState::Owned(_)));
    }
}
