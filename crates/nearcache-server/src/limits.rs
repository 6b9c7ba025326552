//! The bounds a client meets, whatever protocol it speaks: sizes, counts, waiting times.
//!
//! Configuration fills one [`Limits`]; the RESP and HTTP listeners read it and nothing else. Every
//! bound has a default, a hard maximum that configuration cannot pass, and one documented action at
//! the limit. Connections of all listeners draw from one [`ConnectionBudget`], the bytes of requests
//! in flight from one [`MemoryBudget`], so that two listeners cannot together pass what one may not.

use std::time::Duration;

mod connection_budget;
mod lockout;
mod memory_budget;

pub use connection_budget::{ConnectionBudget, ConnectionPermit, ConnectionRefused};
pub use lockout::Lockout;
pub use memory_budget::{MemoryBudget, MemoryCharge, Pressure};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Bounds on what one client, and all clients together, may ask of the process.
///
/// The defaults are safe for two cores and 4 GiB. Each field says what happens at the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections over all listeners. Beyond it a connection is accepted, told so
    /// (`-ERR max number of clients reached`, or 503) and closed. Default 4,096, at most 50,000.
    pub client_connections: usize,
    /// Connections that have not authenticated yet, where authentication is configured. Beyond it
    /// the oldest of them is closed. Default 128, at most 1,024.
    pub unauthenticated_connections: usize,
    /// Connections from one source address; loopback is exempt. Beyond it a connection is told so
    /// and closed. Default 512.
    pub connections_per_address: usize,
    /// Length of a key in bytes. Beyond it the request is answered `KeyTooLong` and the connection
    /// kept. Default 4 KiB, at most 64 KiB.
    pub key_bytes: usize,
    /// Length of a value in bytes. Beyond it the request is answered `ValueTooLarge`, its body is
    /// skipped without being held, and the connection kept. Default 1 MiB, at most 64 MiB.
    pub value_bytes: usize,
    /// Length of one whole request in bytes. Beyond it: protocol error, connection closed.
    /// Default 16 MiB, at most 128 MiB.
    pub request_bytes: usize,
    /// Arguments of one RESP request, the command's name included. Beyond it: protocol error,
    /// connection closed. Default 4,096, at most 1,048,576.
    pub request_arguments: usize,
    /// Length of a RESP request that comes as one line of text, and of a count line. Beyond it:
    /// protocol error, connection closed. Default and maximum 64 KiB.
    pub inline_bytes: usize,
    /// HTTP header block in bytes. Default 32 KiB.
    pub header_bytes: usize,
    /// Number of HTTP headers. Default 64.
    pub headers: usize,
    /// Requests of one connection whose replies are not yet written. At the limit the connection is
    /// not read from until they are. Default 128, at most 4,096.
    pub requests_in_flight: usize,
    /// Reply bytes waiting for one client beyond which [`Self::output_soft_for`] starts to count.
    /// Default 1 MiB.
    pub output_soft_bytes: usize,
    /// How long more than [`Self::output_soft_bytes`] may wait for one client before its connection
    /// is closed and counted. Default 10 s.
    pub output_soft_for: Duration,
    /// Reply bytes waiting for one client beyond which its connection is closed and counted at once.
    /// Must hold at least one value of [`Self::value_bytes`]. Default 8 MiB.
    pub output_hard_bytes: usize,
    /// Request and reply bytes held for all clients together; above 80 % reads are answered `BUSY`,
    /// at the limit connections are not read from. Default 128 MiB; configuration sets an eighth of
    /// the caches' bounds, or two of [`Self::request_bytes`] if that is more.
    pub in_flight_bytes: usize,
    /// Length of a `KEYS`/`SCAN` pattern in bytes. Beyond it the request is answered
    /// `PatternTooLong`. Default and maximum 1 KiB.
    pub pattern_bytes: usize,
    /// Keys that one `SCAN` call may look at, whatever its `COUNT`. Default and maximum 10,000.
    pub scan_keys: usize,
    /// Time for an accepted connection to authenticate, where authentication is configured.
    /// Beyond it the connection is closed. Default 5 s.
    pub authentication_timeout: Duration,
    /// Wrong passwords on one connection before it is closed. Default 5.
    pub authentication_failures: u32,
    /// Wrong tokens from one source address within a minute (of IPv6: from one /64) before HTTP answers
    /// all its requests 429 for [`Self::authentication_lockout`]. Default 20.
    pub authentication_failures_per_address: u32,
    /// How long an address that presented too many wrong tokens is not listened to. Default 60 s.
    pub authentication_lockout: Duration,
    /// Time for an HTTP request's header block to arrive. Default 10 s.
    pub header_timeout: Duration,
    /// Time for one RESP argument, or one HTTP body, to make [`Self::body_bytes_per_second`] of
    /// progress; a request that is slower than that over this time is closed. Default 30 s.
    pub body_timeout: Duration,
    /// Slowest acceptable rate of a request that has begun to arrive, judged once it has been
    /// arriving for [`Self::body_timeout`]. Default 1,024 bytes per second.
    pub body_bytes_per_second: u64,
    /// Silence after which a client's connection is closed. Default 300 s; zero never closes.
    pub idle_timeout: Duration,
    /// Time for connections to finish what they are doing when the server stops. Default 10 s.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            client_connections: 4_096,
            unauthenticated_connections: 128,
            connections_per_address: 512,
            key_bytes: 4 * KIB,
            value_bytes: MIB,
            request_bytes: 16 * MIB,
            request_arguments: 4_096,
            inline_bytes: 64 * KIB,
            header_bytes: 32 * KIB,
            headers: 64,
            requests_in_flight: 128,
            output_soft_bytes: MIB,
            output_soft_for: Duration::from_secs(10),
            output_hard_bytes: 8 * MIB,
            in_flight_bytes: 128 * MIB,
            pattern_bytes: KIB,
            scan_keys: 10_000,
            authentication_timeout: Duration::from_secs(5),
            authentication_failures: 5,
            authentication_failures_per_address: 20,
            authentication_lockout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            body_bytes_per_second: 1_024,
            idle_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Why a set of limits cannot be put in force. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A limit lies outside what is allowed for it.
    #[error("`{name}` is {got}, allowed are {min} to {max}")]
    OutOfRange {
        /// Name of the limit, as in the configuration.
        name: &'static str,
        /// Configured value.
        got: usize,
        /// Smallest allowed value.
        min: usize,
        /// Largest allowed value.
        max: usize,
    },
    /// Two limits contradict each other.
    #[error("`{smaller}` ({smaller_value}) must not exceed `{larger}` ({larger_value})")]
    Contradiction {
        /// The limit that must be the smaller one.
        smaller: &'static str,
        /// Its value.
        smaller_value: usize,
        /// The limit that must hold the other.
        larger: &'static str,
        /// Its value.
        larger_value: usize,
    },
}

