//! Matches programs with the rules of the process list.
//!
//! The most specific matching rule wins. A rule for a script is more specific than a rule for its
//! interpreter, and a full path is more specific than a bare name. Among equally specific rules,
//! the first rule of the process list wins.

use std::fmt;

use super::PathStyle;
use super::path::{PatternKind, file_name, pattern_kind, same_name, same_path};

/// A running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executable<'a> {
    /// The path of the program's file: the target of `/proc/self/exe`, or the result of
    /// `GetModuleFileNameW`.
    pub path: &'a [u8],
    /// The path by which the program was started, if it can differ from `path` (a symbolic link).
    /// On Linux this is `AT_EXECFN` of getauxval(3). If the path is relative, only its file name is
    /// used.
    pub invoked_as: Option<&'a [u8]>,
    /// The script that the program runs, if the program is an interpreter.
    pub script: Option<&'a [u8]>,
    /// The style of the paths, which determines how paths are compared.
    pub style: PathStyle,
}

impl<'a> Executable<'a> {
    /// Creates the description of a program that was started by the path of its file.
    #[must_use]
    pub const fn new(path: &'a [u8], style: PathStyle) -> Self {
        Self { path, invoked_as: None, script: None, style }
    }

    /// Sets the path by which the program was started.
    #[must_use]
    pub fn with_invoked_as(mut self, path: impl Into<Option<&'a [u8]>>) -> Self {
        self.invoked_as = path.into();
        self
    }

    /// Sets the script that the interpreter runs.
    #[must_use]
    pub fn with_script(mut self, script: impl Into<Option<&'a [u8]>>) -> Self {
        self.script = script.into();
        self
    }
}

impl Executable<'_> {
    /// Returns whether a pattern (full path or bare name) matches this program.
    #[must_use]
    pub fn is(&self, pattern: &[u8]) -> bool {
        let rule = RulePattern { pattern, target: None, script: None };
        ExecutablePaths::of(self).match_rule(rule).specificity() > 0
    }
}

/// The part of a rule that selects programs. The fields are those of [`Program`](super::Program).
#[derive(Clone, Copy, Debug)]
pub(super) struct RulePattern<'a> {
    pub pattern: &'a [u8],
    pub target: Option<&'a [u8]>,
    pub script: Option<&'a [u8]>,
}

/// How a rule matched a program or its script. A script never matches by `Link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchKind {
    /// By the path of the program's file, or by the full path by which the program was started.
    FullPath,
    /// By a listed symbolic link to the program's file.
    Link,
    /// By the name of the program's file, or by the file name of the path by which the program was
    /// started, in any directory.
    BareName,
}

/// The result of matching a program with one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchResult {
    /// The rule matches.
    Matched {
        /// How the program matched.
        program: MatchKind,
        /// How the script matched, if the rule names a script.
        script: Option<MatchKind>,
    },
    /// The file name matches, but the rule has a different full path.
    OtherDirectory,
    /// The interpreter matches, but the script does not.
    OtherScript,
    /// The program does not match.
    OtherProgram,
}

impl MatchResult {
    /// Returns how specific the match is; 0 for no match.
    pub(super) fn specificity(self) -> u8 {
        let MatchResult::Matched { program, script } = self else { return 0 };
        let program_score = match program {
            MatchKind::FullPath => 3,
            MatchKind::Link => 2,
            MatchKind::BareName => 1,
        };
        let script_score = match script {
            Some(MatchKind::FullPath | MatchKind::Link) => 2,
            Some(MatchKind::BareName) => 1,
            None => 0,
        };
        script_score << 2 | program_score
    }

    /// The highest [`specificity`](Self::specificity). A search ends at a match with this value.
    pub(super) const MAX_SPECIFICITY: u8 = 2 << 2 | 3;
}

