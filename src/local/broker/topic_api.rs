//! Metadata, CreateTopics, DeleteTopics, DescribeConfigs, DescribeCluster.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::local::broker::topics::{MAX_TOTAL_PARTITIONS, Topic};
use crate::local::broker::{Broker, NODE_ID};

/// Number of partitions of a topic if the request does not specify it.
const DEFAULT_PARTITIONS: i32 = 3;
/// Value of Kafka for "authorized operations not requested".
const NO_OPERATIONS: i32 = i32::MIN;

/// Settings of every topic.
const SETTINGS: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "604800000"),
    ("segment.bytes", "67108864"),
    ("min.insync.replicas", "1"),
    ("max.message.bytes", "16777216"),
];

/// Returns the advertised host.
pub fn host(broker: &Broker) -> StrBytes {
    StrBytes::from_string(broker.advertised.ip().to_string())
}

/// Returns the advertised port.
pub fn port(broker: &Broker) -> i32 {
    i32::from(broker.advertised.port())
}

pub fn metadata(broker: &Broker, request: MetadataRequest, version: i16) -> MetadataResponse {
    let topics = match request.topics {
        // In version 0, an empty list requests all topics.
        Some(requested) if version > 0 || !requested.is_empty() => requested
            .into_iter()
            .filter_map(|topic| describe_requested(broker, topic, version))
            .collect(),
        _ => broker.topics.all().iter().map(|topic| describe(topic)).collect(),
    };
    let node = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(host(broker))
        .with_port(port(broker));
    MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(Some(StrBytes::from_string(broker.cluster_id.clone())))
        .with_controller_id(BrokerId(NODE_ID))
        .with_cluster_authorized_operations(NO_OPERATIONS)
        .with_topics(topics)
}

/// Describes a topic that a request identifies by name, or by id if the name is null. Returns
/// `None` if the request has neither.
fn describe_requested(
    broker: &Broker,
    requested: MetadataRequestTopic,
    version: i16,
) -> Option<MetadataResponseTopic> {
    let missing = MetadataResponseTopic::default().with_topic_authorized_operations(NO_OPERATIONS);
    let existing = match &requested.name {
        Some(name) => broker.topics.get(name),
        None if requested.topic_id.is_nil() => return None,
        None => broker.topics.with_id(requested.topic_id),
    };
    Some(match (existing, requested.name) {
        (Some(topic), _) => describe(&topic),
        (None, Some(name)) => missing
            .with_error_code(ResponseError::UnknownTopicOrPartition.code())
            .with_name(Some(name)),
        (None, None) => missing
            .with_error_code(ResponseError::UnknownTopicId.code())
            .with_topic_id(requested.topic_id)
            // Before version 12, the name must not be null.
            .with_name((version < 12).then(TopicName::default)),
    })
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.logs.len() as i32).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(0)
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(NO_OPERATIONS)
}

pub fn create(broker: &Broker, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let results = request.topics.into_iter().map(|topic| {
        let assigned = topic.assignments.len() as i32;
        let partitions = match topic.num_partitions {
            -1 if assigned > 0 => assigned,
            -1 => DEFAULT_PARTITIONS,
            partitions => partitions,
        };
        let refuse = |error: ResponseError, message: &str| {
            CreatableTopicResult::default()
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(message.to_string())))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
        };
        let result = if let Some((error, message)) = unsupported(&topic) {
            refuse(error, &message)
        } else if request.validate_only && broker.topics.get(&topic.name).is_some() {
            refuse(ResponseError::TopicAlreadyExists, "the topic already exists")
        } else if request.validate_only {
            CreatableTopicResult::default()
                .with_num_partitions(partitions)
                .with_replication_factor(1)
        } else {
            match broker.topics.create(&topic.name, partitions) {
                Ok(created) => CreatableTopicResult::default()
                    .with_topic_id(created.id)
                    .with_num_partitions(partitions)
                    .with_replication_factor(1)
                    .with_configs(Some(Vec::new())),
                Err(ResponseError::PolicyViolation) => refuse(
                    ResponseError::PolicyViolation,
                    &format!("all topics together have at most {MAX_TOTAL_PARTITIONS} partitions"),
                ),
                Err(error) => refuse(error, &error.to_string()),
            }
        };
        result.with_name(topic.name)
    });
    CreateTopicsResponse::default().with_topics(results.collect())
}

