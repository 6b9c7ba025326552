//! Writing.
//!
//! Every write is stamped, merged into the store, and only then told to the peers, so a reader on
//! this node sees it before the call returns. Writes that wait for nobody have a form that is not
//! asynchronous (`put_now`, `remove_now`), for callers that are not either.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::modify::{Modified as CoreModified, ModifyOp, NewExpiry};
use nearcache_protocol::payload::Payload;
use nearcache_store::{Change, Expiry, Scope, Tags, Version};

use super::Cache;
use super::cached::Cached;
use super::errors::{ModifyError, WriteError};
use super::modify::{Action, Modified, Modify, SetExpiry};
use super::options::{Ack, Lifetime, PutOptions};
use crate::codec::Codec;
use crate::codec::key::{KeyBuffer, KeyError, KeyFor};
use crate::limits::{OPERATION_TIMEOUT_DEFAULT, TAG_LEN_MAX, TAGS_MAX, TTL_MAX};

impl<K: ?Sized, V, C: Codec<V>> Cache<K, V, C> {
    /// Stores `value` under `key` with the cache's own time to live, and returns its version.
    ///
    /// Applied here and on its way to the peers when it returns; never waits. Cost: one encoding,
    /// two allocations, one lock per shard and one per cache, both short.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; each variant says whether anything was changed.
    pub async fn put<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        value: V,
    ) -> Result<Version, WriteError> {
        let options = PutOptions::default();
        match self.shell.sinking() {
            None => self.put_now(key, value, &options),
            Some(_) => self.put_with(key, value, options).await,
        }
    }

    /// Stores `value` under `key` as `options` say.
    ///
    /// A cache with a [sink](crate::CacheBuilder::write_through) waits for the system of record, or for room in the queue for it; then the
    /// acknowledgement's time begins.
    ///
    /// Not cancel-safe in the sense of all-or-nothing: dropped while it waits for peers, the write
    /// is applied here and on its way nevertheless.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; after [`WriteError::AckTimeout`] and [`WriteError::AckAllBeyondMesh`] the write *is* applied here.
    pub async fn put_with<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        value: V,
        options: PutOptions,
    ) -> Result<Version, WriteError> {
        let mut buffer = KeyBuffer::new();
        let key = self.key_of(key, &mut buffer)?;
        let change = self.put_change(value, &options)?;
        let written = self
            .shell
            .write_sunk(key, change, options.ack, options.timeout)
            .await?;
        Ok(written.version)
    }

    /// As [`put_with`](Self::put_with) for callers that cannot wait: the acknowledgement asked for
    /// in `options` is left out, as if it were [`Ack::Local`]. Refused where a write has to wait for the system of record or for a disk.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; each variant says whether anything was changed.
    pub fn put_now<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        value: V,
        options: &PutOptions,
    ) -> Result<Version, WriteError> {
        let mut buffer = KeyBuffer::new();
        let key = self.key_of(key, &mut buffer)?;
        let change = self.put_change(value, options)?;
        Ok(self.shell.write_sunk_now(key, change)?.version)
    }

    /// Stores many values, each under its key, as `options` say for all of them. The peers are told
    /// of all at once, so this costs less per entry than as many puts. Behind a
    /// [journal](crate::WriteBehind::journal) all of them share a sync, as far as the queue has room for them.
    ///
    /// # Errors
    ///
    /// [`WriteError`] of the first entry that was refused: those before it are stored, it and those
    /// after it are not. Where the journal refuses an entry, some of those after it may be stored. With an acknowledgement, [`WriteError::AckTimeout`] is that of the last
    /// entry, which peers apply after all others.
    pub async fn put_many<'a, Q>(
        &self,
        entries: impl IntoIterator<Item = (&'a Q, V)>,
        options: PutOptions,
    ) -> Result<(), WriteError>
    where
        Q: KeyFor<K> + ?Sized + 'a,
    {
        let mut changes = Vec::new();
        let mut refused = None;
        for (key, value) in entries {
            let change = self
                .owned_key(key)
                .map_err(WriteError::from)
                .and_then(|key| Ok((key, self.put_change(value, &options)?)));
            match change {
                Ok(change) => changes.push(change),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        if self.shell.sinking().is_some() {
            self.shell
                .write_sunk_many(changes, options.ack, options.timeout)
                .await?;
            return refused.map_or(Ok(()), Err);
        }
        let last = if options.ack == Ack::Local {
            None
        } else {
            changes.pop()
        };
        self.shell.write_many(changes)?;
        if let Some((key, change)) = last {
            self.shell
                .write_acked(&key, change, options.ack, options.timeout)
                .await?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Removes `key`; says whether this node held a value of it.
    ///
    /// The removal goes to the peers even if nothing was here: they may hold what this node has
    /// dropped for want of room.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; each variant says whether anything was changed.
    pub async fn remove<Q: KeyFor<K> + ?Sized>(&self, key: &Q) -> Result<bool, WriteError> {
        match self.shell.sinking() {
            None => self.remove_now(key),
            Some(_) => {
                self.remove_acked(key, Ack::Local, OPERATION_TIMEOUT_DEFAULT)
                    .await
            }
        }
    }

    /// As [`remove`](Self::remove), acknowledged as `ack` says within `timeout`.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; after [`WriteError::AckTimeout`] and [`WriteError::AckAllBeyondMesh`] the removal *is* applied here.
    pub async fn remove_acked<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        ack: Ack,
        timeout: Duration,
    ) -> Result<bool, WriteError> {
        let mut buffer = KeyBuffer::new();
        let key = self.key_of(key, &mut buffer)?;
        let written = self
            .shell
            .write_sunk(key, Change::Remove, ack, timeout)
            .await?;
        Ok(written.held_value())
    }

    /// As [`remove`](Self::remove), for callers that cannot wait.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; each variant says whether anything was changed.
    pub fn remove_now<Q: KeyFor<K> + ?Sized>(&self, key: &Q) -> Result<bool, WriteError> {
        let mut buffer = KeyBuffer::new();
        let key = self.key_of(key, &mut buffer)?;
        let written = self.shell.write_sunk_now(key, Change::Remove)?;
        Ok(written.held_value())
    }

    /// Gives the entry of `key` a new time to live; says whether there was one.
    ///
    /// Decided on what this node holds, and never waits: an entry whose long value is not here counts as none. To decide at one place for the whole
    /// cluster, use [`modify`](Self::modify) with [`Modify::expire`].
    ///
    /// # Errors
    ///
    /// [`WriteError`]; each variant says whether anything was changed.
    pub async fn touch<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        ttl: Duration,
    ) -> Result<bool, WriteError> {
        let mut buffer = KeyBuffer::new();
        let key = self.key_of(key, &mut buffer)?;
        let expiry = self.expiry(Lifetime::For(ttl))?;
        // That the key has no value is not made to last.
        let held = self.shell.store().peek(key);
        if held.is_some_and(|held| held.value().is_absent()) {
            return Ok(false);
        }
        let written = self.shell.write(key, Change::Expire { expiry })?;
        Ok(written.held_value())
    }

    /// Drops `key` on every node, but not in the system of record, and returns once all have acknowledged it as `ack` says, or after `timeout`.
    ///
    /// With [`Ack::All`] no live member serves an older value when this returns `Ok`: each has applied it, or, in mode
    /// `invalidation`, its lease has run out, so that it serves nothing before it has caught up (which takes 3 s by default; give it
    /// more time than that). Call it after the system of record was written. Dropped while it waits, the invalidation is applied
    /// here and on its way.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; after [`WriteError::AckTimeout`] and [`WriteError::AckAllBeyondMesh`] the invalidation *is* applied here and on its way.
    pub async fn invalidate<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        ack: Ack,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        let mut buffer = KeyBuffer::new();
        let key = self.key_of(key, &mut buffer)?;
        let dropped = self.shell.write_acked(key, Change::Remove, ack, timeout);
        dropped.await.map(|_| ())
    }

    /// Drops every entry, on every node, that carries one of `tags` and is older than this call.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; on an invalid tag nothing was changed.
    pub async fn invalidate_tags<T: AsRef<[u8]>>(
        &self,
        tags: impl IntoIterator<Item = T>,
    ) -> Result<(), WriteError> {
        self.invalidate_tags_acked(tags, Ack::Local, OPERATION_TIMEOUT_DEFAULT)
            .await
    }

    /// As [`invalidate_tags`](Self::invalidate_tags), acknowledged as `ack` says, each tag within `timeout`.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate); on an invalid tag nothing was changed.
    pub async fn invalidate_tags_acked<T: AsRef<[u8]>>(
        &self,
        tags: impl IntoIterator<Item = T>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        let mut scopes = Vec::new();
        for (index, tag) in tags.into_iter().enumerate() {
            check_tag(index, tag.as_ref())?;
            scopes.push(Scope::Tag(tag.as_ref().into()));
        }
        for scope in scopes {
            self.shell.invalidate(scope, ack, timeout).await?;
        }
        Ok(())
    }

    /// Drops every entry, on every node, whose canonical key starts with `prefix` and that is older
    /// than this call. For keys of text or bytes the prefix is theirs; the bytes of a tuple's
    /// leading fields are a prefix as well.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; on an invalid prefix nothing was changed.
    pub async fn invalidate_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<(), WriteError> {
        self.invalidate_prefix_acked(prefix, Ack::Local, OPERATION_TIMEOUT_DEFAULT)
            .await
    }

    /// As [`invalidate_prefix`](Self::invalidate_prefix), acknowledged as `ack` says within `timeout`.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate); on an invalid prefix nothing was changed.
    pub async fn invalidate_prefix_acked(
        &self,
        prefix: impl AsRef<[u8]>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        check_tag(0, prefix.as_ref())?;
        let scope = Scope::Prefix(prefix.as_ref().into());
        self.shell.invalidate(scope, ack, timeout).await
    }

    /// Drops every entry, on every node, that is older than this call.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; nothing was changed then.
    pub async fn clear(&self) -> Result<(), WriteError> {
        self.clear_acked(Ack::Local, OPERATION_TIMEOUT_DEFAULT)
            .await
    }

    /// As [`clear`](Self::clear), acknowledged as `ack` says within `timeout`.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn clear_acked(&self, ack: Ack, timeout: Duration) -> Result<(), WriteError> {
        self.shell.invalidate(Scope::All, ack, timeout).await
    }

    /// Changes `key` in a way that depends on what it holds, decided at the key's home node.
    ///
    /// What the key holds afterwards is in this node's store when the future ends. In a netsplit
    /// each side decides for itself, and the newest version wins when it heals. The future owns all
    /// it needs; dropped before it ends, the change may or may not be made.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use nearcache::{Condition, Modify, Node};
    ///
    /// let node = Node::builder("shop").start().await?;
    /// let leaders = node.cache::<String, String>("leaders").open().await?;
    /// let claim = || Modify::set("node a".to_owned()).only_if(Condition::IfAbsent);
    /// assert!(leaders.modify("job", claim()).await?.applied);
    /// assert!(!leaders.modify("job", claim()).await?.applied);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ModifyError`]; only [`ModifyError::Indeterminate`] leaves open whether it was made.
    pub fn modify<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        change: Modify<V>,
    ) -> impl Future<Output = Result<Modified<V, C>, ModifyError>> + Send + 'static + use<K, V, C, Q>
    where
        C::Cell: Send + Sync,
    {
        let timeout = change.timeout;
        let prepared = self
            .owned_key(key)
            .map_err(ModifyError::from)
            .and_then(|key| Ok((key, self.operation(change)?)));
        let shell = std::sync::Arc::clone(&self.shell);
        let node = std::sync::Arc::clone(&self.node);
        async move {
            let (key, operation) = prepared?;
            let modified = shell.modify_sunk(key, operation, timeout).await?;
            drop(node);
            Ok(typed(modified))
        }
    }

    fn key_of<'a, Q: KeyFor<K> + ?Sized>(
        &self,
        key: &'a Q,
        buffer: &'a mut KeyBuffer,
    ) -> Result<&'a [u8], KeyError> {
        let bytes = key.key_bytes(buffer)?;
        self.shell.settings().check_key(bytes)?;
        Ok(bytes)
    }

    pub(super) fn owned_key<Q: KeyFor<K> + ?Sized>(&self, key: &Q) -> Result<Bytes, KeyError> {
        let mut buffer = KeyBuffer::new();
        Ok(Bytes::copy_from_slice(self.key_of(key, &mut buffer)?))
    }

    pub(super) fn put_change(
        &self,
        value: V,
        options: &PutOptions,
    ) -> Result<Change<C::Cell>, WriteError> {
        let (value, expiry, tags) = self.content(value, options)?;
        Ok(Change::Put {
            value,
            expiry,
            tags,
        })
    }

    /// What an entry is made of besides its key.
    pub(super) fn content(
        &self,
        value: V,
        options: &PutOptions,
    ) -> Result<(C::Cell, Expiry, Tags), WriteError> {
        let expiry = self.expiry(options.lifetime)?;
        let tags = tags_of(&options.tags)?;
        Ok((self.cell(value)?, expiry, tags))
    }

    fn cell(&self, value: V) -> Result<C::Cell, WriteError> {
        let cell = C::encode(value)?;
        let (len_bytes, limit_bytes) = (cell.bytes().len(), self.shell.settings().max_value_bytes);
        if len_bytes > limit_bytes {
            return Err(WriteError::ValueTooLarge {
                len_bytes,
                limit_bytes,
            });
        }
        Ok(cell)
    }

    pub(super) fn expiry(&self, lifetime: Lifetime) -> Result<Expiry, WriteError> {
        let now_ms = self.shell.node().now_ms();
        let ttl = match lifetime {
            Lifetime::OfCache => match self.shell.settings().time_to_live {
                Some(ttl) => ttl,
                None => return Ok(Expiry::NEVER),
            },
            Lifetime::For(ttl) => ttl,
            // An instant that has passed makes the write a removal.
            Lifetime::Until(expiry) => return Ok(expiry),
        };
        if ttl < Duration::from_millis(1) || ttl > TTL_MAX {
            return Err(WriteError::InvalidTtl { ttl });
        }
        Ok(Expiry::after(now_ms, ttl))
    }

    fn operation(&self, change: Modify<V>) -> Result<ModifyOp<C::Cell>, WriteError> {
        let return_previous = change.return_previous;
        Ok(match change.action {
            Action::Set {
                value,
                condition,
                expiry,
                tags,
            } => ModifyOp::Set {
                condition,
                value: self.cell(value)?,
                expiry: match expiry {
                    SetExpiry::Keep => NewExpiry::Keep,
                    SetExpiry::New(lifetime) => new_expiry(self.expiry(lifetime)?),
                },
                tags: tags_of(&tags)?,
                return_previous,
            },
            Action::Remove { condition } => ModifyOp::Remove {
                condition,
                return_previous,
            },
            Action::Expire {
                lifetime,
                condition,
            } => ModifyOp::Expire {
                expiry: new_expiry(self.expiry(lifetime)?),
                condition,
                return_previous,
            },
            Action::Add { delta } => ModifyOp::Add { delta },
        })
    }
}

