//! The reason why a file of a map was not opened or created.

use std::io;

/// The reason why a file was not opened or created.
#[derive(Debug)]
pub enum TrustError {
    /// The operating system returned an error.
    Io(io::Error),
    /// The file or its directory does not meet the conditions of `trusted_file`. The value is the
    /// reason.
    Untrusted(&'static str),
}

impl From<io::Error> for TrustError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TrustError> for io::Error {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Io(error) => error,
            TrustError::Untrusted(reason) => Self::new(io::ErrorKind::PermissionDenied, reason),
        }
    }
}
