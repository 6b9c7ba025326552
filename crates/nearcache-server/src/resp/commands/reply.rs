//! A reply that outlives the request it answers: what a waiting command gives.

use nearcache::{Cached, Raw, RawValue};

use super::super::writer::Writer;
use super::scan::ListedKey;

/// A value as it is shared with the cache.
pub(crate) type Value = Cached<RawValue, Raw>;

/// A reply, to be encoded once it is its turn.
#[derive(Debug)]
pub(crate) enum Reply {
    Ok,
    Null,
    Integer(i64),
    /// The value, not copied until it is written.
    Value(Value),
    /// These keys.
    Keys(Vec<ListedKey>),
    Array(Vec<Self>),
    /// A short constant.
    Simple(&'static str),
    Bytes(Vec<u8>),
}

impl Reply {
    /// The value if there is one.
    pub(crate) fn value(value: Option<Value>) -> Self {
        value.map_or(Self::Null, Self::Value)
    }

    /// 1 or 0.
    pub(crate) fn flag(flag: bool) -> Self {
        Self::Integer(i64::from(flag))
    }

    /// Encodes the reply. Aggregates nest two deep at most.
    pub(crate) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Ok => writer.ok(),
            Self::Null => writer.null(),
            Self::Integer(value) => writer.integer(*value),
            Self::Value(value) => writer.bulk(value),
            Self::Keys(keys) => {
                writer.array(keys.len());
                for key in keys {
                    writer.bulk(key.bytes());
                }
            }
            Self::Array(elements) => {
                writer.array(elements.len());
                for element in elements {
                    element.write(writer);
                }
            }
            Self::Simple(text) => writer.simple(text),
            Self::Bytes(bytes) => writer.bulk(bytes),
        }
    }
}
