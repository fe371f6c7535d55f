//! Which rule of the process list a program falls under, and why the others do not hold.
//!
//! The most specific rule that holds wins: one for a script before one for its interpreter alone,
//! a full path before a bare name; among equals the first in the file.

use std::fmt;

use super::PathStyle;
use super::path::{PatternKind, file_name, pattern_kind, same_name, same_path};

/// A running program, as its hook layer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executable<'a> {
    /// Its file: `/proc/self/exe`, `GetModuleFileNameW`.
    pub path: &'a [u8],
    /// The path it was started by, where that may differ: a symbolic link. On Linux `AT_EXECFN`
    /// of getauxval(3). A relative one counts by its file name only.
    pub invoked_as: Option<&'a [u8]>,
    /// For an interpreter, the script that it runs.
    pub script: Option<&'a [u8]>,
    /// By which rules paths are compared.
    pub style: PathStyle,
}

impl Executable<'_> {
    /// Whether a pattern of the process list (full path or bare name) is for this program.
    pub fn is(&self, pattern: &[u8]) -> bool {
        let rule = Subject { pattern, target: None, script: None };
        Asked::of(self).judge(rule).rank() > 0
    }
}

/// What a rule says of the programs it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub pattern: &'a [u8],
    pub target: Option<&'a [u8]>,
    pub script: Option<&'a [u8]>,
}

/// Why a rule holds for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchedBy {
    /// The path of its file, or the full path it was started by.
    FullPath,
    /// The listed path is a symbolic link that leads to its file.
    Link,
    /// The name of its file, in whatever directory.
    BareName,
}

/// What became of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The rule holds.
    Matches {
        /// By what.
        by: MatchedBy,
        /// Whether the rule is for one script, by full path or bare name, and that matched too.
        script: Option<MatchedBy>,
    },
    /// The name is the same but the rule gives a full path, and that is another.
    OtherDirectory,
    /// The interpreter is listed, but only with another script.
    OtherScript,
    /// Another program.
    OtherProgram,
}

impl Verdict {
    /// How specific a match is; 0 for none.
    pub(super) fn rank(self) -> u8 {
        let Verdict::Matches { by, script } = self else { return 0 };
        let program = match by {
            MatchedBy::FullPath => 3,
            MatchedBy::Link => 2,
            MatchedBy::BareName => 1,
        };
        let script = match script {
            Some(MatchedBy::FullPath | MatchedBy::Link) => 2,
            Some(MatchedBy::BareName) => 1,
            None => 0,
        };
        script << 2 | program
    }

    /// The highest [`rank`](Self::rank): no later rule can win.
    pub(super) const TOP: u8 = 2 << 2 | 3;
}

impl Verdict {
    /// It in words.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Matches { by, script } => match (by, script.is_some()) {
                (MatchedBy::FullPath, false) => "matches by full path",
                (MatchedBy::FullPath, true) => "matches by full path and script",
                (MatchedBy::Link, false) => "matches: the listed link leads to this file",
                (MatchedBy::Link, true) => {
                    "matches: the listed link leads to this file, and script"
                }
                (MatchedBy::BareName, false) => "matches by bare name",
                (MatchedBy::BareName, true) => "matches by bare name and script",
            },
            Verdict::OtherDirectory => "the same name, but the list gives another full path",
            Verdict::OtherScript => "the interpreter is listed with another script only",
            Verdict::OtherProgram => "another program",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The place of the most specific match; the first of equals.
pub(super) fn best(verdicts: impl Iterator<Item = Verdict>) -> Option<(usize, Verdict)> {
    let mut best: Option<(usize, Verdict)> = None;
    for (place, verdict) in verdicts.enumerate() {
        if verdict.rank() > best.map_or(0, |(_, verdict)| verdict.rank()) {
            best = Some((place, verdict));
            if verdict.rank() == Verdict::TOP {
                break;
            }
        }
    }
    best
}

