//! The history file: an append-only file. Each line has a checksum.
//!
//! A line is `CRC32 JSON`: the CRC-32 (IEEE 802.3) of the JSON in eight hexadecimal digits, a space
//! and the JSON. Invariants:
//!
//! - Readers ignore a line with a wrong checksum. If the last line is incomplete after a crash, the
//!   next writer removes this line.
//! - Only the process that holds the lock writes to the file. The lock is on a separate file,
//!   `FILE.lock`, that only its owner can open. A lock on the history file would not be safe: every
//!   user who can read this file could lock it and block the writer.
//! - A file begins with the leases that were open when it was created, and with the position in the
//!   journal ([`PositionLine`]). So [`HistoryLog::state`] depends only on the current file, and older
//!   files can be removed.
//! - Before the current file is renamed, the next file is complete under the name `FILE.next`. If
//!   there is no current file, the next writer renames this file.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::Hash;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use vipool::trusted_file;

use super::files::{MAX_ROTATED_FILES, metadata, rename, rotated_files, suffixed_path};
use super::record::{HistoryState, Position, Record};
use crate::system::file_lock;

/// If the file is longer than this size, the writer rotates it: the file is renamed to `FILE.1`.
pub const MAX_FILE_BYTES: u64 = 8 << 20;
/// Maximum size of a file that is read. No record is appended to a file that is longer than
/// [`MAX_FILE_BYTES`], so files stay much shorter than this size.
const MAX_READ_BYTES: u64 = 8 * MAX_FILE_BYTES;
/// Maximum wait for another process that writes the history.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The owner and the group of the file can read the file.
const FILE_MODE: u32 = 0o640;
/// The suffix of the next file during a rotation.
const NEXT_SUFFIX: &str = "next";
/// Number of rotations within the maximum age. vipool removes only whole files, so a record can
/// exist for about an eighth longer than the maximum age.
const ROTATIONS_PER_AGE: u32 = 8;

/// Limits on the age and size of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Maximum age of a record. `None` means no limit.
    pub max_age: Option<Duration>,
    /// Maximum total size of the rotated files in bytes. The newest rotated file stays even if it
    /// is larger than this limit.
    pub max_bytes: u64,
}

/// The history file, open for appending.
pub struct HistoryLog {
    path: PathBuf,
    file: File,
    state: HistoryState,
    _lock: File,
}

impl HistoryLog {
    /// Opens the file, and creates it if it does not exist. Waits for the lock.
    ///
    /// # Errors
    /// The file or its directory cannot be created, read or locked, or other users can change them.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("cannot open the history {}", path.display());
        if let Some(directory) = path.parent() {
            trusted_file::create_directory(directory, 0o750).with_context(context)?;
        }
        let lock = file_lock::lock(
            &suffixed_path(path, "lock"),
            LOCK_TIMEOUT,
            "another vipool process writes the history",
        )?;
        if !path.try_exists().with_context(context)? {
            // A rotation may have ended between its two renames.
            match fs::rename(suffixed_path(path, NEXT_SUFFIX), path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => result.with_context(context)?,
            }
        }
        let mut file = trusted_file::open_or_create(path, FILE_MODE).with_context(context)?;
        if file.metadata().with_context(context)?.len() > MAX_READ_BYTES {
            bail!("{}: it is longer than {MAX_READ_BYTES} bytes, the maximum", context());
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(context)?;
        let complete_length =
            bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        if complete_length < bytes.len() {
            file.set_len(complete_length as u64).with_context(context)?;
        }
        let mut state = HistoryState::default();
        for line in bytes[..complete_length].split(|byte| *byte == b'\n').filter_map(parse_line) {
            match line {
                Line::Record(record) => state.apply(&record),
                Line::Position(position) => state.last_position = Some(position),
            }
        }
        Ok(Self { path: path.to_owned(), file, state, _lock: lock })
    }

    /// Returns the state after the records in the current file.
    pub fn state(&self) -> &HistoryState {
        &self.state
    }

