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
    pub fn is(&self, pattern: &str) -> bool {
        let rule = Subject { pattern: pattern.as_bytes(), target: None, script: None };
        judge(rule, self).rank() > 0
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

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
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
        })
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

/// Whether a rule holds for a program.
pub(super) fn judge(rule: Subject<'_>, program: &Executable<'_>) -> Verdict {
    let by = match match_program(rule, program) {
        Ok(by) => by,
        Err(verdict) => return verdict,
    };
    let script = match rule.script {
        None => None,
        Some(pattern) => match program.script.and_then(|s| match_one(pattern, s, program.style)) {
            None => return Verdict::OtherScript,
            by => by,
        },
    };
    Verdict::Matches { by, script }
}

fn match_program(rule: Subject<'_>, program: &Executable<'_>) -> Result<MatchedBy, Verdict> {
    let style = program.style;
    // The kernel's note on a file that was replaced while it runs: see proc_pid_exe(5).
    let kept = match style {
        PathStyle::Posix => program.path.strip_suffix(b" (deleted)"),
        PathStyle::Windows => None,
    };
    let names = || [Some(program.path), program.invoked_as, kept].into_iter().flatten();
    if let Some(by) = names().find_map(|path| match_one(rule.pattern, path, style)) {
        return Ok(by);
    }
    let same_file_name = |a, b| match (file_name(a, style), file_name(b, style)) {
        (Some(a), Some(b)) => same_name(a, b, style),
        _ => false,
    };
    if let Some(target) = rule.target {
        let leads_here =
            [Some(program.path), kept].into_iter().flatten().any(|p| same_path(target, p, style));
        // One file of many names (busybox) is a program for each.
        let called = program.invoked_as.unwrap_or(program.path);
        if leads_here && (same_file_name(called, rule.pattern) || same_file_name(called, target)) {
            return Ok(MatchedBy::Link);
        }
    }
    if names().any(|path| same_file_name(rule.pattern, path)) {
        return Err(Verdict::OtherDirectory);
    }
    Err(Verdict::OtherProgram)
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
        judge(
            Subject {
                pattern: rule.0.as_bytes(),
                target: rule.1.map(str::as_bytes),
                script: rule.2.map(str::as_bytes),
            },
            &Executable {
                path: program.0.as_bytes(),
                invoked_as: (!program.1.is_empty()).then_some(program.1.as_bytes()),
                script: (!program.2.is_empty()).then_some(program.2.as_bytes()),
                style: PathStyle::Posix,
            },
        )
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
