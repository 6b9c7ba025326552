//! Who is connected: what `CLIENT LIST` shows and what the watchdog looks at.
//!
//! Each connection shares one [`Client`] with the listener. The connection notes in it what it does,
//! in plain atomic cells; the watchdog reads them a few times a second and closes the socket of a
//! client that breaks a rule of time. So no request starts or stops a timer.

use std::{
    collections::BTreeMap,
    net::{Shutdown, SocketAddr},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{commands::CommandId, metrics::CloseReason, writer::Protocol};
use socket2::SockRef;
use tokio::net::tcp::OwnedWriteHalf;

/// Milliseconds since the listener started, good to one round of the watchdog. Cost: one load.
#[derive(Debug)]
pub(crate) struct CoarseTime {
    start: Instant,
    now_ms: AtomicU64,
}

impl CoarseTime {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            now_ms: AtomicU64::new(1),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Reads the real clock; called by the watchdog.
    pub(crate) fn advance(&self) -> u64 {
        let now_ms = u64::try_from(self.start.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self.now_ms.store(now_ms, Ordering::Relaxed);
        now_ms
    }
}

/// The clients of one listener.
#[derive(Debug)]
pub(crate) struct Clients {
    open: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
}

impl Clients {
    pub(crate) fn new() -> Self {
        Self {
            open: Mutex::default(),
            last_id: AtomicU64::new(0),
        }
    }

    /// Makes a client and lists it.
    pub(crate) fn open(&self, socket: Option<Arc<OwnedWriteHalf>>, now_ms: u64) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client::new(id, socket, now_ms));
        self.locked().insert(id, Arc::clone(&client));
        client
    }

    /// Forgets a client whose connection has ended.
    pub(crate) fn forget(&self, id: u64) {
        self.locked().remove(&id);
    }

    /// Those connected now, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.locked().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.locked().len()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names a client gives itself and its library.
#[derive(Debug, Default, Clone)]
pub(crate) struct Names {
    pub(crate) name: String,
    pub(crate) library: String,
    pub(crate) library_version: String,
}

/// One connection, as others see it. Times are those of [`CoarseTime`]; zero stands for "never".
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    socket: Option<Arc<OwnedWriteHalf>>,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    pub(crate) since_ms: u64,
    active_ms: AtomicU64,
    request_since_ms: AtomicU64,
    request_bytes: AtomicUsize,
    output_bytes: AtomicUsize,
    /// Since when more output waits than the soft bound allows; kept by the watchdog.
    output_soft_since_ms: AtomicU64,
    is_waiting: AtomicBool,
    close_reason: OnceLock<CloseReason>,
    is_authenticated: AtomicBool,
    database: AtomicUsize,
    protocol: AtomicU8,
    command: AtomicUsize,
    names: Mutex<Names>,
}

impl Client {
    fn new(id: u64, socket: Option<Arc<OwnedWriteHalf>>, now_ms: u64) -> Self {
        Self {
            id,
            peer: socket.as_ref().and_then(|socket| socket.peer_addr().ok()),
            local: socket.as_ref().and_then(|socket| socket.local_addr().ok()),
            socket,
            since_ms: now_ms,
            active_ms: AtomicU64::new(now_ms),
            request_since_ms: AtomicU64::new(0),
            request_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            output_soft_since_ms: AtomicU64::new(0),
            is_waiting: AtomicBool::new(false),
            close_reason: OnceLock::new(),
            is_authenticated: AtomicBool::new(false),
            database: AtomicUsize::new(0),
            protocol: AtomicU8::new(Protocol::default().number()),
            command: AtomicUsize::new(usize::MAX),
            names: Mutex::default(),
        }
    }

