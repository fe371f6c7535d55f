//! Measures `vipool who` with histories of different lengths. The time per record must not depend
//! on the number of records. `cargo xtask bench history` runs this bench.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The lengths of the histories in records.
const SHORT_HISTORY: u64 = 50_000;
const LONG_HISTORY: u64 = 500_000;
/// The number of records per file. Files with this number of records are below the maximum size.
const RECORDS_PER_FILE: u64 = 30_000;
const REPETITIONS: usize = 5;

fn main() {
    let [short_time, long_time] = [SHORT_HISTORY, LONG_HISTORY].map(shortest_time);
    let nanos_per_record =
        |time: Duration, record_count: u64| time.as_nanos() as f64 / record_count as f64;
    let ratio =
        nanos_per_record(long_time, LONG_HISTORY) / nanos_per_record(short_time, SHORT_HISTORY);
    if std::env::args().any(|argument| argument == "--json") {
        println!(
            "{{\"row\":\"who: time per record, {LONG_HISTORY} to {SHORT_HISTORY} records\",\
             \"ratio\":{ratio:.3}}}"
        );
    } else {
        println!("vipool who, {SHORT_HISTORY} records: {short_time:.0?}");
        println!("vipool who, {LONG_HISTORY} records: {long_time:.0?}");
        println!("time per record, ratio: {ratio:.2}");
    }
}

/// Returns the time of the fastest run of `vipool who` with a history of this many records.
fn shortest_time(record_count: u64) -> Duration {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_history(directory.path(), record_count);
    let measure = || {
        let start = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_vipool"))
            .args(["who", "10.0.0.0", "--at", "1970-01-01T00:00:00Z", "--map"])
            .arg(directory.path())
            .output()
            .expect("vipool starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        start.elapsed()
    };
    (0..REPETITIONS).map(|_| measure()).min().expect("there are repetitions")
}

/// Writes the files of a history in which each session receives and releases one lease.
fn write_history(directory: &Path, record_count: u64) {
    let file_count = record_count.div_ceil(RECORDS_PER_FILE);
    for file_index in 0..file_count {
        let mut text = String::new();
        for number in
            file_index * RECORDS_PER_FILE..record_count.min((file_index + 1) * RECORDS_PER_FILE)
        {
            let event = if number % 2 == 0 { "assigned" } else { "released" };
            let session = number / 2;
            let address = [10, (session >> 16) as u8, (session >> 8) as u8, session as u8];
            let record = serde_json::json!({
                "time": Timestamp::from_second(number as i64).expect("a valid time"),
                "event": event,
                "session": session.to_string(),
                "address": std::net::IpAddr::from(address),
                "user": "ann",
                "boot": "00ff",
                "number": number + 1,
            });
            let json = record.to_string();
            writeln!(text, "{:08x} {json}", crc32fast::hash(json.as_bytes())).expect("memory");
        }
        let suffix = match file_count - 1 - file_index {
            0 => String::new(),
            number => format!(".{number}"),
        };
        fs::write(directory.join(format!("history.log{suffix}")), text).expect("disk space");
    }
}
