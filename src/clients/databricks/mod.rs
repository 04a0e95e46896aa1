//! Calls of Databricks' REST API: with the token, tried again where the workspace is busy.

pub mod auth;

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::databricks::auth::Credentials;

/// How often a call is tried while the workspace is busy or away.
const ATTEMPTS: usize = 7;
/// Longest that one call may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Speaks to one workspace. Every call that is made through it may be repeated.
#[derive(Clone)]
pub struct Databricks {
    http: reqwest::Client,
    login: Credentials,
}

/// A call that was answered with an error, or not at all.
#[derive(Debug)]
pub struct ApiError {
    /// Databricks' own word, such as `RESOURCE_DOES_NOT_EXIST`; empty where nobody answered.
    pub code: String,
    pub error: Error,
    /// How long the workspace asks to wait.
    retry_after: Option<Duration>,
}

impl From<ApiError> for Error {
    fn from(refused: ApiError) -> Self {
        refused.error
    }
}

impl Databricks {
    /// # Errors
    /// It is not known which workspace, or with which token.
    pub fn open(config: &Config) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .build()
            .context(|| "cannot set up an HTTP client")?;
        Ok(Self {
            http,
            login: Credentials::find(config)?,
        })
    }

    /// The workspace's address.
    pub fn host(&self) -> &str {
        &self.login.host
    }

    /// Asks for something, with parameters of the query.
    ///
    /// # Errors
    /// Refused, or no answer after several attempts.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, ApiError> {
        let text: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(query)
            .finish();
        let target = if query.is_empty() {
            path.to_string()
        } else {
            format!("{path}?{text}")
        };
        self.call(Method::GET, path, &target, String::new()).await
    }

    /// Does something that may be done twice.
    ///
    /// # Errors
    /// Refused, or no answer after several attempts.
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
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter();
        let mut pauses = pauses.with_max_times(ATTEMPTS - 1).build();
        loop {
            let refused = match self.once(&method, path, target, body.clone()).await {
                Ok(text) => {
                    let text = if text.is_empty() { "{}" } else { &text };
                    return serde_json::from_str(text).map_err(|error| ApiError {
                        code: String::new(),
                        error: Error::failed(format!(
                            "Databricks answered `{path}` with something unexpected"
                        ))
                        .with_source(error)
                        .hint("does the address name a Databricks workspace?"),
                        retry_after: None,
                    });
                }
                Err(refused) => refused,
            };
            let pause = pauses.next().filter(|_| refused.error.is_retryable());
            let Some(pause) = pause else {
                return Err(refused);
            };
            tracing::info!(error = %refused.error, ?pause, "trying again");
            tokio::time::sleep(
                refused
                    .retry_after
                    .map_or(pause, |asked| asked.min(LONGEST_PAUSE)),
            )
            .await;
        }
    }

    async fn once(
        &self,
        method: &Method,
        path: &str,
        target: &str,
        body: String,
    ) -> Result<String, ApiError> {
        let request = self
            .http
            .request(method.clone(), format!("{}{target}", self.login.host));
        let request = request
            .bearer_auth(self.login.token.expose_secret())
            .header("user-agent", concat!("pinpipe/", env!("CARGO_PKG_VERSION")));
        let request = if body.is_empty() {
            request
        } else {
            request
                .header("content-type", "application/json")
                .body(body)
        };
        let unanswered = |error: reqwest::Error| ApiError {
            code: String::new(),
            error: Error::failed(format!("cannot reach Databricks at {}", self.login.host))
                .with_source(error.without_url())
                .hint("check the address (DATABRICKS_HOST or `databricks.host`) and the network")
                .retryable(true),
            retry_after: None,
        };
        let answer = request.send().await.map_err(unanswered)?;
        let status = answer.status();
        let seconds = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let text = answer.text().await.map_err(unanswered)?;
        if status.is_success() {
            return Ok(text);
        }
        Err(ApiError {
            retry_after: seconds.map(Duration::from_secs),
            ..refused(path, status, &text)
        })
    }
}

/// What an answer that is none says to people.
fn refused(path: &str, status: StatusCode, text: &str) -> ApiError {
    let said: Value = serde_json::from_str(text).unwrap_or_default();
    // Some refusals give a number there, which says no more than the status.
    let code = said["error_code"].as_str().unwrap_or_default().to_string();
    let message = said["message"]
        .as_str()
        .map_or_else(|| first_line(text), String::from);
    let request = said["details"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|detail| detail["request_id"].as_str());
    let request = request
        .map(|id| format!(" (request {id})"))
        .unwrap_or_default();
    let what = if code.is_empty() {
        status.to_string()
    } else {
        format!("{code} ({})", status.as_u16())
    };
    let hint = match status {
        StatusCode::UNAUTHORIZED => {
            "the token is wrong or has expired: make a new one in the workspace (Settings, Developer, Access tokens)"
        }
        StatusCode::FORBIDDEN => {
            "the token is wrong, or its user may not do this: ask an administrator of the workspace"
        }
        StatusCode::NOT_FOUND if code.is_empty() => "does the address name a Databricks workspace?",
        StatusCode::TOO_MANY_REQUESTS => {
            "Databricks refuses so many calls for the moment: wait a minute and run the same command again"
        }
        _ if status.is_server_error() => "run the same command again: it goes on from here",
        _ => "check what `[databricks]` says in the configuration",
    };
    let is_transient = matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504);
    let error = Error::failed(format!(
        "Databricks refused `{path}`: {what}: {message}{request}"
    ))
    .hint(hint)
    .retryable(is_transient);
    ApiError {
        code,
        error,
        retry_after: None,
    }
}

/// The beginning of a text that is no JSON.
fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or("no message");
    line.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_code_message_and_request() {
        let text = r#"{"error_code":"INVALID_PARAMETER_VALUE","message":"Node type x is not supported","details":[{"request_id":"r-1"}]}"#;
        let refused = refused("/api/2.2/jobs/runs/submit", StatusCode::BAD_REQUEST, text);
        let said = refused.error.to_string();
        assert!(
            said.contains(
                "INVALID_PARAMETER_VALUE (400): Node type x is not supported (request r-1)"
            ),
            "{said}"
        );
        assert!(!refused.error.is_retryable() && refused.code == "INVALID_PARAMETER_VALUE");
    }

    #[test]
    fn a_page_of_a_proxy_is_cut_short() {
        let refused = refused("/x", StatusCode::BAD_GATEWAY, "<html>\nlong");
        assert!(
            refused
                .error
                .to_string()
                .ends_with("502 Bad Gateway: <html>")
                && refused.error.is_retryable()
        );
    }
}
