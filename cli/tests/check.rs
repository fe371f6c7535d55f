//! Tests of `vipool check`: its report, its exit code and its JSON output.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A farm file in a temporary directory.
struct FarmFile(tempfile::TempDir);

impl FarmFile {
    fn new(content: &[u8]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("farm.toml"), content).expect("a file");
        Self(directory)
    }

    /// Runs `vipool check` on the file. Returns the output, and the standard output as text.
    fn check(&self, arguments: &[&str]) -> (Output, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vipool"));
        let command = command.current_dir(self.0.path()).args(["check", "farm.toml"]);
        let output = command.args(arguments).output().expect("vipool runs");
        let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
        (output, text)
    }
}

/// Runs a shell script in a new mount namespace and a new network namespace. The files
/// /etc/vipool/farm.toml and farm.toml in the working directory contain `farm_text`.
fn run_with_machine_farm(farm_text: &str, script: &str) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("farm.toml"), farm_text).expect("a file");
    let overlay = "mkdir work && mount -t tmpfs none work && mkdir work/upper work/work &&
        mount -t overlay none -o lowerdir=/etc,upperdir=work/upper,workdir=work/work /etc &&
        mkdir -p /etc/vipool && cp farm.toml /etc/vipool/ || exit 3";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "sh", "-c", &format!("{overlay}\n{script}")]);
    command.env("VIPOOL", env!("CARGO_BIN_EXE_vipool")).current_dir(directory.path());
    command.output().expect("unshare runs")
}

