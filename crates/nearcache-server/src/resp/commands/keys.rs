//! Commands on keys, whatever they hold.

use nearcache::Lookup;

use super::{super::error::CommandError, Call, Outcome, Reply, strings, wait};

pub(super) fn del(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    for index in 1..call.args.len() {
        call.key(index)?;
    }
    let mut removed = 0;
    for key in call.args.from(1) {
        match call.database().remove_now(key) {
            Ok(was_there) => removed += usize::from(was_there),
            Err(nearcache::WriteError::Superseded { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    call.reply.count(removed);
    Ok(Outcome::Done)
}

pub(super) fn exists(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    for index in 1..call.args.len() {
        call.key(index)?;
    }
    let mut existing = 0;
    for key in call.args.from(1) {
        match call.database().try_get(key)? {
            Lookup::Hit(_) => existing += 1,
            Lookup::Miss => {}
            // Its value is elsewhere, which nobody asked for.
            Lookup::Ask if call.database().about(key)?.is_some() => existing += 1,
            Lookup::Ask => return exists_elsewhere(call),
        }
    }
    call.reply.integer(existing);
    Ok(Outcome::Done)
}

/// A read keeps the entry from making room, which is all there is to `TOUCH`.
pub(super) fn touch(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    exists(call)
}

/// `EXISTS` while this node is being filled: what it lacks is asked of a peer.
fn exists_elsewhere(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let database = call.database().clone();
    let keys: Vec<Vec<u8>> = call.args.from(1).map(<[u8]>::to_vec).collect();
    wait(async move {
        let mut existing = 0;
        for key in &keys {
            existing += i64::from(database.get(&key[..]).await?.is_some());
        }
        Ok(Reply::Integer(existing))
    })
}

pub(super) fn type_of(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let key = call.key(1)?;
    if call
        .database()
        .about(key)?
        .is_some_and(|about| !about.is_here)
    {
        call.reply.simple("string");
        return Ok(Outcome::Done);
    }
    strings::read(
        call,
        1,
        |call, value| {
            call.reply
                .simple(if value.is_some() { "string" } else { "none" })
        },
        |value| Reply::Simple(if value.is_some() { "string" } else { "none" }),
    )
}
