//! The interface of resources, through which plans are created and applied.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::base::error::Result;
use crate::provision::cost::CostItem;
use crate::provision::state::output::ObservedOutputs;

/// What an apply does with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Update,
    /// Deletes the resource and creates it again, because a property cannot be updated.
    Replace,
    /// Deletes the resource, because the configuration no longer contains it.
    Delete,
    /// Waits, because an earlier run or AWS is creating or changing the resource.
    Pending,
    NoOp,
    /// Refused, because the name belongs to a resource that pinpipe does not manage.
    Unmanaged,
}

/// Who manages a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// Created by pinpipe, or to be created.
    Managed,
    /// Used without changes; never deleted.
    Existing,
    /// Exists under the configured name, but pinpipe did not create it.
    Unmanaged,
    /// Managed under a former name; the configured name belongs to another resource.
    NameConflict,
}

/// Result of the comparison of a resource with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Missing,
    Equal,
    /// Differs in properties that can be updated.
    Updatable,
    /// Differs in a property that cannot be updated, or has failed.
    NotUpdatable,
    /// Is being created or changed, by an earlier run or by AWS.
    InProgress,
}

/// A property that differs from the configuration, with its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub field: String,
    pub before: String,
    pub after: String,
}

/// A difference between a resource and its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Text of the difference.
    pub text: String,
    /// The property and its values, if the difference concerns one property.
    pub field: Option<FieldChange>,
}

impl Difference {
    /// Creates the difference of one property, with the text `field: before → after`.
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

/// The observed resource and its comparison with the configuration. The action of a plan is derived
/// from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub exists: bool,
    pub ownership: Ownership,
    pub comparison: Comparison,
    /// Differences from the configuration, or details of a resource without differences.
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

    /// A resource that matches the configuration; `detail` describes the resource.
    pub fn in_sync(detail: impl Into<String>) -> Self {
        Self::new(true, Ownership::Managed, Comparison::Equal, vec![detail.into().into()])
    }

    /// An existing resource that pinpipe uses and never changes.
    pub fn existing(detail: impl Into<String>) -> Self {
        Self { ownership: Ownership::Existing, ..Self::in_sync(detail) }
    }

    /// A resource that is being created or changed; `state` is the status that AWS reports.
    pub fn pending(state: impl Into<String>) -> Self {
        Self::new(true, Ownership::Managed, Comparison::InProgress, vec![state.into().into()])
    }

    /// A resource with a difference that no update repairs.
    pub fn not_updatable(differences: Vec<impl Into<Difference>>) -> Self {
        let reasons = differences.into_iter().map(Into::into).collect();
        Self::new(true, Ownership::Managed, Comparison::NotUpdatable, reasons)
    }

    /// A resource of the configured name that pinpipe did not create.
    pub fn unmanaged() -> Self {
        let reason = "already exists, not managed by pinpipe".into();
        Self::new(true, Ownership::Unmanaged, Comparison::NotUpdatable, vec![reason])
    }

    /// A managed resource under a former name. `is_taken`: the new name belongs to another
    /// resource, so the managed resource cannot be replaced.
    pub fn renamed(former: &str, is_taken: bool) -> Self {
        if is_taken {
            return Self { ownership: Ownership::NameConflict, ..Self::unmanaged() };
        }
        Self::not_updatable(vec![format!("was created under another name, `{former}`")])
    }

    /// A resource whose differences an update repairs. Without differences, the resource matches
    /// the configuration, and `detail` describes it.
    pub fn compared(differences: Vec<impl Into<Difference>>, detail: impl Into<String>) -> Self {
        if differences.is_empty() {
            return Self::in_sync(detail);
        }
        let reasons = differences.into_iter().map(Into::into).collect();
        Self::new(true, Ownership::Managed, Comparison::Updatable, reasons)
    }
}

/// A resource of the pipeline. Every call is idempotent: the creation of an existing resource and
/// the deletion of a missing one do nothing.
#[async_trait(?Send)]
pub trait Resource {
    /// Key in the state, in plans and for `--only` and `--skip`, such as `role-client`.
    fn key(&self) -> String;

    /// Type, such as `role`.
    fn kind(&self) -> &'static str;

    /// Name in AWS or in the local stack.
    fn name(&self) -> String;

    /// Keys of the resources that must exist before this one is created.
    fn depends_on(&self) -> Vec<String> {
        Vec::new()
    }

    /// Keys of the resources whose replacement also replaces this one.
    fn replaced_with(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether `destroy` may delete the resource; `false` for an existing one, which is only used.
    fn is_removable(&self) -> bool {
        true
    }

    /// Key of the resource that contains this one. The deletion of that resource deletes this one.
    fn contained_in(&self) -> Option<String> {
        None
    }

    /// Whether the configuration contains the resource. A managed resource that is disabled is
    /// deleted.
    fn is_enabled(&self) -> bool {
        true
    }

    /// Whether a disabled resource may exist without an entry in the state, because an earlier
    /// state was lost.
    async fn may_be_orphaned(&self) -> bool {
        false
    }

    /// Whether a replacement deletes data, so that `--allow-replace` is required.
    fn holds_data(&self) -> bool {
        false
    }

    /// Data that a deletion of the resource would lose, such as "12 objects". `None` allows the
    /// deletion.
    async fn deletion_blocker(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Cost of the resource, as items of the price table.
    fn cost_items(&self) -> Vec<CostItem> {
        Vec::new()
    }

    /// Compares the resource with the configuration. Changes neither the resource nor the state:
    /// the caller records `observed` in the state.
    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation>;

    /// Refuses an action that would fail, so that the plan reports it before an apply begins.
    async fn check(&self, action: Action) -> Result<()> {
        let _ = action;
        Ok(())
    }

    /// Creates the resource. `update` repairs the differences that `observe` finds afterwards.
    async fn create(&self) -> Result<()>;

    /// Changes the resource to match the configuration.
    async fn update(&self) -> Result<()>;

    /// Waits until the resource can be used.
    async fn wait(&self) -> Result<()> {
        Ok(())
    }

    /// Deletes the resource and waits until it no longer exists. `false`: the resource did not
    /// exist, or is not managed.
    async fn delete(&self) -> Result<bool>;
}

/// Keys of the properties that differ, sorted.
pub fn changed_keys(
    existing: &BTreeMap<String, String>,
    desired: &BTreeMap<String, String>,
) -> Vec<String> {
    let keys: BTreeSet<&String> = desired.keys().chain(existing.keys()).collect();
    keys.into_iter().filter(|key| desired.get(*key) != existing.get(*key)).cloned().collect()
}
