//! pinpipe stands up and runs Pinterest's data pipeline: on AWS, or whole on one machine.

mod api;
mod aws;
mod batch;
mod cli;
mod config;
mod connector;
mod control;
mod database;
mod demo;
mod doctor;
mod emulate;
mod error;
mod files;
mod gateway;
mod init;
mod kafka;
mod lake;
mod local;
mod output;
mod provision;
mod record;
mod signals;
mod sink;
mod spark;
mod sql;
mod stream;
mod topics;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use batch::{BatchCommand, BatchCommandLine};
use cli::{Cli, Command, Global};
use config::{Config, Overrides};
use error::{Error, Result};
use output::Printer;

/// Query planning recurses deeply.
const STACK_BYTES: usize = 16 * 1024 * 1024;

fn main() -> ExitCode {
    tune_allocator();
    // Two providers are compiled in by dependencies; one is chosen before anything connects.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    let printer = Printer::new(cli.global.output, cli.global.quiet, cli.global.no_progress);
    start_log(&cli.global);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = on_large_stack(|| runtime.block_on(run(cli, &printer)));
            // What the Delta library still does for an ended run panics when its tasks go: nobody needs to hear of it.
            std::panic::set_hook(Box::new(|_| {}));
            // Calls to Kafka that block must not hold up the end.
            runtime.shutdown_timeout(std::time::Duration::from_millis(500));
            outcome
        }
        Err(error) => Err(Error::failed("cannot start").because(error)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            printer.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Tells the allocator of the C library what batch does: it takes and gives back buffers of
/// some megabytes all the time. By its own choice it spreads what is freed over eight arenas
/// for each core, where it stays unused (a third of the memory of a large run), and gives
/// every large buffer back to the system at once, which then has to clear it for the next
/// (a twentieth of the time).
fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let arenas = i32::try_from(batch::cores().clamp(2, 8)).unwrap_or(2);
        const MIB: i32 = 1024 * 1024;
        for (parameter, value) in [(libc::M_ARENA_MAX, arenas), (libc::M_MMAP_THRESHOLD, 32 * MIB), (libc::M_TRIM_THRESHOLD, 64 * MIB)] {
            // SAFETY: it sets a number inside the allocator, before there are other threads.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// Exit code of `provision --plan --detailed-exit-code` where a plan changes something.
const THERE_ARE_CHANGES: u8 = 3;

/// Runs the work on a thread with a large stack: the main one's cannot be chosen.
fn on_large_stack(work: impl FnOnce() -> Result<ExitCode> + Send) -> Result<ExitCode> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unexpected("a panic, described above")),
            Err(error) => Err(Error::failed("cannot start").because(error)),
        }
    })
}

fn unexpected(reason: &str) -> Error {
    Error::failed(format!("something unexpected happened: {reason}"))
        .hint("this is a mistake in pinpipe: please report it with the command you ran")
}

/// Logs go to stderr; `PINPIPE_LOG` takes a filter such as `pinpipe=debug`.
fn start_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        // Libraries log as errors what their callers handle: only who asks for more sees them.
        (true, _) => "off,pinpipe=error",
        (false, 0) => "off,pinpipe=warn",
        (false, 1) => "off,pinpipe=info",
        (false, 2) => "warn,pinpipe=debug,spark=debug",
        (false, _) => "debug,pinpipe=trace",
    };
    // The database library logs options of its URL, which may hold a password.
    let level = format!("{level},sqlx=off,sqlx_core=off,sqlx_mysql=off,sqlx_postgres=off");
    let filter = EnvFilter::try_from_env("PINPIPE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

async fn run(cli: Cli, printer: &Printer) -> Result<ExitCode> {
    let load = || -> Result<Config> { config::load(&Overrides { file: cli.global.config.clone(), data_dir: cli.global.data_dir.clone() }) };
    match cli.command {
        Command::Init(arguments) => init::run(&arguments, printer)?,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pinpipe", &mut text);
            output::write_out(&String::from_utf8_lossy(&text));
        }
        Command::Demo(arguments) => {
            let report = demo::run(&load()?, &arguments, printer).await?;
            printer.report(&report);
            let broken = report.broken();
            if broken > 0 {
                return Err(Error::failed(format!("{broken} of {} counts do not add up", report.claims.len()))
                    .hint("lines with ✖ say which; run it again in an empty folder, and report it if it happens there too"));
            }
        }
        Command::Seed(arguments) => printer.report(&database::seed(&load()?, &arguments, printer).await?),
        Command::Local(arguments) => local::run(load()?, &arguments, printer).await?,
        Command::Provision(arguments) => {
            let report = provision::provision(&load()?, &arguments, printer).await?;
            printer.report(&report);
            if arguments.detailed_exit_code && report.changes() > 0 {
                output::check_written()?;
                return Ok(ExitCode::from(THERE_ARE_CHANGES));
            }
        }
        Command::Status(selection) => printer.report(&provision::status(&load()?, &selection, printer).await?),
        Command::Destroy(arguments) => printer.report(&provision::destroy(&load()?, &arguments, printer).await?),
        Command::Topics(command) => topics::run(&load()?, command, printer).await?,
        Command::Connector(command) => connector::run(&load()?, command, printer).await?,
        Command::Api(command) => api::run(&load()?, command, printer).await?,
        Command::Emulate(arguments) => {
            let summary = emulate::run(&load()?, &arguments, printer).await?;
            printer.report(&summary);
            if summary.errors > 0 {
                let failure = Error::failed(format!("{} records were not delivered", output::thousands(summary.errors)));
                return Err(failure.because(format!("the first: {}", summary.first_reason.unwrap_or_default())).hint(
                    "those in the dead-letter file stand there with their reasons; posting again does no harm, repeated records count once",
                ));
            }
        }
        Command::Batch(BatchCommandLine { command: Some(BatchCommand::Schedule(arguments)), .. }) => {
            spark::schedule(&load()?, &arguments, printer).await?;
        }
        Command::Batch(BatchCommandLine { command: Some(BatchCommand::Unschedule), .. }) => spark::unschedule(&load()?, printer).await?,
        Command::Batch(BatchCommandLine { arguments, .. }) => {
            let report = batch::run(&load()?, &arguments, printer).await?;
            for line in report.reject_lines() {
                printer.warn(line);
            }
            printer.report(&report);
        }
        Command::Stream(arguments) => printer.report(&stream::run(&load()?, &arguments, printer).await?),
        Command::Doctor => {
            let report = doctor::run(&load()?).await;
            printer.report(&report);
            if report.failed() > 0 {
                return Err(Error::failed(format!("{} of {} checks failed", report.failed(), report.checks.len())));
            }
        }
    }
    output::check_written()?;
    Ok(ExitCode::SUCCESS)
}
