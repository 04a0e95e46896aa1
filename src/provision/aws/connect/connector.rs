//! The MSK Connect connector that writes the topics into the bucket.

use std::collections::BTreeMap;
use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_kafkaconnect::operation::describe_connector::DescribeConnectorOutput;
use aws_sdk_kafkaconnect::types::{
    ApacheKafkaCluster, Capacity, CapacityUpdate, ConnectorOperationState, ConnectorState,
    ConnectorSummary, CustomPlugin, KafkaCluster, KafkaClusterClientAuthentication,
    KafkaClusterClientAuthenticationType, KafkaClusterEncryptionInTransit,
    KafkaClusterEncryptionInTransitType, Plugin as ConnectPlugin, ProvisionedCapacity,
    ProvisionedCapacityUpdate, Vpc, WorkerConfiguration as ConnectWorkerConfiguration,
};

use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::Kind;
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::connect::lookup;
use crate::provision::aws::connect::lookup::{Listed, put_tags, tags};
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::msk::cluster;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::names::Member;
use crate::provision::aws::names::{Holder, role_arn};
use crate::provision::aws::outputs;
use crate::provision::aws::tags::pairs;
use crate::provision::cost::CostItem;
use crate::provision::resource::{Observation, Resource, changed_keys};

const KEY: &str = keys::CONNECTOR;

pub struct Connector {
    pub account: Rc<Account>,
}

/// How the connector should be and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Drift {
    Tags(String),
    Properties(Vec<String>),
    Capacity(String),
    Fixed(String),
}

impl std::fmt::Display for Drift {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tags(text) | Self::Fixed(text) | Self::Capacity(text) => {
                formatter.write_str(text)
            }
            Self::Properties(keys) => write!(formatter, "other properties: {}", keys.join(", ")),
        }
    }
}

impl Listed for ConnectorSummary {
    fn name(&self) -> Option<&str> {
        self.connector_name()
    }

    fn arn(&self) -> Option<&str> {
        self.connector_arn()
    }

    async fn all(account: &Account, prefix: Option<&str>) -> Result<Vec<Self>> {
        let request = account
            .connect
            .list_connectors()
            .set_connector_name_prefix(prefix.map(String::from));
        let all: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        all.map_err(|error| failed(Call("kafkaconnect:ListConnectors", "connectors"), &error))
    }
}

impl Connector {
    fn display_name(&self) -> String {
        format!("connector `{}`", self.name())
    }

    /// ARN of the connector.
    async fn find_arn(&self) -> Result<Option<String>> {
        let found: Option<ConnectorSummary> =
            lookup::find(&self.account, KEY, &self.name()).await?;
        Ok(found.and_then(|found| found.connector_arn))
    }

    pub async fn find(&self) -> Result<Option<DescribeConnectorOutput>> {
        let Some(arn) = self.find_arn().await? else {
            return Ok(None);
        };
        match self
            .account
            .connect
            .describe_connector()
            .connector_arn(arn)
            .send()
            .await
        {
            Ok(found) => Ok(Some(found)),
            Err(error) if code(&error) == "NotFoundException" => Ok(None),
            Err(error) => Err(failed(
                Call("kafkaconnect:DescribeConnector", &self.display_name()),
                &error,
            )),
        }
    }

