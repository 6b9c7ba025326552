//! Twice as much as fits.

use std::io::{Read, Write};

use crate::process::{Serve, connect, until};

/// Peak and present resident memory of a process, in bytes.
fn resident(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1_024
    };
    (field("VmHWM:"), field("VmRSS:"))
}

#[test]
fn twice_the_bound_stays_within_memory_and_the_newest_and_hottest_survive() {
    const BOUND: u64 = 100_000_000;
    const VALUE: usize = 10_000;
    const ENTRIES: usize = 20_000;
    const HOT: usize = 20;
    let serve = Serve::start(&["--set", "caches.default.max_bytes=100MB"]);
    let mut socket = connect(serve.http);
    let mut ask = |request: &[u8]| -> (u16, usize) {
        socket.write_all(request).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head[9..12].parse().unwrap();
        let length = head.split("content-length: ").nth(1);
        let length = length.map_or(0, |rest| rest.split('\r').next().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        socket.read_exact(&mut body).unwrap();
        (status, length)
    };
    let entry = |method: &str, number: usize, headers: &str| {
        format!(
            "{method} /v1/caches/default/entries/key:{number} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        )
    };
    let length = format!("Content-Length: {VALUE}\r\n");
    for number in 0..ENTRIES {
        let mut request = entry("PUT", number, &length).into_bytes();
        request.extend(std::iter::repeat_n(b'v', VALUE));
        assert_eq!(ask(&request).0, 204, "{number}");
        // The hot ones are read again and again while the others stream through.
        if number % 10 == 0 {
            ask(entry("GET", number / 10 % HOT, "").as_bytes());
        }
    }
    let (peak, _) = resident(serve.pid());
    let allowed = BOUND * 5 / 4 + (64 << 20);
    assert!(
        peak <= allowed,
        "peak of {peak} bytes, allowed are {allowed}"
    );
    let caches = until(|| {
        let caches = serve.get("/v1/caches").json();
        (caches[0]["bytes"].as_u64().unwrap() <= BOUND).then_some(caches)
    });
    assert!(caches[0]["bytes"].as_u64().unwrap() > BOUND / 2, "{caches}");
    let mut held = |numbers: std::ops::Range<usize>| {
        numbers
            .filter(|number| ask(entry("GET", *number, "").as_bytes()) == (200, VALUE))
            .count()
    };
    assert_eq!(held(0..HOT), HOT, "the hottest survive");
    let newest = held(ENTRIES - 100..ENTRIES);
    assert!(newest >= 90, "{newest} of the 100 newest survive");
}

/// Bytes of resident memory that each of a thousand idle connections to `address` adds, all of which have
/// sent `request` once and read the answer.
fn idle_bytes(serve: &Serve, address: std::net::SocketAddr, request: &[u8]) -> u64 {
    const CONNECTIONS: u64 = 1_000;
    let used = |count: u64| -> Vec<_> {
        let open = |_| {
            let mut socket = connect_from_elsewhere(address);
            socket.write_all(request).unwrap();
            let mut answer = [0; 4096];
            assert!(
                socket.read(&mut answer).unwrap() > 1_000,
                "the value comes back"
            );
            socket
        };
        (0..count).map(open).collect()
    };
    // What the first connections cost is the listener's.
    let warm = used(100);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let before = resident(serve.pid()).1;
    let idle = used(CONNECTIONS);
    std::thread::sleep(IDLE);
    let after = resident(serve.pid()).1;
    // Each is served on as if nothing had been.
    for mut socket in warm.into_iter().chain(idle) {
        socket.write_all(request).unwrap();
        assert!(socket.read(&mut [0; 4096]).unwrap() > 1_000);
    }
    after.saturating_sub(before) / CONNECTIONS
}

/// From an address of loopback that nobody listens on: a thousand ports of 127.0.0.1 less would be in the
/// way of tests that take theirs again.
fn connect_from_elsewhere(address: std::net::SocketAddr) -> std::net::TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = std::net::SocketAddr::from(([127, 0, 0, 2], 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let socket = std::net::TcpStream::from(socket);
    socket
        .set_read_timeout(Some(crate::process::PATIENCE))
        .unwrap();
    socket
}

/// After so long without a request, a connection holds no buffers any more (reliability, limits).
const IDLE: std::time::Duration = std::time::Duration::from_secs(6);

#[test]
fn limits_3_1_an_idle_connection_costs_at_most_4_kib() {
    let _ = nearcache_server::machine::files::OpenFiles::raise();
    // A server each, so that the second does not live in what the first has left.
    let serve = || {
        let serve = Serve::start(&[]);
        let put = serve.put("/v1/caches/default/entries/key", "", &[b'v'; 1_000]);
        assert_eq!(put.status, 204);
        serve
    };
    let (first, second) = (serve(), serve());
    let get = b"GET /v1/caches/default/entries/key HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let resp = idle_bytes(&first, first.resp, b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
    let http = idle_bytes(&second, second.http, get);
    println!("bytes per idle connection: RESP {resp}, HTTP {http}");
    // The allocator takes memory in steps of 2 MiB, which may be one more than is used.
    let allowed = 4_096 + (2 << 20) / 1_000;
    assert!(resp <= allowed, "RESP: {resp} bytes");
    assert!(http <= allowed, "HTTP: {http} bytes");
}
