//! The change that a plan makes to one resource, derived from its observation.

use serde::{Deserialize, Serialize};

use crate::base::error::Result;
use crate::provision::aws::context::Account;
use crate::provision::resource::{
    Action, Comparison, FieldChange, Observation, Ownership, Resource,
};
use crate::provision::state::output::ObservedOutputs;

/// The action on a resource, and its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub exists: bool,
    pub ownership: Ownership,
    pub action: Action,
    /// Reasons for the action, or details of an unchanged resource.
    pub reasons: Vec<String>,
    /// The reasons that concern one property, with its values before and after the action.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

impl Change {
    /// Derives the change. A managed resource that is not enabled is deleted.
    fn derive(observation: Observation, is_enabled: bool) -> Self {
        let Observation { exists, ownership, comparison, reasons } = observation;
        let is_managed = matches!(ownership, Ownership::Managed | Ownership::Existing);
        let action = match comparison {
            _ if !is_enabled => match exists && is_managed {
                true => Action::Delete,
                false => Action::NoOp,
            },
            _ if !is_managed => Action::Unmanaged,
            Comparison::Missing => Action::Create,
            Comparison::Equal => Action::NoOp,
            Comparison::Updatable => Action::Update,
            Comparison::NotUpdatable => Action::Replace,
            Comparison::InProgress => Action::Pending,
        };
        let reasons =
            if is_enabled { reasons } else { vec!["no longer in the configuration".into()] };
        Self {
            exists,
            ownership,
            action,
            fields: reasons.iter().filter_map(|reason| reason.field.clone()).collect(),
            reasons: reasons.into_iter().map(|reason| reason.text).collect(),
        }
    }

    /// Whether pinpipe may change and delete the resource.
    pub fn is_managed(&self) -> bool {
        matches!(self.ownership, Ownership::Managed | Ownership::NameConflict)
    }

    /// Whether the action deletes the existing resource: delete or replace.
    pub fn is_removal(&self) -> bool {
        matches!(self.action, Action::Replace | Action::Delete)
    }

    /// All reasons as one text.
    pub fn reason(&self) -> String {
        self.reasons.join("; ")
    }
}

/// Observes a resource, records its outputs in the state and derives the change.
///
/// # Errors
/// The resource cannot be read; the state cannot be written.
pub async fn plan_change(account: Option<&Account>, resource: &dyn Resource) -> Result<Change> {
    let mut observed = ObservedOutputs::default();
    let observation = resource.observe(&mut observed).await?;
    if let Some(account) = account {
        account.state.record_observed(&resource.key(), observed).await?;
    }
    Ok(Change::derive(observation, resource.is_enabled()))
}
