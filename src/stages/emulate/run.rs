//! A run of `emulate`: reads rows from the database and posts them at a limited rate, with
//! several workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::base::config::schema::{Config, Destination};
use crate::base::error::{Error, Result};
use crate::base::model::{Kind, Post};
use crate::base::output::Printer;
use crate::base::output::progress::Progress;
use crate::clients::database::connect::{Access, Database};
use crate::stages::emulate::order::{RowList, RowOrder};
use crate::stages::emulate::request::{DeliveryTarget, OutboundRecord, targets};
use crate::stages::emulate::sender::{Sender, lock};
use crate::stages::emulate::summary::Summary;

/// Rows read from the database at a time.
const READ_ROWS: usize = 200;
/// Consecutive failed deliveries that stop the run: the gateway is then considered unavailable.
const MAX_CONSECUTIVE_FAILURES: u64 = 60;

/// Options of one run. `None` means the default.
#[derive(Debug, Clone, Default)]
pub struct EmulateOptions {
    /// Destination of the posts; default: `emulate.to`.
    pub to: Option<Destination>,
    /// Maximum number of posts; default: unlimited.
    pub posts: Option<u64>,
    /// Maximum duration of the run; default: unlimited.
    pub duration: Option<Duration>,
    /// Posts per second, or 0 for no limit; default: `emulate.rate`.
    pub rate: Option<f64>,
    /// Maximum random pause before each post, in milliseconds; default: `emulate.jitter_ms`.
    pub jitter_ms: Option<u64>,
    /// Maximum number of requests in flight per topic or stream; default:
    /// `emulate.concurrency`.
    pub concurrency: Option<u32>,
    /// Records per request; default: `emulate.batch`.
    pub batch: Option<u32>,
    /// Random seed for the order of rows; default: random.
    pub seed: Option<u64>,
    /// Rows to post, once and in this order; default: all rows, in random order, repeatedly.
    pub rows: Option<RowList>,
}

