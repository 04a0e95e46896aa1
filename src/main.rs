//! Entry point of the `pinpipe` binary, which calls the library crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    pinpipe::run()
}
