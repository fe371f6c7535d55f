//! The auxiliary vector of a process (getauxval(3)), read from proc(5).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Key of the value that is nonzero in secure-execution mode (ld.so(8)), for example in a
/// set-user-ID program.
pub const AT_SECURE: u64 = 23;
/// Key of the address of the path by which the program was started.
const AT_EXECFN: u64 = 31;

/// Reads the auxiliary vector of a process. Returns `None` if it cannot be read.
pub fn read_auxv(pid: u32) -> Option<BTreeMap<u64, u64>> {
    fs::read(format!("/proc/{pid}/auxv")).ok().map(|bytes| parse_auxv(&bytes))
}

/// Returns the path by which a process's program was started, exactly as execve(2) received it.
pub fn started_as(pid: u32) -> Option<PathBuf> {
    let auxv = read_auxv(pid)?;
    read_c_string(Path::new(&format!("/proc/{pid}/mem")), *auxv.get(&AT_EXECFN)?)
}

/// Parses an auxiliary vector: an array of pairs of words. A pair of zeros ends the array.
fn parse_auxv(bytes: &[u8]) -> BTreeMap<u64, u64> {
    let read_word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    bytes.chunks_exact(16).map(|pair| (read_word(&pair[..8]), read_word(&pair[8..]))).collect()
}

/// Reads the C string at `address` in a process's memory.
fn read_c_string(memory_file: &Path, address: u64) -> Option<PathBuf> {
    let mut bytes = [0; 4096];
    let length = fs::File::open(memory_file).ok()?.read_at(&mut bytes, address).ok()?;
    let end = bytes[..length].iter().position(|byte| *byte == 0)?;
    Some(PathBuf::from(OsString::from_vec(bytes[..end].to_vec())))
}
