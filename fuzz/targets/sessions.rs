//! Any bytes as the file of users and clients, also under running readers and writers: no panic, no
//! endless loop, no read outside, and no address held twice.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| vipool_fuzz::use_damaged(vipool::map::SESSIONS_FILE, input));
