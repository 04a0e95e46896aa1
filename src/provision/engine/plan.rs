//! A plan: every selected resource with its action, reasons, dependencies and cost.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::base::output::Report;
use crate::provision::cost::{Cost, MONTH_HOURS, Prices};
use crate::provision::engine::change::Change;
use crate::provision::engine::graph::Graph;
use crate::provision::resource::{Action, Resource};

/// Version of the plan's JSON format; a plan file of another version is rejected.
pub const FORMAT_VERSION: u32 = 1;

/// One resource of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub key: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub name: String,
    pub depends_on: Vec<String>,
    #[serde(flatten)]
    pub change: Change,
    #[serde(flatten)]
    pub cost: Cost,
}

impl Step {
    pub fn new(resource: &dyn Resource, graph: &Graph, change: Change, prices: &Prices) -> Self {
        let key = resource.key();
        Self {
            depends_on: graph.depends_on(&key).map(String::from).collect(),
            key,
            type_name: resource.kind().into(),
            name: resource.name(),
            change,
            cost: prices.cost(&resource.cost_items()),
        }
    }
}

/// The pipeline that a plan is for, and the inputs that it was created from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanContext {
    pub id: String,
    /// AWS account; empty on target local.
    pub account: String,
    pub region: String,
    /// Checksum of the configuration.
    pub config_checksum: String,
    /// Keys of the selected resources.
    pub selected: Vec<String>,
    /// Whether resources that hold data may be replaced or deleted.
    pub allow_replace: bool,
}

/// A reason why a plan cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Key of the resource.
    pub key: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Refusal {
    pub fn new(key: impl Into<String>, error: &Error) -> Self {
        let hint = error.hint_text().map(String::from);
        Self { key: key.into(), message: error.to_string(), hint }
    }
}

/// Number of resources per action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub create: usize,
    pub update: usize,
    pub replace: usize,
    pub delete: usize,
    pub pending: usize,
    pub unchanged: usize,
}

impl Tally {
    fn of(steps: &[Step]) -> Self {
        let mut tally = Self::default();
        for step in steps {
            match step.change.action {
                Action::Create => tally.create += 1,
                Action::Update => tally.update += 1,
                Action::Replace => tally.replace += 1,
                Action::Delete => tally.delete += 1,
                Action::Pending => tally.pending += 1,
                Action::NoOp => tally.unchanged += 1,
                Action::Unmanaged => {}
            }
        }
        tally
    }

    /// Number of resources that an apply changes or waits for.
    pub fn changes(self) -> usize {
        self.create + self.update + self.replace + self.delete + self.pending
    }

    fn text(self, applied: bool) -> String {
        let Self { create, update, replace, delete, pending, unchanged } = self;
        let mut text = if applied {
            format!("{create} created, {update} updated, {replace} replaced, {delete} deleted")
        } else {
            format!(
                "{create} to create, {update} to update, {replace} to replace, {delete} to delete"
            )
        };
        if pending > 0 {
            text.push_str(&format!(
                ", {pending} {}",
                if applied { "waited for" } else { "pending" }
            ));
        }
        format!("{text}; {unchanged} unchanged")
    }
}

/// A plan, or the result of applying it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub format_version: u32,
    #[serde(flatten)]
    pub context: PlanContext,
    pub applied: bool,
    /// The selected resources, each after its dependencies.
    pub steps: Vec<Step>,
    pub tally: Tally,
    /// Reasons why the plan cannot be applied; empty if it can.
    pub refusals: Vec<Refusal>,
    /// Cost of the resources that exist now.
    pub cost_before: Cost,
    /// Cost of all resources once the plan is applied.
    pub cost: Cost,
    /// Region and dates of the prices; absent if no resource has a cost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prices: Option<String>,
}

impl Plan {
    pub fn new(context: PlanContext, applied: bool, steps: Vec<Step>, prices: &Prices) -> Self {
        let total = |is_counted: &dyn Fn(&Step) -> bool| {
            let counted = steps.iter().filter(|step| is_counted(step));
            counted.map(|step| step.cost).fold(Cost::NOTHING, Cost::plus)
        };
        let cost_before = total(&|step| step.change.exists && step.change.is_managed());
        let cost = total(&|step| applied || step.change.action != Action::Delete);
        let note = (cost != Cost::NOTHING || cost_before != Cost::NOTHING).then(|| prices.note());
        Self {
            format_version: FORMAT_VERSION,
            context,
            applied,
            tally: Tally::of(&steps),
            steps,
            refusals: Vec::new(),
            cost_before,
            cost,
            prices: note,
        }
    }

    /// Number of resources that an apply changes or waits for.
    pub fn changes(&self) -> usize {
        self.tally.changes()
    }

