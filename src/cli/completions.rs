//! `pinpipe completions`: print a shell's completion script.

use clap::Args;

use crate::base::output::write_out;

/// Arguments of `pinpipe completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// Shell to complete in
    pub shell: clap_complete::Shell,
}

/// Prints the script of a command line.
pub fn run(arguments: &CompletionsArguments, command: &mut clap::Command) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "pinpipe", &mut script);
    write_out(&String::from_utf8_lossy(&script));
}
