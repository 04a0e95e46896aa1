//! The command line: its arguments and help. One file per subcommand converts arguments into
//! a call of the layer below and prints the result.

pub mod api;
pub mod batch;
pub mod completions;
pub mod connector;
pub mod demo;
pub mod destroy;
pub mod dispatch;
pub mod doctor;
pub mod emulate;
pub mod init;
pub mod local;
pub mod process;
pub mod provision;
pub mod schedule;
pub mod seed;
pub mod selection;
pub mod status;
pub mod stream;
pub mod topics;
pub mod value_parser;

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::base::output::Format;
use crate::base::output::terminal::ColorChoice;
use crate::cli::api::ApiCommand;
use crate::cli::batch::BatchCommandLine;
use crate::cli::completions::CompletionsArguments;
use crate::cli::connector::ConnectorCommand;
use crate::cli::demo::DemoArguments;
use crate::cli::destroy::DestroyArguments;
use crate::cli::emulate::EmulateArguments;
use crate::cli::init::InitArguments;
use crate::cli::local::LocalArguments;
use crate::cli::provision::ProvisionArguments;
use crate::cli::seed::SeedArguments;
use crate::cli::selection::SelectionArguments;
use crate::cli::stream::StreamArguments;
use crate::cli::topics::TopicsCommand;

/// Provision and run Pinterest's data pipeline, on AWS or on this machine
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Example: pinpipe demo\n\nExit codes: 0 success, 1 failure, 2 wrong usage or configuration,\n3 changes pending (provision --plan --detailed-exit-code)"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every subcommand accepts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file [default: pinpipe.toml if it exists, otherwise built-in]
    // An empty variable counts as not set, so an empty path is accepted here.
    #[arg(long, global = true, value_name = "FILE", env = "PINPIPE_CONFIG", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub config: Option<PathBuf>,
    /// Folder for local state [default: .pinpipe (data_dir)]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Format of results on stdout
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// When to colour output
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
    /// Log more on stderr: -v progress, -vv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print only warnings and errors on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Hide progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
}

/// The subcommands, in the order in which a newcomer needs them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole pipeline on this machine and print the eight answers
    #[command(after_help = "Example: pinpipe demo --posts 500")]
    Demo(DemoArguments),
    /// Write a commented configuration file, pinpipe.toml, into this folder
    #[command(after_help = "Example: pinpipe init --target aws")]
    Init(InitArguments),
    /// Fill the source database with generated posts or with posts from files
    #[command(after_help = "Examples:\n  pinpipe seed\n  pinpipe seed --from ./tables --replace")]
    Seed(SeedArguments),
    /// Run broker, gateway, Kinesis endpoint and sink on this machine until Ctrl-C
    #[command(
        after_help = "Example: pinpipe local --any-port\n\nDefault ports: kafka 9092, gateway 8082, kinesis 4567, control 8083 ([local] in the configuration)"
    )]
    Local(LocalArguments),
    /// Create or update every resource of the pipeline, and repair drift
    #[command(
        after_help = "Examples:\n  pinpipe provision --plan\n  pinpipe provision --only api,usage-plan\n\nOn AWS, prints the plan and asks for confirmation. Progress is saved in the state file;\nre-run the command to resume."
    )]
    Provision(ProvisionArguments),
    /// Show every resource of the pipeline, its age and its cost
    #[command(after_help = "Example: pinpipe status --output json")]
    Status(SelectionArguments),
    /// Create, list, describe or delete Kafka topics
    #[command(subcommand, after_help = "Example: pinpipe topics describe")]
    Topics(TopicsCommand),
    /// Manage the sink connector (Kafka topics to lake)
    #[command(subcommand, after_help = "Example: pinpipe connector status")]
    Connector(ConnectorCommand),
    /// Deploy, show or delete the routes of the gateway
    #[command(subcommand, after_help = "Example: pinpipe api url")]
    Api(ApiCommand),
    /// Emulate users: post rows of the database through the gateway
    #[command(
        after_help = "Examples:\n  pinpipe emulate --posts 500\n  pinpipe emulate --to kafka --rate 2 --duration 10m"
    )]
    Emulate(EmulateArguments),
    /// Clean the lake into Delta tables and answer the eight questions
    #[command(
        after_help = "Examples:\n  pinpipe batch --out answers\n  pinpipe batch schedule --trigger"
    )]
    Batch(BatchCommandLine),
    /// Clean records into Delta tables as they arrive, exactly once
    #[command(
        after_help = "Examples:\n  pinpipe stream --available-now\n  pinpipe stream --source kafka"
    )]
    Stream(StreamArguments),
    /// Test every connection of the configuration
    #[command(after_help = "Example: pinpipe doctor")]
    Doctor,
    /// Delete the resources that `provision` created, or all local data
    #[command(
        after_help = "Examples:\n  pinpipe destroy --data --yes\n  pinpipe destroy --skip bucket,plugin-object"
    )]
    Destroy(DestroyArguments),
    /// Print a shell completion script
    #[command(
        after_help = "Example: pinpipe completions bash > ~/.local/share/bash-completion/completions/pinpipe"
    )]
    Completions(CompletionsArguments),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
