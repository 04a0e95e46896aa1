//! The stages of the demo.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::base::config::data_dir::{self, DataEntry};
use crate::base::config::endpoints::lake_bucket;
use crate::base::config::schema::{Config, Destination, Target};
use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::Kind;
use crate::base::output::Printer;
use crate::base::output::table::thousands;
use crate::base::shutdown::run_until_shutdown;
use crate::cli::demo::report::{Claim, DemoReport, OutputLocation, REPORT_PAGE, Stage};
use crate::cli::demo::{DemoArguments, agree};
use crate::clients::database::connect::{Access, Database};
use crate::clients::kafka::admin::Admin;
use crate::data::tables::clean_table::TableNamespace;
use crate::data::tables::open_clean_table;
use crate::local::{LocalStack, check_not_running};
use crate::provision::engine::apply::apply;
use crate::stages::batch::run as batch;
use crate::stages::batch::run::BatchOptions;
use crate::stages::emulate::order::RowList;
use crate::stages::emulate::run as emulate;
use crate::stages::emulate::run::EmulateOptions;
use crate::stages::sink::connectors::group;
use crate::stages::source::seed::{SeedOptions, has_posts, seed};
use crate::stages::stream::run as stream;
use crate::stages::stream::run::{StopCondition, StreamOptions, StreamReport};
use crate::stages::stream::table::TableCounts;

/// Maximum time from the last post until the sink has no lag.
const SINK_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the whole pipeline and checks the counts of its stages.
///
/// # Errors
/// The target is not local; a stage failed; Ctrl-C.
pub async fn run(
    config: &Config,
    arguments: &DemoArguments,
    printer: &Printer,
) -> Result<DemoReport> {
    if config.target != Target::Local {
        return Err(Error::usage("the demo requires target local").hint(
            "run `pinpipe demo` in a folder without pinpipe.toml: the demo needs no configuration",
        ));
    }
    let mut config = config.clone();
    // Any free ports, so that the demo does not conflict with other servers on this machine.
    let ports = &mut config.local;
    (ports.kafka_port, ports.gateway_port, ports.kinesis_port, ports.control_port) = (0, 0, 0, 0);
    let started = Instant::now();
    let mut stages = Stages { printer, stages: Vec::new(), stage_started: Instant::now() };
    run_until_shutdown(fill_database(&config, printer, &mut stages), interrupted).await?;
    stages.begin();
    let stack = run_until_shutdown(LocalStack::start(&config), interrupted).await?;
    let config = config.with_addresses(&stack.addresses);
    stages.done("local", 0, 0, "broker, gateway, Kinesis endpoint and sink are running");
    let work = run_stages(&config, arguments, printer, stages, started);
    let outcome = run_until_shutdown(work, interrupted).await;
    // Stopped after Ctrl-C too, so that the sink finishes its objects.
    stack.stop().await;
    outcome
}

fn interrupted() -> Error {
    Error::interrupted("interrupted before the last stage")
        .hint("re-run the command to resume with the existing data")
}

/// Collects the stages and prints each when it is complete.
struct Stages<'a> {
    printer: &'a Printer,
    stages: Vec<Stage>,
    stage_started: Instant,
}

impl Stages<'_> {
    fn begin(&mut self) {
        self.stage_started = Instant::now();
    }

    fn done(
        &mut self,
        name: &'static str,
        records_in: u64,
        records_out: u64,
        remark: impl Into<String>,
    ) {
        let stage = Stage {
            name,
            records_in,
            records_out,
            seconds: self.stage_started.elapsed().as_secs_f64(),
            remark: remark.into(),
        };
        self.printer.note(format!(
            "{:10} {:>8} in {:>8} out {:>7.2} s  {}",
            stage.name,
            thousands(records_in),
            thousands(records_out),
            stage.seconds,
            stage.remark
        ));
        self.stages.push(stage);
    }
}

async fn fill_database(config: &Config, printer: &Printer, stages: &mut Stages<'_>) -> Result<()> {
    // A folder that is in use, or cannot contain tables, is reported before the first post.
    check_not_running(&config.data_dir)?;
    data_dir::create(&config.data_dir)?;
    open_clean_table(config, TableNamespace::Batch, Kind::Pin).await?;
    if !has_posts(config).await? {
        let options = SeedOptions { posts: None, seed: 100, from: None, replace: false };
        let seeded = seed(config, &options, printer).await?;
        stages.done("seed", 0, seeded.posts, "generated posts in the source database");
    } else {
        let posts =
            Database::connect(config, Access::Existing).await?.row_numbers().await?.len() as u64;
        stages.done("seed", posts, posts, "existing posts in the source database");
    }
    Ok(())
}

