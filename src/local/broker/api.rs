//! The supported APIs with their versions, and the dispatch of requests.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, RequestKind, ResponseKind};

use crate::local::broker::caller::Caller;
use crate::local::broker::{Broker, data_api, group_api, topic_api};

/// Supported APIs with their minimum and maximum versions, which include the versions of Kafka 3.0.
/// The maximum of Fetch is below the versions that identify topics by id only. The maximum of
/// Metadata must be at least 10, the first version with topic ids: librdkafka sizes a buffer by the
/// length of the response, and without ids the buffer is too small for a few topics with short
/// names (`rd_kafka_parse_Metadata0`).
pub const SUPPORTED_APIS: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 9),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 8),
    (ApiKey::OffsetFetch, 1, 8),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 4),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::DescribeCluster, 0, 1),
];

/// Returns the minimum and maximum version of an API, or `None` if it is not supported.
pub fn versions(key: ApiKey) -> Option<(i16, i16)> {
    SUPPORTED_APIS.iter().find(|(api, _, _)| *api == key).map(|(_, min, max)| (*min, *max))
}

fn api_versions() -> ApiVersionsResponse {
    let keys = SUPPORTED_APIS.iter().map(|(key, min, max)| {
        ApiVersion::default()
            .with_api_key(*key as i16)
            .with_min_version(*min)
            .with_max_version(*max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}

/// Returns the response to an unsupported version of ApiVersions.
pub fn unsupported_version() -> ResponseKind {
    ResponseKind::ApiVersions(
        api_versions().with_error_code(ResponseError::UnsupportedVersion.code()),
    )
}

/// Handles a request. Returns `None` if the client expects no response.
pub async fn respond(
    broker: &Broker,
    request: RequestKind,
    version: i16,
    caller: &Caller,
) -> Option<ResponseKind> {
    Some(match request {
        RequestKind::ApiVersions(_) => ResponseKind::ApiVersions(api_versions()),
        RequestKind::Produce(request) => {
            let acks = request.acks;
            let response = data_api::produce(broker, request);
            if acks == 0 {
                return None;
            }
            ResponseKind::Produce(response)
        }
        RequestKind::Fetch(request) => ResponseKind::Fetch(data_api::fetch(broker, request).await),
        RequestKind::ListOffsets(request) => {
            ResponseKind::ListOffsets(data_api::list_offsets(broker, request))
        }
        RequestKind::InitProducerId(request) => {
            ResponseKind::InitProducerId(data_api::init_producer_id(&request))
        }
        RequestKind::Metadata(request) => {
            ResponseKind::Metadata(topic_api::metadata(broker, request, version))
        }
        // One request can create thousands of topics, each a folder with files, which blocks the
        // thread.
        RequestKind::CreateTopics(request) => {
            ResponseKind::CreateTopics(tokio::task::block_in_place(|| {
                topic_api::create(broker, request)
            }))
        }
        RequestKind::DeleteTopics(request) => {
            ResponseKind::DeleteTopics(tokio::task::block_in_place(|| {
                topic_api::delete(broker, request)
            }))
        }
        RequestKind::DescribeConfigs(request) => {
            ResponseKind::DescribeConfigs(topic_api::describe_configs(broker, request))
        }
        RequestKind::DescribeCluster(_) => {
            ResponseKind::DescribeCluster(topic_api::describe_cluster(broker))
        }
        RequestKind::FindCoordinator(request) => {
            ResponseKind::FindCoordinator(group_api::find_coordinator(broker, request, version))
        }
        RequestKind::JoinGroup(request) => {
            ResponseKind::JoinGroup(broker.groups.join(request, version, caller).await)
        }
        RequestKind::SyncGroup(request) => {
            ResponseKind::SyncGroup(broker.groups.sync(request).await)
        }
        RequestKind::Heartbeat(request) => {
            ResponseKind::Heartbeat(broker.groups.heartbeat(&request))
        }
        RequestKind::LeaveGroup(request) => {
            ResponseKind::LeaveGroup(group_api::leave(broker, request, version))
        }
        RequestKind::DescribeGroups(request) => {
            ResponseKind::DescribeGroups(group_api::describe(broker, request))
        }
        RequestKind::ListGroups(_) => ResponseKind::ListGroups(group_api::list(broker)),
        RequestKind::DeleteGroups(request) => {
            ResponseKind::DeleteGroups(group_api::delete(broker, request))
        }
        RequestKind::OffsetCommit(request) => {
            ResponseKind::OffsetCommit(group_api::commit(broker, request))
        }
        RequestKind::OffsetFetch(request) => {
            ResponseKind::OffsetFetch(group_api::fetch_offsets(broker, request, version))
        }
        // APIs without a supported version have been rejected already.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::MetadataRequest;
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

    use super::*;

    fn by_id(id: uuid::Uuid) -> MetadataRequest {
        let topic = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
        MetadataRequest::default().with_topics(Some(vec![topic]))
    }

    #[tokio::test]
    async fn describes_topics_by_name_and_by_id_in_every_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9092));
        let broker = Broker::open(folder.path(), address).expect("opens");
        for index in 0..5 {
            broker.topics.create(&format!("t{index}"), 1).expect("creates");
        }
        let (min, max) = versions(ApiKey::Metadata).expect("supported");
        assert!(max >= 12, "clients need topic ids, and null names in requests with ids");
        for version in min..=max {
            let everything = MetadataRequest::default().with_topics(None);
            let all = topic_api::metadata(&broker, everything, version);
            let ids: Vec<uuid::Uuid> = all.topics.iter().map(|topic| topic.topic_id).collect();
            assert_eq!(ids.len(), 5);
            ResponseKind::Metadata(all).encode(&mut BytesMut::new(), version).expect("encodes");
            if version < 10 {
                continue;
            }
            let found = topic_api::metadata(&broker, by_id(ids[3]), version);
            assert_eq!(found.topics[0].name.as_ref().map(|name| name.as_str()), Some("t3"));
            let unknown = topic_api::metadata(&broker, by_id(uuid::Uuid::new_v4()), version);
            assert_eq!(unknown.topics[0].error_code, ResponseError::UnknownTopicId.code());
            ResponseKind::Metadata(unknown).encode(&mut BytesMut::new(), version).expect("encodes");
        }
    }
}
