//! Compares program paths by the rules of POSIX and of Windows. All functions are pure and work on
//! every system.
//!
//! No function allocates, locks or accesses the file system, so a hook layer may call these
//! functions from a signal handler. Paths are bytes. Windows paths are WTF-8, see
//! [`utf16_to_wtf8`].
//!
//! A pattern is a full path or a bare file name. Any other path (`bin/app`, `C:app`, `\app`)
//! depends on the current directory and matches nothing. `..` is not resolved.
//!
//! Because this module does not access the file system, it does not resolve short names
//! (`PROGRA~1`), junctions or drive letters of `subst`. This module folds case one character at a
//! time, as NTFS does. NTFS uses the Unicode tables of the Windows version that formatted the
//! volume. This module uses the Unicode tables of Rust.

use super::PathStyle;

/// The kinds of patterns in the process list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternKind {
    /// `/usr/bin/app`: matches on POSIX systems.
    FullPosix,
    /// `C:\Program Files\app.exe`, `\\server\share\app.exe`: matches on Windows.
    FullWindows,
    /// `app`: matches the file name in every directory, on every system.
    BareName,
    /// A path that depends on the current directory or names no file (`/`, `/usr/..`), or an empty
    /// text: matches nothing.
    Relative,
}

/// Returns the kind of a pattern.
#[must_use]
pub fn pattern_kind(pattern: &[u8]) -> PatternKind {
    if pattern.first() == Some(&b'/') {
        let has_name = file_name(pattern, PathStyle::Posix).is_some();
        return if has_name { PatternKind::FullPosix } else { PatternKind::Relative };
    }
    let (root, rest) = windows_root(pattern);
    match root {
        Root::Drive(_) | Root::Unc if components(rest, PathStyle::Windows).next().is_some() => {
            PatternKind::FullWindows
        }
        Root::None if file_name(pattern, PathStyle::Windows) == Some(pattern) => {
            PatternKind::BareName
        }
        _ => PatternKind::Relative,
    }
}

/// Returns whether a pattern can match a program: a full path without `..` or a bare name, in both
/// cases without NUL bytes.
pub(crate) fn names_program(pattern: &str) -> bool {
    let has_parent_component = pattern.split(['/', '\\']).any(|part| part == "..");
    let is_relative = pattern_kind(pattern.as_bytes()) == PatternKind::Relative;
    !is_relative && !has_parent_component && !pattern.contains('\0')
}

/// Returns whether both paths are full paths of the same file by the rules of this style.
///
/// ```
/// use vipool::policy::{PathStyle, path::same_path};
///
/// let (path1, path2) = (r"\\?\C:\Apps\Ärzte.exe", "c:/apps/ärzte.EXE. ");
/// assert!(same_path(path1.as_bytes(), path2.as_bytes(), PathStyle::Windows));
/// assert!(!same_path(b"/opt/App", b"/opt/app", PathStyle::Posix));
/// ```
#[must_use]
pub fn same_path(path1: &[u8], path2: &[u8], style: PathStyle) -> bool {
    match style {
        PathStyle::Posix => {
            path1.first() == Some(&b'/')
                && path2.first() == Some(&b'/')
                && components(path1, style).eq(components(path2, style))
        }
        PathStyle::Windows => {
            let ((root1, rest1), (root2, rest2)) = (windows_root(path1), windows_root(path2));
            root1 == root2
                && root1 != Root::None
                && root1 != Root::Relative
                && eq_by_name(components(rest1, style), components(rest2, style), style)
        }
    }
}

/// Returns whether two file names are equal by the rules of this style.
pub fn same_name(name1: &[u8], name2: &[u8], style: PathStyle) -> bool {
    match style {
        PathStyle::Posix => name1 == name2,
        PathStyle::Windows => {
            let (trimmed1, trimmed2) = (trim_end(name1), trim_end(name2));
            if trimmed1.is_ascii() && trimmed2.is_ascii() {
                return trimmed1.eq_ignore_ascii_case(trimmed2);
            }
            match (str::from_utf8(trimmed1), str::from_utf8(trimmed2)) {
                (Ok(text1), Ok(text2)) => {
                    text1.chars().map(simple_uppercase).eq(text2.chars().map(simple_uppercase))
                }
                // Names with lone surrogates are not valid UTF-8. In such names, fold only ASCII
                // letters.
                _ => trimmed1.eq_ignore_ascii_case(trimmed2),
            }
        }
    }
}

