//! Why a process is not rewritten: a pure function of what was seen.

use serde::{Serialize, Serializer};
use vipool::rewrite::Reason;

use super::process::Subject;

/// Something in the way. More than one may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// Which.
    pub name: Kind,
    /// What is the case here, and what can be done, in a sentence.
    pub text: String,
}

/// What can be in the way: what the hook itself knows, and what keeps it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A reason that the hook has for leaving the process alone.
    Hook(Reason),
    /// The program has no dynamic linker, which would load the hook.
    Static,
    /// The program is for another kind of processor than the hook.
    ForeignProgram,
    /// The program makes its system calls itself.
    DirectSystemCalls,
    /// The program has more rights than its user.
    Secure,
    /// The hook is not in the process.
    HookNotLoaded,
    /// The map is of another network namespace than the process.
    OtherNamespace,
}

impl Kind {
    /// A name for programs; those of the hook's are in the C ABI too.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hook(reason) => reason.name(),
            Kind::Static => "static-program",
            Kind::ForeignProgram => "foreign-program",
            Kind::DirectSystemCalls => "direct-system-calls",
            Kind::Secure => "secure-execution",
            Kind::HookNotLoaded => "hook-not-loaded",
            Kind::OtherNamespace => "other-namespace",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What the map says of the process.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Why the map can't be read, if it can't.
    pub map_error: Option<String>,
    /// Whether the process is in the map's network namespace; none if that can't be seen.
    pub is_here: Option<bool>,
    /// Whether it is on the process list, by itself or by a parent.
    pub is_listed: bool,
    /// What was found of its session.
    pub session: Found,
    /// Whether the session has an address that the program's rule can use.
    pub has_address: bool,
}

/// The session of a process, as it was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// An open one.
    Open,
    /// The lease that was handed down is of this boot, and is not held any more.
    Closed,
    /// The lease that was handed down is of another boot or namespace, or nonsense.
    Stale,
    /// None.
    #[default]
    None,
    /// The process wrote over its environment: it may have one.
    Unseen,
    /// Not asked: whoever starts the program will open it.
    ToBeOpened,
}

/// All that is in the way. Empty: the process is rewritten.
pub fn obstacles(subject: &Subject, standing: &Standing) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut add = |name: Kind, text: String| found.push(Obstacle { name, text });
    let binary = subject.binary.unwrap_or_default();
    let secure = subject.is_secure == Some(true);
    if binary.is_static {
        add(
            Kind::Static,
            "the program is linked statically: no dynamic linker loads the hook, and it makes \
             its system calls itself"
                .into(),
        );
    }
    if binary.is_foreign {
        add(
            Kind::ForeignProgram,
            "the program is for another kind of processor than the hook, which can't be loaded \
             into it"
                .into(),
        );
    }
    if binary.is_go && !binary.is_static {
        add(
            Kind::DirectSystemCalls,
            "the program was built with Go, whose network calls go past the C library and the \
             hook"
                .into(),
        );
    }
    if secure {
        add(
            Kind::Secure,
            "the program has more rights than its user (setuid, setgid or file capabilities): \
             the dynamic linker ignores LD_PRELOAD (ld.so(8))"
                .into(),
        );
    }
    let is_explained = binary.is_static || binary.is_foreign || secure;
    if subject.is_hooked == Some(false) && !is_explained {
        let named = subject
            .variable("LD_PRELOAD")
            .is_some_and(|list| list.to_string_lossy().contains(crate::run::HOOK));
        add(
            Kind::HookNotLoaded,
            match (&subject.variables, named) {
                (Some(_), true) => {
                    "LD_PRELOAD names the hook, but the dynamic linker did not load it: is its \
                     file there, and readable, where the process sees it? Does the program use \
                     glibc?"
                }
                (Some(_), false) => {
                    "the process was started without LD_PRELOAD for the hook: start it by \
                     'vipool run' or from a logon with pam_vipool (docs/compatibility.md says \
                     what drops the variable)"
                }
                (None, _) => "the hook is not in the process",
            }
            .into(),
        );
    }
    if subject.variable("VIPOOL_DISABLE").is_some_and(|value| value == "1") {
        add(Kind::Hook(Reason::Disabled), "VIPOOL_DISABLE=1 is in its environment".into());
    }
    if standing.is_here == Some(false) {
        add(
            Kind::OtherNamespace,
            "the process is in another network namespace than the map".into(),
        );
    }
    if let Some(error) = &standing.map_error {
        add(Kind::Hook(Reason::MapUnreadable), error.clone());
        return found;
    }
    if !standing.is_listed {
        add(Kind::Hook(Reason::NotListed), sentence(Reason::NotListed));
    }
    match standing.session {
        Found::Open if !standing.has_address && standing.is_listed => {
            add(
                Kind::Hook(Reason::NoAddress),
                "the session has no address of a kind that the program's rule uses".into(),
            );
        }
        Found::Open | Found::ToBeOpened | Found::Unseen => {}
        Found::Closed => add(
            Kind::Hook(Reason::LeaseClosed),
            "the lease it was started under is not held any more: new binds and connects use \
             the host's addresses"
                .into(),
        ),
        Found::Stale => add(Kind::Hook(Reason::StaleLease), sentence(Reason::StaleLease)),
        Found::None => add(Kind::Hook(Reason::NoSession), sentence(Reason::NoSession)),
    }
    found
}

