//! Airflow's own REST API, which MWAA passes requests on to.

use std::time::Duration;

use aws_sdk_mwaa::types::RestApiMethod;
use aws_smithy_types::{Document, Number};
use backon::{ExponentialBuilder, Retryable};
use serde_json::Value;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::clients::aws::call::{Call, code, failed};

/// How often a request is made while Airflow is away.
const ATTEMPTS: usize = 5;

/// One environment's API.
pub struct AirflowApi {
    client: aws_sdk_mwaa::Client,
    environment: String,
}

/// A request that was answered with an error.
#[derive(Debug)]
pub struct Refusal {
    /// Airflow's own status, such as 404; 0 where MWAA did not ask it.
    pub status: i32,
    pub error: Error,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl AirflowApi {
    /// That of the configuration's environment.
    pub fn of(config: &Config, client: aws_sdk_mwaa::Client) -> Self {
        Self {
            client,
            environment: config.airflow_name(),
        }
    }

    pub async fn get(&self, path: &str, query: Value) -> Result<Value, Refusal> {
        self.call(
            RestApiMethod::Get,
            path,
            Some(query).filter(|query| !query.is_null()),
            None,
        )
        .await
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        self.call(RestApiMethod::Post, path, None, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        self.call(RestApiMethod::Patch, path, None, Some(body))
            .await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, Refusal> {
        self.call(RestApiMethod::Delete, path, None, None).await
    }

    /// Tried again where Airflow is away for the moment: every request that is made here may be made twice.
    async fn call(
        &self,
        method: RestApiMethod,
        path: &str,
        query: Option<Value>,
        body: Option<Value>,
    ) -> Result<Value, Refusal> {
        let asking = || self.once(method.clone(), path, query.clone(), body.clone());
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(300))
            .with_max_times(ATTEMPTS - 1)
            .with_jitter();
        asking
            .retry(pauses)
            .when(|refusal| refusal.status >= 500)
            .await
    }

    async fn once(
        &self,
        method: RestApiMethod,
        path: &str,
        query: Option<Value>,
        body: Option<Value>,
    ) -> Result<Value, Refusal> {
        let request = self
            .client
            .invoke_rest_api()
            .name(&self.environment)
            .method(method.clone())
            .path(path);
        let request = request
            .set_query_parameters(query.as_ref().map(document))
            .set_body(body.as_ref().map(document));
        let error = match request.send().await {
            Ok(answer) => {
                return Ok(answer
                    .rest_api_response
                    .as_ref()
                    .map(value)
                    .unwrap_or_default());
            }
            Err(error) => error,
        };
        use aws_sdk_mwaa::operation::invoke_rest_api::InvokeRestApiError as Kind;
        let (status, said) = match error.as_service_error() {
            Some(Kind::RestApiClientException(refused)) => (
                refused.rest_api_status_code(),
                refused.rest_api_response().map(value),
            ),
            Some(Kind::RestApiServerException(refused)) => (
                refused.rest_api_status_code(),
                refused.rest_api_response().map(value),
            ),
            _ => (None, None),
        };
        let what = format!(
            "`{} {path}` of Airflow environment `{}`",
            method.as_str(),
            self.environment
        );
        let Some(status) = status else {
            let failure = if code(&error) == "ResourceNotFoundException" {
                Error::failed(format!("there is no Airflow environment `{}`", self.environment))
                    .hint("`pinpipe provision` makes it, which takes half an hour; `airflow.name` names another")
            } else {
                failed(Call("airflow:InvokeRestApi", &what), &error)
            };
            return Err(Refusal {
                status: 0,
                error: failure,
            });
        };
        let said = said.unwrap_or_default();
        // Airflow 2 has texts there, 3 also objects and lists.
        let message = [&said["detail"], &said["title"], &said["message"]]
            .into_iter()
            .find_map(Value::as_str)
            .map(String::from);
        // Never the whole of it: it may repeat what was sent, a token among that.
        let listed = || {
            said["detail"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|each| each["msg"].as_str())
                .collect::<Vec<_>>()
                .join("; ")
        };
        let message = message
            .or_else(|| said["detail"]["reason"].as_str().map(String::from))
            .unwrap_or_else(listed);
        let hint = if status >= 500 {
            "run the same command again: it goes on from here"
        } else {
            "the environment's web page shows more, with its logs"
        };
        let error = Error::failed(format!("Airflow refused {what} with {status}: {message}"))
            .hint(hint)
            .retryable(status >= 500);
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
            members
                .iter()
                .map(|(key, member)| (key.clone(), document(member)))
                .collect(),
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
        Document::Object(members) => members
            .iter()
            .map(|(key, member)| (key.clone(), value(member)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn any_json_goes_there_and_back() {
        let all = json!({"a": [1, -2, 2.5, true, null, "x"], "b": {}});
        assert_eq!(value(&document(&all)), all);
    }
}
