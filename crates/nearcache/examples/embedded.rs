//! A cache inside a program: typed values, expiry, tags, and what a read costs.
//!
//! `cargo run --release -p nearcache --example embedded`
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use nearcache::{Condition, Mode, Modify, Node, PutOptions};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct User {
    name: String,
    visits: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A node is this process's member of a cluster; here it is the only one.
    let node = Node::builder("example").name("embedded").start().await?;
    let users = node
        .cache::<u64, User>("users")
        .mode(Mode::Local)
        .max_bytes(64 << 20)
        .time_to_live(Duration::from_secs(600))
        .open()
        .await?;

    users
        .put(
            &7,
            User {
                name: "Ada".into(),
                visits: 1,
            },
        )
        .await?;
    let ada = users.get(&7).await?.ok_or("just put")?;
    println!("user 7 is {}, {} visit", ada.name, ada.visits);
    println!("and is forgotten in {:?}", ada.remaining_ttl(node.clock()));

    // Tags find entries again that no key prefix does.
    for id in 0..1000 {
        let user = User {
            name: format!("user {id}"),
            visits: 0,
        };
        users
            .put_with(
                &id,
                user,
                PutOptions::new().tags([format!("team:{}", id % 10)]),
            )
            .await?;
    }
    let before = users.len();
    users.invalidate_tags(["team:3"]).await?;
    let left = (0..1000).filter(|id| users.peek(id).is_some()).count();
    println!("invalidating one of ten teams leaves {left} of {before} users");

    // A change that depends on what is there.
    let claim = Modify::set(User {
        name: "Grace".into(),
        visits: 0,
    })
    .only_if(Condition::IfAbsent);
    let claimed = users.modify(&3, claim).await?;
    println!("user 3 was free: {}", claimed.applied);

    const READS: u64 = 2_000_000;
    let started = Instant::now();
    for number in 0..READS {
        black_box(users.get(&(number % 1000)).await?);
    }
    println!(
        "a read costs {:?}",
        started.elapsed() / u32::try_from(READS)?
    );

    let stats = users.stats();
    println!("{} hits, {} misses", stats.store.hits, stats.store.misses);
    node.shutdown().await;
    Ok(())
}
