//! `pinpipe batch schedule` and `unschedule`: schedule batch on Databricks with Managed Airflow.

use clap::Args;
use serde::Serialize;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::output::{Printer, Report, write_out};
use crate::provision::engine::apply::{ProvisionOptions, provision};
use crate::provision::engine::destroy::{DestroyOptions, destroy};
use crate::provision::engine::selection::Selection;
use crate::spark::schedule::runs::{Activated, Schedule};

/// Resources of a schedule, besides the Airflow environment itself.
const RESOURCES: [&str; 3] = ["databricks-job", "airflow-dag", "airflow-connection"];
/// Resources that `unschedule` deletes. The connection is kept, because other DAGs may use it.
const DELETED: [&str; 2] = ["databricks-job", "airflow-dag"];

/// Arguments of `pinpipe batch schedule`.
#[derive(Debug, Args)]
pub struct ScheduleArguments {
    /// Print the DAG without changing anything
    #[arg(long, conflicts_with = "trigger")]
    pub print: bool,
    /// Start a run now, wait for it, and print its answers
    #[arg(long)]
    pub trigger: bool,
}

#[derive(Debug, Serialize)]
struct Unscheduled {
    dag: String,
    removed: bool,
}

impl Report for Unscheduled {
    fn text(&self) -> String {
        if self.removed {
            format!(
                "deleted `{}`; answers of its runs are kept in the bucket\n\
                 `pinpipe provision` recreates it unless `schedule.enabled` is false",
                self.dag
            )
        } else {
            format!("`{}` was not scheduled", self.dag)
        }
    }
}

/// Creates or updates the job, the DAG and the connection, unpauses the DAG, and prints its runs.
/// With `--trigger`, runs the DAG once and prints the answers.
///
/// # Errors
/// The Airflow environment or Databricks credentials do not exist; Airflow cannot import the DAG;
/// a run fails.
pub async fn schedule(
    config: &Config,
    arguments: &ScheduleArguments,
    printer: &Printer,
) -> Result<()> {
    let schedule = Schedule::open(config).await?;
    if arguments.print {
        write_out(&schedule.rendered_dag().await?);
        return Ok(());
    }
    // Checked first, so that nothing is uploaded without an environment.
    schedule.check_environment().await?;
    let options = ProvisionOptions {
        yes: true,
        selection: Selection::of(RESOURCES),
        ..ProvisionOptions::default()
    };
    let applied = provision(config, &options, printer).await?;
    printer.note(format!("{} of {} resources changed", applied.changes(), RESOURCES.len()));
    match schedule.activate(arguments.trigger, printer).await? {
        Activated::Ran(report) => printer.report(&report),
        Activated::Scheduled(runs) => printer.report(&runs),
    }
    Ok(())
}

/// Pauses the DAG and deletes what `schedule` uploaded; the connection is kept.
///
/// # Errors
/// A resource cannot be deleted.
pub async fn unschedule(config: &Config, printer: &Printer) -> Result<()> {
    let schedule = Schedule::open(config).await?;
    // Paused first, so that no run starts while its files are being deleted.
    let was_active = schedule.pause().await?;
    let options = DestroyOptions { yes: true, data: false, selection: Selection::of(DELETED) };
    let deleted = destroy(config, &options, printer).await?;
    if was_active {
        schedule.delete_history().await?;
    }
    printer
        .report(&Unscheduled { dag: schedule.dag, removed: was_active || deleted.removed_any() });
    Ok(())
}
