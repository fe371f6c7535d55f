//! Users and groups from the user database of the system.

use std::ffi::{CStr, CString};
use std::io;

/// A user ID.
pub type UserId = u32;

/// The type of a group ID in getgrouplist(3).
#[cfg(target_vendor = "apple")]
type GroupId = libc::c_int;
#[cfg(not(target_vendor = "apple"))]
type GroupId = libc::gid_t;

/// An upper limit for the number of groups of a user.
const MAX_GROUPS: usize = 65_536;

/// The groups of a user, including the primary group.
///
/// The methods are thread-safe. They may block, because they query the sources in nsswitch.conf(5),
/// which can include a server on the network. Hooked calls must not use the methods.
pub struct UserGroups {
    ids: Vec<GroupId>,
}

impl UserGroups {
    /// Looks up the groups of a user. A user that the system does not know has no groups.
    ///
    /// # Errors
    /// Fails if a source of the user database cannot be queried. The groups are then unknown.
    pub fn of(user: &str) -> io::Result<Self> {
        let Ok(user) = CString::new(user) else { return Ok(Self { ids: Vec::new() }) };
        let ids = match user_and_primary_group(&user)? {
            Some((_, primary_group)) => group_ids(&user, primary_group)?,
            None => Vec::new(),
        };
        Ok(Self { ids })
    }

    /// Returns whether the user is a member of the group with this name.
    ///
    /// # Errors
    /// Fails if a source of the group database cannot be queried. The answer is then unknown.
    pub fn contains(&self, group: &str) -> io::Result<bool> {
        let Ok(group) = CString::new(group) else { return Ok(false) };
        Ok(group_id(&group)?.is_some_and(|group| self.ids.contains(&(group as GroupId))))
    }
}

/// Returns the ID of a user. Returns `None` if the system does not know the user or the lookup
/// fails. May block, because the system can query a server.
#[must_use]
pub fn user_id(user: &CStr) -> Option<UserId> {
    user_and_primary_group(user).ok().flatten().map(|(id, _)| id)
}

/// Returns the ID of a user and the ID of the user's primary group. Returns `None` if the user does
/// not exist.
#[allow(unsafe_code)]
fn user_and_primary_group(user: &CStr) -> io::Result<Option<(libc::uid_t, libc::gid_t)>> {
    with_growing_buffer(|buffer| {
        let mut entry_pointer = std::ptr::null_mut();
        // SAFETY: a passwd consists of numbers and pointers, so all-zero bytes are valid.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        // SAFETY: every pointer is valid for the accesses of getpwnam_r(3), and the length is that
        // of the buffer.
        let status = unsafe {
            libc::getpwnam_r(
                user.as_ptr(),
                &mut entry,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &mut entry_pointer,
            )
        };
        (status, (!entry_pointer.is_null()).then_some((entry.pw_uid, entry.pw_gid)))
    })
}

#[allow(unsafe_code)]
fn group_ids(user: &CStr, primary_group: libc::gid_t) -> io::Result<Vec<GroupId>> {
    let mut groups: Vec<GroupId> = vec![0; 64];
    loop {
        let mut count = groups.len() as libc::c_int;
        // SAFETY: the name ends with NUL, and the function writes at most `count` groups.
        let result = unsafe {
            libc::getgrouplist(
                user.as_ptr(),
                primary_group as GroupId,
                groups.as_mut_ptr(),
                &mut count,
            )
        };
        if result >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups);
        }
        if groups.len() >= MAX_GROUPS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        groups.resize(groups.len() * 2, 0);
    }
}

#[allow(unsafe_code)]
fn group_id(group: &CStr) -> io::Result<Option<libc::gid_t>> {
    with_growing_buffer(|buffer| {
        let mut entry_pointer = std::ptr::null_mut();
        // SAFETY: a group consists of numbers and pointers, so all-zero bytes are valid.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        // SAFETY: every pointer is valid for the accesses of getgrnam_r(3), and the length is that
        // of the buffer.
        let status = unsafe {
            libc::getgrnam_r(
                group.as_ptr(),
                &mut entry,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &mut entry_pointer,
            )
        };
        (status, (!entry_pointer.is_null()).then_some(entry.gr_gid))
    })
}

/// Calls `query`, and repeats the call with a larger buffer while the result does not fit. A status
/// of 0 without a result means that the entry does not exist. Any other status is an error, for
/// example if a source of the database did not answer.
fn with_growing_buffer<T>(
    mut query: impl FnMut(&mut [u8]) -> (libc::c_int, Option<T>),
) -> io::Result<Option<T>> {
    let mut buffer = vec![0; 4096];
    loop {
        match query(&mut buffer) {
            (libc::ERANGE, _) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            (0, result) => return Ok(result),
            (status, _) => return Err(io::Error::from_raw_os_error(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_a_member_of_its_group_only() {
        let groups = UserGroups::of("root").unwrap();
        let root_group = if cfg!(target_vendor = "apple") { "wheel" } else { "root" };
        assert!(groups.contains(root_group).unwrap());
        for group in ["nogroup", "no-such-group-of-ours", "", "a\0b"] {
            assert!(!groups.contains(group).unwrap(), "{group:?}");
        }
    }

    #[test]
    fn unknown_user_has_no_groups() {
        for user in ["", "no-such-user-of-ours", "a\0b"] {
            assert!(UserGroups::of(user).unwrap().ids.is_empty(), "{user:?}");
        }
        assert_eq!(user_id(c"root"), Some(0));
        assert_eq!(user_id(c"no such user \xff\n"), None);
        assert_eq!(user_id(c""), None);
    }

    #[test]
    fn failed_lookup_is_not_an_absent_entry() {
        assert_eq!(with_growing_buffer(|_| (0, None::<u32>)).unwrap(), None);
        let error = with_growing_buffer(|_| (libc::EIO, None::<u32>)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let too_large_error = with_growing_buffer(|_| (libc::ERANGE, None::<u32>)).unwrap_err();
        assert_eq!(too_large_error.raw_os_error(), Some(libc::ERANGE));
    }
}
