//! Runs the function of a subcommand.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::base::config::load::{Overrides, load};
use crate::base::config::schema::Config;
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
    let load_config = || -> Result<Config> {
        let config = load(&overrides)?;
        for warning in &config.warnings {
            printer.warn(warning);
        }
        Ok(config)
    };
    let mut exit_code = ExitCode::SUCCESS;
    match cli.command {
        Command::Init(arguments) => init::run(&arguments, printer)?,
        Command::Completions(arguments) => completions::run(&arguments, &mut Cli::command()),
        Command::Demo(arguments) => demo::run(&load_config()?, &arguments, printer).await?,
        Command::Seed(arguments) => seed::run(&load_config()?, arguments, printer).await?,
        Command::Local(arguments) => local::run(load_config()?, arguments, printer).await?,
        Command::Provision(arguments) => {
            exit_code = provision::run(&load_config()?, arguments, printer).await?
        }
        Command::Status(selection) => status::run(&load_config()?, selection, printer).await?,
        Command::Destroy(arguments) => destroy::run(&load_config()?, arguments, printer).await?,
        Command::Topics(command) => topics::run(&load_config()?, command, printer).await?,
        Command::Connector(command) => connector::run(&load_config()?, command, printer).await?,
        Command::Api(command) => api::run(&load_config()?, command, printer).await?,
        Command::Emulate(arguments) => emulate::run(&load_config()?, arguments, printer).await?,
        Command::Batch(command_line) => batch::run(&load_config()?, command_line, printer).await?,
        Command::Stream(arguments) => stream::run(&load_config()?, arguments, printer).await?,
        Command::Doctor => doctor::run(&load_config()?, printer).await?,
    }
    check_written()?;
    Ok(exit_code)
}
