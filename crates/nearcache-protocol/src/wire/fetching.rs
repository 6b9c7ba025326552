//! Messages of the fetch of a long value ↔ bytes.

use bytes::{BufMut, BytesMut};

use super::reader::Reader;
use super::{WireError, entries, kind};
use crate::fetching::{Fetching, Piece};
use crate::frame::Kind;
use crate::payload::Payload;

pub(super) fn put<V: Payload>(message: &Fetching<V>, out: &mut BytesMut) {
    match message {
        Fetching::Ask {
            key,
            version,
            from_byte,
        } => {
            out.put_slice(&version.to_bytes());
            out.put_u32(*from_byte);
            entries::put_len16(key, out);
            out.put_slice(key);
        }
        Fetching::Piece { at, bytes } => {
            let bytes = bytes.bytes();
            out.put_u32(*at);
            out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            out.put_slice(bytes);
        }
        Fetching::Refused { known } => entries::put_optional_update(known.as_ref(), out),
        Fetching::Stop => {}
        Fetching::Keep {
            key,
            version,
            fetch,
        } => {
            out.put_slice(&version.to_bytes());
            out.put_u8(u8::from(*fetch));
            entries::put_len16(key, out);
            out.put_slice(key);
        }
        Fetching::Kept { held } => out.put_u8(u8::from(*held)),
    }
}

pub(super) fn read<V: Payload>(
    kind: Kind,
    reader: &mut Reader<'_>,
) -> Result<Fetching<V>, WireError> {
    Ok(match kind {
        kind::FETCH => {
            let (version, from_byte) = (reader.version()?, reader.u32()?);
            let len = reader.len16()?;
            Fetching::Ask {
                key: reader.shared(len)?,
                version,
                from_byte,
            }
        }
        kind::FETCH_PIECE => {
            let at = reader.u32()?;
            let len = reader.len32()?;
            Fetching::Piece {
                at,
                bytes: Piece::Arrived(reader.shared(len)?),
            }
        }
        kind::FETCH_REFUSED => Fetching::Refused {
            known: entries::optional_update(reader)?,
        },
        kind::FETCH_KEEP => {
            let (version, fetch) = (reader.version()?, reader.bool("fetch")?);
            let len = reader.len16()?;
            Fetching::Keep {
                key: reader.shared(len)?,
                version,
                fetch,
            }
        }
        kind::FETCH_KEPT => Fetching::Kept {
            held: reader.bool("held")?,
        },
        _ => Fetching::Stop,
    })
}
