//! `SET` and the older commands it took over.
//!
//! A set without a condition is a plain write, applied here at once. One that depends on what the
//! key holds is decided at the key's home node.

use nearcache::{Condition, Expiry, Modify, PutOptions, RawValue, WriteError};

use super::{
    super::error::CommandError,
    Call, Outcome, Reply,
    options::{self, Lifetime, OptionsOf, TimeBase, TimeUnit, WriteOptions},
    wait,
};

pub(super) fn set(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let options = if call.args.len() == 3 {
        WriteOptions::default()
    } else {
        options::write_options(call.args, 3, OptionsOf::Set, call.now_ms())?
    };
    let is_plain = !options.only_if_absent
        && !options.only_if_present
        && !options.return_previous
        && options.lifetime != Lifetime::Keep;
    if is_plain {
        write(call, 2, options.lifetime)?;
        call.reply.ok();
        return Ok(Outcome::Done);
    }
    let modified = conditional(call, 2, options)?;
    let returns_previous = options.return_previous;
    wait(async move {
        let modified = modified.await?;
        Ok(match (returns_previous, modified.applied) {
            (true, _) => Reply::value(modified.previous),
            (false, true) => Reply::Ok,
            (false, false) => Reply::Null,
        })
    })
}

pub(super) fn setnx(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let options = WriteOptions {
        only_if_absent: true,
        ..WriteOptions::default()
    };
    let modified = conditional(call, 2, options)?;
    wait(async move { Ok(Reply::flag(modified.await?.applied)) })
}

pub(super) fn getset(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let options = WriteOptions {
        return_previous: true,
        ..WriteOptions::default()
    };
    let modified = conditional(call, 2, options)?;
    wait(async move { Ok(Reply::value(modified.await?.previous)) })
}

pub(super) fn setex(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    set_for(call, TimeUnit::Seconds)
}

pub(super) fn psetex(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    set_for(call, TimeUnit::Milliseconds)
}

fn set_for(call: &mut Call<'_>, unit: TimeUnit) -> Result<Outcome, CommandError> {
    let (text, now_ms) = (call.args.at(2), call.now_ms());
    let at_ms = options::positive_time(text, unit, TimeBase::Now, now_ms, call.command.name)?;
    write(call, 3, Lifetime::At(at_ms))?;
    call.reply.ok();
    Ok(Outcome::Done)
}

/// Writes the value in argument `value_index` under the key in argument 1.
fn write(call: &Call<'_>, value_index: usize, lifetime: Lifetime) -> Result<(), CommandError> {
    let (key, value) = (call.key(1)?, call.value(value_index)?);
    let mut options = PutOptions::new();
    if let Lifetime::At(at_ms) = lifetime {
        // One that is over makes the write a removal.
        options = options.expires_at(Expiry::at_millis(u64::try_from(at_ms).unwrap_or(0)));
    }
    call.database()
        .put_now(key, RawValue::from(value), &options)
        .or_else(superseded)?;
    Ok(())
}

/// A write that lost to a newer one of another node was overwritten in the same instant: to its
/// client that is success.
pub(super) fn superseded(error: WriteError) -> Result<nearcache::Version, WriteError> {
    match error {
        WriteError::Superseded { .. } => Ok(nearcache::Version::ZERO),
        other => Err(other),
    }
}

/// A set that the key's home node decides.
fn conditional(
    call: &Call<'_>,
    value_index: usize,
    options: WriteOptions,
) -> Result<
    impl Future<Output = Result<nearcache::Modified<RawValue, nearcache::Raw>, nearcache::ModifyError>>
    + Send
    + use<>,
    CommandError,
> {
    let (key, value) = (call.key(1)?, call.value(value_index)?);
    let mut change = Modify::set(RawValue::from(value));
    if options.only_if_absent {
        change = change.only_if(Condition::IfAbsent);
    } else if options.only_if_present {
        change = change.only_if(Condition::IfPresent);
    }
    change = match options.lifetime {
        Lifetime::Unsaid | Lifetime::Persist => change,
        Lifetime::Keep => change.keep_expiry(),
        // One that is over makes the write a removal.
        Lifetime::At(at_ms) => {
            change.expires_at(Expiry::at_millis(u64::try_from(at_ms).unwrap_or(0)))
        }
    };
    if options.return_previous {
        change = change.return_previous();
    }
    Ok(call.database().modify(key, change))
}
