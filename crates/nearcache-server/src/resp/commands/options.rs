//! Times and options as arguments spell them.

use nearcache::Expiry;

use super::super::{
    error::CommandError,
    parser::{Args, parse_i64},
};

/// How a time argument counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Seconds,
    Milliseconds,
}

/// From when a time argument counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeBase {
    Now,
    UnixEpoch,
}

/// The absolute time in ms since the Unix epoch that `amount` names; may lie in the past. `None` if
/// it is beyond what 64 bits hold.
pub(super) fn absolute_ms(amount: i64, unit: TimeUnit, base: TimeBase, now_ms: u64) -> Option<i64> {
    let amount_ms = match unit {
        TimeUnit::Seconds => amount.checked_mul(1_000)?,
        TimeUnit::Milliseconds => amount,
    };
    match base {
        TimeBase::Now => amount_ms.checked_add(i64::try_from(now_ms).ok()?),
        TimeBase::UnixEpoch => Some(amount_ms),
    }
}

/// `at_ms` as an expiry, unless it is not after `now_ms`.
pub(super) fn future_expiry(at_ms: i64, now_ms: u64) -> Option<Expiry> {
    u64::try_from(at_ms)
        .ok()
        .filter(|&at_ms| at_ms > now_ms)
        .map(Expiry::at_millis)
}

/// What a write says about expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lifetime {
    /// Nothing.
    #[default]
    Unsaid,
    /// `KEEPTTL`.
    Keep,
    /// `PERSIST`.
    Persist,
    /// `EX`, `PX`, `EXAT`, `PXAT`: an absolute time in ms, possibly past.
    At(i64),
}

/// The options of `SET` (all but `PERSIST`), of `GETEX` (`PERSIST` and the four times) and of `NC.FILL` (the four times).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct WriteOptions {
    pub(super) lifetime: Lifetime,
    pub(super) only_if_absent: bool,
    pub(super) only_if_present: bool,
    pub(super) return_previous: bool,
}

/// The command whose options are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OptionsOf {
    Set,
    GetEx,
    /// The four times.
    Fill,
}

/// Reads the options from argument `index` on. An option that is unknown, repeated or at odds with
/// another is a syntax error.
pub(super) fn write_options(
    args: Args<'_>,
    index: usize,
    of: OptionsOf,
    now_ms: u64,
) -> Result<WriteOptions, CommandError> {
    let mut options = WriteOptions::default();
    let mut time = None;
    let mut words = args.from(index);
    while let Some(word) = words.next() {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        let is_set = of == OptionsOf::Set;
        let sets_condition = !options.only_if_absent && !options.only_if_present;
        if is_set && is(b"NX") && sets_condition {
            options.only_if_absent = true;
        } else if is_set && is(b"XX") && sets_condition {
            options.only_if_present = true;
        } else if is_set && is(b"GET") && !options.return_previous {
            options.return_previous = true;
        } else if options.lifetime != Lifetime::Unsaid || time.is_some() {
            return Err(CommandError::Syntax);
        } else if is_set && is(b"KEEPTTL") {
            options.lifetime = Lifetime::Keep;
        } else if of == OptionsOf::GetEx && is(b"PERSIST") {
            options.lifetime = Lifetime::Persist;
        } else {
            let (unit, base) = time_option(word).ok_or(CommandError::Syntax)?;
            time = Some((words.next().ok_or(CommandError::Syntax)?, unit, base));
        }
    }
    if let Some((text, unit, base)) = time {
        let command = match of {
            OptionsOf::Set => "set",
            OptionsOf::GetEx => "getex",
            OptionsOf::Fill => "nc.fill",
        };
        options.lifetime = Lifetime::At(positive_time(text, unit, base, now_ms, command)?);
    }
    Ok(options)
}

/// A time that must be more than zero, as `SET`, `SETEX` and `GETEX` want it.
pub(super) fn positive_time(
    text: &[u8],
    unit: TimeUnit,
    base: TimeBase,
    now_ms: u64,
    command: &'static str,
) -> Result<i64, CommandError> {
    let amount = parse_i64(text).ok_or(CommandError::NotInteger)?;
    (amount > 0)
        .then(|| absolute_ms(amount, unit, base, now_ms))
        .flatten()
        .ok_or(CommandError::ExpireTime { command })
}

fn time_option(word: &[u8]) -> Option<(TimeUnit, TimeBase)> {
    let options: [(&[u8], _); 4] = [
        (b"EX", (TimeUnit::Seconds, TimeBase::Now)),
        (b"PX", (TimeUnit::Milliseconds, TimeBase::Now)),
        (b"EXAT", (TimeUnit::Seconds, TimeBase::UnixEpoch)),
        (b"PXAT", (TimeUnit::Milliseconds, TimeBase::UnixEpoch)),
    ];
    options
        .into_iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name))
        .map(|(_, time)| time)
}
