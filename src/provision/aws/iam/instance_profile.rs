//! The instance profile, which gives the client machine its role.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_iam::types::InstanceProfile as IamProfile;

use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::iam::role::{iam_pairs, iam_tags};
use crate::provision::aws::keys;
use crate::provision::aws::names::profile_name;
use crate::provision::aws::names::{Principal, role_name};
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::INSTANCE_PROFILE;

pub struct InstanceProfile {
    pub account: Rc<Account>,
}

impl InstanceProfile {
    fn display_name(&self) -> String {
        format!("instance profile `{}`", self.name())
    }

    async fn find(&self) -> Result<Option<IamProfile>> {
        match self
            .account
            .iam
            .get_instance_profile()
            .instance_profile_name(self.name())
            .send()
            .await
        {
            Ok(response) => Ok(response.instance_profile().cloned()),
            Err(error) if code(&error) == "NoSuchEntity" => Ok(None),
            Err(error) => Err(error.call_context("iam:GetInstanceProfile", &self.display_name())),
        }
    }
}

#[async_trait(?Send)]
impl Resource for InstanceProfile {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "instance-profile"
    }

    fn name(&self) -> String {
        profile_name(&self.account)
    }

    fn depends_on(&self) -> Vec<String> {
        vec![Principal::Client.key().into()]
    }

    async fn observe(&self, _observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(profile) = self.find().await? else {
            return Ok(Observation::missing());
        };
        if !self.account.is_managed(iam_pairs(profile.tags())) {
            return Ok(Observation::unmanaged());
        }
        let mut differences = self.account.tag_differences(KEY, iam_pairs(profile.tags()));
        let role = role_name(&self.account, Principal::Client);
        if !profile.roles().iter().any(|attached| attached.role_name() == role) {
            differences.push(format!("the role `{role}` is not in the instance profile").into());
        }
        Ok(Observation::compared(differences, role))
    }

    async fn create(&self) -> Result<()> {
        let request = self
            .account
            .iam
            .create_instance_profile()
            .instance_profile_name(self.name())
            .set_tags(Some(iam_tags(&self.account, KEY)?));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "EntityAlreadyExists" => Ok(()),
            Err(error) => {
                Err(error.call_context("iam:CreateInstanceProfile", &self.display_name()))
            }
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(profile) = self.find().await? else {
            return Ok(());
        };
        if !self.account.tag_differences(KEY, iam_pairs(profile.tags())).is_empty() {
            let response = self
                .account
                .iam
                .tag_instance_profile()
                .instance_profile_name(self.name())
                .set_tags(Some(iam_tags(&self.account, KEY)?))
                .send()
                .await;
            response.call_context("iam:TagInstanceProfile", &self.display_name())?;
        }
        let role = role_name(&self.account, Principal::Client);
        // A profile contains at most one role, so a role added outside pinpipe is removed first.
        for other in profile.roles().iter().filter(|attached| attached.role_name() != role) {
            let request = self
                .account
                .iam
                .remove_role_from_instance_profile()
                .instance_profile_name(self.name())
                .role_name(other.role_name());
            request
                .send()
                .await
                .call_context("iam:RemoveRoleFromInstanceProfile", &self.display_name())?;
        }
        if profile.roles().iter().all(|attached| attached.role_name() != role) {
            let request = self
                .account
                .iam
                .add_role_to_instance_profile()
                .instance_profile_name(self.name())
                .role_name(&role);
            match request.send().await {
                Ok(_) => {}
                // The profile already contains a role: an earlier attempt whose response was lost
                // has added it.
                Err(error) if code(&error) == "LimitExceeded" => {}
                Err(error) => {
                    return Err(
                        error.call_context("iam:AddRoleToInstanceProfile", &self.display_name())
                    );
                }
            }
        }
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let Some(profile) = self.find().await? else {
            return Ok(false);
        };
        if !self.account.is_managed(iam_pairs(profile.tags())) {
            return Ok(false);
        }
        for role in profile.roles() {
            let request = self
                .account
                .iam
                .remove_role_from_instance_profile()
                .instance_profile_name(self.name())
                .role_name(role.role_name());
            match request.send().await {
                Err(error) if code(&error) != "NoSuchEntity" => {
                    return Err(error
                        .call_context("iam:RemoveRoleFromInstanceProfile", &self.display_name()));
                }
                _ => {}
            }
        }
        match self
            .account
            .iam
            .delete_instance_profile()
            .instance_profile_name(self.name())
            .send()
            .await
        {
            Err(error) if code(&error) != "NoSuchEntity" => {
                Err(error.call_context("iam:DeleteInstanceProfile", &self.display_name()))
            }
            _ => Ok(true),
        }
    }
}
