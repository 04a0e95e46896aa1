//! The MSK cluster: its brokers, storage, Kafka version and addresses.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_kafka::types::{
    BrokerEbsVolumeInfo, BrokerNodeGroupInfo, ClientAuthentication, ClientBroker,
    Cluster as MskCluster, ClusterState, EbsStorageInfo, EncryptionInTransit, EncryptionInfo, Iam,
    Provisioned, ProvisionedRequest, Sasl, StorageInfo, Unauthenticated,
};

use crate::base::error::{Error, Result};
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::{Account, TAG_RESOURCE};
use crate::provision::aws::keys;
use crate::provision::aws::names;
use crate::provision::aws::names::GroupMember;
use crate::provision::aws::outputs;
use crate::provision::cost::CostItem;
use crate::provision::resource::{Action, Difference, Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::CLUSTER;

pub struct Cluster {
    pub account: Rc<Account>,
}

/// A repair of one difference between the cluster and its configuration, by one API call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Repair {
    Tags(Difference),
    Storage {
        from: i32,
    },
    Brokers {
        from: i32,
    },
    InstanceType {
        from: String,
    },
    KafkaVersion {
        from: String,
    },
    /// Replacement, because MSK cannot change the property.
    Replacement(Difference),
}

impl Cluster {
    fn display_name(&self) -> String {
        format!("cluster `{}`", self.name())
    }

    fn describe(&self, repair: &Repair) -> Difference {
        let desired = &self.account.config.cluster;
        match repair {
            Repair::Tags(text) | Repair::Replacement(text) => text.clone(),
            Repair::Storage { from } => Difference::field("volume_gib", from, desired.volume_gib),
            Repair::Brokers { from } => Difference::field("brokers", from, desired.brokers),
            Repair::InstanceType { from } => {
                Difference::field("instance_type", from, &desired.instance_type)
            }
            Repair::KafkaVersion { from } => {
                Difference::field("kafka_version", from, &desired.kafka_version)
            }
        }
    }

    fn is_named(&self, cluster: &MskCluster) -> bool {
        cluster.cluster_name() == Some(self.name().as_str())
    }

    fn is_managed(&self, cluster: &MskCluster) -> bool {
        self.account.is_managed(pairs(cluster))
    }

    /// Returns the managed clusters and any cluster with the configured name: managed ones first,
    /// and of these the one with the configured name. Lists all clusters, because a cluster that
    /// was created under an earlier name is recognised only by its tags.
    async fn find_all(&self) -> Result<Vec<MskCluster>> {
        let mut pages = self.account.msk.list_clusters_v2().into_paginator().items().send();
        let mut all = Vec::new();
        while let Some(item) = pages.next().await {
            let cluster = item.call_context("kafka:ListClustersV2", &self.display_name())?;
            if self.is_named(&cluster)
                || self.is_managed(&cluster)
                    && pairs(&cluster).any(|tag| tag == (TAG_RESOURCE, KEY))
            {
                all.push(cluster);
            }
        }
        all.sort_by_key(|cluster| {
            (
                !self.is_managed(cluster),
                !self.is_named(cluster),
                cluster.cluster_arn().map(String::from),
            )
        });
        Ok(all)
    }

    async fn find(&self) -> Result<Option<MskCluster>> {
        Ok(self.find_all().await?.into_iter().next())
    }

    /// Reads the cluster again; `None` if it no longer exists.
    async fn refresh(&self, cluster: &MskCluster) -> Result<Option<MskCluster>> {
        Ok(self
            .find_all()
            .await?
            .into_iter()
            .find(|current| current.cluster_arn() == cluster.cluster_arn()))
    }

