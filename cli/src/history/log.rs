//! The history on disk: an append-only file of lines, each with a checksum.
//!
//! `CRC32 JSON`, the checksum of the JSON in eight hexadecimal digits (CRC-32 of IEEE 802.3).
//! Invariants: a line is whole or does not count; what was torn by a crash is cut off by the next
//! writer; one writer at a time (a lock on the file); a file begins with the leases that were open
//! when it was begun, so it can be read by itself, and those before it can go.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use std::time::{Duration, SystemTime};

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A file that is longer is put aside, as `FILE.1`.
pub const MOST_BYTES: u64 = 8 << 20;
/// The most files that there are beside the one in use.
const MOST_FILES: u32 = 99;
/// A file is put aside when it spans this part of the time that records are kept: files go whole.
const PARTS: u32 = 8;

/// How long, and how much of it, the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// What is older goes; `None` keeps it.
    pub age: Option<Duration>,
    /// The most bytes of its files, but for the one in use and the one before.
    pub bytes: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The session was given the address.
    Assigned,
    /// The session gave the address back.
    Released,
    /// The session found no address left.
    Exhausted,
    /// With the address its pool fell below the low-water mark.
    LowWater,
    /// Events were lost: `lost` of them, before this time.
    Gap,
}

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub time: Timestamp,
    /// What.
    pub event: What,
    /// The session, in the form of the command line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<String>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// The user's client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<IpAddr>,
    /// Not told by who did it, but found when history and map were compared: after a crash.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub reconciled: bool,
    /// How many events were lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<u64>,
    /// The boot and network namespace of the map, in hexadecimal.
    pub boot: String,
    /// Number of the last event of that boot that the history knows.
    pub number: u64,
}

/// What follows from the records so far.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The leases that are open, by address: the records that opened them.
    pub open: BTreeMap<IpAddr, Record>,
    /// When a session last found no address.
    pub exhausted: BTreeMap<String, Timestamp>,
    /// The last record's boot and number.
    pub last: Option<(String, u64)>,
    /// The time of the first record.
    pub first: Option<Timestamp>,
}

impl State {
    /// Takes a record into account.
    pub fn add(&mut self, record: &Record) {
        match (record.event, record.address, &record.session) {
            (What::Assigned, Some(address), _) => {
                self.open.insert(address, record.clone());
            }
            (What::Released, Some(address), _) => {
                self.open.remove(&address);
            }
            (What::Exhausted, _, Some(session)) => {
                self.exhausted.insert(session.clone(), record.time);
            }
            _ => {}
        }
        self.last = Some((record.boot.clone(), record.number));
        self.first.get_or_insert(record.time);
    }
}

/// The history, opened for appending.
pub struct Log {
    path: PathBuf,
    file: File,
    state: State,
}