async fn run_stages(
    config: &Config,
    arguments: &DemoArguments,
    printer: &Printer,
    mut stages: Stages<'_>,
    started: Instant,
) -> Result<DemoReport> {
    stages.begin();
    let applied = apply(config, printer).await?;
    stages.done(
        "provision",
        0,
        0,
        format!("{} of {} resources created or updated", applied.changes(), applied.steps.len()),
    );
    let admin = Admin::new(config)?;

    // Records of an earlier run are processed first, so that the counts contain only this run.
    wait_for_sink(config, &admin).await?;
    let available = StreamOptions { available_now: true, ..StreamOptions::default() };
    let until_drained = |stop| StopCondition { available_now: true, stop };
    stream::run_until(config, &available, until_drained(CancellationToken::new()), printer).await?;
    let topic_records_before = topic_records(config, &admin).await?;
    let sink_records_before = sink_records(config).await?;

    let rows = choose_rows(config, arguments).await?;
    let distinct: Vec<i64> = rows.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let posts = rows.len() as u64;
    let sent = posts * Kind::ALL.len() as u64;

    stages.begin();
    let stop = CancellationToken::new();
    let continuous = StreamOptions { interval_ms: Some(250), ..StreamOptions::default() };
    let stop_condition = StopCondition { available_now: false, stop: stop.clone() };
    let streaming_started = Instant::now();
    // Aborted when the demo ends; otherwise it would retry reads from the stopped stack.
    let streaming = AbortOnDropHandle::new(tokio::spawn({
        let (config, printer) = (config.clone(), Printer::silent());
        async move { stream::run_until(&config, &continuous, stop_condition, &printer).await }
    }));
    let emulate_arguments = EmulateOptions {
        to: Some(Destination::Both),
        rows: Some(RowList(rows)),
        rate: Some(0.0),
        jitter_ms: Some(0),
        ..EmulateOptions::default()
    };
    let summary = emulate::run(config, &emulate_arguments, printer).await?;
    stages.done(
        "emulate",
        posts,
        summary.delivered,
        format!(
            "posts in, records out, {} records/s; p99 {:.1} ms",
            thousands(summary.records_per_second as u64),
            summary.latency_p99_ms
        ),
    );

    stages.begin();
    wait_for_sink(config, &admin).await?;
    let topic_records_after = topic_records(config, &admin).await?;
    let arrived = topic_records_after - topic_records_before;
    let written = sink_records(config).await? - sink_records_before;
    stages.done("sink", arrived, written, "from the topics to objects in the lake");

    stop.cancel();
    let first = streaming.await.context(|| "the stream stage ended unexpectedly")??;
    let second =
        stream::run_until(config, &available, until_drained(CancellationToken::new()), printer)
            .await?;
    let total = |read: fn(&TableCounts) -> u64| -> u64 {
        [&first, &second]
            .into_iter()
            .flat_map(|report: &StreamReport| &report.tables)
            .map(read)
            .sum()
    };
    let (streamed, stream_rows) = (total(|counts| counts.records), total(|counts| counts.rows));
    stages.stage_started = streaming_started;
    stages.done("stream", streamed, stream_rows, "from Kinesis to Delta tables, while posting");

    stages.begin();
    let out = DataEntry::Answers.path(&config.data_dir);
    let report = batch::run(
        config,
        &BatchOptions { out: Some(out.clone()), ..BatchOptions::default() },
        printer,
    )
    .await?;
    for line in report.skipped_lines().into_iter().chain(report.reject_lines()) {
        printer.warn(line);
    }
    let lake_records: u64 = report.inputs.iter().map(|input| input.records).sum();
    let batch_rows: u64 = report.inputs.iter().map(|input| input.rows).sum();
    stages.done(
        "batch",
        lake_records,
        batch_rows,
        format!("the whole lake, {} answers", report.answers.len()),
    );

    let mut claims = vec![
        Claim {
            claim: "records acknowledged by the gateway (3 per post, both layers)".into(),
            expected: 2 * sent,
            found: summary.delivered,
        },
        Claim { claim: "records in the topics".into(), expected: sent, found: arrived },
        Claim {
            claim: "records written to the lake by the sink".into(),
            expected: sent,
            found: written,
        },
        Claim { claim: "records read from the streams".into(), expected: sent, found: streamed },
    ];
    for kind in Kind::ALL {
        let agreement = agree::compare(config, kind, &distinct).await?;
        let name = kind.clean_table(&config.id);
        claims.push(Claim {
            claim: format!("{name}: rows of these posts in batch"),
            expected: distinct.len() as u64,
            found: agreement.batch_rows,
        });
        claims.push(Claim {
            claim: format!("{name}: rows of these posts in stream"),
            expected: distinct.len() as u64,
            found: agreement.stream_rows,
        });
        claims.push(Claim {
            claim: format!("{name}: rows that differ between batch and stream"),
            expected: 0,
            found: agreement.differing,
        });
    }
    let places = vec![
        OutputLocation { what: "lake", path: lake_bucket(config).into() },
        OutputLocation {
            what: "batch tables",
            path: std::path::PathBuf::from(config.endpoints().tables_url()).join("batch"),
        },
        OutputLocation {
            what: "stream tables",
            path: std::path::PathBuf::from(config.endpoints().tables_url()).join("stream"),
        },
        OutputLocation { what: REPORT_PAGE, path: out.join("report.html") },
        OutputLocation { what: "answers as CSV", path: out },
    ];
    Ok(DemoReport {
        seconds: started.elapsed().as_secs_f64(),
        stages: stages.stages,
        claims,
        places,
        answers: report.answers,
    })
}

