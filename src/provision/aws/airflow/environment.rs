//! The Managed Airflow environment. Disabled by default, because it is billed by the hour.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_mwaa::types::{
    Environment, EnvironmentStatus, NetworkConfiguration, UpdateNetworkConfigurationInput,
    WebserverAccessMode,
};

use crate::base::error::{Error, Result};
use crate::clients::aws::call::{CallContext, code, is_access_denied};
use crate::provision::aws::airflow::requirements::DAG_FOLDER;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::names::GroupMember;
use crate::provision::aws::names::{Principal, role_arn};
use crate::provision::aws::object_keys::REQUIREMENTS;
use crate::provision::aws::outputs;
use crate::provision::aws::outputs::is_airflow_known;
use crate::provision::aws::tags::pairs;
use crate::provision::cost::CostItem;
use crate::provision::resource::{Difference, Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::AIRFLOW;

pub struct Airflow {
    pub account: Rc<Account>,
}

impl Airflow {
    fn display_name(&self) -> String {
        format!("Airflow environment `{}`", self.name())
    }

    fn bucket_arn(&self) -> String {
        format!(
            "arn:{}:s3:::{}",
            self.account.partition,
            BucketUse::Airflow.name(&self.account.config)
        )
    }

    async fn find(&self) -> Result<Option<Environment>> {
        let found = self
            .account
            .find_by_names(KEY, &self.name(), |name| async move { self.find_named(&name).await })
            .await?;
        if found.is_some() || !self.account.is_unrecorded(KEY).await {
            return Ok(found);
        }
        let listed: Result<Vec<_>, _> =
            self.account.mwaa.list_environments().into_paginator().items().send().collect().await;
        let names = match listed {
            // Without permission to list environments, no environment is found by its tags.
            Err(error) if is_access_denied(&error) => return Ok(None),
            result => result.call_context("airflow:ListEnvironments", &self.display_name())?,
        };
        for name in names {
            let environment = match self.account.mwaa.get_environment().name(&name).send().await {
                Ok(response) => response.environment,
                Err(error)
                    if is_access_denied(&error) || code(&error) == "ResourceNotFoundException" =>
                {
                    None
                }
                Err(error) => {
                    return Err(error.call_context(
                        "airflow:GetEnvironment",
                        &format!("Airflow environment `{name}`"),
                    ));
                }
            };
            if environment
                .as_ref()
                .and_then(Environment::tags)
                .is_some_and(|tags| self.account.is_tagged_as(KEY, pairs(tags)))
            {
                return Ok(environment);
            }
        }
        Ok(None)
    }

    /// Reads the environment again; `None` if it no longer exists.
    async fn reread(&self, environment: &Environment) -> Result<Option<Environment>> {
        let current = self.find().await?;
        Ok(current.filter(|current| current.name() == environment.name()))
    }

    async fn find_named(&self, name: &str) -> Result<Option<Environment>> {
        match self.account.mwaa.get_environment().name(name).send().await {
            Ok(response) => Ok(response.environment),
            Err(error) if code(&error) == "ResourceNotFoundException" => Ok(None),
            Err(error) => Err(error.call_context("airflow:GetEnvironment", &self.display_name())),
        }
    }

    /// Differences that an update can repair, tags excluded.
    async fn differences(&self, found: &Environment) -> Result<Vec<Difference>> {
        let desired = &self.account.config.airflow;
        let mut differences = Vec::new();
        if found.airflow_version() != Some(&desired.version) {
            differences.push(Difference::field(
                "version",
                found.airflow_version().unwrap_or("unknown"),
                &desired.version,
            ));
        }
        if found.environment_class() != Some(&desired.class) {
            differences.push(Difference::field(
                "class",
                found.environment_class().unwrap_or("unknown"),
                &desired.class,
            ));
        }
        if found.execution_role_arn() != Some(&role_arn(&self.account, Principal::Airflow)) {
            differences.push("the execution role differs".into());
        }
        if found.source_bucket_arn() != Some(&self.bucket_arn())
            || found.dag_s3_path() != Some(DAG_FOLDER)
        {
            differences.push("the bucket or the folder of the DAGs differs".into());
        }
        let version = self.account.state.output(&outputs::REQUIREMENTS_VERSION).await;
        if version.is_some() && found.requirements_s3_object_version() != version.as_deref() {
            differences.push("another version of the requirements is installed".into());
        }
        let groups = found
            .network_configuration()
            .map(|network| network.security_group_ids().to_vec())
            .unwrap_or_default();
        if let Some(group) =
            self.account.state.output(&outputs::group_id(GroupMember::Airflow)).await
            && groups != [group]
        {
            differences.push("the security group differs".into());
        }
        Ok(differences)
    }
}

#[async_trait(?Send)]
impl Resource for Airflow {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "airflow"
    }

    fn name(&self) -> String {
        self.account.config.airflow_name()
    }

    fn depends_on(&self) -> Vec<String> {
        [
            BucketUse::Airflow.key(),
            Principal::Airflow.key(),
            GroupMember::Airflow.key(),
            keys::AIRFLOW_REQUIREMENTS,
        ]
        .map(String::from)
        .to_vec()
    }

    fn replaced_with(&self) -> Vec<String> {
        vec![GroupMember::Airflow.key().into()]
    }

    fn is_enabled(&self) -> bool {
        self.account.config.airflow.enabled
    }

    async fn may_be_orphaned(&self) -> bool {
        is_airflow_known(&self.account).await
    }

    fn cost_items(&self) -> Vec<CostItem> {
        vec![CostItem::new(&self.account.config.airflow.class, 1)]
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(found) = self.find().await? else {
            return Ok(Observation::missing());
        };
        let tags = found.tags().cloned().unwrap_or_default();
        let name = found.name().unwrap_or_default();
        let is_renamed = name != self.name();
        if !self.account.is_managed(pairs(&tags)) {
            // An unmanaged environment under a previous name is ignored.
            return Ok(if is_renamed { Observation::missing() } else { Observation::unmanaged() });
        }
        observed.found(name).set(&outputs::AIRFLOW_ARN, found.arn().unwrap_or_default());
        if is_renamed {
            return Ok(Observation::renamed(name, self.find_named(&self.name()).await?.is_some()));
        }
        use EnvironmentStatus as Status;
        match found.status() {
            Some(Status::Available | Status::UpdateFailed) => {}
            Some(Status::CreateFailed | Status::Unavailable) => {
                let error = found
                    .last_update()
                    .and_then(|update| update.error())
                    .and_then(|error| error.error_message());
                return Ok(Observation::not_updatable(vec![format!(
                    "the environment failed: {}",
                    error.unwrap_or("AWS gave no reason")
                )]));
            }
            Some(Status::Deleted) => return Ok(Observation::missing()),
            status => {
                return Ok(Observation::pending(status.map_or("unknown", Status::as_str)));
            }
        }
        let desired = &self.account.config.airflow.subnets;
        let subnets = found
            .network_configuration()
            .map(|network| network.subnet_ids().to_vec())
            .unwrap_or_default();
        if subnets.iter().any(|subnet| !desired.contains(subnet)) {
            return Ok(Observation::not_updatable(vec![format!(
                "the environment is in other subnets: {}",
                subnets.join(", ")
            )]));
        }
        let mut differences = self.account.tag_differences(KEY, pairs(&tags));
        differences.extend(self.differences(&found).await?);
        Ok(Observation::compared(
            differences,
            found.webserver_url().map(|url| format!("https://{url}")).unwrap_or_default(),
        ))
    }

    async fn create(&self) -> Result<()> {
        let desired = &self.account.config.airflow;
        let group =
            self.account.state.require_output(&outputs::group_id(GroupMember::Airflow)).await?;
        let network = NetworkConfiguration::builder()
            .set_subnet_ids(Some(desired.subnets.clone()))
            .security_group_ids(group)
            .build();
        let version = self.account.state.output(&outputs::REQUIREMENTS_VERSION).await;
        let call = || async {
            let request = self
                .account
                .mwaa
                .create_environment()
                .name(self.name())
                .airflow_version(&desired.version);
            let request = request
                .environment_class(&desired.class)
                .execution_role_arn(role_arn(&self.account, Principal::Airflow));
            let request = request
                .source_bucket_arn(self.bucket_arn())
                .dag_s3_path(DAG_FOLDER)
                .requirements_s3_path(REQUIREMENTS);
            let request = request
                .set_requirements_s3_object_version(version.clone())
                .network_configuration(network.clone());
            let request = request.webserver_access_mode(WebserverAccessMode::PublicOnly);
            match request.set_tags(Some(self.account.tags(KEY).into_iter().collect())).send().await
            {
                Ok(_) => Ok(()),
                Err(error) => {
                    // An earlier attempt whose response was lost has created the environment.
                    if code(&error) == "ValidationException"
                        && self.find_named(&self.name()).await?.is_some()
                    {
                        return Ok(());
                    }
                    Err(error.call_context("airflow:CreateEnvironment", &self.display_name()))
                }
            }
        };
        // MWAA sees a new role only some seconds after IAM has created it.
        let is_unseen = |error: &Error| error.service_message().to_lowercase().contains("role");
        self.account.retry_until_visible(is_unseen, call).await
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        let desired = &self.account.config.airflow;
        let tags = found.tags().cloned().unwrap_or_default();
        if !self.account.tag_differences(KEY, pairs(&tags)).is_empty() {
            let request =
                self.account.mwaa.tag_resource().resource_arn(found.arn().unwrap_or_default());
            request
                .set_tags(Some(self.account.tags(KEY).into_iter().collect()))
                .send()
                .await
                .call_context("airflow:TagResource", &self.display_name())?;
        }
        if self.differences(&found).await?.is_empty() {
            return Ok(());
        }
        let group =
            self.account.state.require_output(&outputs::group_id(GroupMember::Airflow)).await?;
        let request = self
            .account
            .mwaa
            .update_environment()
            .name(self.name())
            .airflow_version(&desired.version);
        let request = request
            .environment_class(&desired.class)
            .execution_role_arn(role_arn(&self.account, Principal::Airflow));
        let request = request
            .source_bucket_arn(self.bucket_arn())
            .dag_s3_path(DAG_FOLDER)
            .requirements_s3_path(REQUIREMENTS);
        let request = request.set_requirements_s3_object_version(
            self.account.state.output(&outputs::REQUIREMENTS_VERSION).await,
        );
        let network = UpdateNetworkConfigurationInput::builder().security_group_ids(group).build();
        let response = request.set_network_configuration(network.ok()).send().await;
        if let Err(error) = response {
            // An update whose response was lost is already in progress.
            let status = self.find().await?.and_then(|found| found.status);
            if status != Some(EnvironmentStatus::Updating) {
                return Err(error.call_context("airflow:UpdateEnvironment", &self.display_name()));
            }
        }
        self.wait().await
    }

    async fn wait(&self) -> Result<()> {
        use EnvironmentStatus as Status;
        let check = || async {
            let Some(found) = self.find().await? else {
                return Ok(None);
            };
            Ok(match found.status() {
                Some(Status::Available | Status::Deleted) => None,
                Some(Status::CreateFailed | Status::UpdateFailed | Status::Unavailable) => {
                    let error = found
                        .last_update()
                        .and_then(|update| update.error())
                        .and_then(|error| error.error_message());
                    return Err(Error::failed(format!("{} failed", self.display_name()))
                        .with_source(error.unwrap_or("AWS gave no reason").to_string())
                        .hint(
                            "check that the subnets have a route to the internet (NAT) and that \
                             the requirements can be installed",
                        ));
                }
                status => Some(status.map_or("unknown", Status::as_str).to_string()),
            })
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(found) = self.find().await? else {
            return Ok(false);
        };
        let tags = found.tags().cloned().unwrap_or_default();
        if !self.account.is_managed(pairs(&tags)) {
            return Ok(false);
        }
        if found.status() == Some(&EnvironmentStatus::Creating) {
            // MWAA rejects other calls during creation. A failed creation is ignored, because the
            // environment is deleted anyway.
            if let Err(error) = self.wait().await
                && self.account.stop.is_cancelled()
            {
                return Err(error);
            }
        }
        if found.status() != Some(&EnvironmentStatus::Deleting) {
            match self.account.mwaa.delete_environment().set_name(found.name.clone()).send().await {
                Err(error) if code(&error) != "ResourceNotFoundException" => {
                    // An earlier attempt whose response was lost has started the deletion.
                    let status = self.reread(&found).await?.and_then(|found| found.status);
                    if status.is_some_and(|status| status != EnvironmentStatus::Deleting) {
                        return Err(
                            error.call_context("airflow:DeleteEnvironment", &self.display_name())
                        );
                    }
                }
                _ => {}
            }
        }
        let check = || async {
            Ok(self
                .reread(&found)
                .await?
                .and_then(|found| found.status)
                .map(|status| status.as_str().to_string()))
        };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}
