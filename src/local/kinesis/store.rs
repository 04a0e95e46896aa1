//! Streams and records in one SQLite file. One task writes: it commits all waiting
//! requests together and responds to each after the commit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, QueryBuilder, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::base::error::{Error, Result};
use crate::local::kinesis::error::KinesisError;

/// Maximum number of requests that wait for the writer. Others wait in their connections.
const QUEUE_LENGTH: usize = 256;
/// Number of records after which a commit includes no further request.
const MAX_COMMIT_RECORDS: usize = 4_000;

/// A stream. Its number of shards never changes.
#[derive(Debug, Clone)]
pub struct Stream {
    pub id: i64,
    pub name: String,
    pub shards: u32,
    pub on_demand: bool,
    pub created_ms: i64,
}

impl Stream {
    /// Returns the key of a shard in the table of records, which combines stream and shard.
    pub fn shard_key(&self, shard: u32) -> i64 {
        self.id * 100_000 + i64::from(shard)
    }
}

/// A record to append.
#[derive(Debug)]
pub struct NewRecord {
    pub shard_key: i64,
    pub partition_key: String,
    pub data: Vec<u8>,
}

struct Append {
    records: Vec<NewRecord>,
    done: oneshot::Sender<Result<Vec<i64>, KinesisError>>,
}

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    streams: Arc<RwLock<BTreeMap<String, Stream>>>,
    pub pool: SqlitePool,
    writer: mpsc::Sender<Append>,
    pub retention: Duration,
    pub region: String,
}

/// Returns the current time in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

impl Store {
    /// Opens the file, creates it if it does not exist, and starts the writer.
    pub async fn open(path: &Path, retention: Duration, region: &str) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(10));
        let failed = |error: sqlx::Error| {
            Error::failed(format!("cannot open the Kinesis store `{}`", path.display()))
                .with_source(error)
                .hint(
                    "check free disk space and write permission; if the file is damaged, restore a \
                 copy, or move it away to start without its records",
                )
        };
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        for statement in [
            "CREATE TABLE IF NOT EXISTS streams (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, shards INTEGER NOT NULL, on_demand INTEGER NOT NULL, created_ms INTEGER NOT NULL)",
            "CREATE TABLE IF NOT EXISTS records (counter INTEGER PRIMARY KEY AUTOINCREMENT, shard_key INTEGER NOT NULL, partition_key TEXT NOT NULL, data BLOB NOT NULL, arrived_ms INTEGER NOT NULL)",
            "CREATE INDEX IF NOT EXISTS records_by_shard ON records (shard_key)",
        ] {
            sqlx::query(statement).execute(&pool).await.map_err(failed)?;
        }
        let rows: Vec<(i64, String, u32, bool, i64)> =
            sqlx::query_as("SELECT id, name, shards, on_demand, created_ms FROM streams")
                .fetch_all(&pool)
                .await
                .map_err(failed)?;
        let streams = rows
            .into_iter()
            .map(|(id, name, shards, on_demand, created_ms)| {
                (name.clone(), Stream { id, name, shards, on_demand, created_ms })
            })
            .collect();
        let connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        let (writer, queue) = mpsc::channel(QUEUE_LENGTH);
        tokio::spawn(write_records(connection, queue, retention));
        Ok(Self {
            streams: Arc::new(RwLock::new(streams)),
            pool,
            writer,
            retention,
            region: region.to_string(),
        })
    }

    /// Returns all streams, sorted by name.
    pub fn streams(&self) -> Vec<Stream> {
        self.streams
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .values()
            .cloned()
            .collect()
    }

    /// Returns the stream with this name.
    pub fn stream(&self, name: &str) -> Result<Stream, KinesisError> {
        let streams = self.streams.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        streams.get(name).cloned().ok_or_else(|| KinesisError::stream_not_found(name))
    }

    /// Creates a stream.
    pub async fn create(
        &self,
        name: &str,
        shards: u32,
        on_demand: bool,
    ) -> Result<(), KinesisError> {
        let created_ms = now_ms();
        let inserted: Result<(i64,), sqlx::Error> =
            sqlx::query_as("INSERT INTO streams (name, shards, on_demand, created_ms) VALUES (?, ?, ?, ?) RETURNING id")
                .bind(name)
                .bind(shards)
                .bind(on_demand)
                .bind(created_ms)
                .fetch_one(&self.pool)
                .await;
        let id = match inserted {
            Ok((id,)) => id,
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                return Err(KinesisError::in_use(name));
            }
            Err(error) => return Err(error.into()),
        };
        let stream = Stream { id, name: name.to_string(), shards, on_demand, created_ms };
        self.streams
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .insert(name.to_string(), stream);
        Ok(())
    }

    /// Deletes a stream and its records.
    pub async fn delete(&self, name: &str) -> Result<(), KinesisError> {
        let stream = self.stream(name)?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query("DELETE FROM streams WHERE id = ?")
            .bind(stream.id)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM records WHERE shard_key >= ? AND shard_key < ?")
            .bind(stream.shard_key(0))
            .bind(stream.shard_key(stream.shards))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.streams.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(name);
        Ok(())
    }

    /// Appends records. Returns their counters after the commit.
    pub async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<i64>, KinesisError> {
        let (done, committed) = oneshot::channel();
        self.writer
            .send(Append { records, done })
            .await
            .map_err(|_| KinesisError::internal("the writer has stopped"))?;
        committed.await.map_err(|_| KinesisError::internal("the writer has stopped"))?
    }
}

