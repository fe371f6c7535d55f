//! Recognizes errors that mean a full file system.

use std::io::{self, ErrorKind};

/// Returns whether the cause of the error is a full file system or an exhausted quota.
pub fn is_exhausted(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| {
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    })
}
