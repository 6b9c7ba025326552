//! Read-modify-write requests and their answers ↔ bytes.

use bytes::{BufMut, BytesMut};
use nearcache_store::Tags;

use super::WireError;
use super::entries::{self, put_tags, put_update};
use super::reader::Reader;
use crate::message::ModifiedAt;
use crate::modify::{Condition, ExpireCondition, ModifyError, ModifyOp, NewExpiry};
use crate::payload::{CodecTag, Payload};
use crate::update::Update;

pub(super) fn put_op<V: Payload>(op: &ModifyOp<V>, out: &mut BytesMut) {
    match op {
        ModifyOp::Set {
            condition,
            value,
            expiry,
            tags,
            return_previous,
        } => {
            out.put_u8(0);
            put_condition(condition, out);
            put_expiry(*expiry, out);
            out.put_u8(u8::from(*return_previous));
            put_tags(tags, out);
            let (codec, bytes) = (value.codec(), value.bytes());
            out.put_u16(codec.codec);
            out.put_u16(codec.schema);
            out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            out.put_slice(bytes);
        }
        ModifyOp::Remove {
            condition,
            return_previous,
        } => {
            out.put_u8(1);
            put_condition(condition, out);
            out.put_u8(u8::from(*return_previous));
        }
        ModifyOp::Expire {
            expiry,
            condition,
            return_previous,
        } => {
            out.put_u8(2);
            put_expiry(*expiry, out);
            out.put_u8(match condition {
                ExpireCondition::Always => 0,
                ExpireCondition::IfNone => 1,
                ExpireCondition::IfSome => 2,
                ExpireCondition::IfGreater => 3,
                ExpireCondition::IfLess => 4,
                ExpireCondition::IfSomeAndLess => 5,
            });
            out.put_u8(u8::from(*return_previous));
        }
        ModifyOp::Add { delta } => {
            out.put_u8(3);
            out.put_i64(*delta);
        }
    }
}

pub(super) fn op<V: Payload>(reader: &mut Reader<'_>) -> Result<ModifyOp<V>, WireError> {
    match reader.u8()? {
        0 => {
            let condition = condition(reader)?;
            let expiry = expiry(reader)?;
            let return_previous = reader.bool("return_previous")?;
            let tags: Tags = entries::tags(reader)?;
            let codec = CodecTag {
                codec: reader.u16()?,
                schema: reader.u16()?,
            };
            let len = reader.len32()?;
            let value = V::from_wire(codec, reader.slice(len)?);
            Ok(ModifyOp::Set {
                condition,
                value,
                expiry,
                tags,
                return_previous,
            })
        }
        1 => Ok(ModifyOp::Remove {
            condition: condition(reader)?,
            return_previous: reader.bool("return_previous")?,
        }),
        2 => {
            let expiry = expiry(reader)?;
            let condition = match reader.u8()? {
                0 => ExpireCondition::Always,
                1 => ExpireCondition::IfNone,
                2 => ExpireCondition::IfSome,
                3 => ExpireCondition::IfGreater,
                4 => ExpireCondition::IfLess,
                5 => ExpireCondition::IfSomeAndLess,
                _ => {
                    return Err(WireError::Invalid {
                        field: "condition of an expire",
                    });
                }
            };
            Ok(ModifyOp::Expire {
                expiry,
                condition,
                return_previous: reader.bool("return_previous")?,
            })
        }
        3 => Ok(ModifyOp::Add {
            delta: i64::from_be_bytes(reader.u64()?.to_be_bytes()),
        }),
        _ => Err(WireError::Invalid { field: "modify" }),
    }
}

pub(super) fn put_result<V: Payload>(
    result: &Result<ModifiedAt<V>, ModifyError>,
    out: &mut BytesMut,
) {
    match result {
        Ok(modified) => {
            let has = |update: &Option<Update<V>>, bit: u8| if update.is_some() { bit } else { 0 };
            out.put_u8(0);
            out.put_u8(
                u8::from(modified.applied) | has(&modified.previous, 2) | has(&modified.current, 4),
            );
            for update in [&modified.previous, &modified.current]
                .into_iter()
                .flatten()
            {
                put_update(update, out);
            }
        }
        Err(error) => out.put_u8(match error {
            ModifyError::NotAnInteger => 1,
            ModifyError::Overflow => 2,
            ModifyError::TooLarge | ModifyError::TooLargeForHome { .. } => 3,
            ModifyError::ClockSkew => 4,
            ModifyError::NotHome => 5,
            ModifyError::Overloaded => 6,
            ModifyError::HomeUnreachable => 7,
            ModifyError::Indeterminate => 8,
        }),
    }
}

pub(super) fn result<V: Payload>(
    reader: &mut Reader<'_>,
) -> Result<Result<ModifiedAt<V>, ModifyError>, WireError> {
    let error = match reader.u8()? {
        0 => {
            let flags = reader.u8()?;
            if flags > 7 {
                return Err(WireError::Invalid {
                    field: "flags of a modified",
                });
            }
            let previous = (flags & 2 != 0)
                .then(|| entries::update(reader))
                .transpose()?;
            let current = (flags & 4 != 0)
                .then(|| entries::update(reader))
                .transpose()?;
            return Ok(Ok(ModifiedAt {
                applied: flags & 1 != 0,
                previous,
                current,
            }));
        }
        1 => ModifyError::NotAnInteger,
        2 => ModifyError::Overflow,
        3 => ModifyError::TooLarge,
        4 => ModifyError::ClockSkew,
        5 => ModifyError::NotHome,
        6 => ModifyError::Overloaded,
        7 => ModifyError::HomeUnreachable,
        8 => ModifyError::Indeterminate,
        _ => {
            return Err(WireError::Invalid {
                field: "result of a modify",
            });
        }
    };
    Ok(Err(error))
}

fn put_condition(condition: &Condition, out: &mut BytesMut) {
    match condition {
        Condition::Always => out.put_u8(0),
        Condition::IfAbsent => out.put_u8(1),
        Condition::IfPresent => out.put_u8(2),
        Condition::IfVersion(version) => {
            out.put_u8(3);
            out.put_slice(&version.to_bytes());
        }
    }
}

fn condition(reader: &mut Reader<'_>) -> Result<Condition, WireError> {
    match reader.u8()? {
        0 => Ok(Condition::Always),
        1 => Ok(Condition::IfAbsent),
        2 => Ok(Condition::IfPresent),
        3 => Ok(Condition::IfVersion(reader.version()?)),
        _ => Err(WireError::Invalid { field: "condition" }),
    }
}

fn put_expiry(expiry: NewExpiry, out: &mut BytesMut) {
    match expiry {
        NewExpiry::Keep => out.put_u8(0),
        NewExpiry::Never => out.put_u8(1),
        NewExpiry::At(millis) => {
            out.put_u8(2);
            out.put_u64(millis);
        }
    }
}

fn expiry(reader: &mut Reader<'_>) -> Result<NewExpiry, WireError> {
    match reader.u8()? {
        0 => Ok(NewExpiry::Keep),
        1 => Ok(NewExpiry::Never),
        2 => Ok(NewExpiry::At(reader.u64()?)),
        _ => Err(WireError::Invalid { field: "expiry" }),
    }
}