impl Log {
    /// Opens the file, makes it if it is not there, and waits until no other process writes to it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot open the history {}", path.display());
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(directory)
                .with_context(cannot)?;
        }
        let mut file = open_file(path).with_context(cannot)?;
        file.lock().with_context(cannot)?;
        // Put aside by another process while we waited.
        while fs::metadata(path).map(|found| inode(&found)).ok() != Some(inode(&file.metadata()?)) {
            file = open_file(path).with_context(cannot)?;
            file.lock().with_context(cannot)?;
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(cannot)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64).with_context(cannot)?;
        }
        let mut state = State::default();
        for record in text[..whole].split(|byte| *byte == b'\n').filter_map(parse) {
            state.add(&record);
        }
        Ok(Self { path: path.to_owned(), file, state })
    }

    /// What follows from what is in it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Appends records, on disk when this returns.
    pub fn append(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let cannot = || format!("cannot write the history {}", self.path.display());
        if records.is_empty() {
            return Ok(());
        }
        if self.file.seek(SeekFrom::End(0)).with_context(cannot)? > MOST_BYTES {
            self.begin_anew()?;
        }
        let cannot = || format!("cannot write the history {}", self.path.display());
        self.file.write_all(&lines(records)?).with_context(cannot)?;
        self.file.sync_data().with_context(cannot)?;
        records.iter().for_each(|record| self.state.add(record));
        Ok(())
    }

    /// Removes what is older, or more, than is to be kept. Files go whole, so a record goes at the
    /// latest when it is an eighth older than the age.
    pub fn keep(&mut self, keep: &Keep, now: SystemTime) -> anyhow::Result<()> {
        let older_than = |time: SystemTime, age: Duration| {
            now.duration_since(time).is_ok_and(|passed| passed > age)
        };
        // A file begins where the one before it ended.
        let begun = match fs::metadata(aside(&self.path, "1")) {
            Ok(before) => before.modified().ok(),
            Err(_) => self.state.first.map(SystemTime::from),
        };
        if let (Some(age), Some(begun)) = (keep.age, begun)
            && older_than(begun, age / PARTS)
        {
            self.begin_anew()?;
        }
        let mut bytes = 0;
        for number in 1..=MOST_FILES {
            let file = aside(&self.path, &number.to_string());
            let Ok(metadata) = fs::metadata(&file) else { continue };
            bytes += metadata.len();
            let old = metadata
                .modified()
                .is_ok_and(|ended| keep.age.is_some_and(|age| older_than(ended, age)));
            // The newest tells when the one in use was begun.
            if old || number > 1 && bytes > keep.bytes {
                let cannot = || format!("cannot remove {}", file.display());
                fs::remove_file(&file).with_context(cannot)?;
            }
        }
        Ok(())
    }

    /// Puts the file aside and begins another with what is open.
    fn begin_anew(&mut self) -> anyhow::Result<()> {
        let cannot = || format!("cannot put {} aside", self.path.display());
        let open: Vec<_> = self.state.open.values().cloned().collect();
        let new = aside(&self.path, "new");
        let _ = fs::remove_file(&new);
        let mut file = open_file(&new).with_context(cannot)?;
        file.lock().with_context(cannot)?;
        file.write_all(&lines(&open)?).with_context(cannot)?;
        for number in (1..MOST_FILES).rev() {
            let to = aside(&self.path, &(number + 1).to_string());
            match fs::rename(aside(&self.path, &number.to_string()), to) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        // The time of the change is that of its end, also where nothing was written for long.
        self.file.set_modified(SystemTime::now()).with_context(cannot)?;
        fs::rename(&self.path, aside(&self.path, "1")).with_context(cannot)?;
        fs::rename(&new, &self.path).with_context(cannot)?;
        self.file = file;
        Ok(())
    }
}

/// Every record of the history, in order, and how many lines were damaged.
pub fn read(path: &Path) -> anyhow::Result<(Vec<Record>, usize)> {
    let mut records = Vec::new();
    let mut damaged = 0;
    // First, so that the file in use is named to who may not read it.
    match File::open(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        _ => {}
    }
    let older = (1..=MOST_FILES).rev().map(|number| aside(path, &number.to_string()));
    for file in older.chain([path.to_owned()]) {
        let text = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match parse(line) {
                // A file begins with what was open already.
                Some(record) if !records.contains(&record) => records.push(record),
                Some(_) => {}
                None => damaged += 1,
            }
        }
    }
    Ok((records, damaged))
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
}

fn aside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn inode(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.ino()
}

fn lines(records: &[Record]) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    for record in records {
        let json = serde_json::to_string(record)?;
        writeln!(text, "{:08x} {json}", crc32fast::hash(json.as_bytes()))?;
    }
    Ok(text)
}

