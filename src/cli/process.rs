//! The process: allocator, TLS, logs, runtime and exit code around one subcommand.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::base::error::{Error, Result};
use crate::base::output::terminal::ColorChoice;
use crate::base::output::{Format, Printer};
use crate::cli::dispatch::run;
use crate::cli::{Cli, Global};

/// Stack size of every thread; query planning recurses deeply.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Parses the command line, runs the subcommand and returns its exit code.
pub fn main() -> ExitCode {
    hide_files_from_other_users();
    tune_allocator();
    // Dependencies link two TLS providers; one must be selected before the first connection.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error),
    };
    let printer =
        Printer::new(cli.global.output, cli.global.color, cli.global.quiet, cli.global.no_progress);
    start_log(&cli.global);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = on_large_stack(|| runtime.block_on(run(cli, &printer)));
            suppress_delta_panics();
            // Blocking calls to Kafka must not delay the exit.
            runtime.shutdown_timeout(std::time::Duration::from_millis(500));
            outcome
        }
        Err(error) => Err(Error::failed("cannot start the runtime").with_source(error)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            printer.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints the help, the version, or an error of the command line. Searches the raw arguments for
/// `--output json`, because the command line cannot be parsed.
fn report_usage(error: &clap::Error) -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let is_json = arguments.iter().any(|argument| argument == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    if is_json && error.use_stderr() {
        let text = error.to_string();
        let message = text.trim().trim_start_matches("error: ").lines().next().unwrap_or_default();
        let printer = Printer::new(Format::Json, ColorChoice::Never, true, true);
        let failure = Error::usage(message)
            .hint("run the command with `--help` to see the accepted arguments");
        printer.error(&failure);
    } else {
        // A closed stdout or stderr cannot be reported.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Lets only the user read the files and open the folders that this process creates, also those of
/// its libraries: posts are data of people, and the state names every resource.
fn hide_files_from_other_users() {
    // SAFETY: `umask` only sets a number of this process, before other threads start.
    unsafe { libc::umask(0o077) };
}

/// Tunes the allocator of the C library for batch, which allocates and frees buffers of several
/// megabytes all the time. By default, glibc keeps freed memory in up to eight arenas per core,
/// where it stays unused (a third of the memory of a large run). It also returns every large
/// buffer to the system immediately, which has to clear the memory for the next allocation (a
/// twentieth of the run time).
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
            // SAFETY: `mallopt` sets a number inside the allocator, before other threads start.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// Runs the work on a thread with a large stack, because the stack size of the main thread is
/// fixed.
fn on_large_stack(work: impl FnOnce() -> Result<ExitCode> + Send) -> Result<ExitCode> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(internal_error("panicked (see above)")),
            Err(error) => Err(Error::failed("cannot start the main thread").with_source(error)),
        }
    })
}

/// Suppresses the panic messages of the Delta library, whose background tasks panic when the
/// runtime shuts down. Other panics are still printed.
fn suppress_delta_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|location| is_of_delta(location.file())) {
            print(panic);
        }
    }));
}

/// Whether a source file belongs to the Delta library.
fn is_of_delta(file: &str) -> bool {
    ["/buoyant_kernel", "/deltalake"].iter().any(|library| file.contains(library))
}

fn internal_error(reason: &str) -> Error {
    Error::failed(format!("internal error: {reason}"))
        .hint("this is a bug in pinpipe: please report it with the command you ran")
}

/// Starts the log on stderr. `PINPIPE_LOG` overrides the level, with a filter such as
/// `pinpipe=debug`; neither shows what may contain a secret.
fn start_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        // Libraries log errors that their callers handle, so they are shown only from -vv on.
        (true, _) => "off,pinpipe=error",
        (false, 0) => "off,pinpipe=warn",
        (false, 1) => "off,pinpipe=info",
        (false, 2) => "warn,pinpipe=debug,spark=debug",
        (false, _) => "debug,pinpipe=trace",
    };
    let filter = EnvFilter::try_from_env("PINPIPE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .finish()
        .with(filter_fn(|event| may_be_logged(event.target(), *event.level())))
        .init();
}

/// Whether the log may contain the events of a library, whatever the user's filter selects. A
/// directive of a filter cannot ensure this: a more specific one of the user would win.
fn may_be_logged(target: &str, level: Level) -> bool {
    let library = target.split("::").next().unwrap_or_default();
    if library.starts_with("sqlx") {
        // Events contain the options of the database URL, one of which may be a password.
        false
    } else if library.starts_with("aws_") || ["h2", "hyper", "reqwest"].contains(&library) {
        // Traces contain whole requests and responses, with signatures, tokens and keys.
        level <= Level::DEBUG
    } else {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_know_secrets_are_never_logged_in_full() {
        for target in ["sqlx", "sqlx::query", "sqlx_postgres::options::parse"] {
            assert!(!may_be_logged(target, Level::ERROR), "{target}");
        }
        for target in ["aws_smithy_runtime::client::orchestrator", "h2::codec", "reqwest"] {
            assert!(may_be_logged(target, Level::DEBUG), "{target}");
            assert!(!may_be_logged(target, Level::TRACE), "{target}");
        }
        assert!(may_be_logged("pinpipe::stages::sink", Level::TRACE));
    }

    #[test]
    fn only_panics_of_the_delta_library_are_suppressed() {
        let registry = "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        assert!(is_of_delta(&format!("{registry}/buoyant_kernel_engine-0.28.0/src/executor.rs")));
        assert!(is_of_delta(&format!("{registry}/deltalake-core-1.1.3/src/table/mod.rs")));
        assert!(!is_of_delta("src/data/tables/delta.rs"));
        assert!(!is_of_delta(&format!("{registry}/tokio-1.54.1/src/runtime/handle.rs")));
    }
}
