//! A real system of record: PostgreSQL behind three nodes.
//!
//! What is checked is checked by the database: it counts its queries, and its rows carry how often they were changed.

#![expect(
    clippy::print_stdout,
    reason = "a test that is skipped says so, and how much was checked is of interest"
)]

mod behind;
mod server;
mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use nearcache::{Ack, LoadError, LoadPolicy, Mode};

use service::Service;

type TestResult = Result<(), server::AnyError>;

/// No test takes longer.
const BOUND: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);
const TEAM: &str = "team:1";

/// Pages of that team.
fn page_of_team(number: u64) -> u64 {
    number % 8 * 2 + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o6_an_expensive_query_runs_once_for_three_hundred_callers_on_three_nodes() -> TestResult {
    tokio::time::timeout(BOUND, async {
        let (test, policy) = ("o6_postgres", LoadPolicy::new());
        let Some(service) = Service::start(test, Mode::Replicated, HOUR, policy).await? else {
            return Ok(());
        };
        for id in 0..3 {
            let callers: Vec<_> = (0..300)
                .map(|caller| {
                    let instance = Arc::clone(&service.instances[caller % 3]);
                    tokio::spawn(async move { instance.page(id, 0.5).await })
                })
                .collect();
            for caller in callers {
                let page = caller.await??.ok_or("no such page")?;
                assert_eq!(page.body, format!("page {id}, version 0"));
            }
            let asked = id.cast_signed() + 1;
            assert_eq!(service.database.queries().await?, asked, "each page once");
        }
        assert_eq!(service.instances[0].page(1_000, 0.0).await?, None);
        Ok(())
    })
    .await?
}

/// Rows are changed 1,000 times, each change invalidates them by tag on all nodes, and meanwhile all nodes read them, with
/// queries that take up to 4 ms after they have seen the row. Who begins to read when an invalidation has returned sees that
/// change or a later one.
async fn no_stale_set(test: &str, mode: Mode) -> TestResult {
    let policy = LoadPolicy::new();
    let Some(service) = Service::start(test, mode, HOUR, policy).await? else {
        return Ok(());
    };
    let (known, stop) = (
        Arc::new(AtomicI64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let readers: Vec<_> = (0..6_u64)
        .map(|reader| {
            let instance = Arc::clone(&service.instances[usize::try_from(reader % 3).unwrap_or(0)]);
            let (known, stop) = (Arc::clone(&known), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while !stop.load(Ordering::SeqCst) {
                    let at_least = known.load(Ordering::SeqCst);
                    let number = reader + reads;
                    let seconds = [0.0, 0.001, 0.004][usize::try_from(number % 3).unwrap_or(0)];
                    let page = instance.page(page_of_team(number), seconds).await?;
                    let version = page.map_or(-1, |page| page.version);
                    assert!(version >= at_least, "{version} is older than {at_least}");
                    reads += 1;
                    // Hits do not wait: two readers that only hit would leave the runtime's two threads to nobody else.
                    tokio::task::yield_now().await;
                }
                Ok::<u64, LoadError>(reads)
            })
        })
        .collect();
    for round in 0..1_000_u64 {
        let version = service.database.change(TEAM).await?;
        let writer = &service.instances[usize::try_from(round % 3)?];
        let told = writer.pages.invalidate_tags_acked([TEAM], Ack::All, BOUND);
        told.await?;
        known.store(version, Ordering::SeqCst);
        for instance in &service.instances {
            let page = instance.page(page_of_team(round), 0.0).await?;
            let page = page.ok_or("no such page")?;
            assert!(page.version >= version, "round {round}: {page:?}");
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut reads = 3_000;
    for reader in readers {
        reads += reader.await??;
    }
    let queries = service.database.queries().await?;
    println!("{mode:?}: {reads} reads, {queries} queries");
    assert!(queries.unsigned_abs() < reads, "nothing was cached");

    // Nothing changes any more: what is loaded is kept, and is the newest.
    let mut queries = i64::MAX;
    for _ in 0..100 {
        let before = service.database.queries().await?;
        for instance in &service.instances {
            let page = instance.page(1, 0.0).await?.ok_or("no such page")?;
            assert_eq!(page.version, 1_000);
        }
        queries = service.database.queries().await? - before;
        if queries == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(queries, 0, "nothing is kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_c4_no_row_older_than_its_invalidation_is_served_in_mode_replicated() -> TestResult {
    tokio::time::timeout(
        BOUND,
        no_stale_set("c1_postgres_replicated", Mode::Replicated),
    )
    .await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_c4_no_row_older_than_its_invalidation_is_served_in_mode_invalidation() -> TestResult {
    tokio::time::timeout(
        BOUND,
        no_stale_set("c1_postgres_invalidation", Mode::Invalidation),
    )
    .await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_stopped_expired_pages_are_served_and_cold_ones_are_errors()
-> TestResult {
    tokio::time::timeout(BOUND, async {
        let policy = LoadPolicy::new()
            .stale_if_error(HOUR)
            .soft_timeout(Duration::from_millis(50));
        let ttl = Duration::from_millis(200);
        let (test, mode) = ("stale_postgres", Mode::Replicated);
        let Some(mut service) = Service::start(test, mode, ttl, policy).await? else {
            return Ok(());
        };
        let warm = service.instances[0].page(1, 0.0).await?;
        service.server.stop()?;
        tokio::time::sleep(2 * ttl).await;
        for instance in &service.instances {
            assert_eq!(instance.page(1, 0.0).await?, warm, "the expired copy");
        }
        let cold = service.instances[1].page(3, 0.0).await;
        assert!(matches!(cold, Err(LoadError::Failed(_))), "{cold:?}");

        service.server.resume().await?;
        let version = service.database.change(TEAM).await?;
        let mut newest = false;
        while !newest {
            let page = service.instances[2].page(1, 0.0).await?;
            newest = page.is_some_and(|page| page.version == version);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    })
    .await?
}
