//! Time to live in HTTP's words: `Cache-Control: max-age` and `Age` (RFC 9111 sections 4.2 and 5.2).
//!
//! A writer says how long the entry lives by `Cache-Control: max-age=<seconds>`, or more finely by the
//! query `?ttl=500ms`, which wins. A reader gets `max-age`, the time to live the entry was written
//! with, and `Age`, the time since, so that a cache in between keeps it exactly for the rest, and
//! `Nearcache-Ttl-Ms`, which is that rest.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use crate::config::units;

/// How long an entry still lives, in milliseconds; absent when it does not expire.
pub(super) const REMAINING: &str = "nearcache-ttl-ms";

/// A time to live that is zero, negative, not a number or more than ten years.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidTtl {
    pub(super) given: String,
}

/// The time to live a write asks for; `None` for the cache's own.
///
/// # Errors
/// [`InvalidTtl`]; what cannot be read never means "no expiry".
pub(super) fn requested(
    headers: &HeaderMap,
    query: Option<&[u8]>,
) -> Result<Option<Duration>, InvalidTtl> {
    if let Some(text) = query {
        let text = String::from_utf8_lossy(text);
        return match units::parse_duration(&text) {
            Ok(ttl) if ttl >= Duration::from_millis(1) => Ok(Some(ttl)),
            _ => Err(InvalidTtl {
                given: text.chars().take(64).collect(),
            }),
        };
    }
    let mut requested = None;
    for value in headers.get_all(header::CACHE_CONTROL) {
        let text = String::from_utf8_lossy(value.as_bytes());
        for directive in text.split(',').map(str::trim) {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            if !name.trim().eq_ignore_ascii_case("max-age") {
                continue;
            }
            let digits = argument.trim().trim_matches('"');
            let invalid = || InvalidTtl {
                given: directive.chars().take(64).collect(),
            };
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(invalid());
            }
            let ttl = digits
                .parse()
                .map(Duration::from_secs)
                .map_err(|_| invalid())?;
            if ttl.is_zero() || ttl > units::LONGEST || requested.is_some_and(|other| other != ttl)
            {
                return Err(invalid());
            }
            requested = Some(ttl);
        }
    }
    Ok(requested)
}

/// Adds the headers that tell a reader how long the entry lives.
///
/// `written_ms`, `expires_ms` and `now_ms` are cluster time; no expiry means no `max-age`.
pub(super) fn announce(
    headers: &mut HeaderMap,
    written_ms: u64,
    expires_ms: Option<u64>,
    now_ms: u64,
) {
    let age_ms = now_ms.saturating_sub(written_ms);
    let Some(expires_ms) = expires_ms else {
        headers.insert(header::AGE, HeaderValue::from(age_ms / 1_000));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return;
    };
    let remaining_ms = expires_ms.saturating_sub(now_ms);
    // To the nearest second: the clock that stamps versions and the one that counts expiry may be a
    // millisecond apart, and a minute asked for should read as a minute.
    let lifetime_secs = (expires_ms.saturating_sub(written_ms) + 500) / 1_000;
    // Counted from the end, so that `max-age` less `Age` is never more than what is left.
    let age_secs = lifetime_secs.saturating_sub(remaining_ms / 1_000);
    headers.insert(header::AGE, HeaderValue::from(age_secs));
    headers.insert(REMAINING, HeaderValue::from(remaining_ms));
    if let Ok(value) = HeaderValue::try_from(format!("max-age={lifetime_secs}")) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_header(text: &str) -> Result<Option<Duration>, InvalidTtl> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_str(text).unwrap());
        requested(&headers, None)
    }

    #[test]
    fn a_time_to_live_is_read_from_header_or_query() {
        assert_eq!(of_header("max-age=60"), Ok(Some(Duration::from_secs(60))));
        assert_eq!(
            of_header("public, Max-Age=\"7\""),
            Ok(Some(Duration::from_secs(7)))
        );
        assert_eq!(of_header("no-store"), Ok(None));
        let query = requested(&HeaderMap::new(), Some(b"1.5s"));
        assert_eq!(query, Ok(Some(Duration::from_millis(1_500))));
    }

    #[test]
    fn row_18_what_is_no_time_to_live_is_refused_and_never_means_no_expiry() {
        for text in [
            "max-age=0",
            "max-age=-1",
            "max-age=NaN",
            "max-age=1e3",
            "max-age=",
            "max-age",
            "max-age=315360001",
            "max-age=18446744073709551615",
            "max-age=99999999999999999999",
            "max-age=1, max-age=2",
        ] {
            assert!(of_header(text).is_err(), "{text}");
        }
        for text in ["0s", "-1s", "NaN", "", "5", "11000d", "1ns"] {
            assert!(
                requested(&HeaderMap::new(), Some(text.as_bytes())).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn max_age_less_age_is_never_more_than_what_is_left() {
        for expires_ms in [60_999, 61_000, 61_001] {
            for now_ms in [1_000, 1_001, 1_999, 2_000, 30_500, 60_999] {
                let mut headers = HeaderMap::new();
                announce(&mut headers, 1_000, Some(expires_ms), now_ms);
                assert_eq!(headers[header::CACHE_CONTROL], "max-age=60");
                let age: u64 = headers[header::AGE].to_str().unwrap().parse().unwrap();
                assert!(
                    (60 - age) * 1_000 <= expires_ms - now_ms,
                    "{expires_ms} {now_ms}"
                );
                assert_eq!(
                    headers[REMAINING],
                    (expires_ms - now_ms).to_string().as_str()
                );
            }
        }
    }
}
