//! Tests of the output of `vipool up` and `vipool down`, on an interface of a network namespace.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use vipool_testing::have;

use crate::files::run_isolated;
use crate::support::text;

/// A farm with one range. [`run_with_interface`] gives the host the last address of the range, so
/// this address cannot be leased.
const FARM: &str = "[[range]]\naddresses = \"10.77.0.100-10.77.0.104\"\n";

/// Runs a shell script in a network namespace with an interface whose subnet contains the range of
/// [`FARM`]. In the script, `up` runs `vipool up` with this farm, and `pool_addresses` prints the
/// number of pool addresses on the interface.
fn run_with_interface(directory: &Path, script: &str) -> Output {
    std::fs::write(directory.join("farm.toml"), FARM).unwrap();
    let setup = "
        ip link set lo up
        ip link add v0 type veth peer name v1
        ip link set v0 up && ip link set v1 up && ip address add 10.77.0.1/24 dev v0 || exit 3
        ip address add 10.77.0.104/32 dev v1 scope host || exit 3
        up() { vipool up $DIR/farm.toml --server any --map $DIR/map --no-probe \"$@\"; }
        pool_addresses() { ip -4 -o address show dev v0 scope host | wc -l; }";
    run_isolated(directory, &format!("{setup}\n{script}"))
}

/// Parses the JSON documents that a script printed.
fn parse_documents(output: &Output) -> Vec<Value> {
    let stream = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    stream.map(|value| value.unwrap_or_else(|_| panic!("{output:?}"))).collect()
}

#[test]
fn dry_run_predicts_the_changes_and_makes_none() {
    if !have(&["root", "unshare", "ip"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = "
        up --dry-run --json || exit 4
        [ -e $DIR/map ] && exit 5
        [ $(pool_addresses) = 0 ] || exit 6
        up --json || exit 7
        [ $(pool_addresses) = 4 ] || exit 8
        state=$(stat -c '%i %Y' $DIR/map/*)
        up --dry-run --json || exit 9
        [ \"$(stat -c '%i %Y' $DIR/map/*)\" = \"$state\" ] || exit 10
        sed -i s/10.77.0.100/10.77.0.101/ $DIR/farm.toml
        up --dry-run --json || exit 11
        [ $(pool_addresses) = 4 ] || exit 12
        up --json || exit 13
        up --json || exit 14";
    let output = run_with_interface(directory.path(), script);
    assert!(output.status.success(), "{output:?}");
    let runs = parse_documents(&output);
    let changes = |run: &Value| {
        let keys = ["dry_run", "changed", "map_changed", "usable", "added", "removed"];
        Value::from_iter(keys.map(|key| run[key].clone()))
    };
    let all_addresses = json!(["10.77.0.100", "10.77.0.101", "10.77.0.102", "10.77.0.103"]);
    let expected = [
        json!([true, true, true, 4, all_addresses, []]),
        json!([false, true, true, 4, all_addresses, []]),
        json!([true, false, false, 4, [], []]),
        json!([true, true, true, 3, [], ["10.77.0.100"]]),
        json!([false, true, true, 3, [], ["10.77.0.100"]]),
        json!([false, false, false, 3, [], []]),
    ];
    assert_eq!(runs.iter().map(changes).collect::<Vec<_>>(), expected);
    assert!(runs.iter().all(|run| run["unusable"][0]["address"] == "10.77.0.104"), "{runs:?}");
    assert!(runs.iter().all(|run| {
        let steps = run["steps"].as_array().unwrap();
        steps.is_empty() == (run["dry_run"] == true)
    }));
}

#[test]
fn up_prints_each_step_with_its_duration() {
    if !have(&["root", "unshare", "ip"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = run_with_interface(directory.path(), "up || exit 4; up --dry-run");
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    let lines: Vec<&str> = printed.lines().collect();
    for (line, step) in lines.iter().zip([
        "read /",
        "added to the interfaces: 4 addresses (",
        "announced the added addresses (",
        "created the map (",
        "removed from the interfaces: 0 addresses (",
        "reserved the fixed ports (",
    ]) {
        assert!(line.starts_with(step) && line.ends_with("s)"), "{step:?} is not {line:?}");
    }
    assert_eq!(
        lines[6..],
        ["usable: 4 addresses (4 added, 0 removed, 1 not usable)", "nothing would change"]
    );
}

#[test]
fn status_and_metrics_show_unusable_addresses_until_down() {
    if !have(&["root", "unshare", "ip"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = "
        up > /dev/null || exit 4
        vipool status --map $DIR/map || exit 5
        vipool metrics --map $DIR/map || exit 6
        vipool status --map $DIR/map --json > $DIR/status.json || exit 7
        ip address del 10.77.0.104/32 dev v1
        up > /dev/null || exit 8
        vipool metrics --map $DIR/map | grep -q '^vipool_unusable_addresses 0$' || exit 9
        ip address add 10.77.0.104/32 dev v1 scope host
        vipool down --map $DIR/map > /dev/null && up > /dev/null || exit 10
        vipool metrics --map $DIR/map | grep -q '^vipool_unusable_addresses 1$' || exit 11
        vipool down --map $DIR/map > /dev/null || exit 12
        ls $DIR/map";
    let output = run_with_interface(directory.path(), script);
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    let reason = "this host already uses the address on v1";
    assert!(
        printed.contains(&format!("Address 10.77.0.104 is not usable: {reason}.")),
        "{printed}"
    );
    assert!(printed.contains("\nvipool_unusable_addresses 1\n"), "{printed}");
    assert!(!printed.contains("unusable.json"), "{printed}");
    let status = std::fs::read(directory.path().join("status.json")).unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["unusable"], json!([{ "address": "10.77.0.104", "reason": reason }]));
}

#[test]
fn down_with_force_names_the_sessions_that_it_closes() {
    if !have(&["root", "unshare", "ip"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = "
        up > /dev/null || exit 4
        vipool session open 7 --user alice --map $DIR/map > /dev/null || exit 5
        vipool session open 8 --address 10.77.0.103 --map $DIR/map > /dev/null || exit 6
        vipool down --map $DIR/map || exit 7
        vipool down --force --map $DIR/map || exit 8";
    let output = run_with_interface(directory.path(), script);
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    assert_eq!(printed.matches("closed session").count(), 2, "{printed}");
    for line in
        ["closed session 7 of alice (10.77.0.", "closed session 8 of root (10.77.0.103, 127."]
    {
        assert!(printed.contains(line), "{printed}");
    }
}

#[test]
fn repeated_down_collects_each_event_once() {
    if !have(&["root", "unshare", "ip"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = "
        up > /dev/null || exit 4
        vipool session open 7 --map $DIR/map > /dev/null || exit 5
        vipool down --force --map $DIR/map > /dev/null || exit 6
        vipool down --map $DIR/map > /dev/null || exit 7
        up > /dev/null || exit 8
        vipool gc --map $DIR/map > /dev/null || exit 9
        vipool history --json --map $DIR/map || exit 10";
    let output = run_with_interface(directory.path(), script);
    assert!(output.status.success(), "{output:?}");
    let [history] = &parse_documents(&output)[..] else { panic!("{output:?}") };
    let records = history.as_array().unwrap();
    let events: Vec<_> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    let session_events = ["assigned", "assigned", "released", "released"];
    assert_eq!(events, [&["up"][..], &session_events, &["down", "down", "up"]].concat());
}

#[test]
fn drains_and_reservations_survive_down_and_up() {
    if !have(&["root", "unshare", "ip"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = "
        echo '[reservations]
        carol = \"10.77.0.102\"' >> $DIR/farm.toml
        list() { vipool reservations $DIR/farm.toml --map $DIR/map; }
        up > /dev/null || exit 4
        vipool session open 7 --user bob --map $DIR/map > /dev/null || exit 5
        vipool drain 10.77.0.100/31 --map $DIR/map > /dev/null || exit 5
        vipool undrain 10.77.0.101 --map $DIR/map > /dev/null || exit 5
        vipool reserve 10.77.0.101 alice --map $DIR/map > /dev/null || exit 5
        vipool reserve 10.77.0.103 eve --map $DIR/map > /dev/null || exit 5
        vipool unreserve 10.77.0.103 --map $DIR/map > /dev/null || exit 5
        vipool drain --all --map $DIR/map > /dev/null || exit 5
        list > $DIR/before || exit 6
        vipool down --force --map $DIR/map > /dev/null && [ ! -e $DIR/map/map ] || exit 7
        up > /dev/null || exit 8
        list > $DIR/after || exit 9
        vipool addresses --pool default --json --map $DIR/map || exit 10
        vipool status --json --map $DIR/map || exit 10
        vipool history --json --map $DIR/map || exit 11
        vipool history --json --address 10.77.0.100 --map $DIR/map || exit 12";
    let output = run_with_interface(directory.path(), script);
    assert!(output.status.success(), "{output:?}");
    let table_rows = |file_name: &str| -> Vec<String> {
        let table = std::fs::read_to_string(directory.path().join(file_name)).unwrap();
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let expected = [
        "ADDRESS USER ORIGIN USED",
        "10.77.0.101 alice vipool reserve no",
        "10.77.0.102 carol farm.toml no",
    ];
    assert_eq!(table_rows("before"), expected);
    assert_eq!(table_rows("after"), expected);
    let [addresses, status, history, history_of_address] = &parse_documents(&output)[..] else {
        panic!("{output:?}")
    };
    let drained_rows = addresses.as_array().unwrap().iter().filter(|row| row["drained"] == true);
    assert_eq!(drained_rows.map(|row| &row["address"]).collect::<Vec<_>>(), ["10.77.0.100"]);
    assert_eq!(status["draining"], true);
    let history = history.as_array().unwrap();
    let events: Vec<_> = history.iter().map(|record| record["event"].as_str().unwrap()).collect();
    // `vipool drain` and similar commands write to the history at once. The events of sessions stay
    // in the map's journal until `vipool down` moves them to the history.
    assert_eq!(
        events,
        [
            "up",
            "drained",
            "undrained",
            "reserved",
            "reserved",
            "unreserved",
            "drained",
            "assigned",
            "assigned",
            "released",
            "released",
            "down",
            "up"
        ]
    );
    let address_events = history_of_address.as_array().unwrap();
    assert_eq!(address_events[0]["event"], "drained", "{history_of_address}");
    let action_records = history.iter().filter(|record| record["session"].is_null());
    assert!(action_records.clone().all(|record| record["administrator"] == "root"), "{history:?}");
    let action_addresses: Vec<_> = action_records
        .map(|record| record["address"].as_str().or(record["addresses"].as_str()).unwrap_or("-"))
        .collect();
    assert_eq!(
        action_addresses,
        [
            "-",
            "10.77.0.100-10.77.0.101",
            "10.77.0.101",
            "10.77.0.101",
            "10.77.0.103",
            "10.77.0.103",
            "all",
            "-",
            "-"
        ]
    );
}
