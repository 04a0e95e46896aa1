//! The MSK Connect connector that writes the topics to the bucket.

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
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::connect::lookup;
use crate::provision::aws::connect::lookup::{Listed, put_tags, tags};
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::msk::cluster;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::names::GroupMember;
use crate::provision::aws::names::{Principal, role_arn};
use crate::provision::aws::outputs;
use crate::provision::aws::tags::pairs;
use crate::provision::cost::CostItem;
use crate::provision::resource::{Difference, Observation, Resource, changed_keys};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::CONNECTOR;

pub struct Connector {
    pub account: Rc<Account>,
}

/// A repair of one difference between the connector and its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Repair {
    Tags(Difference),
    /// Keys of the properties that differ.
    Properties(Vec<String>),
    Capacity(Difference),
    /// Replacement, because MSK Connect cannot change the property.
    Replacement(Difference),
}

impl Repair {
    fn difference(&self) -> Difference {
        match self {
            Self::Tags(difference) | Self::Replacement(difference) | Self::Capacity(difference) => {
                difference.clone()
            }
            Self::Properties(keys) => format!("properties differ: {}", keys.join(", ")).into(),
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
        let request =
            account.connect.list_connectors().set_connector_name_prefix(prefix.map(String::from));
        let all: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        all.call_context("kafkaconnect:ListConnectors", "connectors")
    }
}

impl Connector {
    fn display_name(&self) -> String {
        format!("connector `{}`", self.name())
    }

    /// Returns the ARN of the connector.
    async fn find_arn(&self) -> Result<Option<String>> {
        let summary: Option<ConnectorSummary> =
            lookup::find(&self.account, KEY, &self.name()).await?;
        Ok(summary.and_then(|summary| summary.connector_arn))
    }

    /// Returns the description of the connector; `None` if it does not exist.
    pub async fn find(&self) -> Result<Option<DescribeConnectorOutput>> {
        let Some(arn) = self.find_arn().await? else {
            return Ok(None);
        };
        match self.account.connect.describe_connector().connector_arn(arn).send().await {
            Ok(description) => Ok(Some(description)),
            Err(error) if code(&error) == "NotFoundException" => Ok(None),
            Err(error) => {
                Err(error.call_context("kafkaconnect:DescribeConnector", &self.display_name()))
            }
        }
    }

    async fn repairs(&self, description: &DescribeConnectorOutput) -> Result<Vec<Repair>> {
        let (config, state) = (&self.account.config, &self.account.state);
        let tags = tags(&self.account, description.connector_arn().unwrap_or_default())
            .await?
            .unwrap_or_default();
        let mut repairs: Vec<Repair> =
            self.account.tag_differences(KEY, pairs(&tags)).into_iter().map(Repair::Tags).collect();
        let existing: BTreeMap<String, String> = description
            .connector_configuration()
            .cloned()
            .unwrap_or_default()
            .into_iter()
            .collect();
        let changed = changed_keys(&existing, &config.connector_properties());
        if !changed.is_empty() {
            repairs.push(Repair::Properties(changed));
        }
        let capacity = description.capacity().and_then(|capacity| capacity.provisioned_capacity());
        let (mcu, workers) =
            capacity.map_or((0, 0), |capacity| (capacity.mcu_count(), capacity.worker_count()));
        let (desired_mcu, desired_workers) = (config.connector.mcu, config.connector.workers);
        if (mcu, workers) != (desired_mcu, desired_workers) {
            repairs.push(Repair::Capacity(Difference::field(
                "capacity",
                format!("{workers} workers of {mcu} MCU"),
                format!("{desired_workers} of {desired_mcu}"),
            )));
        }
        let kafka = description.kafka_cluster().and_then(|kafka| kafka.apache_kafka_cluster());
        let brokers = state.output(&outputs::BOOTSTRAP_SERVERS).await;
        let current_brokers = kafka.and_then(|kafka| kafka.bootstrap_servers()).unwrap_or_default();
        if brokers.is_some_and(|brokers| !cluster::is_same_cluster(&brokers, current_brokers)) {
            repairs.push(Repair::Replacement("the connector reads from other brokers".into()));
        }
        if description.service_execution_role_arn()
            != Some(role_arn(&self.account, Principal::Connector).as_str())
        {
            repairs.push(Repair::Replacement("the connector has another execution role".into()));
        }
        let plugin = description
            .plugins()
            .first()
            .and_then(|plugin| plugin.custom_plugin())
            .and_then(|plugin| plugin.custom_plugin_arn());
        let desired_plugin = state.output(&outputs::PLUGIN_ARN).await;
        if desired_plugin.is_some() && plugin != desired_plugin.as_deref() {
            repairs.push(Repair::Replacement("the connector uses another plugin".into()));
        }
        let worker =
            description.worker_configuration().and_then(|worker| worker.worker_configuration_arn());
        let desired_worker = state.output(&outputs::WORKER_CONFIGURATION_ARN).await;
        if desired_worker.is_some() && worker != desired_worker.as_deref() {
            repairs.push(Repair::Replacement(
                "the connector uses another worker configuration".into(),
            ));
        }
        Ok(repairs)
    }

