//! The seam between the engine and the resources: what a resource is and what can be done with it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::base::error::Result;
use crate::provision::cost::CostItem;
use crate::provision::state::output::ObservedOutputs;

/// What the engine has to do with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Update,
    /// It differs in a property that cannot be updated: it is deleted and created again.
    Replace,
    /// The configuration no longer contains it.
    Delete,
    /// An earlier run or AWS is creating or changing it.
    Pending,
    NoOp,
    /// Its name belongs to a resource that pinpipe does not manage.
    Unmanaged,
}

/// Who manages a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// Created by pinpipe, or to be created.
    Managed,
    /// Used as it is; never changed or deleted.
    Existing,
    /// Has the name that the configuration asks for, but pinpipe did not create it.
    Unmanaged,
    /// Managed under its former name; the name in the configuration belongs to another resource.
    NameConflict,
}

/// How a resource compares with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Missing,
    Equal,
    /// It differs in properties that an update changes.
    Updatable,
    /// It differs in a property that cannot be updated, or has failed.
    NotUpdatable,
    /// An earlier run or AWS is creating or changing it.
    InProgress,
}

/// A property that differs from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub field: String,
    pub before: String,
    pub after: String,
}

/// A difference between a resource and its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The difference for people.
    pub text: String,
    /// Its values, if it is one property with a value of its own.
    pub field: Option<FieldChange>,
}

impl Difference {
    /// A property with another value, as `field: before → after`.
    pub fn field(field: impl Into<String>, before: impl ToString, after: impl ToString) -> Self {
        let (field, before, after) = (field.into(), before.to_string(), after.to_string());
        let text = format!("{field}: {before} → {after}");
        Self { text, field: Some(FieldChange { field, before, after }) }
    }

    /// Appends a note in parentheses.
    pub fn with_note(mut self, note: &str) -> Self {
        self.text = format!("{} ({note})", self.text);
        self
    }
}

impl<T: Into<String>> From<T> for Difference {
    fn from(text: T) -> Self {
        Self { text: text.into(), field: None }
    }
}

/// What exists at the service. The engine derives the action from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub exists: bool,
    pub ownership: Ownership,
    pub comparison: Comparison,
    /// Differences from the configuration, or details of a resource without any.
    pub reasons: Vec<Difference>,
}

impl Observation {
    fn new(
        exists: bool,
        ownership: Ownership,
        comparison: Comparison,
        reasons: Vec<Difference>,
    ) -> Self {
        Self { exists, ownership, comparison, reasons }
    }

    pub fn missing() -> Self {
        let reasons = vec!["does not exist".into()];
        Self::new(false, Ownership::Managed, Comparison::Missing, reasons)
    }

    /// It equals the configuration; `detail` describes its state.
    pub fn in_sync(detail: impl Into<String>) -> Self {
        Self::new(true, Ownership::Managed, Comparison::Equal, vec![detail.into().into()])
    }

    /// An existing resource that pinpipe uses and never changes.
    pub fn existing(detail: impl Into<String>) -> Self {
        Self { ownership: Ownership::Existing, ..Self::in_sync(detail) }
    }

    /// It is being created or changed; `state` is what the service reports.
    pub fn pending(state: impl Into<String>) -> Self {
        Self::new(true, Ownership::Managed, Comparison::InProgress, vec![state.into().into()])
    }

    /// No update repairs its differences from the configuration.
    pub fn not_updatable(differences: Vec<impl Into<Difference>>) -> Self {
        let reasons = differences.into_iter().map(Into::into).collect();
        Self::new(true, Ownership::Managed, Comparison::NotUpdatable, reasons)
    }

    /// A resource of this name exists that pinpipe did not create.
    pub fn unmanaged() -> Self {
        let reason = "already exists, not managed by pinpipe".into();
        Self::new(true, Ownership::Unmanaged, Comparison::NotUpdatable, vec![reason])
    }

    /// It is managed under a former name. `is_taken`: its new name belongs to another resource,
    /// so it cannot be replaced.
    pub fn renamed(former: &str, is_taken: bool) -> Self {
        if is_taken {
            return Self { ownership: Ownership::NameConflict, ..Self::unmanaged() };
        }
        Self::not_updatable(vec![format!("was created under another name, `{former}`")])
    }

    /// It differs from the configuration; in sync, described by `detail`, without differences.
    pub fn compared(differences: Vec<impl Into<Difference>>, detail: impl Into<String>) -> Self {
        if differences.is_empty() {
            return Self::in_sync(detail);
        }
        let reasons = differences.into_iter().map(Into::into).collect();
        Self::new(true, Ownership::Managed, Comparison::Updatable, reasons)
    }
}

/// A resource of the pipeline. Every call may be repeated: creating an existing resource and
/// deleting a missing one do nothing.
#[async_trait(?Send)]
pub trait Resource {
    /// Key in the state, in plans and for `--only` and `--skip`, such as `role-client`.
    fn key(&self) -> String;

    /// Type, such as `role`.
    fn kind(&self) -> &'static str;

    /// Name at the service.
    fn name(&self) -> String;

    /// Keys of the resources that must exist before it.
    fn depends_on(&self) -> Vec<String> {
        Vec::new()
    }

    /// Keys of the resources whose replacement also replaces this one.
    fn replaced_with(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether `destroy` may delete the resource; false for resources that are only used.
    fn is_removable(&self) -> bool {
        true
    }

    /// Key of the resource that contains it: deleting that one deletes this one too.
    fn contained_in(&self) -> Option<String> {
        None
    }

    /// Whether the configuration contains it. A managed resource that is not enabled is deleted.
    fn is_enabled(&self) -> bool {
        true
    }

    /// Whether a disabled resource may exist without an entry in the state, because an earlier
    /// state was lost.
    async fn may_be_orphaned(&self) -> bool {
        false
    }

    /// Whether replacing it loses records; done only with `--allow-replace`.
    fn holds_data(&self) -> bool {
        false
    }

    /// Data that a deletion would lose, such as "12 objects". `None` allows the deletion.
    async fn deletion_blocker(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Its cost, as lines of the price table.
    fn cost_items(&self) -> Vec<CostItem> {
        Vec::new()
    }

    /// Compares the resource with the configuration. Changes nothing, neither at the service nor
    /// in the state: the engine records `observed`.
    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation>;

    /// Refuses an action that is known to fail: with the plan, not in the middle of an apply.
    async fn check(&self, action: Action) -> Result<()> {
        let _ = action;
        Ok(())
    }

    /// Creates it. Differences that `observe` still finds afterwards are left to `update`.
    async fn create(&self) -> Result<()>;

    /// Changes it to equal the configuration.
    async fn update(&self) -> Result<()>;

    /// Waits until it can be used.
    async fn wait(&self) -> Result<()> {
        Ok(())
    }

    /// Deletes it and waits until it is gone. `false`: it did not exist, or is not managed.
    async fn delete(&self) -> Result<bool>;
}

/// Keys of the properties that differ, sorted.
pub fn changed_keys(
    existing: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Vec<String> {
    let keys: BTreeSet<&String> = wanted.keys().chain(existing.keys()).collect();
    keys.into_iter().filter(|key| wanted.get(*key) != existing.get(*key)).cloned().collect()
}
