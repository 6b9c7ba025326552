//! When entries expire: asking, setting, taking away.
//!
//! Times are cluster time, which is wall-clock time as the cluster counts it. Setting is decided at
//! the key's home node, all its conditions included; a time that is over removes the key, as Redis has it.

use nearcache::{ExpireCondition, Expiry, Lookup, Modify};

use super::{
    super::error::{CommandError, quoted},
    Call, Outcome, Reply,
    options::{self, TimeBase, TimeUnit},
    wait,
};

/// Reply for a key that is not there, and for one that does not expire.
const NO_KEY: i64 = -2;
const NO_EXPIRY: i64 = -1;

pub(super) fn ttl(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    ask(call, |remaining_ms, _| rounded_seconds(remaining_ms))
}

pub(super) fn pttl(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    ask(call, |remaining_ms, _| remaining_ms)
}

pub(super) fn expiretime(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    ask(call, |_, at_ms| rounded_seconds(at_ms))
}

pub(super) fn pexpiretime(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    ask(call, |_, at_ms| at_ms)
}

fn rounded_seconds(ms: i64) -> i64 {
    ms.saturating_add(500) / 1_000
}

/// Replies with what `show` makes of the time remaining and the time of expiry, both in ms.
fn ask(call: &mut Call<'_>, show: fn(i64, i64) -> i64) -> Result<Outcome, CommandError> {
    let now_ms = call.now_ms();
    let key = call.key(1)?;
    let shown = move |expiry: Option<Expiry>| match expiry {
        None => NO_KEY,
        Some(expiry) if expiry.is_never() => NO_EXPIRY,
        Some(expiry) => {
            let at_ms = expiry.as_millis();
            let clamped = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
            show(clamped(at_ms.saturating_sub(now_ms)), clamped(at_ms))
        }
    };
    match call.database().try_get(key)? {
        Lookup::Hit(value) => call.reply.integer(shown(Some(value.expiry()))),
        Lookup::Miss => call.reply.integer(NO_KEY),
        Lookup::Ask => {
            if let Some(about) = call.database().about(key)? {
                call.reply.integer(shown(Some(about.expiry)));
                return Ok(Outcome::Done);
            }
            let (database, key) = (call.database().clone(), key.to_vec());
            return wait(async move {
                let value = database.get(&key[..]).await?;
                Ok(Reply::Integer(shown(value.map(|value| value.expiry()))))
            });
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn expire(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    set(call, TimeUnit::Seconds, TimeBase::Now)
}

pub(super) fn pexpire(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    set(call, TimeUnit::Milliseconds, TimeBase::Now)
}

pub(super) fn expireat(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    set(call, TimeUnit::Seconds, TimeBase::UnixEpoch)
}

pub(super) fn pexpireat(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    set(call, TimeUnit::Milliseconds, TimeBase::UnixEpoch)
}

fn set(call: &mut Call<'_>, unit: TimeUnit, base: TimeBase) -> Result<Outcome, CommandError> {
    let now_ms = call.now_ms();
    let conditions = Conditions::read(call)?;
    let amount = call.integer(2)?;
    let at_ms =
        options::absolute_ms(amount, unit, base, now_ms).ok_or(CommandError::ExpireTime {
            command: call.command.name,
        })?;
    // A time that is over by this node's clock is over by the home's as well: the entry is removed there,
    // if the conditions hold there.
    let expiry = options::future_expiry(at_ms, now_ms).unwrap_or(Expiry::at_millis(0));
    let change = Modify::expire_at(expiry).only_if_expiry(conditions.as_one());
    let modified = call.database().modify(call.key(1)?, change);
    wait(async move { Ok(Reply::flag(modified.await?.applied)) })
}

pub(super) fn persist(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let change = Modify::expire_at(Expiry::NEVER).only_if_expiry(ExpireCondition::IfSome);
    let modified = call.database().modify(call.key(1)?, change);
    wait(async move { Ok(Reply::flag(modified.await?.applied)) })
}

/// `NX`, `XX`, `GT`, `LT` of the commands that set an expiry.
#[derive(Debug, Clone, Copy, Default)]
struct Conditions {
    none: bool,
    some: bool,
    greater: bool,
    less: bool,
}

impl Conditions {
    /// Reads them from the third argument on.
    fn read(call: &Call<'_>) -> Result<Self, CommandError> {
        let mut conditions = Self::default();
        for word in call.args.from(3) {
            let names: [(&[u8], &mut bool); 4] = [
                (b"NX", &mut conditions.none),
                (b"XX", &mut conditions.some),
                (b"GT", &mut conditions.greater),
                (b"LT", &mut conditions.less),
            ];
            match names
                .into_iter()
                .find(|(name, _)| word.eq_ignore_ascii_case(name))
            {
                Some((_, flag)) => *flag = true,
                None => {
                    return Err(CommandError::UnsupportedOption {
                        option: quoted(word, 128),
                    });
                }
            }
        }
        if conditions.none && (conditions.some || conditions.greater || conditions.less) {
            return Err(CommandError::NxWithOthers);
        }
        if conditions.greater && conditions.less {
            return Err(CommandError::GtWithLt);
        }
        Ok(conditions)
    }

    /// All of them as the home node judges them. An entry without an expiry never passes `GT`, so
    /// `XX GT` asks no more than `GT`.
    fn as_one(self) -> ExpireCondition {
        match (self.none, self.some, self.greater, self.less) {
            (true, ..) => ExpireCondition::IfNone,
            (_, _, true, _) => ExpireCondition::IfGreater,
            (_, true, _, true) => ExpireCondition::IfSomeAndLess,
            (_, false, _, true) => ExpireCondition::IfLess,
            (_, true, _, false) => ExpireCondition::IfSome,
            (_, false, _, false) => ExpireCondition::Always,
        }
    }
}
