//! The run: all three tables follow their streams.

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

/// How long a source may be away: 1 s to 30 s between tries, a quarter of an hour in all.
const SOURCE_RETRY_POLICY: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_secs(1))
    .with_max_delay(Duration::from_secs(30))
    .with_max_times(34);

/// Settings of one run; those that are `None` come from `[stream]` in the configuration.
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    /// What is read [default: kinesis (stream.source)]
    pub source: Option<Source>,
    /// Take what is there now, then stop
    pub available_now: bool,
    /// Pause between two reads when there is nothing new, in milliseconds [default: 1000 (stream.interval_ms)]
    pub interval_ms: Option<u64>,
}

/// When a run ends.
#[derive(Debug, Clone)]
pub struct StopCondition {
    /// Stop at the end of what is there.
    pub available_now: bool,
    /// Stop after the commit under way when this is cancelled.
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
        let mut table = Table::new([
            "source",
            "records",
            "rejects",
            "duplicates",
            "rows",
            "commits",
            "table",
        ]);
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

/// `pinpipe stream`: until Ctrl-C, or what is available now.
pub async fn run(
    config: &Config,
    options: &StreamOptions,
    printer: &Printer,
) -> Result<StreamReport> {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    let waiting = tokio::spawn(async move {
        crate::base::shutdown::shutdown_signal().await;
        on_signal.cancel();
    });
    if !options.available_now {
        printer.note("following the streams; Ctrl-C stops");
    }
    let report = run_until(
        config,
        options,
        StopCondition {
            available_now: options.available_now,
            stop,
        },
        printer,
    )
    .await;
    waiting.abort();
    let report = report?;
    for reject in report.rejects.iter().take(10) {
        printer.warn(format!(
            "left out a record of {}: {}",
            reject.origin, reject.reason
        ));
    }
    Ok(report)
}

/// Runs until the bounds say so. A table that fails stops the others after their commit.
pub async fn run_until(
    config: &Config,
    options: &StreamOptions,
    bounds: StopCondition,
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
    let most = config.stream.batch_records;
    let mut running = JoinSet::new();
    for mut table in tables {
        let (bounds, progress) = (bounds.clone(), progress.clone());
        let printer = printer.clone();
        running.spawn(async move {
            let outcome = follow(&mut table, &bounds, interval, most, &progress, &printer).await;
            if outcome.is_err() {
                bounds.stop.cancel();
            }
            outcome.map(|()| table)
        });
    }
    let mut report = StreamReport {
        seconds: 0.0,
        tables: Vec::new(),
        rejects: Vec::new(),
    };
    let mut failure = None;
    while let Some(done) = running.join_next().await {
        match done.context(|| "a stream stopped unexpectedly")? {
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

async fn follow(
    table: &mut StreamTable,
    bounds: &StopCondition,
    interval: Duration,
    most: usize,
    progress: &crate::base::output::progress::Progress,
    printer: &Printer,
) -> Result<()> {
    let mut backoff = None;
    loop {
        let before = table.counts.records;
        let pause = match table.run_micro_batch(most).await {
            Ok(at_end) => {
                backoff = None;
                progress.add(table.counts.records - before);
                if bounds.stop.is_cancelled() || (at_end && bounds.available_now) {
                    return Ok(());
                }
                if !at_end {
                    continue;
                }
                interval
            }
            // Who follows wants to go on where the other side comes back; who drains wants to know.
            Err(error) if error.is_retryable() && !bounds.available_now => {
                let is_first = backoff.is_none();
                let Some(delay) = backoff
                    .get_or_insert_with(|| SOURCE_RETRY_POLICY.build())
                    .next()
                else {
                    return Err(error);
                };
                if is_first {
                    printer.warn(format!("{error}; trying again"));
                }
                delay
            }
            Err(error) => return Err(error),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = bounds.stop.cancelled() => return Ok(()),
        }
    }
}
