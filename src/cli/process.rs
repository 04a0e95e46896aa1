//! The process: allocator, TLS, logs, runtime and exit code around one subcommand.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::base::error::{Error, Result};
use crate::base::output::Printer;
use crate::cli::dispatch::run;
use crate::cli::{Cli, Global};

/// Query planning recurses deeply.
const STACK_BYTES: usize = 16 * 1024 * 1024;

pub fn main() -> ExitCode {
    tune_allocator();
    // Two providers are compiled in by dependencies; one is chosen before anything connects.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    let printer = Printer::new(cli.global.output, cli.global.quiet, cli.global.no_progress);
    start_log(&cli.global);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = on_large_stack(|| runtime.block_on(run(cli, &printer)));
            // What the Delta library still does for an ended run panics when its tasks go: nobody needs to hear of it.
            std::panic::set_hook(Box::new(|_| {}));
            // Calls to Kafka that block must not hold up the end.
            runtime.shutdown_timeout(std::time::Duration::from_millis(500));
            outcome
        }
        Err(error) => Err(Error::failed("cannot start").with_source(error)),
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
        let arenas = i32::try_from(crate::data::engine::session::cores().clamp(2, 8)).unwrap_or(2);
        const MIB: i32 = 1024 * 1024;
        for (parameter, value) in [
            (libc::M_ARENA_MAX, arenas),
            (libc::M_MMAP_THRESHOLD, 32 * MIB),
            (libc::M_TRIM_THRESHOLD, 64 * MIB),
        ] {
            // SAFETY: it sets a number inside the allocator, before there are other threads.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// Runs the work on a thread with a large stack: the main one's cannot be chosen.
fn on_large_stack(work: impl FnOnce() -> Result<ExitCode> + Send) -> Result<ExitCode> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unexpected("a panic, described above")),
            Err(error) => Err(Error::failed("cannot start").with_source(error)),
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