impl MatchResult {
    /// Returns the result as text in English.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            MatchResult::Matched { program, script } => match (program, script.is_some()) {
                (MatchKind::FullPath, false) => "matches by full path",
                (MatchKind::FullPath, true) => "matches by full path and by script",
                (MatchKind::Link, false) => "matches by a listed symbolic link to this file",
                (MatchKind::Link, true) => {
                    "matches by a listed symbolic link to this file, and by script"
                }
                (MatchKind::BareName, false) => "matches by bare name",
                (MatchKind::BareName, true) => "matches by bare name and by script",
            },
            MatchResult::OtherDirectory => "same file name, but the rule has another full path",
            MatchResult::OtherScript => "the interpreter is listed only with another script",
            MatchResult::OtherProgram => "another program",
        }
    }
}

impl fmt::Display for MatchResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Returns the most specific match and its index in `results`. Among equally specific matches,
/// returns the first.
pub(super) fn most_specific(
    results: impl Iterator<Item = MatchResult>,
) -> Option<(usize, MatchResult)> {
    let mut best_match: Option<(usize, MatchResult)> = None;
    for (index, result) in results.enumerate() {
        if result.specificity() > best_match.map_or(0, |(_, result)| result.specificity()) {
            best_match = Some((index, result));
            if result.specificity() == MatchResult::MAX_SPECIFICITY {
                break;
            }
        }
    }
    best_match
}

