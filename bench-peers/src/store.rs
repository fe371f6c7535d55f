//! A peer that survives a crash and that other processes can read: LMDB, an embedded store.

use heed::byteorder::BigEndian;
use heed::types::U64;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};
use tempfile::TempDir;

use crate::Allocator;

type Numbers = Database<U64<BigEndian>, U64<BigEndian>>;

/// Free addresses in the order of their release and sessions, each a table; each operation is a
/// transaction. Not synced to the disk, as vipool's map is not: both survive a crash of the
/// process, not one of the machine.
pub struct Lmdb {
    env: Env,
    free: Numbers,
    sessions: Numbers,
    _directory: TempDir,
}

impl Lmdb {
    /// With so many addresses, all free, in a directory of its own inside `parent`.
    pub fn new(parent: &std::path::Path, slots: u32) -> heed::Result<Self> {
        let directory = tempfile::tempdir_in(parent)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(1 << 30).max_dbs(2);
        // SAFETY: the directory was made for this value alone, which is the only one to open it.
        let env = unsafe { options.flags(EnvFlags::NO_SYNC).open(directory.path()) }?;
        let mut transaction = env.write_txn()?;
        let free: Numbers = env.create_database(&mut transaction, Some("free"))?;
        let sessions = env.create_database(&mut transaction, Some("sessions"))?;
        for slot in 0..u64::from(slots) {
            free.put(&mut transaction, &slot, &slot)?;
        }
        transaction.commit()?;
        Ok(Self { env, free, sessions, _directory: directory })
    }

    fn try_open(&self, session: u64) -> heed::Result<Option<u64>> {
        let mut transaction = self.env.write_txn()?;
        let Some((turn, slot)) = self.free.first(&transaction)? else { return Ok(None) };
        self.free.delete(&mut transaction, &turn)?;
        self.sessions.put(&mut transaction, &session, &slot)?;
        transaction.commit()?;
        Ok(Some(session))
    }

    fn try_close(&self, session: u64) -> heed::Result<()> {
        let mut transaction = self.env.write_txn()?;
        let slot = self.sessions.get(&transaction, &session)?.expect("open");
        let turn = self.free.last(&transaction)?.map_or(0, |(turn, _)| turn + 1);
        self.sessions.delete(&mut transaction, &session)?;
        self.free.put(&mut transaction, &turn, &slot)?;
        transaction.commit()
    }
}

impl Allocator for Lmdb {
    type Lease = u64;

    fn open(&self, session: u64, _user: Option<&str>) -> Option<u64> {
        self.try_open(session).expect("the store works")
    }

    fn close(&self, lease: u64) {
        self.try_close(lease).expect("the store works");
    }
}
