//! Reads a key back from its canonical bytes: for the user's code that writes the system of record, which wants keys and not bytes.
//!
//! The bytes do not say what they are; the type of the key does, as it did when they were written. What serde cannot ask for without
//! looking at the bytes (untagged enums, maps, floats) has no answer.

use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer as _, Visitor};

use super::KeyError;

/// The key that these canonical bytes are those of.
///
/// # Errors
///
/// [`KeyError`] if they are those of no key of this type.
pub(crate) fn decode_key<K: DeserializeOwned>(bytes: &[u8]) -> Result<K, KeyError> {
    let mut rest = bytes;
    let key = K::deserialize(KeyDeserializer {
        rest: &mut rest,
        is_top: true,
    })?;
    if rest.is_empty() {
        return Ok(key);
    }
    Err(malformed())
}

fn malformed() -> KeyError {
    KeyError::Unsupported {
        what: "what these bytes stand for",
    }
}

impl de::Error for KeyError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Custom {
            reason: message.to_string(),
        }
    }
}

/// A cursor over the bytes.
struct KeyDeserializer<'a, 'b> {
    rest: &'a mut &'b [u8],
    /// The whole key: text and bytes are the key.
    is_top: bool,
}

impl<'b> KeyDeserializer<'_, 'b> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or_else(malformed)?;
        *self.rest = rest;
        Ok(*first)
    }

    /// Text or bytes: all that is left at the top, escaped and ended elsewhere.
    fn take_bytes(&mut self) -> Result<Vec<u8>, KeyError> {
        if self.is_top {
            return Ok(std::mem::take(self.rest).to_vec());
        }
        let mut bytes = Vec::new();
        loop {
            let [byte] = self.take()?;
            if byte != 0 {
                bytes.push(byte);
                continue;
            }
            match self.take()? {
                [0] => return Ok(bytes),
                [0xFF] => bytes.push(0),
                _ => return Err(malformed()),
            }
        }
    }

    fn take_text(&mut self) -> Result<String, KeyError> {
        String::from_utf8(self.take_bytes()?).map_err(|_| malformed())
    }

    /// The same, inside a composite.
    fn inside(self) -> Self {
        Self {
            rest: self.rest,
            is_top: false,
        }
    }
}

macro_rules! unsigned {
    ($($method:ident: $visit:ident as $number:ty),+) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, KeyError> {
            visitor.$visit(<$number>::from_be_bytes(self.take()?))
        }
    )+};
}

macro_rules! signed {
    ($($method:ident: $visit:ident as $number:ty, $bits:ty),+) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, KeyError> {
            let flipped = <$bits>::from_be_bytes(self.take()?) ^ (1 << (<$bits>::BITS - 1));
            visitor.$visit(flipped.cast_signed())
        }
    )+};
}

macro_rules! refused {
    ($($method:ident: $what:literal),+) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, KeyError> {
            Err(KeyError::Unsupported { what: $what })
        }
    )+};
}

impl<'de, 'a, 'b> Deserializer<'de> for KeyDeserializer<'a, 'b> {
    type Error = KeyError;

