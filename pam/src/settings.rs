//! The module's arguments in the PAM configuration, and which logons it is for.

use std::ffi::CStr;
use std::path::PathBuf;
use std::time::Duration;

/// Where `vipool up` makes the system's map.
const SYSTEM_MAP: &str = "/run/vipool";
/// Where the package puts the hook layer.
const DEFAULT_PRELOAD: &str = "/usr/lib/vipool/libvipool_preload.so";
/// The first user id that is not a system user's (login.defs(5), UID_MIN).
const FIRST_REGULAR_UID: u32 = 1000;
/// User id of `nobody`, who is above the system users but is one.
const NOBODY_UID: u32 = 65534;
/// As long as a busy map is waited for, so less would be a promise not kept.
const MIN_DEADLINE_SECONDS: u64 = 2;

/// Services that start something inside a session which is open already; they get what it has.
const NESTED_SERVICES: &[&str] = &[
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

/// The module's arguments.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// `map=DIRECTORY`.
    pub map: PathBuf,
    /// `preload=FILE`: the hook layer that is appended to LD_PRELOAD; none with `preload=none`.
    pub preload: Option<String>,
    /// `pool=NAME`: the pool that virtual IPs come from.
    pub pool: Option<String>,
    /// `min-uid=NUMBER`: users below get no session; 0 serves root too.
    pub min_uid: u32,
    /// `deadline=SECONDS`: the longest that a logon is kept waiting.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            map: SYSTEM_MAP.into(),
            preload: Some(DEFAULT_PRELOAD.into()),
            pool: None,
            min_uid: FIRST_REGULAR_UID,
            deadline: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// Reads the arguments; what is not understood is handed to `warn` and left out.
    pub fn read<'a>(arguments: impl Iterator<Item = &'a CStr>, mut warn: impl FnMut(&str)) -> Self {
        let mut settings = Self::default();
        for argument in arguments {
            let Ok(text) = argument.to_str() else {
                warn("an argument that is not UTF-8 is left out");
                continue;
            };
            if settings.set(text).is_none() {
                warn(&format!(
                    "argument {text:?} is left out: known are map=/DIRECTORY, preload=/FILE or \
                     preload=none, pool=NAME, min-uid=NUMBER and deadline=SECONDS (at least \
                     {MIN_DEADLINE_SECONDS})"
                ));
            }
        }
        settings
    }

    fn set(&mut self, argument: &str) -> Option<()> {
        let (name, value) = argument.split_once('=')?;
        match name {
            "map" if value.starts_with('/') => self.map = value.into(),
            "preload" if value == "none" => self.preload = None,
            // LD_PRELOAD is a list that spaces and colons divide.
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

    /// Whether the map is the one that programs look at by themselves.
    pub fn is_system_map(&self) -> bool {
        self.map.as_os_str() == SYSTEM_MAP
    }

    /// Whether logons of this user and service get a session.
    pub fn applies_to(&self, uid: u32, service: Option<&str>) -> bool {
        let is_regular_user =
            uid >= self.min_uid && (uid != NOBODY_UID || self.min_uid > NOBODY_UID);
        is_regular_user && service.is_none_or(|service| !NESTED_SERVICES.contains(&service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&CStr]) -> (Settings, usize) {
        let mut warnings = 0;
        let settings = Settings::read(arguments.iter().copied(), |_| warnings += 1);
        (settings, warnings)
    }

    #[test]
    fn invalid_arguments_are_ignored() {
        let (settings, warnings) =
            read(&[c"map=/tmp/m", c"preload=/x.so", c"pool=lab", c"min-uid=0", c"deadline=2"]);
        assert_eq!(warnings, 0);
        assert_eq!(settings.map, PathBuf::from("/tmp/m"));
        assert_eq!(settings.preload.as_deref(), Some("/x.so"));
        assert_eq!(settings.pool.as_deref(), Some("lab"));
        assert_eq!((settings.min_uid, settings.deadline), (0, Duration::from_secs(2)));
        let invalid: &[&CStr] = &[
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
        assert_eq!(read(invalid), (Settings::default(), invalid.len()));
        assert_eq!(read(&[c"preload=none"]).0.preload, None);
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
        let all = Settings { min_uid: 0, ..settings };
        assert!(all.applies_to(0, Some("sshd")));
    }
}