/// A program with what every rule asks of it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    program: Executable<'a>,
    /// The paths it is known by: its file, what it was started by, and its file without the
    /// kernel's note that it was replaced while it runs (proc_pid_exe(5)).
    paths: [Option<&'a [u8]>; 3],
    /// The file names of these.
    names: [Option<&'a [u8]>; 3],
}

impl<'a> Asked<'a> {
    pub fn of(program: &Executable<'a>) -> Self {
        let kept = match program.style {
            PathStyle::Posix => program.path.strip_suffix(b" (deleted)"),
            PathStyle::Windows => None,
        };
        let paths = [Some(program.path), program.invoked_as, kept];
        let names = paths.map(|path| file_name(path?, program.style));
        Self { program: *program, paths, names }
    }

    /// Whether a rule holds for the program.
    pub fn judge(&self, rule: Subject<'_>) -> Verdict {
        let by = match self.match_program(rule) {
            Ok(by) => by,
            Err(verdict) => return verdict,
        };
        let Some(pattern) = rule.script else { return Verdict::Matches { by, script: None } };
        let script = self.program.script;
        match script.and_then(|script| match_one(pattern, script, self.program.style)) {
            None => Verdict::OtherScript,
            script => Verdict::Matches { by, script },
        }
    }

    fn match_program(&self, rule: Subject<'_>) -> Result<MatchedBy, Verdict> {
        let style = self.program.style;
        // Paths that are the same end in the same name, and few do.
        let same = |name: Option<&[u8]>, other: Option<&[u8]>| match (name, other) {
            (Some(a), Some(b)) => same_name(a, b, style),
            _ => false,
        };
        let listed = file_name(rule.pattern, style);
        let has_name = self.names.iter().any(|name| same(*name, listed));
        let mut paths = self.paths.into_iter().flatten();
        if has_name && let Some(by) = paths.find_map(|path| match_one(rule.pattern, path, style)) {
            return Ok(by);
        }
        if let Some(target) = rule.target {
            // One file of many names (busybox) is a program for each.
            let called =
                if self.program.invoked_as.is_some() { self.names[1] } else { self.names[0] };
            let files = [self.paths[0], self.paths[2]];
            if (same(called, listed) || same(called, file_name(target, style)))
                && files.into_iter().flatten().any(|file| same_path(target, file, style))
            {
                return Ok(MatchedBy::Link);
            }
        }
        Err(if has_name { Verdict::OtherDirectory } else { Verdict::OtherProgram })
    }
}

fn match_one(pattern: &[u8], path: &[u8], style: PathStyle) -> Option<MatchedBy> {
    match (pattern_kind(pattern), style) {
        (PatternKind::FullPosix, PathStyle::Posix)
        | (PatternKind::FullWindows, PathStyle::Windows) => {
            same_path(pattern, path, style).then_some(MatchedBy::FullPath)
        }
        (PatternKind::BareName, _) => {
            same_name(pattern, file_name(path, style)?, style).then_some(MatchedBy::BareName)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rule: (&str, Option<&str>, Option<&str>), program: (&str, &str, &str)) -> Verdict {
        let program = Executable {
            path: program.0.as_bytes(),
            invoked_as: (!program.1.is_empty()).then_some(program.1.as_bytes()),
            script: (!program.2.is_empty()).then_some(program.2.as_bytes()),
            style: PathStyle::Posix,
        };
        Asked::of(&program).judge(Subject {
            pattern: rule.0.as_bytes(),
            target: rule.1.map(str::as_bytes),
            script: rule.2.map(str::as_bytes),
        })
    }

    #[test]
    fn verdicts() {
        let full = Verdict::Matches { by: MatchedBy::FullPath, script: None };
        let link = Verdict::Matches { by: MatchedBy::Link, script: None };
        let bare = Verdict::Matches { by: MatchedBy::BareName, script: None };
        let redis = ("/bin/redis-server", Some("/usr/bin/redis-check-rdb"), None);
        let busybox = ("/bin/nc", Some("/bin/busybox"), None);
        let python = ("/usr/bin/python3", Some("/usr/bin/python3.13"), Some("/opt/app.py"));
        let table = [
            (("/usr/bin/nc", None, None), ("/usr/bin/nc", "", ""), full),
            (("/usr/bin/nc", None, None), ("/usr/bin/nc (deleted)", "", ""), full),
            (("/usr/bin/nc", None, None), ("/home/u/nc", "", ""), Verdict::OtherDirectory),
            (("/usr/bin/nc", None, None), ("/usr/bin/cat", "", ""), Verdict::OtherProgram),
            (("nc", None, None), ("/home/u/nc", "", ""), bare),
            (("nc", None, None), ("/usr/bin/nc.openbsd", "./nc", ""), bare),
            (("/usr/bin/nc", None, None), ("/usr/bin/nc.openbsd", "/usr/bin/nc", ""), full),
            (redis, ("/usr/bin/redis-check-rdb", "/usr/bin/redis-server", ""), link),
            (redis, ("/usr/bin/redis-check-rdb", "", ""), link),
            (
                redis,
                ("/usr/bin/redis-check-rdb", "/usr/bin/redis-sentinel", ""),
                Verdict::OtherProgram,
            ),
            (busybox, ("/bin/busybox", "/bin/ls", ""), Verdict::OtherProgram),
            (busybox, ("/bin/busybox", "./nc", ""), link),
            (python, ("/usr/bin/python3.13", "/usr/bin/python3", ""), Verdict::OtherScript),
            (
                python,
                ("/usr/bin/python3.13", "/usr/bin/python3", "/tmp/app.py"),
                Verdict::OtherScript,
            ),
            (
                python,
                ("/usr/bin/python3.13", "/usr/bin/python3", "/opt/app.py"),
                Verdict::Matches { by: MatchedBy::FullPath, script: Some(MatchedBy::FullPath) },
            ),
            (("bin/nc", None, None), ("/usr/bin/nc", "", ""), Verdict::OtherDirectory),
            (("", None, None), ("/usr/bin/nc", "", ""), Verdict::OtherProgram),
            (("nc", None, None), ("", "", ""), Verdict::OtherProgram),
        ];
        for (rule, program, expected) in table {
            assert_eq!(verdict(rule, program), expected, "{rule:?} {program:?}");
        }
    }
}