    /// Whether the bucket contains an object of the pipeline's topics. Only an object proves that
    /// data flows.
    pub async fn has_delivered(&self) -> Result<bool> {
        let properties = self.account.config.connector_properties();
        let folder = properties.get("topics.dir").map_or("topics", String::as_str);
        let request =
            self.account.s3.list_objects_v2().bucket(BucketUse::Lake.name(&self.account.config));
        let response = request
            .prefix(format!("{folder}/{}.", self.account.config.id))
            .max_keys(1)
            .send()
            .await;
        match response {
            Ok(listing) => Ok(!listing.contents().is_empty()),
            Err(error) if code(&error) == "NoSuchBucket" => Ok(false),
            Err(error) => Err(error.call_context("s3:ListBucket", &self.display_name())),
        }
    }

    /// Returns the error for a connector in the state `FAILED`.
    fn failure(&self, description: &DescribeConnectorOutput) -> Error {
        Error::failed(format!("{} failed", self.display_name()))
            .with_source(reason(description))
            .hint(
                "usual causes: an unknown property of the sink, unreachable brokers or bucket, a \
                 missing permission of the role; `pinpipe provision` replaces the connector",
            )
    }

    /// Waits for the recorded operation, if any. `DescribeConnector` does not show that an operation
    /// failed.
    async fn finish_operation(&self) -> Result<()> {
        match self.account.state.output(&outputs::CONNECTOR_OPERATION).await {
            Some(operation) if !operation.is_empty() => self.follow(&operation).await,
            _ => Ok(()),
        }
    }

    /// Stores the operation in the state, waits until it completes, and removes it from the state.
    ///
    /// # Errors
    /// The operation fails or cannot be read; Ctrl-C; the wait exceeds
    /// `provision.operation_timeout_minutes`.
    pub async fn follow(&self, operation: &str) -> Result<()> {
        self.account.state.record(&self.name(), &outputs::CONNECTOR_OPERATION, operation).await?;
        let check = || async {
            let response = self
                .account
                .connect
                .describe_connector_operation()
                .connector_operation_arn(operation)
                .send()
                .await;
            let status = match response {
                Err(error) if code(&error) == "NotFoundException" => return Ok(None),
                response => response.call_context(
                    "kafkaconnect:DescribeConnectorOperation",
                    &self.display_name(),
                )?,
            };
            use ConnectorOperationState as State;
            match status.connector_operation_state() {
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
                    let reason = status.error_info().map(|info| {
                        format!(
                            "{}: {}",
                            info.code().unwrap_or("no code"),
                            info.message().unwrap_or("no reason was given")
                        )
                    });
                    self.account
                        .state
                        .record(&self.name(), &outputs::CONNECTOR_OPERATION, "")
                        .await?;
                    Err(Error::failed(format!(
                        "the operation on {} failed",
                        self.display_name()
                    ))
                    .with_source(reason.unwrap_or_else(|| "AWS gave no reason".into()))
                    .hint(
                        "the connector runs unchanged: correct `[connector]` in the configuration \
                         and re-run the command",
                    ))
                }
                state => Ok(Some(state.map_or("unknown", State::as_str).to_string())),
            }
        };
        self.account.wait_until(&self.display_name(), check).await?;
        self.account.state.record(&self.name(), &outputs::CONNECTOR_OPERATION, "").await
    }
}

