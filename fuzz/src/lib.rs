//! What the fuzz targets share.

/// Bytes made from fuzzer input: the input itself, or a valid file with the changes that the
/// input spells, so that what is deep inside is reached too. Each change is three bytes: where
/// (two, within the length) and what to flip.
pub fn damaged(input: &[u8], valid: &[u8]) -> Vec<u8> {
    let Some((first, rest)) = input.split_first() else { return Vec::new() };
    if first % 4 == 0 {
        return rest.to_vec();
    }
    let mut bytes = valid.to_vec();
    for change in rest.chunks_exact(3) {
        // Beginnings hold the headers, and matter most.
        let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let length = if first % 4 == 1 { bytes.len().min(256) } else { bytes.len() };
        if length > 0 {
            bytes[place % length] ^= change[2];
        }
    }
    if first % 4 == 3 {
        bytes.truncate(bytes.len() * usize::from(*first) / 256);
    }
    bytes
}
