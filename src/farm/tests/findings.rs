//! Tests for the findings of farm files.

use crate::farm::{Farm, Level};
use crate::pool::PoolKind;

/// A farm without findings. A test case adds text to it, so the report contains only findings about
/// that text.
const FARM: &str = "[server.ts1]\n[[range]]\naddresses = \"10.0.5.10-10.0.5.99\"\n";

/// A process list without findings. A test case adds text to it.
const PROCESS_LIST: &str = "[[program]]\npath = \"/usr/bin/app\"\n";

/// Returns the findings as "error CODE KEY" or "warning CODE KEY".
fn summarize_findings(text: &str) -> Vec<String> {
    let (_, report) = Farm::parse(text);
    report
        .findings()
        .iter()
        .map(|finding| format!("{} {} {}", finding.level, finding.code, finding.key))
        .collect()
}

fn assert_findings(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(summarize_findings(text), *expected, "{text}");
    }
}

#[test]
fn example_has_no_findings() {
    let (farm, report) = Farm::parse(include_str!("../../../examples/farm.toml"));
    assert!(report.is_empty(), "{report}");
    assert_eq!(farm.ranges.len(), 4);
}

#[test]
fn commented_keys_of_the_example_have_default_values() {
    let example = include_str!("../../../examples/farm.toml");
    let example_with_all_keys: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.split(" = ").next().is_some_and(|key| !key.contains(' ')) => key,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(
        example_with_all_keys.matches("\ncool-down = ").count() == 1,
        "{example_with_all_keys}"
    );
    let (farm_with_all_keys, report) = Farm::parse(&example_with_all_keys);
    assert!(report.is_empty(), "{report}");
    let (mut farm_with_defaults, _) = Farm::parse(example);
    farm_with_defaults.pools[0].max_addresses = farm_with_all_keys.pools[0].max_addresses;
    assert_eq!(farm_with_all_keys, farm_with_defaults);
}

#[test]
fn empty_farm_is_valid_but_an_empty_file_is_not() {
    assert_findings(&[
        ("", &["error file "]),
        ("# nothing\n", &["error file "]),
        ("\u{feff}", &["error file "]),
        ("[sessions]\n", &[]),
        (FARM, &[]),
    ]);
    assert_eq!(Farm::default().validate(), []);
    let plan = Farm::default().plan("any", None).plan;
    assert_eq!(plan.pools.len(), 1);
    assert_eq!(plan.pools[0].kind(), PoolKind::Loopback);
}

#[test]
fn syntax_and_type_errors_are_reported() {
    assert_findings(&[
        ("[sessions", &["error syntax "]),
        ("[sessions]\ncool-down = \n", &["error syntax "]),
        ("[sessions]\ncool-down = \"2m\ncheck-in-use = false\n", &["error syntax "]),
        ("[sessions]\nlow-water = 1\nlow-water = 2\n", &["error syntax "]),
        ("\0", &["error syntax "]),
        ("sessions = 5", &["error type sessions"]),
        ("range = 5", &["error type range[0]"]),
        ("[[sessions]]", &["error type sessions"]),
        ("[sessions]\ncheck-in-use = \"true\"", &["error type sessions.check-in-use"]),
        ("[sessions]\nlow-water = \"5\"", &["error type sessions.low-water"]),
        ("[sessions]\nlow-water = 1.5", &["error type sessions.low-water"]),
        ("[sessions]\nlow-water = -1", &["error value sessions.low-water"]),
        ("[sessions]\nlow-water = 4294967296", &["error value sessions.low-water"]),
        ("[sessions]\ncool-down = 90\nlow-water = 0x1f", &[]),
        ("[sessions]\ncool-down = \"90\"", &["error value sessions.cool-down"]),
        ("[sessions]\ncool-down = \"9999999d\"", &["error value sessions.cool-down"]),
        ("[sessions]\nwhen-exhausted = \"wait\"", &["error value sessions.when-exhausted"]),
        ("[sessions]\nwhen-exhausted = \"wait 5s\"", &[]),
        ("[sessions]\nallocate = \"logn\"", &["error value sessions.allocate"]),
        ("[sessions]\nsession-per = \"users\"", &["error value sessions.session-per"]),
        ("[rewrite]\nfixed-ports = [0]", &["error value rewrite.fixed-ports[0]"]),
        ("[rewrite]\nfixed-ports = [1, \"9-8\"]", &["error value rewrite.fixed-ports[1]"]),
        ("[network]\nsubnets = \"10.0.5.1/24\"", &["error value network.subnets[0]"]),
        ("[network]\nsubnets = \"10.0.5.1\"", &["error value network.subnets[0]"]),
        ("[reservations]\nada = \"x\"", &["error value reservations.ada[0]"]),
        ("[server]\nts1 = 5", &["error type server.ts1"]),
    ]);
}

