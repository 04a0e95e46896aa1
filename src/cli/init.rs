//! `pinpipe init`: writes a commented configuration.

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::base::config::schema::Target;
use crate::base::config::{AWS_TOML, LOCAL_TOML};
use crate::base::error::{Error, Result, io_error};
use crate::base::output::{Printer, Report, write_out};

/// The file that `init` writes and every command reads where none is named.
const FILE: &str = "pinpipe.toml";

/// What `init` is told.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// Where the pipeline will run
    #[arg(long, value_enum, default_value_t = Target::Local)]
    pub target: Target,
    /// Print the configuration instead of writing pinpipe.toml
    #[arg(long)]
    pub print: bool,
    /// Replace a pinpipe.toml that is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Serialize)]
struct InitReport {
    file: &'static str,
    target: Target,
}

impl Report for InitReport {
    fn text(&self) -> String {
        let next = match self.target {
            Target::Local => "every key in it has its default: change what you like",
            Target::Aws => {
                "fill in what is in <angle brackets>; secrets go into .env (see .env.example)"
            }
        };
        format!("wrote {}; {next}", self.file)
    }
}

/// Writes the file into the current folder.
///
/// # Errors
/// There is one already, or the folder cannot be written.
pub fn run(arguments: &InitArguments, printer: &Printer) -> Result<()> {
    let text = match arguments.target {
        Target::Local => LOCAL_TOML,
        Target::Aws => AWS_TOML,
    };
    if arguments.print {
        write_out(text);
        return Ok(());
    }
    let path = Path::new(FILE);
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if arguments.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::failed(format!("there is a `{FILE}` here already"))
                .hint("`--force` replaces it, `--print` only shows the new one")
        }
        _ => io_error("write", path, error),
    })?;
    printer.report(&InitReport {
        file: FILE,
        target: arguments.target,
    });
    Ok(())
}