impl Limits {
    /// Checks every limit against its hard maximum, and those that depend on each other.
    ///
    /// # Errors
    /// The first limit found wrong. Nothing is changed.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let ranges = [
            ("client_connections", self.client_connections, 1, 50_000),
            (
                "unauthenticated_connections",
                self.unauthenticated_connections,
                1,
                1_024,
            ),
            (
                "connections_per_address",
                self.connections_per_address,
                1,
                50_000,
            ),
            ("key_bytes", self.key_bytes, 1, 64 * KIB),
            ("value_bytes", self.value_bytes, 1, 64 * MIB),
            ("request_bytes", self.request_bytes, 1, 128 * MIB),
            ("request_arguments", self.request_arguments, 8, 1 << 20),
            ("inline_bytes", self.inline_bytes, 64, 64 * KIB),
            ("header_bytes", self.header_bytes, KIB, MIB),
            ("headers", self.headers, 8, 1_024),
            ("requests_in_flight", self.requests_in_flight, 1, 4_096),
            ("pattern_bytes", self.pattern_bytes, 1, KIB),
            ("scan_keys", self.scan_keys, 1, 10_000),
        ];
        for (name, got, min, max) in ranges {
            if !(min..=max).contains(&got) {
                return Err(LimitsError::OutOfRange {
                    name,
                    got,
                    min,
                    max,
                });
            }
        }
        let orders = [
            (
                "key_bytes",
                self.key_bytes,
                "request_bytes",
                self.request_bytes,
            ),
            (
                "value_bytes",
                self.value_bytes,
                "request_bytes",
                self.request_bytes,
            ),
            (
                "value_bytes",
                self.value_bytes,
                "output_hard_bytes",
                self.output_hard_bytes,
            ),
            (
                "output_soft_bytes",
                self.output_soft_bytes,
                "output_hard_bytes",
                self.output_hard_bytes,
            ),
            (
                "request_bytes",
                self.request_bytes,
                "in_flight_bytes",
                self.in_flight_bytes,
            ),
        ];
        for (smaller, smaller_value, larger, larger_value) in orders {
            if smaller_value > larger_value {
                return Err(LimitsError::Contradiction {
                    smaller,
                    smaller_value,
                    larger,
                    larger_value,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn a_limit_beyond_its_hard_maximum_is_refused() {
        let limits = Limits {
            key_bytes: 64 * KIB + 1,
            ..Limits::default()
        };
        assert!(matches!(
            limits.validate(),
            Err(LimitsError::OutOfRange {
                name: "key_bytes",
                ..
            })
        ));
    }

    #[test]
    fn an_output_buffer_smaller_than_a_value_is_a_contradiction() {
        let limits = Limits {
            value_bytes: 9 * MIB,
            ..Limits::default()
        };
        assert!(matches!(
            limits.validate(),
            Err(LimitsError::Contradiction {
                smaller: "value_bytes",
                ..
            })
        ));
    }
}