fn sentence(reason: Reason) -> String {
    reason.text().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::binary::Binary;
    use super::*;

    fn rewritten() -> (Subject, Standing) {
        let subject = Subject {
            is_hooked: Some(true),
            is_secure: Some(false),
            variables: Some(BTreeMap::new()),
            binary: Some(Binary::default()),
            ..Subject::default()
        };
        let standing = Standing {
            map_error: None,
            is_here: Some(true),
            is_listed: true,
            session: Found::Open,
            has_address: true,
        };
        (subject, standing)
    }

    fn names(change: impl FnOnce(&mut Subject, &mut Standing)) -> Vec<&'static str> {
        let (mut subject, mut standing) = rewritten();
        change(&mut subject, &mut standing);
        obstacles(&subject, &standing).iter().map(|it| it.name.name()).collect()
    }

    #[test]
    fn each_obstacle_is_named() {
        let none: [&str; 0] = [];
        assert_eq!(names(|_, _| {}), none);
        let binary = |is_static, is_foreign, is_go| Some(Binary { is_static, is_foreign, is_go });
        assert_eq!(
            names(|it, _| {
                it.binary = binary(true, false, true);
                it.is_hooked = Some(false);
            }),
            ["static-program"]
        );
        assert_eq!(names(|it, _| it.binary = binary(false, true, false)), ["foreign-program"]);
        assert_eq!(names(|it, _| it.binary = binary(false, false, true)), ["direct-system-calls"]);
        assert_eq!(names(|it, _| it.is_hooked = Some(false)), ["hook-not-loaded"]);
        let disabled = BTreeMap::from([("VIPOOL_DISABLE", "1".into())]);
        assert_eq!(names(|it, _| it.variables = Some(disabled.clone())), ["disabled"]);
        assert_eq!(
            names(|it, _| {
                it.variables = Some(disabled);
                it.is_secure = Some(true);
            }),
            ["secure-execution"],
            "its environment says nothing"
        );
        assert_eq!(names(|_, it| it.is_here = Some(false)), ["other-namespace"]);
        assert_eq!(names(|_, it| it.map_error = Some("no".into())), ["map-unreadable"]);
        assert_eq!(names(|_, it| it.is_listed = false), ["not-listed"]);
        assert_eq!(names(|_, it| it.has_address = false), ["no-address"]);
        assert_eq!(names(|_, it| it.session = Found::Closed), ["lease-closed"]);
        assert_eq!(names(|_, it| it.session = Found::Stale), ["stale-lease"]);
        assert_eq!(names(|_, it| it.session = Found::None), ["no-session"]);
        assert_eq!(names(|_, it| it.session = Found::ToBeOpened), none);
        assert_eq!(
            names(|_, it| {
                it.is_listed = false;
                it.session = Found::None;
            }),
            ["not-listed", "no-session"]
        );
    }
}