    /// The first refusal as an error.
    pub fn refusal(&self) -> Option<Error> {
        let refusal = self.refusals.first()?;
        let error = Error::failed(refusal.message.clone());
        Some(match &refusal.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        })
    }

    /// Writes the plan for a later `provision --apply FILE`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)
            .context(|| format!("cannot write the plan `{}`", path.display()))?;
        text.push(b'\n');
        // Not written atomically, because a rename would replace a link, a pipe or a device.
        std::fs::write(path, text).map_err(|error| io_error("write", path, error))
    }

    /// Reads a plan that `provision --plan --out FILE` wrote.
    ///
    /// # Errors
    /// The file does not exist, is not a plan, or has another format version.
    pub fn load(path: &Path) -> Result<Self> {
        let create_again = "create a new plan with `pinpipe provision --plan --out FILE`";
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("plan file `{}` does not exist", path.display());
                return Err(Error::usage(message).hint(create_again));
            }
            Err(error) => return Err(io_error("read", path, error)),
        };
        let document: serde_json::Value = serde_json::from_slice(&text).map_err(|error| {
            Error::usage(format!("`{}` is not a plan file", path.display()))
                .with_source(error)
                .hint(create_again)
        })?;
        let version = document["format_version"].as_u64();
        if version != Some(FORMAT_VERSION.into()) {
            return Err(Error::usage(format!(
                "plan file `{}`: expected format version {FORMAT_VERSION}, got {}",
                path.display(),
                version.map_or_else(|| "none".into(), |version| version.to_string())
            ))
            .hint(create_again));
        }
        serde_json::from_value(document).map_err(|error| {
            Error::usage(format!("`{}` is not a plan file", path.display()))
                .with_source(error)
                .hint(create_again)
        })
    }

    fn steps_by_key(&self) -> BTreeMap<&str, &Step> {
        self.steps.iter().map(|step| (step.key.as_str(), step)).collect()
    }

    /// Returns the differences of `now` from this plan, one line per resource.
    pub fn differences(&self, now: &Plan) -> Vec<String> {
        let (planned, current) = (self.steps_by_key(), now.steps_by_key());
        let mut differences = Vec::new();
        for (key, step) in &current {
            match planned.get(key) {
                Some(before) if is_same(before, step) => {}
                Some(before) => differences.push(format!(
                    "{key}: {} → {}",
                    change_text(before),
                    change_text(step)
                )),
                None => differences.push(format!("{key}: not in the plan")),
            }
        }
        let gone = planned.keys().filter(|key| !current.contains_key(*key));
        differences.extend(gone.map(|key| format!("{key}: no longer selected")));
        differences
    }
}

/// Whether two steps describe the same change. Details of unchanged resources are ignored, because
/// they may vary between observations.
fn is_same(before: &Step, now: &Step) -> bool {
    let is_unchanged = before.change.action == Action::NoOp && now.change.action == Action::NoOp;
    (&before.name, &before.type_name) == (&now.name, &now.type_name)
        && (is_unchanged || before.change == now.change)
}

fn change_text(step: &Step) -> String {
    let action = action_text(step.change.action, false);
    if step.change.reasons.is_empty() {
        format!("{action} {}", step.name)
    } else {
        format!("{action} {} ({})", step.name, step.change.reason())
    }
}

/// Text of an action, as planned or as applied.
pub fn action_text(action: Action, applied: bool) -> &'static str {
    match (action, applied) {
        (Action::Create, false) => "create",
        (Action::Create, true) => "created",
        (Action::Update, false) => "update",
        (Action::Update, true) => "updated",
        (Action::Replace, false) => "replace",
        (Action::Replace, true) => "replaced",
        (Action::Delete, false) => "delete",
        (Action::Delete, true) => "deleted",
        (Action::Pending, false) => "wait for",
        (Action::Pending, true) => "waited for",
        (Action::NoOp, _) => "no change",
        (Action::Unmanaged, _) => "unmanaged",
    }
}

/// The sign of an action, as in Terraform.
fn sign(action: Action) -> &'static str {
    match action {
        Action::Create => "+",
        Action::Update => "~",
        Action::Replace => "-/+",
        Action::Delete => "-",
        Action::Pending => "…",
        Action::NoOp => "",
        Action::Unmanaged => "!",
    }
}

impl Plan {
    /// One line per changed resource, followed by its reasons.
    fn change_lines(&self) -> Vec<String> {
        let is_shown = |step: &&Step| step.change.action != Action::NoOp;
        let shown: Vec<&Step> = self.steps.iter().filter(is_shown).collect();
        let width = |text: fn(&Step) -> usize| shown.iter().map(|step| text(step)).max();
        let type_width = width(|step| step.type_name.len()).unwrap_or_default();
        let name_width = width(|step| step.name.len()).unwrap_or_default();
        let mut lines = Vec::new();
        for step in shown {
            let action = step.change.action;
            let line = format!(
                "{:>5} {:9} {:type_width$}  {:name_width$}  {}",
                sign(action),
                action_text(action, self.applied),
                step.type_name,
                step.name,
                if step.cost == Cost::NOTHING {
                    String::new()
                } else {
                    format!("{} per hour", step.cost.text(1.0))
                }
            );
            lines.push(line.trim_end().to_string());
            // The reason for a creation is always "does not exist".
            if action != Action::Create {
                let reasons = step.change.reasons.iter();
                lines.extend(reasons.map(|reason| format!("        {reason}")));
            }
        }
        lines
    }