    async fn differences(&self, found: &DescribeConnectorOutput) -> Result<Vec<Drift>> {
        let (config, state) = (&self.account.config, &self.account.state);
        let tags = tags(&self.account, found.connector_arn().unwrap_or_default())
            .await?
            .unwrap_or_default();
        let mut differences: Vec<Drift> = self
            .account
            .tag_differences(KEY, pairs(&tags))
            .into_iter()
            .map(Drift::Tags)
            .collect();
        let existing: BTreeMap<String, String> = found
            .connector_configuration()
            .cloned()
            .unwrap_or_default()
            .into_iter()
            .collect();
        let changed = changed_keys(&existing, &config.connector_properties());
        if !changed.is_empty() {
            differences.push(Drift::Properties(changed));
        }
        let capacity = found
            .capacity()
            .and_then(|capacity| capacity.provisioned_capacity());
        let (mcu, workers) = capacity.map_or((0, 0), |capacity| {
            (capacity.mcu_count(), capacity.worker_count())
        });
        let (wanted_mcu, wanted_workers) = (config.connector.mcu, config.connector.workers);
        if (mcu, workers) != (wanted_mcu, wanted_workers) {
            differences.push(Drift::Capacity(format!(
                "it has {workers} workers of {mcu} units, not {wanted_workers} of {wanted_mcu}"
            )));
        }
        let kafka = found
            .kafka_cluster()
            .and_then(|kafka| kafka.apache_kafka_cluster());
        let brokers = state.output(keys::CLUSTER, "bootstrap_servers").await;
        let read_from = kafka
            .and_then(|kafka| kafka.bootstrap_servers())
            .unwrap_or_default();
        if brokers.is_some_and(|brokers| !cluster::is_same_cluster(&brokers, read_from)) {
            differences.push(Drift::Fixed("it reads from other brokers".into()));
        }
        if found.service_execution_role_arn()
            != Some(role_arn(&self.account, Holder::Connector).as_str())
        {
            differences.push(Drift::Fixed("it has another role".into()));
        }
        let plugin = found
            .plugins()
            .first()
            .and_then(|plugin| plugin.custom_plugin())
            .and_then(|plugin| plugin.custom_plugin_arn());
        let wanted_plugin = state.output(keys::PLUGIN, "arn").await;
        if wanted_plugin.is_some() && plugin != wanted_plugin.as_deref() {
            differences.push(Drift::Fixed("it uses another plugin".into()));
        }
        let worker = found
            .worker_configuration()
            .and_then(|worker| worker.worker_configuration_arn());
        let wanted_worker = state.output(keys::WORKER_CONFIGURATION, "arn").await;
        if wanted_worker.is_some() && worker != wanted_worker.as_deref() {
            differences.push(Drift::Fixed("it uses another worker configuration".into()));
        }
        Ok(differences)
    }

    /// Whether an object of the pipeline's topics lies in the bucket: only that proves that data flows.
    pub async fn has_delivered(&self) -> Result<bool> {
        let properties = self.account.config.connector_properties();
        let folder = properties
            .get("topics.dir")
            .map_or("topics", String::as_str);
        let request = self
            .account
            .s3
            .list_objects_v2()
            .bucket(BucketUse::Lake.name(&self.account.config));
        let found = request
            .prefix(format!("{folder}/{}.", self.account.config.id))
            .max_keys(1)
            .send()
            .await;
        match found {
            Ok(found) => Ok(!found.contents().is_empty()),
            Err(error) if code(&error) == "NoSuchBucket" => Ok(false),
            Err(error) => Err(failed(Call("s3:ListBucket", &self.display_name()), &error)),
        }
    }

    /// Polls the operation that a change began: the connector's own state hides its failure.
    async fn finish_operation(&self) -> Result<()> {
        match self.account.state.output(KEY, "operation").await {
            Some(operation) if !operation.is_empty() => self.follow(&operation).await,
            _ => Ok(()),
        }
    }

