//! Loopback blocks. A loopback block is a /24 network of 127.0.0.0/8, and contains the addresses of
//! one private map.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;

use vipool::range::Range;

/// The upper 24 bits of the first private block. The private blocks are 127.128.0.0/24 to
/// 127.254.255.0/24. The lower half of 127.0.0.0/8 is left for farm files, and the last /16
/// contains the broadcast address.
const FIRST_BLOCK: u32 = 127 << 16 | 128 << 8;
pub const BLOCK_COUNT: u32 = 127 * 256;

/// A /24 of 127.0.0.0/8, identified by its upper 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(u32);

impl Block {
    /// Returns the block that contains `address`.
    pub fn containing(address: Ipv4Addr) -> Self {
        Self(address.to_bits() >> 8)
    }

    /// Returns the usable addresses. Many programs treat .0 and .255 as network and broadcast
    /// addresses, so the range does not contain these two addresses.
    pub fn range(self) -> Range {
        let address =
            |last_octet: u8| Ipv4Addr::from_bits(self.0 << 8 | u32::from(last_octet)).into();
        Range::new(address(1), address(254)).expect("in order")
    }

    /// Returns the first address, which identifies the block in files and messages.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 << 8)
    }

    /// Returns all private blocks, beginning with a random one.
    ///
    /// A user claims a block by binding an abstract Unix socket whose name contains the block. The
    /// first candidate is random, so another user cannot prevent the claim by claiming a few
    /// predictable blocks.
    pub fn candidates() -> impl Iterator<Item = Block> {
        // The standard library seeds the hasher with random bytes of the operating system.
        let random = RandomState::new().build_hasher().finish();
        let start = (random % u64::from(BLOCK_COUNT)) as u32;
        (0..BLOCK_COUNT).map(move |index| Block(FIRST_BLOCK + (start + index) % BLOCK_COUNT))
    }

    /// Returns a private block, counted from the end: 0 is the last block.
    #[cfg(test)]
    pub fn from_end(index: u32) -> Self {
        Self(FIRST_BLOCK + BLOCK_COUNT - 1 - index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn candidates_are_all_private_blocks_from_a_random_start() {
        let blocks: Vec<Block> = Block::candidates().collect();
        for block in &blocks {
            let network = block.network();
            assert!(
                network.is_loopback() && network.octets()[1] >= 128 && network.octets()[1] < 255
            );
        }
        let distinct_blocks: BTreeSet<u32> = blocks.iter().map(|block| block.0).collect();
        assert_eq!(distinct_blocks.len(), BLOCK_COUNT as usize);
        // The probability that ten random orders begin with the same block is below 2^-100.
        assert!((0..10).any(|_| Block::candidates().next() != Some(blocks[0])));
    }
}