/// Returns the last component of a path. Returns `None` if the path has no component or the last
/// component is `..`.
#[must_use]
pub fn file_name(path: &[u8], style: PathStyle) -> Option<&[u8]> {
    let rest = match style {
        PathStyle::Posix => path,
        PathStyle::Windows => windows_root(path).1,
    };
    // Search from the end, because this function runs for every rule of the process list.
    let mut parts = rest.rsplit(|byte| is_separator_in(*byte, style));
    parts.find(|part| is_component(part)).filter(|name| *name != b"..")
}

/// Converts a UTF-16 path, as `GetModuleFileNameW` returns it, to WTF-8 in `buffer`. Returns the
/// written part of `buffer`. Returns `None` if the path does not fit. A lone surrogate becomes
/// three bytes, so different names stay different.
pub fn utf16_to_wtf8<'b>(utf16: &[u16], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut length = 0;
    for decoded in char::decode_utf16(utf16.iter().copied()) {
        let free_bytes = buffer.get_mut(length..)?;
        length += match decoded {
            Ok(character) if character.len_utf8() <= free_bytes.len() => {
                character.encode_utf8(free_bytes).len()
            }
            Ok(_) => return None,
            Err(error) => {
                let surrogate = error.unpaired_surrogate();
                let bytes = [
                    0xe0 | (surrogate >> 12),
                    0x80 | (surrogate >> 6 & 0x3f),
                    0x80 | (surrogate & 0x3f),
                ];
                free_bytes.get_mut(..3)?.copy_from_slice(&bytes.map(|byte| byte as u8));
                3
            }
        };
    }
    buffer.get(..length)
}

/// The root of a Windows path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    /// `C:\`. The value is the letter in upper case.
    Drive(u8),
    /// `\\server\share` or `\\?\UNC\server\share`. The server and the share are in the rest.
    Unc,
    /// `C:app`, `\app`, or a namespace prefix without a drive or `UNC`, such as `\\?\Volume{...}\`.
    Relative,
    /// `app`, `bin\app`.
    None,
}

/// Splits a Windows path into its root and the rest. Removes a namespace prefix: `\\?\` (Win32
/// files), `\\.\` (Win32 devices) or `\??\` (native). See "Naming Files, Paths, and Namespaces" in
/// the Windows documentation.
fn windows_root(path: &[u8]) -> (Root, &[u8]) {
    let is_separator_at = |index: usize| path.get(index).is_some_and(|byte| is_separator(*byte));
    let byte_at = |index: usize| path.get(index).copied();
    let has_namespace = is_separator_at(0)
        && is_separator_at(3)
        && matches!(
            (byte_at(1), byte_at(2)),
            (Some(b'\\' | b'/'), Some(b'?' | b'.')) | (Some(b'?'), Some(b'?'))
        );
    let path = if has_namespace { &path[4..] } else { path };
    let is_unc = path.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"UNC"));
    match path {
        [_, _, _, separator, rest @ ..] if has_namespace && is_unc && is_separator(*separator) => {
            (Root::Unc, rest)
        }
        [letter, b':', rest @ ..] if letter.is_ascii_alphabetic() => match rest.first() {
            Some(byte) if is_separator(*byte) => (Root::Drive(letter.to_ascii_uppercase()), rest),
            _ => (Root::Relative, rest),
        },
        [byte1, byte2, rest @ ..]
            if !has_namespace && is_separator(*byte1) && is_separator(*byte2) =>
        {
            (Root::Unc, rest)
        }
        [byte, ..] if is_separator(*byte) => (Root::Relative, path),
        _ if has_namespace => (Root::Relative, path),
        _ => (Root::None, path),
    }
}

fn is_separator(byte: u8) -> bool {
    byte == b'\\' || byte == b'/'
}

/// Returns the components of a path, except empty components and `.`.
fn components(path: &[u8], style: PathStyle) -> impl Iterator<Item = &[u8]> {
    path.split(move |byte| is_separator_in(*byte, style)).filter(|part| is_component(part))
}

fn is_separator_in(byte: u8, style: PathStyle) -> bool {
    match style {
        PathStyle::Posix => byte == b'/',
        PathStyle::Windows => is_separator(byte),
    }
}

