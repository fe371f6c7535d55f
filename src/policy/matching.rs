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
        let rule = RulePattern { pattern, target: None, script: None };
        ExecutablePaths::of(self).match_rule(rule).specificity() > 0
    }
}

/// What a rule says of the programs it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct RulePattern<'a> {
    pub pattern: &'a [u8],
    pub target: Option<&'a [u8]>,
    pub script: Option<&'a [u8]>,
}

/// Why a rule holds for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchKind {
    /// The path of its file, or the full path it was started by.
    FullPath,
    /// The listed path is a symbolic link that leads to its file.
    Link,
    /// The name of its file, in whatever directory.
    BareName,
}

/// What became of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchResult {
    /// The rule holds.
    Matched {
        /// By what.
        by: MatchKind,
        /// Whether the rule is for one script, by full path or bare name, and that matched too.
        script: Option<MatchKind>,
    },
    /// The name is the same but the rule gives a full path, and that is another.
    OtherDirectory,
    /// The interpreter is listed, but only with another script.
    OtherScript,
    /// Another program.
    OtherProgram,
}

impl MatchResult {
    /// How specific a match is; 0 for none.
    pub(super) fn specificity(self) -> u8 {
        let MatchResult::Matched { by, script } = self else { return 0 };
        let program = match by {
            MatchKind::FullPath => 3,
            MatchKind::Link => 2,
            MatchKind::BareName => 1,
        };
        let script = match script {
            Some(MatchKind::FullPath | MatchKind::Link) => 2,
            Some(MatchKind::BareName) => 1,
            None => 0,
        };
        script << 2 | program
    }

    /// The highest [`specificity`](Self::specificity): no later rule can win.
    pub(super) const MAX_SPECIFICITY: u8 = 2 << 2 | 3;
}

impl MatchResult {
    /// It in words.
    pub fn text(self) -> &'static str {
        match self {
            MatchResult::Matched { by, script } => match (by, script.is_some()) {
                (MatchKind::FullPath, false) => "matches by full path",
                (MatchKind::FullPath, true) => "matches by full path and script",
                (MatchKind::Link, false) => "matches: the listed link leads to this file",
                (MatchKind::Link, true) => {
                    "matches: the listed link leads to this file, and script"
                }
                (MatchKind::BareName, false) => "matches by bare name",
                (MatchKind::BareName, true) => "matches by bare name and script",
            },
            MatchResult::OtherDirectory => "the same name, but the list gives another full path",
            MatchResult::OtherScript => "the interpreter is listed with another script only",
            MatchResult::OtherProgram => "another program",
        }
    }
}

impl fmt::Display for MatchResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The place of the most specific match; the first of equals.
pub(super) fn most_specific(
    results: impl Iterator<Item = MatchResult>,
) -> Option<(usize, MatchResult)> {
    let mut best: Option<(usize, MatchResult)> = None;
    for (place, result) in results.enumerate() {
        if result.specificity() > best.map_or(0, |(_, result)| result.specificity()) {
            best = Some((place, result));
            if result.specificity() == MatchResult::MAX_SPECIFICITY {
                break;
            }
        }
    }
    best
}

/// A program with what every rule asks of it.
#[derive(Clone, Copy)]
pub(super) struct ExecutablePaths<'a> {
    program: Executable<'a>,
    /// The paths it is known by: its file, what it was started by, and its file without the
    /// kernel's note that it was replaced while it runs (proc_pid_exe(5)).
    paths: [Option<&'a [u8]>; 3],
    /// The file names of these.
    names: [Option<&'a [u8]>; 3],
}

impl<'a> ExecutablePaths<'a> {
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
    pub fn match_rule(&self, rule: RulePattern<'_>) -> MatchResult {
        let by = match self.match_program(rule) {
            Ok(by) => by,
            Err(result) => return result,
        };
        let Some(pattern) = rule.script else { return MatchResult::Matched { by, script: None } };
        let script = self.program.script;
        match script.and_then(|script| match_one(pattern, script, self.program.style)) {
            None => MatchResult::OtherScript,
            script => MatchResult::Matched { by, script },
        }
    }

    fn match_program(&self, rule: RulePattern<'_>) -> Result<MatchKind, MatchResult> {
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
                return Ok(MatchKind::Link);
            }
        }
        Err(if has_name { MatchResult::OtherDirectory } else { MatchResult::OtherProgram })
    }
}

