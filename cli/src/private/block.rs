//! Which /24 of 127.0.0.0/8 is this user's.
//!
//! 127.0.0.0/8 is one per network namespace, and so are abstract AF_UNIX names (unix(7)): the
//! block 127.x.y.0/24 is whose processes listen on the name `vipool/127.x.y`. Invariants:
//!
//! - The name goes with the last process that has the listening socket open; nothing is left
//!   behind by `kill -9`.
//! - Every `vipool run` of one private map comes to have the *same* socket: it connects to the
//!   name, and whoever has the socket hands it on (SCM_RIGHTS). So the name is held without a gap
//!   for as long as any of them runs, in whatever order they end.
//! - A holder is known by the kernel's word on its uid (SO_PEERCRED) and says which map it holds
//!   the block for (device and inode of the map's directory): another user's block, and another
//!   map of the same user, are left alone.
//!
//! A session that is open while nothing runs in it has no holder: its addresses are on no socket
//! then. The next `run` asks for the same block again.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
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
use vipool::range::Range;

/// Private blocks are 127.128.0.0/24 to 127.254.255.0/24: what farms use by custom is below, and
/// the last /16 ends in the broadcast address.
const FIRST: u32 = 127 << 16 | 128 << 8;
const COUNT: u32 = 127 * 256;
/// So many blocks are asked for before the search is given up.
const TRIES: u32 = 1024;
/// How long a holder has to answer; one that is stopped is taken at the kernel's word on its uid.
const ANSWER: Duration = Duration::from_millis(500);

/// A /24 of 127.0.0.0/8, by its upper 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(u32);

impl Block {
    /// The block that an address is in.
    pub fn of(address: Ipv4Addr) -> Self {
        Self(address.to_bits() >> 8)
    }

    /// Its usable addresses; .0 and .255 look like network and broadcast to many a program.
    pub fn range(self) -> Range {
        let at = |last: u8| Ipv4Addr::from_bits(self.0 << 8 | u32::from(last)).into();
        Range::new(at(1), at(254)).expect("in order")
    }

    /// Its first address, which stands for it in files and messages.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 << 8)
    }

    /// The blocks to ask for, in order: the preferred one, then all from a place that is the
    /// seed's own (multiplication by 2^32 over the golden ratio spreads neighbouring numbers).
    fn candidates(preferred: Option<Block>, seed: u32) -> impl Iterator<Item = Block> {
        let start = (u64::from(seed.wrapping_mul(0x9e37_79b9)) * u64::from(COUNT)) >> 32;
        let all = (0..TRIES).map(move |i| Block(FIRST + (start as u32 + i) % COUNT));
        preferred.into_iter().chain(all)
    }

    fn name(self) -> io::Result<SocketAddrUnix> {
        let [a, b, c, _] = self.network().octets();
        Ok(SocketAddrUnix::new_abstract_name(format!("vipool/{a}.{b}.{c}").as_bytes())?)
    }
}

/// A block that is this user's while this value (or a copy of it in another process) lives.
#[derive(Debug)]
pub struct Claim {
    /// The block.
    pub block: Block,
    /// What the block is held for.
    identity: [u8; 16],
    socket: State,
}

#[derive(Debug)]
enum State {
    /// We have the listening socket, and hand it on to who connects.
    Holding(OwnedFd),
    /// A holder of ours has been asked for it and has not answered yet.
    Asking(OwnedFd),
    /// Lost to somebody else, which was said.
    Lost,
}

/// What asking for a name gave.
enum Answer {
    Taken(State),
    Foreign,
}

impl Claim {
    /// Claims a block for the map in `directory`: `preferred` if it can be had, else the first
    /// free one that is not to be `avoid`ed, beginning at a place that depends on `seed`.
    pub fn take(
        directory: &Path,
        seed: u32,
        preferred: Option<Block>,
        avoid: impl Fn(Block) -> bool,
    ) -> io::Result<Self> {
        let metadata = fs::metadata(directory)?;
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&metadata.dev().to_ne_bytes());
        identity[8..].copy_from_slice(&metadata.ino().to_ne_bytes());
        for block in Block::candidates(preferred, seed) {
            if avoid(block) {
                continue;
            }
            if let Answer::Taken(socket) = ask(block, &identity)? {
                return Ok(Self { block, identity, socket });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{TRIES} blocks of 127.0.0.0/8 were tried and all are held by others"),
        ))
    }

    /// What to wait on for reading before [`Claim::serve`]; nothing once the block is lost.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.socket {
            State::Holding(fd) | State::Asking(fd) => Some(fd.as_fd()),
            State::Lost => None,
        }
    }

    /// Hands the socket on to whoever asks, or takes it from who had it. Never blocks for longer
    /// than a holder's answer takes. Returns `false` when the block was lost to somebody else.
    pub fn serve(&mut self) -> io::Result<bool> {
        match &self.socket {
            State::Holding(listener) => hand_on(listener, &self.identity)?,
            State::Asking(stream) => match receive(stream, &self.identity)? {
                Received::Socket(listener) => self.socket = State::Holding(listener),
                Received::Nothing => {}
                Received::Gone => match ask(self.block, &self.identity)? {
                    Answer::Taken(socket) => self.socket = socket,
                    Answer::Foreign => self.socket = State::Lost,
                },
                Received::Foreign => self.socket = State::Lost,
            },
            State::Lost => {}
        }
        Ok(!matches!(self.socket, State::Lost))
    }
}