    /// Notes an operation, polls it to its end, and forgets it.
    pub async fn follow(&self, operation: &str) -> Result<()> {
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[("operation", operation)])
            .await?;
        let check = || async {
            let found = self
                .account
                .connect
                .describe_connector_operation()
                .connector_operation_arn(operation)
                .send()
                .await;
            let found = match found {
                Err(error) if code(&error) == "NotFoundException" => return Ok(None),
                found => found.map_err(|error| {
                    failed(
                        Call(
                            "kafkaconnect:DescribeConnectorOperation",
                            &self.display_name(),
                        ),
                        &error,
                    )
                })?,
            };
            use ConnectorOperationState as State;
            match found.connector_operation_state() {
                Some(
                    State::UpdateComplete
                    | State::RestartComplete
                    | State::PauseComplete
                    | State::ResumeComplete,
                ) => Ok(None),
                Some(
                    State::UpdateFailed
                    | State::RollbackComplete
                    | State::RollbackFailed
                    | State::RestartFailed
                    | State::PauseFailed
                    | State::ResumeFailed,
                ) => {
                    let reason = found.error_info().map(|info| {
                        format!(
                            "{}: {}",
                            info.code().unwrap_or("no code"),
                            info.message().unwrap_or("no reason was given")
                        )
                    });
                    self.account
                        .state
                        .record_outputs(KEY, &self.name(), &[("operation", "")])
                        .await?;
                    Err(Error::failed(format!("the change of {} failed", self.display_name()))
                        .with_source(reason.unwrap_or_else(|| "AWS gives no reason".into()))
                        .hint("it goes on as it was before; correct `[connector]` in the configuration and run again"))
                }
                state => Ok(Some(state.map_or("unknown", State::as_str).to_string())),
            }
        };
        self.account.wait_until(&self.display_name(), check).await?;
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[("operation", "")])
            .await
    }
}

fn reason(found: &DescribeConnectorOutput) -> String {
    let description = found.state_description();
    let text = description.map(|text| {
        format!(
            "{}: {}",
            text.code().unwrap_or("no code"),
            text.message().unwrap_or("no reason")
        )
    });
    text.unwrap_or_else(|| "AWS gives no reason".into())
}