#[test]
fn all_findings_of_a_file_are_reported() {
    let text = "[sesions]\n[sessions]\nlow-watr = 1\ncool-down = \"x\"\n[[program]]\npath = \"a/b\"\n\
                [[range]]\naddresses = [\"10.0.0.300\",\n\"127.0.0.1\",\n\"10.0.0.7\",\n";
    assert_eq!(
        summarize_findings(text),
        [
            "error unknown-key sesions",
            "error unknown-key sessions.low-watr",
            "error value sessions.cool-down",
            "error path program[0].path",
            "error value range[0].addresses[0]",
            "error not-hosts range[0].addresses[0]",
            "error syntax ",
        ]
    );
}

#[test]
fn one_syntax_mistake_is_one_error() {
    // Each farm consists of `start`, a mistake and `end`.
    let start = "[server.ts1]\n[server.ts2]\nenabled = false\n[[range]]\nserver = \"ts1\"\n";
    let end = "\n[[program]]\npath = \"/usr/bin/app\"\n\n[sessions]\nlow-water = 3\n";
    for mistake in [
        "addresses = [\"10.0.5.7, \"10.0.5.8\"]",
        "addresses = [\"10.0.5.7\", \"10.0.5.8]",
        "addresses = \"10.0.5.7",
        "addresses = [\"10.0.5.7\"\n",
        "addresses \"10.0.5.7\"",
        "addresses = \"10.0.5.7\"\n[pool.lab",
        "addresses = [\n  \"10.0.5.7\",\n  \"10.0.5.8,\n  \"10.0.5.9\"\n]",
        "addresses = \"\"\"10.0.5.7",
    ] {
        let text = format!("{start}{mistake}{end}");
        assert_eq!(summarize_findings(&text), ["error syntax "], "{mistake}");
    }
    // A value without its first quotation mark causes only the syntax error.
    let farm = "[network]\nsubnets = [\"10.0.4.0/22\"]\n\
                [[range]]\naddresses = \"10.0.5.0/24\"\nexclude = [\"10.0.5.0\", \"10.0.5.255\"]\n\
                [[program]]\npath = \"/usr/bin/app\"\nfeatures = [\"loopback\"]\n\
                wildcard = \"loopback\"\n";
    for line in farm.lines().filter(|line| line.contains(" = ")) {
        let (key, value) = line.split_once(" = ").unwrap();
        let line_without_quote = format!("{key} = {}", value.replacen('"', "", 1));
        let text = farm.replace(line, &line_without_quote);
        assert_eq!(summarize_findings(&text), ["error syntax "], "{line_without_quote}");
    }
    let two_mistakes = format!("{start}addresses = \"10.0.5.7{end}max-sessions = \"3\n");
    assert_eq!(summarize_findings(&two_mistakes), ["error syntax ", "error syntax "]);
}

#[test]
fn at_most_100_syntax_errors_are_reported() {
    let text = "a\n\n[x\n\nb\n\n".repeat(1000);
    let (_, report) = Farm::parse(&text);
    assert!((1..=100).contains(&report.count(Level::Error)), "{}", report.count(Level::Error));
}

#[test]
fn unknown_key_suggests_the_most_similar_key() {
    let table = [
        ("[sesions]", "did you mean \"sessions\"?"),
        ("[server.a]\nmax_sessions = 1", "did you mean \"max-sessions\"?"),
        ("[[range]]\nadresses = \"10.0.5.7\"", "did you mean \"addresses\"?"),
        ("[[program]]\nown-port = 1", "did you mean \"own-ports\"?"),
        ("[loopback]\nquux = 1", "known: ranges, exclude"),
    ];
    for (text, remedy) in table {
        let (_, report) = Farm::parse(text);
        let finding =
            report.findings().iter().find(|finding| finding.code == "unknown-key").expect(text);
        assert_eq!(finding.remedy, remedy);
        assert_eq!(finding.level, Level::Error);
    }
}

