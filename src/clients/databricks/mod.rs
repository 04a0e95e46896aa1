//! Client of the Databricks REST API, with retries while the workspace is busy or unreachable.

pub mod auth;

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::aws::call::RESUME_HINT;
use crate::clients::databricks::auth::Credentials;
use crate::clients::http::root_cause;

/// Maximum attempts of one call while the workspace is busy or unreachable.
const MAX_ATTEMPTS: usize = 7;
/// Time after which retries are reported to the user.
const QUIET_RETRIES: Duration = Duration::from_secs(3);
/// Maximum duration of one attempt.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// A client of one workspace. Every call through it must be idempotent, because it may be retried.
#[derive(Clone)]
pub struct Databricks {
    http: reqwest::Client,
    credentials: Credentials,
}

/// A call that failed or got no response.
#[derive(Debug)]
pub struct ApiError {
    /// Error code of Databricks, such as `RESOURCE_DOES_NOT_EXIST`; empty without a response.
    pub code: String,
    pub error: Error,
    /// Pause that the workspace requests before the next attempt (`Retry-After`).
    retry_after: Option<Duration>,
}

impl From<ApiError> for Error {
    fn from(failure: ApiError) -> Self {
        failure.error
    }
}

impl Databricks {
    /// Creates a client for the configured workspace.
    ///
    /// # Errors
    /// Workspace or token is not configured.
    pub fn open(config: &Config) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .build()
            .context(|| "cannot create an HTTP client")?;
        Ok(Self { http, credentials: Credentials::find(config)? })
    }

    /// Returns the address of the workspace.
    pub fn host(&self) -> &str {
        &self.credentials.host
    }

    /// Sends a GET request with query parameters.
    ///
    /// # Errors
    /// The call fails, or gets no response after several attempts.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, ApiError> {
        let text: String =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let target = if query.is_empty() { path.to_string() } else { format!("{path}?{text}") };
        self.call(Method::GET, path, &target, String::new()).await
    }

    /// Sends a POST request, which must be idempotent.
    ///
    /// # Errors
    /// The call fails, or gets no response after several attempts.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ApiError> {
        self.call(Method::POST, path, path, body.to_string()).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        target: &str,
        body: String,
    ) -> Result<T, ApiError> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(300))
            .with_max_delay(MAX_PAUSE)
            .with_jitter();
        let mut pauses = pauses.with_max_times(MAX_ATTEMPTS - 1).build();
        let (started, mut retry) = (Instant::now(), 0);
        loop {
            let failure = match self.send_once(&method, path, target, body.clone()).await {
                Ok(text) => {
                    let text = if text.is_empty() { "{}" } else { &text };
                    return serde_json::from_str(text).map_err(|error| ApiError {
                        code: String::new(),
                        error: Error::failed(format!(
                            "unexpected response from Databricks to `{path}`"
                        ))
                        .with_source(error)
                        .hint("check that the address is that of a Databricks workspace"),
                        retry_after: None,
                    });
                }
                Err(failure) => failure,
            };
            let pause = pauses.next().filter(|_| failure.error.is_retryable());
            let Some(pause) = pause else {
                return Err(failure);
            };
            retry += 1;
            if started.elapsed() >= QUIET_RETRIES {
                tracing::warn!("{}; retrying ({retry} of {})", failure.error, MAX_ATTEMPTS - 1);
            } else {
                tracing::info!(error = %failure.error, ?pause, "retrying");
            }
            tokio::time::sleep(
                failure.retry_after.map_or(pause, |requested| requested.min(MAX_PAUSE)),
            )
            .await;
        }
    }

    async fn send_once(
        &self,
        method: &Method,
        path: &str,
        target: &str,
        body: String,
    ) -> Result<String, ApiError> {
        let request =
            self.http.request(method.clone(), format!("{}{target}", self.credentials.host));
        let request = request
            .bearer_auth(self.credentials.token.expose_secret())
            .header("user-agent", concat!("pinpipe/", env!("CARGO_PKG_VERSION")));
        let request = if body.is_empty() {
            request
        } else {
            request.header("content-type", "application/json").body(body)
        };
        let unreachable = |error: reqwest::Error| ApiError {
            code: String::new(),
            error: Error::failed(format!("cannot reach Databricks at {}", self.credentials.host))
                .with_source(root_cause(error))
                .hint("check the address (DATABRICKS_HOST or `databricks.host`) and the network")
                .retryable(true),
            retry_after: None,
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let seconds = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let text = response.text().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(text);
        }
        Err(ApiError {
            retry_after: seconds.map(Duration::from_secs),
            ..api_error(path, status, &text)
        })
    }
}

/// Converts an error response into an [`ApiError`].
fn api_error(path: &str, status: StatusCode, text: &str) -> ApiError {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    // Some responses contain the HTTP status as a numeric error code, which is ignored.
    let code = body["error_code"].as_str().unwrap_or_default().to_string();
    let message = body["message"].as_str().map_or_else(|| first_line(text), String::from);
    let request = body["details"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|detail| detail["request_id"].as_str());
    let request = request.map(|id| format!(" (request {id})")).unwrap_or_default();
    let reason =
        if code.is_empty() { status.to_string() } else { format!("{code} ({})", status.as_u16()) };
    let hint = match status {
        StatusCode::UNAUTHORIZED => {
            "the token is invalid or expired: create a new one in the workspace (Settings, \
             Developer, Access tokens)"
        }
        StatusCode::FORBIDDEN => {
            "the token is invalid or its user is not authorized: ask an administrator of the \
             workspace"
        }
        StatusCode::NOT_FOUND if code.is_empty() => {
            "check that the address is that of a Databricks workspace"
        }
        StatusCode::TOO_MANY_REQUESTS => {
            "Databricks throttles the calls: wait a minute, then re-run the command"
        }
        _ => "check `[databricks]` in the configuration",
    };
    let is_transient = matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504);
    let error =
        Error::failed(format!("Databricks call `{path}` failed: {reason}: {message}{request}"))
            .retryable(is_transient);
    let error =
        if status.is_server_error() { error.generic_hint(RESUME_HINT) } else { error.hint(hint) };
    ApiError { code, error, retry_after: None }
}

/// Returns the first line of a response that is not JSON, at most 200 characters.
fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or("no message");
    line.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_an_error_by_code_message_and_request() {
        let text = r#"{"error_code":"INVALID_PARAMETER_VALUE","message":"Node type x is not supported","details":[{"request_id":"r-1"}]}"#;
        let failure = api_error("/api/2.2/jobs/runs/submit", StatusCode::BAD_REQUEST, text);
        let message = failure.error.to_string();
        assert!(
            message.contains(
                "INVALID_PARAMETER_VALUE (400): Node type x is not supported (request r-1)"
            ),
            "{message}"
        );
        assert!(!failure.error.is_retryable() && failure.code == "INVALID_PARAMETER_VALUE");
    }

    #[test]
    fn shortens_the_error_page_of_a_proxy() {
        let failure = api_error("/x", StatusCode::BAD_GATEWAY, "<html>\nlong");
        assert!(
            failure.error.to_string().ends_with("502 Bad Gateway: <html>")
                && failure.error.is_retryable()
        );
    }
}
