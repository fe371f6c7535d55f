//! Users and groups from the user database of the system.

use std::ffi::{CStr, CString};

/// A user ID.
pub type UserId = u32;

/// The type of a group ID in getgrouplist(3).
#[cfg(target_vendor = "apple")]
type Group = libc::c_int;
#[cfg(not(target_vendor = "apple"))]
type Group = libc::gid_t;

/// An upper limit for the number of groups of a user.
const MAX_GROUPS: usize = 65_536;

/// Returns the names of a user's groups, including the primary group. Leaves out groups without a
/// name. Returns an empty list if the system does not know the user.
///
/// The function may block: it queries the sources in nsswitch.conf(5), which can include a server
/// on the network. It is thread-safe. Hooked calls must not use it.
pub fn group_names(user: &str) -> Vec<String> {
    let Ok(user) = CString::new(user) else { return Vec::new() };
    let Some((_, primary)) = numbers_of_user(&user) else { return Vec::new() };
    let numbers = numbers_of(&user, primary);
    numbers.into_iter().filter_map(name_of).collect()
}

/// Returns the ID of a user, or `None` if the system does not know the user. May block, like
/// `group_names`.
#[must_use]
pub fn user_id(user: &CStr) -> Option<UserId> {
    numbers_of_user(user).map(|(id, _)| id)
}

/// Returns the ID of a user and the ID of the user's primary group.
#[allow(unsafe_code)]
fn numbers_of_user(user: &CStr) -> Option<(libc::uid_t, libc::gid_t)> {
    with_buffer(|buffer| {
        let mut found = std::ptr::null_mut();
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
                &mut found,
            )
        };
        (status, (!found.is_null()).then_some((entry.pw_uid, entry.pw_gid)))
    })
}

#[allow(unsafe_code)]
fn numbers_of(user: &CStr, primary: libc::gid_t) -> Vec<Group> {
    let mut numbers: Vec<Group> = vec![0; 64];
    loop {
        let mut count = numbers.len() as libc::c_int;
        // SAFETY: the name ends with NUL, and the function writes at most `count` groups.
        let all = unsafe {
            libc::getgrouplist(user.as_ptr(), primary as Group, numbers.as_mut_ptr(), &mut count)
        };
        if all >= 0 || numbers.len() >= MAX_GROUPS {
            numbers.truncate(usize::try_from(count).unwrap_or(0));
            return numbers;
        }
        numbers.resize(numbers.len() * 2, 0);
    }
}

#[allow(unsafe_code)]
fn name_of(group: Group) -> Option<String> {
    with_buffer(|buffer| {
        let mut found = std::ptr::null_mut();
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
                &mut found,
            )
        };
        // SAFETY: the entry that was found has a name in `buffer`, which ends with NUL.
        let name = (!found.is_null()).then(|| unsafe { CStr::from_ptr(entry.gr_name) });
        (status, name.and_then(|name| name.to_str().ok()).map(str::to_owned))
    })
}

/// Repeats the call with a larger buffer while the result does not fit.
fn with_buffer<T>(mut call: impl FnMut(&mut [u8]) -> (libc::c_int, Option<T>)) -> Option<T> {
    let mut buffer = vec![0; 4096];
    loop {
        match call(&mut buffer) {
            (libc::ERANGE, _) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            (_, found) => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_in_its_own_group() {
        let group = name_of(0).expect("group 0 has a name");
        assert!(group_names("root").contains(&group));
    }

    #[test]
    fn who_is_not_known_is_in_no_group() {
        for user in ["", "no-such-user-of-ours", "a\0b"] {
            assert_eq!(group_names(user), [""; 0], "{user:?}");
        }
        assert_eq!(user_id(c"root"), Some(0));
        assert_eq!(user_id(c"no such user \xff\n"), None);
        assert_eq!(user_id(c""), None);
    }
}