    async fn repairs(&self, cluster: &MskCluster) -> Result<Vec<Repair>> {
        let desired = &self.account.config.cluster;
        let mut repairs: Vec<Repair> = self
            .account
            .tag_differences(KEY, pairs(cluster))
            .into_iter()
            .map(Repair::Tags)
            .collect();
        let Some(provisioned) = cluster.provisioned() else {
            return Ok(vec![Repair::Replacement("the cluster is serverless".into())]);
        };
        let nodes = provisioned.broker_node_group_info();
        let volume = volume_gib(provisioned);
        if volume > desired.volume_gib {
            repairs.push(Repair::Replacement(
                Difference::field("volume_gib", volume, desired.volume_gib)
                    .with_note("volumes cannot shrink"),
            ));
        } else if volume < desired.volume_gib {
            repairs.push(Repair::Storage { from: volume });
        }
        let brokers = provisioned.number_of_broker_nodes().unwrap_or_default();
        if brokers > desired.brokers {
            repairs.push(Repair::Replacement(
                Difference::field("brokers", brokers, desired.brokers)
                    .with_note("brokers cannot be removed"),
            ));
        } else if brokers < desired.brokers {
            repairs.push(Repair::Brokers { from: brokers });
        }
        let instance_type = nodes.and_then(|nodes| nodes.instance_type()).unwrap_or_default();
        if instance_type != desired.instance_type {
            repairs.push(Repair::InstanceType { from: instance_type.into() });
        }
        let version = provisioned
            .current_broker_software_info()
            .and_then(|software| software.kafka_version())
            .unwrap_or_default();
        // MSK reports no version while it creates the cluster.
        if !version.is_empty() && version != desired.kafka_version {
            repairs.push(Repair::KafkaVersion { from: version.into() });
        }
        let mut subnets = nodes.map(|nodes| nodes.client_subnets().to_vec()).unwrap_or_default();
        let mut desired_subnets = self.account.state.require_output(&outputs::SUBNETS).await?;
        subnets.sort_unstable();
        desired_subnets.sort_unstable();
        if subnets != desired_subnets {
            // Without configured subnets, the cluster remains in its zones as long as the brokers
            // can be spread evenly over them. A new cluster might use more zones, but an existing
            // cluster cannot be moved.
            let is_named = !self.account.config.network.subnets.is_empty();
            let is_even =
                !subnets.is_empty() && (desired.brokers as usize).is_multiple_of(subnets.len());
            if !is_named && !is_even {
                repairs.push(Repair::Replacement(
                    format!(
                        "{} brokers cannot be spread evenly over {} zones",
                        desired.brokers,
                        subnets.len()
                    )
                    .into(),
                ));
            } else if is_named || subnets.iter().any(|subnet| !desired_subnets.contains(subnet)) {
                repairs.push(Repair::Replacement(
                    format!("the brokers are in other subnets: {}", subnets.join(", ")).into(),
                ));
            }
        }
        let groups = nodes.map(|nodes| nodes.security_groups().to_vec()).unwrap_or_default();
        if let Some(group) =
            self.account.state.output(&outputs::group_id(GroupMember::Cluster)).await
            && !groups.contains(&group)
        {
            repairs.push(Repair::Replacement(
                format!("the security group `{group}` is not attached").into(),
            ));
        }
        Ok(repairs)
    }

    /// Starts a repair. Returns the ARN of the cluster operation, if any.
    async fn apply(&self, repair: &Repair, cluster: &MskCluster) -> Result<Option<String>> {
        let (msk, desired, arn) = (
            &self.account.msk,
            &self.account.config.cluster,
            cluster.cluster_arn().unwrap_or_default(),
        );
        let version = cluster.current_version().unwrap_or_default();
        match repair {
            Repair::Tags(_) => {
                let response = msk
                    .tag_resource()
                    .resource_arn(arn)
                    .set_tags(Some(self.account.tags(KEY).into_iter().collect()))
                    .send()
                    .await;
                response.call_context("kafka:TagResource", &self.display_name())?;
                Ok(None)
            }
            Repair::Storage { .. } => {
                let volume = BrokerEbsVolumeInfo::builder()
                    .kafka_broker_node_id("ALL")
                    .volume_size_gb(desired.volume_gib)
                    .build();
                let request = msk
                    .update_broker_storage()
                    .cluster_arn(arn)
                    .current_version(version)
                    .target_broker_ebs_volume_info(volume);
                let operation = request
                    .send()
                    .await
                    .call_context("kafka:UpdateBrokerStorage", &self.display_name())?;
                Ok(operation.cluster_operation_arn)
            }
            Repair::Brokers { .. } => {
                let request = msk
                    .update_broker_count()
                    .cluster_arn(arn)
                    .current_version(version)
                    .target_number_of_broker_nodes(desired.brokers);
                let operation = request
                    .send()
                    .await
                    .call_context("kafka:UpdateBrokerCount", &self.display_name())?;
                Ok(operation.cluster_operation_arn)
            }
            Repair::InstanceType { .. } => {
                let request = msk
                    .update_broker_type()
                    .cluster_arn(arn)
                    .current_version(version)
                    .target_instance_type(&desired.instance_type);
                let operation = request
                    .send()
                    .await
                    .call_context("kafka:UpdateBrokerType", &self.display_name())?;
                Ok(operation.cluster_operation_arn)
            }
            Repair::KafkaVersion { .. } => {
                let request =
                    msk.update_cluster_kafka_version().cluster_arn(arn).current_version(version);
                let request = request.target_kafka_version(&desired.kafka_version);
                let operation = request
                    .send()
                    .await
                    .call_context("kafka:UpdateClusterKafkaVersion", &self.display_name())?;
                Ok(operation.cluster_operation_arn)
            }
            Repair::Replacement(_) => Ok(None),
        }
    }

