//! Planning and applying.

use clap::Args;
use serde::Serialize;

use super::resource::{Action, Clients, Resource, State};
use crate::config::Config;
use crate::error::Result;
use crate::output::{Printer, Report, Table};

/// What `provision` is told.
#[derive(Debug, Args, Default)]
pub struct ProvisionArguments {
    /// Show what would be done, change nothing
    #[arg(long)]
    pub plan: bool,
}

/// One line of a plan.
#[derive(Debug, Serialize)]
pub struct Step {
    #[serde(rename = "type")]
    pub type_name: &'static str,
    pub name: String,
    #[serde(flatten)]
    pub state: State,
}

/// A plan, or what came of it.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    pub applied: bool,
    pub steps: Vec<Step>,
}

impl PlanReport {
    /// Steps that change something.
    pub fn changes(&self) -> usize {
        self.steps.iter().filter(|step| step.state.action != Action::Keep).count()
    }
}

impl Report for PlanReport {
    fn text(&self) -> String {
        let mut table = Table::new(["", "type", "name", "why"]);
        for step in &self.steps {
            let action = match (step.state.action, self.applied) {
                (Action::Create, false) => "create",
                (Action::Create, true) => "created",
                (Action::Update, false) => "update",
                (Action::Update, true) => "updated",
                (Action::Keep, _) => "no change",
            };
            table.row([action, step.type_name, &step.name, &step.state.reason]);
        }
        let changes = self.changes();
        let summary = match (changes, self.applied) {
            (0, _) => "nothing to change".to_string(),
            (changes, false) => format!("{changes} to change; `pinpipe provision` does it"),
            (changes, true) => format!("{changes} changed"),
        };
        format!("{}\n{summary}", table.render())
    }
}

async fn plan(clients: &Clients) -> Result<Vec<(Resource, Step)>> {
    let mut steps = Vec::new();
    for resource in Resource::all() {
        let state = resource.read(clients).await?;
        steps.push((resource, Step { type_name: resource.type_name(), name: resource.name(&clients.config), state }));
    }
    Ok(steps)
}

/// Makes everything that is missing and mends what differs; repeating it changes nothing.
///
/// # Errors
/// The first resource that cannot be read or made; what was made before stays, and the
/// next run goes on from there.
pub async fn apply(config: &Config, printer: &Printer) -> Result<PlanReport> {
    let clients = Clients::new(config).await?;
    let steps = plan(&clients).await?;
    let progress = printer.progress("provisioning", Some(steps.len() as u64));
    for (resource, step) in &steps {
        tracing::info!(action = ?step.state.action, resource = resource.type_name(), name = step.name, reason = step.state.reason);
        match step.state.action {
            Action::Create => resource.create(&clients).await?,
            Action::Update => resource.update(&clients).await?,
            Action::Keep => {}
        }
        progress.add(1);
    }
    progress.finish();
    Ok(PlanReport { applied: true, steps: steps.into_iter().map(|(_, step)| step).collect() })
}

/// `pinpipe provision`.
pub async fn provision(config: &Config, arguments: &ProvisionArguments, printer: &Printer) -> Result<PlanReport> {
    if !arguments.plan {
        return apply(config, printer).await;
    }
    let clients = Clients::new(config).await?;
    Ok(PlanReport { applied: false, steps: plan(&clients).await?.into_iter().map(|(_, step)| step).collect() })
}