/// Takes a block's name, or a share of it from a process of ours that has it.
fn ask(block: Block, identity: &[u8; 16]) -> io::Result<Answer> {
    // Twice: the holder may go between our bind and our connect.
    for _ in 0..2 {
        let listener = socket()?;
        match rustix::net::bind(&listener, &block.name()?) {
            Ok(()) => {
                rustix::net::listen(&listener, 64)?;
                return Ok(Answer::Taken(State::Holding(listener)));
            }
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = socket()?;
        match rustix::net::connect(&stream, &block.name()?) {
            Ok(()) => return question(stream, identity),
            // Bound and not listening yet, or gone: ask again. Its queue full: not one of ours.
            Err(Errno::CONNREFUSED) => std::thread::sleep(Duration::from_millis(5)),
            Err(Errno::AGAIN) => return Ok(Answer::Foreign),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Answer::Foreign)
}

/// Waits a moment for the holder at the other end to hand its socket on.
fn question(stream: OwnedFd, identity: &[u8; 16]) -> io::Result<Answer> {
    if getsockopt(&stream, PeerCredentials)?.uid() != Uid::effective().as_raw() {
        return Ok(Answer::Foreign);
    }
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(ANSWER).expect("a small number");
    nix::poll::poll(&mut fds, timeout)?;
    Ok(match receive(&stream, identity)? {
        Received::Socket(listener) => Answer::Taken(State::Holding(listener)),
        Received::Nothing | Received::Gone => Answer::Taken(State::Asking(stream)),
        Received::Foreign => Answer::Foreign,
    })
}

enum Received {
    Socket(OwnedFd),
    Nothing,
    Gone,
    Foreign,
}

fn receive(stream: &OwnedFd, identity: &[u8; 16]) -> io::Result<Received> {
    let mut theirs = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut theirs)],
        &mut control,
        RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
    );
    match message {
        Err(Errno::AGAIN) => return Ok(Received::Nothing),
        Err(Errno::CONNRESET) => return Ok(Received::Gone),
        Err(error) => return Err(error.into()),
        Ok(message) if message.bytes == 0 => return Ok(Received::Gone),
        Ok(_) => {}
    }
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(match socket {
        Some(socket) if theirs == *identity => Received::Socket(socket),
        _ => Received::Foreign,
    })
}

/// Gives everybody of our uid who waits a copy of the socket.
fn hand_on(listener: &OwnedFd, identity: &[u8; 16]) -> io::Result<()> {
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream = match rustix::net::accept_with(listener, flags) {
            Ok(stream) => stream,
            // Another of ours was faster, or who asked has gone.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let fds = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if getsockopt(&stream, PeerCredentials)?.uid() == Uid::effective().as_raw() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
            // Who asked may be gone: that is no failure of ours.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::sendmsg(&stream, &[IoSlice::new(identity)], &mut control, flags);
        }
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks at the top of the private range, by pid, so that runs side by side do not meet.
    fn block() -> Block {
        Block(FIRST + COUNT - 1 - std::process::id() % 4096)
    }

    #[test]
    fn a_claim_is_handed_on_and_outlives_who_made_it() {
        let ours = tempfile::tempdir().unwrap();
        let another = tempfile::tempdir().unwrap();
        let mut first = Claim::take(ours.path(), 0, Some(block()), |_| false).unwrap();
        assert_eq!(first.block, block());

        let directory = ours.path().to_owned();
        let second = std::thread::spawn(move || {
            Claim::take(&directory, 0, Some(block()), |_| false).unwrap()
        });
        while !second.is_finished() {
            first.serve().unwrap();
            std::thread::yield_now();
        }
        let mut second = second.join().unwrap();
        assert_eq!(second.block, block());
        assert!(matches!(second.socket, State::Holding(_)));
        drop(first);

        let directory = another.path().to_owned();
        let other = std::thread::spawn(move || {
            Claim::take(&directory, 0, Some(block()), |_| false).unwrap()
        });
        while !other.is_finished() {
            second.serve().unwrap();
            std::thread::yield_now();
        }
        assert_ne!(other.join().unwrap().block, block(), "held for another map");
    }

    #[test]
    fn a_holder_that_goes_without_answering_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let block = Block(block().0 - 4096);
        let first = Claim::take(directory.path(), 0, Some(block), |_| false).unwrap();
        let mut second = Claim::take(directory.path(), 0, Some(block), |_| false).unwrap();
        assert!(matches!(second.socket, State::Asking(_)));
        drop(first);
        assert!(second.serve().unwrap());
        assert!(matches!(second.socket, State::Holding(_)));
    }

    #[test]
    fn private_blocks_are_loopback_and_apart_from_the_host() {
        for uid in [0, 1, 1000, 1001, u32::MAX - 1] {
            for block in Block::candidates(None, uid) {
                let first = block.network();
                assert!(first.is_loopback() && first.octets()[1] >= 128 && first.octets()[1] < 255);
            }
        }
    }
}
