//! Reading values, and writing several of them.

use nearcache::{Expiry, Lookup, Modify, RawValue};

use super::{
    super::error::CommandError,
    Call, Outcome, Reply,
    options::{self, Lifetime, OptionsOf},
    reply::Value,
    wait,
};

/// What the cache holds under `key`; `ask` is run if only another node can tell.
pub(super) fn read(
    call: &mut Call<'_>,
    index: usize,
    found: fn(&mut Call<'_>, Option<&Value>),
    answer: fn(Option<Value>) -> Reply,
) -> Result<Outcome, CommandError> {
    let key = call.key(index)?;
    match call.database().try_get(key)? {
        Lookup::Hit(value) => found(call, Some(&value)),
        Lookup::Miss => found(call, None),
        Lookup::Ask => {
            let (database, key) = (call.database().clone(), key.to_vec());
            return wait(async move { Ok(answer(database.get(&key[..]).await?)) });
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn get(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    read(
        call,
        1,
        |call, value| match value {
            Some(value) => call.reply.bulk(value),
            None => call.reply.null(),
        },
        Reply::value,
    )
}

pub(super) fn strlen(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    fn len(value: Option<&Value>) -> i64 {
        value.map_or(0, |value| i64::try_from(value.len()).unwrap_or(i64::MAX))
    }
    let key = call.key(1)?;
    if let Some(about) = call.database().about(key)?.filter(|about| !about.is_here) {
        // Its length is known without it.
        let len = i64::try_from(about.value_bytes).unwrap_or(i64::MAX);
        call.reply.integer(len);
        return Ok(Outcome::Done);
    }
    read(
        call,
        1,
        |call, value| call.reply.integer(len(value)),
        |value| Reply::Integer(len(value.as_ref())),
    )
}

pub(super) fn getrange(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let (start, end) = (call.integer(2)?, call.integer(3)?);
    let key = call.key(1)?;
    match call.database().try_get(key)? {
        Lookup::Hit(value) => call.reply.bulk(range(&value, start, end)),
        Lookup::Miss => call.reply.bulk(b""),
        Lookup::Ask => {
            let (database, key) = (call.database().clone(), key.to_vec());
            return wait(async move {
                let value = database.get(&key[..]).await?;
                Ok(Reply::Bytes(
                    value
                        .map(|value| range(&value, start, end).to_vec())
                        .unwrap_or_default(),
                ))
            });
        }
    }
    Ok(Outcome::Done)
}

/// The bytes from `start` to `end`, both included; negative ones count from the end.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    let len = i64::try_from(value.len()).unwrap_or(i64::MAX);
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let from_front = |at: i64| {
        if at < 0 {
            at.saturating_add(len).max(0)
        } else {
            at
        }
    };
    let (start, end) = (from_front(start), from_front(end).min(len - 1));
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) => value.get(start..=end).unwrap_or_default(),
        _ => &[],
    }
}

pub(super) fn mget(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    for index in 1..call.args.len() {
        call.key(index)?;
    }
    let start = call.reply.mark();
    call.reply.array(call.args.len() - 1);
    for key in call.args.from(1) {
        match call.database().try_get(key)? {
            Lookup::Hit(value) => call.reply.bulk(&value),
            Lookup::Miss => call.reply.null(),
            Lookup::Ask => {
                call.reply.take_back(start);
                return mget_elsewhere(call);
            }
        }
        call.check_output()?;
    }
    Ok(Outcome::Done)
}

/// `MGET` while this node is being filled: what it lacks is asked of a peer.
fn mget_elsewhere(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let database = call.database().clone();
    let keys: Vec<Vec<u8>> = call.args.from(1).map(<[u8]>::to_vec).collect();
    wait(async move {
        let mut values = Vec::with_capacity(keys.len());
        for key in &keys {
            values.push(Reply::value(database.get(&key[..]).await?));
        }
        Ok(Reply::Array(values))
    })
}

pub(super) fn mset(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    if call.args.len().is_multiple_of(2) {
        return Err(CommandError::Arity { name: "mset" });
    }
    let pairs = 1..call.args.len();
    for index in pairs.clone().step_by(2) {
        call.key(index)?;
        call.value(index + 1)?;
    }
    let options = nearcache::PutOptions::new();
    for index in pairs.step_by(2) {
        let (key, value) = (call.args.at(index), RawValue::from(call.args.at(index + 1)));
        call.database()
            .put_now(key, value, &options)
            .or_else(super::set::superseded)?;
    }
    call.reply.ok();
    Ok(Outcome::Done)
}

pub(super) fn getdel(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let change = Modify::remove().return_previous();
    let modified = call.database().modify(call.key(1)?, change);
    wait(async move { Ok(Reply::value(modified.await?.previous)) })
}

pub(super) fn getex(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let now_ms = call.now_ms();
    let options = options::write_options(call.args, 2, OptionsOf::GetEx, now_ms)?;
    let change = match options.lifetime {
        Lifetime::Unsaid | Lifetime::Keep => return get(call),
        Lifetime::Persist => Modify::expire_at(Expiry::NEVER),
        Lifetime::At(at_ms) => match options::future_expiry(at_ms, now_ms) {
            Some(expiry) => Modify::expire_at(expiry),
            None => Modify::remove(),
        },
    };
    let modified = call
        .database()
        .modify(call.key(1)?, change.return_previous());
    wait(async move { Ok(Reply::value(modified.await?.previous)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_the_ends_of_the_value() {
        let value = b"This is a string";
        assert_eq!(range(value, 0, 3), b"This");
        assert_eq!(range(value, -3, -1), b"ing");
        assert_eq!(range(value, 0, -1), value);
        assert_eq!(range(value, 10, 100), b"string");
        for (start, end) in [(5, 3), (-1, -5), (100, 200), (i64::MAX, i64::MIN)] {
            assert_eq!(range(value, start, end), b"");
        }
        assert_eq!(range(b"", 0, 0), b"");
        assert_eq!(range(b"ab", i64::MIN, i64::MAX), b"ab");
    }
}