/// Reason that MSK Connect gives for the state of the connector.
fn reason(description: &DescribeConnectorOutput) -> String {
    let state = description.state_description();
    let text = state.map(|state| {
        format!(
            "{}: {}",
            state.code().unwrap_or("no code"),
            state.message().unwrap_or("no reason was given")
        )
    });
    text.unwrap_or_else(|| "AWS gave no reason".into())
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
        let dependencies = [
            keys::NETWORK,
            GroupMember::Client.key(),
            keys::S3_ENDPOINT,
            Principal::Connector.key(),
            BucketUse::Lake.key(),
            keys::CLUSTER,
            keys::PLUGIN,
            keys::WORKER_CONFIGURATION,
        ];
        dependencies.map(String::from).into_iter().chain(Kind::ALL.map(keys::topic)).collect()
    }

    fn replaced_with(&self) -> Vec<String> {
        [keys::CLUSTER, keys::PLUGIN, keys::WORKER_CONFIGURATION].map(String::from).to_vec()
    }

    fn cost_items(&self) -> Vec<CostItem> {
        let connector = &self.account.config.connector;
        vec![CostItem::new("msk-connect-mcu", connector.mcu * connector.workers)]
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(description) = self.find().await? else {
            return Ok(Observation::missing());
        };
        let (arn, name) = (
            description.connector_arn().unwrap_or_default(),
            description.connector_name().unwrap_or_default(),
        );
        let Some(tags) = tags(&self.account, arn).await? else {
            return Ok(Observation::missing());
        };
        let is_renamed = name != self.name();
        if !self.account.is_managed(pairs(&tags)) {
            // The previous name now belongs to an unmanaged resource, which is ignored.
            return Ok(if is_renamed { Observation::missing() } else { Observation::unmanaged() });
        }
        observed.found(name).set(&outputs::CONNECTOR_ARN, arn);
        if is_renamed {
            return Ok(Observation::renamed(
                name,
                lookup::find_named::<ConnectorSummary>(&self.account, &self.name())
                    .await?
                    .is_some(),
            ));
        }
        match description.connector_state() {
            Some(ConnectorState::Failed) => {
                return Ok(Observation::not_updatable(vec![format!(
                    "the connector failed: {}",
                    reason(&description)
                )]));
            }
            Some(ConnectorState::Running) => {}
            Some(state) if state.as_str() == "PAUSED" => return Ok(Observation::in_sync("paused")),
            state => {
                return Ok(Observation::pending(state.map_or("unknown", ConnectorState::as_str)));
            }
        }
        let repairs = self.repairs(&description).await?;
        let differences: Vec<Difference> = repairs.iter().map(Repair::difference).collect();
        if repairs.iter().any(|repair| matches!(repair, Repair::Replacement(_))) {
            return Ok(Observation::not_updatable(differences));
        }
        let detail = if self.has_delivered().await? {
            "running; objects have arrived in the bucket"
        } else {
            "running; no object has arrived in the bucket yet"
        };
        Ok(Observation::compared(differences, detail))
    }

    async fn create(&self) -> Result<()> {
        let (config, state) = (&self.account.config, &self.account.state);
        let incomplete = || "cannot build the request that creates the connector".to_string();
        let vpc = Vpc::builder()
            .set_subnets(Some(self.account.state.require_output(&outputs::SUBNETS).await?));
        let vpc = vpc
            .security_groups(state.require_output(&outputs::group_id(GroupMember::Client)).await?)
            .build()
            .context(incomplete)?;
        let kafka = ApacheKafkaCluster::builder()
            .bootstrap_servers(state.require_output(&outputs::BOOTSTRAP_SERVERS).await?)
            .vpc(vpc);
        let capacity = ProvisionedCapacity::builder()
            .mcu_count(config.connector.mcu)
            .worker_count(config.connector.workers)
            .build();
        let plugin = CustomPlugin::builder()
            .custom_plugin_arn(state.require_output(&outputs::PLUGIN_ARN).await?)
            .revision(state.require_output(&outputs::PLUGIN_REVISION).await?)
            .build()
            .context(incomplete)?;
        let worker = ConnectWorkerConfiguration::builder()
            .worker_configuration_arn(
                state.require_output(&outputs::WORKER_CONFIGURATION_ARN).await?,
            )
            .revision(state.require_output(&outputs::WORKER_CONFIGURATION_REVISION).await?)
            .build()
            .context(incomplete)?;
        let kafka = kafka.build().context(incomplete)?;
        let authentication = KafkaClusterClientAuthentication::builder()
            .authentication_type(KafkaClusterClientAuthenticationType::Iam);
        let encryption = KafkaClusterEncryptionInTransit::builder()
            .encryption_type(KafkaClusterEncryptionInTransitType::Tls);
        let (authentication, encryption) =
            (authentication.build().context(incomplete)?, encryption.build().context(incomplete)?);
        let call = || async {
            let request = self
                .account
                .connect
                .create_connector()
                .connector_name(self.name())
                .connector_description("created by pinpipe");
            let request = request
                .capacity(Capacity::builder().provisioned_capacity(capacity.clone()).build())
                .set_connector_configuration(Some(
                    config.connector_properties().into_iter().collect(),
                ))
                .kafka_cluster(KafkaCluster::builder().apache_kafka_cluster(kafka.clone()).build())
                .kafka_cluster_client_authentication(authentication.clone())
                .kafka_cluster_encryption_in_transit(encryption.clone())
                .kafka_connect_version(&config.connector.connect_version)
                .plugins(ConnectPlugin::builder().custom_plugin(plugin.clone()).build())
                .service_execution_role_arn(role_arn(&self.account, Principal::Connector))
                .worker_configuration(worker.clone())
                .set_tags(Some(self.account.tags(KEY).into_iter().collect()));
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) if code(&error) == "ConflictException" => Ok(()),
                Err(error) => {
                    Err(error.call_context("kafkaconnect:CreateConnector", &self.display_name()))
                }
            }
        };
        // MSK Connect sees a new role only some seconds after IAM has created it.
        let is_unseen = |error: &Error| {
            let codes = ["BadRequestException", "NotFoundException", "ForbiddenException"];
            error.has_service_code(&codes)
                && error.service_message().to_lowercase().contains("role")
        };
        self.account.retry_until_visible(is_unseen, call).await
    }

    async fn update(&self) -> Result<()> {
        let Some(description) = self.find().await? else {
            return Ok(());
        };
        let (arn, config) = (description.connector_arn().unwrap_or_default(), &self.account.config);
        let repairs = self.repairs(&description).await?;
        if repairs.iter().any(|repair| matches!(repair, Repair::Tags(_))) {
            put_tags(&self.account, KEY, arn).await?;
        }
        let request = self
            .account
            .connect
            .update_connector()
            .connector_arn(arn)
            .set_current_version(description.current_version().map(String::from));
        // MSK Connect accepts either properties or capacity in one call. The next observation finds
        // the remaining difference.
        let request = match repairs
            .iter()
            .find(|repair| !matches!(repair, Repair::Tags(_) | Repair::Replacement(_)))
        {
            Some(Repair::Properties(_)) => request.set_connector_configuration(Some(
                config.connector_properties().into_iter().collect(),
            )),
            Some(Repair::Capacity(_)) => {
                let (mcu, workers) = (config.connector.mcu, config.connector.workers);
                let capacity = ProvisionedCapacityUpdate::builder()
                    .mcu_count(mcu)
                    .worker_count(workers)
                    .build();
                request.capacity(CapacityUpdate::builder().provisioned_capacity(capacity).build())
            }
            _ => return Ok(()),
        };
        let operation = match request.send().await {
            Ok(operation) => operation,
            Err(error) => {
                // A change whose response was lost is already in progress.
                let state = self
                    .find()
                    .await?
                    .and_then(|description| description.connector_state().cloned());
                if state == Some(ConnectorState::Updating) {
                    return Ok(());
                }
                return Err(
                    error.call_context("kafkaconnect:UpdateConnector", &self.display_name())
                );
            }
        };
        self.follow(operation.connector_operation_arn().unwrap_or_default()).await
    }

    async fn wait(&self) -> Result<()> {
        self.finish_operation().await?;
        let check = || async {
            let Some(description) = self.find().await? else {
                return Ok(None);
            };
            match description.connector_state() {
                Some(ConnectorState::Running) => Ok(None),
                Some(ConnectorState::Failed) => Err(self.failure(&description)),
                Some(state) if state.as_str() == "PAUSED" => Ok(None),
                state => Ok(Some(state.map_or("unknown", ConnectorState::as_str).to_string())),
            }
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(description) = self.find().await? else {
            return Ok(false);
        };
        let arn = description.connector_arn().unwrap_or_default();
        let Some(tags) = tags(&self.account, arn).await? else {
            return Ok(true);
        };
        if !self.account.is_managed(pairs(&tags)) {
            return Ok(false);
        }
        if matches!(
            description.connector_state(),
            Some(ConnectorState::Creating | ConnectorState::Updating)
        ) {
            // MSK Connect rejects other calls while it creates or updates the connector. A failure
            // of that operation is ignored, because the connector is deleted anyway.
            if let Err(error) = self.wait().await
                && self.account.stop.is_cancelled()
            {
                return Err(error);
            }
        }
        if description.connector_state() != Some(&ConnectorState::Deleting) {
            match self.account.connect.delete_connector().connector_arn(arn).send().await {
                Err(error) if code(&error) != "NotFoundException" => {
                    // An attempt whose response was lost may have succeeded.
                    let current =
                        self.find().await?.filter(|current| current.connector_arn() == Some(arn));
                    if current.is_some_and(|current| {
                        current.connector_state() != Some(&ConnectorState::Deleting)
                    }) {
                        return Err(error
                            .call_context("kafkaconnect:DeleteConnector", &self.display_name()));
                    }
                }
                _ => {}
            }
        }
        let check = || async {
            Ok(self
                .find_arn()
                .await?
                .filter(|current| current == arn)
                .map(|_| "DELETING".to_string()))
        };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}