/// Posts rows until `posts`, `duration` or `rows` is exhausted or the user interrupts the run.
///
/// # Errors
/// The database or the gateway cannot be used; a second interrupt aborted requests in flight.
/// Failed deliveries are in the summary instead, even if the run stopped because of them.
pub async fn run(config: &Config, options: &EmulateOptions, printer: &Printer) -> Result<Summary> {
    let to = options.to.unwrap_or(config.emulate.to);
    let rate = options.rate.unwrap_or(config.emulate.rate);
    if !crate::base::config::check::is_rate(rate) {
        return Err(Error::usage(format!(
            "`--rate`: expected 0, or 0.001 to 1000000 posts per second, got {rate}"
        )));
    }
    let concurrency =
        options.concurrency.map_or(config.emulate.concurrency, |number| number as usize);
    let batch = options.batch.map_or(config.emulate.batch, |number| number as usize);
    let database = Database::connect(config, Access::Existing).await?;
    let order = match &options.rows {
        Some(rows) => RowOrder::given(rows.0.clone()),
        None => {
            let all = database.require_posts().await?;
            RowOrder::shuffled(all, options.seed.unwrap_or_else(rand::random))
        }
    };
    let started = Instant::now();
    let deadline = options.duration.map(|duration| started + duration);
    let planned = match (&options.rows, options.posts) {
        (Some(rows), Some(posts)) => Some(posts.min(rows.0.len() as u64)),
        (Some(rows), None) => Some(rows.0.len() as u64),
        (None, posts) => posts,
    };
    let progress = Arc::new(printer.progress("posting", planned));
    let sender = Sender::new(config, concurrency, deadline, printer, progress.clone()).await?;
    let sender = Arc::new(sender);
    let targets: Arc<[DeliveryTarget]> = targets(config, to).into();
    for target in targets.iter() {
        sender.check(target).await?;
    }
    tracing::info!(to = ?to, concurrency, batch, rate, "posting");
    let rate_limiter = RateLimiter {
        started,
        rate,
        jitter_ms: options.jitter_ms.unwrap_or(config.emulate.jitter_ms),
        deadline,
    };

    let (jobs, receiver) = mpsc::channel::<Vec<Post>>(concurrency);
    let received_jobs: Jobs = Arc::new(tokio::sync::Mutex::new(receiver));
    let circuit_open = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        workers.spawn(deliver_jobs(
            received_jobs.clone(),
            sender.clone(),
            targets.clone(),
            progress.clone(),
            circuit_open.clone(),
        ));
    }
    let order = order.take(planned.map_or(usize::MAX, |posts| posts as usize));
    let mut result = {
        let feeding = feed(&database, order, batch, &rate_limiter, jobs, &circuit_open);
        tokio::select! {
            read = feeding => read.map_err(Failure::Database),
            () = crate::base::shutdown::shutdown_signal() => {
                printer.note(
                    "interrupted: waiting for requests in flight; Ctrl-C again aborts them",
                );
                Ok(())
            }
            failure = first_failure(&mut workers) => Err(failure),
        }
    };
    // The job channel is closed by now: the workers deliver the remaining jobs and exit.
    loop {
        let joined = tokio::select! {
            joined = workers.join_next() => joined,
            () = crate::base::shutdown::shutdown_signal() => {
                workers.abort_all();
                return Err(Error::interrupted(
                    "interrupted: records in flight may or may not have been delivered",
                )
                .hint("post the rows again: duplicates are dropped"));
            }
        };
        let Some(worker) = joined else { break };
        result = result.and(worker_outcome(worker));
    }
    progress.finish();
    match result {
        Ok(()) => {}
        Err(Failure::Database(error) | Failure::Panic(error)) => return Err(error),
        // The summary counts these records, so it is still printed.
        Err(Failure::DeadLetter(error)) => printer.warn(format!(
            "some undelivered records are missing from the dead-letter file: {error}"
        )),
    }
    let seconds = started.elapsed().as_secs_f64();
    let dead_letters = lock(&sender.dead_letters).path().map(std::path::Path::to_path_buf);
    let summary = lock(&sender.counts).summary(seconds, dead_letters);
    if circuit_open.load(Ordering::Relaxed) {
        printer.warn(format!(
            "stopped after {MAX_CONSECUTIVE_FAILURES} consecutive failed deliveries"
        ));
    }
    Ok(summary)
}

/// Error that ends a run early.
enum Failure {
    /// Rows cannot be read from the database.
    Database(Error),
    /// An undelivered record cannot be written to the dead-letter file.
    DeadLetter(Error),
    /// A worker panicked: the counts do not include the records that it was delivering.
    Panic(Error),
}

fn worker_outcome(worker: Result<Result<()>, JoinError>) -> Result<(), Failure> {
    match worker {
        Ok(outcome) => outcome.map_err(Failure::DeadLetter),
        Err(error) => Err(Failure::Panic(
            Error::failed("a worker panicked: its records may or may not have been delivered")
                .with_source(error)
                .hint(
                    "this is a bug in pinpipe: please report it with the command you ran, then \
                     post the rows again: duplicates are dropped",
                ),
        )),
    }
}

/// Waits for the first worker that fails. Never returns if no worker fails.
async fn first_failure(workers: &mut JoinSet<Result<()>>) -> Failure {
    while let Some(worker) = workers.join_next().await {
        if let Err(failure) = worker_outcome(worker) {
            return failure;
        }
    }
    std::future::pending().await
}

/// Schedule of the posts: the rate, the random pause and the end of the run.
struct RateLimiter {
    started: Instant,
    rate: f64,
    jitter_ms: u64,
    deadline: Option<Instant>,
}

