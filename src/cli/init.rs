//! `pinpipe init`: write a commented configuration file.

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::base::config::schema::Target;
use crate::base::config::{AWS_TOML, LOCAL_TOML};
use crate::base::error::{Error, Result, io_error};
use crate::base::output::{Printer, Report, write_out};

/// File that `init` writes, and that commands without `--config` read.
const FILE: &str = "pinpipe.toml";

/// Arguments of `pinpipe init`.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// Target that the pipeline runs on
    #[arg(long, value_enum, default_value_t = Target::Local)]
    pub target: Target,
    /// Print the configuration instead of writing pinpipe.toml
    #[arg(long)]
    pub print: bool,
    /// Replace an existing pinpipe.toml
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
            Target::Local => "it contains every key with its default",
            Target::Aws => {
                "replace the values in <angle brackets>; put secrets into .env (see .env.example)"
            }
        };
        format!("wrote {}; {next}", self.file)
    }
}

/// Writes the file into the current folder.
///
/// # Errors
/// The file already exists; the folder is not writable.
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
    let result = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    result.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::failed(format!("`{FILE}` already exists"))
            .hint("add `--force` to replace it, or `--print` to print the new file only"),
        _ => io_error("write", path, error),
    })?;
    printer.report(&InitReport { file: FILE, target: arguments.target });
    Ok(())
}
