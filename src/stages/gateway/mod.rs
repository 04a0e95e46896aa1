//! The gateway: Kafka REST Proxy v2 over Kafka, and the `/streams` routes over Kinesis. Requests
//! are rejected until the routes are deployed, as on Amazon API Gateway.

pub mod body;
pub mod metadata;
pub mod produce;
pub mod response;
pub mod routes;
pub mod streams;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::FutureProducer;
use tokio::sync::Semaphore;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::clients::kafka::context::Context;
use crate::stages::gateway::routes::Routes;

/// Maximum number of requests processed at a time, once their bodies have been received. Further
/// requests wait.
const MAX_CONCURRENT_REQUESTS: usize = 48;

/// Clients, settings and caches that the routes share.
pub struct Gateway {
    config: Config,
    routes: Arc<Routes>,
    producer: FutureProducer<Context>,
    /// Used for metadata and offsets only; it consumes no records.
    consumer: Arc<BaseConsumer<Context>>,
    topics: metadata::TopicCache,
    kinesis: aws_sdk_kinesis::Client,
    bodies: body::BodyReader,
    /// Acquired after the body was read, so that a slow client does not delay other clients.
    permits: Semaphore,
}

impl Gateway {
    /// Creates the clients without a request to Kafka or Kinesis.
    pub async fn new(config: &Config, routes: Arc<Routes>) -> Result<Arc<Self>> {
        let consumer = Arc::new(crate::clients::kafka::consumer(config, "pinpipe-gateway")?);
        crate::clients::kafka::auth::refresh_tokens_in_background(config, &consumer);
        Ok(Arc::new(Self {
            config: config.clone(),
            routes,
            producer: crate::clients::kafka::producer(config)?,
            consumer,
            topics: metadata::TopicCache::default(),
            kinesis: crate::clients::aws::kinesis(config).await?,
            bodies: body::BodyReader::new(config.gateway.body_limit_bytes),
            permits: Semaphore::new(MAX_CONCURRENT_REQUESTS),
        }))
    }

    /// Returns the router of the gateway.
    pub fn router(self: Arc<Self>) -> Router {
        let body_limit = self.config.gateway.body_limit_bytes;
        let mut router = Router::new();
        // The REST Proxy accepts its paths with and without a trailing slash.
        for end in ["", "/"] {
            router = router
                .route(&format!("/topics{end}"), get(metadata::list_topics))
                .route(
                    &format!("/topics/{{topic}}{end}"),
                    get(metadata::describe_topic).post(produce::to_topic),
                )
                .route(
                    &format!("/topics/{{topic}}/partitions{end}"),
                    get(metadata::list_partitions),
                )
                .route(
                    &format!("/topics/{{topic}}/partitions/{{partition}}{end}"),
                    get(metadata::describe_partition).post(produce::to_partition),
                )
                .route(
                    &format!("/topics/{{topic}}/partitions/{{partition}}/offsets{end}"),
                    get(metadata::partition_offsets),
                )
                .route(&format!("/brokers{end}"), get(metadata::list_brokers));
        }
        router
            .route("/streams", get(streams::list))
            .route(
                "/streams/{stream}",
                get(streams::describe).post(streams::create).delete(streams::delete),
            )
            .route("/streams/{stream}/record", put(streams::put_record))
            .route("/streams/{stream}/records", put(streams::put_records))
            .route("/", post(response::not_found))
            .fallback(response::not_found)
            .method_not_allowed_fallback(response::method_not_allowed)
            .layer(from_fn_with_state(self.clone(), process))
            .layer(DefaultBodyLimit::max(body_limit))
            .with_state(self)
    }
}

/// Receives the body of a request, then lets its route respond. Rejects every request until the
/// routes are deployed, as Amazon API Gateway does.
async fn process(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    if gateway.routes.current().is_none() {
        return response::api_gateway(
            axum::http::StatusCode::FORBIDDEN,
            "no routes are deployed here: run `pinpipe api deploy` or `pinpipe provision`",
        );
    }
    let (mut parts, body) = request.into_parts();
    let encoding = parts.headers.remove(header::CONTENT_ENCODING);
    let received = match gateway.bodies.read(body, encoding.as_ref()).await {
        Ok(received) => received,
        Err(error) => return error.into_response(),
    };
    // The header has the length of the body as it was sent, possibly compressed.
    parts.headers.remove(header::CONTENT_LENGTH);
    // Cannot fail: the semaphore is never closed.
    let _permit = gateway.permits.acquire().await;
    let request = Request::from_parts(parts, Body::from(received.bytes.clone()));
    response::with_json_error(next.run(request).await)
}
