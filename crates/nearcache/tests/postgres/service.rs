//! A service of three instances in front of one PostgreSQL server: a cache of its pages on each.

use std::sync::Arc;
use std::time::Duration;

use nearcache::{Cache, LoadError, LoadPolicy, Loaded, Mode, Node, StaticPeers};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config};

use crate::server::{AnyError, Server, connect};

/// A row: how often it was changed, and its text, which says the same.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Page {
    pub(crate) version: i64,
    pub(crate) body: String,
}

/// A connection that is made anew when it is gone.
pub(crate) struct Database {
    config: Config,
    client: Mutex<Option<Arc<Client>>>,
}

/// Counts its queries itself: a sequence grows whatever becomes of who draws from it.
const TABLES: &str = "
    create table pages (id bigint primary key, team text not null, version bigint not null default 0);
    create sequence queries start 1;
    insert into pages select id, 'team:' || id % 2 from generate_series(0, 99) id;";

/// Reads a row as it is when the query begins, and answers after so many seconds.
const SLOW_READ: &str =
    "select version, team, nextval('queries') from pages, pg_sleep($2) where id = $1";

impl Database {
    pub(crate) fn new(config: Config) -> Self {
        let client = Mutex::new(None);
        Self { config, client }
    }

    /// The connection, or a new one.
    pub(crate) async fn client(&self) -> Result<Arc<Client>, tokio_postgres::Error> {
        let mut client = self.client.lock().await;
        if let Some(client) = client.as_ref()
            && !client.is_closed()
        {
            return Ok(Arc::clone(client));
        }
        let new = Arc::new(connect(&self.config).await?);
        *client = Some(Arc::clone(&new));
        Ok(new)
    }

    /// The page, as a loader answers: with its team as a tag and its version as that of the source.
    pub(crate) async fn page(&self, id: u64, seconds: f64) -> Result<Loaded<Page>, AnyError> {
        let id = i64::try_from(id)?;
        let client = self.client().await?;
        let rows = client.query(SLOW_READ, &[&id, &seconds]).await?;
        let Some(row) = rows.first() else {
            return Ok(Loaded::absent());
        };
        let (version, team): (i64, String) = (row.get(0), row.get(1));
        let body = format!("page {id}, version {version}");
        Ok(Loaded::value(Page { version, body })
            .tags([team])
            .source_version(version.cast_unsigned()))
    }

    /// Gives all pages of a team their next version, which is returned once it is committed.
    pub(crate) async fn change(&self, team: &str) -> Result<i64, AnyError> {
        let sql = "update pages set version = version + 1 where team = $1 returning version";
        let rows = self.client().await?.query(sql, &[&team]).await?;
        Ok(rows.first().ok_or("no such team")?.get(0))
    }

    /// How many pages were read, by the database's own counting.
    pub(crate) async fn queries(&self) -> Result<i64, AnyError> {
        let sql = "select case when is_called then last_value else 0 end from queries";
        Ok(self.client().await?.query_one(sql, &[]).await?.get(0))
    }
}

/// A server with an empty database; `None` where PostgreSQL is not installed, and the test says so.
pub(crate) async fn server_for(test: &str) -> Result<Option<Server>, AnyError> {
    let server = Server::start().await?;
    if server.is_none() {
        let required = std::env::var("XTASK_TOOLS").as_deref() == Ok("required");
        assert!(!required, "PostgreSQL is missing");
        println!("skipped: {test}: PostgreSQL is not installed");
    }
    Ok(server)
}

/// One instance: a node, its cache and its connections.
pub(crate) struct Instance {
    pub(crate) node: Node,
    pub(crate) pages: Cache<u64, Page>,
    databases: [Arc<Database>; 4],
}

impl Instance {
    /// Reads through the cache; the query takes so many seconds.
    pub(crate) async fn page(&self, id: u64, seconds: f64) -> Result<Option<Page>, LoadError> {
        // Several connections, so that queries overlap.
        let at = usize::try_from(id).unwrap_or(0) % self.databases.len();
        let database = Arc::clone(&self.databases[at]);
        let page = self
            .pages
            .get_or_load(&id, async move |_| database.page(id, seconds).await);
        Ok(page.await?.map(|page| (*page).clone()))
    }
}

/// A server with the table, and three instances that know each other.
pub(crate) struct Service {
    pub(crate) server: Server,
    pub(crate) database: Database,
    pub(crate) instances: Vec<Arc<Instance>>,
}

/// Each looks for those before it.
pub(crate) async fn three_nodes() -> Result<Vec<Node>, AnyError> {
    let (mut seeds, mut nodes) = (Vec::new(), Vec::new());
    for name in ["one", "two", "three"] {
        let node = Node::builder("test")
            .name(name)
            .discovery(StaticPeers::new(seeds.clone()))
            .start()
            .await?;
        seeds.push(node.local_addr());
        nodes.push(node);
    }
    Ok(nodes)
}

impl Service {
    /// `None` where PostgreSQL is not installed; the test says so.
    pub(crate) async fn start(
        test: &str,
        mode: Mode,
        time_to_live: Duration,
        policy: LoadPolicy,
    ) -> Result<Option<Self>, AnyError> {
        let Some(server) = server_for(test).await? else {
            return Ok(None);
        };
        server.connect().await?.batch_execute(TABLES).await?;
        let mut instances = Vec::new();
        for node in three_nodes().await? {
            let pages = node.cache("pages").mode(mode).load_policy(policy);
            let pages = pages.time_to_live(time_to_live).open().await?;
            let databases = std::array::from_fn(|_| Arc::new(Database::new(server.config())));
            instances.push(Arc::new(Instance {
                node,
                pages,
                databases,
            }));
        }
        for instance in &instances {
            instance.node.ready().await;
            while instance.node.members().len() < instances.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(Some(Self {
            database: Database::new(server.config()),
            server,
            instances,
        }))
    }
}
