//! Requests for groups and their committed offsets.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    BrokerId, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::local::broker::offsets::{Committed, Partition};
use crate::local::broker::topic_api::{host, port};
use crate::local::broker::{Broker, NODE_ID};

/// Key type `GROUP` of FindCoordinator.
const GROUP: i8 = 0;

/// Returns this node as coordinator of every group. Refuses other coordinators, such as those of
/// transactions, with an error that clients do not retry.
pub fn find_coordinator(
    broker: &Broker,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    if request.key_type != GROUP {
        tracing::warn!("a Kafka client uses transactions, which the local broker does not support");
        let error = ResponseError::TransactionalIdAuthorizationFailed.code();
        let message = Some(StrBytes::from_static_str("transactions are not supported"));
        let refused = request.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(error)
                .with_error_message(message.clone())
        });
        let refused: Vec<Coordinator> = refused.collect();
        let response = FindCoordinatorResponse::default();
        return if version >= 4 {
            response.with_coordinators(refused)
        } else {
            response
                .with_error_code(error)
                .with_error_message(message)
                .with_node_id(BrokerId(-1))
                .with_port(-1)
        };
    }
    if version >= 4 {
        let coordinators = request.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(NODE_ID))
                .with_host(host(broker))
                .with_port(port(broker))
        });
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    FindCoordinatorResponse::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(host(broker))
        .with_port(port(broker))
}

