//! The HTTP server: the JSON protocol and both CBOR protocols.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use axum::routing::post;
use serde_json::{Value, json};

use crate::local::kinesis::actions;
use crate::local::kinesis::cbor;
use crate::local::kinesis::error::KinesisError;
use crate::local::kinesis::store::Store;

/// Maximum size of a request body: a full PutRecords request in base64, plus its JSON structure.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Protocol of a request and its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Json,
    /// CBOR instead of JSON, used by the Java SDK.
    Cbor,
    /// Smithy RPC v2 CBOR, with the operation in the path.
    RpcV2Cbor,
}

impl Protocol {
    /// Returns the protocol of a request with these headers.
    fn of(headers: &HeaderMap) -> Self {
        if text(headers, "smithy-protocol") == "rpc-v2-cbor" {
            Self::RpcV2Cbor
        } else if text(headers, "content-type").starts_with("application/x-amz-cbor") {
            Self::Cbor
        } else {
            Self::Json
        }
    }
}

/// Returns a header as text, empty if it is missing.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Returns the router of the endpoint.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/", post(handle))
        .route("/{*path}", post(handle))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(store)
}

async fn handle(
    State(store): State<Store>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let protocol = Protocol::of(&headers);
    let operation = match protocol {
        Protocol::RpcV2Cbor => uri.path().rsplit('/').next().unwrap_or_default().to_string(),
        _ => text(&headers, "x-amz-target").rsplit('.').next().unwrap_or_default().to_string(),
    };
    let parsed = match protocol {
        _ if body.is_empty() => Ok(json!({})),
        Protocol::Json => serde_json::from_slice(&body)
            .map_err(|error| KinesisError::serialization(error.to_string())),
        Protocol::Cbor | Protocol::RpcV2Cbor => cbor::decode(&body),
    };
    let outcome = match parsed {
        // Spawned, so that an operation completes even if the client disconnects: a stream must not
        // be created partially.
        Ok(parsed) => {
            tokio::spawn(async move { actions::perform(&store, &operation, &parsed).await })
                .await
                .unwrap_or_else(|error| Err(KinesisError::internal(error)))
        }
        Err(error) => Err(error),
    };
    let (status, content, error_type) = match outcome {
        Ok(content) => (StatusCode::OK, content, None),
        Err(error) => (error.status, error_json(error.name, &error.message), Some(error.name)),
    };
    respond(protocol, status, &content, error_type)
}

fn error_json(name: &str, message: &str) -> Value {
    json!({ "__type": name, "message": message })
}

/// Returns the response to a refused request.
pub fn refuse(request: &Request, status: StatusCode, message: &str) -> Response<Body> {
    const NAME: &str = "AccessDeniedException";
    let protocol = Protocol::of(request.headers());
    respond(protocol, status, &error_json(NAME, message), Some(NAME))
}

fn respond(
    protocol: Protocol,
    status: StatusCode,
    content: &Value,
    error_type: Option<&'static str>,
) -> Response<Body> {
    let body = match (protocol, content) {
        (Protocol::Json, Value::Null) => Vec::new(),
        (Protocol::Json, content) => content.to_string().into_bytes(),
        (_, content) => cbor::encode(content, protocol == Protocol::RpcV2Cbor),
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
