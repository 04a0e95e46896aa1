//! The worker configuration of MSK Connect. It cannot be changed, only made anew.

use std::collections::BTreeMap;
use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_kafkaconnect::types::{WorkerConfigurationState, WorkerConfigurationSummary};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::error::Result;
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::connect::lookup;
use crate::provision::aws::connect::lookup::{Listed, put_tags, tags};
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::tags::pairs;
use crate::provision::resource::{Observation, Resource, changed_keys};

const KEY: &str = keys::WORKER_CONFIGURATION;

pub struct WorkerConfiguration {
    pub account: Rc<Account>,
}

/// Lines of `key=value`.
fn lines(properties: &BTreeMap<String, String>) -> String {
    properties
        .iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

/// The properties that such lines hold.
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
        let request = account
            .connect
            .list_worker_configurations()
            .set_name_prefix(prefix.map(String::from));
        let all: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        all.map_err(|error| {
            failed(
                Call(
                    "kafkaconnect:ListWorkerConfigurations",
                    "worker configurations",
                ),
                &error,
            )
        })
    }
}

impl WorkerConfiguration {
    fn display_name(&self) -> String {
        format!("worker configuration `{}`", self.name())
    }

    async fn find(&self) -> Result<Option<WorkerConfigurationSummary>> {
        lookup::find(&self.account, KEY, &self.name()).await
    }

    /// That worker configuration as it stands now; `None`: it is gone.
    async fn again(&self, arn: &str) -> Result<Option<WorkerConfigurationSummary>> {
        Ok(self
            .find()
            .await?
            .filter(|now| now.worker_configuration_arn() == Some(arn)))
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

    async fn read(&self) -> Result<Observation> {
        let Some(found) = self.find().await? else {
            return Ok(Observation::missing());
        };
        let (arn, name) = (
            found.worker_configuration_arn().unwrap_or_default(),
            found.name().unwrap_or_default(),
        );
        let Some(tags) = tags(&self.account, arn).await? else {
            return Ok(Observation::missing());
        };
        let is_renamed = name != self.name();
        if !self.account.is_ours(pairs(&tags)) {
            // Who took a name that is not wanted any more is nobody's business.
            return Ok(if is_renamed {
                Observation::missing()
            } else {
                Observation::unmanaged()
            });
        }
        if is_renamed {
            self.account
                .state
                .record_outputs(KEY, name, &[("arn", arn)])
                .await?;
            return Ok(Observation::renamed(
                name,
                lookup::find_named::<WorkerConfigurationSummary>(&self.account, &self.name())
                    .await?
                    .is_some(),
            ));
        }
        if found.worker_configuration_state() == Some(&WorkerConfigurationState::Deleting) {
            return Ok(Observation::pending("DELETING"));
        }
        let described = self
            .account
            .connect
            .describe_worker_configuration()
            .worker_configuration_arn(arn)
            .send()
            .await;
        let described = match described {
            Err(error) if code(&error) == "NotFoundException" => return Ok(Observation::missing()),
            described => described.map_err(|error| {
                failed(
                    Call(
                        "kafkaconnect:DescribeWorkerConfiguration",
                        &self.display_name(),
                    ),
                    &error,
                )
            })?,
        };
        let Some(latest) = described.latest_revision() else {
            return Ok(Observation::missing());
        };
        self.account
            .state
            .record_outputs(
                KEY,
                &self.name(),
                &[("arn", arn), ("revision", &latest.revision().to_string())],
            )
            .await?;
        let text = STANDARD
            .decode(latest.properties_file_content().unwrap_or_default())
            .unwrap_or_default();
        let changed = changed_keys(
            &properties(&String::from_utf8_lossy(&text)),
            &self.account.config.connector.worker_properties,
        );
        if !changed.is_empty() {
            return Ok(Observation::replace(vec![format!(
                "other properties: {}",
                changed.join(", ")
            )]));
        }
        Ok(Observation::from_drift(
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
            .description("made by pinpipe");
        let request = request
            .properties_file_content(content)
            .set_tags(Some(self.account.tags(KEY).into_iter().collect()));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "ConflictException" => Ok(()),
            Err(error) => Err(failed(
                Call(
                    "kafkaconnect:CreateWorkerConfiguration",
                    &self.display_name(),
                ),
                &error,
            )),
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        put_tags(
            &self.account,
            KEY,
            found.worker_configuration_arn().unwrap_or_default(),
        )
        .await
    }

    async fn wait(&self) -> Result<()> {
        let check =
            || async {
                let found = self.find().await?;
                let state = found
                    .as_ref()
                    .and_then(|found| found.worker_configuration_state());
                Ok((state == Some(&WorkerConfigurationState::Deleting))
                    .then(|| "DELETING".to_string()))
            };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(found) = self.find().await? else {
            return Ok(false);
        };
        let arn = found.worker_configuration_arn().unwrap_or_default();
        let Some(tags) = tags(&self.account, arn).await? else {
            return Ok(true);
        };
        if !self.account.is_ours(pairs(&tags)) {
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
                // An attempt whose answer got lost had its effect.
                let now = self
                    .again(arn)
                    .await?
                    .and_then(|found| found.worker_configuration_state().cloned());
                if now.is_some_and(|state| state != WorkerConfigurationState::Deleting) {
                    return Err(failed(
                        Call(
                            "kafkaconnect:DeleteWorkerConfiguration",
                            &self.display_name(),
                        ),
                        &error,
                    ));
                }
            }
            _ => {}
        }
        let check = || async { Ok(self.again(arn).await?.map(|_| "going".to_string())) };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_survive_their_file() {
        let wanted = BTreeMap::from([
            ("a.b".to_string(), "c=d".to_string()),
            ("e".to_string(), String::new()),
        ]);
        assert_eq!(properties(&lines(&wanted)), wanted);
        assert_eq!(
            properties("# a remark\n\n x = y \n"),
            BTreeMap::from([("x".to_string(), "y".to_string())])
        );
    }
}