fn new_expiry(expiry: Expiry) -> NewExpiry {
    if expiry.is_never() {
        NewExpiry::Never
    } else {
        NewExpiry::At(expiry.as_millis())
    }
}

fn typed<V, C: Codec<V>>(modified: CoreModified<C::Cell>) -> Modified<V, C> {
    Modified {
        applied: modified.applied,
        previous: modified.previous.and_then(Cached::of),
        current: modified.current.and_then(Cached::of),
    }
}

pub(super) fn tags_of(tags: &[Box<[u8]>]) -> Result<Tags, WriteError> {
    if tags.is_empty() {
        return Ok(Tags::NONE);
    }
    if tags.len() > TAGS_MAX {
        return Err(WriteError::InvalidTag {
            index: TAGS_MAX,
            allowed: "at most 64 tags",
        });
    }
    for (index, tag) in tags.iter().enumerate() {
        check_tag(index, tag)?;
    }
    Tags::new(tags).map_err(|_| WriteError::InvalidTag {
        index: tags.len(),
        allowed: "tags of one entry fit the store's limit together",
    })
}

fn check_tag(index: usize, tag: &[u8]) -> Result<(), WriteError> {
    if tag.is_empty() || tag.len() > TAG_LEN_MAX {
        return Err(WriteError::InvalidTag {
            index,
            allowed: "1 to 512 bytes",
        });
    }
    Ok(())
}
