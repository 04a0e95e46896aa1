//! The run: rows from the database, paced, to the gateway by many at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::base::config::schema::{Config, Destination};
use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::{Kind, Post};
use crate::base::output::Printer;
use crate::base::output::progress::Progress;
use crate::clients::database::connect::Database;
use crate::stages::emulate::order::{Order, RowList};
use crate::stages::emulate::request::{OutboundRecord, Target, targets};
use crate::stages::emulate::sender::Sender;
use crate::stages::emulate::summary::Summary;

/// Rows read from the database at a time.
const READ_ROWS: usize = 200;
/// Deliveries that fail in a row before the run gives up: the other side is gone.
const MAX_FAILURES_IN_A_ROW: u64 = 60;

/// Settings of one run; those that are `None` come from `[emulate]` in the configuration.
#[derive(Debug, Clone, Default)]
pub struct EmulateOptions {
    /// Where posts go [default: both (emulate.to)]
    pub to: Option<Destination>,
    /// Stop after so many posts [default: go on until Ctrl-C]
    pub posts: Option<u64>,
    /// Stop after this time, such as 90s, 15m or 2h; a bare number is seconds [default: go on until Ctrl-C]
    pub duration: Option<Duration>,
    /// Posts a second; 0 is as fast as it goes [default: 0 (emulate.rate)]
    pub rate: Option<f64>,
    /// Maximum random pause before each post.
    pub jitter_ms: Option<u64>,
    /// Posts, or batches of them, under way at a time [default: 16 (emulate.concurrency)]
    pub concurrency: Option<u32>,
    /// Records in one request [default: 1 (emulate.batch)]
    pub batch: Option<u32>,
    /// Number the order of the rows comes from [default: another one each time]
    pub seed: Option<u64>,
    /// Post exactly these rows, once and in this order: numbers and ranges, such as 7,19,30-40
    pub rows: Option<RowList>,
}

/// Runs until the posts, the time or the user's patience are used up.
///
/// # Errors
/// The database or the gateway cannot be used, or so many deliveries failed that
/// going on is pointless. Single failures are in the summary instead.
pub async fn run(config: &Config, options: &EmulateOptions, printer: &Printer) -> Result<Summary> {
    let to = options.to.unwrap_or(config.emulate.to);
    let rate = options.rate.unwrap_or(config.emulate.rate);
    if !crate::base::config::check::is_rate(rate) {
        return Err(Error::usage(
            "`--rate` must be 0, or 0.001 to 1000000 posts a second",
        ));
    }
    let concurrency = options
        .concurrency
        .map_or(config.emulate.concurrency, |number| number as usize);
    let batch = options
        .batch
        .map_or(config.emulate.batch, |number| number as usize);
    let database = Database::connect(config, false).await?;
    let order = match &options.rows {
        Some(rows) => Order::given(rows.0.clone()),
        None => {
            let all = database.row_numbers().await?;
            if all.is_empty() {
                return Err(Error::failed("the database holds no post").hint(
                    "a post is a row number that all three tables have; `pinpipe seed` fills them",
                ));
            }
            Order::shuffled(all, options.seed.unwrap_or_else(rand::random))
        }
    };
    let started = Instant::now();
    let until = options.duration.map(|duration| started + duration);
    let sender = Arc::new(Sender::new(config, concurrency, until).await?);
    let targets: Arc<[Target]> = targets(config, to).into();
    for target in targets.iter() {
        sender.check(target).await?;
    }
    let planned = match (&options.rows, options.posts) {
        (Some(rows), Some(posts)) => Some(posts.min(rows.0.len() as u64)),
        (Some(rows), None) => Some(rows.0.len() as u64),
        (None, posts) => posts,
    };
    tracing::info!(to = ?to, concurrency, batch, rate, "posting");
    let progress = Arc::new(printer.progress("posting", planned));
    let rate_limiter = RateLimiter {
        started,
        rate,
        jitter_ms: options.jitter_ms.unwrap_or(config.emulate.jitter_ms),
        until,
    };

    let (jobs, waiting) = mpsc::channel::<Vec<Post>>(concurrency);
    let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
    let circuit_open = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        workers.spawn(work(
            waiting.clone(),
            sender.clone(),
            targets.clone(),
            progress.clone(),
            circuit_open.clone(),
        ));
    }
    let order = order.take(planned.map_or(usize::MAX, |posts| posts as usize));
    let mut ended = {
        let feeding = feed(&database, order, batch, &rate_limiter, jobs, &circuit_open);
        tokio::select! {
            fed = feeding => fed.map_err(Failure::Feeding),
            () = crate::base::shutdown::shutdown_signal() => {
                printer.note("stopping: finishing what is under way");
                Ok(())
            }
            error = first_failure(&mut workers) => Err(Failure::Keeping(error)),
        }
    };
    // With the feeding gone the workers finish what they have and end.
    loop {
        let done = tokio::select! {
            done = workers.join_next() => done,
            () = crate::base::shutdown::shutdown_signal() => {
                workers.abort_all();
                return Err(Error::failed("stopped at once: records under way may have arrived or not").hint("posting them again does no harm: repeated records count once"));
            }
        };
        let Some(done) = done else { break };
        ended = ended.and(
            done.context(|| "a sender stopped unexpectedly")
                .flatten()
                .map_err(Failure::Keeping),
        );
    }
    progress.finish();
    match ended {
        Ok(()) => {}
        Err(Failure::Feeding(error)) => return Err(error),
        // The summary counts those records, so it is still shown.
        Err(Failure::Keeping(error)) => printer.warn(format!(
            "records that were not delivered could not be kept either: {error}"
        )),
    }
    let seconds = started.elapsed().as_secs_f64();
    let dead_letters = sender
        .dead_letters
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .path()
        .map(std::path::Path::to_path_buf);
    let summary = sender
        .counts
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .summary(seconds, dead_letters);
    if circuit_open.load(Ordering::Relaxed) {
        printer.warn(format!(
            "gave up after {MAX_FAILURES_IN_A_ROW} failed deliveries in a row"
        ));
    }
    Ok(summary)
}

