//! Why a journal cannot be used.

use std::io;
use std::path::PathBuf;

use nearcache_protocol::write::record::SegmentError;

/// Why a journal could not be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk said no.
    #[error("cannot {what} {path:?}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Another process, or another cache of this one, has it open.
    #[error("{path:?} is in use: give each cache of each node a folder of its own")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It is that of another cache, node or cluster.
    #[error(
        "{path:?} is the journal of {found:?} and not of {wanted:?}: give each cache of each node a folder of its own"
    )]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// Cluster, cache and node that it belongs to.
        found: String,
        /// Those that want it.
        wanted: String,
    },
    /// Something in it cannot be read. Nothing was changed.
    #[error(
        "{path:?} cannot be read: restore it from a copy, or move it away and write what is missing by hand"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: SegmentError,
    },
    /// A segment between others is not there. Nothing was changed.
    #[error("segment {number} is missing in {path:?}: restore it from a copy")]
    Missing {
        /// The folder.
        path: PathBuf,
        /// The segment's number.
        number: u64,
    },
    /// The disk failed before, so that nobody knows what is on it.
    #[error("the journal's disk has failed: start the node again when it is repaired")]
    Failed,
}

impl JournalError {
    /// The same once more, for another who has to be told.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Io { what, path, source } => Self::Io {
                what,
                path: path.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            },
            _ => Self::Failed,
        }
    }

    pub(super) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
