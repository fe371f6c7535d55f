//! Loopback blocks. A loopback block is a /24 network of 127.0.0.0/8, and contains the addresses of
//! one private map.

use std::net::Ipv4Addr;

use vipool::range::Range;

/// Private blocks are 127.128.0.0/24 to 127.254.255.0/24. The lower half of 127.0.0.0/8 is left for
/// farm files, and the last /16 contains the broadcast address.
const FIRST_BLOCK: u32 = 127 << 16 | 128 << 8;
const BLOCK_COUNT: u32 = 127 * 256;
/// Maximum number of blocks to try.
pub const MAX_ATTEMPTS: u32 = 1024;

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

    /// Returns the blocks to try, in order. The preferred block is the first, and [`MAX_ATTEMPTS`]
    /// consecutive blocks follow. The seed determines the first of the consecutive blocks.
    ///
    /// Multiplicative hashing (2^32 divided by the golden ratio) maps neighbouring seeds to distant
    /// blocks.
    pub fn candidates(preferred: Option<Block>, seed: u32) -> impl Iterator<Item = Block> {
        let hash = u64::from(seed.wrapping_mul(0x9e37_79b9));
        let start = (hash * u64::from(BLOCK_COUNT)) >> 32;
        let following = (0..MAX_ATTEMPTS)
            .map(move |offset| Block(FIRST_BLOCK + (start as u32 + offset) % BLOCK_COUNT));
        preferred.into_iter().chain(following)
    }

    /// Returns the block `index` places before the last private block.
    #[cfg(test)]
    pub fn from_end(index: u32) -> Self {
        Self(FIRST_BLOCK + BLOCK_COUNT - 1 - index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_loopback_addresses_in_the_upper_half() {
        for uid in [0, 1, 1000, 1001, u32::MAX - 1] {
            for block in Block::candidates(None, uid) {
                let network = block.network();
                assert!(network.is_loopback() && (128..255).contains(&network.octets()[1]));
            }
        }
    }
}