/// Returns why a topic cannot be created as requested: the broker refuses options that it does not
/// support.
fn unsupported(topic: &CreatableTopic) -> Option<(ResponseError, String)> {
    if !matches!(topic.replication_factor, -1 | 1) {
        return Some((
            ResponseError::InvalidReplicationFactor,
            "the replication factor must be 1: the cluster has one broker".into(),
        ));
    }
    if topic.assignments.iter().any(|assigned| assigned.broker_ids != [BrokerId(NODE_ID)]) {
        return Some((
            ResponseError::InvalidReplicaAssignment,
            format!("every partition must be assigned to broker {NODE_ID}, the only one"),
        ));
    }
    topic.configs.iter().find_map(|config| {
        let name = config.name.as_str();
        let message = match SETTINGS.iter().find(|(setting, _)| *setting == name) {
            None => format!("the local broker does not support the setting `{name}`"),
            Some((_, value)) => match &config.value {
                Some(requested) if requested.as_str() != *value => format!(
                    "the local broker supports only `{value}` for `{name}`, got `{}`",
                    requested.as_str()
                ),
                _ => return None,
            },
        };
        Some((ResponseError::InvalidConfig, message))
    })
}

pub fn delete(broker: &Broker, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState::default().with_name(Some(name)));
    let results =
        request.topics.into_iter().chain(by_name).map(|topic| delete_requested(broker, topic));
    DeleteTopicsResponse::default().with_responses(results.collect())
}

/// Deletes a topic that a request identifies by name, or by id if the name is null.
fn delete_requested(broker: &Broker, requested: DeleteTopicState) -> DeletableTopicResult {
    let (existing, missing) = match &requested.name {
        Some(name) => (broker.topics.get(name), ResponseError::UnknownTopicOrPartition),
        None => (broker.topics.with_id(requested.topic_id), ResponseError::UnknownTopicId),
    };
    let result = DeletableTopicResult::default();
    let Some(topic) = existing else {
        return result
            .with_name(requested.name)
            .with_topic_id(requested.topic_id)
            .with_error_code(missing.code());
    };
    let deleted =
        broker.topics.delete(&topic.name).and_then(|()| broker.offsets.delete_topic(&topic.name));
    // Wakes up fetches that wait for records of the topic.
    broker.appended.send_modify(|count| *count += 1);
    result
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_error_code(deleted.err().map_or(0, |error| error.code()))
}

/// Describes the few supported settings, which are all read-only.
pub fn describe_configs(
    broker: &Broker,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    /// Config source `DEFAULT_CONFIG` of the Kafka protocol.
    const DEFAULT_CONFIG: i8 = 5;
    /// Resource type `TOPIC` of the Kafka protocol.
    const TOPIC: i8 = 2;
    let results = request.resources.into_iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        if resource.resource_type == TOPIC && broker.topics.get(&resource.resource_name).is_none() {
            return result.with_error_code(ResponseError::UnknownTopicOrPartition.code());
        }
        let is_requested = |name: &str| {
            resource
                .configuration_keys
                .as_ref()
                .is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
        };
        let configs =
            SETTINGS.into_iter().filter(|(name, _)| is_requested(name)).map(|(name, value)| {
                DescribeConfigsResourceResult::default()
                    .with_name(StrBytes::from_static_str(name))
                    .with_value(Some(StrBytes::from_static_str(value)))
                    .with_read_only(true)
                    .with_config_source(DEFAULT_CONFIG)
            });
        result.with_configs(configs.collect())
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

pub fn describe_cluster(broker: &Broker) -> DescribeClusterResponse {
    let node = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE_ID))
        .with_host(host(broker))
        .with_port(port(broker));
    DescribeClusterResponse::default()
        .with_endpoint_type(1)
        .with_cluster_id(StrBytes::from_string(broker.cluster_id.clone()))
        .with_controller_id(BrokerId(NODE_ID))
        .with_brokers(vec![node])
        .with_cluster_authorized_operations(NO_OPERATIONS)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;

    use super::*;

    #[test]
    fn refuses_topics_with_settings_that_it_does_not_follow() {
        let topic = || CreatableTopic::default().with_replication_factor(1);
        let config = |name: &'static str, value: &'static str| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_static_str(value)))
        };
        let error = |topic: &CreatableTopic| unsupported(topic).map(|(error, _)| error);
        assert_eq!(error(&topic()), None);
        assert_eq!(
            error(&topic().with_replication_factor(0)),
            Some(ResponseError::InvalidReplicationFactor)
        );
        let same = config("retention.ms", "604800000");
        assert_eq!(error(&topic().with_configs(vec![same])), None);
        for wrong in [
            config("retention.ms", "1000"),
            config("cleanup.policy", "compact"),
            config("max.message.bytes", "10"),
            config("no.such.setting", "1"),
        ] {
            let name = wrong.name.as_str().to_string();
            let refused = error(&topic().with_configs(vec![wrong]));
            assert_eq!(refused, Some(ResponseError::InvalidConfig), "{name}");
        }
    }
}