#[test]
fn invalid_ranges_are_reported() {
    let range = |addresses: &str| format!("[[range]]\naddresses = {addresses}\n");
    let two_ranges = |addresses1: &str, addresses2: &str| range(addresses1) + &range(addresses2);
    assert_findings(&[
        ("[[range]]", &["error no-addresses range[0].addresses"]),
        (&range("[]"), &["error no-addresses range[0].addresses"]),
        (&range("\"10.0.5.9-10.0.5.1\""), &["error value range[0].addresses[0]"]),
        (&range("\"10.0.5.10/24\""), &["error value range[0].addresses[0]"]),
        (&range("\"10.0.5.0/24\""), &["warning broadcast range[0].addresses[0]"]),
        (&range("\"10.0.4.200-10.0.5.9\""), &["warning broadcast range[0].addresses[0]"]),
        (&range("\"10.0.5.255\""), &["warning broadcast range[0].addresses[0]"]),
        (&(range("\"10.0.5.0/24\"") + "exclude = [\"10.0.5.0\", \"10.0.5.255\"]"), &[]),
        (
            &(range("\"10.0.5.7\"") + "exclude = \"10.0.6.0/24\""),
            &["warning exclude range[0].exclude[0]"],
        ),
        (
            &(range("\"10.0.5.7\"") + "exclude = \"10.0.5.0/24\""),
            &["warning empty range[0].exclude"],
        ),
        (&range("\"2001:db8::/64\""), &[]),
        (&range("\"::1\""), &["error not-hosts range[0].addresses[0]"]),
        (&range("\"127.0.0.7\""), &["error not-hosts range[0].addresses[0]"]),
        (&range("\"239.1.1.1\""), &["error not-hosts range[0].addresses[0]"]),
        (&range("\"169.254.7.1\""), &["warning link-local range[0].addresses[0]"]),
        (&range("\"fe80::/120\""), &["error link-local range[0].addresses[0]"]),
        (
            &two_ranges("\"10.0.5.10-10.0.5.20\"", "\"10.0.5.20\""),
            &["error overlap range[1].addresses[0]"],
        ),
        (
            &range("[\"10.0.5.20\", \"10.0.5.10-10.0.5.20\"]"),
            &["error overlap range[0].addresses[0]"],
        ),
        (&two_ranges("\"10.0.5.10-10.0.5.20\"", "\"10.0.5.21\""), &[]),
        (
            &(range("[\"10.0.5.10-10.0.5.90\", \"10.0.5.20\", \"10.0.5.80\"]")),
            &["error overlap range[0].addresses[1]", "error overlap range[0].addresses[2]"],
        ),
        (&(range("\"10.0.5.7\"") + "pool = \"x\""), &["error unknown-pool range[0].pool"]),
        (&(range("\"10.0.5.7\"") + "server = \"x\""), &["error unknown-server range[0].server"]),
    ]);
}

#[test]
fn invalid_servers_are_reported() {
    let two_servers = |addresses1: &str, addresses2: &str| {
        format!(
            "[server.ts1]\n[server.ts2]\n[[range]]\naddresses = \"{addresses1}\"\nserver = \"ts1\"\n\
             [[range]]\naddresses = \"{addresses2}\"\nserver = \"TS2\"\n"
        )
    };
    let long_name = "a".repeat(64);
    let long_name_finding = format!("error name server.{long_name}");
    assert_findings(&[
        (&two_servers("10.0.5.7", "10.0.5.8"), &[]),
        (
            &two_servers("10.0.5.7", "10.0.5.1-10.0.5.9"),
            &["error two-servers range[1].addresses[0]"],
        ),
        ("[server.ts1]", &["warning no-range server.ts1"]),
        ("[server.ts1]\nenabled = false", &[]),
        ("[server.ts1]\n[[program]]\npath = \"/a\"\nfeatures = [\"loopback\"]", &[]),
        ("[server.\"\"]\nenabled = false", &["error name server.\"\""]),
        (&format!("[server.{long_name}]\nenabled = false"), &[&long_name_finding]),
        (
            "[server.ts1]\nenabled = false\n[server.TS1]\nenabled = false",
            &["error duplicate server.TS1"],
        ),
        (
            "[server.a]\n[server.b]\n[[range]]\naddresses = \"10.0.5.7\"",
            &[
                "warning no-range server.a",
                "warning no-range server.b",
                "error no-server range[0].server",
            ],
        ),
        (
            "[server.\"ts1.corp\"]\nmax-sesions = 1\nenabled = false",
            &["error unknown-key server.\"ts1.corp\".max-sesions"],
        ),
    ]);
}

