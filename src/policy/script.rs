//! Finds the script that an interpreter runs, in the arguments of the interpreter.

/// Options of common interpreters (python, node, perl, ruby, java) whose value is the next
/// argument.
const OPTIONS_WITH_VALUE: [&[u8]; 12] = [
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

/// Returns the script, module (`-m`) or archive (`-jar`) in the arguments of an interpreter.
/// `arguments` begins after `argv[0]`. Returns `None` for code on the command line (`-c`, `-e`),
/// and if there is no script.
///
/// ```
/// use vipool::policy::script_argument;
///
/// let script = |line: &'static str| script_argument(line.split(' ').map(str::as_bytes));
/// assert_eq!(script("-u -W ignore /opt/app/run.py --port 80"), Some(&b"/opt/app/run.py"[..]));
/// assert_eq!(script("-m http.server 8000"), Some(&b"http.server"[..]));
/// assert_eq!(script("-c print(1)"), None);
/// // The option -e of a shell has no value: the next argument is the script.
/// assert_eq!(script("-e /opt/app/run.sh"), Some(&b"/opt/app/run.sh"[..]));
/// assert_eq!(script("-e console.log(1)"), None);
/// ```
pub fn script_argument<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    loop {
        match arguments.next()? {
            b"-m" | b"-jar" | b"--" => return arguments.next(),
            b"-c" | b"--eval" => return None,
            b"-e" => return arguments.next().filter(|argument| is_path(argument)),
            option if OPTIONS_WITH_VALUE.contains(&option) => _ = arguments.next(),
            option if option.first() == Some(&b'-') => {}
            script => return Some(script),
        }
    }
}

/// Returns whether the argument after `-e` looks like the path of a script. For a shell, this
/// argument is a script. For other interpreters, it is code.
fn is_path(argument: &[u8]) -> bool {
    let has_path_prefix =
        [&b"/"[..], b"./", b"../"].iter().any(|prefix| argument.starts_with(prefix));
    has_path_prefix && !argument.contains(&b' ')
}
