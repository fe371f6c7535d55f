//! A transaction: one operation on a consistent map. After a crash, the next transaction makes the
//! map consistent again.
//!
//! A transaction marks the map as busy. If the writer dies or panics in a transaction, the mark
//! stays, and the next transaction recovers the map first. A lease is committed by a single store,
//! so recovery keeps exactly the committed leases.

use std::ops::Deref;
use std::sync::atomic::{Ordering, compiler_fence};

use super::writer::{MapWriter, WritableMap};
use crate::map::format::header::BUSY;

/// The right to change a map that is consistent and marked as busy.
#[must_use = "after an uncommitted transaction, the next transaction recovers the map"]
pub(crate) struct Transaction<'a> {
    writer: MapWriter<'a>,
}

impl<'a> Deref for Transaction<'a> {
    type Target = MapWriter<'a>;

    #[inline(always)]
    fn deref(&self) -> &MapWriter<'a> {
        &self.writer
    }
}

impl Transaction<'_> {
    /// Ends the transaction. A dropped transaction leaves the map marked as busy, so the next
    /// transaction recovers the map.
    #[inline(always)]
    pub(crate) fn commit(self) {
        self.store_header(BUSY, 0);
    }
}

impl WritableMap {
    /// Begins a transaction. First recovers the map if the last transaction was not committed.
    #[inline(always)]
    pub(crate) fn begin(&mut self) -> Transaction<'_> {
        let writer = self.writer();
        writer.recover_if_needed();
        writer.store_header(BUSY, 1);
        // The compiler must not move a store of the transaction before the mark. A processor fence
        // is not needed, because all stores that a process executed before it was killed still
        // reach the memory.
        compiler_fence(Ordering::SeqCst);
        Transaction { writer }
    }

    /// Runs `body` as a transaction. If `body` panics, the transaction is not committed.
    #[inline(always)]
    pub(crate) fn transact<T>(&mut self, body: impl FnOnce(&Transaction<'_>) -> T) -> T {
        let transaction = self.begin();
        let result = body(&transaction);
        transaction.commit();
        result
    }
}
