//! What a reader demands of an answer's freshness: `Cache-Control` of a request (RFC 9111 section 5.2.1), in the words of a cluster.
//!
//! What other HTTP caches call validating with the origin is here: making sure that this node has what its peers have. An answer is as old
//! as this node's knowledge of them.
//!
//! | directive | the answer is |
//! |---|---|
//! | none, `max-stale` without a number | whatever this node has |
//! | `max-age=N`, `max-stale=N` | at most N seconds behind; of both, the sum |
//! | `no-cache` | not behind: the peers are asked |
//! | `only-if-cached` | from this node's own knowledge: the peers are not asked |

use std::time::Duration;

use http::{HeaderMap, header};

use crate::config::units;

/// How fresh an answer must be, and what may be done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Demand {
    /// The most that the answer may be behind; nothing if it does not matter.
    pub(super) age_max: Option<Duration>,
    /// Whether peers must not be asked.
    pub(super) only_if_cached: bool,
}

/// A directive whose number is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidDirective {
    pub(super) given: String,
}

/// What the headers of a read demand. Unknown directives are ignored, as RFC 9111 has it.
///
/// # Errors
/// [`InvalidDirective`]: a demand that cannot be read is not taken for none.
pub(super) fn of(headers: &HeaderMap) -> Result<Demand, InvalidDirective> {
    let (mut age_max, mut stale_max, mut no_cache) = (None, None, false);
    let mut demand = Demand::default();
    for value in headers.get_all(header::CACHE_CONTROL) {
        let text = String::from_utf8_lossy(value.as_bytes());
        for directive in text.split(',').map(str::trim) {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            let (name, argument) = (name.trim(), argument.trim().trim_matches('"'));
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if is("no-cache") {
                no_cache = true;
            } else if is("only-if-cached") {
                demand.only_if_cached = true;
            } else if is("max-age") {
                age_max = least(age_max, seconds(argument, directive)?);
            } else if is("max-stale") && !argument.is_empty() {
                stale_max = least(stale_max, seconds(argument, directive)?);
            }
        }
    }
    demand.age_max = match (age_max, stale_max) {
        _ if no_cache => Some(Duration::ZERO),
        (Some(age), Some(stale)) => Some(age + stale),
        (age, stale) => age.or(stale),
    };
    Ok(demand)
}

fn least(former: Option<Duration>, next: Duration) -> Option<Duration> {
    Some(former.map_or(next, |former| former.min(next)))
}

/// As long as ten years at most: a larger number of digits is meant as that (RFC 9111 section 1.2.2).
fn seconds(argument: &str, directive: &str) -> Result<Duration, InvalidDirective> {
    if argument.is_empty() || !argument.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidDirective {
            given: directive.chars().take(64).collect(),
        });
    }
    let seconds = argument.parse().map(Duration::from_secs);
    Ok(seconds.unwrap_or(units::LONGEST).min(units::LONGEST))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn demand(text: &str) -> Result<Demand, InvalidDirective> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_str(text).unwrap());
        of(&headers)
    }

    #[test]
    fn directives_of_a_request_bound_how_far_an_answer_is_behind() {
        let bound = |text: &str| demand(text).unwrap().age_max;
        let seconds = Duration::from_secs;
        assert_eq!(bound(""), None);
        assert_eq!(bound("max-stale"), None);
        assert_eq!(bound("max-stale=3"), Some(seconds(3)));
        assert_eq!(bound("Max-Age=\"2\", no-transform"), Some(seconds(2)));
        assert_eq!(bound("max-age=2, max-stale=3"), Some(seconds(5)));
        assert_eq!(bound("max-age=7, max-age=2"), Some(seconds(2)));
        assert_eq!(bound("max-stale=3, no-cache"), Some(seconds(0)));
        assert_eq!(bound("max-age=99999999999999999999"), Some(units::LONGEST));
        assert!(
            demand("max-stale=3, only-if-cached")
                .unwrap()
                .only_if_cached
        );
    }

    #[test]
    fn a_demand_that_cannot_be_read_is_not_taken_for_none() {
        for text in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-stale=1.5",
            "max-stale=x",
        ] {
            assert!(demand(text).is_err(), "{text}");
        }
    }
}