/// Returns row numbers in random order. Every row is chosen once before any row is repeated.
async fn choose_rows(config: &Config, arguments: &DemoArguments) -> Result<Vec<i64>> {
    let mut all = Database::connect(config, Access::Existing).await?.row_numbers().await?;
    let mut random = ChaCha8Rng::seed_from_u64(arguments.seed.unwrap_or_else(rand::random));
    let mut rows = Vec::with_capacity(arguments.posts as usize);
    while rows.len() < arguments.posts as usize && !all.is_empty() {
        all.shuffle(&mut random);
        rows.extend(all.iter().take(arguments.posts as usize - rows.len()));
    }
    Ok(rows)
}

async fn topic_records(config: &Config, admin: &Admin) -> Result<u64> {
    let mut records = 0;
    for kind in Kind::ALL {
        let topic = admin.describe(&config.topic(kind)).await?;
        records += topic.map_or(0, |topic| {
            topic.partitions.iter().map(|partition| partition.end_offset.unsigned_abs()).sum()
        });
    }
    Ok(records)
}

/// Returns the number of records that the task of the connector has read since it started.
async fn sink_records(config: &Config) -> Result<u64> {
    let status = crate::clients::control::ControlClient::new(config)?
        .connector_status(&config.connector_name())
        .await?;
    Ok(status.map_or(0, |status| status.records))
}

/// Waits until the connector has committed all records of the topics.
///
/// # Errors
/// The connector is not running; it still has lag after [`SINK_TIMEOUT`].
async fn wait_for_sink(config: &Config, admin: &Admin) -> Result<()> {
    let group = group(&config.connector_name());
    let topics = Kind::ALL.map(|kind| config.topic(kind));
    let deadline = Instant::now() + SINK_TIMEOUT;
    loop {
        let lag = admin.lag(&group, &topics).await?;
        if lag == 0 {
            return Ok(());
        }
        let control = crate::clients::control::ControlClient::new(config)?;
        if let Some(status) = control.connector_status(&config.connector_name()).await?
            && status.state != "RUNNING"
        {
            let reason = status.trace.map(|trace| format!(": {trace}")).unwrap_or_default();
            return Err(Error::failed(format!(
                "connector `{}` is {}{reason}",
                status.name, status.state
            ))
            .hint(
                "start `pinpipe local`, then run `pinpipe connector resume` if it is paused or \
                 `pinpipe connector restart` if it failed",
            ));
        }
        if Instant::now() > deadline {
            return Err(Error::failed(format!(
                "the sink still has a lag of {} records",
                thousands(lag)
            ))
            .hint("start `pinpipe local`, then run `pinpipe connector status`"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
