//! Users and groups from the user database of the system.

use std::ffi::{CStr, CString};

/// A user ID.
pub type UserId = u32;

/// The type of a group ID in getgrouplist(3).
#[cfg(target_vendor = "apple")]
type GroupId = libc::c_int;
#[cfg(not(target_vendor = "apple"))]
type GroupId = libc::gid_t;

/// An upper limit for the number of groups of a user.
const MAX_GROUPS: usize = 65_536;

/// Returns the names of a user's groups, including the primary group. Leaves out groups without a
/// name. Returns an empty list if the system does not know the user.
///
/// The function may block: it queries the sources in nsswitch.conf(5), which can include a server
/// on the network. The function is thread-safe. Hooked calls must not use it.
pub fn group_names(user: &str) -> Vec<String> {
    let Ok(user) = CString::new(user) else { return Vec::new() };
    let Some((_, primary)) = user_and_primary_group(&user) else { return Vec::new() };
    let groups = group_ids(&user, primary);
    groups.into_iter().filter_map(group_name).collect()
}

/// Returns the ID of a user, or `None` if the system does not know the user. May block, like
/// `group_names`.
#[must_use]
pub fn user_id(user: &CStr) -> Option<UserId> {
    user_and_primary_group(user).map(|(id, _)| id)
}

/// Returns the ID of a user and the ID of the user's primary group.
#[allow(unsafe_code)]
fn user_and_primary_group(user: &CStr) -> Option<(libc::uid_t, libc::gid_t)> {
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
fn group_ids(user: &CStr, primary: libc::gid_t) -> Vec<GroupId> {
    let mut groups: Vec<GroupId> = vec![0; 64];
    loop {
        let mut count = groups.len() as libc::c_int;
        // SAFETY: the name ends with NUL, and the function writes at most `count` groups.
        let result = unsafe {
            libc::getgrouplist(user.as_ptr(), primary as GroupId, groups.as_mut_ptr(), &mut count)
        };
        if result >= 0 || groups.len() >= MAX_GROUPS {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return groups;
        }
        groups.resize(groups.len() * 2, 0);
    }
}

#[allow(unsafe_code)]
fn group_name(group: GroupId) -> Option<String> {
    with_growing_buffer(|buffer| {
        let mut entry_pointer = std::ptr::null_mut();
        // SAFETY: a group consists of numbers and pointers, so all-zero bytes are valid.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        // SAFETY: every pointer is valid for the accesses of getgrgid_r(3), and the length is that
        // of the buffer.
        let status = unsafe {
            libc::getgrgid_r(
                group as libc::gid_t,
                &mut entry,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &mut entry_pointer,
            )
        };
        // SAFETY: an entry was found, so `gr_name` points to a NUL-terminated string in `buffer`.
        let name = (!entry_pointer.is_null()).then(|| unsafe { CStr::from_ptr(entry.gr_name) });
        (status, name.and_then(|name| name.to_str().ok()).map(str::to_owned))
    })
}

/// Repeats the call with a larger buffer while the result does not fit.
fn with_growing_buffer<T>(
    mut query: impl FnMut(&mut [u8]) -> (libc::c_int, Option<T>),
) -> Option<T> {
    let mut buffer = vec![0; 4096];
    loop {
        match query(&mut buffer) {
            (libc::ERANGE, _) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            (_, result) => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_a_member_of_group_0() {
        let group = group_name(0).expect("group 0 has a name");
        assert!(group_names("root").contains(&group));
    }

    #[test]
    fn unknown_user_has_no_groups() {
        for user in ["", "no-such-user-of-ours", "a\0b"] {
            assert_eq!(group_names(user), [""; 0], "{user:?}");
        }
        assert_eq!(user_id(c"root"), Some(0));
        assert_eq!(user_id(c"no such user \xff\n"), None);
        assert_eq!(user_id(c""), None);
    }
}
