//! Who is answered at all: `Host`, `Origin`, the address and the token, in this order, before anything
//! else.
//!
//! A web page in an operator's browser can send requests to loopback. It cannot choose `Host` freely
//! (DNS rebinding shows the page's own domain there) and cannot hide its `Origin`, so a foreign name in
//! either is refused. An IP address in `Host` is fine: no page's domain is one.

use std::net::IpAddr;
use std::time::Instant;

use http::{HeaderMap, StatusCode, Uri, header};

use super::problem::Problem;
use crate::auth::Credentials;
use crate::config::HttpConfig;
use crate::limits::Lockout;

/// The rules of one listener.
#[derive(Debug)]
pub(super) struct Admission {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Admission {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self {
            hosts: config
                .hosts
                .iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
            origins: config.origins.clone(),
        }
    }

    /// Judges a request by its head.
    ///
    /// # Errors
    /// 421 for a `Host` that is not ours, 403 for an `Origin` that is not listed, 429 for an address that
    /// presented too many wrong tokens, 401 without the token.
    pub(super) fn check(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        token: Option<TokenRule<'_>>,
    ) -> Result<(), Problem> {
        self.check_host(uri, headers)?;
        self.check_origin(headers)?;
        match token {
            Some(rule) => rule.check(headers),
            None => Ok(()),
        }
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (host, second) = (
            hosts.next().and_then(|value| value.to_str().ok()),
            hosts.next(),
        );
        // An absolute address in the request line names the host as well: both must be ours.
        let named = uri.host().is_none_or(|host| self.is_ours(host));
        if named && second.is_none() && host.is_some_and(|host| self.is_ours(without_port(host))) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "ForeignHost",
            "the Host header must be an IP address, localhost, or a name listed in http.hosts",
        )
        .closing())
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let address = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(&host);
        host == "localhost" || address.parse::<IpAddr>().is_ok() || self.hosts.contains(&host)
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        for origin in headers.get_all(header::ORIGIN) {
            if !self
                .origins
                .iter()
                .any(|allowed| allowed.as_bytes() == origin.as_bytes())
            {
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "ForeignOrigin",
                    "requests of web pages are refused unless their origin is listed in http.origins",
                )
                .closing());
            }
        }
        Ok(())
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            // `::1` has colons and no port; with one it is written `[::1]:8001`.
            if name.contains(':') && !name.ends_with(']') {
                host
            } else {
                name
            }
        }
        _ => host,
    }
}

/// Which token a request must carry, and what becomes of an address that keeps guessing.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenRule<'a> {
    pub(super) credentials: &'a Credentials,
    pub(super) lockout: &'a Lockout,
    pub(super) address: IpAddr,
}

impl TokenRule<'_> {
    fn check(self, headers: &HeaderMap) -> Result<(), Problem> {
        let now = Instant::now();
        if let Err(left) = self.lockout.check(self.address, now) {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyFailures",
                "this address has presented too many wrong tokens; wait as long as Retry-After says",
            )
            .header(header::RETRY_AFTER, (left.as_secs() + 1).to_string()));
        }
        let presented = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes());
        let token = presented.and_then(|value| {
            let (scheme, token) = value.split_at_checked(7)?;
            scheme
                .eq_ignore_ascii_case(b"bearer ")
                .then(|| token.trim_ascii())
        });
        // A missing token is compared as well, so that its absence does not show in the time taken.
        let accepted = self.credentials.verify(None, token.unwrap_or(b"")) && token.is_some();
        if accepted {
            return Ok(());
        }
        // Who presents nothing does not guess.
        if presented.is_some() && self.lockout.failed(self.address, now) {
            tracing::warn!(address = %self.address, "too many wrong tokens: locked out");
        }
        Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "send the token of auth.token_file as: Authorization: Bearer <token>",
        )
        .header(header::WWW_AUTHENTICATE, "Bearer realm=\"nearcache\""))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::Config;
    use crate::limits::Limits;

    fn status(
        configure: impl FnOnce(&mut HttpConfig),
        headers: &[(header::HeaderName, &str)],
        credentials: Option<&Credentials>,
    ) -> Option<StatusCode> {
        let mut config = Config::default().http;
        configure(&mut config);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        let uri = Uri::from_static("/");
        let lockout = Lockout::new(&Limits::default());
        let rule = credentials.map(|credentials| TokenRule {
            credentials,
            lockout: &lockout,
            address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        });
        let outcome = Admission::new(&config).check(&uri, &map, rule);
        outcome
            .err()
            .map(|problem| problem.into_response().status())
    }

    #[test]
    fn row_27_a_foreign_or_missing_host_is_misdirected() {
        let own = |config: &mut HttpConfig| config.hosts = vec!["Cache.internal".into()];
        for host in [
            "localhost",
            "LOCALHOST:8001",
            "127.0.0.1",
            "127.0.0.1:8001",
            "[::1]:8001",
            "[::1]",
            "10.1.2.3:80",
            "cache.internal:8001",
            "CACHE.internal",
        ] {
            assert_eq!(status(own, &[(header::HOST, host)], None), None, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8001",
            "localhost.evil.example",
            "127.0.0.1.evil",
        ] {
            let refused = status(own, &[(header::HOST, host)], None);
            assert_eq!(refused, Some(StatusCode::MISDIRECTED_REQUEST), "{host:?}");
        }
        assert_eq!(
            status(own, &[], None),
            Some(StatusCode::MISDIRECTED_REQUEST)
        );
        let twice = [(header::HOST, "localhost"), (header::HOST, "localhost")];
        assert_eq!(
            status(own, &twice, None),
            Some(StatusCode::MISDIRECTED_REQUEST)
        );
    }

    #[test]
    fn row_27_an_origin_is_refused_unless_listed() {
        let listed = |config: &mut HttpConfig| config.origins = vec!["https://ops.example".into()];
        let request = |origin| [(header::HOST, "localhost"), (header::ORIGIN, origin)];
        assert_eq!(status(listed, &request("https://ops.example"), None), None);
        for origin in [
            "https://evil.example",
            "null",
            "http://ops.example",
            "http://localhost:8001",
        ] {
            let refused = status(listed, &request(origin), None);
            assert_eq!(refused, Some(StatusCode::FORBIDDEN), "{origin}");
        }
    }

    #[test]
    fn with_credentials_only_the_token_is_let_in() {
        let credentials = Credentials::new(*b"0123456789abcdef");
        let request = |value| [(header::HOST, "localhost"), (header::AUTHORIZATION, value)];
        let judge = |value| status(|_| {}, &request(value), Some(&credentials));
        assert_eq!(judge("Bearer 0123456789abcdef"), None);
        assert_eq!(judge("bearer  0123456789abcdef"), None);
        for wrong in [
            "Bearer 0123456789abcdeF",
            "Basic 0123456789abcdef",
            "Bearer ",
            "",
            "Bearer",
        ] {
            assert_eq!(judge(wrong), Some(StatusCode::UNAUTHORIZED), "{wrong:?}");
        }
        let none = status(|_| {}, &[(header::HOST, "localhost")], Some(&credentials));
        assert_eq!(none, Some(StatusCode::UNAUTHORIZED));
    }
}