    fn cost_line(&self, prices: &str) -> String {
        let text = |cost: Cost, hours: f64| match cost.text(hours) {
            text if text.is_empty() => "$0".to_string(),
            text => text,
        };
        let after = format!(
            "{} per hour, {} per month",
            text(self.cost, 1.0),
            text(self.cost, MONTH_HOURS)
        );
        if self.applied || self.changes() == 0 {
            format!("cost: {after} ({prices})")
        } else {
            format!("cost: {} per hour → {after} ({prices})", text(self.cost_before, 1.0))
        }
    }
}

impl Report for Plan {
    fn text(&self) -> String {
        let mut lines = self.change_lines();
        if !lines.is_empty() {
            lines.push(String::new());
        }
        if self.changes() == 0 && self.refusals.is_empty() {
            lines.push(format!("no changes: {} resources are up to date", self.tally.unchanged));
        } else {
            lines.push(self.tally.text(self.applied));
        }
        lines.extend(self.prices.as_deref().map(|prices| self.cost_line(prices)));
        if !self.refusals.is_empty() && !self.applied {
            lines.push("\nThis plan cannot be applied:".into());
            for refusal in &self.refusals {
                lines.push(format!("  {}", refusal.message));
                lines.extend(refusal.hint.iter().map(|hint| format!("    hint: {hint}")));
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::resource::Ownership;

    fn step(key: &str, action: Action, reasons: &[&str], dollars_per_hour: f64) -> Step {
        Step {
            key: key.into(),
            type_name: key.split('-').next().unwrap_or_default().into(),
            name: format!("me-{key}"),
            depends_on: Vec::new(),
            change: Change {
                exists: action != Action::Create,
                ownership: Ownership::Managed,
                action,
                reasons: reasons.iter().map(|reason| reason.to_string()).collect(),
                fields: Vec::new(),
            },
            cost: Cost { dollars_per_hour, is_whole: true },
        }
    }

    fn plan(steps: Vec<Step>) -> Plan {
        let context = PlanContext {
            id: "me".into(),
            account: "123456789012".into(),
            region: "us-east-1".into(),
            config_checksum: "abc".into(),
            selected: steps.iter().map(|step| step.key.clone()).collect(),
            allow_replace: false,
        };
        Plan::new(context, false, steps, &Prices::built_in())
    }

    fn example() -> Plan {
        plan(vec![
            step("bucket", Action::NoOp, &["private, encrypted"], 0.0),
            step("cluster", Action::Create, &[], 0.63),
            step("stream-pin", Action::Update, &["shards: 2 → 4"], 0.03),
            step("api-key", Action::Delete, &["no longer in the configuration"], 0.0),
            step("connector", Action::Replace, &["`plugin` is replaced"], 0.11),
        ])
    }

    #[test]
    fn a_plan_prints_signs_reasons_a_tally_and_the_cost() {
        let text = example().text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "    + create    cluster    me-cluster     $0.6300 per hour");
        assert_eq!(lines[1], "    ~ update    stream     me-stream-pin  $0.0300 per hour");
        assert_eq!(lines[2], "        shards: 2 → 4");
        assert_eq!(lines[3], "    - delete    api        me-api-key");
        assert_eq!(lines[5], "  -/+ replace   connector  me-connector   $0.1100 per hour");
        assert!(
            text.contains("1 to create, 1 to update, 1 to replace, 1 to delete; 1 unchanged"),
            "{text}"
        );
        assert!(
            text.contains("cost: $0.1400 per hour → $0.7700 per hour, $562.10 per month"),
            "{text}"
        );
    }

    #[test]
    fn a_saved_plan_is_loaded_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan.json");
        example().save(&path).expect("writes");
        assert_eq!(Plan::load(&path).expect("reads"), example());
        std::fs::write(&path, r#"{"format_version": 99}"#).expect("writes");
        let error = Plan::load(&path).expect_err("another format is rejected").to_string();
        assert!(error.contains("expected format version 1, got 99"), "{error}");
    }

    #[test]
    fn a_changed_resource_makes_a_plan_out_of_date() {
        let mut now = example();
        assert_eq!(example().differences(&now), Vec::<String>::new());
        now.steps[0] = step("bucket", Action::Update, &["the bucket is not encrypted"], 0.0);
        assert_eq!(
            example().differences(&now),
            [
                "bucket: no change me-bucket (private, encrypted) → update me-bucket (the bucket is not encrypted)"
            ]
        );
    }
}
