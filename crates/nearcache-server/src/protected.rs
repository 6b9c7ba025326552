//! Protected mode: the server refuses to start in a way that strangers could use.
//!
//! Judged before anything is bound, so that it is found when the server is set up and not when it is
//! attacked. The matrix, row by row:
//!
//! | listener | token | TLS | outcome |
//! |---|---|---|---|
//! | loopback | no | – | starts |
//! | loopback | yes | – | starts |
//! | other | no | any | refused; the message names the three ways out |
//! | other | yes | no | refused unless `auth.allow_plaintext`, then a warning each minute |
//! | peers, other | – | mutual, and the cluster's secret | starts |
//! | peers, other | – | no | refused unless `peers.allow_insecure_network`, then a warning each minute |
//!
//! TLS for clients is not in this version; its row comes with it.

use std::net::{IpAddr, SocketAddr};

use crate::config::Config;

/// Why the server does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the setting that opens the listener.
    pub setting: &'static str,
    /// What is unsafe.
    pub message: String,
    /// The ways out.
    pub remedy: String,
}

/// Judges the listeners of a configuration.
///
/// # Errors
/// One refusal per listener that strangers could use.
pub fn check(config: &Config) -> Result<(), Vec<Refusal>> {
    let mut refusals = Vec::new();
    for (setting, name, address) in client_listeners(config) {
        if is_loopback(address.ip()) {
            continue;
        }
        if config.auth.token_file.is_none() {
            refusals.push(Refusal {
                setting,
                message: format!(
                    "`{setting}` = {address} would let anyone who can reach it read and write every cache"
                ),
                remedy: format!(
                    "either (1) listen on loopback, \"127.0.0.1:{port}\", or (2) set `auth.token_file` \
                     and, as this version has no TLS for clients, `auth.allow_plaintext = true`, \
                     or (3) switch it off with `{name}.enabled = false`",
                    port = address.port(),
                ),
            });
        } else if !config.auth.allow_plaintext {
            refusals.push(Refusal {
                setting,
                message: format!(
                    "`{setting}` = {address} would send the token and all values over the network \
                     unencrypted; TLS for clients is not in this version"
                ),
                remedy: "listen on loopback behind a TLS proxy, or accept it with \
                         `auth.allow_plaintext = true`"
                    .to_owned(),
            });
        }
    }
    let peers = config.peers.listen;
    let has_tls = config.peers.tls.settings().is_some();
    if !is_loopback(peers.ip()) && !has_tls && !config.peers.allow_insecure_network {
        refusals.push(Refusal {
            setting: "peers.listen",
            message: format!(
                "`peers.listen` = {peers} would let anyone who can reach it join the cluster"
            ),
            remedy: format!(
                "either (1) give the nodes certificates and a secret in [peers.tls] (`nearcache certs` \
                 makes a set), or (2) listen on loopback, \"127.0.0.1:{}\", or (3) on a network \
                 nobody else can reach, accept it with `peers.allow_insecure_network = true`",
                peers.port()
            ),
        });
    }
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

/// What is unsafe and was accepted on purpose; repeated in the log every minute.
#[must_use]
pub fn accepted_risks(config: &Config) -> Vec<String> {
    let mut risks = Vec::new();
    for (setting, _, address) in client_listeners(config) {
        if !is_loopback(address.ip()) {
            risks.push(format!(
                "{setting} = {address}: tokens and values cross the network unencrypted \
                 (auth.allow_plaintext)"
            ));
        }
    }
    if !is_loopback(config.peers.listen.ip()) && config.peers.tls.settings().is_none() {
        risks.push(format!(
            "peers.listen = {}: peers are neither authenticated nor encrypted \
             (peers.allow_insecure_network)",
            config.peers.listen
        ));
    }
    risks
}

fn client_listeners(
    config: &Config,
) -> impl Iterator<Item = (&'static str, &'static str, SocketAddr)> {
    let resp = config
        .resp
        .enabled
        .then_some(("resp.listen", "resp", config.resp.listen));
    let http = config
        .http
        .enabled
        .then_some(("http.listen", "http", config.http.listen));
    resp.into_iter().chain(http)
}

/// Whether only this machine can reach the address; an IPv4 address written as IPv6 counts as IPv4.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, token: bool, allow_plaintext: bool) -> Config {
        let mut config = Config::default();
        config.resp.listen = listen.parse().unwrap();
        config.http.enabled = false;
        config.auth.token_file = token.then(|| "/token".into());
        config.auth.allow_plaintext = allow_plaintext;
        config
    }

    #[test]
    fn loopback_starts_with_and_without_a_token() {
        for listen in [
            "127.0.0.1:7001",
            "127.8.9.1:7001",
            "[::1]:7001",
            "[::ffff:127.0.0.1]:7001",
        ] {
            for token in [false, true] {
                assert_eq!(
                    check(&config(listen, token, false)),
                    Ok(()),
                    "{listen} {token}"
                );
                assert!(accepted_risks(&config(listen, token, false)).is_empty());
            }
        }
    }

    #[test]
    fn another_address_without_a_token_is_refused_and_the_three_ways_out_are_named() {
        for listen in [
            "0.0.0.0:7001",
            "[::]:7001",
            "192.0.2.1:7001",
            "[::ffff:192.0.2.1]:7001",
        ] {
            for allow_plaintext in [false, true] {
                let refusals = check(&config(listen, false, allow_plaintext)).unwrap_err();
                assert_eq!(refusals.len(), 1, "{listen}");
                for way in ["127.0.0.1:7001", "auth.token_file", "resp.enabled = false"] {
                    assert!(
                        refusals[0].remedy.contains(way),
                        "{way} in {}",
                        refusals[0].remedy
                    );
                }
            }
        }
    }

    #[test]
    fn another_address_with_a_token_is_refused_unless_plaintext_is_allowed() {
        let refusals = check(&config("0.0.0.0:7001", true, false)).unwrap_err();
        assert!(refusals[0].remedy.contains("auth.allow_plaintext = true"));
        let allowed = config("0.0.0.0:7001", true, true);
        assert_eq!(check(&allowed), Ok(()));
        assert_eq!(accepted_risks(&allowed).len(), 1);
    }

    #[test]
    fn peers_beyond_loopback_are_refused_unless_allowed() {
        let mut config = Config::default();
        config.peers.listen = "0.0.0.0:7801".parse().unwrap();
        let refusals = check(&config).unwrap_err();
        assert_eq!(refusals[0].setting, "peers.listen");
        assert!(
            refusals[0]
                .remedy
                .contains("peers.allow_insecure_network = true")
        );
        assert!(refusals[0].remedy.contains("[peers.tls]"));
        config.peers.allow_insecure_network = true;
        assert_eq!(check(&config), Ok(()));
        assert_eq!(accepted_risks(&config).len(), 1);
        // With TLS there is no risk to accept, whatever is allowed.
        let file = Some("/file".into());
        config.peers.tls.certificate_file.clone_from(&file);
        config.peers.tls.key_file.clone_from(&file);
        config.peers.tls.ca_file.clone_from(&file);
        assert_eq!(accepted_risks(&config).len(), 1, "three files are no TLS");
        config.peers.tls.secret_file = file;
        assert_eq!(accepted_risks(&config).len(), 0);
        config.peers.allow_insecure_network = false;
        assert_eq!(check(&config), Ok(()));
    }

    #[test]
    fn every_listener_is_judged() {
        let mut config = Config::default();
        config.http.listen = "0.0.0.0:8001".parse().unwrap();
        config.resp.listen = "0.0.0.0:7001".parse().unwrap();
        config.peers.listen = "0.0.0.0:7801".parse().unwrap();
        assert_eq!(check(&config).unwrap_err().len(), 3);
        config.http.enabled = false;
        assert_eq!(check(&config).unwrap_err().len(), 2);
    }
}
