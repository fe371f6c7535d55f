//! Users, as Windows knows them.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security::Authorization::ConvertSidToStringSidW;
use windows_sys::Win32::Security::{LookupAccountNameW, SidTypeUser};

/// A security identifier as text (`S-1-5-21-...`).
pub type UserId = String;

/// More than any SID (68 bytes) and any name of a domain (255 characters) take.
const ROOM: u32 = 256;

/// The identifier of a user, who may be written `DOMAIN\\user`; `None` for one that Windows does not
/// know. Asks the domain's controller if there is one: it may block.
pub fn user_id(user: &CStr) -> Option<UserId> {
    let name: Vec<u16> = user.to_str().ok()?.encode_utf16().chain([0]).collect();
    // Words, for the alignment of a SID.
    let (mut sid, mut sid_size) = ([0u32; ROOM as usize / 4], ROOM);
    let (mut domain, mut domain_size) = ([0u16; ROOM as usize], ROOM);
    let mut kind = 0;
    // SAFETY: the name ends in 0; no more is written than there is room for; the text that the
    // system allocated is read up to its final 0 and freed once.
    unsafe {
        let known = LookupAccountNameW(
            null(),
            name.as_ptr(),
            sid.as_mut_ptr().cast(),
            &mut sid_size,
            domain.as_mut_ptr(),
            &mut domain_size,
            &mut kind,
        );
        let mut text = null_mut();
        if known == 0
            || kind != SidTypeUser
            || ConvertSidToStringSidW(sid.as_mut_ptr().cast(), &mut text) == 0
        {
            return None;
        }
        let length = (0..).take_while(|at| *text.add(*at) != 0).count();
        let id = String::from_utf16(std::slice::from_raw_parts(text, length)).ok();
        LocalFree(text.cast());
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_identifiers() {
        let own = std::ffi::CString::new(std::env::var("USERNAME").unwrap()).unwrap();
        let id = user_id(&own).unwrap();
        assert!(id.starts_with("S-1-"), "{id}");
        assert_eq!(user_id(c"no such user of ours"), None);
    }
}
