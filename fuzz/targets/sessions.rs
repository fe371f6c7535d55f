//! Uses arbitrary bytes as the sessions file, also while readers and writers have it open. No call
//! may panic, loop endlessly, access memory out of bounds, or lease an address twice.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| vipool_fuzz::exercise_corrupted_file(
    vipool::map::SESSIONS_FILE,
    input
));
