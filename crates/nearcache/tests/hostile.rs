//! What peers must not be able to do.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::{TestResult, bounded, pair};
use nearcache::{Ack, PutOptions};

/// Sends `bytes` as a stranger and returns what came back until the node closed.
fn stranger(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(answer),
        Err(error) => Err(error),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_closes_its_connection_and_nothing_else() -> TestResult {
    bounded(async {
        let (one, _two, here, there) = pair().await;
        let address = one.local_addr();
        let huge_frame = [0xFF, 0xFF, 0xFF, 0xFF, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let short_frame = [0, 0, 0, 1, 1];
        let unknown_version = [0, 0, 0, 10, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let empty_hello = [0, 0, 0, 10, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let not_a_hello = [0, 0, 0, 10, 1, 0x41, 0, 0, 0, 0, 0, 0, 0, 0];
        let inputs: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            &huge_frame,
            &short_frame,
            &unknown_version,
            &empty_hello,
            &not_a_hello,
        ];
        for bytes in inputs {
            let bytes = bytes.to_vec();
            let answer = tokio::task::spawn_blocking(move || stranger(address, &bytes)).await??;
            assert!(answer.len() < 64, "a stranger learns nothing: {answer:?}");
        }
        here.put_with("key", "value".into(), PutOptions::new().ack(Ack::All))
            .await?;
        assert!(there.peek("key").is_some());
        assert_eq!(one.members().len(), 2);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_says_nothing_is_cut_off() -> TestResult {
    bounded(async {
        let (one, _two, _here, _there) = pair().await;
        let address = one.local_addr();
        let answer = tokio::task::spawn_blocking(move || stranger(address, &[0])).await??;
        assert!(answer.is_empty());
        Ok(())
    })
    .await
}
