//! What the nodes of one test log.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each test file uses its own part, and a helper that fails fails its test"
)]

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

/// Collects what is logged on this thread from its start to its drop; use it in a test whose
/// runtime has one thread.
#[derive(Debug)]
pub(crate) struct Logs {
    text: Sink,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Logs {
    pub(crate) fn collect() -> Self {
        let text = Sink::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(text.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        Self {
            text,
            _guard: guard,
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.0.lock().expect("nobody panics here")).into_owned()
    }

    /// Whether one line of at least info says all of `parts`.
    pub(crate) fn tell(&self, parts: &[&str]) -> bool {
        self.text()
            .lines()
            .any(|line| !line.contains(" DEBUG ") && parts.iter().all(|part| line.contains(part)))
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .map_err(|_| io::Error::other("poisoned"))?
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
