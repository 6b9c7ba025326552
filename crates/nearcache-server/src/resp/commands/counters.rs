//! Counting: numbers kept as decimal text, changed at the key's home node.

use nearcache::Modify;

use super::{
    super::{error::CommandError, parser::parse_i64},
    Call, Outcome, Reply, wait,
};

pub(super) fn incr(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    add(call, 1)
}

pub(super) fn decr(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    add(call, -1)
}

pub(super) fn incrby(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let delta = call.integer(2)?;
    add(call, delta)
}

pub(super) fn decrby(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let delta = call
        .integer(2)?
        .checked_neg()
        .ok_or(CommandError::DecrementWouldOverflow)?;
    add(call, delta)
}

fn add(call: &Call<'_>, delta: i64) -> Result<Outcome, CommandError> {
    let modified = call.database().modify(call.key(1)?, Modify::add(delta));
    wait(async move {
        let current = modified.await?.current;
        let sum = current.as_ref().and_then(|value| parse_i64(value));
        // The sum is gone only if it was changed again, or had to make room, meanwhile.
        sum.map(Reply::Integer)
            .ok_or(CommandError::Other("the counter was evicted at once"))
    })
}
