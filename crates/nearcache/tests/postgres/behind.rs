//! Write-behind while the database stops and starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nearcache::{Cache, Node, Sink, SinkError, SinkWrite, WriteBehind};

use crate::server::{AnyError, Server};
use crate::service::{Database, server_for, three_nodes};
use crate::{BOUND, TestResult};

/// A row is what was written last; of what is removed there stays a row without a text.
const TABLE: &str =
    "create table notes (id bigint primary key, version bytea not null, body text);";
/// Writes many rows with one statement. What was written before, or is older than what is there, changes nothing.
const UPSERT: &str = "
    insert into notes select * from unnest($1::bigint[], $2::bytea[], $3::text[])
    on conflict (id) do update set version = excluded.version, body = excluded.body
    where notes.version < excluded.version";

/// Writes rows.
struct Notes {
    database: Database,
}

impl Sink<u64, String> for Notes {
    async fn write(&self, write: &SinkWrite<'_, u64, String>) -> Result<(), SinkError> {
        self.upsert([write]).await
    }

    async fn write_many(&self, writes: &[SinkWrite<'_, u64, String>]) -> Result<(), SinkError> {
        self.upsert(writes).await
    }
}

impl Notes {
    async fn upsert<'a>(
        &self,
        writes: impl IntoIterator<Item = &'a SinkWrite<'a, u64, String>>,
    ) -> Result<(), SinkError> {
        let (mut ids, mut versions, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        for write in writes {
            ids.push(write.key().cast_signed());
            versions.push(write.version().to_bytes().to_vec());
            bodies.push(write.value().cloned());
        }
        let client = self.database.client().await?;
        client.execute(UPSERT, &[&ids, &versions, &bodies]).await?;
        Ok(())
    }
}

type Texts = Cache<u64, String>;

async fn instances(
    server: &Server,
    journals: &std::path::Path,
) -> Result<Vec<(Node, Texts)>, AnyError> {
    let mut instances = Vec::new();
    for node in three_nodes().await? {
        let sink = Notes {
            database: Database::new(server.config()),
        };
        let policy = WriteBehind::new()
            .journal(journals.join(node.name()))
            .delay(Duration::from_millis(5))
            .backoff(Duration::from_millis(20), Duration::from_millis(200));
        let cache = node.cache("notes").write_behind(sink, policy);
        instances.push((node.clone(), cache.open().await?));
    }
    for (node, _) in &instances {
        node.ready().await;
    }
    Ok(instances)
}

/// Three nodes write on while the database is stopped and started, three times over. No write is refused or lost, all nodes read them
/// meanwhile, and in the end the database holds what was written last under each key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_behind_loses_nothing_while_the_database_is_stopped_and_started() -> TestResult {
    tokio::time::timeout(BOUND, async {
        let Some(mut server) = server_for("behind_postgres").await? else {
            return Ok(());
        };
        server.connect().await?.batch_execute(TABLE).await?;
        let journals = tempfile::tempdir()?;
        let instances = instances(&server, journals.path()).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let cache = instances[usize::try_from(writer).unwrap_or(0)].1.clone();
                let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
                tokio::spawn(async move {
                    let mut last = BTreeMap::new();
                    for round in 0_u64.. {
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                        // Each writer has its own fifty keys.
                        let key = writer + 3 * (round % 50);
                        if round % 7 == 3 {
                            cache.remove(&key).await?;
                            last.insert(key, None);
                        } else {
                            let text = format!("round {round} of {writer}");
                            cache.put(&key, text.clone()).await?;
                            last.insert(key, Some(text));
                        }
                        written.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Ok::<_, AnyError>(last)
                })
            })
            .collect();

        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.stop()?;
            let before = written.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(500)).await;
            let meanwhile = written.load(Ordering::SeqCst) - before;
            assert!(meanwhile > 50, "{meanwhile} writes without the database");
            server.resume().await?;
        }
        stop.store(true, Ordering::SeqCst);
        let mut last = BTreeMap::new();
        for writer in writers {
            last.append(&mut writer.await??);
        }
        for (_, cache) in &instances {
            cache.flush_writes(Duration::from_secs(30)).await?;
            let writes = cache.stats().writes;
            assert_eq!((writes.queued, writes.dead_letters), (0, 0), "{writes:?}");
            println!("{writes:?}");
        }
        let rows = server.connect().await?;
        let rows = rows.query("select id, body from notes", &[]).await?;
        let rows = rows
            .iter()
            .map(|row| (row.get::<_, i64>(0).cast_unsigned(), row.get(1)));
        let rows: BTreeMap<u64, Option<String>> = rows.collect();
        assert_eq!(rows, last);
        Ok(())
    })
    .await?
}
