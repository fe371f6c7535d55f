//! Socket addresses for overlapped calls. These addresses stay in memory until the process exits.
//!
//! Wine reads the destination of an overlapped send when it sends the datagram, which can be after
//! the call has returned. So the hook layer must not pass an address on its own stack.
//!
//! The table holds each address once and never removes one. A session has few addresses, each with
//! 65536 ports. The flow information and the scope of an IPv6 destination come from the program, so
//! a program that changes them makes the table grow. The memory comes from the system, not from the
//! heap, and the table has no lock.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use vipool::raw::pages;

use crate::last_error::LastError;
use crate::socket::SockaddrBuf;

/// An address in the list of a bucket.
struct Node {
    address: SockaddrBuf,
    /// The node that was the first of the list before this node; NULL at the end.
    next: *mut Node,
}

const BUCKET_COUNT: usize = 1024;

/// The first node of each list. A published node never changes.
static BUCKETS: [AtomicPtr<Node>; BUCKET_COUNT] =
    [const { AtomicPtr::new(ptr::null_mut()) }; BUCKET_COUNT];

/// The size of a chunk in bytes: Windows reserves address space in units of 64 KiB.
const CHUNK_SIZE: usize = 64 << 10;
const NODES_PER_CHUNK: usize = (CHUNK_SIZE - size_of::<usize>()) / size_of::<Node>();

/// Memory for nodes. All-zero bytes are a chunk without used nodes.
struct Chunk {
    used: AtomicUsize,
    nodes: [UnsafeCell<MaybeUninit<Node>>; NODES_PER_CHUNK],
}

/// The chunk from which nodes are allocated; NULL before the first allocation.
static CURRENT_CHUNK: AtomicPtr<Chunk> = AtomicPtr::new(ptr::null_mut());

/// Returns a copy of an address that stays in memory. Equal addresses have the same copy. Returns
/// `None` if the system has no memory. Preserves the last error.
pub fn intern(address: &SockaddrBuf) -> Option<&'static SockaddrBuf> {
    let saved_error = LastError::save();
    let interned = intern_in(&BUCKETS[bucket_index(address)], address);
    saved_error.restore();
    interned
}

fn intern_in(bucket: &AtomicPtr<Node>, address: &SockaddrBuf) -> Option<&'static SockaddrBuf> {
    let mut new_node: Option<NonNull<Node>> = None;
    let mut first_node = bucket.load(Ordering::Acquire);
    loop {
        let mut next_node = first_node.cast_const();
        // SAFETY: the pointer is NULL or refers to a published node, which stays in memory and
        // never changes.
        while let Some(node) = unsafe { next_node.as_ref() } {
            if node.address == *address {
                // A node that this call has allocated stays unused, which is rare and harmless.
                return Some(&node.address);
            }
            next_node = node.next;
        }
        let node = match new_node {
            Some(node) => node,
            None => *new_node.insert(allocate()?),
        };
        // SAFETY: the node belongs to this call alone until it is published.
        unsafe { node.write(Node { address: *address, next: first_node }) };
        let exchange =
            bucket.compare_exchange(first_node, node.as_ptr(), Ordering::AcqRel, Ordering::Acquire);
        match exchange {
            // SAFETY: the node is written and published, so it never changes again.
            Ok(_) => return Some(unsafe { &node.as_ref().address }),
            Err(other_node) => first_node = other_node,
        }
    }
}

/// Returns memory for a node that belongs to the caller alone; `None` if the system has no memory.
fn allocate() -> Option<NonNull<Node>> {
    loop {
        let chunk = CURRENT_CHUNK.load(Ordering::Acquire);
        // SAFETY: the pointer is NULL or refers to a chunk, which stays in memory.
        if let Some(chunk) = unsafe { chunk.as_ref() } {
            let index = chunk.used.fetch_add(1, Ordering::Relaxed);
            if let Some(node) = chunk.nodes.get(index) {
                return NonNull::new(node.get().cast());
            }
        }
        const { assert!(align_of::<Chunk>() <= pages::MIN_PAGE_SIZE) };
        let new_chunk = pages::map(size_of::<Chunk>()).ok()?;
        let exchange = CURRENT_CHUNK.compare_exchange(
            chunk,
            new_chunk.cast().as_ptr(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if exchange.is_err() {
            // SAFETY: the pages were just mapped with this length, and no other thread has their
            // address.
            unsafe { pages::unmap(new_chunk, size_of::<Chunk>()) };
        }
    }
}

/// Returns the index of the bucket for an address.
fn bucket_index(address: &SockaddrBuf) -> usize {
    let hash = address.as_bytes().iter().fold(0u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193) // the prime of the FNV-1a hash
    });
    (hash ^ hash >> 16) as usize % BUCKET_COUNT
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn equal_addresses_have_one_copy_in_all_threads() {
        let addresses: Vec<SockaddrBuf> = (0..2 * NODES_PER_CHUNK as u16 + 9)
            .flat_map(|port| {
                [
                    SocketAddr::from(([127, 77, 0, 2], port)),
                    SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
                ]
            })
            .map(SockaddrBuf::new)
            .collect();
        let intern_all = || -> Vec<usize> {
            let interned = addresses.iter().map(|address| {
                let interned = intern(address).unwrap();
                assert_eq!(interned.as_bytes(), address.as_bytes());
                interned.as_ptr() as usize
            });
            interned.collect()
        };
        let copies = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(intern_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(copies.iter().all(|copy| *copy == copies[0]));
        let mut different_copies = copies[0].clone();
        different_copies.sort_unstable();
        different_copies.dedup();
        assert_eq!(different_copies.len(), addresses.len());
    }
}
