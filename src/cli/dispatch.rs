//! Runs the function of a subcommand.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::base::config::load::{Overrides, load};
use crate::base::error::Result;
use crate::base::output::{Printer, check_written};
use crate::cli::{
    Cli, Command, api, batch, completions, connector, demo, destroy, doctor, emulate, init, local,
    provision, seed, status, stream, topics,
};

/// Loads the configuration where the subcommand needs it, and runs the subcommand.
///
/// # Errors
/// Those of the subcommand; the configuration is invalid; stdout cannot be written.
pub async fn run(cli: Cli, printer: &Printer) -> Result<ExitCode> {
    let overrides = Overrides { file: cli.global.config, data_dir: cli.global.data_dir };
    let mut exit_code = ExitCode::SUCCESS;
    match cli.command {
        Command::Init(arguments) => init::run(&arguments, printer)?,
        Command::Completions(arguments) => completions::run(&arguments, &mut Cli::command()),
        Command::Demo(arguments) => demo::run(&load(&overrides)?, &arguments, printer).await?,
        Command::Seed(arguments) => seed::run(&load(&overrides)?, arguments, printer).await?,
        Command::Local(arguments) => local::run(load(&overrides)?, arguments, printer).await?,
        Command::Provision(arguments) => {
            exit_code = provision::run(&load(&overrides)?, arguments, printer).await?
        }
        Command::Status(selection) => status::run(&load(&overrides)?, selection, printer).await?,
        Command::Destroy(arguments) => destroy::run(&load(&overrides)?, arguments, printer).await?,
        Command::Topics(command) => topics::run(&load(&overrides)?, command, printer).await?,
        Command::Connector(command) => connector::run(&load(&overrides)?, command, printer).await?,
        Command::Api(command) => api::run(&load(&overrides)?, command, printer).await?,
        Command::Emulate(arguments) => emulate::run(&load(&overrides)?, arguments, printer).await?,
        Command::Batch(command_line) => {
            batch::run(&load(&overrides)?, command_line, printer).await?
        }
        Command::Stream(arguments) => stream::run(&load(&overrides)?, arguments, printer).await?,
        Command::Doctor => doctor::run(&load(&overrides)?, printer).await?,
    }
    check_written()?;
    Ok(exit_code)
}
