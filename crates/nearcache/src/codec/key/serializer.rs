//! Writes the canonical bytes of a key while serde walks it.
//!
//! The serializer is a cursor over one buffer plus a mark whether it still stands at the top
//! level, where text and bytes go in raw. Each step answers whether it wrote a lone `u8`: by that
//! a sequence at the top level learns from its first element that the key is bytes.

use serde::{Serialize, Serializer, ser};

use super::{KeyBuffer, KeyError};

/// Where in the key the serializer stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The whole key: text and bytes are the key.
    Top,
    /// Inside a composite: everything is self-delimiting.
    Inside,
}

/// Appends one value to the buffer.
pub(super) struct KeySerializer<'a> {
    out: &'a mut KeyBuffer,
    place: Place,
}

impl<'a> KeySerializer<'a> {
    /// Starts a key.
    pub(super) fn top(out: &'a mut KeyBuffer) -> Self {
        Self {
            out,
            place: Place::Top,
        }
    }

    fn inside(out: &'a mut KeyBuffer) -> Self {
        Self {
            out,
            place: Place::Inside,
        }
    }

    /// Appends text or bytes: raw at the top, escaped and ended elsewhere.
    fn put_bytes(self, bytes: &[u8]) {
        if self.place == Place::Top {
            self.out.extend_from_slice(bytes);
            return;
        }
        for &byte in bytes {
            self.out.push(byte);
            if byte == 0 {
                self.out.push(0xFF);
            }
        }
        self.out.extend_from_slice(&[0, 0]);
    }

    fn put_variant(&mut self, index: u32) {
        self.out.extend_from_slice(&index.to_be_bytes());
    }
}

macro_rules! unsigned {
    ($($method:ident: $number:ty),+) => {$(
        fn $method(self, value: $number) -> Result<bool, KeyError> {
            self.out.extend_from_slice(&value.to_be_bytes());
            Ok(false)
        }
    )+};
}

macro_rules! signed {
    ($($method:ident: $number:ty as $bits:ty),+) => {$(
        fn $method(self, value: $number) -> Result<bool, KeyError> {
            let flipped = value.cast_unsigned() ^ (1 << (<$bits>::BITS - 1));
            self.out.extend_from_slice(&flipped.to_be_bytes());
            Ok(false)
        }
    )+};
}

impl<'a> Serializer for KeySerializer<'a> {
    type Ok = bool;
    type Error = KeyError;
    type SerializeSeq = Sequence<'a>;
    type SerializeTuple = Fields<'a>;
    type SerializeTupleStruct = Fields<'a>;
    type SerializeTupleVariant = Fields<'a>;
    type SerializeMap = ser::Impossible<bool, KeyError>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    fn serialize_u8(self, value: u8) -> Result<bool, KeyError> {
        self.out.push(value);
        Ok(true)
    }

    unsigned!(serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128);
    signed!(serialize_i8: i8 as u8, serialize_i16: i16 as u16, serialize_i32: i32 as u32,
        serialize_i64: i64 as u64, serialize_i128: i128 as u128);

    fn serialize_bool(self, value: bool) -> Result<bool, KeyError> {
        self.out.push(u8::from(value));
        Ok(false)
    }

    fn serialize_f32(self, _: f32) -> Result<bool, KeyError> {
        Err(KeyError::Unsupported { what: "a float" })
    }

    fn serialize_f64(self, _: f64) -> Result<bool, KeyError> {
        Err(KeyError::Unsupported { what: "a float" })
    }

    fn serialize_char(self, value: char) -> Result<bool, KeyError> {
        self.serialize_u32(u32::from(value))
    }

    fn serialize_str(self, value: &str) -> Result<bool, KeyError> {
        self.put_bytes(value.as_bytes());
        Ok(false)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<bool, KeyError> {
        self.put_bytes(value);
        Ok(false)
    }

    fn serialize_none(self) -> Result<bool, KeyError> {
        self.out.push(0);
        Ok(false)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<bool, KeyError> {
        self.out.push(1);
        value
            .serialize(KeySerializer::inside(self.out))
            .map(|_| false)
    }

    fn serialize_unit(self) -> Result<bool, KeyError> {
        Ok(false)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<bool, KeyError> {
        Ok(false)
    }

    fn serialize_unit_variant(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<bool, KeyError> {
        self.put_variant(index);
        Ok(false)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<bool, KeyError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<bool, KeyError> {
        self.put_variant(index);
        value
            .serialize(KeySerializer::inside(self.out))
            .map(|_| false)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Sequence<'a>, KeyError> {
        let framing = match self.place {
            Place::Top => Framing::Undecided,
            Place::Inside => Framing::Framed,
        };
        Ok(Sequence {
            out: self.out,
            framing,
        })
    }

    fn serialize_tuple(self, _: usize) -> Result<Fields<'a>, KeyError> {
        Ok(Fields { out: self.out })
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, KeyError> {
        Ok(Fields { out: self.out })
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, KeyError> {
        self.put_variant(index);
        Ok(Fields { out: self.out })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, KeyError> {
        Err(KeyError::Unsupported { what: "a map" })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, KeyError> {
        Ok(Fields { out: self.out })
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, KeyError> {
        self.put_variant(index);
        Ok(Fields { out: self.out })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The fields of a struct, tuple or variant, one after the other.
pub(super) struct Fields<'a> {
    out: &'a mut KeyBuffer,
}

impl Fields<'_> {
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        value.serialize(KeySerializer::inside(self.out)).map(drop)
    }
}

macro_rules! fields {
    ($($kind:ident::$method:ident),+) => {$(
        impl ser::$kind for Fields<'_> {
            type Ok = bool;
            type Error = KeyError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
                self.put(value)
            }

            fn end(self) -> Result<bool, KeyError> {
                Ok(false)
            }
        }
    )+};
}

fields!(
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! named_fields {
    ($($kind:ident),+) => {$(
        impl ser::$kind for Fields<'_> {
            type Ok = bool;
            type Error = KeyError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), KeyError> {
                self.put(value)
            }

            fn end(self) -> Result<bool, KeyError> {
                Ok(false)
            }
        }
    )+};
}

named_fields!(SerializeStruct, SerializeStructVariant);

/// How the elements of a sequence are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// At the top level, before the first element.
    Undecided,
    /// At the top level, and the first element was a byte: the key is bytes.
    Raw,
    /// Each element is preceded by 1, the end is 0.
    Framed,
}

/// The elements of a sequence.
pub(super) struct Sequence<'a> {
    out: &'a mut KeyBuffer,
    framing: Framing,
}

impl ser::SerializeSeq for Sequence<'_> {
    type Ok = bool;
    type Error = KeyError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        let start = self.out.len();
        if self.framing != Framing::Raw {
            self.out.push(1);
        }
        let is_byte = value.serialize(KeySerializer::inside(self.out))?;
        match (self.framing, is_byte) {
            (Framing::Undecided, true) => {
                self.out.remove(start);
                self.framing = Framing::Raw;
            }
            (Framing::Undecided, false) => self.framing = Framing::Framed,
            (Framing::Raw, false) => {
                return Err(KeyError::Unsupported {
                    what: "a sequence of mixed types",
                });
            }
            (Framing::Raw, true) | (Framing::Framed, _) => {}
        }
        Ok(())
    }

    fn end(self) -> Result<bool, KeyError> {
        if self.framing == Framing::Framed {
            self.out.push(0);
        }
        Ok(false)
    }
}
