//! Entry point of the `pinpipe` binary. The program itself is the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    pinpipe::run()
}
