//! Values of Rust types as MessagePack with field names.
//!
//! Field names travel, so that a newer version of a service may add fields (give them
//! `#[serde(default)]`) while older versions still run. A cell that came from the wire is kept as
//! bytes and decoded once, by its first reader; a value of this node is encoded once, by its
//! writer, and its readers share the writer's value.

use std::fmt;
use std::sync::OnceLock;

use nearcache_protocol::payload::{CodecTag, Payload};
use nearcache_store::Weigh;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::release::release;
use super::{Codec, EncodeError};

/// The default codec: MessagePack with named fields, by serde.
#[derive(Debug, Clone, Copy, Default)]
pub struct MessagePack;

impl MessagePack {
    /// How values of this codec are marked on the wire.
    pub const TAG: CodecTag = CodecTag {
        codec: 2,
        schema: 0,
    };
}

/// The bytes of a value and, once somebody read it, the value.
pub struct MessagePackCell<V: Send + 'static> {
    bytes: Box<[u8]>,
    codec: CodecTag,
    /// `None` inside: the bytes were tried and cannot be decoded as a `V`.
    value: OnceLock<Option<V>>,
}

impl<V: Send + 'static> Drop for MessagePackCell<V> {
    fn drop(&mut self) {
        let Self { bytes, value, .. } = self;
        release(bytes.len(), || (std::mem::take(bytes), value.take()));
    }
}

impl<V: Send + 'static> fmt::Debug for MessagePackCell<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessagePackCell({} bytes)", self.bytes.len())
    }
}

impl<V: Send + 'static> Clone for MessagePackCell<V> {
    /// Copies the bytes; the copy decodes its own value when somebody reads it.
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            codec: self.codec,
            value: OnceLock::new(),
        }
    }
}

impl<V: Send + Sync + 'static> Weigh for MessagePackCell<V> {
    /// The encoded bytes twice: once for themselves, once for what the decoded value owns
    /// outside its own size. A guess that is right within a factor for strings and vectors.
    fn weight(&self) -> usize {
        self.bytes.len() * 2
    }
}

impl<V: Send + Sync + 'static> Payload for MessagePackCell<V> {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn codec(&self) -> CodecTag {
        self.codec
    }

    fn from_wire(codec: CodecTag, bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            codec,
            value: OnceLock::new(),
        }
    }

    fn from_assembled(codec: CodecTag, bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into_boxed_slice(),
            codec,
            value: OnceLock::new(),
        }
    }
}

impl<V> Codec<V> for MessagePack
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Cell = MessagePackCell<V>;

    const ID: u16 = Self::TAG.codec;

    fn encode(value: V) -> Result<Self::Cell, EncodeError> {
        let bytes = rmp_serde::to_vec_named(&value).map_err(|error| EncodeError {
            codec: "MessagePack",
            reason: error.to_string(),
        })?;
        Ok(MessagePackCell {
            bytes: bytes.into_boxed_slice(),
            codec: Self::TAG,
            value: OnceLock::from(Some(value)),
        })
    }

    fn view(cell: &Self::Cell) -> Option<&V> {
        cell.value
            .get_or_init(|| decode(cell.codec, &cell.bytes))
            .as_ref()
    }
}

/// Decodes all of `bytes`; bytes left over mean that they were meant for another type.
fn decode<V: DeserializeOwned>(codec: CodecTag, bytes: &[u8]) -> Option<V> {
    if codec != MessagePack::TAG {
        return None;
    }
    let mut rest = bytes;
    let value = V::deserialize(&mut rmp_serde::Deserializer::new(&mut rest)).ok()?;
    rest.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Old {
        name: String,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct New {
        name: String,
        #[serde(default)]
        age: u32,
    }

    #[test]
    fn a_field_added_later_is_ignored_by_the_old_type_and_defaulted_by_the_new() {
        let new = MessagePack::encode(New {
            name: "Ada".into(),
            age: 36,
        })
        .unwrap();
        let seen = MessagePackCell::<Old>::from_wire(new.codec(), new.bytes());
        assert_eq!(MessagePack::view(&seen), Some(&Old { name: "Ada".into() }));

        let old = MessagePack::encode(Old { name: "Ada".into() }).unwrap();
        let seen = MessagePackCell::<New>::from_wire(old.codec(), old.bytes());
        assert_eq!(
            MessagePack::view(&seen),
            Some(&New {
                name: "Ada".into(),
                age: 0
            })
        );
    }

    #[test]
    fn what_cannot_be_decoded_is_kept_as_it_came() {
        let text = MessagePack::encode("text".to_owned()).unwrap();
        let seen = MessagePackCell::<New>::from_wire(text.codec(), text.bytes());
        assert_eq!(MessagePack::view(&seen), None);
        assert_eq!(seen.bytes(), text.bytes());
    }

    #[test]
    fn bytes_left_over_are_not_a_value() {
        let number = MessagePack::encode(7u8).unwrap();
        let mut bytes = number.bytes().to_vec();
        bytes.push(7);
        let seen = MessagePackCell::<u8>::from_wire(MessagePack::TAG, &bytes);
        assert_eq!(MessagePack::view(&seen), None);
    }

    #[test]
    fn a_value_is_decoded_once_and_shared() {
        let text = MessagePack::encode("text".to_owned()).unwrap();
        let seen = MessagePackCell::<String>::from_wire(text.codec(), text.bytes());
        let first: *const String = MessagePack::view(&seen).unwrap();
        assert!(std::ptr::eq(first, MessagePack::view(&seen).unwrap()));
    }
}
