//! What can go wrong, and what to do about it.
//!
//! Every failure of the store is ours ([`LocalFault`]): no peer is ever blamed for it. The errors are plain values
//! that can be cloned, so that one failed commit can be reported to everybody who waited for it.

use rookery_base::LocalFault;
use std::io;

/// Why the store refused or failed. No variant is ever accompanied by a deleted or overwritten file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file is something else.
    #[error(
        "{path} is not a rookery store ({found}); it was left as it is: choose another data directory, or move \
         the file away"
    )]
    Foreign {
        /// Which file.
        path: String,
        /// What it looks like instead.
        found: String,
    },
    /// The file is a store, and some of its bytes are wrong.
    #[error(
        "{path} is damaged ({detail}); it was not deleted: check the disk, then restore a copy, or move the file \
         away and let the node sync again"
    )]
    Corrupt {
        /// Which file.
        path: String,
        /// What was expected and what was found.
        detail: String,
    },
    /// The file was written by a later version of this program.
    #[error(
        "{path} was written by a newer rookery (schema {found}, this one knows {known}); use that version, or move \
         the file away and let the node sync again"
    )]
    NewerSchema {
        /// Which file.
        path: String,
        /// The schema in the file.
        found: u32,
        /// The schema of this program.
        known: u32,
    },
    /// The file belongs to another network.
    #[error(
        "{path} belongs to network {found}, not to {expected}; use another data directory for {expected}"
    )]
    OtherNetwork {
        /// Which file.
        path: String,
        /// The network in the file.
        found: String,
        /// The network that was asked for.
        expected: String,
    },
    /// The file holds headers of another length.
    #[error(
        "{path} holds headers of {found} bytes, this network's have {expected}; use another data directory, or \
         move the file away"
    )]
    OtherRecordLen {
        /// Which file.
        path: String,
        /// Length in the file, in bytes.
        found: usize,
        /// Length that was asked for, in bytes.
        expected: usize,
    },
    /// Another process has the file open.
    #[error("{path} is in use by another process; stop that one, or choose another data directory")]
    Locked {
        /// Which file.
        path: String,
    },
    /// No room was left to write.
    #[error("no room on the disk of {path} ({detail}); free some, then open the store again")]
    DiskFull {
        /// Which file.
        path: String,
        /// The system's words.
        detail: String,
    },
    /// The system refused a read or a write.
    #[error("{path}: {detail}; once that is cured, open the store again")]
    Io {
        /// Which file.
        path: String,
        /// The system's words.
        detail: String,
        /// The system's kind of error.
        kind: io::ErrorKind,
    },
    /// An earlier commit failed. Whether that one reached the disk is known after opening again.
    #[error("{path} takes no more commits since one failed ({first}); open the store again")]
    Failed {
        /// Which file.
        path: String,
        /// The failure that came first.
        first: String,
    },
    /// The [`Store`](crate::Store) behind a [`Reader`](crate::Reader) is gone.
    #[error("{path} has been closed")]
    Closed {
        /// Which file.
        path: String,
    },
    /// The caller's batch breaks a rule. Nothing was written; the store goes on.
    #[error("batch refused: {detail}")]
    Batch {
        /// The rule, and what came.
        detail: String,
    },
    /// The caller's configuration makes no sense.
    #[error("store configuration refused: {detail}")]
    Config {
        /// The rule, and what came.
        detail: String,
    },
}

impl From<StoreError> for LocalFault {
    fn from(error: StoreError) -> Self {
        Self::new(error.to_string())
    }
}

/// A failure inside the crate, before it is known which file it is about.
#[derive(Debug)]
pub(crate) enum Fail {
    Db(redb::Error),
    Corrupt(String),
    Foreign(String),
    Batch(String),
}

impl Fail {
    pub(crate) fn corrupt(detail: impl Into<String>) -> Self {
        Self::Corrupt(detail.into())
    }

    pub(crate) fn batch(detail: impl Into<String>) -> Self {
        Self::Batch(detail.into())
    }

    /// The public error, for the file at `path`.
    pub(crate) fn at(self, path: &str) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Corrupt(detail) => StoreError::Corrupt { path, detail },
            Self::Foreign(found) => StoreError::Foreign { path, found },
            Self::Batch(detail) => StoreError::Batch { detail },
            Self::Db(redb::Error::DatabaseAlreadyOpen) => StoreError::Locked { path },
            Self::Db(redb::Error::Io(error)) => io_error(&error, path),
            Self::Db(redb::Error::PreviousIo) => {
                StoreError::Failed { path, first: "an input or output error".to_owned() }
            }
            Self::Db(redb::Error::DatabaseClosed) => StoreError::Closed { path },
            // What is left are page structures, table types and locks that no healthy file leads to.
            Self::Db(other) => StoreError::Corrupt { path, detail: other.to_string() },
        }
    }
}

/// Sorts a system error: damage (a page that lies outside the file), no room, anything else.
pub(crate) fn io_error(error: &io::Error, path: String) -> StoreError {
    let (kind, detail) = (error.kind(), error.to_string());
    match kind {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => StoreError::Corrupt { path, detail },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::DiskFull { path, detail }
        }
        kind => StoreError::Io { path, detail, kind },
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Fail {
            fn from(error: $error) -> Self {
                Self::Db(error.into())
            }
        }
    )*};
}

from_redb!(
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);
