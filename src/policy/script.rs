//! Which script an interpreter runs, by its command line.

/// Options of usual interpreters (python, node, perl, ruby, java) whose value is a word of its
/// own.
const WITH_VALUE: [&[u8]; 12] = [
    b"-W",
    b"-X",
    b"-r",
    b"--require",
    b"--import",
    b"--loader",
    b"-I",
    b"-cp",
    b"-classpath",
    b"--class-path",
    b"-p",
    b"--module-path",
];

/// The script, module (`-m`) or archive (`-jar`) among the arguments that follow the program's own
/// name; `None` for code given on the command line (`-c`, `-e`) or no script at all.
///
/// ```
/// use vipool::policy::script_argument;
///
/// let script = |line: &'static str| script_argument(line.split(' ').map(str::as_bytes));
/// assert_eq!(script("-u -W ignore /opt/app/run.py --port 80"), Some(&b"/opt/app/run.py"[..]));
/// assert_eq!(script("-m http.server 8000"), Some(&b"http.server"[..]));
/// assert_eq!(script("-c print(1)"), None);
/// // A shell's -e is no code: it runs the script behind it.
/// assert_eq!(script("-e /opt/app/run.sh"), Some(&b"/opt/app/run.sh"[..]));
/// assert_eq!(script("-e console.log(1)"), None);
/// ```
pub fn script_argument<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    loop {
        match arguments.next()? {
            b"-m" | b"-jar" | b"--" => return arguments.next(),
            b"-c" | b"--eval" => return None,
            b"-e" => return arguments.next().filter(|next| is_path(next)),
            option if WITH_VALUE.contains(&option) => _ = arguments.next(),
            option if option.first() == Some(&b'-') => {}
            script => return Some(script),
        }
    }
}

/// Whether what follows `-e` is the path of a script, as it is for a shell, and not code.
fn is_path(word: &[u8]) -> bool {
    let begins = [&b"/"[..], b"./", b"../"].iter().any(|start| word.starts_with(start));
    begins && !word.contains(&b' ')
}
