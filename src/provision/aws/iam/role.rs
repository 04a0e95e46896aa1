//! IAM roles, each with one inline policy of least privilege.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_iam::types::{Role as IamRole, Tag};
use serde_json::Value;

use crate::base::error::{ErrorContext, Result};
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::names::{Principal, role_name};
use crate::provision::aws::placeholders;
use crate::provision::aws::templates;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::{ObservedOutputs, Output};

/// Template of a role's trust policy.
fn trust_policy(principal: Principal) -> &'static str {
    match principal {
        Principal::Client => templates::EC2_TRUST,
        Principal::Connector => templates::CONNECTOR_TRUST,
        Principal::Kinesis => templates::KINESIS_TRUST,
        Principal::Airflow => templates::AIRFLOW_TRUST,
    }
}

/// Template of a role's permission policy.
fn permission_policy(principal: Principal) -> &'static str {
    match principal {
        Principal::Client => templates::CLIENT_POLICY,
        Principal::Connector => templates::CONNECTOR_POLICY,
        Principal::Kinesis => templates::KINESIS_POLICY,
        Principal::Airflow => templates::AIRFLOW_POLICY,
    }
}

pub struct Role {
    pub principal: Principal,
    pub account: Rc<Account>,
}

/// Name of a role's inline policy.
const POLICY_NAME: &str = "pinpipe";

impl Role {
    fn display_name(&self) -> String {
        format!("role `{}`", self.name())
    }

    fn document(&self, template: &str) -> Result<String> {
        let text = templates::render(template, &placeholders::values(&self.account));
        // Serialised without the template's whitespace, because IAM limits the length of policies.
        let value: Value = serde_json::from_str(&text)
            .context(|| format!("cannot parse the policy of {}", self.display_name()))?;
        Ok(value.to_string())
    }

    async fn find(&self) -> Result<Option<IamRole>> {
        match self.account.iam.get_role().role_name(self.name()).send().await {
            Ok(response) => Ok(response.role().cloned()),
            Err(error) if code(&error) == "NoSuchEntity" => Ok(None),
            Err(error) => Err(error.call_context("iam:GetRole", &self.display_name())),
        }
    }

    async fn policy(&self) -> Result<Option<String>> {
        match self
            .account
            .iam
            .get_role_policy()
            .role_name(self.name())
            .policy_name(POLICY_NAME)
            .send()
            .await
        {
            Ok(response) => Ok(Some(response.policy_document().to_string())),
            Err(error) if code(&error) == "NoSuchEntity" => Ok(None),
            Err(error) => Err(error.call_context("iam:GetRolePolicy", &self.display_name())),
        }
    }
}

/// Returns the desired tags of a resource in IAM's type.
///
/// # Errors
/// A tag cannot be built.
pub fn iam_tags(account: &Account, key: &str) -> Result<Vec<Tag>> {
    let tags = account.tags(key).into_iter();
    tags.map(|(key, value)| {
        Tag::builder().key(key).value(value).build().context(|| "cannot build a tag")
    })
    .collect()
}

/// Keys and values of tags that IAM returned.
pub fn iam_pairs(tags: &[Tag]) -> Vec<(&str, &str)> {
    tags.iter().map(|tag| (tag.key(), tag.value())).collect()
}

/// Whether two policy documents are equal as JSON. AWS returns documents percent-encoded.
fn is_same_policy(existing: &str, desired: &str) -> bool {
    let decoded = percent_decoded(existing);
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    parse(&decoded).is_some_and(|existing| Some(existing) == parse(desired))
}

/// Decodes escapes such as `%7B` for `{`. A `%` without two hex digits is unchanged.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[async_trait(?Send)]
impl Resource for Role {
    fn key(&self) -> String {
        self.principal.key().into()
    }

