//! Going through the keys of a database.
//!
//! `SCAN` keeps nothing between calls: its cursor is the store's own. `KEYS` walks in steps and lets
//! other connections of its thread run in between.

use nearcache::{Raw, RawValue, ScanCursor, ScanPage};

use super::{
    super::{error::CommandError, glob::Glob, parser::parse_u64},
    Call, Outcome, Reply,
    reply::Value,
    wait,
};

/// Keys that `SCAN` looks at unless told otherwise; Redis's default.
const COUNT_DEFAULT: usize = 10;
/// Keys that `KEYS` looks at between two turns of other connections.
const KEYS_PER_TURN: usize = 1_000;

pub(super) fn scan(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let cursor = parse_cursor(call.args.at(1)).ok_or(CommandError::Cursor)?;
    let options = ScanOptions::read(call)?;
    let page = call.database().scan(cursor, options.count);
    let next = page.next.map_or(0, ScanCursor::as_u64);
    let mut keys: Vec<ListedKey> = ListedKey::of_page(page).collect();
    keys.retain(|key| {
        options.is_of_type
            && options
                .pattern
                .as_ref()
                .is_none_or(|glob| glob.matches(key.bytes()))
    });
    call.reply.array(2);
    call.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    Reply::Keys(keys).write(call.reply);
    Ok(Outcome::Done)
}

/// A key, shared with its entry where that is whole on this node.
#[derive(Debug)]
pub(crate) enum ListedKey {
    Here(Value),
    /// The entry's long value is on another node.
    Elsewhere(Box<[u8]>),
}

impl ListedKey {
    fn of_page(page: ScanPage<RawValue, Raw>) -> impl Iterator<Item = Self> {
        let here = page.entries.into_iter().map(Self::Here);
        here.chain(page.elsewhere.into_iter().map(Self::Elsewhere))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Here(entry) => entry.key(),
            Self::Elsewhere(key) => key,
        }
    }
}

/// Redis reads cursors with C's `strtoul`: leading zeros are fine, signs and blanks are not.
fn parse_cursor(text: &[u8]) -> Option<ScanCursor> {
    let significant = text
        .iter()
        .position(|&byte| byte != b'0')
        .unwrap_or(text.len().saturating_sub(1));
    parse_u64(text.get(significant..)?).map(ScanCursor::from_u64)
}

/// `MATCH`, `COUNT` and `TYPE`.
#[derive(Debug)]
struct ScanOptions {
    pattern: Option<Glob>,
    count: usize,
    is_of_type: bool,
}

impl ScanOptions {
    fn read(call: &Call<'_>) -> Result<Self, CommandError> {
        let limits = &call.session.context().limits;
        let mut options = Self {
            pattern: None,
            count: COUNT_DEFAULT,
            is_of_type: true,
        };
        let mut index = 2;
        while index < call.args.len() {
            if index + 1 == call.args.len() {
                return Err(CommandError::Syntax);
            }
            let (word, argument) = (call.args.at(index), call.args.at(index + 1));
            if word.eq_ignore_ascii_case(b"MATCH") {
                options.pattern = Some(pattern(call, argument)?);
            } else if word.eq_ignore_ascii_case(b"COUNT") {
                let count = call.integer(index + 1)?;
                options.count = usize::try_from(count)
                    .ok()
                    .filter(|&count| count > 0)
                    .ok_or(CommandError::Syntax)?
                    .min(limits.scan_keys);
            } else if word.eq_ignore_ascii_case(b"TYPE") {
                options.is_of_type = argument.eq_ignore_ascii_case(b"string");
            } else {
                return Err(CommandError::Syntax);
            }
            index += 2;
        }
        Ok(options)
    }
}

/// Compiles a pattern within its bound.
pub(super) fn pattern(call: &Call<'_>, text: &[u8]) -> Result<Glob, CommandError> {
    let limit_bytes = call.session.context().limits.pattern_bytes;
    if text.len() > limit_bytes {
        return Err(CommandError::PatternTooLong {
            got_bytes: text.len(),
            limit_bytes,
        });
    }
    Ok(Glob::new(text))
}

pub(super) fn keys(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let glob = pattern(call, call.args.at(1))?;
    let database = call.database().clone();
    let reply_bytes_max = call.session.context().limits.output_hard_bytes;
    wait(async move {
        let mut found: Vec<ListedKey> = Vec::new();
        let mut reply_bytes = 0;
        let mut cursor = Some(ScanCursor::default());
        while let Some(here) = cursor {
            let page = database.scan(here, KEYS_PER_TURN);
            cursor = page.next;
            for key in ListedKey::of_page(page) {
                if glob.matches(key.bytes()) {
                    reply_bytes += key.bytes().len();
                    found.push(key);
                }
            }
            if reply_bytes > reply_bytes_max {
                return Err(CommandError::ReplyTooLarge);
            }
            tokio::task::yield_now().await;
        }
        // An entry that moved while we walked may have been met twice.
        found.sort_unstable_by(|one, other| one.bytes().cmp(other.bytes()));
        found.dedup_by(|one, other| one.bytes() == other.bytes());
        Ok(Reply::Keys(found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_25_a_cursor_is_a_number_and_nothing_else() {
        for text in ["0", "00", "12", "012", "18446744073709551615"] {
            assert!(parse_cursor(text.as_bytes()).is_some(), "{text}");
        }
        for text in ["", "-1", "+1", " 1", "1 ", "x", "18446744073709551616"] {
            assert!(parse_cursor(text.as_bytes()).is_none(), "{text}");
        }
    }
}
