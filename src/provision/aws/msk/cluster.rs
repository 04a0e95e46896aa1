//! The MSK cluster.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_kafka::types::{
    BrokerEbsVolumeInfo, BrokerNodeGroupInfo, ClientAuthentication, ClientBroker,
    Cluster as MskCluster, ClusterState, EbsStorageInfo, EncryptionInTransit, EncryptionInfo, Iam,
    Provisioned, ProvisionedRequest, Sasl, StorageInfo, Unauthenticated,
};

use crate::base::error::{Error, Result};
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::context::{Account, TAG_RESOURCE};
use crate::provision::aws::keys;
use crate::provision::aws::names;
use crate::provision::aws::names::Member;
use crate::provision::aws::outputs;
use crate::provision::cost::CostItem;
use crate::provision::resource::{Action, Observation, Resource};

const KEY: &str = keys::CLUSTER;

pub struct Cluster {
    pub account: Rc<Account>,
}

/// How the cluster should be and is not, each mended by a call of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Drift {
    Tags(String),
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
    /// What cannot be changed.
    Fixed(String),
}

impl Cluster {
    fn display_name(&self) -> String {
        format!("cluster `{}`", self.name())
    }

    fn describe(&self, drift: &Drift) -> String {
        let wanted = &self.account.config.cluster;
        match drift {
            Drift::Tags(text) | Drift::Fixed(text) => text.clone(),
            Drift::Storage { from } => format!(
                "its brokers have {from} GiB of disk, not {}",
                wanted.volume_gib
            ),
            Drift::Brokers { from } => {
                format!("it has {from} brokers, not {}", wanted.brokers)
            }
            Drift::InstanceType { from } => {
                format!("its brokers are {from}, not {}", wanted.instance_type)
            }
            Drift::KafkaVersion { from } => {
                format!("it runs Kafka {from}, not {}", wanted.kafka_version)
            }
        }
    }

    fn is_named(&self, found: &MskCluster) -> bool {
        found.cluster_name() == Some(self.name().as_str())
    }

    fn is_ours(&self, found: &MskCluster) -> bool {
        self.account.is_ours(pairs(found))
    }

    /// Ours, and whichever has its name: ours first, and of these the one of this name. All clusters
    /// are listed, since one that an earlier configuration named is known by its tags alone.
    async fn find_all(&self) -> Result<Vec<MskCluster>> {
        let mut pages = self
            .account
            .msk
            .list_clusters_v2()
            .into_paginator()
            .items()
            .send();
        let mut all = Vec::new();
        while let Some(found) = pages.next().await {
            let found = found.map_err(|error| {
                failed(Call("kafka:ListClustersV2", &self.display_name()), &error)
            })?;
            if self.is_named(&found)
                || self.is_ours(&found) && pairs(&found).any(|tag| tag == (TAG_RESOURCE, KEY))
            {
                all.push(found);
            }
        }
        all.sort_by_key(|found| {
            (
                !self.is_ours(found),
                !self.is_named(found),
                found.cluster_arn().map(String::from),
            )
        });
        Ok(all)
    }

    async fn find(&self) -> Result<Option<MskCluster>> {
        Ok(self.find_all().await?.into_iter().next())
    }

    /// That cluster as it stands now; `None`: it is gone.
    async fn again(&self, found: &MskCluster) -> Result<Option<MskCluster>> {
        Ok(self
            .find_all()
            .await?
            .into_iter()
            .find(|now| now.cluster_arn() == found.cluster_arn()))
    }

