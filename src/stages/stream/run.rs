//! A run of `stream`: three tasks in parallel, each from one stream into one table.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base::config::schema::{Config, Source};
use crate::base::error::{ErrorContext, Result};
use crate::base::model::Kind;
use crate::base::output::table::{Table, thousands};
use crate::base::output::{Printer, Report};
use crate::data::lake::decode::Reject;
use crate::stages::stream::source;
use crate::stages::stream::table::{StreamTable, TableCounts};

/// Retries of an unavailable source: pauses from 1 s to 30 s, about 15 minutes in total.
const SOURCE_RETRY_POLICY: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_secs(1))
    .with_max_delay(Duration::from_secs(30))
    .with_max_times(34);

/// Options of one run. `None` means the value in the configuration.
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    /// Service to read from; default: `stream.source`.
    pub source: Option<Source>,
    /// Process all records that are available now, then return.
    pub available_now: bool,
    /// Pause between reads while there are no new records, in milliseconds; default:
    /// `stream.interval_ms`.
    pub interval_ms: Option<u64>,
}

/// Conditions that end a run.
#[derive(Debug, Clone)]
pub struct StopCondition {
    /// The run ends when all available records are processed.
    pub available_now: bool,
    /// Cancellation ends the run after the commit in progress.
    pub stop: CancellationToken,
}

/// The report of `stream`.
#[derive(Debug, Serialize)]
pub struct StreamReport {
    pub seconds: f64,
    pub tables: Vec<TableCounts>,
    pub rejects: Vec<Reject>,
}

impl Report for StreamReport {
    fn text(&self) -> String {
        let mut table =
            Table::new(["source", "records", "rejects", "duplicates", "rows", "commits", "table"]);
        for counts in &self.tables {
            table.row([
                counts.source.clone(),
                thousands(counts.records),
                thousands(counts.rejects),
                thousands(counts.duplicates),
                thousands(counts.rows),
                thousands(counts.commits),
                counts.table.clone(),
            ]);
        }
        format!("{}\n{:.2} s", table.render(), self.seconds)
    }
}

/// Runs `pinpipe stream` until Ctrl-C, or until all available records are processed.
///
/// # Errors
/// A source or a table cannot be used.
pub async fn run(
    config: &Config,
    options: &StreamOptions,
    printer: &Printer,
) -> Result<StreamReport> {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    let signal_task = tokio::spawn(async move {
        crate::base::shutdown::shutdown_signal().await;
        on_signal.cancel();
    });
    if !options.available_now {
        printer.note("following the streams; press Ctrl-C to stop");
    }
    let result = run_until(
        config,
        options,
        StopCondition { available_now: options.available_now, stop },
        printer,
    )
    .await;
    signal_task.abort();
    let report = result?;
    for reject in report.rejects.iter().take(10) {
        printer.warn(format!("rejected a record of `{}`: {}", reject.origin, reject.reason));
    }
    Ok(report)
}

/// Runs until a stop condition holds. If one table fails, the others end after the commit in
/// progress.
///
/// # Errors
/// A source or a table cannot be used.
pub async fn run_until(
    config: &Config,
    options: &StreamOptions,
    stop_condition: StopCondition,
    printer: &Printer,
) -> Result<StreamReport> {
    let started = Instant::now();
    let source = options.source.unwrap_or(config.stream.source);
    let interval = Duration::from_millis(options.interval_ms.unwrap_or(config.stream.interval_ms));
    let mut tables = Vec::new();
    for kind in Kind::ALL {
        let records = source::open(config, source, kind).await?;
        tables.push(StreamTable::open(config, kind, records).await?);
    }
    let progress = std::sync::Arc::new(printer.progress("records", None));
    let max_records = config.stream.batch_records;
    let mut tasks = JoinSet::new();
    for mut table in tables {
        let (stop_condition, progress) = (stop_condition.clone(), progress.clone());
        let printer = printer.clone();
        tasks.spawn(async move {
            let result =
                follow(&mut table, &stop_condition, interval, max_records, &progress, &printer)
                    .await;
            if result.is_err() {
                stop_condition.stop.cancel();
            }
            result.map(|()| table)
        });
    }
    let mut report = StreamReport { seconds: 0.0, tables: Vec::new(), rejects: Vec::new() };
    let mut failure = None;
    while let Some(result) = tasks.join_next().await {
        match result.context(|| "a stream stopped unexpectedly")? {
            Ok(table) => {
                report.tables.push(table.counts);
                report.rejects.extend(table.rejects);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    progress.finish();
    if let Some(error) = failure {
        return Err(error);
    }
    report.tables.sort_by_key(|counts| counts.kind);
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Runs micro-batches of one table until a stop condition holds.
async fn follow(
    table: &mut StreamTable,
    stop_condition: &StopCondition,
    interval: Duration,
    max_records: usize,
    progress: &crate::base::output::progress::Progress,
    printer: &Printer,
) -> Result<()> {
    let mut backoff = None;
    loop {
        let records_before = table.counts.records;
        let pause = match table.run_micro_batch(max_records).await {
            Ok(at_end) => {
                backoff = None;
                progress.add(table.counts.records - records_before);
                if stop_condition.stop.is_cancelled() || (at_end && stop_condition.available_now) {
                    return Ok(());
                }
                if !at_end {
                    continue;
                }
                interval
            }
            // Continuous runs retry an unavailable source; `--available-now` reports it.
            Err(error) if error.is_retryable() && !stop_condition.available_now => {
                let is_first = backoff.is_none();
                let Some(delay) = backoff.get_or_insert_with(|| SOURCE_RETRY_POLICY.build()).next()
                else {
                    return Err(error);
                };
                if is_first {
                    printer.warn(format!("{error}; retrying"));
                }
                delay
            }
            Err(error) => return Err(error),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop_condition.stop.cancelled() => return Ok(()),
        }
    }
}
