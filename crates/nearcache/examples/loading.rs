//! A database that is slow, then down, then back: what callers see of it.
//!
//! ```sh
//! cargo run -p nearcache --example loading
//! ```

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nearcache::{Cache, LoadPolicy, Node};

/// A database that answers after 50 ms, or not at all.
#[derive(Clone, Default)]
struct Database {
    queries: Arc<AtomicUsize>,
    is_down: Arc<std::sync::atomic::AtomicBool>,
}

impl Database {
    async fn page(self, number: u64) -> Result<Option<String>, &'static str> {
        let query = self.queries.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if self.is_down.load(Ordering::SeqCst) {
            return Err("the database is down");
        }
        Ok((number < 100).then(|| format!("page {number}, query {query}")))
    }
}

async fn show(pages: &Cache<u64, String>, database: &Database, number: u64, when: &str) {
    let (began, database) = (Instant::now(), database.clone());
    let page = pages.get_or_load(&number, move |_| database.page(number));
    let said = match page.await {
        Ok(Some(page)) => page.to_string(),
        Ok(None) => "no such page".to_owned(),
        Err(error) => format!("error: {error}"),
    };
    println!("{when:<32} {:>6.1?}  {said}", began.elapsed());
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let node = Node::builder("example").start().await?;
    let policy = LoadPolicy::new()
        .stale_if_error(Duration::from_secs(60))
        .soft_timeout(Duration::from_millis(20));
    let pages = node.cache::<u64, String>("pages");
    let pages = pages
        .time_to_live(Duration::from_millis(200))
        .load_policy(policy)
        .open()
        .await?;
    node.ready().await;
    let database = Database::default();

    show(&pages, &database, 7, "a miss").await;
    show(&pages, &database, 7, "a hit").await;
    let callers = (0..1_000).map(|_| {
        let (pages, database) = (pages.clone(), database.clone());
        tokio::spawn(async move { pages.get_or_load(&8, move |_| database.page(8)).await })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    let queries = database.queries.load(Ordering::SeqCst);
    println!(
        "{:<32}         {queries} queries so far",
        "1,000 callers of a cold page"
    );
    show(&pages, &database, 404, "a page that does not exist").await;

    tokio::time::sleep(Duration::from_millis(250)).await;
    database.is_down.store(true, Ordering::SeqCst);
    show(&pages, &database, 7, "expired, and the database down").await;
    show(&pages, &database, 9, "never loaded, and it is down").await;
    database.is_down.store(false, Ordering::SeqCst);
    show(&pages, &database, 7, "it is back").await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    show(&pages, &database, 7, "a moment later").await;
    println!("\n{:#?}", pages.stats().loads);
    Ok(())
}
