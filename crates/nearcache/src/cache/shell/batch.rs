//! Many writes at once: behind the cache they share a frame of the journal, and so a sync.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::payload::Payload;
use nearcache_store::Change;

use super::Shell;
use super::behind::{Behind, bytes_of};
use super::journaling::{Journaling, What};
use super::sinking::{Sinking, wanted};
use crate::cache::errors::WriteError;
use crate::cache::options::Ack;

impl<V: Payload> Shell<V> {
    /// Writes many keys here, on the peers and in the system of record, in their order; the acknowledgement is that of the last.
    pub(crate) async fn write_sunk_many(
        self: &Arc<Self>,
        changes: Vec<(Bytes, Change<V>)>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        let last = changes.len().saturating_sub(1);
        let of = |at: usize| if at == last { ack } else { Ack::Local };
        let changes = changes.into_iter().enumerate();
        let changes = changes.map(|(at, (key, change))| (key, change, of(at)));
        if let Some(Sinking::Behind(behind)) = self.sinking()
            && let Some(journal) = behind.journal()
        {
            return self.journal_many(behind, journal, changes, timeout).await;
        }
        for (key, change, ack) in changes {
            self.write_sunk(&key, change, ack, timeout).await?;
        }
        Ok(())
    }

    async fn journal_many(
        &self,
        behind: &Behind<V>,
        journal: &Journaling<V>,
        changes: impl Iterator<Item = (Bytes, Change<V>, Ack)>,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        let (mut gathered, mut answers) = (Vec::new(), Vec::new());
        let gathering = async {
            for (key, change, ack) in changes {
                self.check_open()?;
                behind.takes(&key)?;
                let Some(wanted) = wanted(change) else {
                    return Err(WriteError::SinkMustWait);
                };
                let bytes = bytes_of(&key, &wanted);
                let room = match self.room_now(behind, &key, bytes) {
                    Err(WriteError::SinkOverloaded { .. }) => {
                        // Those that have room make room when they are written: they do not wait for this one.
                        answers.extend(journal.ask(behind, gathered.drain(..)));
                        self.room(behind, &key, bytes).await?
                    }
                    room => room?,
                };
                let what = What::Wanted {
                    wanted,
                    ack,
                    timeout,
                };
                gathered.push((key, room, what));
            }
            Ok(())
        };
        let refused = gathering.await;
        answers.extend(journal.ask(behind, gathered));
        let mut result = Ok(());
        for answer in answers {
            let written = match answer.await {
                Ok(Ok(accepted)) => self.acknowledged(accepted).await.map(drop),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(WriteError::JournalFailed),
            };
            result = result.and(written);
        }
        result.and(refused)
    }
}
