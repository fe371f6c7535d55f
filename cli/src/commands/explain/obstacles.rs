//! Determines why a process is not rewritten. The result is a pure function of the observations.

use serde::{Serialize, Serializer};
use vipool::rewrite::Reason;

use super::process::Subject;
use crate::system::hook::HOOK_FILE;

/// An obstacle to rewriting; there can be several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    pub name: ObstacleKind,
    /// The reason and, if there is one, the remedy.
    pub text: String,
}

/// The kinds of obstacles: reasons of the hook itself, and conditions that prevent the program from
/// loading or using the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObstacleKind {
    /// The reason why the loaded hook rewrites no call of the process.
    Hook(Reason),
    /// The program has no dynamic linker, which would load the hook.
    StaticProgram,
    /// The program and the hook are built for different processors or word sizes.
    ForeignProgram,
    /// The program makes its system calls without the C library.
    DirectSystemCalls,
    /// The program has more rights than its user, so the dynamic linker ignores `LD_PRELOAD`.
    SecureExecution,
    /// The process has not loaded the hook.
    HookNotLoaded,
    /// The map and the process belong to different network namespaces.
    OtherNamespace,
}

impl ObstacleKind {
    /// Returns the name in JSON. The reasons of the hook have the same names in the C ABI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hook(reason) => reason.name(),
            Self::StaticProgram => "static-program",
            Self::ForeignProgram => "foreign-program",
            Self::DirectSystemCalls => "direct-system-calls",
            Self::SecureExecution => "secure-execution",
            Self::HookNotLoaded => "hook-not-loaded",
            Self::OtherNamespace => "other-namespace",
        }
    }
}

impl Serialize for ObstacleKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Facts about the process that come from the map.
#[derive(Clone, Debug, Default)]
pub struct MapFacts {
    /// The error message if the map cannot be read.
    pub map_error: Option<String>,
    /// Whether the process is in the map's network namespace; `None` if that cannot be determined.
    pub is_same_namespace: Option<bool>,
    /// Whether the process is on the process list, by its own rule or by an inherited rule.
    pub is_listed: bool,
    /// The session of the process.
    pub session: SessionState,
    /// Whether the program's rule has an effect in the session: the session has an address that the
    /// rule uses, or the rule has the feature `client-ip`.
    pub is_rule_effective: bool,
}

/// The state of a process's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// The session is open.
    Open,
    /// The lease in the environment is of this boot, but was released.
    Closed,
    /// The lease in the environment is of another boot or namespace, or malformed.
    Stale,
    /// The process is in no open session.
    #[default]
    Absent,
    /// The environment of the process is overwritten or unreadable, and its sockets show no
    /// session.
    Unknown,
    /// The session is not open yet. 'vipool run' opens it when it starts the program.
    WillOpen,
}

/// Returns the obstacles that can be determined. If the process cannot read the map, the obstacles
/// that concern its rule or its session are omitted.
pub fn find_obstacles(subject: &Subject, facts: &MapFacts) -> Vec<Obstacle> {
    let mut obstacles = loading_obstacles(subject);
    let mut add = |name: ObstacleKind, text: String| obstacles.push(Obstacle { name, text });
    if subject.variable("VIPOOL_DISABLE").is_some_and(|value| value == "1") {
        add(
            ObstacleKind::Hook(Reason::Disabled),
            "the environment of the process contains VIPOOL_DISABLE=1".into(),
        );
    }
    if facts.is_same_namespace == Some(false) {
        add(
            ObstacleKind::OtherNamespace,
            "the process is in another network namespace than the map".into(),
        );
    }
    if let Some(error) = &facts.map_error {
        add(ObstacleKind::Hook(Reason::MapUnreadable), error.clone());
        return obstacles;
    }
    // The hook maps the map file when the program starts. If a process with an AppArmor profile has
    // loaded the hook but has not mapped the file, the profile denies the file.
    if subject.is_hooked == Some(true)
        && subject.mapped_directory.is_none()
        && let Some(profile) = &subject.apparmor_profile
    {
        add(
            ObstacleKind::Hook(Reason::MapUnreadable),
            format!(
                "the AppArmor profile {profile:?} confines the process and does not let it read \
                 the map (add 'include <abstractions/vipool>' to the profile; docs/server.md \
                 describes AppArmor)"
            ),
        );
        return obstacles;
    }
    if !facts.is_listed {
        add(ObstacleKind::Hook(Reason::NotListed), reason_text(Reason::NotListed));
    }
    match facts.session {
        SessionState::Open if !facts.is_rule_effective && facts.is_listed => add(
            ObstacleKind::Hook(Reason::NoAddress),
            "the session has no address of a kind that the program's rule uses".into(),
        ),
        SessionState::Open | SessionState::WillOpen | SessionState::Unknown => {}
        SessionState::Closed => add(
            ObstacleKind::Hook(Reason::LeaseClosed),
            "the lease that the process was started with has been released: new binds and \
             connects use the host's addresses"
                .into(),
        ),
        SessionState::Stale => {
            add(ObstacleKind::Hook(Reason::StaleLease), reason_text(Reason::StaleLease));
        }
        SessionState::Absent => {
            add(ObstacleKind::Hook(Reason::NoSession), reason_text(Reason::NoSession));
        }
    }
    obstacles
}

