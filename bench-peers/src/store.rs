//! A peer that survives a crash and that other processes can read: the embedded store LMDB.

use heed::byteorder::BigEndian;
use heed::types::U64;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};
use tempfile::TempDir;

use crate::Allocator;

type NumberTable = Database<U64<BigEndian>, U64<BigEndian>>;

/// Two tables: free addresses in the order of their release, and sessions. Each operation is a
/// transaction. Neither this store nor the map of vipool is synced to disk. Both survive a crash of
/// the process, but not a crash of the machine.
pub struct Lmdb {
    env: Env,
    /// Free slots, keyed by release number. The slot with the lowest number was released first.
    free_slots: NumberTable,
    /// The slot of each open session, keyed by session.
    sessions: NumberTable,
    _directory: TempDir,
}

impl Lmdb {
    /// Creates a store of free addresses in a temporary directory inside `parent`.
    pub fn new(parent: &std::path::Path, slot_count: u32) -> heed::Result<Self> {
        let directory = tempfile::tempdir_in(parent)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(1 << 30).max_dbs(2);
        // SAFETY: the environment must not be opened twice in a process. The directory is new, and
        // only this value opens it.
        let env = unsafe { options.flags(EnvFlags::NO_SYNC).open(directory.path()) }?;
        let mut transaction = env.write_txn()?;
        let free_slots: NumberTable = env.create_database(&mut transaction, Some("free"))?;
        let sessions = env.create_database(&mut transaction, Some("sessions"))?;
        for slot in 0..u64::from(slot_count) {
            free_slots.put(&mut transaction, &slot, &slot)?;
        }
        transaction.commit()?;
        Ok(Self { env, free_slots, sessions, _directory: directory })
    }

    fn try_open(&self, session: u64) -> heed::Result<Option<u64>> {
        let mut transaction = self.env.write_txn()?;
        let Some((release_number, slot)) = self.free_slots.first(&transaction)? else {
            return Ok(None);
        };
        self.free_slots.delete(&mut transaction, &release_number)?;
        self.sessions.put(&mut transaction, &session, &slot)?;
        transaction.commit()?;
        Ok(Some(session))
    }

    fn try_close(&self, session: u64) -> heed::Result<()> {
        let mut transaction = self.env.write_txn()?;
        let slot = self.sessions.get(&transaction, &session)?.expect("an open session");
        let last_entry = self.free_slots.last(&transaction)?;
        let release_number = last_entry.map_or(0, |(last_number, _)| last_number + 1);
        self.sessions.delete(&mut transaction, &session)?;
        self.free_slots.put(&mut transaction, &release_number, &slot)?;
        transaction.commit()
    }
}

impl Allocator for Lmdb {
    type Lease = u64;

    fn open(&self, session: u64, _user: Option<&str>) -> Option<u64> {
        self.try_open(session).expect("a working store")
    }

    fn close(&self, lease: u64) {
        self.try_close(lease).expect("a working store");
    }
}
