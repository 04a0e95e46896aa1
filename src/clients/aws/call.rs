//! Turns failed AWS calls into errors with a cause and a hint.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::RequestId;

use crate::base::error::{Error, Result};

/// Converts the failure of an AWS call into an [`Error`] whose hint names the missing permission.
pub trait CallContext {
    type Output;

    /// `action` is the IAM action that the call requires, `on` the resource of the call.
    fn call_context(self, action: &str, on: &str) -> Self::Output;
}

/// A failed call that creates a resource.
#[derive(Debug)]
pub struct CreateError {
    pub error: Error,
    /// The resource may have been created despite the error.
    pub outcome_unknown: bool,
}

/// Hint for errors without a more specific one.
pub const RESUME_HINT: &str = "re-run the command to resume";
/// Hint for a denied HEAD request of S3, whose response has no body.
const NO_REASON_HINT: &str = "check the credentials: AWS gave no reason, but they may be \
    expired or lack permission for this action";

/// Error codes of temporary failures of the service.
const SERVICE_FAILURE_CODES: [&str; 5] = [
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InternalServerErrorException",
    "ServiceUnavailable",
];

/// Error codes of throttled calls.
const THROTTLING_CODES: [&str; 9] = [
    "BandwidthLimitExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
];

/// Returns the error code of the service; empty without a response.
pub fn code<E>(error: &SdkError<E>) -> &str
where
    E: ProvideErrorMetadata,
{
    error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default()
}

/// Returns the HTTP status of the response.
fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Describes a failed call: error code, message and request id.
pub fn describe<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E>: RequestId,
{
    let request = error.request_id().map(|id| format!(" (request {id})")).unwrap_or_default();
    match error.as_service_error() {
        Some(service) if service.code().is_some() => {
            format!(
                "{}: {}{request}",
                service.code().unwrap_or_default(),
                service.message().unwrap_or("no message")
            )
        }
        // Responses to HEAD have a status and no body.
        Some(service)
            if service.message().is_none() && status(error).is_some_and(|status| status >= 400) =>
        {
            format!("HTTP {}{request}", status(error).unwrap_or_default())
        }
        // A response that cannot be parsed has no code, only the description of the SDK.
        _ => format!("{}{request}", causes(error)),
    }
}

/// Joins the texts of an error and its causes, without repetitions.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        // Errors of credential providers may contain line breaks.
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    parts.join(": ")
}

/// Converts a failed call into an error with a general hint.
pub fn failure<E>(action: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E>: RequestId,
{
    let hint = hint(error).unwrap_or("run `pinpipe doctor` to test every connection");
    Error::failed(action).with_source(describe(error)).hint(hint).retryable(is_retryable(error))
}

impl<T, E> CallContext for std::result::Result<T, SdkError<E>>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E>: RequestId,
{
    type Output = Result<T>;

    fn call_context(self, action: &str, on: &str) -> Result<T> {
        self.map_err(|error| error.call_context(action, on))
    }
}

impl<E> CallContext for SdkError<E>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E>: RequestId,
{
    type Output = Error;

    fn call_context(self, action: &str, on: &str) -> Error {
        let code = code(&self);
        let message = self.as_service_error().and_then(ProvideErrorMetadata::message);
        let failure = Error::failed(format!("`{action}` for {on} failed"))
            .with_source(describe(&self))
            .with_service_error(code, message.unwrap_or_default())
            .retryable(is_retryable(&self));
        if is_denied(code) {
            return failure.hint(format!(
                "allow the action `{action}` for this user or role, then {RESUME_HINT}"
            ));
        }
        if is_quota(code) {
            return failure.hint(
                "a quota of the account is exhausted: request an increase in Service Quotas or \
                 delete unused resources, then re-run the command",
            );
        }
        match hint(&self) {
            _ if gives_no_reason(&self) => failure.generic_hint(NO_REASON_HINT),
            Some(hint) => failure.hint(hint),
            None => failure.generic_hint(RESUME_HINT),
        }
    }
}

impl CreateError {
    /// Converts a failed call that creates a resource.
    pub fn new<E>(action: &str, on: &str, error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        SdkError<E>: RequestId,
    {
        let outcome_unknown = is_retryable(&error) && !THROTTLING_CODES.contains(&code(&error));
        Self { error: error.call_context(action, on), outcome_unknown }
    }
}

/// Returns true if the caller is not authorized for the call.
pub fn is_access_denied<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    is_denied(code(error))
}

/// Returns true for an exceeded quota. The codes differ by service: `VcpuLimitExceeded`,
/// `ServiceQuotaExceededException`.
fn is_quota(code: &str) -> bool {
    code.contains("LimitExceeded") && !THROTTLING_CODES.contains(&code)
        || code.contains("QuotaExceeded")
        || code == "TooManyBuckets"
}

fn is_denied(code: &str) -> bool {
    matches!(
        code,
        "AccessDeniedException"
            | "AccessDenied"
            | "UnauthorizedOperation"
            | "UnauthorizedException"
            | "ForbiddenException"
    )
}

fn is_retryable<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let code = code(error);
    matches!(
        error,
        SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) | SdkError::ResponseError(_)
    ) || SERVICE_FAILURE_CODES.contains(&code)
        || THROTTLING_CODES.contains(&code)
        || code == "LimitExceededException"
}

/// Whether the service denied access without a code or a message, as S3 does for HEAD.
fn gives_no_reason<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let SdkError::ServiceError(response) = error else {
        return false;
    };
    code(error).is_empty()
        && response.err().message().is_none()
        && matches!(status(error), Some(400 | 401 | 403))
}

fn hint<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&'static str> {
    Some(match (error, code(error)) {
        (SdkError::DispatchFailure(failure), _) if failure.is_other() => {
            "no usable credentials found: set AWS_PROFILE, `aws.profile` or AWS_ACCESS_KEY_ID, \
             or authenticate with `aws sso login`"
        }
        (SdkError::DispatchFailure(_) | SdkError::TimeoutError(_), _) => {
            "check that the endpoint is up and reachable (`pinpipe doctor` tests every \
             connection); AWS_ENDPOINT_URL and `aws.endpoint_url` replace the endpoint of AWS, \
             and `pinpipe local` starts the local one"
        }
        (SdkError::ConstructionFailure(_), _) => {
            "no usable credentials found: set AWS_PROFILE, `aws.profile` or AWS_ACCESS_KEY_ID"
        }
        (
            _,
            "ExpiredTokenException"
            | "ExpiredToken"
            | "RequestExpired"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "AuthFailure"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch",
        ) => {
            "the credentials are expired or invalid: renew them, or authenticate with \
             `aws sso login`"
        }
        _ if gives_no_reason(error) => NO_REASON_HINT,
        (_, code) if is_denied(code) => {
            "grant this user or role the permission that the message names"
        }
        (_, "ResourceNotFoundException") => {
            "run `pinpipe provision` to create the resources of the pipeline"
        }
        (_, code) if THROTTLING_CODES.contains(&code) => {
            "AWS throttles the calls of this account: wait a minute, then re-run the command"
        }
        _ => return None,
    })
}
