//! AWS SDK clients: one configuration, one way to show their errors.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::RequestId;

use crate::config::{Config, Target};
use crate::error::{Error, Result};

/// Configuration that all clients share: region, profile, endpoint, credentials.
pub async fn sdk_config(config: &Config) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new(config.aws.region.clone()));
    if !config.aws.profile.is_empty() {
        loader = loader.profile_name(&config.aws.profile);
    }
    if !config.aws.endpoint_url.is_empty() {
        loader = loader.endpoint_url(&config.aws.endpoint_url);
    }
    loader.load().await
}

/// A client of the Kinesis endpoint that the configuration resolves to.
///
/// # Errors
/// Target local and no local stack running.
pub async fn kinesis(config: &Config) -> Result<aws_sdk_kinesis::Client> {
    let url = config.endpoints().kinesis_url()?;
    if config.target == Target::Local {
        // The local endpoint takes any credentials; looking for real ones would cost seconds.
        let mut client = aws_sdk_kinesis::Config::builder();
        client.set_behavior_version(Some(aws_sdk_kinesis::config::BehaviorVersion::latest()));
        client.set_region(Some(Region::new(config.aws.region.clone())));
        client.set_credentials_provider(Some(SharedCredentialsProvider::new(Credentials::new(
            "local",
            "local",
            None,
            None,
            "pinpipe local",
        ))));
        client.set_endpoint_url(url);
        return Ok(aws_sdk_kinesis::Client::from_conf(client.build()));
    }
    let shared = sdk_config(config).await;
    let mut client = aws_sdk_kinesis::config::Builder::from(&shared);
    if url.is_some() {
        client.set_endpoint_url(url);
    }
    Ok(aws_sdk_kinesis::Client::from_conf(client.build()))
}

/// Codes of services that are busy or broken for the moment.
const TRANSIENT_CODES: [&str; 7] = [
    "InternalFailure",
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ServiceUnavailable",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// What a failed call says: the service's code, its message and the request id.
pub fn describe<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
    SdkError<E, R>: RequestId,
{
    let request = error.request_id().map(|id| format!(" (request {id})")).unwrap_or_default();
    match error.as_service_error() {
        Some(service) => format!("{}: {}{request}", service.code().unwrap_or("unknown error"), service.message().unwrap_or("no message")),
        None => format!("{}{request}", causes(error)),
    }
}

/// What an error and its causes say, each once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    parts.join(": ")
}

/// A failed call as an error with the usual advice.
pub fn failure<E, R>(action: &str, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
    SdkError<E, R>: RequestId,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default();
    let hint = match (error, code) {
        (SdkError::DispatchFailure(_) | SdkError::TimeoutError(_), _) => {
            "is the endpoint up and reachable from here? `pinpipe local` starts the local one; `pinpipe doctor` tests every connection"
        }
        (SdkError::ConstructionFailure(_), _) => "no usable credentials were found: set AWS_PROFILE, `aws.profile` or AWS_ACCESS_KEY_ID",
        (_, "ExpiredTokenException" | "ExpiredToken" | "UnrecognizedClientException" | "InvalidClientTokenId") => {
            "the credentials have expired or are wrong: log in again (`aws sso login`) or renew them"
        }
        (_, "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation") => {
            "this user or role lacks a permission that the message names"
        }
        (_, "ResourceNotFoundException") => "`pinpipe provision` makes what the pipeline needs",
        _ => "`pinpipe doctor` tests every connection",
    };
    let is_transient = matches!(error, SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) | SdkError::ResponseError(_))
        || TRANSIENT_CODES.contains(&code);
    Error::failed(action).because(describe(error)).hint(hint).transient(is_transient)
}