    /// Appends records, and waits until the records are on disk.
    ///
    /// # Errors
    /// The file cannot be written. In this case, the file contains none of the records.
    pub fn append(&mut self, records: &[Record]) -> anyhow::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let path = self.path.clone();
        let context = || format!("cannot write the history {}", path.display());
        let mut length = self.file.seek(SeekFrom::End(0)).with_context(context)?;
        if length > MAX_FILE_BYTES {
            self.rotate()?;
            length = self.file.seek(SeekFrom::End(0)).with_context(context)?;
        }
        self.file
            .write_all(&format_lines(records)?)
            .and_then(|()| self.file.sync_data())
            // Remove what was written: the caller may repeat the records, or report that they are
            // not in the history.
            .inspect_err(|_| _ = self.file.set_len(length))
            .with_context(context)?;
        records.iter().for_each(|record| self.state.apply(record));
        Ok(())
    }

    /// Removes rotated files that exceed the limits. Rotates the current file if it covers more
    /// than an eighth of the maximum age.
    ///
    /// # Errors
    /// A file cannot be renamed, written or removed.
    pub fn apply_retention(&mut self, limits: &Retention, now: SystemTime) -> anyhow::Result<()> {
        let is_older = |time: SystemTime, age: Duration| {
            now.duration_since(time).is_ok_and(|elapsed| elapsed > age)
        };
        // The period of the current file begins when that of the newest rotated file ends.
        let start_time = match rotated_files(&self.path)?.first_key_value() {
            Some((_, newest_rotated)) => metadata(newest_rotated)?.modified().ok(),
            None => self.state.first_time.map(SystemTime::from),
        };
        if let (Some(age), Some(start_time)) = (limits.max_age, start_time)
            && is_older(start_time, age / ROTATIONS_PER_AGE)
        {
            self.rotate()?;
        }
        let mut total_bytes = 0;
        for (index, file) in rotated_files(&self.path)?.into_values().enumerate() {
            let metadata = metadata(&file)?;
            total_bytes += metadata.len();
            let is_expired = metadata
                .modified()
                .is_ok_and(|modified| limits.max_age.is_some_and(|age| is_older(modified, age)));
            // The size limit keeps the newest rotated file, because its modification time is the
            // start of the current file's period.
            if is_expired || index > 0 && total_bytes > limits.max_bytes {
                let context = || format!("cannot remove {}", file.display());
                fs::remove_file(&file).with_context(context)?;
            }
        }
        Ok(())
    }

    /// Renames the current file to `FILE.1`, and creates a new file that contains the open leases
    /// and the position in the journal.
    fn rotate(&mut self) -> anyhow::Result<()> {
        let new_path = suffixed_path(&self.path, NEXT_SUFFIX);
        let rotation = self.prepare_rotation(&new_path);
        let new_file = rotation.inspect_err(|_| _ = fs::remove_file(&new_path))?;
        // If this process fails or dies between the two renames, the next writer does the second.
        rename(&self.path, &suffixed_path(&self.path, "1"))?;
        rename(&new_path, &self.path)?;
        self.file = new_file;
        Ok(())
    }

    /// Prepares a rotation and leaves the current file in place: creates the next file at `new_path`,
    /// and makes the name `FILE.1` available. Returns the next file.
    fn prepare_rotation(&self, new_path: &Path) -> anyhow::Result<File> {
        let context = || format!("cannot rotate {}", self.path.display());
        let mut contents = format_lines(self.state.open_leases())?;
        if let Some(position) = self.state.last_position.clone() {
            contents.extend(format_lines([&PositionLine { position }])?);
        }
        trusted_file::replace(new_path, &contents, FILE_MODE).with_context(context)?;
        let new_file = trusted_file::open_or_create(new_path, FILE_MODE).with_context(context)?;
        // The new file gets the group of the old file, so a chgrp(1) by an administrator persists.
        // Without the right to set the group, the new file keeps its default group.
        let group = self.file.metadata().with_context(context)?.gid();
        let _ = fchown(&new_file, None, Some(group));
        // The modification time must be the end of the file's period, even if the last write was
        // long ago.
        self.file.set_modified(SystemTime::now()).with_context(context)?;
        // Move the files up to the first unused number. If this process fails in between, it leaves
        // an unused number, and the next rotation moves the files up to that number.
        let rotated_files = rotated_files(&self.path)?;
        let is_used = |number: &u32| rotated_files.contains_key(number);
        let moved_numbers: Vec<u32> = (1..MAX_ROTATED_FILES).take_while(is_used).collect();
        for number in moved_numbers.into_iter().rev() {
            let next_path = suffixed_path(&self.path, &(number + 1).to_string());
            rename(&rotated_files[&number], &next_path)?;
        }
        Ok(new_file)
    }
}

