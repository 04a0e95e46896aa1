//! `pinpipe completions`: print a shell completion script.

use clap::Args;

use crate::base::output::write_out;

/// Arguments of `pinpipe completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// Shell that the script is for
    pub shell: clap_complete::Shell,
}

/// Prints the completion script of a command line.
pub fn run(arguments: &CompletionsArguments, command: &mut clap::Command) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "pinpipe", &mut script);
    write_out(&String::from_utf8_lossy(&script));
}
