//! The library's errors in HTTP's words: one place that decides status and kind.

use std::time::Duration;

use http::{StatusCode, header};
use nearcache::{KeyError, ModifyError, ReadError, WriteError, age_ms};

use super::problem::Problem;

pub(super) fn bad_request(kind: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, kind, detail)
}

pub(super) fn broken_encoding() -> Problem {
    bad_request(
        "BrokenEncoding",
        "write every % of a path or query as %25, other bytes as %XX",
    )
}

pub(super) fn empty_key() -> Problem {
    bad_request("EmptyKey", "a key needs at least one byte")
}

pub(super) fn key_too_long(got: usize, limit: usize) -> Problem {
    bad_request(
        "KeyTooLong",
        format!("a key of {got} bytes exceeds the limit of {limit}"),
    )
    .exceeded(limit, Some(got as u64))
}

pub(super) fn invalid_ttl(given: &str) -> Problem {
    bad_request(
        "InvalidTtl",
        format!(
            "`{given}` is not a time to live of 1 ms to 10 years; to have no expiry, leave it out"
        ),
    )
}

pub(super) fn invalid_demand(given: &str) -> Problem {
    bad_request(
        "InvalidCacheControl",
        format!("`{given}`: max-age and max-stale of a request take a number of seconds"),
    )
}

/// The reader wants to be less behind than this node can make sure of.
pub(super) fn not_fresh(age: Option<Duration>) -> Problem {
    let detail = match age {
        Some(age) => format!(
            "what this node knows of its peers is {} ms old, and they did not answer in time",
            age_ms(age)
        ),
        None => "this node has not heard all of its peers yet".to_owned(),
    };
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "NotFresh", detail)
}

pub(super) fn invalid_fill_token() -> Problem {
    bad_request(
        "InvalidFillToken",
        "fill is what Nearcache-Fill-Token said when the entry was missing; it goes with ttl and tag only",
    )
}

/// The value was loaded from the system of record, and may be older than what was written meanwhile.
pub(super) fn fill_overtaken() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "FillOvertaken",
        "the value is not kept: the key was written or invalidated since the token was given, or the token is too old or another node's",
    )
}

pub(super) fn no_entry() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "NoEntry",
        "there is no entry with this key",
    )
}

pub(super) fn no_cache(name: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "NoCache",
        format!("there is no cache {name:?}; GET /v1/caches lists them"),
    )
}

/// The entry is not as the request demands; `tag` is what it is.
pub(super) fn precondition_failed(tag: Option<String>) -> Problem {
    let problem = Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "PreconditionFailed",
        "the entry is not as If-Match or If-None-Match demands; nothing was changed",
    );
    match tag {
        Some(tag) => problem.header(header::ETAG, tag),
        None => problem,
    }
}

pub(super) fn of_key(error: &KeyError) -> Problem {
    match error {
        KeyError::EmptyKey => empty_key(),
        KeyError::KeyTooLong {
            len_bytes,
            limit_bytes,
        } => key_too_long(*len_bytes, *limit_bytes),
        KeyError::Reserved => bad_request("ReservedKey", error.to_string()),
        other => bad_request("InvalidKey", other.to_string()),
    }
}

pub(super) fn of_read(error: ReadError) -> Problem {
    match error {
        ReadError::Key(error) => of_key(&error),
        other => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal",
            other.to_string(),
        ),
    }
}

pub(super) fn of_write(error: WriteError) -> Problem {
    let detail = error.to_string();
    let (status, kind) = match error {
        WriteError::Key(error) => return of_key(&error),
        WriteError::ValueTooLarge {
            len_bytes,
            limit_bytes,
        } => {
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "ValueTooLarge", detail)
                .exceeded(limit_bytes, Some(len_bytes as u64));
        }
        WriteError::ReadOnly => {
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ReadOnly", detail)
                .header(header::RETRY_AFTER, "1");
        }
        WriteError::InvalidTtl { ttl } => return invalid_ttl(&format!("{ttl:?}")),
        WriteError::InvalidTag { .. } => (StatusCode::BAD_REQUEST, "InvalidTag"),
        WriteError::TooLargeForCache { .. } => {
            (StatusCode::INSUFFICIENT_STORAGE, "TooLargeForCache")
        }
        WriteError::TombstoneLimit => (StatusCode::INSUFFICIENT_STORAGE, "TombstoneLimit"),
        WriteError::Superseded { .. } => (StatusCode::CONFLICT, "Superseded"),
        WriteError::AckTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "AckTimeout"),
        // Written here and on its way, as after a timeout.
        WriteError::AckAllBeyondMesh { .. } => (StatusCode::GATEWAY_TIMEOUT, "AckAllBeyondMesh"),
        WriteError::ClockSkew => (StatusCode::SERVICE_UNAVAILABLE, "ClockSkew"),
        WriteError::NodeStopped => (StatusCode::SERVICE_UNAVAILABLE, "NodeStopped"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
    };
    Problem::new(status, kind, detail)
}

pub(super) fn of_modify(error: ModifyError) -> Problem {
    let detail = error.to_string();
    let (status, kind) = match error {
        ModifyError::Write(error) => return of_write(error),
        ModifyError::NotAnInteger | ModifyError::Overflow => (StatusCode::CONFLICT, "NotAnInteger"),
        ModifyError::Indeterminate => (StatusCode::GATEWAY_TIMEOUT, "Indeterminate"),
        ModifyError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Busy"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
    };
    Problem::new(status, kind, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_without_most_of_the_cluster_is_unavailable_and_says_when_to_come_again() {
        let response = of_write(WriteError::ReadOnly).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let kind = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "application/problem+json");
    }

    #[test]
    fn an_acknowledgement_by_all_beyond_the_mesh_is_refused_as_a_write_that_was_made() {
        let (members, mesh_max) = (70, 64);
        let problem = of_write(WriteError::AckAllBeyondMesh { members, mesh_max });
        assert_eq!(
            problem.into_response().status(),
            StatusCode::GATEWAY_TIMEOUT
        );
    }
}
