//! Uses arbitrary bytes as program paths and patterns, in the POSIX and the Windows style.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vipool::policy::PathStyle;
use vipool::policy::path::{file_name, pattern_kind, same_name, same_path, utf16_to_wtf8};

fuzz_target!(|input: &[u8]| {
    let (left, right) = input.split_at(input.len() / 2);
    for style in [PathStyle::Posix, PathStyle::Windows] {
        // Both comparisons are symmetric.
        assert_eq!(same_path(left, right, style), same_path(right, left, style));
        assert_eq!(same_name(left, right, style), same_name(right, left, style));
        if let Some(name) = file_name(left, style) {
            assert!(!name.is_empty() && same_name(name, name, style));
        }
    }
    let _ = pattern_kind(left);
    let units: Vec<u16> =
        input.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let mut buffer = [0; 64];
    let _ = utf16_to_wtf8(&units, &mut buffer);
});