/// The paths and names of a program, computed once for all rules.
#[derive(Clone, Copy)]
pub(super) struct ExecutablePaths<'a> {
    program: Executable<'a>,
    /// The path of the program's file, the path by which the program was started, and the path of
    /// the file without the suffix ` (deleted)`. The kernel adds this suffix if the file was
    /// deleted or replaced after the program started (proc_pid_exe(5)).
    paths: [Option<&'a [u8]>; 3],
    /// The file names of `paths`.
    names: [Option<&'a [u8]>; 3],
}

impl<'a> ExecutablePaths<'a> {
    pub fn of(program: &Executable<'a>) -> Self {
        let path_without_suffix = match program.style {
            PathStyle::Posix => program.path.strip_suffix(b" (deleted)"),
            PathStyle::Windows => None,
        };
        let paths = [Some(program.path), program.invoked_as, path_without_suffix];
        let names = paths.map(|path| file_name(path?, program.style));
        Self { program: *program, paths, names }
    }

    /// Matches the program with a rule.
    pub fn match_rule(&self, rule: RulePattern<'_>) -> MatchResult {
        let program_match = match self.match_program(rule) {
            Ok(match_kind) => match_kind,
            Err(result) => return result,
        };
        let Some(script_pattern) = rule.script else {
            return MatchResult::Matched { program: program_match, script: None };
        };
        let script = self.program.script;
        match script.and_then(|script| match_pattern(script_pattern, script, self.program.style)) {
            None => MatchResult::OtherScript,
            script_match => MatchResult::Matched { program: program_match, script: script_match },
        }
    }

    /// Matches the program with a rule, without regard to the script.
    fn match_program(&self, rule: RulePattern<'_>) -> Result<MatchKind, MatchResult> {
        let style = self.program.style;
        // Equal paths have equal names, and names are faster to compare.
        let are_same_names = |name1: Option<&[u8]>, name2: Option<&[u8]>| match (name1, name2) {
            (Some(name1), Some(name2)) => same_name(name1, name2, style),
            _ => false,
        };
        let listed_name = file_name(rule.pattern, style);
        let has_listed_name = self.names.iter().any(|name| are_same_names(*name, listed_name));
        let mut paths = self.paths.into_iter().flatten();
        if has_listed_name
            && let Some(kind) = paths.find_map(|path| match_pattern(rule.pattern, path, style))
        {
            return Ok(kind);
        }
        if let Some(target) = rule.target {
            // One file with many names (busybox) is a different program under each name.
            let invoked_name =
                if self.program.invoked_as.is_some() { self.names[1] } else { self.names[0] };
            let file_paths = [self.paths[0], self.paths[2]];
            if (are_same_names(invoked_name, listed_name)
                || are_same_names(invoked_name, file_name(target, style)))
                && file_paths.into_iter().flatten().any(|path| same_path(target, path, style))
            {
                return Ok(MatchKind::Link);
            }
        }
        Err(if has_listed_name { MatchResult::OtherDirectory } else { MatchResult::OtherProgram })
    }
}

fn match_pattern(pattern: &[u8], path: &[u8], style: PathStyle) -> Option<MatchKind> {
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

    /// Matches a program (path, path by which it was started, script) with a rule (pattern, target,
    /// script). For the program, an empty string means that it has no `invoked_as` or no script.
    fn match_result(
        (pattern, target, script_pattern): (&str, Option<&str>, Option<&str>),
        (path, invoked_as, script): (&str, &str, &str),
    ) -> MatchResult {
        let program = Executable {
            path: path.as_bytes(),
            invoked_as: (!invoked_as.is_empty()).then_some(invoked_as.as_bytes()),
            script: (!script.is_empty()).then_some(script.as_bytes()),
            style: PathStyle::Posix,
        };
        ExecutablePaths::of(&program).match_rule(RulePattern {
            pattern: pattern.as_bytes(),
            target: target.map(str::as_bytes),
            script: script_pattern.map(str::as_bytes),
        })
    }

    #[test]
    fn rules_match_by_path_link_name_and_script() {
        let by_path = MatchResult::Matched { program: MatchKind::FullPath, script: None };
        let by_link = MatchResult::Matched { program: MatchKind::Link, script: None };
        let by_name = MatchResult::Matched { program: MatchKind::BareName, script: None };
        let redis = ("/bin/redis-server", Some("/usr/bin/redis-check-rdb"), None);
        let busybox = ("/bin/nc", Some("/bin/busybox"), None);
        let python = ("/usr/bin/python3", Some("/usr/bin/python3.13"), Some("/opt/app.py"));
        let table = [
            (("/usr/bin/nc", None, None), ("/usr/bin/nc", "", ""), by_path),
            (("/usr/bin/nc", None, None), ("/usr/bin/nc (deleted)", "", ""), by_path),
            (("/usr/bin/nc", None, None), ("/home/u/nc", "", ""), MatchResult::OtherDirectory),
            (("/usr/bin/nc", None, None), ("/usr/bin/cat", "", ""), MatchResult::OtherProgram),
            (("nc", None, None), ("/home/u/nc", "", ""), by_name),
            (("nc", None, None), ("/usr/bin/nc.openbsd", "./nc", ""), by_name),
            (("/usr/bin/nc", None, None), ("/usr/bin/nc.openbsd", "/usr/bin/nc", ""), by_path),
            (redis, ("/usr/bin/redis-check-rdb", "/usr/bin/redis-server", ""), by_link),
            (redis, ("/usr/bin/redis-check-rdb", "", ""), by_link),
            (
                redis,
                ("/usr/bin/redis-check-rdb", "/usr/bin/redis-sentinel", ""),
                MatchResult::OtherProgram,
            ),
            (busybox, ("/bin/busybox", "/bin/ls", ""), MatchResult::OtherProgram),
            (busybox, ("/bin/busybox", "./nc", ""), by_link),
            (python, ("/usr/bin/python3.13", "/usr/bin/python3", ""), MatchResult::OtherScript),
            (
                python,
                ("/usr/bin/python3.13", "/usr/bin/python3", "/tmp/app.py"),
                MatchResult::OtherScript,
            ),
            (
                python,
                ("/usr/bin/python3.13", "/usr/bin/python3", "/opt/app.py"),
                MatchResult::Matched {
                    program: MatchKind::FullPath,
                    script: Some(MatchKind::FullPath),
                },
            ),
            (("bin/nc", None, None), ("/usr/bin/nc", "", ""), MatchResult::OtherDirectory),
            (("", None, None), ("/usr/bin/nc", "", ""), MatchResult::OtherProgram),
            (("nc", None, None), ("", "", ""), MatchResult::OtherProgram),
        ];
        for (rule, program, expected) in table {
            assert_eq!(match_result(rule, program), expected, "{rule:?} {program:?}");
        }
    }
}