#[test]
fn pools_that_are_too_small_or_too_large_are_reported() {
    let server = |server_keys: &str, other_tables: &str| {
        FARM.replace("[server.ts1]\n", &format!("[server.ts1]\n{server_keys}\n")) + other_tables
    };
    assert_findings(&[
        (&server("max-sessions = 90", ""), &[]),
        (&server("max-sessions = 91", ""), &["warning too-few server.ts1.max-sessions"]),
        (&server("", "[sessions]\nmax-sessions = 91"), &["warning too-few sessions.max-sessions"]),
        (
            &server("max-sessions = 3", "[loopback]\nranges = \"127.9.0.0-127.9.0.4\""),
            &["warning too-few server.ts1.max-sessions"],
        ),
        (&server("", "[sessions]\nlow-water = 90"), &["warning low-water sessions.low-water"]),
        (
            "[[range]]\naddresses = \"10.0.0.1-11.0.0.9\"",
            &["warning too-many range", "warning broadcast range[0].addresses[0]"],
        ),
        ("[[range]]\naddresses = \"fd00::/64\"", &[]),
        ("[[range]]\naddresses = \"fd00::/64\"\n[pool.default]\nmax-addresses = 4096", &[]),
        (
            "[[range]]\naddresses = \"fd00::/64\"\n[pool.default]\nmax-addresses = 4097",
            &["warning many-ipv6 pool.default.max-addresses"],
        ),
        (
            "[[range]]\naddresses = \"10.0.5.7\"\n[pool.default]\nmax-addresses = 0",
            &["error value pool.default.max-addresses"],
        ),
        ("[pool.lab]", &["warning no-range pool.lab"]),
        ("[pool.loopback]", &["error name pool.loopback", "warning no-range pool.loopback"]),
    ]);
    let nine_pools: String = (0..9).map(|number| format!("[pool.p{number}]\n")).collect();
    assert!(summarize_findings(&nine_pools).contains(&"error too-many pool".to_owned()));
}

#[test]
fn ranges_are_compared_with_the_network_options() {
    let network = |addresses: &str| {
        format!(
            "[network]\nsubnets = [\"10.0.4.0/23\", \"10.0.6.0/24\"]\ndhcp-ranges = \"10.0.5.100-10.0.5.199\"\n\
             [[range]]\naddresses = \"{addresses}\""
        )
    };
    assert_findings(&[
        (&network("10.0.4.200-10.0.5.99"), &[]),
        (&network("10.0.5.90-10.0.5.110"), &["warning dhcp range[0].addresses[0]"]),
        (&network("10.0.5.240-10.0.6.9"), &["error spans-subnets range[0].addresses[0]"]),
        (&network("10.0.6.0-10.0.6.9"), &["warning broadcast range[0].addresses[0]"]),
        (&network("10.0.5.255"), &["warning broadcast range[0].addresses[0]"]),
        (&network("10.0.7.9"), &["warning no-subnet range[0].addresses[0]"]),
    ]);
}

#[test]
fn invalid_loopback_ranges_are_reported() {
    let loopback = |ranges: &str| format!("[loopback]\nranges = {ranges}");
    assert_findings(&[
        (&loopback("\"127.9.0.0/24\""), &[]),
        (&loopback("\"128.9.0.0/24\""), &["error not-loopback loopback.ranges[0]"]),
        (&loopback("\"126.0.0.0-127.9.0.0\""), &["error not-loopback loopback.ranges[0]"]),
        (&loopback("\"::1\""), &["error not-loopback loopback.ranges[0]"]),
        (&loopback("\"127.0.0.1-127.0.0.9\""), &["warning taken-loopback loopback.ranges[0]"]),
        (&loopback("\"127.0.0.53\""), &["warning taken-loopback loopback.ranges[0]"]),
        (&(loopback("\"127.0.0.53\"") + "\nexclude = \"127.0.0.53\""), &[]),
        (
            &loopback("[\"127.9.0.0/24\", \"127.9.0.255-127.9.1.9\"]"),
            &["error overlap loopback.ranges[1]"],
        ),
    ]);
}

