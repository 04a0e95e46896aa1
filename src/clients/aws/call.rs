//! What a failed call to AWS says to people.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::RequestId;

use crate::base::error::Error;

/// A call that failed: the IAM action it needs, and what it was about.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a>(pub &'a str, pub &'a str);

/// A call that should have made something and failed.
#[derive(Debug)]
pub struct CreateError {
    pub error: Error,
    /// The call may have had its effect all the same.
    pub outcome_unknown: bool,
}

/// What can be done where nothing better is known.
const GO_ON: &str = "run the same command again: it goes on from here";
/// S3 answers a HEAD without a word.
const UNSAID: &str = "the answer does not say why: either the credentials have expired or are wrong, or this user or role may not do this";
/// Hints that any other one is better than.
pub const VAGUE_HINTS: [&str; 2] = [GO_ON, UNSAID];

/// Codes of services that are busy or broken for the moment.
const BROKEN_CODES: [&str; 5] = [
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InternalServerErrorException",
    "ServiceUnavailable",
];

/// Codes of calls that were refused because there were too many.
const BUSY_CODES: [&str; 9] = [
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

/// The service's code; empty where no service answered.
pub fn code<E>(error: &SdkError<E>) -> &str
where
    E: ProvideErrorMetadata,
{
    error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
        .unwrap_or_default()
}

/// The HTTP status of an answer.
fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

/// What a failed call says: the service's code, its message and the request id.
pub fn describe<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E>: RequestId,
{
    let request = error
        .request_id()
        .map(|id| format!(" (request {id})"))
        .unwrap_or_default();
    match error.as_service_error() {
        Some(service) if service.code().is_some() => {
            format!(
                "{}: {}{request}",
                service.code().unwrap_or_default(),
                service.message().unwrap_or("no message")
            )
        }
        // Answers to HEAD say nothing but a number.
        Some(service)
            if service.message().is_none() && status(error).is_some_and(|status| status >= 400) =>
        {
            format!("HTTP {}{request}", status(error).unwrap_or_default())
        }
        // An answer that makes no sense has no code: what the SDK makes of it is all there is to say.
        _ => format!("{}{request}", causes(error)),
    }
}

/// What an error and its causes say, each once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        // Some chains of credentials speak in lines of their own.
        let text = error
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    parts.join(": ")
}

/// A failed call as an error with the usual advice.
pub fn failure<E>(action: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E>: RequestId,
{
    let hint = hint(error).unwrap_or("`pinpipe doctor` tests every connection");
    Error::failed(action)
        .with_source(describe(error))
        .hint(hint)
        .retryable(is_retryable(error))
}

/// A failed call that needs a permission, with advice that names it.
pub fn failed<E>(Call(action, on): Call<'_>, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E>: RequestId,
{
    let failure = Error::failed(format!("`{action}` for {on} failed"))
        .with_source(describe(error))
        .retryable(is_retryable(error));
    let code = code(error);
    if is_denied(code) {
        return failure
            .hint(format!("allow the action `{action}` to this user or role, then run the same command again: it goes on from here"));
    }
    if is_quota(code) {
        return failure
            .hint("a quota of the account is used up: ask for more in Service Quotas, or delete what nobody uses, then run again");
    }
    failure.hint(hint(error).unwrap_or(GO_ON))
}

impl CreateError {
    /// A failed call that was to make something.
    pub fn new<E>(call: Call<'_>, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        SdkError<E>: RequestId,
    {
        Self {
            error: failed(call, error),
            outcome_unknown: is_retryable(error) && !BUSY_CODES.contains(&code(error)),
        }
    }
}

/// Whether a call was refused for want of a permission.
pub fn is_access_denied<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    is_denied(code(error))
}

/// Each service has a code of its own for it: `VcpuLimitExceeded`, `ServiceQuotaExceededException`.
fn is_quota(code: &str) -> bool {
    code.contains("LimitExceeded") && !BUSY_CODES.contains(&code)
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
    ) || BROKEN_CODES.contains(&code)
        || BUSY_CODES.contains(&code)
        || code == "LimitExceededException"
}

fn hint<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&'static str> {
    Some(match (error, code(error)) {
        (SdkError::DispatchFailure(failure), _) if failure.is_other() => {
            "no usable credentials were found: set AWS_PROFILE, `aws.profile` or AWS_ACCESS_KEY_ID, or log in (`aws sso login`)"
        }
        (SdkError::DispatchFailure(_) | SdkError::TimeoutError(_), _) => {
            "is the endpoint up and reachable from here? AWS_ENDPOINT_URL or `aws.endpoint_url` may name another one than AWS's; `pinpipe local` starts the local one; `pinpipe doctor` tests every connection"
        }
        (SdkError::ConstructionFailure(_), _) => {
            "no usable credentials were found: set AWS_PROFILE, `aws.profile` or AWS_ACCESS_KEY_ID"
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
            "the credentials have expired or are wrong: log in again (`aws sso login`) or renew them"
        }
        (SdkError::ServiceError(told), "")
            if told.err().message().is_none() && matches!(status(error), Some(400 | 401 | 403)) =>
        {
            UNSAID
        }
        (_, code) if is_denied(code) => {
            "this user or role lacks a permission that the message names"
        }
        (_, "ResourceNotFoundException") => "`pinpipe provision` makes what the pipeline needs",
        (_, code) if BUSY_CODES.contains(&code) => {
            "AWS refuses so many calls for the moment: wait a minute and run the same command again"
        }
        _ => return None,
    })
}
