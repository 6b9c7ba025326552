//! Loads through the home node ↔ bytes.

use bytes::{BufMut, BytesMut};

use super::WireError;
use super::entries::{self, put_len16, put_update};
use super::kind;
use super::reader::Reader;
use crate::frame::Kind;
use crate::load::lease::{Answer, LoadMessage};
use crate::payload::Payload;

pub(super) fn put<V: Payload>(message: &LoadMessage<V>, out: &mut BytesMut) {
    match message {
        LoadMessage::Ask {
            wait_ms,
            lease_ms,
            known,
            tags,
            key,
        } => {
            out.put_u32(*wait_ms);
            out.put_u32(*lease_ms);
            out.put_slice(&known.to_bytes());
            out.put_slice(&tags.to_bytes());
            put_len16(key, out);
            out.put_slice(key);
        }
        LoadMessage::Answer(answer) => match answer {
            Answer::Yours { key } => {
                out.put_u8(0);
                put_len16(key, out);
                out.put_slice(key);
            }
            Answer::Wait => out.put_u8(1),
            Answer::Loaded(update) => {
                out.put_u8(2);
                put_update(update, out);
            }
            Answer::NotHome => out.put_u8(3),
            Answer::Overloaded => out.put_u8(4),
        },
        LoadMessage::End { key, update } => {
            put_len16(key, out);
            out.put_slice(key);
            out.put_u8(u8::from(update.is_some()));
            if let Some(update) = update {
                put_update(update, out);
            }
        }
    }
}

/// The message of this kind; nothing if the kind is none of these.
pub(super) fn read<V: Payload>(
    of: Kind,
    reader: &mut Reader<'_>,
) -> Result<Option<LoadMessage<V>>, WireError> {
    Ok(Some(match of {
        kind::LOAD_ASK => {
            let (wait_ms, lease_ms) = (reader.u32()?, reader.u32()?);
            let (known, tags) = (reader.version()?, reader.version()?);
            let len = reader.len16()?;
            LoadMessage::Ask {
                wait_ms,
                lease_ms,
                known,
                tags,
                key: reader.shared(len)?,
            }
        }
        kind::LOAD_ANSWER => LoadMessage::Answer(match reader.u8()? {
            0 => {
                let len = reader.len16()?;
                Answer::Yours {
                    key: reader.shared(len)?,
                }
            }
            1 => Answer::Wait,
            2 => Answer::Loaded(entries::update(reader)?),
            3 => Answer::NotHome,
            4 => Answer::Overloaded,
            _ => return Err(WireError::Invalid { field: "answer" }),
        }),
        kind::LOAD_END => {
            let len = reader.len16()?;
            let key = reader.shared(len)?;
            let update = reader
                .bool("stored")?
                .then(|| entries::update(reader))
                .transpose()?;
            LoadMessage::End { key, update }
        }
        _ => return Ok(None),
    }))
}