#[test]
fn invalid_reservations_are_reported() {
    let farm = |keys: &str| {
        format!(
            "[[range]]\naddresses = \"10.0.5.10-10.0.5.20\"\nexclude = \"10.0.5.15\"\n[reservations]\n{keys}"
        )
    };
    assert_findings(&[
        (&farm("ada = \"10.0.5.10\"\nbob = [\"10.0.5.11\", \"10.0.5.12\"]"), &[]),
        (&farm("ada = \"10.0.5.21\""), &["error reservation reservations.ada[0]"]),
        (&farm("ada = \"10.0.5.15\""), &["error reservation reservations.ada[0]"]),
        (
            &farm("ada = \"10.0.5.10\"\nbob = \"10.0.5.10\""),
            &["error duplicate reservations.bob[0]"],
        ),
        (&farm("ada = [\"10.0.5.10\", \"10.0.5.10\"]"), &["error duplicate reservations.ada[1]"]),
        (&farm("\"\" = \"10.0.5.10\""), &["error name reservations.\"\"[0]"]),
    ]);
}

#[test]
fn invalid_programs_are_reported() {
    let program = |keys: &str| format!("{PROCESS_LIST}{keys}\n");
    let program_at = |name: &str| format!("[[program]]\npath = \"/{name}\"\n");
    assert_findings(&[
        (PROCESS_LIST, &[]),
        ("[[program]]", &["error path program[0].path"]),
        ("[[program]]\npath = \"app\"", &["warning bare-name program[0].path"]),
        ("[[program]]\npath = \"bin/app\"", &["error path program[0].path"]),
        ("[[program]]\npath = \"/usr/../app\"", &["error path program[0].path"]),
        ("[[program]]\npath = 'C:app.exe'", &["error path program[0].path"]),
        ("[[program]]\npath = 'C:\\Apps\\app.exe'", &[]),
        ("[[program]]\npath = \"/a\\u0000b\"", &["error path program[0].path"]),
        ("[[program]]\npath = \"/opt/*/app\"", &["warning path program[0].path"]),
        ("[[program]]\npath = \"app?\"", &["warning path program[0].path"]),
        ("[[program]]\npath = \"/opt/app \"", &["warning path program[0].path"]),
        ("[[program]]\npath = 'C:\\PROGRA~1\\app.exe'", &["warning path program[0].path"]),
        ("[[program]]\npath = 'C:\\Apps\\long~name.exe'", &[]),
        ("[[program]]\npath = \"/opt/app~1\"", &[]),
        (&program_at(&"a".repeat(255)), &[]),
        (&program_at(&"a".repeat(256)), &["error path program[0].path"]),
        (&program_at(&"a/".repeat(2048)), &["error path program[0].path"]),
        (&program("script = \"app.py\""), &["warning bare-name program[0].script"]),
        (&program("features = []"), &["warning no-features program[0].features"]),
        (&program("features = \"loopback\""), &[]),
        (&program("features = \"loopbak\""), &["error value program[0].features[0]"]),
        (&program("wildcard = \"loopback\""), &["warning wildcard program[0].wildcard"]),
        (
            &program("features = \"loopback\"\nwildcard = \"loopback\""),
            &["warning wildcard program[0].wildcard"],
        ),
        (
            &program("features = \"virtual-ip\"\nloopback-connect = \"own\""),
            &["warning no-effect program[0].loopback-connect"],
        ),
        (&program("own-ports = [80, 40000]"), &["warning ephemeral program[0].own-ports[1]"]),
        (&program("own-ports = \"60000-61000\""), &["warning ephemeral program[0].own-ports[0]"]),
        (
            &program("own-ports = 80\nshared-ports = \"1-99\""),
            &["error ports program[0].own-ports[0]"],
        ),
        (&(program("") + PROCESS_LIST), &["warning duplicate program[1].path"]),
        (&(program("") + PROCESS_LIST + "script = \"/a\""), &[]),
        (
            "[[program]]\npath = 'C:\\A.exe'\n[[program]]\npath = 'c:/a.EXE'",
            &["warning duplicate program[1].path"],
        ),
        ("[rewrite]\nfixed-ports = 50000", &["warning ephemeral rewrite.fixed-ports[0]"]),
    ]);
}

