//! Why a sink did not write.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What a sink fails with. Any error becomes one with `?`, and says then that nobody knows whether the write was made.
pub struct SinkError {
    source: Box<dyn Error + Send + Sync>,
    is_rejected: bool,
}

impl SinkError {
    /// The write was not made, and never will be as it is: the row breaks a constraint, the key is not one of the table's. Write-behind
    /// does not try it again, and keeps it as a [dead letter](crate::Cache::dead_letters).
    pub fn rejected(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: error.into(),
            is_rejected: true,
        }
    }

    /// Whether it was made by [`rejected`](Self::rejected).
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        self.is_rejected
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for SinkError {
    fn from(error: E) -> Self {
        Self {
            source: error.into(),
            is_rejected: false,
        }
    }
}

impl fmt::Debug for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkError")
            .field("is_rejected", &self.is_rejected)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// How a call of the sink went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SinkFault {
    #[error("the sink failed: {0}")]
    Failed(SinkError),
    #[error("the sink rejected it: {0}")]
    Rejected(SinkError),
    #[error("the sink panicked: see its message on the standard error stream")]
    Panicked,
    #[error("the sink did not answer within {after:?}")]
    TimedOut { after: Duration },
}

impl From<SinkError> for SinkFault {
    fn from(error: SinkError) -> Self {
        if error.is_rejected {
            Self::Rejected(error)
        } else {
            Self::Failed(error)
        }
    }
}

impl SinkFault {
    /// What the sink itself said.
    pub(crate) fn into_source(self) -> Box<dyn Error + Send + Sync> {
        match self {
            Self::Failed(error) | Self::Rejected(error) => error.source,
            Self::Panicked | Self::TimedOut { .. } => Box::new(self),
        }
    }
}

/// Why [`Cache::flush_writes`](crate::Cache::flush_writes) ended before everything was written. Nothing is lost by it: what is left stays queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// Time is up.
    #[error("{left} keys are still to be written after {after:?}: see whether the sink fails")]
    TimedOut {
        /// Keys that are still to be written, those accepted meanwhile included.
        left: usize,
        /// The time that was given.
        after: Duration,
    },
    /// The node has stopped.
    #[error("the node has stopped: what its journal holds is written after the next start")]
    NodeStopped,
}