/// Returns the conditions that prevent the process from loading or using the hook.
fn loading_obstacles(subject: &Subject) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    let mut add = |name, text: &str| obstacles.push(Obstacle { name, text: text.to_owned() });
    let elf = subject.elf.unwrap_or_default();
    let is_secure = subject.is_secure == Some(true);
    if elf.is_static {
        add(
            ObstacleKind::StaticProgram,
            "the program is linked statically: no dynamic linker loads the hook, and the program \
             makes its system calls itself",
        );
    }
    if elf.is_foreign {
        add(
            ObstacleKind::ForeignProgram,
            "the program is for another processor or word size than the hook, so it cannot load \
             the hook",
        );
    }
    if elf.is_go && !elf.is_static {
        add(
            ObstacleKind::DirectSystemCalls,
            "the program was built with Go, whose network calls bypass the C library and the hook",
        );
    }
    if is_secure {
        add(
            ObstacleKind::SecureExecution,
            "the program has more rights than its user (setuid, setgid or file capabilities): \
             the dynamic linker ignores LD_PRELOAD (ld.so(8))",
        );
    }
    // If the program cannot load the hook, the obstacles above already explain the reason.
    let cannot_load_hook = elf.is_static || elf.is_foreign || is_secure;
    if subject.is_hooked == Some(false) && !cannot_load_hook {
        let has_hook_in_preload = subject
            .variable("LD_PRELOAD")
            .is_some_and(|list| list.to_string_lossy().contains(HOOK_FILE));
        add(
            ObstacleKind::HookNotLoaded,
            match (&subject.variables, has_hook_in_preload) {
                (Some(_), _) if subject.apparmor_profile.is_some() => {
                    "an AppArmor profile confines the process: it denies the hook's file, or \
                     removed LD_PRELOAD when the program started (docs/server.md describes \
                     AppArmor)"
                }
                (Some(_), true) => {
                    "LD_PRELOAD names the hook, but the dynamic linker did not load it (check \
                     that the process can read the hook's file and that the program uses glibc)"
                }
                (Some(_), false) => {
                    "the process was started without the hook in LD_PRELOAD (start it with \
                     'vipool run' or from a logon with pam_vipool; docs/compatibility.md lists \
                     what removes the variable)"
                }
                (None, _) => "the process has not loaded the hook",
            },
        );
    }
    obstacles
}

fn reason_text(reason: Reason) -> String {
    reason.text().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::system::elf::ElfInfo;

    fn rewritten_process() -> (Subject, MapFacts) {
        let subject = Subject {
            is_hooked: Some(true),
            is_secure: Some(false),
            variables: Some(BTreeMap::new()),
            elf: Some(ElfInfo::default()),
            ..Subject::default()
        };
        let facts = MapFacts {
            map_error: None,
            is_same_namespace: Some(true),
            is_listed: true,
            session: SessionState::Open,
            is_rule_effective: true,
        };
        (subject, facts)
    }

    /// Returns the names of the obstacles after `change` was applied to a rewritten process.
    fn names_after(change: impl FnOnce(&mut Subject, &mut MapFacts)) -> Vec<&'static str> {
        let (mut subject, mut facts) = rewritten_process();
        change(&mut subject, &mut facts);
        find_obstacles(&subject, &facts).iter().map(|obstacle| obstacle.name.name()).collect()
    }

    #[test]
    fn each_condition_has_its_obstacle() {
        let no_obstacles: [&str; 0] = [];
        assert_eq!(names_after(|_, _| {}), no_obstacles);
        let elf = |is_static, is_foreign, is_go| Some(ElfInfo { is_static, is_foreign, is_go });
        assert_eq!(
            names_after(|subject, _| {
                subject.elf = elf(true, false, true);
                subject.is_hooked = Some(false);
            }),
            ["static-program"]
        );
        assert_eq!(
            names_after(|subject, _| subject.elf = elf(false, true, false)),
            ["foreign-program"]
        );
        assert_eq!(
            names_after(|subject, _| subject.elf = elf(false, false, true)),
            ["direct-system-calls"]
        );
        assert_eq!(names_after(|subject, _| subject.is_hooked = Some(false)), ["hook-not-loaded"]);
        let confine = |subject: &mut Subject| subject.apparmor_profile = Some("app".into());
        assert_eq!(names_after(|subject, _| confine(subject)), ["map-unreadable"]);
        assert_eq!(
            names_after(|subject, _| {
                confine(subject);
                subject.mapped_directory = Some("/run/vipool".into());
            }),
            no_obstacles,
            "a profile that permits the map is no obstacle"
        );
        assert_eq!(
            names_after(|subject, _| {
                confine(subject);
                subject.is_hooked = Some(false);
            }),
            ["hook-not-loaded"]
        );
        let disabled_variables = BTreeMap::from([("VIPOOL_DISABLE", "1".into())]);
        assert_eq!(
            names_after(|subject, _| subject.variables = Some(disabled_variables.clone())),
            ["disabled"]
        );
        assert_eq!(
            names_after(|subject, _| {
                subject.variables = Some(disabled_variables);
                subject.is_secure = Some(true);
            }),
            ["secure-execution"],
            "the environment is ignored in secure execution"
        );
        for (facts_change, expected) in [
            (
                (|facts| facts.is_same_namespace = Some(false)) as fn(&mut MapFacts),
                "other-namespace",
            ),
            (|facts| facts.map_error = Some("no".into()), "map-unreadable"),
            (|facts| facts.is_listed = false, "not-listed"),
            (|facts| facts.is_rule_effective = false, "no-address"),
            (|facts| facts.session = SessionState::Closed, "lease-closed"),
            (|facts| facts.session = SessionState::Stale, "stale-lease"),
            (|facts| facts.session = SessionState::Absent, "no-session"),
        ] {
            assert_eq!(names_after(|_, facts| facts_change(facts)), [expected]);
        }
        assert_eq!(names_after(|_, facts| facts.session = SessionState::WillOpen), no_obstacles);
        assert_eq!(
            names_after(|_, facts| {
                facts.is_listed = false;
                facts.session = SessionState::Absent;
            }),
            ["not-listed", "no-session"]
        );
    }
}