    /// Notes that bytes arrived or were taken.
    pub(crate) fn was_active(&self, now_ms: u64) {
        self.active_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Notes that `new_bytes` arrived of a request that is not complete.
    pub(crate) fn request_goes_on(&self, new_bytes: usize, now_ms: u64) {
        if self.request_since_ms.load(Ordering::Relaxed) == 0 {
            self.request_since_ms.store(now_ms, Ordering::Relaxed);
        }
        self.request_bytes.fetch_add(new_bytes, Ordering::Relaxed);
    }

    /// Notes that no request is under way; what arrives next begins one.
    pub(crate) fn request_ended(&self) {
        if self.request_since_ms.load(Ordering::Relaxed) != 0 {
            self.request_since_ms.store(0, Ordering::Relaxed);
            self.request_bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Notes how many reply bytes the socket did not take.
    pub(crate) fn set_output_bytes(&self, bytes: usize) {
        self.output_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Notes whether a command of this client is waiting for an answer from elsewhere.
    pub(crate) fn set_waiting(&self, is_waiting: bool) {
        self.is_waiting.store(is_waiting, Ordering::Relaxed);
    }

    pub(crate) fn set_authenticated(&self) {
        self.is_authenticated.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.is_authenticated.load(Ordering::Relaxed)
    }

    pub(crate) fn set_database(&self, index: usize) {
        self.database.store(index, Ordering::Relaxed);
    }

    pub(crate) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol.number(), Ordering::Relaxed);
    }

    pub(crate) fn set_command(&self, id: CommandId) {
        self.command.store(id.index(), Ordering::Relaxed);
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn peer(&self) -> String {
        self.peer
            .map_or_else(String::new, |address| address.to_string())
    }

    /// Why somebody else ended this connection, if somebody did.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason.get().copied()
    }

    /// Ends the connection from outside: its task sees the socket closed.
    pub(crate) fn close(&self, reason: CloseReason) {
        if self.close_reason.set(reason).is_ok() {
            self.shut_down(Shutdown::Both);
        }
    }

    /// Lets the connection finish what it has received, then end.
    pub(crate) fn finish(&self) {
        if self.close_reason.set(CloseReason::Shutdown).is_ok() {
            self.shut_down(Shutdown::Read);
        }
    }

    fn shut_down(&self, how: Shutdown) {
        if let Some(socket) = &self.socket {
            // It fails only if the other side was faster.
            let _ = SockRef::from((**socket).as_ref()).shutdown(how);
        }
    }

    /// The rule of time that this client breaks at `now_ms`, if any.
    pub(crate) fn overdue(&self, now_ms: u64, rules: &TimeRules) -> Option<CloseReason> {
        let since = |then_ms: u64| Duration::from_millis(now_ms.saturating_sub(then_ms));
        let output_bytes = self.output_bytes.load(Ordering::Relaxed);
        if output_bytes > rules.output_soft_bytes {
            let over_since = self.output_soft_since_ms.load(Ordering::Relaxed);
            if over_since == 0 {
                self.output_soft_since_ms.store(now_ms, Ordering::Relaxed);
            } else if since(over_since) >= rules.output_soft_for {
                return Some(CloseReason::OutputBuffer);
            }
        } else {
            self.output_soft_since_ms.store(0, Ordering::Relaxed);
        }
        if let Some(timeout) = rules.authentication_timeout
            && !self.is_authenticated()
            && since(self.since_ms) >= timeout
        {
            return Some(CloseReason::Unauthenticated);
        }
        let request_since_ms = self.request_since_ms.load(Ordering::Relaxed);
        if request_since_ms != 0 && output_bytes == 0 {
            let arriving_for = since(request_since_ms);
            let due_bytes =
                u128::from(rules.body_bytes_per_second) * arriving_for.as_millis() / 1_000;
            if arriving_for >= rules.body_timeout
                && (self.request_bytes.load(Ordering::Relaxed) as u128) < due_bytes
            {
                return Some(CloseReason::Slow);
            }
        }
        let is_idle = !self.is_waiting.load(Ordering::Relaxed)
            && since(self.active_ms.load(Ordering::Relaxed)) >= rules.idle_timeout;
        (is_idle && !rules.idle_timeout.is_zero()).then_some(CloseReason::Idle)
    }

    /// This client in one line, as `CLIENT LIST` shows it.
    pub(crate) fn describe(&self, now_ms: u64) -> String {
        let address = |address: Option<SocketAddr>| {
            address.map_or_else(String::new, |address| address.to_string())
        };
        let fd = self
            .socket
            .as_ref()
            .map_or(-1, |socket| (**socket).as_ref().as_raw_fd());
        let seconds_since = |then_ms: u64| now_ms.saturating_sub(then_ms) / 1_000;
        let command = CommandId::from_index(self.command.load(Ordering::Relaxed));
        let names = self.names().clone();
        format!(
            "id={} addr={} laddr={} fd={fd} name={} age={} idle={} flags=N db={} sub=0 psub=0 \
             ssub=0 multi=-1 qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={} oll=0 \
             omem={} tot-mem=0 events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            address(self.peer),
            address(self.local),
            names.name,
            seconds_since(self.since_ms),
            seconds_since(self.active_ms.load(Ordering::Relaxed)),
            self.database.load(Ordering::Relaxed),
            self.request_bytes.load(Ordering::Relaxed),
            self.output_bytes.load(Ordering::Relaxed),
            self.output_bytes.load(Ordering::Relaxed),
            command.map_or("NULL", |id| id.command().full_name),
            self.protocol.load(Ordering::Relaxed),
            names.library,
            names.library_version,
        )
    }
}

/// The rules of time that the watchdog enforces; from the limits.
#[derive(Debug, Clone)]
pub(crate) struct TimeRules {
    pub(crate) output_soft_bytes: usize,
    pub(crate) output_soft_for: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) body_bytes_per_second: u64,
    pub(crate) idle_timeout: Duration,
    /// `None` where clients need not authenticate.
    pub(crate) authentication_timeout: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: TimeRules = TimeRules {
        output_soft_bytes: 1_000,
        output_soft_for: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        body_bytes_per_second: 1_024,
        idle_timeout: Duration::from_secs(300),
        authentication_timeout: None,
    };

    fn client() -> Arc<Client> {
        Clients::new().open(None, 1)
    }

    #[test]
    fn a_silent_client_is_closed_after_the_idle_timeout_unless_it_waits_for_us() {
        let client = client();
        assert_eq!(client.overdue(300_000, &RULES), None);
        assert_eq!(client.overdue(300_001, &RULES), Some(CloseReason::Idle));
        client.set_waiting(true);
        assert_eq!(client.overdue(300_001, &RULES), None);
        client.set_waiting(false);
        client.was_active(300_000);
        assert_eq!(client.overdue(300_001, &RULES), None);
    }

    #[test]
    fn a_request_that_trickles_in_is_closed_and_one_that_flows_is_not() {
        let client = client();
        client.request_goes_on(30, 1_000);
        client.was_active(31_000);
        assert_eq!(client.overdue(30_999, &RULES), None);
        assert_eq!(client.overdue(31_000, &RULES), Some(CloseReason::Slow));
        client.request_goes_on(100 << 10, 31_000);
        assert_eq!(client.overdue(31_000, &RULES), None);
        client.request_ended();
        client.request_goes_on(1, 40_000);
        assert_eq!(client.overdue(60_000, &RULES), None);
    }

    #[test]
    fn output_above_the_soft_bound_is_closed_only_if_it_stays_there() {
        let client = client();
        client.set_output_bytes(1_001);
        assert_eq!(client.overdue(1_000, &RULES), None);
        assert_eq!(client.overdue(10_999, &RULES), None);
        client.set_output_bytes(1_000);
        assert_eq!(client.overdue(11_000, &RULES), None);
        client.set_output_bytes(1_001);
        assert_eq!(client.overdue(12_000, &RULES), None);
        assert_eq!(
            client.overdue(22_000, &RULES),
            Some(CloseReason::OutputBuffer)
        );
    }

    #[test]
    fn a_stranger_has_until_the_authentication_timeout() {
        let rules = TimeRules {
            authentication_timeout: Some(Duration::from_secs(5)),
            ..RULES
        };
        let client = client();
        assert_eq!(client.overdue(5_000, &rules), None);
        assert_eq!(
            client.overdue(5_001, &rules),
            Some(CloseReason::Unauthenticated)
        );
        client.set_authenticated();
        assert_eq!(client.overdue(5_001, &rules), None);
    }
}
