//! Client of the Airflow REST API, reached through MWAA.

use std::time::{Duration, Instant};

use aws_sdk_mwaa::types::RestApiMethod;
use aws_smithy_types::{Document, Number};
use backon::{ExponentialBuilder, Retryable};
use serde_json::Value;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::clients::aws::call::{CallContext, RESUME_HINT, code};

/// Maximum attempts of one request while Airflow is unavailable.
const MAX_ATTEMPTS: usize = 5;
/// Time after which retries are reported to the user.
const QUIET_RETRIES: Duration = Duration::from_secs(3);

/// The REST API of one Airflow environment.
pub struct AirflowApi {
    client: aws_sdk_mwaa::Client,
    environment: String,
}

/// A request that failed.
#[derive(Debug)]
pub struct Refusal {
    /// HTTP status of Airflow, such as 404; 0 if the request did not reach Airflow.
    pub status: i32,
    pub error: Error,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl AirflowApi {
    /// Creates a client for the configured environment.
    pub fn of(config: &Config, client: aws_sdk_mwaa::Client) -> Self {
        Self { client, environment: config.airflow_name() }
    }

    pub async fn get(&self, path: &str, query: Value) -> Result<Value, Refusal> {
        self.call(RestApiMethod::Get, path, Some(query).filter(|query| !query.is_null()), None)
            .await
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        self.call(RestApiMethod::Post, path, None, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        self.call(RestApiMethod::Patch, path, None, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, Refusal> {
        self.call(RestApiMethod::Delete, path, None, None).await
    }

    /// Sends a request and retries it while Airflow is unavailable. Every request must therefore be
    /// idempotent.
    async fn call(
        &self,
        method: RestApiMethod,
        path: &str,
        query: Option<Value>,
        body: Option<Value>,
    ) -> Result<Value, Refusal> {
        let send = || self.send_once(method.clone(), path, query.clone(), body.clone());
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(300))
            .with_max_times(MAX_ATTEMPTS - 1)
            .with_jitter();
        let (started, mut retry) = (Instant::now(), 0);
        send.retry(pauses)
            .when(|refusal| refusal.status >= 500)
            .notify(|refusal, _| {
                retry += 1;
                if started.elapsed() >= QUIET_RETRIES {
                    let error = &refusal.error;
                    tracing::warn!("{error}; retrying ({retry} of {})", MAX_ATTEMPTS - 1);
                }
            })
            .await
    }

    async fn send_once(
        &self,
        method: RestApiMethod,
        path: &str,
        query: Option<Value>,
        body: Option<Value>,
    ) -> Result<Value, Refusal> {
        let call =
            self.client.invoke_rest_api().name(&self.environment).method(method.clone()).path(path);
        let call = call
            .set_query_parameters(query.as_ref().map(document))
            .set_body(body.as_ref().map(document));
        let error = match call.send().await {
            Ok(response) => {
                return Ok(response.rest_api_response.as_ref().map(value).unwrap_or_default());
            }
            Err(error) => error,
        };
        use aws_sdk_mwaa::operation::invoke_rest_api::InvokeRestApiError as Kind;
        let (status, body) = match error.as_service_error() {
            Some(Kind::RestApiClientException(failure)) => {
                (failure.rest_api_status_code(), failure.rest_api_response().map(value))
            }
            Some(Kind::RestApiServerException(failure)) => {
                (failure.rest_api_status_code(), failure.rest_api_response().map(value))
            }
            _ => (None, None),
        };
        let request =
            format!("`{} {path}` of Airflow environment `{}`", method.as_str(), self.environment);
        let Some(status) = status else {
            let failure = if code(&error) == "ResourceNotFoundException" {
                Error::failed(format!(
                    "Airflow environment `{}` does not exist",
                    self.environment
                ))
                .hint(
                    "run `pinpipe provision` to create the environment (takes about half an hour), \
                     or set `airflow.name` to another one",
                )
            } else {
                error.call_context("airflow:InvokeRestApi", &request)
            };
            return Err(Refusal { status: 0, error: failure });
        };
        let body = body.unwrap_or_default();
        // `detail` is a string in Airflow 2. In Airflow 3 it can also be an object or a list.
        let message = [&body["detail"], &body["title"], &body["message"]]
            .into_iter()
            .find_map(Value::as_str)
            .map(String::from);
        // Only the messages, because other fields may repeat the request, which can contain a
        // token.
        let detail_messages = || {
            body["detail"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|detail| detail["msg"].as_str())
                .collect::<Vec<_>>()
                .join("; ")
        };
        let message = message
            .or_else(|| body["detail"]["reason"].as_str().map(String::from))
            .unwrap_or_else(detail_messages);
        let error = Error::failed(format!("{request} failed with status {status}: {message}"))
            .retryable(status >= 500);
        let error = if status >= 500 {
            error.generic_hint(RESUME_HINT)
        } else {
            error.hint("see the logs on the web page of the environment")
        };
        Err(Refusal { status, error })
    }
}

fn document(value: &Value) -> Document {
    match value {
        Value::Null => Document::Null,
        Value::Bool(flag) => Document::Bool(*flag),
        Value::Number(number) => Document::Number(match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Number::PosInt(number),
            (_, Some(number)) => Number::NegInt(number),
            _ => Number::Float(number.as_f64().unwrap_or_default()),
        }),
        Value::String(text) => Document::String(text.clone()),
        Value::Array(items) => Document::Array(items.iter().map(document).collect()),
        Value::Object(members) => Document::Object(
            members.iter().map(|(key, member)| (key.clone(), document(member))).collect(),
        ),
    }
}

fn value(document: &Document) -> Value {
    match document {
        Document::Null => Value::Null,
        Document::Bool(flag) => Value::Bool(*flag),
        Document::Number(Number::PosInt(number)) => (*number).into(),
        Document::Number(Number::NegInt(number)) => (*number).into(),
        Document::Number(Number::Float(number)) => (*number).into(),
        Document::String(text) => text.as_str().into(),
        Document::Array(items) => items.iter().map(value).collect(),
        Document::Object(members) => {
            members.iter().map(|(key, member)| (key.clone(), value(member))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn converts_json_to_a_document_and_back() {
        let json = json!({"a": [1, -2, 2.5, true, null, "x"], "b": {}});
        assert_eq!(value(&document(&json)), json);
    }
}
