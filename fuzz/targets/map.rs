//! Arbitrary bytes as the map file, also under running readers and writers: no panic, no endless
//! loop, no access out of bounds, and no address leased twice.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| vipool_fuzz::use_corrupted(vipool::map::MAP_FILE, input));