    async fn differences(&self, found: &MskCluster) -> Result<Vec<Drift>> {
        let wanted = &self.account.config.cluster;
        let mut differences: Vec<Drift> = self
            .account
            .tag_differences(KEY, pairs(found))
            .into_iter()
            .map(Drift::Tags)
            .collect();
        let Some(provisioned) = found.provisioned() else {
            return Ok(vec![Drift::Fixed("it is a serverless cluster".into())]);
        };
        let nodes = provisioned.broker_node_group_info();
        let volume = volume_gib(provisioned);
        if volume > wanted.volume_gib {
            differences.push(Drift::Fixed(format!(
                "its disks have {volume} GiB and cannot shrink to {}",
                wanted.volume_gib
            )));
        } else if volume < wanted.volume_gib {
            differences.push(Drift::Storage { from: volume });
        }
        let brokers = provisioned.number_of_broker_nodes().unwrap_or_default();
        if brokers > wanted.brokers {
            differences.push(Drift::Fixed(format!(
                "it has {brokers} brokers and cannot lose any"
            )));
        } else if brokers < wanted.brokers {
            differences.push(Drift::Brokers { from: brokers });
        }
        let instance_type = nodes
            .and_then(|nodes| nodes.instance_type())
            .unwrap_or_default();
        if instance_type != wanted.instance_type {
            differences.push(Drift::InstanceType {
                from: instance_type.into(),
            });
        }
        let version = provisioned
            .current_broker_software_info()
            .and_then(|software| software.kafka_version())
            .unwrap_or_default();
        // A cluster that is being made does not say it yet.
        if !version.is_empty() && version != wanted.kafka_version {
            differences.push(Drift::KafkaVersion {
                from: version.into(),
            });
        }
        let mut subnets = nodes
            .map(|nodes| nodes.client_subnets().to_vec())
            .unwrap_or_default();
        let mut wanted_subnets = outputs::subnets(&self.account).await?;
        subnets.sort_unstable();
        wanted_subnets.sort_unstable();
        if subnets != wanted_subnets {
            // Where no subnets are named, a cluster stays in the zones it is in as long as they share the
            // brokers: a new one might be spread over more, but none can be moved.
            let is_named = !self.account.config.network.subnets.is_empty();
            let is_even =
                !subnets.is_empty() && (wanted.brokers as usize).is_multiple_of(subnets.len());
            if !is_named && !is_even {
                differences.push(Drift::Fixed(format!(
                    "its {} zones cannot share {} brokers evenly",
                    subnets.len(),
                    wanted.brokers
                )));
            } else if is_named
                || subnets
                    .iter()
                    .any(|subnet| !wanted_subnets.contains(subnet))
            {
                differences.push(Drift::Fixed(format!(
                    "it is in other subnets: {}",
                    subnets.join(", ")
                )));
            }
        }
        let groups = nodes
            .map(|nodes| nodes.security_groups().to_vec())
            .unwrap_or_default();
        if let Some(group) = self.account.state.output(Member::Cluster.key(), "id").await
            && !groups.contains(&group)
        {
            differences.push(Drift::Fixed(format!(
                "it is not in the security group `{group}`"
            )));
        }
        Ok(differences)
    }

    async fn mend(&self, drift: &Drift, found: &MskCluster) -> Result<Option<String>> {
        let (msk, wanted, arn) = (
            &self.account.msk,
            &self.account.config.cluster,
            found.cluster_arn().unwrap_or_default(),
        );
        let version = found.current_version().unwrap_or_default();
        match drift {
            Drift::Tags(_) => {
                let put = msk
                    .tag_resource()
                    .resource_arn(arn)
                    .set_tags(Some(self.account.tags(KEY).into_iter().collect()))
                    .send()
                    .await;
                put.map_err(|error| {
                    failed(Call("kafka:TagResource", &self.display_name()), &error)
                })?;
                Ok(None)
            }
            Drift::Storage { .. } => {
                let volume = BrokerEbsVolumeInfo::builder()
                    .kafka_broker_node_id("ALL")
                    .volume_size_gb(wanted.volume_gib)
                    .build();
                let put = msk
                    .update_broker_storage()
                    .cluster_arn(arn)
                    .current_version(version)
                    .target_broker_ebs_volume_info(volume);
                let begun = put.send().await.map_err(|error| {
                    failed(
                        Call("kafka:UpdateBrokerStorage", &self.display_name()),
                        &error,
                    )
                })?;
                Ok(begun.cluster_operation_arn)
            }
            Drift::Brokers { .. } => {
                let put = msk
                    .update_broker_count()
                    .cluster_arn(arn)
                    .current_version(version)
                    .target_number_of_broker_nodes(wanted.brokers);
                let begun = put.send().await.map_err(|error| {
                    failed(
                        Call("kafka:UpdateBrokerCount", &self.display_name()),
                        &error,
                    )
                })?;
                Ok(begun.cluster_operation_arn)
            }
            Drift::InstanceType { .. } => {
                let put = msk
                    .update_broker_type()
                    .cluster_arn(arn)
                    .current_version(version)
                    .target_instance_type(&wanted.instance_type);
                let begun = put.send().await.map_err(|error| {
                    failed(Call("kafka:UpdateBrokerType", &self.display_name()), &error)
                })?;
                Ok(begun.cluster_operation_arn)
            }
            Drift::KafkaVersion { .. } => {
                let put = msk
                    .update_cluster_kafka_version()
                    .cluster_arn(arn)
                    .current_version(version);
                let put = put.target_kafka_version(&wanted.kafka_version).send().await;
                let begun = put.map_err(|error| {
                    failed(
                        Call("kafka:UpdateClusterKafkaVersion", &self.display_name()),
                        &error,
                    )
                })?;
                Ok(begun.cluster_operation_arn)
            }
            Drift::Fixed(_) => Ok(None),
        }
    }