/// Commits queued requests until every [`Store`] has been dropped.
async fn write_records(
    mut connection: SqliteConnection,
    mut queue: mpsc::Receiver<Append>,
    retention: Duration,
) {
    let mut last_trim_ms = 0;
    while let Some(first) = queue.recv().await {
        let mut waiting = vec![first];
        let mut count = waiting[0].records.len();
        while count < MAX_COMMIT_RECORDS
            && let Ok(next) = queue.try_recv()
        {
            count += next.records.len();
            waiting.push(next);
        }
        match commit(&mut connection, &waiting).await {
            Ok(counters) => {
                let mut counters = counters.into_iter();
                for request in waiting {
                    let assigned = counters.by_ref().take(request.records.len()).collect();
                    // A disconnected client no longer waits for the response.
                    let _ = request.done.send(Ok(assigned));
                }
            }
            Err(error) => {
                let message = error.to_string();
                for request in waiting {
                    let _ = request.done.send(Err(KinesisError::internal(&message)));
                }
            }
        }
        if now_ms() - last_trim_ms > 60_000 {
            last_trim_ms = now_ms();
            trim(&mut connection, retention).await;
        }
    }
}

async fn commit(
    connection: &mut SqliteConnection,
    requests: &[Append],
) -> Result<Vec<i64>, sqlx::Error> {
    // IMMEDIATE, because a transaction that begins with a read fails if another transaction writes
    // before it does.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let (last,): (i64,) = sqlx::query_as(
        "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'records'), 0)",
    )
    .fetch_one(&mut *transaction)
    .await?;
    let arrived_ms = now_ms();
    let records: Vec<&NewRecord> = requests.iter().flat_map(|request| &request.records).collect();
    let counters: Vec<i64> = (last + 1..).take(records.len()).collect();
    let rows: Vec<(i64, &NewRecord)> = counters.iter().copied().zip(records).collect();
    for chunk in rows.chunks(200) {
        let mut insert = QueryBuilder::new(
            "INSERT INTO records (counter, shard_key, partition_key, data, arrived_ms) ",
        );
        insert.push_values(chunk, |mut row, (counter, record)| {
            row.push_bind(*counter)
                .push_bind(record.shard_key)
                .push_bind(record.partition_key.as_str())
                .push_bind(record.data.as_slice())
                .push_bind(arrived_ms);
        });
        insert.build().execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(counters)
}

/// Deletes records older than the retention time. Reads skip them in any case.
async fn trim(connection: &mut SqliteConnection, retention: Duration) {
    let oldest_ms = now_ms() - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    // Counters increase with arrival times, so all records before the first retained one are old.
    let trimmed = sqlx::query("DELETE FROM records WHERE counter < (SELECT COALESCE(MIN(counter), 0) FROM records WHERE arrived_ms >= ?)")
        .bind(oldest_ms)
        .execute(connection)
        .await;
    if let Err(error) = trimmed {
        tracing::warn!(%error, "cannot trim the Kinesis store");
    }
}
