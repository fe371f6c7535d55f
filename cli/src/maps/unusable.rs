//! The addresses that `vipool up` could not use, with the reasons.
//!
//! The file `unusable.json` beside the map contains these addresses, so that `vipool status` and
//! `vipool metrics` can report them. Without the file, all addresses are usable.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::{fs, io};

#[cfg(target_os = "linux")]
use anyhow::Context;
use serde::Serialize;
use vipool::trusted_file;

const UNUSABLE_ADDRESSES_FILE: &str = "unusable.json";
/// Maximum size of the file, enough for a hundred thousand addresses.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// An address that `vipool up` could not use. No session can lease it.
#[derive(Debug, Serialize)]
pub struct UnusableAddress {
    pub address: IpAddr,
    pub reason: String,
}

/// Converts each address and its reason to an [`UnusableAddress`].
pub fn from_reasons(reasons: BTreeMap<IpAddr, String>) -> Vec<UnusableAddress> {
    reasons.into_iter().map(|(address, reason)| UnusableAddress { address, reason }).collect()
}

/// Writes the addresses to the file beside the map, or removes the file if there are none.
///
/// # Errors
/// The file cannot be written or removed.
#[cfg(target_os = "linux")]
pub fn write(directory: &Path, reasons: &BTreeMap<IpAddr, String>) -> anyhow::Result<()> {
    let path = directory.join(UNUSABLE_ADDRESSES_FILE);
    let result = match reasons.is_empty() {
        true => fs::remove_file(&path),
        false => trusted_file::replace(&path, &serde_json::to_vec(reasons)?, 0o644),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound && reasons.is_empty() => Ok(()),
        result => result
            .with_context(|| format!("cannot record the unusable addresses in {}", path.display())),
    }
}

/// Reads the addresses from the file beside the map. Returns no addresses if the file is missing or
/// cannot be used.
pub fn read(directory: &Path) -> Vec<UnusableAddress> {
    let bytes = trusted_file::read(&directory.join(UNUSABLE_ADDRESSES_FILE), MAX_FILE_BYTES).ok();
    let reasons = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    from_reasons(reasons.unwrap_or_default())
}
