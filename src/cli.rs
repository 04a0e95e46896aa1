//! The command line: what it takes and what its help says.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::api::ApiCommand;
use crate::batch::BatchCommandLine;
use crate::connector::ConnectorCommand;
use crate::database::SeedArguments;
use crate::demo::DemoArguments;
use crate::emulate::EmulateArguments;
use crate::init::InitArguments;
use crate::local::LocalArguments;
use crate::output::Format;
use crate::provision::{DestroyArguments, ProvisionArguments, Selection};
use crate::stream::StreamArguments;
use crate::topics::TopicsCommand;

/// Stands up and runs Pinterest's data pipeline, on AWS or whole on this machine
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Example: pinpipe demo\n\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration,\n3 there are changes (provision --plan --detailed-exit-code)"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file [default: pinpipe.toml where there is one, else built-in]
    #[arg(long, global = true, value_name = "FILE", env = "PINPIPE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder for local state [default: .pinpipe (data_dir)]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How results are written to stdout
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// Say more on stderr: -v what happens, -vv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing on stderr but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show no progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
}

/// The subcommands, in the order in which a newcomer meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole pipeline on this machine and print the eight answers
    #[command(after_help = "Example: pinpipe demo --posts 500")]
    Demo(DemoArguments),
    /// Write a commented configuration, pinpipe.toml, into this folder
    #[command(after_help = "Example: pinpipe init --target aws")]
    Init(InitArguments),
    /// Fill the source database with generated or real posts
    #[command(after_help = "Examples:\n  pinpipe seed\n  pinpipe seed --from ./tables --replace")]
    Seed(SeedArguments),
    /// Run broker, gateway, Kinesis endpoint and sink on this machine until Ctrl-C
    #[command(
        after_help = "Example: pinpipe local --any-port\n\nPorts by default: kafka 9092, gateway 8082, kinesis 4567, control 8083 ([local] in the configuration)"
    )]
    Local(LocalArguments),
    /// Make all that the pipeline needs, and mend what differs
    #[command(
        after_help = "Examples:\n  pinpipe provision --plan\n  pinpipe provision --only api,usage-plan\n\nOn target aws it shows the plan and asks; what it made is remembered, and the next run goes on from there."
    )]
    Provision(ProvisionArguments),
    /// Show every resource of the pipeline, since when it is there and what it costs
    #[command(after_help = "Example: pinpipe status --output json")]
    Status(Selection),
    /// Create, list, describe or delete Kafka topics
    #[command(subcommand, after_help = "Example: pinpipe topics describe")]
    Topics(TopicsCommand),
    /// Make and steer the sink from topics to the lake
    #[command(subcommand, after_help = "Example: pinpipe connector status")]
    Connector(ConnectorCommand),
    /// Deploy and show the routes of the gateway
    #[command(subcommand, after_help = "Example: pinpipe api url")]
    Api(ApiCommand),
    /// Post rows of the database through the gateway, as users do
    #[command(after_help = "Examples:\n  pinpipe emulate --posts 500\n  pinpipe emulate --to kafka --rate 2 --duration 10m")]
    Emulate(EmulateArguments),
    /// Clean the lake, write Delta tables and answer the eight questions
    #[command(after_help = "Examples:\n  pinpipe batch --out answers\n  pinpipe batch schedule --trigger")]
    Batch(BatchCommandLine),
    /// Clean records as they arrive into Delta tables, each exactly once
    #[command(after_help = "Examples:\n  pinpipe stream --available-now\n  pinpipe stream --source kafka")]
    Stream(StreamArguments),
    /// Test every connection that the configuration names
    #[command(after_help = "Example: pinpipe doctor")]
    Doctor,
    /// Remove what `provision` made, or all data
    #[command(after_help = "Examples:\n  pinpipe destroy --data --yes\n  pinpipe destroy --skip bucket,plugin-object")]
    Destroy(DestroyArguments),
    /// Print completions for a shell
    #[command(after_help = "Example: pinpipe completions bash > ~/.local/share/bash-completion/completions/pinpipe")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// `90s`, `15m`, `2h`, `500ms`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time like 90s, 15m or 2h");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().map_err(|_| wrong())?;
    let seconds = match &text[split..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        for wrong in ["", "m", "5 weeks", "-1s"] {
            assert!(parse_duration(wrong).is_err(), "`{wrong}` was taken");
        }
    }
}