    fn kind(&self) -> &'static str {
        "role"
    }

    fn name(&self) -> String {
        role_name(&self.account, self.principal)
    }

    fn is_enabled(&self) -> bool {
        self.principal != Principal::Airflow || self.account.config.airflow.enabled
    }

    async fn may_be_orphaned(&self) -> bool {
        true
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(role) = self.find().await? else {
            return Ok(Observation::missing());
        };
        if !self.account.is_managed(iam_pairs(role.tags())) {
            return Ok(Observation::unmanaged());
        }
        observed.found(self.name()).set(&Output::<String>::of(self.key(), "arn"), role.arn());
        let mut differences = self.account.tag_differences(&self.key(), iam_pairs(role.tags()));
        if !is_same_policy(
            role.assume_role_policy_document().unwrap_or_default(),
            &self.document(trust_policy(self.principal))?,
        ) {
            differences.push("the trust policy differs".into());
        }
        match self.policy().await? {
            None => differences.push(format!("the policy `{POLICY_NAME}` is missing").into()),
            Some(policy)
                if !is_same_policy(&policy, &self.document(permission_policy(self.principal))?) =>
            {
                differences.push(format!("the policy `{POLICY_NAME}` differs").into());
            }
            Some(_) => {}
        }
        Ok(Observation::compared(differences, "least privilege"))
    }

    async fn create(&self) -> Result<()> {
        let request =
            self.account.iam.create_role().role_name(self.name()).description("created by pinpipe");
        let request = request
            .assume_role_policy_document(self.document(trust_policy(self.principal))?)
            .set_tags(Some(iam_tags(&self.account, &self.key())?));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "EntityAlreadyExists" => Ok(()),
            Err(error) => Err(error.call_context("iam:CreateRole", &self.display_name())),
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(role) = self.find().await? else {
            return Ok(());
        };
        let iam = &self.account.iam;
        if !self.account.tag_differences(&self.key(), iam_pairs(role.tags())).is_empty() {
            iam.tag_role()
                .role_name(self.name())
                .set_tags(Some(iam_tags(&self.account, &self.key())?))
                .send()
                .await
                .call_context("iam:TagRole", &self.display_name())?;
        }
        let trust = self.document(trust_policy(self.principal))?;
        if !is_same_policy(role.assume_role_policy_document().unwrap_or_default(), &trust) {
            let response = iam
                .update_assume_role_policy()
                .role_name(self.name())
                .policy_document(trust)
                .send()
                .await;
            response.call_context("iam:UpdateAssumeRolePolicy", &self.display_name())?;
        }
        let policy = self.document(permission_policy(self.principal))?;
        if !self.policy().await?.is_some_and(|existing| is_same_policy(&existing, &policy)) {
            iam.put_role_policy()
                .role_name(self.name())
                .policy_name(POLICY_NAME)
                .policy_document(policy)
                .send()
                .await
                .call_context("iam:PutRolePolicy", &self.display_name())?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let Some(role) = self.find().await? else {
            return Ok(false);
        };
        if !self.account.is_managed(iam_pairs(role.tags())) {
            return Ok(false);
        }
        match self
            .account
            .iam
            .delete_role_policy()
            .role_name(self.name())
            .policy_name(POLICY_NAME)
            .send()
            .await
        {
            Err(error) if code(&error) != "NoSuchEntity" => {
                return Err(error.call_context("iam:DeleteRolePolicy", &self.display_name()));
            }
            _ => {}
        }
        match self.account.iam.delete_role().role_name(self.name()).send().await {
            Err(error) if code(&error) != "NoSuchEntity" => {
                Err(error.call_context("iam:DeleteRole", &self.display_name()))
            }
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_policies_as_json() {
        assert!(is_same_policy("%7B%22a%22%3A%20%5B1%2C%202%5D%7D", r#"{"a":[1,2]}"#));
        assert!(is_same_policy(r#"{ "b": 1, "a": "50%" }"#, r#"{"a":"50%","b":1}"#));
        assert!(!is_same_policy("%7B%22a%22%3A1%7D", r#"{"a":2}"#));
        assert!(!is_same_policy("no json", "no json"));
    }
}
