//! Addresses: which resource a request path names, and how keys are written in it.
//!
//! A key is any bytes but none: in a path every byte may be written as `%` and two hexadecimal digits,
//! and must be unless it is a letter, a digit or one of `- . _ ~ ! $ & ' ( ) * + , ; = : @`. `+` is a
//! plus, `%2F` is a slash inside the key, `%00` is the byte zero. Nothing is normalised: `%41` and `A`
//! are the same key, `a/../b` is not an address.

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/`
    StatusPage,
    /// `/healthz`
    Health,
    /// `/readyz`
    Readiness,
    /// `/metrics`
    Metrics,
    /// `/openapi.json`
    OpenApi,
    /// `/v1/node`
    Node,
    /// `/v1/members`
    Members,
    /// `/v1/caches`
    Caches,
    /// `/v1/caches/{cache}/entries`
    Entries(String),
    /// `/v1/caches/{cache}/entries/{key}`
    Entry(String, Vec<u8>),
    /// `/v1/caches/{cache}/invalidate`
    Invalidate(String),
    /// `/v1/caches/{cache}/inspect/{key}`
    Inspect(String, Vec<u8>),
    /// `/v1/audit`
    Audit,
}

/// Why a path names nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PathError {
    /// There is no such resource.
    Unknown,
    /// A `%` is not followed by two hexadecimal digits.
    Encoding,
}

impl Route {
    /// Parses the path of a request.
    ///
    /// # Errors
    /// [`PathError`] when it names nothing.
    pub(super) fn parse(path: &str) -> Result<Self, PathError> {
        let segments: Vec<&str> = path
            .strip_prefix('/')
            .ok_or(PathError::Unknown)?
            .split('/')
            .collect();
        Ok(match segments.as_slice() {
            [""] => Self::StatusPage,
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Readiness,
            ["metrics"] => Self::Metrics,
            ["openapi.json"] => Self::OpenApi,
            ["v1", "node"] => Self::Node,
            ["v1", "members"] => Self::Members,
            ["v1", "caches"] => Self::Caches,
            ["v1", "caches", cache, "entries"] => Self::Entries(name(cache)?),
            ["v1", "caches", cache, "entries", key] => {
                Self::Entry(name(cache)?, decode(key).ok_or(PathError::Encoding)?)
            }
            ["v1", "caches", cache, "invalidate"] => Self::Invalidate(name(cache)?),
            ["v1", "caches", cache, "inspect", key] => {
                Self::Inspect(name(cache)?, decode(key).ok_or(PathError::Encoding)?)
            }
            ["v1", "audit"] => Self::Audit,
            _ => return Err(PathError::Unknown),
        })
    }

    /// The methods it answers, as the `Allow` header lists them.
    pub(super) fn allowed(&self) -> &'static str {
        match self {
            Self::Entry(..) => "GET, HEAD, PUT, DELETE",
            Self::Entries(_) => "DELETE",
            Self::Invalidate(_) => "POST",
            Self::Audit => "GET, HEAD, POST",
            Self::StatusPage
            | Self::Health
            | Self::Readiness
            | Self::Metrics
            | Self::OpenApi
            | Self::Node
            | Self::Members
            | Self::Inspect(..)
            | Self::Caches => "GET, HEAD",
        }
    }
}

fn name(segment: &str) -> Result<String, PathError> {
    let bytes = decode(segment).ok_or(PathError::Encoding)?;
    String::from_utf8(bytes).map_err(|_| PathError::Unknown)
}

/// Undoes percent-encoding; `None` if a `%` stands without its two digits.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let high = hex_digit(bytes.next()?)?;
            let low = hex_digit(bytes.next()?)?;
            high << 4 | low
        } else {
            byte
        });
    }
    Some(decoded)
}

/// Writes bytes so that [`decode`] reads them back: all but letters, digits and `-._~` as `%XX`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    text
}

/// The `name=value` pairs of a query, decoded; `None` if a `%` stands without its two digits.
pub(super) fn query_pairs(query: &str) -> Option<Vec<(String, Vec<u8>)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8(decode(name)?).ok()?;
            Some((name, decode(value)?))
        })
        .collect()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_written_and_is_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
        assert_eq!(encode(b"a b/c%\0\xff"), "a%20b%2Fc%25%00%FF");
    }

    #[test]
    fn row_16_nul_slash_plus_and_bytes_that_are_not_text_are_keys() {
        for (path, key) in [
            ("a", &b"a"[..]),
            ("%00", b"\0"),
            ("%ff%FE", b"\xff\xfe"),
            ("a%2Fb", b"a/b"),
            ("a+b", b"a+b"),
            ("user:7@x", b"user:7@x"),
            ("..", b".."),
            ("", b""),
        ] {
            let route = Route::parse(&format!("/v1/caches/default/entries/{path}"));
            assert_eq!(
                route,
                Ok(Route::Entry("default".into(), key.into())),
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for path in [
            "",
            "*",
            "/v1",
            "/v1/caches/",
            "/v1/caches/d/entries/a/b",
            "//",
            "/healthz/",
        ] {
            assert_eq!(Route::parse(path), Err(PathError::Unknown), "{path}");
        }
        for key in ["%", "%4", "%zz", "a%", "%+1"] {
            let path = format!("/v1/caches/d/entries/{key}");
            assert_eq!(Route::parse(&path), Err(PathError::Encoding), "{key}");
        }
    }
}
