//! Errors in the format of Kinesis.

use axum::http::StatusCode;

/// An error response: name and message of the exception.
#[derive(Debug)]
pub struct KinesisError {
    pub name: &'static str,
    pub message: String,
    pub status: StatusCode,
}

impl KinesisError {
    fn client(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, message: message.into(), status: StatusCode::BAD_REQUEST }
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::client("ValidationException", message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::client("InvalidArgumentException", message)
    }

    pub fn stream_not_found(name: &str) -> Self {
        Self::client(
            "ResourceNotFoundException",
            format!("Stream {name} under account 000000000000 not found."),
        )
    }

    pub fn shard_not_found(shard: &str, stream: &str) -> Self {
        Self::client(
            "ResourceNotFoundException",
            format!("Could not find shard {shard} in stream {stream} under account 000000000000."),
        )
    }

    pub fn in_use(name: &str) -> Self {
        Self::client(
            "ResourceInUseException",
            format!("Stream {name} under account 000000000000 already exists."),
        )
    }

    pub fn expired_iterator() -> Self {
        Self::client(
            "ExpiredIteratorException",
            "Iterator expired: shard iterators are valid for 5 minutes.",
        )
    }

    pub fn serialization(message: impl Into<String>) -> Self {
        Self::client("SerializationException", message)
    }

    pub fn unknown_operation(name: &str) -> Self {
        Self::client(
            "UnknownOperationException",
            format!("The local Kinesis endpoint does not offer {name}."),
        )
    }

    /// The file cannot be read or written; the client may retry.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "the local Kinesis store failed");
        Self {
            name: "InternalFailure",
            message: format!("the local Kinesis store failed: {error}"),
            status: StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<sqlx::Error> for KinesisError {
    fn from(error: sqlx::Error) -> Self {
        Self::internal(error)
    }
}
