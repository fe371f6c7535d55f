//! A transaction: one operation on a consistent map. After a crash, the next transaction makes the
//! map consistent again.
//!
//! A transaction marks the map as busy. If the writer dies or panics in a transaction, the mark
//! stays, and the next transaction recovers the map first. One store commits each lease, so
//! recovery keeps exactly the committed leases.

use std::ops::Deref;
use std::sync::atomic::{Ordering, compiler_fence};

use super::writer::{MapWriter, WritableMap};
use crate::map::format::header::BUSY;

/// The right to change a map that is consistent and marked as busy.
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

impl WritableMap {
    /// Runs `body` as a transaction, after a recovery if the last writer died in its transaction.
    #[inline(always)]
    pub(crate) fn transact<T>(&mut self, body: impl FnOnce(&Transaction<'_>) -> T) -> T {
        let writer = self.writer();
        writer.recover_if_needed();
        writer.store_header(BUSY, 1);
        // The compiler must not move a store of the transaction before the mark. A processor fence
        // is not needed: if a process is killed between two instructions, all stores before that
        // point still reach the memory.
        compiler_fence(Ordering::SeqCst);
        let transaction = Transaction { writer };
        let result = body(&transaction);
        // Not reached if `body` panics.
        transaction.store_header(BUSY, 0);
        result
    }
}