    unsigned!(deserialize_u8: visit_u8 as u8, deserialize_u16: visit_u16 as u16, deserialize_u32: visit_u32 as u32,
        deserialize_u64: visit_u64 as u64, deserialize_u128: visit_u128 as u128);
    signed!(deserialize_i8: visit_i8 as i8, u8, deserialize_i16: visit_i16 as i16, u16, deserialize_i32: visit_i32 as i32, u32,
        deserialize_i64: visit_i64 as i64, u64, deserialize_i128: visit_i128 as i128, u128);
    refused!(deserialize_any: "a type that is told from the bytes", deserialize_ignored_any: "a part that is skipped",
        deserialize_f32: "a float", deserialize_f64: "a float", deserialize_map: "a map");

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, KeyError> {
        match self.take()? {
            [0] => visitor.visit_bool(false),
            [1] => visitor.visit_bool(true),
            _ => Err(malformed()),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, KeyError> {
        let number = u32::from_be_bytes(self.take()?);
        visitor.visit_char(char::from_u32(number).ok_or_else(malformed)?)
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_string(self.take_text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_byte_buf(self.take_bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, KeyError> {
        match self.take()? {
            [0] => visitor.visit_none(),
            [1] => visitor.visit_some(self.inside()),
            _ => Err(malformed()),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        // At the top, a sequence of bytes is the bytes; which it is, only the type of its elements tells.
        let framing = if self.is_top {
            Framing::Undecided
        } else {
            Framing::Framed
        };
        visitor.visit_seq(Elements {
            rest: self.rest,
            framing,
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        visitor.visit_seq(Fields {
            rest: self.rest,
            left: len,
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_u32(u32::from_be_bytes(self.take()?))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl<'de, 'a, 'b> de::EnumAccess<'de> for KeyDeserializer<'a, 'b> {
    type Error = KeyError;
    type Variant = Self;

    fn variant_seed<S: de::DeserializeSeed<'de>>(
        mut self,
        seed: S,
    ) -> Result<(S::Value, Self), KeyError> {
        let index = u32::from_be_bytes(self.take()?);
        let variant = seed.deserialize(index.into_deserializer())?;
        Ok((variant, self.inside()))
    }
}

impl<'de, 'a, 'b> de::VariantAccess<'de> for KeyDeserializer<'a, 'b> {
    type Error = KeyError;

    fn unit_variant(self) -> Result<(), KeyError> {
        Ok(())
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, KeyError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, KeyError> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}

/// The fields of a struct, tuple or variant, one after the other.
struct Fields<'a, 'b> {
    rest: &'a mut &'b [u8],
    left: usize,
}

impl<'de, 'a, 'b> de::SeqAccess<'de> for Fields<'a, 'b> {
    type Error = KeyError;

    fn next_element_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, KeyError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let field = KeyDeserializer {
            rest: self.rest,
            is_top: false,
        };
        seed.deserialize(field).map(Some)
    }
}

/// How the elements of a sequence are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// At the top level, before the first element.
    Undecided,
    /// At the top level, and its elements are bytes.
    Raw,
    /// Each element is preceded by 1, the end is 0.
    Framed,
}

/// The elements of a sequence.
struct Elements<'a, 'b> {
    rest: &'a mut &'b [u8],
    framing: Framing,
}

impl<'de, 'a, 'b> de::SeqAccess<'de> for Elements<'a, 'b> {
    type Error = KeyError;

    fn next_element_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, KeyError> {
        if self.framing != Framing::Framed && self.rest.is_empty() {
            return Ok(None);
        }
        if self.framing == Framing::Undecided {
            self.framing = if is_byte::<S::Value>() {
                Framing::Raw
            } else {
                Framing::Framed
            };
        }
        let mut element = KeyDeserializer {
            rest: self.rest,
            is_top: false,
        };
        if self.framing == Framing::Framed {
            match element.take()? {
                [0] => return Ok(None),
                [1] => {}
                _ => return Err(malformed()),
            }
        }
        seed.deserialize(element).map(Some)
    }
}

/// Whether the type of an element is a byte. Only its name says so to who has a seed; a newtype of a byte is not one.
fn is_byte<T>() -> bool {
    std::any::type_name::<T>() == std::any::type_name::<u8>()
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::codec::key::{KeyBuffer, KeyFor};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        shop: u16,
        number: i64,
        name: String,
        kind: Kind,
        parts: Vec<(u8, Option<char>)>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Plain,
        Of(bool),
        Pair(u32, i8),
        Named { part: String },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Name(String);

    fn comes_back<K: Serialize + DeserializeOwned + PartialEq + Debug>(key: K) {
        let mut buffer = KeyBuffer::new();
        let bytes = key.key_bytes(&mut buffer).unwrap().to_vec();
        assert_eq!(decode_key::<K>(&bytes).unwrap(), key, "{bytes:?}");
        // Nothing that is cut or longer is taken for it, where the type says where it ends.
        if !bytes.is_empty() && std::any::type_name::<K>().contains("Order") {
            assert!(decode_key::<K>(&bytes[..bytes.len() - 1]).is_err());
            assert!(decode_key::<K>(&[&bytes[..], &[7]].concat()).is_err());
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        comes_back("text".to_owned());
        comes_back(Name("\0 text".to_owned()));
        comes_back(vec![0u8, 1, 255]);
        comes_back(vec![7u16, 8]);
        comes_back(7u64);
        comes_back(-7i32);
        comes_back((true, 'x', u128::MAX, i128::MIN));
        comes_back(("a\0b".to_owned(), vec![1u8, 0], [3u8; 4]));
        for kind in [
            Kind::Plain,
            Kind::Of(true),
            Kind::Pair(1, -1),
            Kind::Named { part: "x".into() },
        ] {
            comes_back(Order {
                shop: 7,
                number: -9,
                name: "Ada".into(),
                kind,
                parts: vec![(1, None), (2, Some('z'))],
            });
        }
    }

    #[test]
    fn what_is_no_key_of_the_type_is_an_error() {
        assert!(decode_key::<u64>(b"seven").is_err());
        assert!(decode_key::<String>(&[0xFF]).is_err());
        assert!(decode_key::<f64>(&[0; 8]).is_err());
        assert!(decode_key::<(String, u8)>(b"no end").is_err());
    }
}
