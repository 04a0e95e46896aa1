//! A plan as data and as a table: what is to be done, why, and what it costs.

use serde::Serialize;

use crate::base::output::Report;
use crate::base::output::table::Table;
use crate::provision::cost::{Cost, MONTH_HOURS, Prices};
use crate::provision::resource::{Action, Observation, Resource};

/// One line of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub key: String,
    #[serde(rename = "type")]
    pub type_name: &'static str,
    pub name: String,
    #[serde(flatten)]
    pub observation: Observation,
    #[serde(flatten)]
    pub cost: Cost,
}

impl Step {
    pub fn new(resource: &dyn Resource, observation: Observation, prices: &Prices) -> Self {
        let cost = prices.cost(&resource.cost_items());
        Self {
            key: resource.key(),
            type_name: resource.kind(),
            name: resource.name(),
            observation,
            cost,
        }
    }
}

/// A plan, or what came of it.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    pub applied: bool,
    pub steps: Vec<Step>,
    /// All resources together, once the plan is carried out.
    pub cost: Cost,
    /// What the costs are; absent where nothing costs anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<String>,
}

impl PlanReport {
    pub fn new(applied: bool, steps: Vec<Step>, prices: &Prices) -> Self {
        let stays = steps
            .iter()
            .filter(|step| applied || step.observation.action != Action::Delete);
        let cost = stays.map(|step| step.cost).fold(Cost::NOTHING, Cost::plus);
        let prices = (cost != Cost::NOTHING).then(|| prices.note());
        Self {
            applied,
            steps,
            cost,
            prices,
        }
    }

    /// Steps that change something.
    pub fn changes(&self) -> usize {
        self.steps
            .iter()
            .filter(|step| step.observation.action != Action::NoOp)
            .count()
    }
}

/// The action for people: as planned, or as done.
pub fn action_text(action: Action, applied: bool) -> &'static str {
    match (action, applied) {
        (Action::Create, false) => "create",
        (Action::Create, true) => "created",
        (Action::Update, false) => "update",
        (Action::Update, true) => "updated",
        (Action::Recreate, false) => "recreate",
        (Action::Recreate, true) => "recreated",
        (Action::Delete, false) => "delete",
        (Action::Delete, true) => "deleted",
        (Action::Pending, false) => "wait",
        (Action::Pending, true) => "waited",
        (Action::NoOp, _) => "no change",
        (Action::Unmanaged, _) => "not ours",
    }
}

impl Report for PlanReport {
    fn text(&self) -> String {
        let is_priced = self.cost != Cost::NOTHING;
        let mut headers = vec!["", "type", "name", "why"];
        if is_priced {
            headers.extend(["$ an hour", "$ a month"]);
        }
        let mut table = Table::new(headers);
        for step in &self.steps {
            let mut row = vec![
                action_text(step.observation.action, self.applied).to_string(),
                step.type_name.into(),
                step.name.clone(),
                step.observation.reason(),
            ];
            if is_priced {
                row.extend([step.cost.text(1.0), step.cost.text(MONTH_HOURS)]);
            }
            table.row(row);
        }
        let changes = self.changes();
        let mut summary = match (changes, self.applied) {
            (0, _) => "nothing to change".to_string(),
            (changes, false) => format!("{changes} to change"),
            (changes, true) => format!("{changes} changed"),
        };
        if let Some(prices) = &self.prices {
            let (hour, month) = (self.cost.text(1.0), self.cost.text(MONTH_HOURS));
            summary.push_str(&format!(
                "\nall of it costs {hour} an hour, {month} a month ({prices})"
            ));
        }
        format!("{}\n{summary}", table.render())
    }
}
