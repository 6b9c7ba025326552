//! What one connection has said about itself: database, protocol, identity.

use std::sync::Arc;

use crate::caches::RawCache;

use super::{Context, Server, clients::Client, metrics::ThreadCounters, writer::Protocol};

/// The state that a connection's commands read and change.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) server: Arc<Server>,
    pub(crate) client: Arc<Client>,
    /// Cells of the thread that serves this connection.
    pub(crate) counters: Arc<ThreadCounters>,
    database: RawCache,
    is_authenticated: bool,
    failures: u32,
}

impl Session {
    /// A session on database 0; authenticated if nobody needs to be.
    ///
    /// Returns `None` if the server has no database 0.
    pub(crate) fn new(
        server: Arc<Server>,
        client: Arc<Client>,
        counters: Arc<ThreadCounters>,
    ) -> Option<Self> {
        let database = server.context.databases.first()?.clone();
        let mut session = Self {
            server,
            client,
            counters,
            database,
            is_authenticated: false,
            failures: 0,
        };
        if session.context().auth.is_none() {
            session.set_authenticated();
        }
        Some(session)
    }

    pub(crate) fn context(&self) -> &Context {
        &self.server.context
    }

    /// The cache that commands work on.
    pub(crate) fn database(&self) -> &RawCache {
        &self.database
    }

    /// Changes the database; `false` if there is none of that number.
    pub(crate) fn select(&mut self, index: usize) -> bool {
        let Some(database) = self.context().databases.get(index).cloned() else {
            return false;
        };
        self.database = database;
        self.client.set_database(index);
        true
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// Checks a password; the connection is to be closed once too many were wrong.
    pub(crate) fn authenticate(&mut self, user: Option<&[u8]>, password: &[u8]) -> bool {
        let is_right = self
            .context()
            .auth
            .as_ref()
            .is_none_or(|auth| auth.verify(user, password));
        if is_right {
            self.failures = 0;
            self.set_authenticated();
        } else {
            self.failures += 1;
        }
        is_right
    }

    /// Whether this connection guessed more often than it may.
    pub(crate) fn has_failed_too_often(&self) -> bool {
        self.failures >= self.context().limits.authentication_failures
    }

    /// Goes back to what a new connection is, its identity aside.
    pub(crate) fn reset(&mut self) {
        self.select(0);
        self.client.set_protocol(Protocol::default());
        *self.client.names() = super::clients::Names::default();
        if self.context().auth.is_some() {
            self.is_authenticated = false;
        }
    }

    fn set_authenticated(&mut self) {
        self.is_authenticated = true;
        self.client.set_authenticated();
    }
}