fn is_component(part: &[u8]) -> bool {
    !part.is_empty() && part != b"."
}

/// Returns whether both iterators return the same names in the same order.
fn eq_by_name<'a>(
    mut names1: impl Iterator<Item = &'a [u8]>,
    mut names2: impl Iterator<Item = &'a [u8]>,
    style: PathStyle,
) -> bool {
    loop {
        match (names1.next(), names2.next()) {
            (None, None) => return true,
            (Some(name1), Some(name2)) if same_name(name1, name2, style) => {}
            _ => return false,
        }
    }
}

/// Returns a file name without trailing dots and spaces, which Win32 ignores.
fn trim_end(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|byte| *byte != b'.' && *byte != b' ') {
        Some(last_index) => &name[..=last_index],
        // A name of dots and spaces only, such as `..`, stays unchanged.
        None => name,
    }
}

/// Returns a character in upper case, with the limits of the NTFS tables. The character stays
/// unchanged if its upper case is not one character (`ß`), is outside the basic multilingual plane,
/// or has another lower case (`ı`, `ſ` and `µ`).
fn simple_uppercase(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_uppercase();
    }
    let mut uppercase_chars = character.to_uppercase();
    match (uppercase_chars.next(), uppercase_chars.next()) {
        (Some(uppercase), None)
            if uppercase <= '\u{ffff}' && {
                let mut lowercase_chars = uppercase.to_lowercase();
                lowercase_chars.next() == Some(character) && lowercase_chars.next().is_none()
            } =>
        {
            uppercase
        }
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use PathStyle::{Posix, Windows};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pattern_kind_is_recognized() {
        let table: [(&str, PatternKind); 22] = [
            ("/usr/bin/app", PatternKind::FullPosix),
            ("/app", PatternKind::FullPosix),
            ("/", PatternKind::Relative),
            ("//", PatternKind::Relative),
            ("/usr/..", PatternKind::Relative),
            ("app", PatternKind::BareName),
            ("app.exe", PatternKind::BareName),
            ("my app.exe", PatternKind::BareName),
            ("", PatternKind::Relative),
            (".", PatternKind::Relative),
            ("..", PatternKind::Relative),
            ("bin/app", PatternKind::Relative),
            (r"bin\app", PatternKind::Relative),
            ("./app", PatternKind::Relative),
            (r"C:\app.exe", PatternKind::FullWindows),
            ("c:/app.exe", PatternKind::FullWindows),
            (r"C:app.exe", PatternKind::Relative),
            (r"C:\", PatternKind::Relative),
            (r"\app.exe", PatternKind::Relative),
            (r"\\server\share\app.exe", PatternKind::FullWindows),
            (r"\\?\C:\app.exe", PatternKind::FullWindows),
            (r"\\?\UNC\server\share\app.exe", PatternKind::FullWindows),
        ];
        for (pattern, kind) in table {
            assert_eq!(pattern_kind(pattern.as_bytes()), kind, "{pattern:?}");
        }
    }

    #[test]
    fn path_equality_follows_the_style() {
        let table: [(&str, &str, PathStyle, bool); 25] = [
            ("/usr/bin/app", "/usr/bin/app", Posix, true),
            ("/usr//bin/./app", "/usr/bin/app", Posix, true),
            ("/usr/bin/app/", "/usr/bin/app", Posix, true),
            ("/usr/bin/App", "/usr/bin/app", Posix, false),
            ("/usr/local/bin/app", "/usr/bin/app", Posix, false),
            ("/usr/bin/app ", "/usr/bin/app", Posix, false),
            ("app", "app", Posix, false),
            (r"/a\b", "/a/b", Posix, false),
            (r"C:\Apps\a.exe", r"c:\APPS\A.EXE", Windows, true),
            (r"C:\Apps\a.exe", "C:/Apps/a.exe", Windows, true),
            (r"C:\Apps\a.exe", r"C:\Apps\\a.exe", Windows, true),
            (r"C:\Apps\a.exe", r"D:\Apps\a.exe", Windows, false),
            (r"C:\Apps\a.exe", r"C:\Apps\a", Windows, false),
            (r"C:\Apps\a.exe", r"C:\Apps\a.exe. .", Windows, true),
            (r"C:\Apps\a.exe", r"C:\Apps.\a.exe", Windows, true),
            (r"C:\Apps\a.exe", r"\\?\C:\Apps\a.exe", Windows, true),
            (r"C:\Apps\a.exe", r"\??\C:\Apps\a.exe", Windows, true),
            (r"C:\Apps\a.exe", r"\\.\C:\Apps\a.exe", Windows, true),
            (r"\\srv\share\a.exe", r"\\?\UNC\SRV\share\a.exe", Windows, true),
            (r"\\srv\share\a.exe", r"\??\unc\srv\share\a.exe", Windows, true),
            (r"\\srv\share\a.exe", r"C:\srv\share\a.exe", Windows, false),
            (r"\Apps\a.exe", r"\Apps\a.exe", Windows, false),
            (r"C:\Straße.exe", r"C:\STRASSE.exe", Windows, false),
            (r"C:\Ωmega\Жук.exe", r"C:\ωMEGA\жУК.EXE", Windows, true),
            (r"C:\ı.exe", r"C:\I.exe", Windows, false),
        ];
        for (path1, path2, style, is_same) in table {
            let (bytes1, bytes2) = (path1.as_bytes(), path2.as_bytes());
            assert_eq!(same_path(bytes1, bytes2, style), is_same, "{path1} {path2}");
            assert_eq!(same_path(bytes2, bytes1, style), is_same, "{path2} {path1}");
        }
    }

    fn paths() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "/",
            "\\",
            "\\\\?\\",
            "\\??\\",
            "UNC",
            "C:",
            "c:",
            "a",
            "A",
            "ä",
            "Ä",
            "ß",
            "ı",
            "I",
            ".",
            "..",
            " ",
            "app.exe",
            "\u{10400}",
            "\u{10428}",
        ]);
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        /// Without this property, a rule could match one spelling of a path but not another.
        #[test]
        fn path_equality_is_an_equivalence_relation(
            path0 in paths(), path1 in paths(), path2 in paths(),
        ) {
            let paths = [path0.as_bytes(), path1.as_bytes(), path2.as_bytes()];
            for style in [Posix, Windows] {
                let is_same = |index1: usize, index2: usize| {
                    same_path(paths[index1], paths[index2], style)
                };
                prop_assert_eq!(is_same(0, 1), is_same(1, 0));
                prop_assert!(!(is_same(0, 1) && is_same(1, 2)) || is_same(0, 2));
                prop_assert!(!is_same(0, 1) || is_same(0, 0));
                let full_path_kind = match style {
                    Posix => PatternKind::FullPosix,
                    Windows => PatternKind::FullWindows,
                };
                prop_assert!(pattern_kind(paths[0]) != full_path_kind || is_same(0, 0));
            }
        }

        #[test]
        fn all_spellings_of_a_windows_path_are_equal(
            names in prop::collection::vec("[a-zäöüéñA-Z0-9_ж]{1,6}", 1..4),
            ignored_suffix in "[. ]{0,3}",
        ) {
            let path = format!("C:\\{}", names.join("\\"));
            let spellings = [
                path.to_uppercase(),
                path.to_lowercase(),
                path.replace('\\', "/"),
                path.replace('\\', "\\.\\"),
                format!("\\\\?\\{path}"),
                format!("\\??\\{path}"),
                format!("{path}{ignored_suffix}"),
            ];
            for spelling in spellings {
                prop_assert!(same_path(path.as_bytes(), spelling.as_bytes(), Windows), "{}", spelling);
            }
            let deeper_path = format!("{path}\\x");
            prop_assert!(!same_path(path.as_bytes(), deeper_path.as_bytes(), Windows));
        }
    }

    #[test]
    fn utf16_paths_become_wtf8() {
        let mut buffer = [0; 64];
        let utf16: Vec<u16> = r"C:\Ä😀.exe".encode_utf16().collect();
        assert_eq!(utf16_to_wtf8(&utf16, &mut buffer), Some(r"C:\Ä😀.exe".as_bytes()));
        assert_eq!(utf16_to_wtf8(&utf16, &mut buffer[..utf16.len()]), None);
        assert_eq!(utf16_to_wtf8(&[0xd800, 0x41], &mut buffer), Some(&b"\xed\xa0\x80A"[..]));
        assert_eq!(utf16_to_wtf8(&[], &mut []), Some(&b""[..]));
    }
}