#[async_trait(?Send)]
impl Resource for Connector {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "connector"
    }

    fn name(&self) -> String {
        self.account.config.connector_name()
    }

    fn depends_on(&self) -> Vec<String> {
        let own = [
            keys::NETWORK,
            Member::Client.key(),
            keys::S3_ENDPOINT,
            Holder::Connector.key(),
            BucketUse::Lake.key(),
            keys::CLUSTER,
            keys::PLUGIN,
            keys::WORKER_CONFIGURATION,
        ];
        own.map(String::from)
            .into_iter()
            .chain(Kind::ALL.map(keys::topic))
            .collect()
    }

    fn recreated_with(&self) -> Vec<String> {
        [keys::CLUSTER, keys::PLUGIN, keys::WORKER_CONFIGURATION]
            .map(String::from)
            .to_vec()
    }

    fn cost_items(&self) -> Vec<CostItem> {
        let connector = &self.account.config.connector;
        vec![CostItem::new(
            "msk-connect-mcu",
            connector.mcu * connector.workers,
        )]
    }

    async fn read(&self) -> Result<Observation> {
        let Some(found) = self.find().await? else {
            return Ok(Observation::missing());
        };
        let (arn, name) = (
            found.connector_arn().unwrap_or_default(),
            found.connector_name().unwrap_or_default(),
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
        self.account
            .state
            .record_outputs(KEY, name, &[("arn", arn)])
            .await?;
        if is_renamed {
            return Ok(Observation::renamed(
                name,
                lookup::find_named::<ConnectorSummary>(&self.account, &self.name())
                    .await?
                    .is_some(),
            ));
        }
        match found.connector_state() {
            Some(ConnectorState::Failed) => {
                return Ok(Observation::replace(vec![format!(
                    "it failed: {}",
                    reason(&found)
                )]));
            }
            Some(ConnectorState::Running) => {}
            Some(state) if state.as_str() == "PAUSED" => return Ok(Observation::in_sync("paused")),
            state => {
                return Ok(Observation::pending(
                    state.map_or("unknown", ConnectorState::as_str),
                ));
            }
        }
        let differences = self.differences(&found).await?;
        let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
        if differences
            .iter()
            .any(|drift| matches!(drift, Drift::Fixed(_)))
        {
            return Ok(Observation::replace(texts));
        }
        let detail = if self.has_delivered().await? {
            "working: its objects arrive in the bucket"
        } else {
            "running; no object has arrived in the bucket yet"
        };
        Ok(Observation::from_drift(texts, detail))
    }

    async fn create(&self) -> Result<()> {
        let (config, state) = (&self.account.config, &self.account.state);
        let whole = || "the connector is not described wholly".to_string();
        let vpc = Vpc::builder().set_subnets(Some(outputs::subnets(&self.account).await?));
        let vpc = vpc
            .security_groups(state.require_output(Member::Client.key(), "id").await?)
            .build()
            .context(whole)?;
        let kafka = ApacheKafkaCluster::builder()
            .bootstrap_servers(
                state
                    .require_output(keys::CLUSTER, "bootstrap_servers")
                    .await?,
            )
            .vpc(vpc);
        let capacity = ProvisionedCapacity::builder()
            .mcu_count(config.connector.mcu)
            .worker_count(config.connector.workers)
            .build();
        let revision = |text: String| text.parse::<i64>().unwrap_or(1);
        let plugin = CustomPlugin::builder()
            .custom_plugin_arn(state.require_output(keys::PLUGIN, "arn").await?)
            .revision(revision(
                state.require_output(keys::PLUGIN, "revision").await?,
            ))
            .build()
            .context(whole)?;
        let worker = ConnectWorkerConfiguration::builder()
            .worker_configuration_arn(
                state
                    .require_output(keys::WORKER_CONFIGURATION, "arn")
                    .await?,
            )
            .revision(revision(
                state
                    .require_output(keys::WORKER_CONFIGURATION, "revision")
                    .await?,
            ))
            .build()
            .context(whole)?;
        let kafka = kafka.build().context(whole)?;
        let authentication = KafkaClusterClientAuthentication::builder()
            .authentication_type(KafkaClusterClientAuthenticationType::Iam);
        let encryption = KafkaClusterEncryptionInTransit::builder()
            .encryption_type(KafkaClusterEncryptionInTransitType::Tls);
        let (authentication, encryption) = (
            authentication.build().context(whole)?,
            encryption.build().context(whole)?,
        );
        let call = || async {
            let request = self
                .account
                .connect
                .create_connector()
                .connector_name(self.name())
                .connector_description("made by pinpipe");
            let request = request
                .capacity(
                    Capacity::builder()
                        .provisioned_capacity(capacity.clone())
                        .build(),
                )
                .set_connector_configuration(Some(
                    config.connector_properties().into_iter().collect(),
                ))
                .kafka_cluster(
                    KafkaCluster::builder()
                        .apache_kafka_cluster(kafka.clone())
                        .build(),
                )
                .kafka_cluster_client_authentication(authentication.clone())
                .kafka_cluster_encryption_in_transit(encryption.clone())
                .kafka_connect_version(&config.connector.connect_version)
                .plugins(
                    ConnectPlugin::builder()
                        .custom_plugin(plugin.clone())
                        .build(),
                )
                .service_execution_role_arn(role_arn(&self.account, Holder::Connector))
                .worker_configuration(worker.clone())
                .set_tags(Some(self.account.tags(KEY).into_iter().collect()));
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) if code(&error) == "ConflictException" => Ok(()),
                Err(error) => Err(failed(
                    Call("kafkaconnect:CreateConnector", &self.display_name()),
                    &error,
                )),
            }
        };
        // A role is seen by MSK Connect some seconds after IAM has made it.
        let is_unseen = |error: &Error| {
            let text = error.to_string().to_lowercase();
            text.contains("role")
                && (text.contains("badrequest")
                    || text.contains("notfound")
                    || text.contains("forbidden"))
        };
        self.account.retry_until_visible(is_unseen, call).await
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        let (arn, config) = (
            found.connector_arn().unwrap_or_default(),
            &self.account.config,
        );
        let differences = self.differences(&found).await?;
        if differences
            .iter()
            .any(|drift| matches!(drift, Drift::Tags(_)))
        {
            put_tags(&self.account, KEY, arn).await?;
        }
        let request = self
            .account
            .connect
            .update_connector()
            .connector_arn(arn)
            .set_current_version(found.current_version().map(String::from));
        // Either of the two in one call; what is left is found by the next reading.
        let request = match differences
            .iter()
            .find(|drift| !matches!(drift, Drift::Tags(_) | Drift::Fixed(_)))
        {
            Some(Drift::Properties(_)) => request.set_connector_configuration(Some(
                config.connector_properties().into_iter().collect(),
            )),
            Some(Drift::Capacity(_)) => {
                let (mcu, workers) = (config.connector.mcu, config.connector.workers);
                let wanted = ProvisionedCapacityUpdate::builder()
                    .mcu_count(mcu)
                    .worker_count(workers)
                    .build();
                request.capacity(
                    CapacityUpdate::builder()
                        .provisioned_capacity(wanted)
                        .build(),
                )
            }
            _ => return Ok(()),
        };
        let begun = match request.send().await {
            Ok(begun) => begun,
            Err(error) => {
                // A change whose answer got lost is under way already.
                let now = self
                    .find()
                    .await?
                    .and_then(|found| found.connector_state().cloned());
                if now == Some(ConnectorState::Updating) {
                    return Ok(());
                }
                return Err(failed(
                    Call("kafkaconnect:UpdateConnector", &self.display_name()),
                    &error,
                ));
            }
        };
        self.follow(begun.connector_operation_arn().unwrap_or_default())
            .await
    }

    async fn wait(&self) -> Result<()> {
        self.finish_operation().await?;
        let check = || async {
            let Some(found) = self.find().await? else {
                return Ok(None);
            };
            match found.connector_state() {
                Some(ConnectorState::Running) => Ok(None),
                Some(ConnectorState::Failed) => Err(Error::failed(format!("{} failed", self.display_name())).with_source(reason(&found)).hint(
                    "usual causes: a property the sink does not know, brokers or the bucket out of reach, a right the role lacks; `pinpipe provision` makes it anew",
                )),
                Some(state) if state.as_str() == "PAUSED" => Ok(None),
                state => Ok(Some(state.map_or("unknown", ConnectorState::as_str).to_string())),
            }
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(found) = self.find().await? else {
            return Ok(false);
        };
        let arn = found.connector_arn().unwrap_or_default();
        let Some(tags) = tags(&self.account, arn).await? else {
            return Ok(true);
        };
        if !self.account.is_ours(pairs(&tags)) {
            return Ok(false);
        }
        if matches!(
            found.connector_state(),
            Some(ConnectorState::Creating | ConnectorState::Updating)
        ) {
            // It takes no other call meanwhile; that it fails in the end does not matter here.
            if let Err(error) = self.wait().await
                && self.account.stop.is_cancelled()
            {
                return Err(error);
            }
        }
        if found.connector_state() != Some(&ConnectorState::Deleting) {
            match self
                .account
                .connect
                .delete_connector()
                .connector_arn(arn)
                .send()
                .await
            {
                Err(error) if code(&error) != "NotFoundException" => {
                    // An attempt whose answer got lost had its effect.
                    let now = self
                        .find()
                        .await?
                        .filter(|now| now.connector_arn() == Some(arn));
                    if now
                        .is_some_and(|now| now.connector_state() != Some(&ConnectorState::Deleting))
                    {
                        return Err(failed(
                            Call("kafkaconnect:DeleteConnector", &self.display_name()),
                            &error,
                        ));
                    }
                }
                _ => {}
            }
        }
        let check = || async {
            Ok(self
                .find_arn()
                .await?
                .filter(|now| now == arn)
                .map(|_| "going".to_string()))
        };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}
