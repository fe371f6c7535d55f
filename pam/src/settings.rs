//! The arguments of the module in the PAM configuration. Decides which logons get a session.

use std::ffi::CStr;
use std::path::PathBuf;
use std::time::Duration;

/// The directory in which `vipool up` creates the system-wide map.
const SYSTEM_MAP_DIRECTORY: &str = "/run/vipool";
/// The path at which the package installs the hook layer.
const DEFAULT_PRELOAD: &str = "/usr/lib/vipool/libvipool_preload.so";
/// The lowest user id that does not belong to a system user: the default of UID_MIN in
/// login.defs(5).
const FIRST_REGULAR_UID: u32 = 1000;
/// The user id of `nobody`, a system user with a high user id.
const NOBODY_UID: u32 = 65534;
/// The shortest deadline that an argument can set. The module waits up to two seconds for the lock
/// of a busy map, so it could not meet a shorter deadline.
const MIN_DEADLINE_SECONDS: u64 = 2;

/// Services that do not log a user on, so the module opens no session for them. Some of them, such
/// as sudo, start programs inside the session of the user. Others, such as cron, start programs
/// without a logon.
const NON_LOGON_SERVICES: &[&str] = &[
    "su",
    "su-l",
    "sudo",
    "sudo-i",
    "doas",
    "runuser",
    "runuser-l",
    "pkexec",
    "polkit-1",
    "cron",
    "crond",
    "atd",
    "systemd-user",
];

/// The arguments of the module.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// `map=DIRECTORY`: the directory of the map.
    pub map_directory: PathBuf,
    /// `preload=FILE`: the hook layer, which the module appends to LD_PRELOAD. `preload=none` sets
    /// `None`.
    pub preload: Option<String>,
    /// `pool=NAME`: the pool from which a session gets its virtual IP.
    pub pool: Option<String>,
    /// `min-uid=NUMBER`: users with a lower user id get no session. With 0, root gets a session
    /// too.
    pub min_uid: u32,
    /// `deadline=SECONDS`: the longest time that the module delays a logon.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            map_directory: SYSTEM_MAP_DIRECTORY.into(),
            preload: Some(DEFAULT_PRELOAD.into()),
            pool: None,
            min_uid: FIRST_REGULAR_UID,
            deadline: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// Parses the arguments. Ignores each invalid argument and passes a message about it to `warn`.
    pub fn read<'a>(arguments: impl Iterator<Item = &'a CStr>, mut warn: impl FnMut(&str)) -> Self {
        let mut settings = Self::default();
        for argument in arguments {
            let Ok(text) = argument.to_str() else {
                warn("ignored an argument that is not UTF-8");
                continue;
            };
            if settings.set(text).is_none() {
                warn(&format!(
                    "ignored invalid argument {text:?} (use map=/DIRECTORY, preload=/FILE or \
                     preload=none, pool=NAME, min-uid=NUMBER, deadline=SECONDS with at least \
                     {MIN_DEADLINE_SECONDS} seconds)"
                ));
            }
        }
        settings
    }

    /// Applies one argument. Returns `None` if the argument is invalid.
    fn set(&mut self, argument: &str) -> Option<()> {
        let (name, value) = argument.split_once('=')?;
        match name {
            "map" if value.starts_with('/') => self.map_directory = value.into(),
            "preload" if value == "none" => self.preload = None,
            // Spaces and colons separate the entries of LD_PRELOAD.
            "preload" if value.starts_with('/') && !value.contains([':', ' ']) => {
                self.preload = Some(value.into());
            }
            "pool" if !value.is_empty() => self.pool = Some(value.into()),
            "min-uid" => self.min_uid = value.parse().ok()?,
            "deadline" => {
                let seconds =
                    value.parse().ok().filter(|seconds| *seconds >= MIN_DEADLINE_SECONDS)?;
                self.deadline = Duration::from_secs(seconds);
            }
            _ => return None,
        }
        Some(())
    }

    /// Returns whether the map is the map that programs use without `VIPOOL_MAP`.
    pub fn is_system_map(&self) -> bool {
        self.map_directory.as_os_str() == SYSTEM_MAP_DIRECTORY
    }

    /// Returns whether a logon of this user at this service gets a session.
    pub fn applies_to(&self, uid: u32, service: Option<&str>) -> bool {
        let is_included_user =
            uid >= self.min_uid && (uid != NOBODY_UID || self.min_uid > NOBODY_UID);
        is_included_user && service.is_none_or(|service| !NON_LOGON_SERVICES.contains(&service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the settings and the number of warnings.
    fn read_settings(arguments: &[&CStr]) -> (Settings, usize) {
        let mut warning_count = 0;
        let settings = Settings::read(arguments.iter().copied(), |_| warning_count += 1);
        (settings, warning_count)
    }

    #[test]
    fn invalid_arguments_are_ignored() {
        let (settings, warning_count) = read_settings(&[
            c"map=/tmp/m",
            c"preload=/x.so",
            c"pool=lab",
            c"min-uid=0",
            c"deadline=2",
        ]);
        assert_eq!(warning_count, 0);
        assert_eq!(settings.map_directory, PathBuf::from("/tmp/m"));
        assert_eq!(settings.preload.as_deref(), Some("/x.so"));
        assert_eq!(settings.pool.as_deref(), Some("lab"));
        assert_eq!((settings.min_uid, settings.deadline), (0, Duration::from_secs(2)));
        let invalid_arguments: &[&CStr] = &[
            c"",
            c"map",
            c"map=run",
            c"preload=x.so",
            c"preload=/a:/b",
            c"deadline=1",
            c"min-uid=-1",
            c"pool=",
            c"\xff",
            c"debug",
        ];
        assert_eq!(
            read_settings(invalid_arguments),
            (Settings::default(), invalid_arguments.len())
        );
        assert_eq!(read_settings(&[c"preload=none"]).0.preload, None);
    }

    #[test]
    fn only_logons_of_regular_users_get_a_session() {
        let settings = Settings::default();
        assert!(settings.applies_to(1000, Some("sshd")));
        assert!(settings.applies_to(1000, None));
        for (uid, service) in
            [(0, "sshd"), (999, "sshd"), (65534, "sshd"), (1000, "sudo"), (1000, "su")]
        {
            assert!(!settings.applies_to(uid, Some(service)), "{uid} {service}");
        }
        let settings_with_root = Settings { min_uid: 0, ..settings };
        assert!(settings_with_root.applies_to(0, Some("sshd")));
    }
}
