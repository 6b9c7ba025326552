//! Commands on whole databases, and the time.

use crate::caches::RawCache;

use super::{super::error::CommandError, Call, Outcome, Reply, wait};

pub(super) fn dbsize(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let entries = call.database().len();
    call.reply.count(entries);
    Ok(Outcome::Done)
}

pub(super) fn flushdb(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let databases = vec![call.database().clone()];
    flush(call, databases)
}

pub(super) fn flushall(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let databases = call.session.context().databases.clone();
    flush(call, databases)
}

/// Empties databases. `SYNC` and `ASYNC` are accepted and mean the same: entries are gone at once,
/// their memory soon after.
fn flush(call: &Call<'_>, databases: Vec<RawCache>) -> Result<Outcome, CommandError> {
    let is_known =
        |word: &[u8]| word.eq_ignore_ascii_case(b"SYNC") || word.eq_ignore_ascii_case(b"ASYNC");
    if call.args.len() > 2 || !call.args.from(1).all(is_known) {
        return Err(CommandError::Syntax);
    }
    wait(async move {
        for database in databases {
            database.clear().await?;
        }
        Ok(Reply::Ok)
    })
}

/// Cluster time, in seconds and microseconds; good to a millisecond.
pub(super) fn time(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let now_ms = call.now_ms();
    call.reply.array(2);
    call.reply.bulk((now_ms / 1_000).to_string().as_bytes());
    call.reply
        .bulk((now_ms % 1_000 * 1_000).to_string().as_bytes());
    Ok(Outcome::Done)
}