/// Reads all records of the history in order. Returns the records and the number of damaged lines.
///
/// # Errors
/// A file cannot be read.
pub fn read(path: &Path) -> anyhow::Result<(Vec<Record>, usize)> {
    let mut records = Vec::new();
    let mut damaged_line_count = 0;
    // Open the current file first. Otherwise, a permission error could contain the path of a
    // rotated file that does not exist.
    match trusted_file::open(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        _ => {}
    }
    for file in rotated_files(path)?.into_values().rev().chain([path.to_owned()]) {
        let bytes = match trusted_file::read(&file, MAX_READ_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            bytes => bytes.with_context(|| format!("cannot read {}", file.display()))?,
        };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match parse_line(line) {
                Some(Line::Record(record)) => records.push(record),
                Some(Line::Position(_)) => {}
                None => damaged_line_count += 1,
            }
        }
    }
    // After a rotation, the new file begins with copies of the records of the open leases.
    remove_copies(&mut records);
    Ok((records, damaged_line_count))
}

/// Removes each item that equals an earlier item. Keeps the order of the other items.
fn remove_copies<T: Eq + Hash>(items: &mut Vec<T>) {
    let mut kept = HashSet::with_capacity(items.len());
    let is_kept: Vec<bool> = items.iter().map(|item| kept.insert(item)).collect();
    let mut is_kept = is_kept.into_iter();
    items.retain(|_| is_kept.next() == Some(true));
}

/// The contents of a line.
enum Line {
    Record(Record),
    Position(Position),
}

/// The JSON of a line with the position in the journal. A new file has one such line, because its
/// records do not contain the position: the last record of the old file is not copied.
#[derive(Serialize, Deserialize)]
struct PositionLine {
    position: Position,
}

fn format_lines<'a, T: Serialize + 'a>(
    values: impl IntoIterator<Item = &'a T>,
) -> anyhow::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for value in values {
        let json = serde_json::to_string(value)?;
        writeln!(lines, "{:08x} {json}", crc32fast::hash(json.as_bytes()))?;
    }
    Ok(lines)
}