#[test]
fn finding_has_the_position_of_its_value() {
    let text = "[[range]]\n\taddresses = [\"ü\", \"10.0.5.7\",\n\t  \"127.0.0.9\"] # ä\n";
    let (_, report) = Farm::parse(text);
    let positions: Vec<_> = report
        .findings()
        .iter()
        .map(|finding| {
            finding.position.map(|position| {
                (position.line, position.column, &text[position.start..position.end])
            })
        })
        .collect();
    assert_eq!(positions, [Some((2, 15, "\"ü\"")), Some((3, 4, "\"127.0.0.9\""))]);
    let report_text = report.with_file("farm.toml".as_ref()).to_string();
    let expected = "farm.toml:3:4: error: 127.0.0.9 cannot be used by hosts (loopback)\n  \
                    |\n3 | \t  \"127.0.0.9\"] # ä\n  | \t  ^^^^^^^^^^^\n  = remove 127.0.0.9 from the range";
    assert!(report_text.contains(expected), "{report_text}");
}

#[test]
fn unreadable_files_are_reported() {
    let directory = std::env::temp_dir().join(format!("vipool-farm-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let write_file = |name: &str, bytes: &[u8]| {
        let file = directory.join(name);
        std::fs::write(&file, bytes).unwrap();
        file
    };
    let mut utf16_bytes: Vec<u8> = vec![0xff, 0xfe];
    utf16_bytes.extend(FARM.encode_utf16().flat_map(u16::to_le_bytes));
    let utf16_big_endian: Vec<u8> = FARM.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let large_contents = vec![b'#'; 5 << 20];
    let truncated_farm = &FARM.as_bytes()[..FARM.len() - 5];
    let table = [
        (directory.join("missing.toml"), "cannot read the file: "),
        (directory.clone(), "cannot read the file: "),
        (write_file("latin.toml", b"[server.ts1]\n# caf\xe9\n"), "byte 18 is not UTF-8"),
        (write_file("utf16.toml", &utf16_bytes), "the file is encoded in UTF-16"),
        (write_file("utf16le.toml", &utf16_bytes[2..]), "the file is encoded in UTF-16"),
        (write_file("utf16be.toml", &utf16_big_endian), "the file is encoded in UTF-16"),
        (write_file("large.toml", &large_contents), "larger than 4 MiB"),
        (write_file("cut.toml", truncated_farm), "invalid TOML: "),
    ];
    for (file, message) in table {
        let (_, report) = Farm::load(&file);
        assert!(report.has_errors());
        let report_text = report.to_string();
        assert!(
            report_text.contains(message) && report_text.starts_with(file.to_str().unwrap()),
            "{report_text}"
        );
    }
    let file_with_bom = write_file("bom.toml", format!("\u{feff}{FARM}").as_bytes());
    let (farm, report) = Farm::load(&file_with_bom);
    assert!(report.is_empty() && farm.servers.len() == 1, "{report}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn every_code_is_documented() {
    let sources = [
        include_str!("../section.rs"),
        include_str!("../toml.rs"),
        include_str!("../tables.rs"),
        include_str!("../plan.rs"),
        include_str!("../validate/mod.rs"),
        include_str!("../validate/capacity.rs"),
        include_str!("../validate/programs.rs"),
        include_str!("../validate/ranges.rs"),
    ];
    let page = include_str!("../../../docs/farm.md");
    let mut code_count = 0;
    for source in sources {
        for start in ["error(\"", "warning(\"", "(Level::Error, \""] {
            for rest in source.split(start).skip(1) {
                let code = rest.split('"').next().unwrap();
                assert!(page.contains(&format!("| `{code}` |")), "{code} is not in docs/farm.md");
                code_count += 1;
            }
        }
    }
    assert!(code_count > 40, "{code_count}");
}