fn parse(line: &[u8]) -> Option<Record> {
    let (sum, json) = line.split_at_checked(9)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?.strip_suffix(' ')?, 16).ok()?;
    (crc32fast::hash(json) == sum).then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: What, address: &str, number: u64) -> Record {
        Record {
            time: Timestamp::from_second(1_700_000_000 + number as i64).unwrap(),
            event,
            session: Some("7".into()),
            address: address.parse().ok(),
            user: Some("al\"ice\n".into()),
            client: None,
            reconciled: false,
            lost: None,
            boot: "00ff".into(),
            number,
        }
    }

    #[test]
    fn what_is_appended_is_read_and_what_is_torn_or_changed_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/history.log");
        let first = record(What::Assigned, "10.0.5.10", 1);
        let second = record(What::Assigned, "10.0.5.11", 2);
        Log::open(&path).unwrap().append(&[first.clone(), second.clone()]).unwrap();
        let whole = fs::read(&path).unwrap();
        // Torn at every byte: what is whole stays, and the next writer goes on behind it.
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let mut log = Log::open(&path).unwrap();
            let kept = log.state().open.len();
            assert!(kept <= 1);
            log.append(&[record(What::Released, "10.0.5.10", 3)]).unwrap();
            drop(log);
            let (records, damaged) = read(&path).unwrap();
            assert_eq!((records.len(), damaged), (kept + 1, 0), "{length}");
        }
        let mut changed = whole.clone();
        changed[60] ^= 1;
        fs::write(&path, changed).unwrap();
        assert_eq!(read(&path).unwrap(), (vec![second], 1));
    }

    #[test]
    fn a_long_file_is_put_aside_and_what_is_open_stays_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.log");
        let mut log = Log::open(&path).unwrap();
        log.append(&[record(What::Assigned, "10.0.5.10", 1)]).unwrap();
        log.file.set_len(MOST_BYTES + 1).unwrap();
        log.append(&[record(What::Assigned, "10.0.5.11", 2)]).unwrap();
        drop(log);
        assert!(fs::metadata(&path).unwrap().len() < 1000);
        let log = Log::open(&path).unwrap();
        assert_eq!(log.state().open.len(), 2);
        assert_eq!(log.state().last, Some(("00ff".into(), 2)));
        assert_eq!(read(&path).unwrap().0.len(), 2, "a lease that stayed open is there once");
    }

    #[test]
    fn what_is_older_or_more_than_is_kept_goes_and_what_is_open_stays_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.log");
        let day = Duration::from_secs(24 * 3600);
        let start = SystemTime::from(record(What::Assigned, "10.0.5.10", 0).time);
        let keep = Keep { age: Some(80 * day), bytes: u64::MAX };
        let files = || fs::read_dir(directory.path()).unwrap().count();
        let ended = |number: u32, time| {
            let file = File::options().append(true).open(aside(&path, &number.to_string()));
            file.unwrap().set_modified(time).unwrap();
        };
        let mut log = Log::open(&path).unwrap();
        log.append(&[record(What::Assigned, "10.0.5.10", 1)]).unwrap();
        log.append(&[record(What::Assigned, "10.0.5.11", 2)]).unwrap();
        log.append(&[record(What::Released, "10.0.5.11", 3)]).unwrap();
        log.keep(&keep, start + 9 * day).unwrap();
        assert_eq!(files(), 1, "an eighth of 80 days is not over");
        log.keep(&keep, start + 11 * day).unwrap();
        assert_eq!(files(), 2);
        ended(1, start + 11 * day);
        log.append(&[record(What::Assigned, "10.0.5.12", 4)]).unwrap();
        log.keep(&keep, start + 20 * day).unwrap();
        assert_eq!(files(), 2);
        log.keep(&keep, start + 22 * day).unwrap();
        assert_eq!(files(), 3);
        ended(1, start + 22 * day);
        assert_eq!(read(&path).unwrap().0.len(), 4);
        // The first file is older than 80 days, the second is not.
        log.keep(&keep, start + 92 * day).unwrap();
        let (records, damaged) = read(&path).unwrap();
        let left: Vec<u64> = records.iter().map(|record| record.number).collect();
        assert_eq!((left, damaged), (vec![1, 4], 0), "what is open is known, what is over is gone");
        assert_eq!(files(), 3, "the one in use was put aside");
        log.keep(&Keep { age: None, bytes: 0 }, start).unwrap();
        assert_eq!(files(), 2, "the newest stays");
        drop(log);
        assert_eq!(Log::open(&path).unwrap().state().open.len(), 2);
    }
}