    /// Returns the failure of the last operation as an error. The cluster does not report it: after
    /// a failed update, MSK restores the previous configuration.
    async fn check_operation(&self) -> Result<()> {
        let Some(operation_arn) = self
            .account
            .state
            .output(&outputs::CLUSTER_OPERATION)
            .await
            .filter(|arn| !arn.is_empty())
        else {
            return Ok(());
        };
        self.account.state.record(&self.name(), &outputs::CLUSTER_OPERATION, "").await?;
        let response = self
            .account
            .msk
            .describe_cluster_operation_v2()
            .cluster_operation_arn(operation_arn)
            .send()
            .await;
        let operation =
            response.call_context("kafka:DescribeClusterOperationV2", &self.display_name())?;
        let Some(info) = operation
            .cluster_operation_info()
            .filter(|info| info.operation_state() == Some("UPDATE_FAILED"))
        else {
            return Ok(());
        };
        let reason = info
            .error_info()
            .and_then(|error| error.error_string())
            .unwrap_or("AWS gave no reason")
            .to_string();
        Err(Error::failed(format!("the update of {} failed", self.display_name()))
            .with_source(reason)
            .hint(
                "the cluster runs unchanged: correct `[cluster]` in the configuration and \
                     re-run the command",
            ))
    }

    /// Reads the broker addresses and the Kafka version, which other resources use.
    async fn read_addresses(
        &self,
        cluster: &MskCluster,
        observed: &mut ObservedOutputs,
    ) -> Result<()> {
        let arn = cluster.cluster_arn().unwrap_or_default();
        let software = cluster
            .provisioned()
            .and_then(|provisioned| provisioned.current_broker_software_info());
        let version = software.and_then(|software| software.kafka_version()).unwrap_or_default();
        observed.set(&outputs::KAFKA_VERSION, version);
        let response = self.account.msk.get_bootstrap_brokers().cluster_arn(arn).send().await;
        let addresses = response.call_context("kafka:GetBootstrapBrokers", &self.display_name())?;
        let Some(brokers) = addresses.bootstrap_broker_string_sasl_iam() else {
            return Err(Error::failed(format!(
                "{} has no brokers for IAM authentication",
                self.display_name()
            ))
            .hint(
                "enable IAM authentication: the cluster was created or changed outside pinpipe",
            ));
        };
        // MSK returns the brokers in any order, and only three of a larger cluster. The first
        // response is kept in the state, so that the value does not change with each call.
        let known = self.account.state.output(&outputs::BOOTSTRAP_SERVERS).await;
        if !known.is_some_and(|known| is_same_cluster(&known, brokers)) {
            observed.set(&outputs::BOOTSTRAP_SERVERS, brokers);
        }
        Ok(())
    }
}

/// Returns the domain and port of the brokers, without the first label of the host names. The
/// result does not depend on which brokers of a cluster are listed.
pub fn domain(brokers: &str) -> String {
    let domains: BTreeSet<&str> = brokers
        .split(',')
        .map(|broker| broker.split_once('.').map_or(broker, |(_, domain)| domain))
        .collect();
    domains.into_iter().collect::<Vec<_>>().join(",")
}

/// Whether two lists of brokers belong to the same cluster.
pub fn is_same_cluster(left: &str, right: &str) -> bool {
    domain(left) == domain(right)
}

/// Keys and values of the cluster's tags.
fn pairs(cluster: &MskCluster) -> impl Iterator<Item = (&str, &str)> {
    cluster.tags().into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
}

fn volume_gib(provisioned: &Provisioned) -> i32 {
    let storage = provisioned.broker_node_group_info().and_then(|nodes| nodes.storage_info());
    storage
        .and_then(|storage| storage.ebs_storage_info())
        .and_then(|ebs| ebs.volume_size())
        .unwrap_or_default()
}

