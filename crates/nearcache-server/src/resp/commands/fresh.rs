//! What Redis has no words for: `NC.GETFRESH`, `NC.FRESHNESS`, `NC.GETFILL`, `NC.FILL`.
//!
//! ```text
//! NC.GETFRESH key ms     the value, if it is at most so far behind the other nodes; they are asked if need be
//! NC.FRESHNESS           how far behind this node may be, in all and per peer
//! NC.GETFILL key         [value, null], or [null, token]: then load the value, and
//! NC.FILL key token v    keep it, unless the key was written or invalidated since the token was given
//! ```

use std::time::Duration;

use nearcache::{FillToken, Lookup, PutOptions, RawValue, age_ms};

use super::{
    super::error::CommandError,
    Call, Outcome, Reply,
    options::{self, Lifetime, OptionsOf},
    reply::Value,
    wait,
};
use crate::caches::RawCache;

pub(super) fn getfresh(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let age_max_ms = u64::try_from(call.integer(2)?).map_err(|_| CommandError::NotInteger)?;
    let age_max = Duration::from_millis(age_max_ms);
    let key = call.key(1)?;
    match call.database().try_get_fresh(key, age_max)? {
        Lookup::Hit(value) => call.reply.bulk(&value),
        Lookup::Miss => call.reply.null(),
        Lookup::Ask => {
            let (database, key) = (call.database().clone(), key.to_vec());
            return wait(async move {
                match database.lookup_fresh(&key[..], age_max).await? {
                    Lookup::Hit(value) => Ok(Reply::Value(value)),
                    Lookup::Miss => Ok(Reply::Null),
                    Lookup::Ask => Err(CommandError::NotFresh),
                }
            });
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn freshness(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let freshness = call.database().freshness();
    let ms = |age: Option<Duration>| age.map(|age| integer(age_ms(age).into()));
    let reply = &mut call.reply;
    reply.map(2);
    reply.bulk(b"age_ms");
    optional(reply, ms(freshness.worst));
    reply.bulk(b"peers");
    reply.array(freshness.per_peer.len());
    for peer in &freshness.per_peer {
        reply.map(6);
        reply.bulk(b"peer");
        reply.bulk(peer.peer.to_string().as_bytes());
        reply.bulk(b"age_ms");
        optional(reply, ms(peer.age));
        reply.bulk(b"round_trip_us");
        let round_trip = peer.round_trip;
        optional(reply, round_trip.map(|time| integer(time.as_micros())));
        reply.bulk(b"clock_offset_ms");
        optional(reply, peer.clock_offset_ms);
        reply.bulk(b"missing");
        reply.integer(integer(peer.missing.into()));
        reply.bulk(b"unacknowledged");
        reply.integer(integer(peer.unacknowledged.into()));
    }
    Ok(Outcome::Done)
}

fn optional(reply: &mut super::super::writer::Writer, number: Option<i64>) {
    match number {
        Some(number) => reply.integer(number),
        None => reply.null(),
    }
}

fn integer(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn getfill(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let key = call.key(1)?;
    match call.database().try_get(key)? {
        Lookup::Hit(value) => {
            call.reply.array(2);
            call.reply.bulk(&value);
            call.reply.null();
        }
        Lookup::Miss => {
            let token = call.database().begin_fill(key)?.token().to_string();
            call.reply.array(2);
            call.reply.null();
            call.reply.bulk(token.as_bytes());
        }
        Lookup::Ask => {
            let (database, key) = (call.database().clone(), key.to_vec());
            return wait(async move {
                let value = database.get(&key[..]).await?;
                found_or_token(&database, &key, value)
            });
        }
    }
    Ok(Outcome::Done)
}

fn found_or_token(
    database: &RawCache,
    key: &[u8],
    value: Option<Value>,
) -> Result<Reply, CommandError> {
    Ok(Reply::Array(match value {
        Some(value) => vec![Reply::Value(value), Reply::Null],
        None => {
            let token = database.begin_fill(key)?.token().to_string();
            vec![Reply::Null, Reply::Bytes(token.into_bytes())]
        }
    }))
}

pub(super) fn fill(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let (key, value) = (call.key(1)?, call.value(3)?);
    let token = FillToken::parse(call.args.at(2)).ok_or(CommandError::FillToken)?;
    let now_ms = call.now_ms();
    let mut put = PutOptions::new();
    let wanted = options::write_options(call.args, 4, OptionsOf::Fill, now_ms)?;
    if let Lifetime::At(at_ms) = wanted.lifetime {
        match options::future_expiry(at_ms, now_ms) {
            Some(expiry) => put = put.expires_at(expiry),
            None => {
                call.reply.integer(0);
                return Ok(Outcome::Done);
            }
        }
    }
    let database = call.database();
    let kept = match database.resume_fill(key, token)? {
        Some(fill) => fill.put(RawValue::from(value), &put)?,
        None => false,
    };
    call.reply.integer(i64::from(kept));
    Ok(Outcome::Done)
}
