//! The worker configuration of MSK Connect. It cannot be changed, only replaced.

use std::collections::BTreeMap;
use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_kafkaconnect::types::{WorkerConfigurationState, WorkerConfigurationSummary};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::connect::lookup;
use crate::provision::aws::connect::lookup::{Listed, put_tags, tags};
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::outputs;
use crate::provision::aws::tags::pairs;
use crate::provision::resource::{Observation, Resource, changed_keys};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::WORKER_CONFIGURATION;

pub struct WorkerConfiguration {
    pub account: Rc<Account>,
}

/// Formats properties as lines of `key=value`.
fn lines(properties: &BTreeMap<String, String>) -> String {
    properties.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

/// Parses lines of `key=value`; skips empty lines and comments (`#` and `!`).
fn properties(text: &str) -> BTreeMap<String, String> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().into(), value.trim().into()))
        .collect()
}

impl Listed for WorkerConfigurationSummary {
    fn name(&self) -> Option<&str> {
        self.name()
    }

    fn arn(&self) -> Option<&str> {
        self.worker_configuration_arn()
    }

    async fn all(account: &Account, prefix: Option<&str>) -> Result<Vec<Self>> {
        let request =
            account.connect.list_worker_configurations().set_name_prefix(prefix.map(String::from));
        let all: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        all.call_context("kafkaconnect:ListWorkerConfigurations", "worker configurations")
    }
}

impl WorkerConfiguration {
    fn display_name(&self) -> String {
        format!("worker configuration `{}`", self.name())
    }

    async fn find(&self) -> Result<Option<WorkerConfigurationSummary>> {
        lookup::find(&self.account, KEY, &self.name()).await
    }

    /// Reads the worker configuration again; `None` if it no longer exists.
    async fn refresh(&self, arn: &str) -> Result<Option<WorkerConfigurationSummary>> {
        Ok(self.find().await?.filter(|current| current.worker_configuration_arn() == Some(arn)))
    }
}

#[async_trait(?Send)]
impl Resource for WorkerConfiguration {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "worker-configuration"
    }

    fn name(&self) -> String {
        let configured = &self.account.config.connector.worker_name;
        if configured.is_empty() {
            self.account.named("confluent-worker")
        } else {
            configured.clone()
        }
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(summary) = self.find().await? else {
            return Ok(Observation::missing());
        };
        let (arn, name) = (
            summary.worker_configuration_arn().unwrap_or_default(),
            summary.name().unwrap_or_default(),
        );
        let Some(tags) = tags(&self.account, arn).await? else {
            return Ok(Observation::missing());
        };
        let is_renamed = name != self.name();
        if !self.account.is_managed(pairs(&tags)) {
            // The previous name now belongs to an unmanaged resource, which is ignored.
            return Ok(if is_renamed { Observation::missing() } else { Observation::unmanaged() });
        }
        if is_renamed {
            observed.found(name).set(&outputs::WORKER_CONFIGURATION_ARN, arn);
            return Ok(Observation::renamed(
                name,
                lookup::find_named::<WorkerConfigurationSummary>(&self.account, &self.name())
                    .await?
                    .is_some(),
            ));
        }
        if summary.worker_configuration_state() == Some(&WorkerConfigurationState::Deleting) {
            return Ok(Observation::pending("DELETING"));
        }
        let response = self
            .account
            .connect
            .describe_worker_configuration()
            .worker_configuration_arn(arn)
            .send()
            .await;
        let description = match response {
            Err(error) if code(&error) == "NotFoundException" => return Ok(Observation::missing()),
            response => response
                .call_context("kafkaconnect:DescribeWorkerConfiguration", &self.display_name())?,
        };
        let Some(latest) = description.latest_revision() else {
            return Ok(Observation::missing());
        };
        observed
            .found(self.name())
            .set(&outputs::WORKER_CONFIGURATION_ARN, arn)
            .set(&outputs::WORKER_CONFIGURATION_REVISION, latest.revision());
        let text = STANDARD
            .decode(latest.properties_file_content().unwrap_or_default())
            .unwrap_or_default();
        let changed = changed_keys(
            &properties(&String::from_utf8_lossy(&text)),
            &self.account.config.connector.worker_properties,
        );
        if !changed.is_empty() {
            return Ok(Observation::not_updatable(vec![format!(
                "properties differ: {}",
                changed.join(", ")
            )]));
        }
        Ok(Observation::compared(
            self.account.tag_differences(KEY, pairs(&tags)),
            format!("revision {}", latest.revision()),
        ))
    }

    async fn create(&self) -> Result<()> {
        let content = STANDARD.encode(lines(&self.account.config.connector.worker_properties));
        let request = self
            .account
            .connect
            .create_worker_configuration()
            .name(self.name())
            .description("created by pinpipe");
        let request = request
            .properties_file_content(content)
            .set_tags(Some(self.account.tags(KEY).into_iter().collect()));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "ConflictException" => Ok(()),
            Err(error) => {
                Err(error
                    .call_context("kafkaconnect:CreateWorkerConfiguration", &self.display_name()))
            }
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(summary) = self.find().await? else {
            return Ok(());
        };
        put_tags(&self.account, KEY, summary.worker_configuration_arn().unwrap_or_default()).await
    }

    async fn wait(&self) -> Result<()> {
        let check = || async {
            let summary = self.find().await?;
            let state = summary.as_ref().and_then(|summary| summary.worker_configuration_state());
            Ok((state == Some(&WorkerConfigurationState::Deleting)).then(|| "DELETING".to_string()))
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(summary) = self.find().await? else {
            return Ok(false);
        };
        let arn = summary.worker_configuration_arn().unwrap_or_default();
        let Some(tags) = tags(&self.account, arn).await? else {
            return Ok(true);
        };
        if !self.account.is_managed(pairs(&tags)) {
            return Ok(false);
        }
        match self
            .account
            .connect
            .delete_worker_configuration()
            .worker_configuration_arn(arn)
            .send()
            .await
        {
            Err(error) if code(&error) != "NotFoundException" => {
                // An attempt whose response was lost may have succeeded.
                let state = self
                    .refresh(arn)
                    .await?
                    .and_then(|summary| summary.worker_configuration_state().cloned());
                if state.is_some_and(|state| state != WorkerConfigurationState::Deleting) {
                    return Err(error.call_context(
                        "kafkaconnect:DeleteWorkerConfiguration",
                        &self.display_name(),
                    ));
                }
            }
            _ => {}
        }
        let check = || async { Ok(self.refresh(arn).await?.map(|_| "DELETING".to_string())) };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_the_properties_it_wrote() {
        let expected = BTreeMap::from([
            ("a.b".to_string(), "c=d".to_string()),
            ("e".to_string(), String::new()),
        ]);
        assert_eq!(properties(&lines(&expected)), expected);
        assert_eq!(
            properties("# a comment\n\n x = y \n"),
            BTreeMap::from([("x".to_string(), "y".to_string())])
        );
    }
}