#[async_trait(?Send)]
impl Resource for Cluster {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "cluster"
    }

    fn name(&self) -> String {
        names::cluster_name(&self.account.config)
    }

    fn depends_on(&self) -> Vec<String> {
        vec![keys::NETWORK.into(), GroupMember::Cluster.key().into()]
    }

    fn replaced_with(&self) -> Vec<String> {
        vec![GroupMember::Cluster.key().into()]
    }

    fn holds_data(&self) -> bool {
        true
    }

    fn cost_items(&self) -> Vec<CostItem> {
        let desired = &self.account.config.cluster;
        vec![
            CostItem::new(&desired.instance_type, desired.brokers),
            CostItem::new("msk-storage-gib", desired.brokers * desired.volume_gib),
        ]
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let all = self.find_all().await?;
        let Some(cluster) = all.first() else {
            return Ok(Observation::missing());
        };
        let (arn, name) =
            (cluster.cluster_arn().unwrap_or_default(), cluster.cluster_name().unwrap_or_default());
        observed.found(name).set(&outputs::CLUSTER_ARN, arn);
        // For a managed cluster that is already being deleted, the name is irrelevant: the plan
        // only waits for the deletion.
        if !self.is_managed(cluster)
            || !self.is_named(cluster) && cluster.state() != Some(&ClusterState::Deleting)
        {
            // The addresses are recorded nevertheless, because a run with `--skip` uses the
            // cluster unchanged.
            if cluster.state() == Some(&ClusterState::Active) {
                self.read_addresses(cluster, observed).await?;
            }
            let is_taken = all.iter().any(|other| self.is_named(other));
            return Ok(if self.is_managed(cluster) {
                Observation::renamed(name, is_taken)
            } else {
                Observation::unmanaged()
            });
        }
        match cluster.state() {
            Some(ClusterState::Active) => {}
            Some(ClusterState::Failed) => {
                return Ok(Observation::not_updatable(vec![format!(
                    "the cluster failed: {}",
                    failure(cluster)
                )]));
            }
            state => {
                return Ok(Observation::pending(state.map_or("unknown", ClusterState::as_str)));
            }
        }
        self.read_addresses(cluster, observed).await?;
        let repairs = self.repairs(cluster).await?;
        let differences: Vec<Difference> =
            repairs.iter().map(|repair| self.describe(repair)).collect();
        if repairs.iter().any(|repair| matches!(repair, Repair::Replacement(_))) {
            return Ok(Observation::not_updatable(differences));
        }
        let config = &self.account.config.cluster;
        let detail = format!(
            "Kafka {}, {} × {}, {} GiB each",
            config.kafka_version, config.brokers, config.instance_type, config.volume_gib
        );
        Ok(Observation::compared(differences, detail))
    }

    /// Fails if MSK does not offer the configured Kafka version, before the cluster is created.
    async fn check(&self, action: Action) -> Result<()> {
        if !matches!(action, Action::Create | Action::Replace) {
            return Ok(());
        }
        let desired = &self.account.config.cluster.kafka_version;
        let mut offered = Vec::new();
        let mut pages = self.account.msk.list_kafka_versions().into_paginator().items().send();
        while let Some(item) = pages.next().await {
            let version = item.call_context("kafka:ListKafkaVersions", &self.display_name())?;
            offered.extend(version.version);
        }
        if offered.contains(desired) {
            return Ok(());
        }
        Err(Error::failed(format!(
            "MSK does not offer Kafka {desired} in {}",
            self.account.config.aws.region
        ))
        .hint(format!("set `cluster.kafka_version` to one of {}", offered.join(", "))))
    }

    async fn create(&self) -> Result<()> {
        let desired = &self.account.config.cluster;
        let volume = EbsStorageInfo::builder().volume_size(desired.volume_gib).build();
        let nodes = BrokerNodeGroupInfo::builder()
            .instance_type(&desired.instance_type)
            .set_client_subnets(Some(self.account.state.require_output(&outputs::SUBNETS).await?))
            .security_groups(
                self.account.state.require_output(&outputs::group_id(GroupMember::Cluster)).await?,
            )
            .storage_info(StorageInfo::builder().ebs_storage_info(volume).build())
            .build();
        let authentication = ClientAuthentication::builder()
            .sasl(Sasl::builder().iam(Iam::builder().enabled(true).build()).build())
            .unauthenticated(Unauthenticated::builder().enabled(false).build())
            .build();
        let in_transit = EncryptionInTransit::builder()
            .client_broker(ClientBroker::Tls)
            .in_cluster(true)
            .build();
        let provisioned = ProvisionedRequest::builder()
            .broker_node_group_info(nodes)
            .client_authentication(authentication)
            .encryption_info(EncryptionInfo::builder().encryption_in_transit(in_transit).build())
            .kafka_version(&desired.kafka_version)
            .number_of_broker_nodes(desired.brokers)
            .build();
        let tags: HashMap<String, String> = self.account.tags(KEY).into_iter().collect();
        let request = self
            .account
            .msk
            .create_cluster_v2()
            .cluster_name(self.name())
            .set_tags(Some(tags))
            .provisioned(provisioned);
        match request.send().await {
            Ok(created) => {
                self.account
                    .state
                    .record(
                        &self.name(),
                        &outputs::CLUSTER_ARN,
                        created.cluster_arn().unwrap_or_default(),
                    )
                    .await
            }
            // An earlier attempt created the cluster: its name is unique.
            Err(error) if code(&error) == "ConflictException" => Ok(()),
            Err(error) => Err(error.call_context("kafka:CreateClusterV2", &self.display_name())),
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(cluster) = self.find().await? else {
            return Ok(());
        };
        self.check_operation().await?;
        let repairs = self.repairs(&cluster).await?;
        if repairs.iter().any(|repair| matches!(repair, Repair::Tags(_))) {
            self.apply(&Repair::Tags("".into()), &cluster).await?;
        }
        // MSK accepts one change at a time, and each change gives the cluster a new version. The
        // next observation finds the remaining differences.
        match repairs.iter().find(|repair| !matches!(repair, Repair::Tags(_))) {
            Some(repair) => {
                let change = self.apply(repair, &cluster).await;
                // A change whose response was lost is already in progress.
                let state = self.find().await?.and_then(|cluster| cluster.state);
                match change {
                    Err(_) if state.is_some_and(|state| state != ClusterState::Active) => Ok(()),
                    Ok(Some(operation)) => {
                        self.account
                            .state
                            .record(&self.name(), &outputs::CLUSTER_OPERATION, operation)
                            .await
                    }
                    change => change.map(|_| ()),
                }
            }
            None => Ok(()),
        }
    }

    async fn wait(&self) -> Result<()> {
        let check = || async {
            let Some(cluster) = self.find().await? else {
                return Ok(None);
            };
            Ok(match cluster.state() {
                Some(ClusterState::Active) => None,
                Some(ClusterState::Failed) => {
                    return Err(Error::failed(format!(
                        "{} failed: {}",
                        self.display_name(),
                        failure(&cluster)
                    ))
                    .hint("`pinpipe provision --allow-replace` replaces the cluster"));
                }
                state => Some(state.map_or("unknown", ClusterState::as_str).to_string()),
            })
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(cluster) = self.find().await? else {
            return Ok(false);
        };
        if !self.is_managed(&cluster) {
            return Ok(false);
        }
        if !matches!(
            cluster.state(),
            Some(ClusterState::Active | ClusterState::Failed | ClusterState::Deleting)
        ) {
            // MSK rejects other calls while it creates or updates the cluster. A failure of that
            // operation is ignored, because the cluster is deleted anyway.
            if let Err(error) = self.wait().await
                && self.account.stop.is_cancelled()
            {
                return Err(error);
            }
        }
        if cluster.state() != Some(&ClusterState::Deleting) {
            let response = self
                .account
                .msk
                .delete_cluster()
                .set_cluster_arn(cluster.cluster_arn.clone())
                .send()
                .await;
            match response {
                Err(error) if code(&error) != "NotFoundException" => {
                    // An attempt whose response was lost may have succeeded.
                    let state = self.refresh(&cluster).await?.and_then(|cluster| cluster.state);
                    if state.is_some_and(|state| state != ClusterState::Deleting) {
                        return Err(error.call_context("kafka:DeleteCluster", &self.display_name()));
                    }
                }
                _ => {}
            }
        }
        let check = || async { Ok(self.refresh(&cluster).await?.map(|_| "DELETING".to_string())) };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}

/// Reason that MSK gives for the state `FAILED`.
fn failure(cluster: &MskCluster) -> String {
    cluster.state_info().and_then(|info| info.message()).unwrap_or("AWS gave no reason").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_a_cluster_by_any_of_its_brokers() {
        assert!(is_same_cluster(
            "b-1.me.x.kafka:9098,b-2.me.x.kafka:9098",
            "b-3.me.x.kafka:9098,b-1.me.x.kafka:9098"
        ));
        assert!(!is_same_cluster("b-1.me.x.kafka:9098", "b-1.me.y.kafka:9098"));
        assert!(!is_same_cluster("b-1.me.x.kafka:9098", "b-1.me.x.kafka:9094"));
    }
}
