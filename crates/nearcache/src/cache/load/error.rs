//! Why a load failed.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::errors::{ReadError, WriteError};
use crate::codec::KeyError;

/// What a loader fails with.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why [`Cache::get_or_load`](crate::Cache::get_or_load) has no answer. Everybody who waited for the same load gets the same
/// error. Nothing was changed, and the next caller tries again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The key cannot be one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The loader failed, with this.
    #[error("the loader failed")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
    /// The loader panicked, or the code that encodes what it answered.
    #[error(
        "the loader, or encoding what it answered, panicked: see its message on the standard error stream"
    )]
    Panicked,
    /// The loader took longer than [`load_timeout`](crate::LoadPolicy::load_timeout) and was dropped.
    #[error("the loader did not answer within {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// As many loads run and wait as may, or one waited for too long.
    #[error(
        "{running} loads run and {queued} wait: the system of record is too slow for what is asked of it"
    )]
    Overloaded {
        /// Loads that run.
        running: usize,
        /// Loads that wait.
        queued: usize,
    },
    /// Many loads failed lately; the loader is not called for a while.
    #[error("the system of record has failed lately and is given time: try again in a second")]
    CircuitOpen,
    /// The value cannot be encoded, or what was said about it is out of bounds.
    #[error("what the loader answered cannot be an entry")]
    Unusable(#[source] Arc<WriteError>),
    /// The load was dropped before it ended: the runtime that it ran on has stopped.
    #[error("the load was dropped: its runtime has stopped")]
    Dropped,
}

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Key(error) => Self::Key(error),
        }
    }
}

impl From<WriteError> for LoadError {
    fn from(error: WriteError) -> Self {
        Self::Unusable(Arc::new(error))
    }
}