fn match_one(pattern: &[u8], path: &[u8], style: PathStyle) -> Option<MatchKind> {
    match (pattern_kind(pattern), style) {
        (PatternKind::FullPosix, PathStyle::Posix)
        | (PatternKind::FullWindows, PathStyle::Windows) => {
            same_path(pattern, path, style).then_some(MatchKind::FullPath)
        }
        (PatternKind::BareName, _) => {
            same_name(pattern, file_name(path, style)?, style).then_some(MatchKind::BareName)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(
        rule: (&str, Option<&str>, Option<&str>),
        program: (&str, &str, &str),
    ) -> MatchResult {
        let program = Executable {
            path: program.0.as_bytes(),
            invoked_as: (!program.1.is_empty()).then_some(program.1.as_bytes()),
            script: (!program.2.is_empty()).then_some(program.2.as_bytes()),
            style: PathStyle::Posix,
        };
        ExecutablePaths::of(&program).match_rule(RulePattern {
            pattern: rule.0.as_bytes(),
            target: rule.1.map(str::as_bytes),
            script: rule.2.map(str::as_bytes),
        })
    }

    #[test]
    fn results() {
        let full = MatchResult::Matched { by: MatchKind::FullPath, script: None };
        let link = MatchResult::Matched { by: MatchKind::Link, script: None };
        let bare = MatchResult::Matched { by: MatchKind::BareName, script: None };
        let redis = ("/bin/redis-server", Some("/usr/bin/redis-check-rdb"), None);
        let busybox = ("/bin/nc", Some("/bin/busybox"), None);
        let python = ("/usr/bin/python3", Some("/usr/bin/python3.13"), Some("/opt/app.py"));
        let table = [
            (("/usr/bin/nc", None, None), ("/usr/bin/nc", "", ""), full),
            (("/usr/bin/nc", None, None), ("/usr/bin/nc (deleted)", "", ""), full),
            (("/usr/bin/nc", None, None), ("/home/u/nc", "", ""), MatchResult::OtherDirectory),
            (("/usr/bin/nc", None, None), ("/usr/bin/cat", "", ""), MatchResult::OtherProgram),
            (("nc", None, None), ("/home/u/nc", "", ""), bare),
            (("nc", None, None), ("/usr/bin/nc.openbsd", "./nc", ""), bare),
            (("/usr/bin/nc", None, None), ("/usr/bin/nc.openbsd", "/usr/bin/nc", ""), full),
            (redis, ("/usr/bin/redis-check-rdb", "/usr/bin/redis-server", ""), link),
            (redis, ("/usr/bin/redis-check-rdb", "", ""), link),
            (
                redis,
                ("/usr/bin/redis-check-rdb", "/usr/bin/redis-sentinel", ""),
                MatchResult::OtherProgram,
            ),
            (busybox, ("/bin/busybox", "/bin/ls", ""), MatchResult::OtherProgram),
            (busybox, ("/bin/busybox", "./nc", ""), link),
            (python, ("/usr/bin/python3.13", "/usr/bin/python3", ""), MatchResult::OtherScript),
            (
                python,
                ("/usr/bin/python3.13", "/usr/bin/python3", "/tmp/app.py"),
                MatchResult::OtherScript,
            ),
            (
                python,
                ("/usr/bin/python3.13", "/usr/bin/python3", "/opt/app.py"),
                MatchResult::Matched { by: MatchKind::FullPath, script: Some(MatchKind::FullPath) },
            ),
            (("bin/nc", None, None), ("/usr/bin/nc", "", ""), MatchResult::OtherDirectory),
            (("", None, None), ("/usr/bin/nc", "", ""), MatchResult::OtherProgram),
            (("nc", None, None), ("", "", ""), MatchResult::OtherProgram),
        ];
        for (rule, program, expected) in table {
            assert_eq!(result(rule, program), expected, "{rule:?} {program:?}");
        }
    }
}
