//! The AppArmor profile of a process.

use std::path::Path;

/// Modes in which AppArmor denies each access that the profile does not allow (apparmor(7)).
const DENYING_MODES: [&str; 2] = ["enforce", "kill"];

/// Returns the profile that restricts a process, or `None` if no profile restricts the process.
/// `proc_directory` is the directory of the process in `/proc`.
pub fn confining_profile(proc_directory: &Path) -> Option<String> {
    // Since Linux 5.8, AppArmor has a file of its own. The older file `attr/current` can belong to
    // another security module.
    let label = ["attr/apparmor/current", "attr/current"]
        .into_iter()
        .find_map(|file| std::fs::read_to_string(proc_directory.join(file)).ok())?;
    denying_profile(&label)
}

/// Returns the profile of a label such as `/usr/sbin/mysqld (enforce)`, or `None` if the label
/// contains none of the denying modes.
fn denying_profile(label: &str) -> Option<String> {
    let label = label.trim_end_matches(['\n', '\0']);
    let (profile, mode) = label.strip_suffix(')')?.rsplit_once(" (")?;
    DENYING_MODES.contains(&mode).then(|| profile.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_profiles_in_a_denying_mode_are_returned() {
        for (label, profile) in [
            ("/usr/sbin/mysqld (enforce)\n", Some("/usr/sbin/mysqld")),
            ("firefox//&unpriv (kill)\n", Some("firefox//&unpriv")),
            ("my program (x) (enforce)", Some("my program (x)")),
            ("/usr/sbin/mysqld (complain)\n", None),
            ("unconfined\n", None),
            ("system_u:system_r:sshd_t:s0-s0:c0.c1023\0", None),
            ("", None),
        ] {
            assert_eq!(denying_profile(label).as_deref(), profile, "{label:?}");
        }
    }

    #[test]
    fn file_of_apparmor_has_precedence() {
        let directory = tempfile::tempdir().unwrap();
        let read_profile = || confining_profile(directory.path());
        assert_eq!(read_profile(), None);
        std::fs::create_dir_all(directory.path().join("attr/apparmor")).unwrap();
        std::fs::write(directory.path().join("attr/current"), "old (enforce)\n").unwrap();
        assert_eq!(read_profile().as_deref(), Some("old"));
        std::fs::write(directory.path().join("attr/apparmor/current"), "unconfined\n").unwrap();
        assert_eq!(read_profile(), None);
    }
}
