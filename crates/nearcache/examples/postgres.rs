//! Three instances of a service in front of one PostgreSQL: an expensive query that all of them share, a change that all of
//! them see, and writes that wait for the database while it is away.
//!
//! ```sh
//! cargo run -p nearcache --example postgres
//! ```
//!
//! PostgreSQL must be installed (Debian: `apt install postgresql`); the program starts a server of its own in a temporary folder,
//! and ends it.

#![expect(clippy::print_stdout, reason = "a program for people")]

#[path = "../tests/postgres/server.rs"]
mod server;

use std::time::{Duration, Instant};

use nearcache::{
    Ack, Cache, LoadPolicy, Loaded, Loader, Loading, Node, Previous, Sink, SinkError, SinkWrite,
    StaticPeers, WriteBehind,
};
use server::{AnyError, Server};
use tokio_postgres::Client;

/// The system of record, and an expensive query that counts itself.
const TABLES: &str = "
    create table orders (id bigint generated always as identity, customer bigint, cents bigint);
    insert into orders (customer, cents) select n % 50, n from generate_series(1, 100000) n;
    create sequence queries;
    create table notes (customer bigint primary key, version bytea not null, text text);";
const TOTAL: &str = "
    select sum(cents)::bigint, nextval('queries') from orders, pg_sleep(0.3) where customer = $1";

/// Reads what a customer has spent.
struct Totals {
    database: Client,
}

impl Loader<i64, i64> for Totals {
    type Error = tokio_postgres::Error;

    async fn load(&self, key: &i64, _: Previous<i64>) -> Result<Loaded<i64>, Self::Error> {
        let row = self.database.query_one(TOTAL, &[key]).await?;
        let total: Option<i64> = row.get(0);
        // Whoever changes an order of this customer invalidates the tag.
        Ok(Loaded::from(total).tags([customer(*key)]))
    }
}

/// Writes what is noted of a customer. A write may be made twice, and two instances may write the same row: the newer one wins.
struct Notes {
    database: tokio_postgres::Config,
}

const NOTE: &str = "
    insert into notes values ($1, $2, $3) on conflict (customer) do update
    set version = excluded.version, text = excluded.text where notes.version < excluded.version";

impl Sink<i64, String> for Notes {
    async fn write(&self, write: &SinkWrite<'_, i64, String>) -> Result<(), SinkError> {
        let version = write.version().to_bytes();
        // A service would take it from a pool.
        let database = server::connect(&self.database).await?;
        let (text, version) = (write.value(), version.as_slice());
        database
            .execute(NOTE, &[write.key(), &version, &text])
            .await?;
        Ok(())
    }
}

fn customer(id: i64) -> String {
    format!("customer:{id}")
}

type Shared = Loading<i64, i64, Totals>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let Some(mut server) = Server::start().await? else {
        println!("skipped: example postgres: PostgreSQL is not installed");
        return Ok(());
    };
    let database = server.connect().await?;
    database.batch_execute(TABLES).await?;

    // Three instances of a service; here in one process, elsewhere on three machines.
    let (mut nodes, mut instances) = (Vec::<Node>::new(), Vec::new());
    for name in ["one", "two", "three"] {
        let seeds = nodes.iter().map(Node::local_addr);
        let node = Node::builder("orders")
            .name(name)
            .discovery(StaticPeers::new(seeds))
            .start()
            .await?;
        instances.push(open(&node, &server).await?);
        nodes.push(node);
    }
    for node in &nodes {
        node.ready().await;
    }

    // All of them are asked at once, a hundred times each.
    let began = Instant::now();
    let callers = (0..300).map(|caller| {
        let totals = instances[caller % 3].clone();
        tokio::spawn(async move { totals.get(&7).await.map(|total| total.map(|total| *total)) })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    let count: i64 = database
        .query_one("select last_value from queries", &[])
        .await?
        .get(0);
    println!(
        "300 callers on 3 instances have the total after {:.0?}; the database ran {count} query",
        began.elapsed()
    );
    show("the first answer", &instances).await?;

    // An order comes in: first it is committed, then everybody is told.
    let order = "insert into orders (customer, cents) values (7, 1000000)";
    database.execute(order, &[]).await?;
    let told = instances[0].cache();
    told.invalidate_tags_acked([customer(7)], Ack::All, Duration::from_secs(5))
        .await?;
    // For as long as the instances' clocks may differ, what was just invalidated is returned and not kept: it may be asked for twice.
    show("after an order", &instances).await?;

    // The database is gone. What is in memory is served; what has expired too, for an hour.
    server.stop()?;
    show("without the database", &instances).await?;

    // Writes are accepted all the same, and made when it is back. With `WriteBehind::journal` they outlive a crash as well.
    let sink = Notes {
        database: server.config(),
    };
    let notes = nodes[0].cache::<i64, String>("notes");
    let policy = WriteBehind::new().backoff(Duration::from_millis(50), Duration::from_millis(500));
    let notes = notes.write_behind(sink, policy).open().await?;
    for version in 1..=100 {
        notes.put(&7, format!("note {version}")).await?;
    }
    println!(
        "100 notes accepted    {} row waits",
        notes.stats().writes.queued
    );
    server.resume().await?;
    notes.flush_writes(Duration::from_secs(10)).await?;
    let database = server.connect().await?;
    let row = database.query_one("select text from notes where customer = 7", &[]);
    let text: String = row.await?.get(0);
    let writes = notes.stats().writes;
    println!(
        "the database is back  it has {text:?}, written {} time(s)",
        writes.written
    );
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(())
}

async fn open(node: &Node, server: &Server) -> Result<Shared, AnyError> {
    let cache: Cache<i64, i64> = node
        .cache("totals")
        .time_to_live(Duration::from_secs(600))
        .load_policy(LoadPolicy::new().stale_if_error(Duration::from_secs(3600)))
        .open()
        .await?;
    let database = server.connect().await?;
    Ok(cache.loading(Totals { database }))
}

/// What each instance says, and how long it took.
async fn show(when: &str, instances: &[Shared]) -> Result<(), AnyError> {
    print!("{when:<22}");
    for totals in instances {
        let began = Instant::now();
        let total = totals.get(&7).await?;
        print!(" {:?} in {:.1?}; ", total.as_deref(), began.elapsed());
    }
    println!();
    Ok(())
}