impl RateLimiter {
    /// Waits until post `number` is due. Returns `false` if the deadline comes first.
    async fn wait(&self, number: u64) -> bool {
        if self.rate > 0.0 {
            let due = self.started + Duration::from_secs_f64(number as f64 / self.rate);
            if self.deadline.is_some_and(|deadline| due >= deadline) {
                return false;
            }
            tokio::time::sleep_until(due).await;
        }
        if self.jitter_ms > 0 {
            let pause = rand::rng().random_range(0..=self.jitter_ms);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }
}

/// Prefetches rows and sends them to the workers in batches, at the rate of the run.
async fn feed(
    database: &Database,
    order: impl Iterator<Item = i64>,
    batch: usize,
    rate_limiter: &RateLimiter,
    jobs: mpsc::Sender<Vec<Post>>,
    circuit_open: &AtomicBool,
) -> Result<()> {
    let mut order = order.peekable();
    let mut number = 0;
    let mut job = Vec::with_capacity(batch);
    while order.peek().is_some() {
        // At a low rate, few rows are read at a time, so that the first post is sent without delay.
        let ahead = if rate_limiter.rate > 0.0 {
            (rate_limiter.rate.ceil() as usize).clamp(1, READ_ROWS)
        } else {
            READ_ROWS
        };
        let numbers: Vec<i64> = order.by_ref().take(ahead).collect();
        for post in database.posts(&numbers).await? {
            if !rate_limiter.wait(number).await || circuit_open.load(Ordering::Relaxed) {
                break;
            }
            number += 1;
            job.push(post);
            if job.len() == batch
                && jobs.send(std::mem::replace(&mut job, Vec::with_capacity(batch))).await.is_err()
            {
                return Ok(());
            }
        }
        if rate_limiter.deadline.is_some_and(|deadline| Instant::now() >= deadline)
            || circuit_open.load(Ordering::Relaxed)
            || (rate_limiter.rate > 0.0
                && rate_limiter.deadline.is_some_and(|deadline| {
                    rate_limiter.started
                        + Duration::from_secs_f64(number as f64 / rate_limiter.rate)
                        >= deadline
                }))
        {
            break;
        }
    }
    if !job.is_empty() {
        // Cannot fail: `run` holds the receiver until this function has returned.
        let _ = jobs.send(job).await;
    }
    Ok(())
}

/// Receiving end of the job channel, shared by the workers.
type Jobs = Arc<tokio::sync::Mutex<mpsc::Receiver<Vec<Post>>>>;

/// Receives batches of posts and delivers the three records of each post to all targets.
async fn deliver_jobs(
    received_jobs: Jobs,
    sender: Arc<Sender>,
    targets: Arc<[DeliveryTarget]>,
    progress: Arc<Progress>,
    circuit_open: Arc<AtomicBool>,
) -> Result<()> {
    loop {
        let job = received_jobs.lock().await.recv().await;
        let Some(posts) = job else { return Ok(()) };
        let deliveries = targets.iter().map(|target| {
            let position =
                Kind::ALL.iter().position(|kind| *kind == target.kind).unwrap_or_default();
            let records = posts
                .iter()
                .map(|post| OutboundRecord {
                    row: post.number,
                    json: post.records[position].clone(),
                })
                .collect();
            sender.deliver(target, records)
        });
        for result in futures::future::join_all(deliveries).await {
            result?;
        }
        let mut counts = lock(&sender.counts);
        counts.posts += posts.len() as u64;
        progress.add(posts.len() as u64);
        if counts.consecutive_failures >= MAX_CONSECUTIVE_FAILURES {
            circuit_open.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_of_a_worker_is_not_reported_as_a_failed_delivery() {
        async fn worker() -> Result<()> {
            panic!("expected by the test")
        }
        let panicked = tokio::spawn(worker()).await;
        assert!(matches!(worker_outcome(panicked), Err(Failure::Panic(_))));
        let failed = Ok(Err(Error::failed("the disk is full")));
        assert!(matches!(worker_outcome(failed), Err(Failure::DeadLetter(_))));
        assert!(worker_outcome(Ok(Ok(()))).is_ok());
    }
}