/// What can end a run early.
enum Failure {
    /// The database gives no more rows.
    Feeding(Error),
    /// A record that was not delivered cannot be written down either.
    Keeping(Error),
}

/// Waits for a worker that fails; workers that end well are no news.
async fn first_failure(workers: &mut JoinSet<Result<()>>) -> Error {
    while let Some(done) = workers.join_next().await {
        if let Err(error) = done.context(|| "a sender stopped unexpectedly").flatten() {
            return error;
        }
    }
    std::future::pending().await
}

/// When each post may go.
struct RateLimiter {
    started: Instant,
    rate: f64,
    jitter_ms: u64,
    until: Option<Instant>,
}

impl RateLimiter {
    /// Waits for the turn of post `number`; `false`: the time is up.
    async fn wait(&self, number: u64) -> bool {
        if self.rate > 0.0 {
            let turn = self.started + Duration::from_secs_f64(number as f64 / self.rate);
            if self.until.is_some_and(|until| turn >= until) {
                return false;
            }
            tokio::time::sleep_until(turn).await;
        }
        if self.jitter_ms > 0 {
            let pause = rand::rng().random_range(0..=self.jitter_ms);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// Reads rows ahead and hands them out in batches, at their pace.
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
        // A slow pace wants few rows at a time, so that the first goes at once.
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
                && jobs
                    .send(std::mem::replace(&mut job, Vec::with_capacity(batch)))
                    .await
                    .is_err()
            {
                return Ok(());
            }
        }
        if rate_limiter
            .until
            .is_some_and(|until| Instant::now() >= until)
            || circuit_open.load(Ordering::Relaxed)
            || (rate_limiter.rate > 0.0
                && rate_limiter.until.is_some_and(|until| {
                    rate_limiter.started
                        + Duration::from_secs_f64(number as f64 / rate_limiter.rate)
                        >= until
                }))
        {
            break;
        }
    }
    if !job.is_empty() {
        // Workers only stop listening when this side is gone.
        let _ = jobs.send(job).await;
    }
    Ok(())
}

type Jobs = Arc<tokio::sync::Mutex<mpsc::Receiver<Vec<Post>>>>;

/// Takes one batch of posts after the other and sends its three records everywhere.
async fn work(
    jobs: Jobs,
    sender: Arc<Sender>,
    targets: Arc<[Target]>,
    progress: Arc<Progress>,
    circuit_open: Arc<AtomicBool>,
) -> Result<()> {
    loop {
        let job = jobs.lock().await.recv().await;
        let Some(posts) = job else { return Ok(()) };
        let deliveries = targets.iter().map(|target| {
            let position = Kind::ALL
                .iter()
                .position(|kind| *kind == target.kind)
                .unwrap_or_default();
            let records = posts
                .iter()
                .map(|post| OutboundRecord {
                    row: post.number,
                    json: post.records[position].clone(),
                })
                .collect();
            sender.deliver(target, records)
        });
        for delivered in futures::future::join_all(deliveries).await {
            delivered?;
        }
        let mut counts = sender
            .counts
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        counts.posts += posts.len() as u64;
        progress.add(posts.len() as u64);
        if counts.failures_in_a_row >= MAX_FAILURES_IN_A_ROW {
            circuit_open.store(true, Ordering::Relaxed);
        }
    }
}