    /// Why the last change failed, if it did: the cluster itself goes on as it was and does not say.
    async fn check_operation(&self) -> Result<()> {
        let Some(operation) = self
            .account
            .state
            .output(KEY, "operation")
            .await
            .filter(|arn| !arn.is_empty())
        else {
            return Ok(());
        };
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[("operation", "")])
            .await?;
        let found = self
            .account
            .msk
            .describe_cluster_operation_v2()
            .cluster_operation_arn(operation)
            .send()
            .await;
        let found = found.map_err(|error| {
            failed(
                Call("kafka:DescribeClusterOperationV2", &self.display_name()),
                &error,
            )
        })?;
        let Some(info) = found
            .cluster_operation_info()
            .filter(|info| info.operation_state() == Some("UPDATE_FAILED"))
        else {
            return Ok(());
        };
        let reason = info
            .error_info()
            .and_then(|error| error.error_string())
            .unwrap_or("AWS gives no reason")
            .to_string();
        Err(Error::failed(format!("the change of {} failed", self.display_name()))
            .with_source(reason)
            .hint("it goes on as it was before; correct `[cluster]` in the configuration and run again"))
    }

    /// Keeps the addresses and the version that everything else needs.
    async fn note_addresses(&self, found: &MskCluster) -> Result<()> {
        let arn = found.cluster_arn().unwrap_or_default();
        let software = found
            .provisioned()
            .and_then(|provisioned| provisioned.current_broker_software_info());
        let version = software
            .and_then(|software| software.kafka_version())
            .unwrap_or_default();
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[("kafka_version", version)])
            .await?;
        let found = self
            .account
            .msk
            .get_bootstrap_brokers()
            .cluster_arn(arn)
            .send()
            .await;
        let found = found.map_err(|error| {
            failed(
                Call("kafka:GetBootstrapBrokers", &self.display_name()),
                &error,
            )
        })?;
        let Some(brokers) = found.bootstrap_broker_string_sasl_iam() else {
            return Err(Error::failed(format!(
                "{} has no brokers for IAM authentication",
                self.display_name()
            ))
            .hint(
                "it was not made by pinpipe, or was changed: IAM must be among its ways to log in",
            ));
        };
        // AWS names them in any order, and of more than three any three: the first answer stays.
        match self.account.state.output(KEY, "bootstrap_servers").await {
            Some(known) if is_same_cluster(&known, brokers) => Ok(()),
            _ => {
                self.account
                    .state
                    .record_outputs(KEY, &self.name(), &[("bootstrap_servers", brokers)])
                    .await
            }
        }
    }
}

/// What the names of a cluster's brokers share, whichever are named: all but their first part.
pub fn domain(brokers: &str) -> String {
    let domains: BTreeSet<&str> = brokers
        .split(',')
        .map(|broker| broker.split_once('.').map_or(broker, |(_, domain)| domain))
        .collect();
    domains.into_iter().collect::<Vec<_>>().join(",")
}

/// Whether two lists of brokers are of one cluster.
pub fn is_same_cluster(one: &str, other: &str) -> bool {
    domain(one) == domain(other)
}

/// Keys and values of its tags, to be compared.
fn pairs(found: &MskCluster) -> impl Iterator<Item = (&str, &str)> {
    found
        .tags()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str()))
}

