//! The seam between the engine and the resources: what a resource is and what can be done with it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde::Serialize;

use crate::base::error::Result;
use crate::provision::cost::CostItem;

/// What has to be done about a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Update,
    /// It differs in what cannot be changed: it goes, and is made anew.
    Recreate,
    /// The configuration does not ask for it any more.
    Delete,
    /// It is being made or changed already, by an earlier run or by AWS.
    Pending,
    NoOp,
    /// Something of that name is there that pinpipe did not make.
    Unmanaged,
}

/// How a resource stands: what has to be done about it, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Observation {
    pub exists: bool,
    /// False: it is used, but pinpipe did not make it and never removes it.
    pub is_ours: bool,
    pub action: Action,
    /// Why, or how it is doing: one remark each.
    pub reasons: Vec<String>,
}

impl Observation {
    pub fn missing() -> Self {
        Self {
            exists: false,
            is_ours: true,
            action: Action::Create,
            reasons: vec!["it is not there".into()],
        }
    }

    /// It is there as it should be; `detail` says how it is doing.
    pub fn in_sync(detail: impl Into<String>) -> Self {
        Self {
            exists: true,
            is_ours: true,
            action: Action::NoOp,
            reasons: vec![detail.into()],
        }
    }

    /// It is there without pinpipe having made it, and is used as it is.
    pub fn unowned(detail: impl Into<String>) -> Self {
        Self {
            is_ours: false,
            ..Self::in_sync(detail)
        }
    }

    pub fn pending(state: impl Into<String>) -> Self {
        Self {
            exists: true,
            is_ours: true,
            action: Action::Pending,
            reasons: vec![state.into()],
        }
    }

    pub fn recreate(reasons: Vec<String>) -> Self {
        Self {
            exists: true,
            is_ours: true,
            action: Action::Recreate,
            reasons,
        }
    }

    pub fn unmanaged() -> Self {
        Self {
            exists: true,
            is_ours: false,
            action: Action::Unmanaged,
            reasons: vec!["it is there, but pinpipe did not make it".into()],
        }
    }

    /// It was made under a name that the configuration does not give it any more. `is_taken`:
    /// the name of now is somebody else's, so that it cannot be made anew; it is still ours.
    pub fn renamed(former: &str, is_taken: bool) -> Self {
        if is_taken {
            return Self {
                is_ours: true,
                ..Self::unmanaged()
            };
        }
        Self::recreate(vec![format!("it was made under another name, `{former}`")])
    }

    /// What differs, or `detail` where nothing does.
    pub fn from_drift(differences: Vec<String>, detail: impl Into<String>) -> Self {
        if differences.is_empty() {
            return Self::in_sync(detail);
        }
        Self {
            exists: true,
            is_ours: true,
            action: Action::Update,
            reasons: differences,
        }
    }

    /// It is removed, for good or to be made anew.
    pub fn is_removal(&self) -> bool {
        matches!(self.action, Action::Recreate | Action::Delete)
    }

    /// All remarks as one text.
    pub fn reason(&self) -> String {
        self.reasons.join("; ")
    }
}

/// A resource of the pipeline. Every verb may be repeated: making what is there and
/// removing what is not there do no harm.
#[async_trait(?Send)]
pub trait Resource {
    /// Its key in the state, and what `--only` and `--skip` take: `role-client`.
    fn key(&self) -> String;

    /// Its kind, for people: `role`.
    fn kind(&self) -> &'static str;

    /// Its name where it lives.
    fn name(&self) -> String;

    /// Keys of what must be there before it.
    fn depends_on(&self) -> Vec<String> {
        Vec::new()
    }

    /// Keys of what it cannot outlive: when one of those is made anew, so is this.
    fn recreated_with(&self) -> Vec<String> {
        Vec::new()
    }

    /// False: it is only looked at, never made or removed.
    fn is_removable(&self) -> bool {
        true
    }

    /// Key of what it lies inside of: it goes when that goes, without a call of its own.
    fn contained_in(&self) -> Option<String> {
        None
    }

    /// Whether the configuration asks for it. What is not wanted and there is deleted.
    fn is_enabled(&self) -> bool {
        true
    }

    /// Whether it is looked for although nobody asks for it and the state, which may be one
    /// that was begun anew after it had been lost, does not know of it.
    async fn may_be_orphaned(&self) -> bool {
        false
    }

    /// Whether making it anew loses records: done only where the user says so.
    fn holds_data(&self) -> bool {
        false
    }

    /// What it holds that removing it would lose and that nobody can make again.
    async fn deletion_blocker(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// What it costs, by lines of the price table.
    fn cost_items(&self) -> Vec<CostItem> {
        Vec::new()
    }

    /// Compares what is there with what is wanted. Changes nothing.
    async fn read(&self) -> Result<Observation>;

    /// What is known to fail when this is done: said with the plan, not in the middle of an apply.
    async fn check(&self, action: Action) -> Result<()> {
        let _ = action;
        Ok(())
    }

    /// Makes it, bare where it must be: what `read` still finds different, `update` mends.
    async fn create(&self) -> Result<()>;

    /// Changes it into what is wanted.
    async fn update(&self) -> Result<()>;

    /// Waits until it can be used.
    async fn wait(&self) -> Result<()> {
        Ok(())
    }

    /// Removes it and waits until it is gone. `false`: it was not there, or is not ours.
    async fn delete(&self) -> Result<bool>;
}

/// Names of the properties that differ, in order.
pub fn changed_keys(
    existing: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Vec<String> {
    let keys: BTreeSet<&String> = wanted.keys().chain(existing.keys()).collect();
    keys.into_iter()
        .filter(|key| wanted.get(*key) != existing.get(*key))
        .cloned()
        .collect()
}