#[test]
fn check_up_and_repair_accept_the_same_forms_of_the_farm_file() {
    if !vipool_testing::have(&["root", "unshare"]) {
        return;
    }
    let farm = "[loopback]\nranges = \"127.77.0.0-127.77.0.199\"\n";
    let script = "
        for arguments in '' farm.toml '--farm farm.toml' '--farm=/etc/vipool/farm.toml'; do
            $VIPOOL check $arguments > /dev/null || exit 4
            $VIPOOL up $arguments --map $PWD/map > /dev/null || exit 5
            $VIPOOL repair $arguments --map $PWD/map > /dev/null || exit 6
        done
        for command in check up repair; do
            $VIPOOL $command farm.toml --farm farm.toml 2> /dev/null && exit 7
            $VIPOOL $command absent.toml 2>&1 | grep -q absent.toml || exit 8
        done
        exit 0";
    let output = run_with_machine_farm(farm, script);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn missing_program_is_a_warning_only_on_its_server() {
    if !vipool_testing::have(&["root", "unshare"]) {
        return;
    }
    let farm = "[loopback]\nranges = \"127.77.0.0-127.77.0.199\"\n
        [[program]]\npath = \"/bin/sh\"\nfeatures = [\"loopback\"]
        [[program]]\npath = \"/opt/absent/program\"\nfeatures = [\"loopback\"]
        [[program]]\npath = 'C:\\absent\\program.exe'\nfeatures = [\"loopback\"]\n";
    let script = "$VIPOOL check || exit 4
        $VIPOOL check --strict > /dev/null && exit 5
        echo another machine
        $VIPOOL check farm.toml --strict || exit 6
        $VIPOOL up --map $PWD/map || exit 7";
    let output = run_with_machine_farm(farm, script);
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let (this_machine_output, other_machine_output) =
        printed.split_once("another machine").expect("a marker");
    let warning = "\"/opt/absent/program\" does not exist";
    assert_eq!(this_machine_output.matches("does not exist").count(), 1, "{this_machine_output}");
    assert!(this_machine_output.contains(warning), "{this_machine_output}");
    assert!(!other_machine_output.contains("does not exist"), "{other_machine_output}");
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(errors.matches(warning).count(), 1, "{errors}");
}

const VALID_FARM: &str = r#"
[server.ts1]
max-sessions = 3
[server.ts2]
enabled = false
[[range]]
addresses = "10.0.5.10-10.0.5.14"
exclude = "10.0.5.12"
server = "ts1"
"#;

#[test]
fn report_lists_the_addresses_of_each_server() {
    let file = FarmFile::new(VALID_FARM.as_bytes());
    let (output, text) = file.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    let has_line = |line: &str| lines.contains(&line.split_whitespace().collect());
    assert!(has_line("server ts1: at most 3 sessions"), "{text}");
    let pool_line = "default IPv4 4 10.0.5.10 10.0.5.14 10.0.5.10-10.0.5.11, 10.0.5.13-10.0.5.14";
    assert!(has_line(pool_line), "{text}");
    let loopback_line = "loopback IPv4 2048 127.100.0.0 127.100.15.255 127.100.0.0-127.100.15.255";
    assert!(has_line(loopback_line), "{text}");
    assert!(has_line("server ts2: disabled, no session gets an address"), "{text}");
    assert!(has_line("farm.toml: no errors, no warnings"), "{text}");

    let (output, text) = file.check(&["--server", "ts2"]);
    assert!(output.status.success() && !text.contains("ts1"), "{text}");
    let (output, _) = file.check(&["--server", "ts3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean \"ts1\"?"));
}

#[test]
fn warnings_fail_only_with_strict() {
    let file = FarmFile::new(b"[[program]]\npath = \"redis-server\"\n");
    let (output, text) = file.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("farm.toml:2:8: warning: "), "{text}");
    assert!(text.ends_with("farm.toml: no errors, 1 warning\n"), "{text}");
    let (output, _) = file.check(&["--strict"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn empty_file_is_an_error() {
    for content in [&b""[..], b"# nothing\n"] {
        let (output, text) = FarmFile::new(content).check(&["--strict"]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("farm.toml: error: the file has no keys"), "{text}");
    }
}

#[test]
fn pools_are_listed_only_for_a_file_that_was_read() {
    let farm_in_utf16: Vec<u8> =
        VALID_FARM.encode_utf16().flat_map(|unit| unit.to_le_bytes()).collect();
    for (content, message) in [
        (&farm_in_utf16[..], "farm.toml: error: the file is encoded in UTF-16"),
        (b"", "farm.toml: error: the file has no keys"),
    ] {
        let file = FarmFile::new(content);
        let (output, text) = file.check(&[]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with(message) && !text.contains("POOL"), "{text}");
        assert!(text.ends_with("farm.toml: 1 error, no warnings\n"), "{text}");
        let (_, json) = file.check(&["--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["servers"].as_array().map(Vec::len), Some(0), "{json}");
    }
    let (_, text) = FarmFile::new(b"[sessions]\nlow-water = 1\n").check(&[]);
    assert!(text.contains("POOL") && text.contains("loopback"), "{text}");
}

#[test]
fn every_error_is_reported_and_fails_the_check() {
    let truncated_farm = &VALID_FARM.as_bytes()[..VALID_FARM.len() - 4];
    let (output, text) = FarmFile::new(truncated_farm).check(&[]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("farm.toml:9:12: error: invalid TOML: "), "{text}");

    let (output, text) = FarmFile::new(b"[server.ts1]\nmax-sesions = 3\nenabled = 1\n").check(&[]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in
        ["farm.toml:2:1: error: ", "did you mean \"max-sessions\"?", "farm.toml:3:11: error: "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_vipool"))
        .args(["check", "/nonexistent/farm.toml"])
        .output()
        .expect("vipool runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("/nonexistent/farm.toml: error: cannot read the file"), "{text}");
}

#[test]
fn json_has_typed_findings() {
    let (output, text) = FarmFile::new(b"[sessions]\nlow-watr = 3\n").check(&["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["passed"], false);
    let finding = &json["findings"][0];
    for (key, value) in [
        ("level", "error"),
        ("code", "unknown-key"),
        ("key", "sessions.low-watr"),
        ("value", "low-watr"),
        ("remedy", "did you mean \"low-water\"?"),
    ] {
        assert_eq!(finding[key], value);
    }
    assert_eq!((&finding["line"], &finding["column"]), (&2.into(), &1.into()));
    let pool = &json["servers"][0]["pools"][0];
    assert_eq!((&pool["kind"], &pool["addresses"]), (&"loopback".into(), &2048.into()));
}

#[test]
fn example_farm_has_no_findings() {
    let example_path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/farm.toml");
    let content = std::fs::read(example_path).expect("the example");
    let (output, text) = FarmFile::new(&content).check(&["--strict"]);
    assert!(output.status.success(), "{text}");
}
