//! Calling a loader so that nothing it does harms anybody else (C8).

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::error::{BoxError, LoadError};

/// An answer on its way, whoever makes it.
pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Waits for `answer` at most so long. What it panics with ends here.
pub(super) async fn call<T>(mut answer: Answer<T>, timeout: Duration) -> Result<T, LoadError> {
    let guarded = poll_fn(move |context| {
        let poll = || answer.as_mut().poll(context);
        // A future that has panicked is not polled again, so nobody sees what it left half done.
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(answer))) => Poll::Ready(Ok(answer)),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(Err(LoadError::Failed(Arc::from(error)))),
            Err(_) => Poll::Ready(Err(LoadError::Panicked)),
        }
    });
    match tokio::time::timeout(timeout, guarded).await {
        Ok(answered) => answered,
        Err(_) => Err(LoadError::TimedOut { after: timeout }),
    }
}
