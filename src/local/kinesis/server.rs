//! HTTP in front of the operations: the JSON protocol and both CBOR ones.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use axum::routing::post;
use serde_json::{Value, json};

use crate::local::kinesis::actions;
use crate::local::kinesis::cbor;
use crate::local::kinesis::error::KinesisError;
use crate::local::kinesis::store::Store;

/// Largest request body: a full PutRecords in base64, with room for its frame.
const BODY_BYTES: usize = 16 * 1024 * 1024;

/// How a request is written, and therefore its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Json,
    /// CBOR in the place of JSON, as the Java SDK speaks.
    Cbor,
    /// Smithy's RPC v2, where the path names the operation.
    RpcV2Cbor,
}

/// The endpoint as a router.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/", post(handle))
        .route("/{*path}", post(handle))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(store)
}

async fn handle(
    State(store): State<Store>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let protocol = if text("smithy-protocol") == "rpc-v2-cbor" {
        Protocol::RpcV2Cbor
    } else if text("content-type").starts_with("application/x-amz-cbor") {
        Protocol::Cbor
    } else {
        Protocol::Json
    };
    let operation = match protocol {
        Protocol::RpcV2Cbor => uri
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_string(),
        _ => text("x-amz-target")
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_string(),
    };
    let parsed = match protocol {
        _ if body.is_empty() => Ok(json!({})),
        Protocol::Json => serde_json::from_slice(&body)
            .map_err(|error| KinesisError::serialization(error.to_string())),
        Protocol::Cbor | Protocol::RpcV2Cbor => cbor::decode(&body),
    };
    let outcome = match parsed {
        // To the end, also where the client does not wait: a stream must not be half made.
        Ok(parsed) => {
            tokio::spawn(async move { actions::perform(&store, &operation, &parsed).await })
                .await
                .unwrap_or_else(|error| Err(KinesisError::internal(error)))
        }
        Err(fault) => Err(fault),
    };
    let (status, answer, error_type) = match outcome {
        Ok(answer) => (StatusCode::OK, answer, None),
        Err(fault) => (
            fault.status,
            json!({ "__type": fault.name, "message": fault.message }),
            Some(fault.name),
        ),
    };
    respond(protocol, status, &answer, error_type)
}

fn respond(
    protocol: Protocol,
    status: StatusCode,
    answer: &Value,
    error_type: Option<&'static str>,
) -> Response<Body> {
    let body = match (protocol, answer) {
        (Protocol::Json, Value::Null) => Vec::new(),
        (Protocol::Json, answer) => answer.to_string().into_bytes(),
        (_, answer) => cbor::encode(answer, protocol == Protocol::RpcV2Cbor),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let content_type = match protocol {
        Protocol::Json => "application/x-amz-json-1.1",
        Protocol::Cbor => "application/x-amz-cbor-1.1",
        Protocol::RpcV2Cbor => "application/cbor",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    if protocol == Protocol::RpcV2Cbor {
        headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    }
    if let Some(error_type) = error_type {
        headers.insert("x-amzn-errortype", HeaderValue::from_static(error_type));
    }
    response
}