fn parse_line(line: &[u8]) -> Option<Line> {
    let (checksum, json) = line.split_at_checked(9)?;
    let checksum = std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?;
    let checksum = u32::from_str_radix(checksum, 16).ok()?;
    if crc32fast::hash(json) != checksum {
        return None;
    }
    match serde_json::from_slice(json) {
        Ok(record) => Some(Line::Record(record)),
        Err(_) => {
            let line: PositionLine = serde_json::from_slice(json).ok()?;
            Some(Line::Position(line.position))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;

    use jiff::Timestamp;

    use super::super::record::RecordKind;
    use super::*;

    fn record(event: RecordKind, address: &str, number: u64) -> Record {
        let time = Timestamp::from_second(1_700_000_000 + number as i64).unwrap();
        Record {
            session: Some("7".into()),
            address: address.parse().ok(),
            user: Some("al\"ice\n".into()),
            ..Record::new(time, event, "00ff".into(), number)
        }
    }

    #[test]
    fn complete_lines_are_read_and_truncated_or_changed_lines_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/history.log");
        let first_record = record(RecordKind::Assigned, "10.0.5.10", 1);
        let second_record = record(RecordKind::Assigned, "10.0.5.11", 2);
        let records = [first_record, second_record.clone()];
        HistoryLog::open(&path).unwrap().append(&records).unwrap();
        let contents = fs::read(&path).unwrap();
        // Truncate the file at each byte. The complete lines must remain, and the next writer must
        // append its record after them.
        for length in 0..contents.len() {
            fs::write(&path, &contents[..length]).unwrap();
            let mut log = HistoryLog::open(&path).unwrap();
            let kept_lease_count = log.state().open_leases().len();
            assert!(kept_lease_count <= 1);
            log.append(&[record(RecordKind::Released, "10.0.5.10", 3)]).unwrap();
            drop(log);
            let (records, damaged_line_count) = read(&path).unwrap();
            assert_eq!((records.len(), damaged_line_count), (kept_lease_count + 1, 0), "{length}");
        }
        let mut changed_contents = contents.clone();
        changed_contents[60] ^= 1;
        fs::write(&path, changed_contents).unwrap();
        assert_eq!(read(&path).unwrap(), (vec![second_record], 1));
    }

    /// An item that counts its comparisons with other items.
    #[derive(Debug)]
    struct CountedItem<'a> {
        value: u32,
        comparison_count: &'a Cell<usize>,
    }

    impl PartialEq for CountedItem<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.comparison_count.set(self.comparison_count.get() + 1);
            self.value == other.value
        }
    }

    impl Eq for CountedItem<'_> {}

    impl Hash for CountedItem<'_> {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.value.hash(state);
        }
    }

    #[test]
    fn remove_copies_makes_a_linear_number_of_comparisons() {
        for distinct_count in [1000, 10_000] {
            let comparison_count = Cell::new(0);
            let item = |value| CountedItem { value, comparison_count: &comparison_count };
            let mut items: Vec<_> = (0..distinct_count).chain([0, 7]).map(item).collect();
            remove_copies(&mut items);
            // The hash table also compares items that differ but have equal hash bits. Such items are
            // rare.
            assert!(
                comparison_count.get() <= items.len(),
                "{} comparisons",
                comparison_count.get()
            );
            assert!(items.iter().map(|item| item.value).eq(0..distinct_count));
        }
    }

    #[test]
    fn long_file_is_rotated_and_open_leases_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.log");
        let mut log = HistoryLog::open(&path).unwrap();
        log.append(&[record(RecordKind::Assigned, "10.0.5.10", 1)]).unwrap();
        log.file.set_len(MAX_FILE_BYTES + 1).unwrap();
        log.append(&[record(RecordKind::Assigned, "10.0.5.11", 2)]).unwrap();
        drop(log);
        assert!(fs::metadata(&path).unwrap().len() < 1000);
        let log = HistoryLog::open(&path).unwrap();
        assert_eq!(log.state().open_leases().len(), 2);
        assert_eq!(log.state().last_position, Some(Position { boot: "00ff".into(), number: 2 }));
        assert_eq!(
            read(&path).unwrap().0.len(),
            2,
            "the copied record of an open lease is read once"
        );
    }

    #[test]
    fn retention_removes_old_and_excess_files_and_keeps_open_leases() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.log");
        let day = Duration::from_secs(24 * 3600);
        let start_time = SystemTime::from(record(RecordKind::Assigned, "10.0.5.10", 0).time);
        let limits = Retention { max_age: Some(80 * day), max_bytes: u64::MAX };
        // One of the entries is the lock.
        let file_count = || fs::read_dir(directory.path()).unwrap().count() - 1;
        // The modification time of a rotated file is the end of its period.
        let set_end = |number: u32, time| {
            let file = File::options().append(true).open(suffixed_path(&path, &number.to_string()));
            file.unwrap().set_modified(time).unwrap();
        };
        let mut log = HistoryLog::open(&path).unwrap();
        log.append(&[record(RecordKind::Assigned, "10.0.5.10", 1)]).unwrap();
        log.append(&[record(RecordKind::Assigned, "10.0.5.11", 2)]).unwrap();
        log.append(&[record(RecordKind::Released, "10.0.5.11", 3)]).unwrap();
        log.apply_retention(&limits, start_time + 9 * day).unwrap();
        assert_eq!(file_count(), 1, "an eighth of 80 days has not passed");
        log.apply_retention(&limits, start_time + 11 * day).unwrap();
        assert_eq!(file_count(), 2);
        set_end(1, start_time + 11 * day);
        log.append(&[record(RecordKind::Assigned, "10.0.5.12", 4)]).unwrap();
        log.apply_retention(&limits, start_time + 20 * day).unwrap();
        assert_eq!(file_count(), 2);
        log.apply_retention(&limits, start_time + 22 * day).unwrap();
        assert_eq!(file_count(), 3);
        set_end(1, start_time + 22 * day);
        assert_eq!(read(&path).unwrap().0.len(), 4);
        // Now the older rotated file is 81 days old, and the newer one is 70 days old.
        log.apply_retention(&limits, start_time + 92 * day).unwrap();
        let (records, damaged_line_count) = read(&path).unwrap();
        let remaining_numbers: Vec<u64> = records.iter().map(|record| record.number).collect();
        assert_eq!(
            (remaining_numbers, damaged_line_count),
            (vec![1, 4], 0),
            "only open leases remain"
        );
        assert_eq!(file_count(), 3, "the current file was rotated");
        log.apply_retention(&Retention { max_age: None, max_bytes: 0 }, start_time).unwrap();
        assert_eq!(file_count(), 2, "the newest rotated file is kept");
        drop(log);
        assert_eq!(HistoryLog::open(&path).unwrap().state().open_leases().len(), 2);
    }
}