fn volume_gib(provisioned: &Provisioned) -> i32 {
    let storage = provisioned
        .broker_node_group_info()
        .and_then(|nodes| nodes.storage_info());
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
        vec![keys::NETWORK.into(), Member::Cluster.key().into()]
    }

    fn recreated_with(&self) -> Vec<String> {
        vec![Member::Cluster.key().into()]
    }

    fn holds_data(&self) -> bool {
        true
    }

    fn cost_items(&self) -> Vec<CostItem> {
        let wanted = &self.account.config.cluster;
        vec![
            CostItem::new(&wanted.instance_type, wanted.brokers),
            CostItem::new("msk-storage-gib", wanted.brokers * wanted.volume_gib),
        ]
    }

    async fn read(&self) -> Result<Observation> {
        let all = self.find_all().await?;
        let Some(found) = all.first() else {
            return Ok(Observation::missing());
        };
        let (arn, name) = (
            found.cluster_arn().unwrap_or_default(),
            found.cluster_name().unwrap_or_default(),
        );
        self.account
            .state
            .record_outputs(KEY, name, &[("arn", arn)])
            .await?;
        // One that is going already, under whatever name, is only waited for.
        if !self.is_ours(found)
            || !self.is_named(found) && found.state() != Some(&ClusterState::Deleting)
        {
            // Noted all the same: who leaves it out uses it as it is.
            if found.state() == Some(&ClusterState::Active) {
                self.note_addresses(found).await?;
            }
            let is_taken = all.iter().any(|other| self.is_named(other));
            return Ok(if self.is_ours(found) {
                Observation::renamed(name, is_taken)
            } else {
                Observation::unmanaged()
            });
        }
        match found.state() {
            Some(ClusterState::Active) => {}
            Some(ClusterState::Failed) => {
                return Ok(Observation::replace(vec![format!(
                    "it failed: {}",
                    failure(found)
                )]));
            }
            state => {
                return Ok(Observation::pending(
                    state.map_or("unknown", ClusterState::as_str),
                ));
            }
        }
        self.note_addresses(found).await?;
        let differences = self.differences(found).await?;
        let texts: Vec<String> = differences
            .iter()
            .map(|drift| self.describe(drift))
            .collect();
        if differences
            .iter()
            .any(|drift| matches!(drift, Drift::Fixed(_)))
        {
            return Ok(Observation::replace(texts));
        }
        let cluster = &self.account.config.cluster;
        let detail = format!(
            "Kafka {}, {} × {}, {} GiB each",
            cluster.kafka_version, cluster.brokers, cluster.instance_type, cluster.volume_gib
        );
        Ok(Observation::from_drift(texts, detail))
    }

    /// Whether MSK still offers the version that is wanted.
    async fn check(&self, action: Action) -> Result<()> {
        if !matches!(action, Action::Create | Action::Replace) {
            return Ok(());
        }
        let wanted = &self.account.config.cluster.kafka_version;
        let mut offered = Vec::new();
        let mut pages = self
            .account
            .msk
            .list_kafka_versions()
            .into_paginator()
            .items()
            .send();
        while let Some(found) = pages.next().await {
            let found = found.map_err(|error| {
                failed(
                    Call("kafka:ListKafkaVersions", &self.display_name()),
                    &error,
                )
            })?;
            offered.extend(found.version);
        }
        if offered.contains(wanted) {
            return Ok(());
        }
        Err(Error::failed(format!(
            "MSK does not offer Kafka {wanted} in {}",
            self.account.config.aws.region
        ))
        .hint(format!(
            "`cluster.kafka_version` can be {}",
            offered.join(", ")
        )))
    }

    async fn create(&self) -> Result<()> {
        let wanted = &self.account.config.cluster;
        let volume = EbsStorageInfo::builder()
            .volume_size(wanted.volume_gib)
            .build();
        let nodes = BrokerNodeGroupInfo::builder()
            .instance_type(&wanted.instance_type)
            .set_client_subnets(Some(outputs::subnets(&self.account).await?))
            .security_groups(
                self.account
                    .state
                    .require_output(Member::Cluster.key(), "id")
                    .await?,
            )
            .storage_info(StorageInfo::builder().ebs_storage_info(volume).build())
            .build();
        let authentication = ClientAuthentication::builder()
            .sasl(
                Sasl::builder()
                    .iam(Iam::builder().enabled(true).build())
                    .build(),
            )
            .unauthenticated(Unauthenticated::builder().enabled(false).build())
            .build();
        let in_transit = EncryptionInTransit::builder()
            .client_broker(ClientBroker::Tls)
            .in_cluster(true)
            .build();
        let provisioned = ProvisionedRequest::builder()
            .broker_node_group_info(nodes)
            .client_authentication(authentication)
            .encryption_info(
                EncryptionInfo::builder()
                    .encryption_in_transit(in_transit)
                    .build(),
            )
            .kafka_version(&wanted.kafka_version)
            .number_of_broker_nodes(wanted.brokers)
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
            Ok(made) => {
                self.account
                    .state
                    .record_outputs(
                        KEY,
                        &self.name(),
                        &[("arn", made.cluster_arn().unwrap_or_default())],
                    )
                    .await
            }
            // An earlier attempt had its effect: there is one cluster of a name.
            Err(error) if code(&error) == "ConflictException" => Ok(()),
            Err(error) => Err(failed(
                Call("kafka:CreateClusterV2", &self.display_name()),
                &error,
            )),
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        self.check_operation().await?;
        let differences = self.differences(&found).await?;
        if differences
            .iter()
            .any(|drift| matches!(drift, Drift::Tags(_)))
        {
            self.mend(&Drift::Tags(String::new()), &found).await?;
        }
        // One change at a time: the cluster takes no second one while it works on the first,
        // and has another version afterwards. What is left is found by the next reading.
        match differences
            .iter()
            .find(|drift| !matches!(drift, Drift::Tags(_)))
        {
            Some(drift) => {
                let mended = self.mend(drift, &found).await;
                // A change whose answer got lost is under way already.
                let now = self.find().await?.and_then(|found| found.state);
                match mended {
                    Err(_) if now.is_some_and(|state| state != ClusterState::Active) => Ok(()),
                    Ok(Some(operation)) => {
                        self.account
                            .state
                            .record_outputs(KEY, &self.name(), &[("operation", &operation)])
                            .await
                    }
                    mended => mended.map(|_| ()),
                }
            }
            None => Ok(()),
        }
    }

    async fn wait(&self) -> Result<()> {
        let check = || async {
            let Some(found) = self.find().await? else {
                return Ok(None);
            };
            Ok(match found.state() {
                Some(ClusterState::Active) => None,
                Some(ClusterState::Failed) => {
                    return Err(Error::failed(format!(
                        "{} failed: {}",
                        self.display_name(),
                        failure(&found)
                    ))
                    .hint("`pinpipe provision --allow-replace` deletes it and creates it again"));
                }
                state => Some(state.map_or("unknown", ClusterState::as_str).to_string()),
            })
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(found) = self.find().await? else {
            return Ok(false);
        };
        if !self.is_ours(&found) {
            return Ok(false);
        }
        if !matches!(
            found.state(),
            Some(ClusterState::Active | ClusterState::Failed | ClusterState::Deleting)
        ) {
            // It takes no other call while it is being made or changed; that this fails in the end
            // does not matter here.
            if let Err(error) = self.wait().await
                && self.account.stop.is_cancelled()
            {
                return Err(error);
            }
        }
        if found.state() != Some(&ClusterState::Deleting) {
            let removed = self
                .account
                .msk
                .delete_cluster()
                .set_cluster_arn(found.cluster_arn.clone())
                .send()
                .await;
            match removed {
                Err(error) if code(&error) != "NotFoundException" => {
                    // An attempt whose answer got lost had its effect.
                    let now = self.again(&found).await?.and_then(|found| found.state);
                    if now.is_some_and(|state| state != ClusterState::Deleting) {
                        return Err(failed(
                            Call("kafka:DeleteCluster", &self.display_name()),
                            &error,
                        ));
                    }
                }
                _ => {}
            }
        }
        let check = || async { Ok(self.again(&found).await?.map(|_| "going".to_string())) };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}

fn failure(found: &MskCluster) -> String {
    found
        .state_info()
        .and_then(|info| info.message())
        .unwrap_or("AWS gives no reason")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_of_one_cluster_whichever_are_named() {
        assert!(is_same_cluster(
            "b-1.me.x.kafka:9098,b-2.me.x.kafka:9098",
            "b-3.me.x.kafka:9098,b-1.me.x.kafka:9098"
        ));
        assert!(!is_same_cluster(
            "b-1.me.x.kafka:9098",
            "b-1.me.y.kafka:9098"
        ));
        assert!(!is_same_cluster(
            "b-1.me.x.kafka:9098",
            "b-1.me.x.kafka:9094"
        ));
    }
}