pub fn leave(broker: &Broker, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    if version < 3 {
        let outcome = broker.groups.leave(&request.group_id, &request.member_id, None);
        return LeaveGroupResponse::default()
            .with_error_code(outcome.err().map_or(0, |error| error.code()));
    }
    let members = request.members.into_iter().map(|member| {
        let outcome = broker.groups.leave(
            &request.group_id,
            &member.member_id,
            member.group_instance_id.as_deref(),
        );
        let response = MemberResponse::default()
            .with_error_code(outcome.err().map_or(0, |error| error.code()));
        response.with_member_id(member.member_id).with_group_instance_id(member.group_instance_id)
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

pub fn describe(broker: &Broker, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let described = request.groups.into_iter().map(|id| {
        let has_offsets = broker.offsets.of_group(&id).is_some();
        broker
            .groups
            .with(|groups| match groups.get(id.as_str()) {
                Some(group) => {
                    let members = group.members.iter().map(|(member_id, member)| {
                        DescribedGroupMember::default()
                            .with_member_id(member_id.clone().into())
                            .with_group_instance_id(member.instance_id.clone())
                            .with_client_id(member.client_id.clone().into())
                            .with_client_host(member.host.clone().into())
                            .with_member_metadata(member.metadata(&group.protocol))
                            .with_member_assignment(member.assignment.clone())
                    });
                    DescribedGroup::default()
                        .with_group_state(StrBytes::from_static_str(group.state.name()))
                        .with_protocol_type(group.protocol_type.clone().into())
                        .with_protocol_data(group.protocol.clone().into())
                        .with_members(members.collect())
                }
                None => DescribedGroup::default().with_group_state(StrBytes::from_static_str(
                    if has_offsets { "Empty" } else { "Dead" },
                )),
            })
            .with_group_id(id)
            .with_authorized_operations(i32::MIN)
    });
    DescribeGroupsResponse::default().with_groups(described.collect())
}

pub fn list(broker: &Broker) -> ListGroupsResponse {
    let mut states: BTreeMap<String, (String, &'static str)> =
        broker.offsets.groups().into_iter().map(|id| (id, (String::new(), "Empty"))).collect();
    broker.groups.with(|groups| {
        for (id, group) in groups.iter() {
            states.insert(id.clone(), (group.protocol_type.clone(), group.state.name()));
        }
    });
    let listed = states.into_iter().map(|(id, (protocol_type, state))| {
        ListedGroup::default()
            .with_group_id(GroupId(id.into()))
            .with_protocol_type(protocol_type.into())
            .with_group_state(StrBytes::from_static_str(state))
    });
    ListGroupsResponse::default().with_groups(listed.collect())
}

pub fn delete(broker: &Broker, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let results = request.groups_names.into_iter().map(|id| {
        let (has_members, existed) = broker.groups.with(|groups| match groups.get(id.as_str()) {
            Some(group) if !group.members.is_empty() => (true, true),
            Some(_) => (false, groups.remove(id.as_str()).is_some()),
            None => (false, false),
        });
        let error = if has_members {
            ResponseError::NonEmptyGroup.code()
        } else {
            match broker.offsets.delete_group(&id) {
                Ok(had_offsets) if had_offsets || existed => 0,
                Ok(_) => ResponseError::GroupIdNotFound.code(),
                Err(error) => error.code(),
            }
        };
        DeletableGroupResult::default().with_group_id(id).with_error_code(error)
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}

pub fn commit(broker: &Broker, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let allowed = broker.groups.validate_offset_commit(
        &request.group_id,
        &request.member_id,
        request.group_instance_id.as_deref(),
        request.generation_id_or_member_epoch,
    );
    let mut commits: Vec<(Partition, Committed)> = Vec::new();
    let mut outcomes: Vec<(TopicName, Vec<(i32, i16)>)> = Vec::new();
    for topic in request.topics {
        let existing_topic = broker.topics.get(&topic.name);
        let mut codes = Vec::new();
        for partition in topic.partitions {
            let exists = existing_topic
                .as_ref()
                .is_some_and(|existing| (partition.partition_index as usize) < existing.logs.len());
            let code = match allowed {
                Err(error) => error.code(),
                Ok(()) if !exists => ResponseError::UnknownTopicOrPartition.code(),
                Ok(()) => {
                    let metadata = partition
                        .committed_metadata
                        .map(|text| text.to_string())
                        .unwrap_or_default();
                    commits.push((
                        (topic.name.to_string(), partition.partition_index),
                        Committed { offset: partition.committed_offset, metadata },
                    ));
                    0
                }
            };
            codes.push((partition.partition_index, code));
        }
        outcomes.push((topic.name, codes));
    }
    let stored_code = match broker.offsets.commit(&request.group_id, commits) {
        Ok(()) => 0,
        Err(error) => error.code(),
    };
    let topics = outcomes.into_iter().map(|(name, codes)| {
        let partitions = codes.into_iter().map(|(index, code)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(if code == 0 { stored_code } else { code })
        });
        OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Topic names and partitions with their committed offsets.
type TopicOffsets = Vec<(TopicName, Vec<(i32, Option<Committed>)>)>;

fn committed_offsets(
    broker: &Broker,
    group: &str,
    requested: Option<Vec<(TopicName, Vec<i32>)>>,
) -> TopicOffsets {
    match requested {
        Some(topics) => topics
            .into_iter()
            .map(|(name, partitions)| {
                let committed = |partition: i32| {
                    let key = (name.to_string(), partition);
                    (partition, broker.offsets.get(group, &key))
                };
                let offsets: Vec<_> = partitions.into_iter().map(committed).collect();
                (name, offsets)
            })
            .collect(),
        None => {
            let mut all: BTreeMap<String, Vec<(i32, Option<Committed>)>> = BTreeMap::new();
            for ((topic, partition), committed) in
                broker.offsets.of_group(group).unwrap_or_default()
            {
                all.entry(topic).or_default().push((partition, Some(committed)));
            }
            all.into_iter()
                .map(|(topic, partitions)| (TopicName(topic.into()), partitions))
                .collect()
        }
    }
}

pub fn fetch_offsets(
    broker: &Broker,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version >= 8 {
        let groups = request.groups.into_iter().map(|group| {
            let requested = group.topics.map(|topics| {
                topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
            });
            let topics = committed_offsets(broker, &group.group_id, requested).into_iter().map(
                |(name, partitions)| {
                    let partitions = partitions.into_iter().map(|(index, committed)| {
                        let (offset, metadata) = offset_and_metadata(committed);
                        OffsetFetchResponsePartitions::default()
                            .with_partition_index(index)
                            .with_committed_offset(offset)
                            .with_committed_leader_epoch(-1)
                            .with_metadata(Some(metadata))
                    });
                    OffsetFetchResponseTopics::default()
                        .with_name(name)
                        .with_partitions(partitions.collect())
                },
            );
            OffsetFetchResponseGroup::default()
                .with_topics(topics.collect())
                .with_group_id(group.group_id)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let requested = request.topics.map(|topics| {
        topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
    });
    let topics = committed_offsets(broker, &request.group_id, requested).into_iter().map(
        |(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, committed)| {
                let (offset, metadata) = offset_and_metadata(committed);
                OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(offset)
                    .with_committed_leader_epoch(-1)
                    .with_metadata(Some(metadata))
            });
            OffsetFetchResponseTopic::default()
                .with_name(name)
                .with_partitions(partitions.collect())
        },
    );
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// Returns offset and metadata; the offset is -1 if none is committed.
fn offset_and_metadata(committed: Option<Committed>) -> (i64, StrBytes) {
    committed.map_or((-1, StrBytes::default()), |committed| {
        (committed.offset, committed.metadata.into())
    })
}
