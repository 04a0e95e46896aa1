//! `pinpipe provision`: plan and apply.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::output::Printer;
use crate::cli::selection::SelectionArguments;
use crate::provision::engine::apply::{ProvisionOptions, provision};

/// Exit code of `--plan --detailed-exit-code` if the plan has changes.
const CHANGES_PENDING: u8 = 3;

/// Arguments of `pinpipe provision`.
#[derive(Debug, Args)]
pub struct ProvisionArguments {
    /// Print the changes and their cost without applying them
    #[arg(long)]
    pub plan: bool,
    /// Write the plan to a file that --apply accepts
    #[arg(long, value_name = "FILE", requires = "plan")]
    pub out: Option<PathBuf>,
    /// Apply exactly this plan, unless anything has changed since it was written
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plan", "out", "detailed_exit_code", "only", "skip", "allow_replace", "allow_recreate"])]
    pub apply: Option<PathBuf>,
    /// With --plan: exit with 3 if there are changes
    #[arg(long, requires = "plan")]
    pub detailed_exit_code: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
    /// Allow replacing or deleting resources that hold data (their records are lost)
    #[arg(long)]
    pub allow_replace: bool,
    /// Former name of --allow-replace
    #[arg(long, hide = true)]
    pub allow_recreate: bool,
    #[command(flatten)]
    pub selection: SelectionArguments,
}

/// Prints the plan, or applies it after confirmation.
///
/// # Errors
/// A resource cannot be read or changed; the plan cannot be applied; the user did not confirm.
pub async fn run(
    config: &Config,
    arguments: ProvisionArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    if arguments.allow_recreate {
        printer.warn("`--allow-recreate` is deprecated: use `--allow-replace`");
    }
    let options = ProvisionOptions {
        plan: arguments.plan,
        out: arguments.out,
        apply: arguments.apply,
        yes: arguments.yes,
        allow_replace: arguments.allow_replace || arguments.allow_recreate,
        selection: arguments.selection.into(),
    };
    let plan = provision(config, &options, printer).await?;
    printer.report(&plan);
    if let Some(refusal) = plan.refusal() {
        return Err(refusal);
    }
    let is_pending = arguments.detailed_exit_code && plan.changes() > 0;
    Ok(if is_pending { ExitCode::from(CHANGES_PENDING) } else { ExitCode::SUCCESS })
}
