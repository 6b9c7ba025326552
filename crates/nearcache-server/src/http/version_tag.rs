//! Entity tags: the version of an entry as 32 hexadecimal digits in quotes, and the headers that name
//! them (RFC 9110 section 13.1).

use http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use nearcache::Version;

/// What a request demands of the entry's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Nothing.
    None,
    /// `If-Match: "v"`: it is this version.
    Is(Version),
    /// `If-Match: *`: there is one.
    Exists,
    /// `If-None-Match: *`: there is none.
    Missing,
    /// `If-Match` names versions of which none can be ours: no entry fulfils it.
    Impossible,
}

/// A combination of headers that no write can be conditional on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsupported;

/// Writes a version as an entity tag.
pub(super) fn tag(version: Version) -> String {
    let mut text = String::with_capacity(34);
    text.push('"');
    for byte in version.to_bytes() {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('"');
    text
}

/// Reads what [`tag`] wrote; weak tags are accepted where `weak` says so.
fn parse_tag(text: &str, weak: bool) -> Option<Version> {
    let text = if weak {
        text.strip_prefix("W/").unwrap_or(text)
    } else {
        text
    };
    let digits = text.strip_prefix('"')?.strip_suffix('"')?;
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(Version::from_bytes(
        u128::from_str_radix(digits, 16).ok()?.to_be_bytes(),
    ))
}

/// Whether a reader that sent these headers already has `version`: answer 304.
pub(super) fn reader_has(headers: &HeaderMap, version: Version) -> bool {
    members(headers, &IF_NONE_MATCH)
        .any(|member| member == "*" || parse_tag(member, true) == Some(version))
}

/// What a write is conditional on.
///
/// # Errors
/// [`Unsupported`] for several versions, for `If-None-Match` with a version and for both headers.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Unsupported> {
    let matches: Vec<&str> = members(headers, &IF_MATCH).collect();
    let none_matches: Vec<&str> = members(headers, &IF_NONE_MATCH).collect();
    match (matches.as_slice(), none_matches.as_slice()) {
        ([], []) => Ok(Precondition::None),
        (["*"], []) => Ok(Precondition::Exists),
        ([], ["*"]) => Ok(Precondition::Missing),
        ([member], []) => {
            Ok(parse_tag(member, false).map_or(Precondition::Impossible, Precondition::Is))
        }
        _ => Err(Unsupported),
    }
}

fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn a_version_is_read_back_from_its_tag() {
        let version = Version::from_bytes([7; 16]);
        let text = tag(version);
        assert_eq!(text, format!("\"{}\"", "07".repeat(16)));
        assert_eq!(parse_tag(&text, false), Some(version));
        assert_eq!(parse_tag(&format!("W/{text}"), false), None);
        assert_eq!(parse_tag(&format!("W/{text}"), true), Some(version));
        for wrong in [
            "",
            "\"\"",
            "07",
            "\"+7\"",
            "\"07070707070707070707070707070707",
        ] {
            assert_eq!(parse_tag(wrong, true), None, "{wrong}");
        }
    }

    #[test]
    fn a_reader_has_it_if_any_member_of_any_line_names_it() {
        let version = Version::from_bytes([7; 16]);
        let own = tag(version);
        let list = format!("\"other\", W/{own}");
        assert!(reader_has(&headers(&[(&IF_NONE_MATCH, &list)]), version));
        assert!(reader_has(&headers(&[(&IF_NONE_MATCH, "*")]), version));
        assert!(!reader_has(
            &headers(&[(&IF_NONE_MATCH, "\"other\"")]),
            version
        ));
        assert!(!reader_has(&headers(&[]), version));
    }

    #[test]
    fn a_write_is_conditional_on_one_thing() {
        let version = Version::from_bytes([9; 16]);
        let own = tag(version);
        let judge = |pairs: &[(&HeaderName, &str)]| precondition(&headers(pairs));
        assert_eq!(judge(&[]), Ok(Precondition::None));
        assert_eq!(judge(&[(&IF_MATCH, &own)]), Ok(Precondition::Is(version)));
        assert_eq!(judge(&[(&IF_MATCH, "*")]), Ok(Precondition::Exists));
        assert_eq!(judge(&[(&IF_NONE_MATCH, "*")]), Ok(Precondition::Missing));
        assert_eq!(judge(&[(&IF_MATCH, "\"x\"")]), Ok(Precondition::Impossible));
        let weak = format!("W/{own}");
        assert_eq!(judge(&[(&IF_MATCH, &weak)]), Ok(Precondition::Impossible));
        assert_eq!(judge(&[(&IF_NONE_MATCH, &own)]), Err(Unsupported));
        assert_eq!(judge(&[(&IF_MATCH, "\"a\", \"b\"")]), Err(Unsupported));
        assert_eq!(
            judge(&[(&IF_MATCH, "*"), (&IF_NONE_MATCH, "*")]),
            Err(Unsupported)
        );
    }
}
