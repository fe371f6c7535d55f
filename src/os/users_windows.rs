//! Identifiers of users on Windows.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security::Authorization::ConvertSidToStringSidW;
use windows_sys::Win32::Security::{LookupAccountNameW, SidTypeUser};

/// A security identifier as text (`S-1-5-21-...`).
pub type UserId = String;

/// The groups of a user. This crate does not look up groups on Windows.
pub struct UserGroups;

impl UserGroups {
    /// Looks up the groups of a user.
    ///
    /// # Errors
    /// Always fails.
    pub fn of(_user: &str) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "rules for groups do not work on Windows"))
    }

    /// Returns whether the user is a member of the group with this name.
    ///
    /// # Errors
    /// Never fails.
    pub fn contains(&self, _group: &str) -> io::Result<bool> {
        Ok(false)
    }
}

/// The size of the buffer for a SID in bytes, and of the buffer for a domain name in UTF-16 units.
/// A SID has at most 68 bytes, and a domain name has at most 255 units.
const BUFFER_LENGTH: u32 = 256;

/// Returns the identifier of a user. The name can contain a domain (`DOMAIN\user`). Returns `None`
/// if Windows does not know the user. May block, because Windows queries the domain controller if
/// there is one.
pub fn user_id(user: &CStr) -> Option<UserId> {
    let name: Vec<u16> = user.to_str().ok()?.encode_utf16().chain([0]).collect();
    // The `u32` elements give the SID its alignment.
    let (mut sid, mut sid_size) = ([0u32; BUFFER_LENGTH as usize / 4], BUFFER_LENGTH);
    let (mut domain, mut domain_size) = ([0u16; BUFFER_LENGTH as usize], BUFFER_LENGTH);
    let mut account_type = 0;
    // SAFETY: the name ends with a 0. The system writes no more than the sizes that are passed. The
    // system allocates the text, which is read up to its final 0 and freed once.
    unsafe {
        let succeeded = LookupAccountNameW(
            null(),
            name.as_ptr(),
            sid.as_mut_ptr().cast(),
            &mut sid_size,
            domain.as_mut_ptr(),
            &mut domain_size,
            &mut account_type,
        );
        let mut text = null_mut();
        if succeeded == 0
            || account_type != SidTypeUser
            || ConvertSidToStringSidW(sid.as_mut_ptr().cast(), &mut text) == 0
        {
            return None;
        }
        let length = (0..).take_while(|index| *text.add(*index) != 0).count();
        let id = String::from_utf16(std::slice::from_raw_parts(text, length)).ok();
        LocalFree(text.cast());
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_user_has_an_identifier() {
        let user_name = std::ffi::CString::new(std::env::var("USERNAME").unwrap()).unwrap();
        let id = user_id(&user_name).unwrap();
        assert!(id.starts_with("S-1-"), "{id}");
        assert_eq!(user_id(c"no such user of ours"), None);
    }
}
