//! Responses and errors in the formats of the Kafka REST Proxy and Amazon API Gateway.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

/// Content type of the Kafka REST Proxy.
const KAFKA_JSON: &str = "application/vnd.kafka.v2+json";

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: &impl Serialize,
) -> Response<Body> {
    // Serialising plain data cannot fail.
    let mut response = Response::new(Body::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns a successful response of the Kafka REST Proxy.
pub fn kafka(body: &impl Serialize) -> Response<Body> {
    respond(StatusCode::OK, KAFKA_JSON, body)
}

/// Returns a response of a `/streams` route with the body of Kinesis.
pub fn kinesis(status: StatusCode, body: &Value) -> Response<Body> {
    respond(status, "application/json", body)
}

/// Returns an error of API Gateway itself.
pub fn api_gateway(status: StatusCode, message: &str) -> Response<Body> {
    respond(status, "application/json", &json!({ "message": message }))
}

/// Returns the response to a refused request, in the format of the API to which its path belongs.
pub fn refuse(request: &Request, status: StatusCode, message: &str) -> Response<Body> {
    if request.uri().path().starts_with("/streams") {
        return api_gateway(status, message);
    }
    respond(status, KAFKA_JSON, &json!({ "error_code": status.as_u16(), "message": message }))
}

/// Error of the Kafka REST Proxy.
#[derive(Debug)]
pub struct RestError {
    status: StatusCode,
    code: u32,
    message: String,
}

impl RestError {
    pub fn topic_not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, code: 40401, message: "Topic not found.".into() }
    }

    pub fn partition_not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, code: 40402, message: "Partition not found.".into() }
    }

    pub fn unsupported_media_type() -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code: 415,
            message: "HTTP 415 Unsupported Media Type".into(),
        }
    }

    pub fn request_timeout() -> Self {
        Self {
            status: StatusCode::REQUEST_TIMEOUT,
            code: 408,
            message: "HTTP 408 Request Timeout".into(),
        }
    }

    pub fn too_large() -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: 413,
            message: "HTTP 413 Payload Too Large".into(),
        }
    }

    /// The body is JSON, but not a valid request.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, code: 422, message: message.into() }
    }

    /// A key or value cannot be converted to bytes.
    pub fn conversion(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, code: 42203, message: message.into() }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: 400, message: message.into() }
    }

    pub fn kafka(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: 50002, message: message.into() }
    }
}

impl axum::response::IntoResponse for RestError {
    fn into_response(self) -> Response<Body> {
        respond(
            self.status,
            KAFKA_JSON,
            &json!({ "error_code": self.code, "message": self.message }),
        )
    }
}

/// Replaces a plain-text error of the HTTP library, such as for a path that is not UTF-8, with the
/// JSON error of the REST Proxy. Returns any other response unchanged.
pub fn with_json_error(response: Response<Body>) -> Response<Body> {
    let is_plain_text = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
    let status = response.status();
    if !status.is_client_error() || !is_plain_text {
        return response;
    }
    respond(
        status,
        KAFKA_JSON,
        &json!({ "error_code": status.as_u16(), "message": format!("HTTP {status}") }),
    )
}

pub async fn not_found() -> Response<Body> {
    respond(
        StatusCode::NOT_FOUND,
        KAFKA_JSON,
        &json!({ "error_code": 404, "message": "HTTP 404 Not Found" }),
    )
}

pub async fn method_not_allowed() -> Response<Body> {
    respond(
        StatusCode::METHOD_NOT_ALLOWED,
        KAFKA_JSON,
        &json!({ "error_code": 405, "message": "HTTP 405 Method Not Allowed" }),
    )
}
