//! A sink whose types are forgotten: what the shell calls.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use nearcache_store::Version;
use serde::de::DeserializeOwned;

use super::{Sink, SinkError, SinkWrite};
use crate::codec::key::decode_key;
use crate::codec::{Codec, KeyError};

/// A call under way.
pub(crate) type SinkAnswer<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// One write as the shell knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CellWrite<'a, Cell> {
    pub(crate) key: &'a [u8],
    pub(crate) cell: Option<&'a Cell>,
    pub(crate) version: Version,
}

/// A sink of cells.
pub(crate) trait CellSink<Cell>: Send + Sync + 'static {
    fn write_many<'a>(&'a self, writes: Vec<CellWrite<'a, Cell>>) -> SinkAnswer<'a>;
    /// Whether it can be told this key.
    fn takes(&self, key: &[u8]) -> Result<(), KeyError>;
}

/// A sink of values, of keys in their canonical bytes.
pub(crate) trait ErasedSink<V>: Send + Sync + 'static {
    fn write_many<'a>(&'a self, writes: Vec<SinkWrite<'a, &'a [u8], V>>) -> SinkAnswer<'a>;
    fn takes(&self, key: &[u8]) -> Result<(), KeyError>;
}

/// A user's sink, with the type of its keys.
pub(crate) struct Typed<K, S> {
    sink: S,
    key: PhantomData<fn() -> K>,
}

impl<K, S> Typed<K, S> {
    pub(crate) const fn new(sink: S) -> Self {
        Self {
            sink,
            key: PhantomData,
        }
    }
}

impl<K, V, S> ErasedSink<V> for Typed<K, S>
where
    K: DeserializeOwned + Send + Sync + 'static,
    V: Sync + 'static,
    S: Sink<K, V>,
{
    fn write_many<'a>(&'a self, writes: Vec<SinkWrite<'a, &'a [u8], V>>) -> SinkAnswer<'a> {
        let typed = writes.into_iter().map(|write| {
            Ok(SinkWrite {
                key: decode_key(write.key)?,
                value: write.value,
                version: write.version,
            })
        });
        let typed: Result<Vec<SinkWrite<'a, K, V>>, KeyError> = typed.collect();
        Box::pin(async move {
            match typed.map_err(SinkError::rejected)?.as_slice() {
                [] => Ok(()),
                [write] => self.sink.write(write).await,
                writes => self.sink.write_many(writes).await,
            }
        })
    }

    fn takes(&self, key: &[u8]) -> Result<(), KeyError> {
        decode_key::<K>(key).map(drop)
    }
}

/// A sink of values behind a codec.
pub(crate) struct Celled<V, C> {
    sink: Arc<dyn ErasedSink<V>>,
    codec: PhantomData<fn() -> C>,
}

impl<V, C> Celled<V, C> {
    pub(crate) const fn new(sink: Arc<dyn ErasedSink<V>>) -> Self {
        Self {
            sink,
            codec: PhantomData,
        }
    }
}

impl<V: 'static, C: Codec<V>> CellSink<C::Cell> for Celled<V, C> {
    fn write_many<'a>(&'a self, writes: Vec<CellWrite<'a, C::Cell>>) -> SinkAnswer<'a> {
        let mut viewed = Vec::with_capacity(writes.len());
        for CellWrite { key, cell, version } in writes {
            let value = match cell.map(C::view) {
                None => None,
                Some(Some(value)) => Some(value),
                Some(None) => {
                    let what = "the value cannot be decoded as one of this cache's type";
                    return Box::pin(async move { Err(SinkError::rejected(what)) });
                }
            };
            viewed.push(SinkWrite {
                key,
                value,
                version,
            });
        }
        self.sink.write_many(viewed)
    }

    fn takes(&self, key: &[u8]) -> Result<(), KeyError> {
        self.sink.takes(key)
    }
}
